"""Tests of agent/layers/strategies/policy/capital.py: who gives, receives and pays, to the base unit."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.strategies.policy import capital
from agent.layers.strategies.policy.capital import StrategyHoldings
from agent.layers.strategies.state import StrategyBook, StrategyHealth, StrategyState
from tests.support.builders import split, strategy

EQUAL_PRICES = dict.fromkeys("ABC", Fraction(1))


def values(raw_by_token: Mapping[str, int]) -> dict[str, Fraction]:
    return {token: Fraction(raw) for token, raw in raw_by_token.items()}


# --- distribution


@pytest.mark.parametrize(
    ("raw", "shares", "parts"),
    [
        pytest.param(10, {"a": 1, "b": 2}, {"a": 3, "b": 7}, id="positive"),
        pytest.param(-10, {"a": 1, "b": 2}, {"a": -3, "b": -7}, id="negative"),
        pytest.param(4, {"a": 0, "b": 0}, {"a": 2, "b": 2}, id="no shares"),
        pytest.param(1, {"a": 0, "b": 2}, {"a": 0, "b": 1}, id="one share, one unit"),
        pytest.param(-1, {"a": 0, "b": 2}, {"a": 0, "b": -1}, id="one share, one unit less"),
        pytest.param(7, {"a": 0, "b": 3}, {"a": 0, "b": 7}, id="one share"),
        pytest.param(0, {"a": 1, "b": 2}, {"a": 0, "b": 0}, id="nothing"),
    ],
)
def test_split_follows_the_shares_and_sums_to_the_whole(raw: int, shares: dict[str, int], parts: dict[str, int]) -> None:
    assert capital.split_pro_rata(raw, values(shares)) == parts


def test_split_without_strategies_is_refused() -> None:
    with pytest.raises(ValueError, match="no strategies"):
        capital.split_pro_rata(5, {})


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        pytest.param(10, {"a": 4, "b": 6, "c": 0}, id="all"),
        pytest.param(5, {"a": 2, "b": 3, "c": 0}, id="half"),
        pytest.param(0, {"a": 0, "b": 0, "c": 0}, id="nothing"),
    ],
)
def test_take_is_by_holdings(raw: int, parts: dict[str, int]) -> None:
    assert capital.take_pro_rata(raw, "A", {"a": {"A": 4}, "b": {"A": 6}, "c": {"B": 9}}) == parts


def test_take_of_a_unit_more_than_all_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="11 base units of A are more"):
        capital.take_pro_rata(11, "A", {"a": {"A": 4}, "b": {"A": 6}})


# --- transfers between strategies


@pytest.mark.parametrize(
    ("max_value", "first_values", "received"),
    [
        pytest.param(12, {"A": 3, "B": 5}, {"A": 5, "B": 6}, id="then the rest in kind"),
        pytest.param(6, {"A": 3, "B": 5}, {"A": 1, "B": 5}, id="the larger value first"),
        pytest.param(6, {"B": 4, "A": 4}, {"A": 4, "B": 2}, id="of equal ones by name"),
        pytest.param(10, {}, {"A": 5, "B": 5}, id="all in kind"),
        pytest.param(20, {}, {"A": 10, "B": 10}, id="all there is"),
        pytest.param(100, {}, {"A": 10, "B": 10}, id="more than there is"),
    ],
)
def test_transfer_moves_first_tokens_and_the_rest_in_kind(max_value: int, first_values: dict[str, int], received: dict[str, int]) -> None:
    """Of 12, 5 of B and 3 of A go first; a third of the rest of both is 2 and 1."""
    holdings: StrategyHoldings = {"a": {"A": 10, "B": 10}, "b": {}}

    moved_value = capital.transfer_value(holdings, "a", "b", Fraction(max_value), EQUAL_PRICES, values(first_values))

    assert holdings == {"a": {token: 10 - raw for token, raw in received.items()}, "b": received}
    assert moved_value == sum(received.values())


@pytest.mark.parametrize(("price", "moved_raw"), [(3, 2), (7, 1), (8, 0), (0, 0)])
def test_transfer_moves_whole_units_by_their_price(price: int, moved_raw: int) -> None:
    holdings: StrategyHoldings = {"a": {"A": 10}, "b": {}}

    assert capital.transfer_value(holdings, "a", "b", Fraction(7), {"A": Fraction(price)}) == moved_raw * price
    assert holdings == {"a": {"A": 10 - moved_raw}, "b": {"A": moved_raw} if price else {}}


@pytest.mark.parametrize(
    ("before", "targets", "payments"),
    [
        pytest.param((100, 20, 30), (70, 50, 30), {("a", "b"): 30}, id="one shortfall"),
        pytest.param((100, 0, 0), (50, 20, 30), {("a", "b"): 20, ("a", "c"): 30}, id="two shortfalls"),
        pytest.param((50, 50, 0), (40, 30, 30), {("a", "c"): 10, ("b", "c"): 20}, id="two excesses"),
        pytest.param((40, 30, 30), (40, 30, 30), {}, id="none"),
    ],
)
def test_restore_pays_shortfalls_by_excesses(
    before: tuple[int, ...], targets: tuple[int, ...], payments: dict[tuple[str, str], int]
) -> None:
    holdings: StrategyHoldings = {name: {"A": raw} for name, raw in zip("abc", before, strict=True)}
    target_values = {name: Fraction(value) for name, value in zip("abc", targets, strict=True)}

    assert capital.restore_capital_shares(holdings, target_values, EQUAL_PRICES) == payments
    assert capital.strategy_capital(holdings, EQUAL_PRICES) == target_values


def test_restore_first_gives_what_the_payer_does_not_want() -> None:
    holdings: StrategyHoldings = {"a": {"A": 50, "B": 50}, "b": {"A": 0, "B": 0}}
    wanted_values = {"a": {"A": Fraction(50), "B": Fraction(20)}, "b": {"A": Fraction(20)}}

    capital.restore_capital_shares(holdings, {"a": Fraction(80), "b": Fraction(20)}, EQUAL_PRICES, wanted_values)

    assert holdings == {"a": {"A": 50, "B": 30}, "b": {"A": 0, "B": 20}}


# --- netting


ADJUSTMENTS = {"a": {"A": Fraction(60)}, "b": {"A": Fraction(40)}, "c": {"A": Fraction(-30)}}


def test_netting_sums_purchases_and_sales_apart() -> None:
    [netted] = capital.net_adjustments(ADJUSTMENTS, ["A"])

    assert (netted.bought_value, netted.sold_value, netted.crossed_value, netted.net_value) == (100, 30, 30, 70)


@pytest.mark.parametrize("side", [1, -1], ids=["buyers", "sellers"])
def test_market_remainder_is_shared_by_the_heavier_side(side: int) -> None:
    adjustments = {name: {"A": side * adjustment["A"]} for name, adjustment in ADJUSTMENTS.items()}
    [netted] = capital.net_adjustments(adjustments, ["A"])

    assert capital.market_remainder(adjustments, netted) == {"a": side * 42, "b": side * 28, "c": 0}


@pytest.mark.parametrize(
    ("price", "after"),
    [pytest.param(2, (2, 3, 5), id="a price of 2"), pytest.param(0, (5, 0, 5), id="a price of zero")],
)
def test_net_internally_exchanges_at_the_reference_price(price: int, after: tuple[int, int, int]) -> None:
    """10 of value are offered and 6 bought."""
    holdings: StrategyHoldings = {"a": {"A": 5}, "b": {"A": 0}, "c": {"A": 5}}
    adjustments = {"a": {"A": Fraction(-10)}, "b": {"A": Fraction(6)}, "c": {}}

    capital.net_internally(holdings, adjustments, {"A": Fraction(price)}, ["A"])

    assert tuple(holdings[name]["A"] for name in "abc") == after


# --- trades


@pytest.mark.parametrize(
    ("holdings", "adjustments", "changes", "after", "costs"),
    [
        pytest.param(
            {"a": {"A": 0, "B": 50}, "b": {"A": 0, "B": 50}},
            {"a": {"A": 10, "B": -10}, "b": {}},
            {"A": 9, "B": -10},
            {"a": {"A": 9, "B": 40}, "b": {"A": 0, "B": 50}},
            {"a": 1, "b": 0},
            id="the buyer bears its cost",
        ),
        pytest.param(
            {"a": {"A": 2}, "b": {"A": 10}},
            {"a": {"A": -8}, "b": {}},
            {"A": -8},
            {"a": {"A": 0}, "b": {"A": 4}},
            {"a": 8, "b": 0},
            id="a sale beyond its holding",
        ),
        pytest.param(
            {"a": {"A": 300, "B": 0}, "b": {"A": 0, "B": 100}},
            {},
            {"A": -100, "B": 92},
            {"a": {"A": 200, "B": 94}, "b": {"A": 0, "B": 98}},
            {"a": 6, "b": 2},
            id="wanted by none, by capital",
        ),
        pytest.param({"a": {}, "b": {}}, {}, {"A": 10}, {"a": {"A": 5}, "b": {"A": 5}}, {"a": -5, "b": -5}, id="a gain without capital"),
        pytest.param({"a": {"A": 1}, "b": {}}, {}, {"A": 9}, {"a": {"A": 10}, "b": {"A": 0}}, {"a": -9, "b": 0}, id="a gain by capital"),
    ],
)
def test_trade_is_settled_by_who_wants_it(
    holdings: StrategyHoldings,
    adjustments: dict[str, dict[str, int]],
    changes: dict[str, int],
    after: StrategyHoldings,
    costs: dict[str, int],
) -> None:
    values_to_trade = {name: values(adjustment) for name, adjustment in adjustments.items()}

    assert capital.settle_trade(holdings, values_to_trade, changes, EQUAL_PRICES, sorted(changes)) == (after, costs)


def test_trade_between_strategies_needs_no_market() -> None:
    holdings = {"up": {"A": 0, "B": 1_000}, "down": {"A": 500, "B": 0}}
    prices = {"A": Fraction(2), "B": Fraction(1)}
    adjustments = {"up": {"A": Fraction(600), "B": Fraction(-600)}, "down": {"A": Fraction(-600), "B": Fraction(600)}}

    after, costs = capital.settle_trade(holdings, adjustments, {}, prices, "AB")

    assert [netted.net_value for netted in capital.net_adjustments(adjustments, "AB")] == [0, 0]
    assert after == {"up": {"A": 300, "B": 400}, "down": {"A": 200, "B": 600}}
    assert costs == {"up": 0, "down": 0}


def test_trade_shares_its_cost_though_one_fill_was_better() -> None:
    """Each sells 10 of A; the market gives 10 of B to the first and 6 of C to the second, a cost of 2 each."""
    adjustments = {"a": {"A": Fraction(-10), "B": Fraction(10)}, "b": {"A": Fraction(-10), "C": Fraction(10)}}

    after, costs = capital.settle_trade({"a": {"A": 10}, "b": {"A": 10}}, adjustments, {"A": -20, "B": 10, "C": 6}, EQUAL_PRICES, "ABC")

    assert costs == {"a": 2, "b": 2}
    assert capital.strategy_capital(after, EQUAL_PRICES) == {"a": 8, "b": 8}


def test_trade_pays_the_others_what_it_received_beyond_its_part() -> None:
    """The first sells C for A, the second A for B: A is exchanged between them, C is sold and B bought at a cost that both share."""
    holdings = {"a": {"A": 0, "B": 0, "C": 100}, "b": {"A": 100, "B": 0, "C": 0}}
    adjustments = {"a": {"A": Fraction(100), "C": Fraction(-100)}, "b": {"A": Fraction(-100), "B": Fraction(100)}}

    after, costs = capital.settle_trade(holdings, adjustments, {"C": -100, "B": 90}, EQUAL_PRICES, "ABC")

    assert costs == {"a": 5, "b": 5}
    assert after == {"a": {"A": 95, "B": 0, "C": 0}, "b": {"A": 5, "B": 90, "C": 0}}


def test_sale_beyond_the_strategies_wishes_is_given_by_all_holders() -> None:
    """The first wants to sell 1 of its 50 A, and 20 are sold for 18 B: the other 19 come from both, 17 of them at a cost by capital."""
    holdings = {"a": {"A": 50, "B": 50}, "b": {"A": 141, "B": 59}}
    adjustments = {"a": {"A": Fraction(-1), "B": Fraction(1)}}

    after, costs = capital.settle_trade(holdings, adjustments, {"A": -20, "B": 18}, EQUAL_PRICES, "AB")

    assert [after[name]["A"] for name in "ab"] == [44, 127]
    assert costs == {"a": 2 * (2 + Fraction(17, 3)) / 19, "b": 2 * Fraction(34, 3) / 19}


def test_sale_that_exceeds_the_wishes_by_its_cost_is_paid_by_who_wants_it() -> None:
    adjustments = {"a": {"A": Fraction(-10), "B": Fraction(10)}}

    _, costs = capital.settle_trade({"a": {"A": 50}, "b": {"A": 50}}, adjustments, {"A": -11, "B": 10}, EQUAL_PRICES, "AB")

    assert costs == {"a": 1, "b": 0}


# --- deposits and withdrawals


@pytest.mark.parametrize(
    ("before", "raw", "after"),
    [
        pytest.param((20, 48, 16), -36, (0, 36, 12), id="the rest by capital"),
        pytest.param((20, 12, 4), -28, (0, 6, 2), id="the rest of little capital"),
        pytest.param((20, 12, 4), -20, (0, 12, 4), id="exactly its own"),
        pytest.param((20, 12, 4), -36, (0, 0, 0), id="all there is"),
    ],
)
def test_withdrawal_beyond_a_strategy_is_borne_by_the_others(before: tuple[int, ...], raw: int, after: tuple[int, ...]) -> None:
    """Four base units are worth one; the first strategy withdraws."""
    holdings = {name: {"A": amount} for name, amount in zip("abc", before, strict=True)}

    settled = capital.apply_transfer(holdings, "A", raw, {"A": Fraction(1, 4)}, "a")

    assert tuple(settled[name]["A"] for name in "abc") == after


@pytest.mark.parametrize(
    ("raw", "only", "after"),
    [
        pytest.param(4, None, {"a": {"A": 33}, "b": {"A": 1, "B": 10}}, id="deposit by value"),
        pytest.param(4, "b", {"a": {"A": 30}, "b": {"A": 4, "B": 10}}, id="deposit to one"),
        pytest.param(4, "gone", {"a": {"A": 33}, "b": {"A": 1, "B": 10}}, id="deposit to a removed one"),
        pytest.param(-4, None, {"a": {"A": 26, "B": 1}, "b": {"B": 9}}, id="withdrawal by value"),
        pytest.param(-4, "b", {"a": {"A": 26, "B": 4}, "b": {"B": 6}}, id="withdrawal from one"),
        pytest.param(-4, "a", {"a": {"A": 26}, "b": {"B": 10}}, id="withdrawal from the other"),
        pytest.param(-12, "b", {"a": {"A": 18, "B": 10}, "b": {}}, id="withdrawal beyond one"),
        pytest.param(0, None, {"a": {"A": 30}, "b": {"B": 10}}, id="nothing"),
    ],
)
def test_transfer_of_the_wallet_is_borne_by_value(raw: int, only: str | None, after: StrategyHoldings) -> None:
    """The first holds 30 of A, the second 10 of B; who has none of A pays the holder in kind."""
    settled = capital.apply_transfer({"a": {"A": 30}, "b": {"B": 10}}, "A", raw, EQUAL_PRICES, only)

    assert {name: {token: raw for token, raw in raw_by_token.items() if raw} for name, raw_by_token in settled.items()} == after


# --- shares of the capital


@pytest.mark.parametrize(
    ("paused_names", "shares"),
    [
        pytest.param("", {"a": Fraction(6, 10), "b": Fraction(3, 10), "c": Fraction(1, 10)}, id="none paused"),
        pytest.param("a", {"a": Fraction(1, 10), "b": Fraction(27, 40), "c": Fraction(9, 40)}, id="one paused"),
        pytest.param("ab", {"a": Fraction(1, 10), "b": Fraction(0), "c": Fraction(9, 10)}, id="two paused"),
        pytest.param("abc", {"a": Fraction(6, 10), "b": Fraction(3, 10), "c": Fraction(1, 10)}, id="all paused"),
    ],
)
def test_capital_of_paused_strategies_is_their_floor(paused_names: str, shares: dict[str, Fraction]) -> None:
    config = split(strategy("a", 6_000, {"USDC": 10_000}, floor_bps=1_000), strategy("b", 3_000, {}), strategy("c", 1_000, {}))
    books = {
        name: StrategyBook(name, (), 0, StrategyState(name, StrategyHealth.PAUSED if name in paused_names else StrategyHealth.ACTIVE, 0))
        for name in "abc"
    }

    assert capital.target_capital_shares(config, books) == shares


# --- whatever is held, wanted and paid


TOKENS = ("A", "B", "C")
NAMES = ("a", "b", "c")
ANY_PRICES = st.fixed_dictionaries({token: st.fractions(Fraction(1, 10**6), 10**6, max_denominator=10**6) for token in TOKENS})
ANY_HOLDINGS = st.fixed_dictionaries({name: st.fixed_dictionaries(dict.fromkeys(TOKENS, st.integers(0, 10**12))) for name in NAMES})
Prices = dict[str, Fraction]


def total_raw(holdings: StrategyHoldings, token: str) -> int:
    return sum(raw_by_token.get(token, 0) for raw_by_token in holdings.values())


def rounding(prices: Prices) -> Fraction:
    """Return the value that whole base units cannot tell: one of each token for each pair of strategies, paid and shared."""
    return sum(prices.values(), Fraction(0)) * 4 * len(NAMES) ** 2


@st.composite
def any_adjustments(draw: st.DrawFn, holdings: StrategyHoldings, prices: Prices) -> dict[str, dict[str, Fraction]]:
    """Draw what each strategy wants to trade to spread its value otherwise, or nothing."""
    adjustments = {}
    for name, raw_by_token in holdings.items():
        capital_value = capital.holdings_value(raw_by_token, prices)
        parts = [Fraction(draw(st.integers(0, 10))) for _ in TOKENS]
        if draw(st.booleans()) or not sum(parts):
            adjustments[name] = dict.fromkeys(TOKENS, Fraction(0))
            continue
        adjustments[name] = {
            token: capital_value * part / sum(parts) - raw_by_token[token] * prices[token]
            for token, part in zip(TOKENS, parts, strict=True)
        }
    return adjustments


@given(st.data(), ANY_HOLDINGS, ANY_PRICES)
def test_trades_between_strategies_move_no_value(data: st.DataObject, holdings: StrategyHoldings, prices: Prices) -> None:
    after, costs = capital.settle_trade(holdings, data.draw(any_adjustments(holdings, prices)), {}, prices, TOKENS)

    assert all(total_raw(after, token) == total_raw(holdings, token) for token in TOKENS)
    assert min(raw for raw_by_token in after.values() for raw in raw_by_token.values()) >= 0
    assert set(costs.values()) == {Fraction(0)}
    for name, capital_value in capital.strategy_capital(holdings, prices).items():
        assert abs(capital.holdings_value(after[name], prices) - capital_value) <= rounding(prices)


@given(st.data(), ANY_HOLDINGS, ANY_PRICES)
def test_trade_is_shared_to_the_last_unit_and_its_cost_too(data: st.DataObject, holdings: StrategyHoldings, prices: Prices) -> None:
    adjustments = data.draw(any_adjustments(holdings, prices))
    filled_share = Fraction(data.draw(st.integers(0, 100)), 100)
    paid_share = 1 - Fraction(data.draw(st.integers(0, 100)), 10_000)
    changes = {
        netted.token: max(
            int(netted.net_value * filled_share * (paid_share if netted.net_value > 0 else 1) / prices[netted.token]),
            -total_raw(holdings, netted.token),
        )
        for netted in capital.net_adjustments(adjustments, TOKENS)
    }
    before = capital.strategy_capital(holdings, prices)

    after, costs = capital.settle_trade(holdings, adjustments, changes, prices, TOKENS)

    assert all(total_raw(after, token) == total_raw(holdings, token) + changes[token] for token in TOKENS)
    assert min(raw for raw_by_token in after.values() for raw in raw_by_token.values()) >= 0
    assert sum(costs.values(), Fraction(0)) == -sum((raw * prices[token] for token, raw in changes.items()), Fraction(0))
    for name, cost in costs.items():
        unpaid_value = max(Fraction(0), cost - before[name])
        assert abs(before[name] - cost - capital.holdings_value(after[name], prices)) <= rounding(prices) + unpaid_value


@given(st.data(), ANY_HOLDINGS, ANY_PRICES)
def test_market_fills_no_more_than_the_net_of_all(data: st.DataObject, holdings: StrategyHoldings, prices: Prices) -> None:
    adjustments = data.draw(any_adjustments(holdings, prices))

    for netted in capital.net_adjustments(adjustments, TOKENS):
        remainders = capital.market_remainder(adjustments, netted).values()
        wanted_value = sum((abs(adjustment[netted.token]) for adjustment in adjustments.values()), Fraction(0))
        assert sum(remainders, Fraction(0)) == netted.net_value
        assert sum(map(abs, remainders), Fraction(0)) == abs(netted.net_value)
        assert abs(netted.net_value) + 2 * netted.crossed_value == wanted_value


@given(st.data(), ANY_HOLDINGS, ANY_PRICES, st.sampled_from(TOKENS), st.sampled_from([None, *NAMES]))
def test_transfer_is_borne_by_capital_or_by_its_strategy(
    data: st.DataObject, holdings: StrategyHoldings, prices: Prices, token: str, only: str | None
) -> None:
    raw = data.draw(st.integers(-total_raw(holdings, token), 10**12))
    before = capital.strategy_capital(holdings, prices)
    total_before = sum(before.values(), Fraction(0))
    transfer_value = raw * prices[token]

    after = capital.apply_transfer(holdings, token, raw, prices, only)

    assert total_raw(after, token) == total_raw(holdings, token) + raw
    assert all(total_raw(after, other) == total_raw(holdings, other) for other in TOKENS if other != token)
    assert min(raw for raw_by_token in after.values() for raw in raw_by_token.values()) >= 0
    if total_before == 0 or (only is not None and before[only] + transfer_value < 0):
        return
    for name, value_before in before.items():
        share = Fraction(name == only) if only else value_before / total_before
        assert abs(capital.holdings_value(after[name], prices) - value_before - transfer_value * share) <= rounding(prices)


@given(ANY_HOLDINGS, ANY_PRICES, st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(lambda parts: sum(parts) > 0))
def test_restored_capital_is_as_targeted_and_moves_no_token(holdings: StrategyHoldings, prices: Prices, parts: list[int]) -> None:
    after = capital.copy_holdings(holdings)
    total_value = sum(capital.strategy_capital(holdings, prices).values(), Fraction(0))
    target_values = {name: total_value * part / sum(parts) for name, part in zip(NAMES, parts, strict=True)}

    capital.restore_capital_shares(after, target_values, prices)

    assert all(total_raw(after, token) == total_raw(holdings, token) for token in TOKENS)
    assert all(abs(value - target_values[name]) <= rounding(prices) for name, value in capital.strategy_capital(after, prices).items())
