"""Capital of strategies in small figures: who gives, receives and pays, to the base unit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.strategies.policy import accounting, capital
from agent.layers.strategies.policy.netting import capital_signals
from agent.layers.strategies.state import StrategiesState, StrategyBook, StrategyBooks, StrategyHealth, StrategyState
from agent.model import Holding, StepInput
from tests.support.builders import ETHER, NOW_S, opening, split, step_input, strategy, token, with_snapshot

ONE = dict.fromkeys("AB", Fraction(1))
USDC = token("USDC").address
WETH = token("WETH").address
Holdings = dict[str, dict[str, int]]


# Distribution


@pytest.mark.parametrize(
    ("raw", "shares", "parts"),
    [
        pytest.param(10, {"a": 1, "b": 2}, {"a": 3, "b": 7}, id="positive"),
        pytest.param(-10, {"a": 1, "b": 2}, {"a": -3, "b": -7}, id="negative"),
        pytest.param(4, {"a": 0, "b": 0}, {"a": 2, "b": 2}, id="no shares"),
        pytest.param(-1, {"a": 0, "b": 2}, {"a": 0, "b": -1}, id="one share, negative"),
        pytest.param(1, {"a": 0, "b": 2}, {"a": 0, "b": 1}, id="one share, one unit"),
        pytest.param(7, {"a": 0, "b": 3}, {"a": 0, "b": 7}, id="one share"),
        pytest.param(0, {"a": 1, "b": 2}, {"a": 0, "b": 0}, id="nothing"),
    ],
)
def test_split__parts_follow_the_shares_and_sum_to_the_whole(raw: int, shares: dict[str, int], parts: dict[str, int]) -> None:
    assert capital.split_pro_rata(raw, {name: Fraction(share) for name, share in shares.items()}) == parts


@pytest.mark.parametrize(("raw", "parts"), [(10, {"a": 4, "b": 6}), (5, {"a": 2, "b": 3}), (0, {"a": 0, "b": 0})])
def test_take__all_that_strategies_hold_may_be_taken(raw: int, parts: dict[str, int]) -> None:
    assert capital.take_pro_rata(raw, "A", {"a": {"A": 4}, "b": {"A": 6}}) == parts


def test_split__without_strategies_is_refused() -> None:
    with pytest.raises(ValueError, match="no strategies"):
        capital.split_pro_rata(5, {})


@pytest.mark.parametrize("raw", [0, 1, 4])
def test_take__strategy_without_the_token_gives_nothing(raw: int) -> None:
    assert capital.take_pro_rata(raw, "A", {"a": {"A": 4}, "b": {"B": 9}}) == {"a": raw, "b": 0}


@pytest.mark.parametrize("raw", [5, 6])
def test_take__more_than_all_strategies_hold_is_refused(raw: int) -> None:
    with pytest.raises(ValueError, match=f"{raw} base units of A are more"):
        capital.take_pro_rata(raw, "A", {"a": {"A": 4}, "b": {}})


# Transfers between strategies


def test_transfer__first_tokens_go_first_then_the_rest_in_kind() -> None:
    """Of 12, 5 of B and 3 of A go first; a third of the rest of both is 2 and 1."""
    holdings: Holdings = {"a": {"A": 10, "B": 10}, "b": {}}
    moved = capital.transfer_value(holdings, "a", "b", Fraction(12), ONE, {"A": Fraction(3), "B": Fraction(5)})
    assert (moved, holdings) == (11, {"a": {"A": 5, "B": 4}, "b": {"A": 5, "B": 6}})


@pytest.mark.parametrize(
    ("first_values", "received"),
    [({"A": 3, "B": 5}, {"A": 1, "B": 5}), ({"B": 4, "A": 4}, {"A": 4, "B": 2})],
    ids=["larger value", "name of equal ones"],
)
def test_transfer__of_the_first_tokens_the_largest_goes_first(first_values: dict[str, int], received: dict[str, int]) -> None:
    holdings: Holdings = {"a": {"A": 10, "B": 10}, "b": {}}
    values = {token_: Fraction(value) for token_, value in first_values.items()}
    assert capital.transfer_value(holdings, "a", "b", Fraction(6), ONE, values) == 6
    assert holdings["b"] == received


def test_transfer__no_more_moves_than_there_is() -> None:
    holdings: Holdings = {"a": {"A": 10, "B": 10}, "b": {"A": 1}}
    assert capital.transfer_value(holdings, "a", "b", Fraction(100), ONE) == 20
    assert holdings == {"a": {"A": 0, "B": 0}, "b": {"A": 11, "B": 10}}


def test_transfer__amount_of_a_token_is_its_value_by_its_price() -> None:
    holdings: Holdings = {"a": {"A": 10}, "b": {}}
    assert capital.transfer_value(holdings, "a", "b", Fraction(7), {"A": Fraction(3)}) == 6
    assert holdings == {"a": {"A": 8}, "b": {"A": 2}}


def test_restore__excess_pays_the_shortfall_and_equal_pays_nothing() -> None:
    holdings: Holdings = {"a": {"A": 100}, "b": {"A": 20}, "c": {"A": 30}}
    due = {"a": Fraction(70), "b": Fraction(50), "c": Fraction(30)}
    assert capital.restore_capital_shares(holdings, due, ONE) == {("a", "b"): 30}
    assert holdings == {"a": {"A": 70}, "b": {"A": 50}, "c": {"A": 30}}


def test_restore__excess_of_one_goes_to_each_shortfall() -> None:
    holdings: Holdings = {"a": {"A": 100}, "b": {"A": 0}, "c": {"A": 0}}
    due = {"a": Fraction(50), "b": Fraction(20), "c": Fraction(30)}
    assert capital.restore_capital_shares(holdings, due, ONE) == {("a", "b"): 20, ("a", "c"): 30}


def test_restore__payer_first_gives_what_it_does_not_wish() -> None:
    holdings: Holdings = {"a": {"A": 50, "B": 50}, "b": {"A": 0, "B": 0}}
    wish_by_strategy = {"a": {"A": Fraction(50), "B": Fraction(20)}, "b": {"A": Fraction(20)}}
    capital.restore_capital_shares(holdings, {"a": Fraction(80), "b": Fraction(20)}, ONE, wish_by_strategy)
    assert holdings == {"a": {"A": 50, "B": 30}, "b": {"A": 0, "B": 20}}


# Netting


WISHES = {"a": {"A": Fraction(60)}, "b": {"A": Fraction(40)}, "c": {"A": Fraction(-30)}}


def test_net__purchases_and_sales_are_summed_apart() -> None:
    [netted] = capital.net_adjustments(WISHES, ["A"])
    assert (netted.bought_value, netted.sold_value, netted.crossed_value, netted.net_value) == (100, 30, 30, 70)


@pytest.mark.parametrize("side", [1, -1])
def test_remainder__heavier_side_shares_what_the_market_fills(side: int) -> None:
    wishes = {name: {"A": side * wish["A"]} for name, wish in WISHES.items()}
    [netted] = capital.net_adjustments(wishes, ["A"])
    assert capital.market_remainder(wishes, netted) == {"a": side * 42, "b": side * 28, "c": 0}


def test_net_internally__seller_gives_at_the_reference_price() -> None:
    """10 of value are offered and 6 bought: 3 units at a price of 2."""
    holdings: Holdings = {"a": {"A": 5}, "b": {"A": 0}, "c": {"A": 5}}
    capital.net_internally(holdings, {"a": {"A": Fraction(-10)}, "b": {"A": Fraction(6)}, "c": {}}, {"A": Fraction(2)}, ["A"])
    assert holdings == {"a": {"A": 2}, "b": {"A": 3}, "c": {"A": 5}}


def test_settle__sale_beyond_the_holding_is_taken_from_all() -> None:
    holdings = {"a": {"A": 2}, "b": {"A": 10}}
    after, costs = capital.settle_trade(holdings, {"a": {"A": Fraction(-8)}, "b": {}}, {"A": -8}, ONE, ["A"])
    assert (after, costs) == ({"a": {"A": 0}, "b": {"A": 4}}, {"a": 8, "b": 0})


def test_settle__purchase_goes_to_the_buyer_who_bears_its_cost() -> None:
    holdings = {"a": {"A": 0, "B": 50}, "b": {"A": 0, "B": 50}}
    wishes = {"a": {"A": Fraction(10), "B": Fraction(-10)}, "b": {}}
    after, costs = capital.settle_trade(holdings, wishes, {"A": 9, "B": -10}, ONE, ["A", "B"])
    assert (after, costs) == ({"a": {"A": 9, "B": 40}, "b": {"A": 0, "B": 50}}, {"a": 1, "b": 0})


# Deposits and withdrawals


def test_settle__better_fill_pays_for_the_shared_cost() -> None:
    """Each sells 10 of A; the market gives 10 of B for one and 6 of C for the other, a cost of 2 each."""
    prices = dict.fromkeys("ABC", Fraction(1))
    adjustments = {"a": {"A": Fraction(-10), "B": Fraction(10)}, "b": {"A": Fraction(-10), "C": Fraction(10)}}
    before = {"a": {"A": 10}, "b": {"A": 10}}
    after, costs = capital.settle_trade(before, adjustments, {"A": -20, "B": 10, "C": 6}, prices, "ABC")
    assert costs == {"a": 2, "b": 2}
    assert capital.strategy_capital(after, prices) == {"a": 8, "b": 8}


def test_settle__gain_of_strategies_without_capital_is_equal() -> None:
    after, costs = capital.settle_trade({"a": {}, "b": {}}, {}, {"A": 10}, ONE, "A")
    assert (after, costs) == ({"a": {"A": 5}, "b": {"A": 5}}, {"a": -5, "b": -5})


def test_settle__gain_is_shared_by_capital_to_one_base_unit() -> None:
    after, costs = capital.settle_trade({"a": {"A": 1}, "b": {}}, {}, {"A": 9}, ONE, "A")
    assert (after["a"], costs) == ({"A": 10}, {"a": -9, "b": 0})


@pytest.mark.parametrize(
    ("before", "raw", "after"),
    [((20, 48, 16), -36, (0, 36, 12)), ((20, 12, 4), -28, (0, 6, 2)), ((20, 12, 4), -20, (0, 12, 4)), ((20, 12, 4), -36, (0, 0, 0))],
    ids=["by capital", "also a capital of one", "exactly its own", "all there is"],
)
def test_wallet_transfer__others_bear_by_capital_what_it_has_not(before: tuple[int, ...], raw: int, after: tuple[int, ...]) -> None:
    """Four base units are worth one; the first strategy withdraws."""
    holdings = {name: {"A": amount} for name, amount in zip("abc", before, strict=True)}
    result = capital.apply_transfer(holdings, "A", raw, {"A": Fraction(1, 4)}, "a")
    assert tuple(result[name]["A"] for name in "abc") == after


@pytest.mark.parametrize(
    ("raw", "only", "after"),
    [
        pytest.param(4, None, {"a": {"A": 33}, "b": {"A": 1, "B": 10}}, id="deposit by value"),
        pytest.param(4, "b", {"a": {"A": 30}, "b": {"A": 4, "B": 10}}, id="deposit to one"),
        pytest.param(-4, None, {"a": {"A": 26, "B": 1}, "b": {"B": 9}}, id="withdrawal by value"),
        pytest.param(-4, "b", {"a": {"A": 26, "B": 4}, "b": {"B": 6}}, id="withdrawal from one"),
        pytest.param(-4, "a", {"a": {"A": 26}, "b": {"B": 10}}, id="withdrawal from the other"),
        pytest.param(-12, "b", {"a": {"A": 18, "B": 10}, "b": {"B": 0}}, id="withdrawal beyond one"),
        pytest.param(0, None, {"a": {"A": 30}, "b": {"B": 10}}, id="nothing"),
    ],
)
def test_wallet_transfer__each_strategy_bears_its_share(raw: int, only: str | None, after: Holdings) -> None:
    """A holds 30 of A, B 10 of B; who has none of A pays the holder in kind."""
    settled = capital.apply_transfer({"a": {"A": 30}, "b": {"B": 10}}, "A", raw, ONE, only)
    assert {
        name: {token: token_holding for token, token_holding in tokens.items() if token_holding or token in after[name]}
        for name, tokens in settled.items()
    } == after


def test_capital_shares__paused_one_keeps_its_floor() -> None:
    parts = split(strategy("a", 6_000, {"USDC": 10_000}, floor_bps=1_000), strategy("b", 3_000, {}), strategy("c", 1_000, {}))
    health = {"a": StrategyHealth.PAUSED, "b": StrategyHealth.ACTIVE, "c": StrategyHealth.ACTIVE}
    books = {name: StrategyBook(name, (), 0, StrategyState(name, state, 0)) for name, state in health.items()}
    assert capital.target_capital_shares(parts, books) == {"a": Fraction(1, 10), "b": Fraction(27, 40), "c": Fraction(9, 40)}


@pytest.mark.parametrize(
    ("first", "is_paused", "signals"),
    [
        pytest.param(6_000, False, set(), id="at the upper edge"),
        pytest.param(6_001, False, {("too much capital", "a"), ("too little capital", "b")}, id="above the upper edge"),
        pytest.param(4_000, False, set(), id="at the lower edge"),
        pytest.param(3_999, False, {("too little capital", "a"), ("too much capital", "b")}, id="below the lower edge"),
        pytest.param(1_001, True, set(), id="paused, at the edge"),
        pytest.param(1_002, True, {("too much capital", "a")}, id="paused, above the edge"),
    ],
)
def test_capital_band__share_on_its_edge_is_left(first: int, is_paused: bool, signals: set[tuple[str, str]]) -> None:
    """Halves with a band of 20 %; a paused strategy with a floor of 10 % may hold a basis point more."""
    parts = split(strategy("a", 5_000, {"USDC": 10_000}, floor_bps=1_000), strategy("b", 5_000, {"USDC": 10_000}))
    health = {"a": StrategyHealth.PAUSED if is_paused else StrategyHealth.ACTIVE, "b": StrategyHealth.ACTIVE}
    books = tuple(StrategyBook(name, (), 0, StrategyState(name, state, NOW_S)) for name, state in health.items())
    holdings: Holdings = {"a": {USDC: first}, "b": {USDC: 10_000 - first}}
    assert capital_signals(parts, StrategiesState(StrategyBooks(books)), holdings, {USDC: Fraction(1)}) == signals


# Units and balances


@pytest.mark.parametrize(
    ("units", "before", "after", "issued"),
    [
        pytest.param(100, 3, 4, 33, id="issued"),
        pytest.param(100, 3, 2, -34, id="burnt"),
        pytest.param(100, 3, 3, 0, id="unchanged"),
        pytest.param(0, 0, 5, 5_000_000, id="first units"),
        pytest.param(7, 0, 5, 4_999_993, id="units without a value"),
        pytest.param(0, 3, 5, 5_000_000, id="value without units"),
    ],
)
def test_units__are_issued_and_burnt_at_the_value_before(units: int, before: int, after: int, issued: int) -> None:
    assert accounting.units_to_issue(units, Fraction(before), Fraction(after)) == issued


@pytest.mark.parametrize(
    ("value", "units", "nav"),
    [
        pytest.param(1, 10**6, 10**12, id="a millionth"),
        pytest.param(2, 3, 2 * 10**18 // 3, id="rounded down"),
        pytest.param(1, 0, None, id="no units"),
    ],
)
def test_nav__is_the_value_of_a_unit_rounded_down(value: int, units: int, nav: int | None) -> None:
    assert accounting.nav_per_unit(Fraction(value), units) == nav


def with_native(step: StepInput) -> StepInput:
    """The step with WETH held as native coin, too."""
    assets = tuple(replace(asset, includes_native=asset.token.address == WETH) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def test_balances__native_coin_counts_as_its_wrapped_token() -> None:
    step = with_native(step_input())
    assert accounting.wallet_balances(step.snapshot, step.portfolio) == {WETH: 5 * ETHER // 2 + ETHER, USDC: 5_000 * 10**6}


def test_balances__two_answers_for_one_token_are_unknown() -> None:
    step = step_input()
    twice = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(USDC, 1)))
    assert accounting.wallet_balances(twice.snapshot, twice.portfolio) is None


@pytest.mark.parametrize(("reserve", "reserved"), [(1_000, 1_000), (5_000, 5_000), (6_000, 5_000)])
def test_reserves__are_at_most_the_balance(reserve: int, reserved: int) -> None:
    step = step_input()
    assets = tuple(replace(asset, reserve_raw=reserve if asset.token.address == USDC else 0) for asset in step.portfolio.assets)
    balances = accounting.reserved_balances(replace(step.portfolio, assets=assets), step.limits, {WETH: 9, USDC: 5_000})
    assert balances == {WETH: 0, USDC: reserved}


@pytest.mark.parametrize(("block", "coins"), [(1_000, 2_000 * 10**6), (1_001, 0)])
def test_books__booking_counts_from_its_block_on(block: int, coins: int) -> None:
    parts = split(strategy("a", 10_000, {"USDC": 10_000}))
    step = step_input().with_config(parts)
    update = accounting.open_books(step, parts, opening({"a": {"USDC": 2_000}}, block=block))
    assert update is not None
    assert update.total_raw(USDC) == coins
