"""Strategies by the tracking rule: each weighs its own part of the wallet, and the market sees one goal of what they do not exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.layers.inputs import apply_effective_targets
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.netting import StrategyAdjustment, strategy_drifts
from agent.layers.strategies.policy.rule import shares_at_edges
from agent.layers.strategies.state import CapitalSplit, StrategiesState, StrategyHealth, StrategyState
from agent.model import (
    Destination,
    Hold,
    NoTradeZone,
    PastPrices,
    Rebalance,
    RiskEstimationWindow,
    Snapshot,
    StepInput,
    TradeSide,
)
from agent.policy.decide import decide
from agent.policy.risk_estimates import price_history_and_step_s
from agent.policy.triggers.no_trade_zone import ZoneView, build_tracking
from agent.units import BPS, PIPS
from tests.support.builders import (
    GWEI,
    NOW_S,
    balances,
    books_of,
    brought_up,
    history,
    opening,
    price_of,
    raw,
    split,
    step_input,
    strategy,
    token,
    v2_pool,
    with_snapshot,
    with_state,
)
from tests.support.plans import proposed_plan
from tests.support.text import mentions

TARGETS = {"WETH": 2_500, "WBTC": 2_500, "LINK": 2_000, "USDC": 3_000}
SHARE = 25_000
"""Dollars of each of two strategies."""
ON_TARGET = {symbol: Fraction(SHARE * bps, BPS) for symbol, bps in TARGETS.items()}
WETH = token("WETH").address
USDC = token("USDC").address
RULE = build_tracking("normal")


def values_with(base: Mapping[str, Fraction] = ON_TARGET, **dollars: Fraction | int) -> dict[str, Fraction]:
    """Return what a strategy holds after these purchases from its cash."""
    values = {symbol: value + dollars.get(symbol, 0) for symbol, value in base.items()}
    values["USDC"] -= sum(dollars.values())
    return values


def two_strategies(first: Mapping[str, Fraction], second: Mapping[str, Fraction] = ON_TARGET, **changes: Any) -> StepInput:
    """Return a step of a wallet that strategies "first" and "second" share, both by the rule, with values in dollars."""
    trigger = changes.pop("rule", RULE)
    depth = changes.pop("depth", 100_000_000)
    amounts = {symbol: first[symbol] + second[symbol] for symbol in TARGETS}
    step = step_input(
        TARGETS, amounts, depth=depth, trigger=RULE, destination=Destination.ZONE, past=history(last_rebalance_s=1), cooldown_s=0, **changes
    )
    head = replace(step.snapshot.head, base_fee_wei=GWEI // 4)
    step = with_snapshot(step, priority_fee_wei=0, head=head)
    coins = {
        name: {symbol: value / price_of(symbol) for symbol, value in values.items()}
        for name, values in (("first", first), ("second", second))
    }
    whole_units = {
        symbol: Fraction(sum(raw(part[symbol], token(symbol)) for part in coins.values()), 10 ** token(symbol).decimals)
        for symbol in TARGETS
    }
    step = balances(step, **whole_units)
    total = sum(amounts.values())
    shares = [round(sum(values.values()) / total * BPS) for values in (first, second)]
    parts = [
        strategy(name, share, TARGETS, trigger, Destination.ZONE, floor_bps=1_000)
        for name, share in zip(("first", "second"), shares, strict=True)
    ]
    divided = step.with_config(split(*parts, absolute_bps=BPS, relative_bps=None))
    return apply_effective_targets(with_earlier_trades(brought_up(divided, opening(coins))))


def with_earlier_trades(step: StepInput) -> StepInput:
    """Return the step with strategies of which each has traded before: a first trade goes to the targets."""
    traded = tuple(replace(book, last_rebalance_s=1) for book in books_of(step).strategy_books)
    return step.with_layer(StrategiesState(replace(books_of(step), strategy_books=traded)))


def adjustment(step: StepInput, name: str = "first") -> StrategyAdjustment:
    netting_result = decide(step).layer(StrategiesResult).netting
    return next(row for row in netting_result.adjustments if row.name == name)


def zone_of(step: StepInput) -> ZoneView:
    """Return the view of the first strategy's rule."""
    first = step.config(CapitalSplit).strategies[0]
    holdings = {drift.token: drift.raw for drift in adjustment(step).drifts}
    prices = decide(step).references.price_by_token
    _, zone = strategy_drifts(step, first, StrategyState("first", StrategyHealth.ACTIVE, NOW_S), holdings, prices)
    assert zone is not None
    return zone


def edge(step: StepInput) -> Fraction:
    """Return how far from its target WETH may stay, a share of the strategy."""
    width = next(row for row in zone_of(step).risk.widths if row.token == WETH)
    return Fraction(width.edge_ppm, PIPS)


def trigger(step: StepInput) -> Fraction:
    """Return the distance of WETH from its target beyond which it is traded."""
    width = next(row for row in zone_of(step).risk.widths if row.token == WETH)
    return Fraction(width.trigger_ppm, PIPS)


@pytest.mark.parametrize("side", [1, -1], ids=["above", "below"])
def test_asset_beyond_its_trigger__goes_back_to_its_edge_for_cash(side: int) -> None:
    usual = two_strategies(ON_TARGET)
    inside = two_strategies(values_with(WETH=side * trigger(usual) * SHARE * 99 / 100))
    assert isinstance(decide(inside).decision, Hold)
    assert not adjustment(inside).acts
    beyond = two_strategies(values_with(WETH=side * trigger(usual) * SHARE * 102 / 100))
    assert isinstance(decide(beyond).decision, Rebalance), decide(beyond).decision.reason
    assert [adjustment(beyond, name).acts for name in ("first", "second")] == [True, False]
    assert mentions(adjustment(beyond).reason, "WETH", "beyond")
    after = {address: value / adjustment(beyond).capital for address, value in adjustment(beyond).target_values}
    assert abs(after[WETH] - Fraction(TARGETS["WETH"], BPS) - side * edge(beyond)) < Fraction(1, 10**5)
    assert {address for address, value in adjustment(beyond).values_to_trade.items() if abs(value) > 10} == {WETH, USDC}
    plan = proposed_plan(beyond)
    traded = abs(adjustment(beyond).values_to_trade[WETH])
    assert abs(plan.turnover - traded) < traded / 100


def test_the_first_trade_of_a_strategy__goes_to_its_targets() -> None:
    step = two_strategies(values_with(WETH=-3_000))
    untraded = tuple(replace(book, last_rebalance_s=None) for book in books_of(step).strategy_books)
    step = step.with_layer(StrategiesState(replace(books_of(step), strategy_books=untraded)))
    assert dict(adjustment(step).target_values)[WETH] == adjustment(step).capital * Fraction(TARGETS["WETH"], BPS)


def test_opposite_corrections__are_exchanged_between_strategies() -> None:
    dollars = 2 * trigger(two_strategies(ON_TARGET)) * SHARE
    step = two_strategies(values_with(WETH=dollars), values_with(WETH=-dollars))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold)
    assert decision_result.layer(StrategiesResult).is_netting_only
    assert [adjustment(step, name).acts for name in ("first", "second")] == [True, True]


def test_smaller_strategy__waits_longer_for_its_gas() -> None:
    small = {symbol: value / 50 for symbol, value in ON_TARGET.items()}
    usual = two_strategies(ON_TARGET)
    assert trigger(two_strategies(small)) > trigger(usual)
    assert edge(two_strategies(small)) < edge(usual)


def test_an_asset_that_no_pool_trades__stays_and_is_named() -> None:
    step = two_strategies(values_with(WETH=5_000, LINK=-500))
    pools = tuple(v2_pool(token(symbol), token("USDC"), price_of(symbol), 100_000_000) for symbol in ("WETH", "WBTC"))
    step = with_snapshot(step, pools=pools)
    assert adjustment(step).acts
    assert "no usable pool trades LINK" in adjustment(step).reason
    assert adjustment(step).values_to_trade[token("LINK").address] == 0


def test_paused_strategy__sells_everything_despite_its_rule() -> None:
    paused = with_state(two_strategies(ON_TARGET), StrategyState("first", StrategyHealth.PAUSED, NOW_S))
    assert adjustment(paused).acts
    assert all(value == 0 for address, value in adjustment(paused).target_values if address != USDC)


def test_one_block_s_prices__fire_only_if_confirmed_before() -> None:
    step = two_strategies(values_with(WETH=2 * trigger(two_strategies(ON_TARGET)) * SHARE))
    step = replace(step, policy=replace(step.policy, confirm_blocks=1))
    head = step.snapshot.head
    cheaper = step_input(TARGETS, ON_TARGET, depth=100_000_000, prices={"WETH": price_of("WETH") * 2 / 3}).snapshot

    def after_block_like(snapshot: Snapshot) -> StepInput:
        past_head = replace(head, number=head.number - 1, timestamp_s=head.timestamp_s - 12)
        return with_snapshot(step, past_prices=(PastPrices(past_head, snapshot.feeds, snapshot.pools),))

    assert adjustment(after_block_like(step.snapshot)).acts
    waiting = adjustment(after_block_like(cheaper))
    assert not waiting.acts
    assert "confirm_blocks" in waiting.reason


def test_volatilities__are_completed_for_each_strategy() -> None:
    window = RiskEstimationWindow(90 * 86_400, 86_400, 30, 2 * 86_400)
    measuring = NoTradeZone(replace(RULE.risk, estimation_window=window))
    step = two_strategies(ON_TARGET, rule=measuring)
    for part in step.config(CapitalSplit).strategies:
        assert isinstance(part.trigger, NoTradeZone)
        assert len(part.trigger.risk.volatilities_bps) == len(TARGETS)
        assert "(no prices of" in part.trigger.risk.sample_text
    assert price_history_and_step_s(step.policy) == (0, 0)
    assert price_history_and_step_s(step.policy, step.config(CapitalSplit).triggers) == (91 * 86_400, 86_400)


def test_a_recorded_step__replays_to_the_same_decision() -> None:
    step = two_strategies(values_with(WETH=5_000))
    assert decide(codec.loads(StepInput, codec.dumps(step))) == decide(step)


coin_dollars = st.fractions(0, 20_000, max_denominator=1_000)


@given(coin_dollars, coin_dollars, coin_dollars, coin_dollars, st.sampled_from([None, *TradeSide]))
def test_shares_at_edges__sum_to_one_and_pass_no_edge(
    weth: Fraction, wbtc: Fraction, link: Fraction, usdc: Fraction, side: TradeSide | None
) -> None:
    step = two_strategies({"WETH": weth, "WBTC": wbtc, "LINK": link, "USDC": usdc + 1})
    zone = zone_of(step)
    drifts = adjustment(step).drifts
    shares = shares_at_edges(zone, drifts, side)
    assert sum(shares) == 1
    assert all(share >= 0 for share in shares)
    edge_by_token = {width.token: Fraction(width.edge_ppm * BPS // PIPS + 1, BPS) for width in zone.risk.widths}
    for drift, share in zip(drifts, shares, strict=True):
        if drift.token == USDC or side in (TradeSide.WINNERS, TradeSide.LOSERS):
            continue
        target = Fraction(drift.target_bps, BPS)
        low = target - edge_by_token[drift.token]
        high = target + edge_by_token[drift.token]
        assert min(drift.share, low) <= share <= max(drift.share, high)
        assert share == drift.share or not low < drift.share < high
