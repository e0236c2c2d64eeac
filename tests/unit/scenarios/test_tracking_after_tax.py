"""The tracking rule after tax: its ranges know the gain of the lot that a sale takes next, by FIFO, LIFO and HIFO."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest

from agent import codec
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PERMISSIVE_LIMITS, OwnerTransfer, TaxRule, make_spec
from agent.backtest.tune.grid import PolicyChoice
from agent.layers.tax.state import TaxState
from agent.model import Destination, Hold, LotMethod, NoTradeZone, OpenLot, Rebalance, StepInput, TaxInputs
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.backtests import COIN, HOUR_S, START_S, hourly, simulation_of
from tests.support.builders import token, with_snapshot
from tests.support.decisions.tracking import balance_changes, interval, pools_of, tracking_step, weights_after
from tests.support.text import mentions

WETH = token("WETH").address
ETH = 10**18
ONE_COIN = {"WETH": 2_500, "USDC": 7_500}
COSTS = (1_000, 2_500, 1_500)
"""Paid for a coin in each lot, the oldest first; a coin is at 2,000."""


def taxed(
    step: StepInput,
    *costs: int,
    method: LotMethod = LotMethod.FIFO,
    after_tax: bool = True,
    realised: int = 0,
    rate_bps: int = 2_500,
) -> StepInput:
    """The step with a tax of 25 %, and with lots of 20 coins of WETH that cost this a coin."""
    trigger = step.policy.trigger
    assert isinstance(trigger, NoTradeZone)
    lots = tuple(OpenLot(WETH, 20 * ETH, Fraction(20 * cost * 10**6), number) for number, cost in enumerate(costs))
    inputs = TaxInputs(method, "", Fraction(1), lots, Fraction(realised), None, rate_bps)
    policy = replace(step.policy, trigger=NoTradeZone(replace(trigger.risk, after_tax=after_tax)))
    return replace(step, policy=policy).with_layer(TaxState(inputs))


def one_coin(weth_percent: int = 25) -> StepInput:
    """A quarter of WETH is wanted in 50,000 dollars, over a pool of 5 bps; gas is free."""
    values = {"WETH": 500 * weth_percent, "USDC": 50_000 - 500 * weth_percent}
    step = tracking_step(values, targets=ONE_COIN, pools=pools_of(10**9, 500)[:1])
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=0))


def half_width(step: StepInput) -> float:
    """The distance from target to edge in points."""
    row = interval(step, "WETH")
    return float(row.high - row.low) * 50


@pytest.mark.parametrize(("cost", "points"), [(1_600, 11.04), (2_000, 2.98), (2_400, 2.98)])
def test_range__of_one_coin__has_half_of_the_tax_as_its_cost(cost: int, points: float) -> None:
    """At 1,600 a fifth of the price is gain, and 5 % of it tax: ∛(1.5 · (0.0005 + 0.025) · 0.1875²); a loss saves nothing."""
    assert half_width(taxed(one_coin(), cost)) == pytest.approx(points, abs=0.01)


@pytest.mark.parametrize(
    ("method", "next_cost"), [(LotMethod.FIFO, 1_000), (LotMethod.LIFO, 1_500), (LotMethod.HIFO, 2_500), (LotMethod.AVERAGE, 5_000 / 3)]
)
def test_range__is_that_of_the_lot_that_the_method_sells_next(method: LotMethod, next_cost: float) -> None:
    tax = max(0.0, 1 - next_cost / 2_000) / 4
    expected = (1.5 * (0.0005 + tax / 2) * 0.1875**2) ** (1 / 3) * 100
    assert half_width(taxed(one_coin(), *COSTS, method=method)) == pytest.approx(min(expected, 12.5), abs=0.01)


def test_range__without_a_rate__is_that_without_tax() -> None:
    """A search of settings may leave the tax out."""
    assert half_width(taxed(one_coin(), 1_000, rate_bps=0)) == half_width(one_coin())


def test_range__while_losses_exceed_gains__is_that_without_tax() -> None:
    assert half_width(taxed(one_coin(), 1_000, realised=-1)) == half_width(one_coin())


def test_range__switched_off__knows_no_tax() -> None:
    assert half_width(taxed(one_coin(), 1_000, after_tax=False)) == half_width(one_coin())
    assert not build_tracking("normal").risk.after_tax


@pytest.mark.parametrize("symbol", ["WBTC", "LINK"])
def test_range__of_a_token_without_a_gain__is_that_without_tax(symbol: str) -> None:
    usual = interval(tracking_step(), symbol)
    row = interval(taxed(tracking_step(), 1_000), symbol)
    assert (row.high - row.low, row.trigger_high - row.trigger_low) == (usual.high - usual.low, usual.trigger_high - usual.trigger_low)


@pytest.mark.parametrize(("percent", "fires"), [(35, False), (37, True), (15, False), (13, True)])
def test_trigger__fires_beyond_the_taxed_range_on_both_sides(percent: int, fires: bool) -> None:
    """A purchase owes nothing now, but what it buys has to be sold again."""
    decision = decide(taxed(one_coin(percent), 1_600)).decision
    assert isinstance(decision, Rebalance if fires else Hold), decision.reason


@pytest.mark.parametrize(("percent", "end"), [(37, 36.04), (13, 13.96)])
def test_plan__ends_at_the_taxed_edge(percent: int, end: float) -> None:
    assert weights_after(taxed(one_coin(percent), 1_600))["WETH"] == pytest.approx(end, abs=0.06)


def test_plan__its_tax_is_in_the_range_and_counts_once() -> None:
    """Where the range does not know the tax, the whole of it counts against the horizon of the fees, and nothing is sold."""
    proposal = propose_rebalance(taxed(one_coin(37), 1_600))
    assert proposal.plan.zone_tradeoff.tax == 0
    assert proposal.plan.zone_tradeoff.covers_cost
    outcome = propose_rebalance(taxed(one_coin(37), 1_600, after_tax=False))
    assert outcome.plan is None
    assert mentions(outcome.decision_result.decision.reason, "the whole plan would save", "tax")


def test_correction__names_the_whole_tax_of_a_sale() -> None:
    """60 % beyond the edge of 36.04: fee and a quarter of the gain on what is sold."""
    correction = interval(taxed(one_coin(60), 1_600), "WETH").correction
    assert float(correction.cost) / 10**6 == pytest.approx(50_000 * 0.2396 * (0.0005 + 0.05), rel=1e-3)


def test_several_coins__taxed_one_waits_and_others_do_not() -> None:
    usual = interval(tracking_step(), "WETH")
    dollars = round(float(usual.trigger_high - usual.trigger_low) / 2 * 50_000 * 1.05)
    assert isinstance(decide(taxed(tracking_step(balance_changes(WETH=dollars)), 1_000)).decision, Hold)
    assert isinstance(decide(taxed(tracking_step(balance_changes(WETH=dollars)), 2_400)).decision, Rebalance)


def test_records__of_steps_before_the_setting__are_read_back() -> None:
    trigger = build_tracking("normal")
    record: dict[str, Any] = codec.to_jsonable(trigger)
    record["risk"].pop("after_tax", None)
    assert codec.from_jsonable(NoTradeZone, record) == trigger
    after_tax = build_tracking("strict", True)
    assert codec.loads(NoTradeZone, codec.dumps(after_tax)) == after_tax


def test_setting_of_a_search__names_the_tax() -> None:
    choice = PolicyChoice(build_tracking("strict", True), Destination.ZONE)
    assert choice.label == "tracking strict, after tax"
    assert choice.config_text == 'trigger = { kind = "tracking", strictness = "strict", after_tax = true }'


# --- Back-tests with lots: the whole step.


RISE = 1.03
FLAT_BARS = 3


def closes() -> list[float]:
    """Flat at 100, at 150 and at 110, then a rise."""
    return [100.0] * FLAT_BARS + [150.0] * FLAT_BARS + [110.0] * FLAT_BARS + [110 * RISE**bar for bar in range(55)]


@cache
def sold_after_purchases(method: LotMethod) -> tuple[SimulationResult, int]:
    """Half of BTC is wanted; deposits are spent at 150 and at 110. Returns the result, and the bar of the first trade in the rise."""
    limits = replace(PERMISSIVE_LIMITS, min_trade=Fraction(10 * COIN))
    spec = replace(
        make_spec({"BTC": 5_000, "USD": 5_000}, build_tracking("normal", True), "USD", destination=Destination.ZONE), limits=limits
    )
    deposits = tuple(
        OwnerTransfer(START_S + FLAT_BARS * number * HOUR_S, Fraction(amount)) for number, amount in ((1, 30_000), (2, 60_000))
    )
    result = simulation_of(
        hourly(BTC=closes()), replace(spec, tax=TaxRule(method, rate_bps=2_500)), flows=deposits, start_value=Fraction(10_000)
    )
    bars = [rebalance.bar for rebalance in result.rebalances]
    assert sum(FLAT_BARS <= bar < 2 * FLAT_BARS for bar in bars) >= 1, bars
    assert sum(2 * FLAT_BARS <= bar < 3 * FLAT_BARS for bar in bars) >= 1, bars
    return result, next(bar for bar in bars if bar >= 3 * FLAT_BARS)


@pytest.mark.parametrize(("method", "cost"), [(LotMethod.FIFO, 100), (LotMethod.LIFO, 110), (LotMethod.HIFO, 150)])
def test_backtest__sells_where_the_next_lot_s_gain_puts_the_edge(method: LotMethod, cost: float) -> None:
    result, bar = sold_after_purchases(method)
    weights = result.weights[:, 0]
    gain_share = 1 - cost / closes()[bar - 1]
    edge = (1.5 * (0.001 + 0.25 * gain_share / 2) * 0.0625) ** (1 / 3)
    assert weights[bar - 1] - 0.5 == pytest.approx(edge, abs=0.008)
    assert np.all(weights[3 * FLAT_BARS : bar - 1] <= weights[bar - 1])


def test_backtest__the_dearer_the_next_lot_the_sooner_it_is_sold() -> None:
    bars = {method: sold_after_purchases(method)[1] for method in (LotMethod.FIFO, LotMethod.LIFO, LotMethod.HIFO)}
    assert bars[LotMethod.HIFO] < bars[LotMethod.LIFO] < bars[LotMethod.FIFO]
