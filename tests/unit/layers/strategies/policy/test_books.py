"""The accounts of strategies: whatever comes, goes or is traded, their sum is the wallet's, nobody falls below zero, value is conserved."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.strategies.policy import capital

TOKENS = ("A", "B", "C")
NAMES = ("one", "two", "three")
PRICES = st.fixed_dictionaries({token: st.fractions(Fraction(1, 10**6), 10**6, max_denominator=10**6) for token in TOKENS})
HELD = st.fixed_dictionaries({name: st.fixed_dictionaries(dict.fromkeys(TOKENS, st.integers(0, 10**12))) for name in NAMES})


def total(strategy_holdings: capital.StrategyHoldings, token: str) -> int:
    return sum(tokens.get(token, 0) for tokens in strategy_holdings.values())


def dust(prices: dict[str, Fraction]) -> Fraction:
    """What whole base units cannot tell: one of each token for each pair of strategies, paid and shared."""
    return sum(prices.values(), Fraction(0)) * 4 * len(NAMES) ** 2


@st.composite
def wishes(draw: st.DrawFn, strategy_holdings: capital.StrategyHoldings, prices: dict[str, Fraction]) -> dict[str, dict[str, Fraction]]:
    """Each wants its value spread otherwise, or what it has."""
    wish_by_strategy = {}
    for name, tokens in strategy_holdings.items():
        whole = capital.holdings_value(tokens, prices)
        parts = [Fraction(draw(st.integers(0, 10))) for _ in TOKENS]
        if draw(st.booleans()) or not sum(parts):
            wish_by_strategy[name] = dict.fromkeys(TOKENS, Fraction(0))
            continue
        wish_by_strategy[name] = {t: whole * part / sum(parts) - tokens[t] * prices[t] for t, part in zip(TOKENS, parts, strict=True)}
    return wish_by_strategy


@given(st.data(), HELD, PRICES)
def test_crossed_wishes__move_no_token_or_value(
    data: st.DataObject, holdings: capital.StrategyHoldings, prices: dict[str, Fraction]
) -> None:
    after, costs = capital.settle_trade(holdings, data.draw(wishes(holdings, prices)), {}, prices, TOKENS)
    for token in TOKENS:
        assert total(after, token) == total(holdings, token)
    for name, value in capital.strategy_capital(holdings, prices).items():
        assert abs(capital.holdings_value(after[name], prices) - value) <= dust(prices)
        assert min(after[name].values()) >= 0
    assert set(costs.values()) == {Fraction(0)}


@given(st.data(), HELD, PRICES)
def test_trade__is_shared_to_the_last_unit_and_its_cost_by_demand(
    data: st.DataObject, holdings: capital.StrategyHoldings, prices: dict[str, Fraction]
) -> None:
    wish_by_strategy = data.draw(wishes(holdings, prices))
    filled = Fraction(data.draw(st.integers(0, 100)), 100)
    paid = 1 - Fraction(data.draw(st.integers(0, 100)), 10_000)
    net = {netted_token.token: netted_token.net_value for netted_token in capital.net_adjustments(wish_by_strategy, TOKENS)}
    deltas = {token: int(value * filled * (paid if value > 0 else 1) / prices[token]) for token, value in net.items()}
    deltas = {token: max(raw, -total(holdings, token)) for token, raw in deltas.items()}
    after, costs = capital.settle_trade(holdings, wish_by_strategy, deltas, prices, TOKENS)
    for token in TOKENS:
        assert total(after, token) == total(holdings, token) + deltas[token]
    assert min(raw for tokens in after.values() for raw in tokens.values()) >= 0
    lost = -sum((raw * prices[token] for token, raw in deltas.items()), Fraction(0))
    assert sum(costs.values(), Fraction(0)) == lost
    before = capital.strategy_capital(holdings, prices)
    for name, cost in costs.items():
        assert abs(before[name] - cost - capital.holdings_value(after[name], prices)) <= dust(prices) + max(
            Fraction(0), cost - before[name]
        )


@given(st.data(), HELD, PRICES)
def test_the_market_sees_no_more_than_the_net_of_all_wishes(
    data: st.DataObject, holdings: capital.StrategyHoldings, prices: dict[str, Fraction]
) -> None:
    wish_by_strategy = data.draw(wishes(holdings, prices))
    for netted_token in capital.net_adjustments(wish_by_strategy, TOKENS):
        parts = capital.market_remainder(wish_by_strategy, netted_token)
        assert sum(parts.values(), Fraction(0)) == netted_token.net_value
        assert sum((abs(value) for value in parts.values()), Fraction(0)) == abs(netted_token.net_value)
        apart = sum((abs(wish[netted_token.token]) for wish in wish_by_strategy.values()), Fraction(0))
        assert abs(netted_token.net_value) + 2 * netted_token.crossed_value == apart


@given(st.data(), HELD, PRICES, st.sampled_from(TOKENS), st.sampled_from([None, *NAMES]))
def test_flow__is_borne_by_capital_or_by_the_named_strategy(
    data: st.DataObject, holdings: capital.StrategyHoldings, prices: dict[str, Fraction], token: str, only: str | None
) -> None:
    raw = data.draw(st.integers(-total(holdings, token), 10**12))
    after = capital.apply_transfer(holdings, token, raw, prices, only)
    assert total(after, token) == total(holdings, token) + raw
    assert all(total(after, other) == total(holdings, other) for other in TOKENS if other != token)
    assert min(part for tokens in after.values() for part in tokens.values()) >= 0
    before = capital.strategy_capital(holdings, prices)
    value = raw * prices[token]
    whole = sum(before.values(), Fraction(0))
    if whole == 0 or (only is not None and before[only] + value < 0):
        return
    for name, was in before.items():
        part = Fraction(name == only) if only else was / whole
        assert abs(capital.holdings_value(after[name], prices) - was - value * part) <= dust(prices)


@given(HELD, PRICES, st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(lambda parts: sum(parts) > 0))
def test_capital_goes_from_one_to_another_in_kind(
    holdings: capital.StrategyHoldings, prices: dict[str, Fraction], parts: list[int]
) -> None:
    after = capital.copy_holdings(holdings)
    whole = sum(capital.strategy_capital(holdings, prices).values(), Fraction(0))
    due = {name: whole * part / sum(parts) for name, part in zip(NAMES, parts, strict=True)}
    capital.restore_capital_shares(after, due, prices)
    assert all(total(after, token) == total(holdings, token) for token in TOKENS)
    assert all(abs(value - due[name]) <= dust(prices) for name, value in capital.strategy_capital(after, prices).items())


def test_opposite_wishes__cancel_and_both_get_theirs() -> None:
    holdings = {"up": {"A": 0, "B": 1_000}, "down": {"A": 500, "B": 0}}
    prices = {"A": Fraction(2), "B": Fraction(1)}
    wish_by_strategy = {"up": {"A": Fraction(600), "B": Fraction(-600)}, "down": {"A": Fraction(-600), "B": Fraction(600)}}
    assert [netted_token.net_value for netted_token in capital.net_adjustments(wish_by_strategy, ("A", "B"))] == [0, 0]
    after, costs = capital.settle_trade(holdings, wish_by_strategy, {}, prices, ("A", "B"))
    assert after == {"up": {"A": 300, "B": 400}, "down": {"A": 200, "B": 600}}
    assert costs == {"up": 0, "down": 0}


def test_surplus_share_of_a_trade__is_paid_to_the_others() -> None:
    """One sells C for A, the other A for B: A is exchanged inside, C is sold and B bought outside, at a cost that both asked for."""
    holdings = {"one": {"A": 0, "B": 0, "C": 100}, "two": {"A": 100, "B": 0, "C": 0}}
    prices = dict.fromkeys(TOKENS, Fraction(1))
    wish_by_strategy = {"one": {"A": Fraction(100), "C": Fraction(-100)}, "two": {"A": Fraction(-100), "B": Fraction(100)}}
    after, costs = capital.settle_trade(holdings, wish_by_strategy, {"C": -100, "B": 90}, prices, TOKENS)
    assert costs == {"one": 5, "two": 5}
    assert after["one"] == {"A": 95, "B": 0, "C": 0}
    assert after["two"] == {"A": 5, "B": 90, "C": 0}


def test_nothing_is_made_up_where_more_went_than_there_is() -> None:
    with pytest.raises(ValueError, match="than all"):
        capital.take_pro_rata(11, "A", {"one": {"A": 4}, "two": {"A": 6}})


def test_unwished_trade__is_borne_by_all_by_capital() -> None:
    """As a swap by hand: one has all that is sold, and ends with all that was bought but the others' part of the cost."""
    holdings = {"one": {"A": 300, "B": 0}, "two": {"A": 0, "B": 100}}
    prices = {"A": Fraction(1), "B": Fraction(1)}
    after, costs = capital.settle_trade(holdings, {}, {"A": -100, "B": 92}, prices, ("A", "B"))
    assert costs == {"one": 6, "two": 2}
    assert after == {"one": {"A": 200, "B": 94}, "two": {"A": 0, "B": 98}}
