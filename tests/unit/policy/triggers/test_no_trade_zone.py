"""The zone around the targets: its edges in closed form, what widens and narrows it, what fires, and what is unknown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

import pytest

from agent import codec
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.model import Destination, Halt, HaltCode, Hold, NoTradeZone, Rebalance, StepInput, Threshold, UnreadableItem
from agent.policy.decide import decide
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.no_trade_zone import ZoneExchange, ZoneInterval, evaluate_zone, zone_result
from agent.units import Token
from tests.support.builders import GWEI, MONTH_S, token, tracking, v2_pool, v3_pool, with_limits, with_snapshot, without_feed, zoned
from tests.support.decisions.zones import FEE, GAS_UNITS, LINK, PRICES, USDC, WBTC, WETH, V, edges, pair_edge, pair_gap, view, zone_step
from tests.support.text import mentions


def test_zone_of_a_pair_in_numbers() -> None:
    """λ·H = 2 · 0.5 · 30/365 = 0.0822, σ² = 0.64: 0.3 % of fee / 0.0526 is 5.70 points; 0.4312 of gas adds 1.28 points."""
    zone = view(zone_step())
    assert zone.gas_value == Fraction(GAS_UNITS * 11, 10) * GWEI * 2_000 * 10**6 / 10**18
    interval = zone.intervals[0]
    assert float(interval.high) == pytest.approx(0.5570291, abs=1e-7)
    assert float(interval.low) == pytest.approx(0.4429709, abs=1e-7)
    assert float(interval.trigger_high) == pytest.approx(0.5698329, abs=1e-7)
    assert float(interval.trigger_low) == pytest.approx(0.4301671, abs=1e-7)
    assert edges(zone_step()) == pytest.approx((pair_edge(), pair_edge() + pair_gap(0.4312)), rel=1e-9)
    drift = decide(zone_step()).drifts[0]
    assert (drift.band_low_bps, drift.band_high_bps) == (interval.trigger_low * 10_000, interval.trigger_high * 10_000)


def test_zone_trigger_widens_with_the_square_root_of_gas() -> None:
    inner, outer = edges(zone_step(gwei="1"))
    assert edges(zone_step(gwei="4")) == pytest.approx((inner, inner + 2 * (outer - inner)), rel=1e-9)
    assert edges(zone_step(gwei="9")) == pytest.approx((inner, inner + 3 * (outer - inner)), rel=1e-9)
    assert edges(zone_step(gwei="0")) == pytest.approx((inner, inner), rel=1e-9)


@pytest.mark.parametrize(
    "twice",
    [
        pytest.param({"horizon_s": 2 * MONTH_S}, id="horizon"),
        pytest.param({"cost_bps": 1}, id="cost of an error"),
    ],
)
def test_zone_narrows_with_volatility_horizon_and_error_cost(twice: dict[str, int]) -> None:
    inner, outer = edges(zone_step())
    gap = outer - inner
    high_risk = {"volatilities": {"WETH": 16_000, "USDC": 100}}
    assert edges(zone_step(risk=high_risk)) == pytest.approx((inner / 4, inner / 4 + gap / 2), rel=1e-9)
    assert edges(zone_step(risk=twice)) == pytest.approx((inner / 2, inner / 2 + gap / sqrt(2)), rel=1e-9)


def test_zone_goes_by_the_cheapest_pool_that_is_deep_enough() -> None:
    cheap = v3_pool(WETH, USDC, 2_000, 10**9, 500)
    bait = v3_pool(WETH, USDC, 2_000, 10, 100)
    pools = [v2_pool(WETH, USDC, 2_000, 10**9), bait]
    assert edges(zone_step(pools=pools))[0] == pytest.approx(pair_edge(), rel=1e-9)
    assert edges(zone_step(pools=[*pools, cheap]))[0] == pytest.approx(pair_edge(0.0005), rel=1e-6)


def no_route(pool: V2Pool | V3Pool, least: Fraction | None = None) -> bool:
    """Whether the zone is as wide with this cheaper pool as without it."""
    step = with_limits(zone_step(pools=[v2_pool(WETH, USDC, 2_000, 2 * 10**9), pool]), pool_min_value=least)
    return edges(step)[0] == pytest.approx(pair_edge(), rel=1e-9)


CHEAP = v3_pool(WETH, USDC, 2_000, 10**9, 500)
CHEAP_PAIR = v2_pool(WETH, USDC, 2_000, 10**9, fee_pips=500)


@pytest.mark.parametrize(
    "empty",
    [
        replace(CHEAP_PAIR, reserve0=0),
        replace(CHEAP_PAIR, reserve1=0),
        replace(CHEAP_PAIR, reserve0=0, reserve1=0),
        replace(CHEAP, liquidity=0, ticks=()),
        replace(CHEAP, sqrt_price_x96=0),
    ],
)
def test_zone_ignores_an_empty_pool(empty: V2Pool | V3Pool) -> None:
    assert no_route(empty)
    assert not no_route(CHEAP_PAIR)
    assert not no_route(CHEAP)
    assert not no_route(replace(CHEAP, liquidity=0)), "its next ticks hold some"


@pytest.mark.parametrize(
    ("unread", "cost"),
    [
        pytest.param(CHEAP.address, FEE, id="a pool of the pair"),
        pytest.param(WBTC.address, 0.0005, id="a foreign one"),
    ],
)
def test_zone_ignores_an_unreadable_pool(unread: str, cost: float) -> None:
    step = zone_step(pools=[v2_pool(WETH, USDC, 2_000, 10**9), CHEAP])
    assert edges(step)[0] == pytest.approx(pair_edge(0.0005), rel=1e-6)
    named = with_snapshot(step, unreadable_items=(UnreadableItem("pool", unread, "the call reverted"),))
    assert edges(named)[0] == pytest.approx(pair_edge(cost), rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(WETH, LINK), (LINK, WETH), (WBTC, LINK)])
def test_zone_ignores_a_pool_of_foreign_tokens(a: Token, b: Token) -> None:
    assert no_route(v3_pool(a, b, 1, 10**9, 500))


def test_zone_uses_a_pool_worth_exactly_the_minimum() -> None:
    pool_value = CHEAP_PAIR.reserve0 * PRICES[CHEAP_PAIR.token0] + CHEAP_PAIR.reserve1 * PRICES[CHEAP_PAIR.token1]
    assert not no_route(CHEAP_PAIR, pool_value)
    assert no_route(CHEAP_PAIR, pool_value + 1)


def test_zone_counts_a_skewed_pool_as_a_cost_only() -> None:
    """The pool pays 0.2 % less for WETH than it is worth: selling costs 0.4994 % in all, buying its fee."""
    interval = view(zone_step(pools=[v2_pool(WETH, USDC, 1_996, 10**9)])).intervals[0]
    assert float(interval.high) - 0.5 == pytest.approx(pair_edge(1 - 0.997 * 0.998), rel=1e-6)
    assert 0.5 - float(interval.low) == pytest.approx(pair_edge(), rel=1e-6)


@pytest.mark.parametrize("rho_bps", [0, 5_000])
def test_zone_widens_for_correlated_tokens(rho_bps: int) -> None:
    """The variance of one in the other is σ₁² + σ₂² - 2ρσ₁σ₂: 0.04 + 0.96·(1 - ρ) at 80 % and 60 %."""
    pools = [v2_pool(WBTC, WETH, 30, 10**6), v2_pool(WETH, USDC, 2_000, 10**9)]
    targets = {"WETH": 5_000, "WBTC": 5_000, "USDC": 0}
    related = {"correlations": {("WETH", "WBTC"): rho_bps}, "cost_bps": 2}
    step = zoned(targets, {"WETH": 50_000, "WBTC": 50_000}, related, pools=pools)
    variance = 0.04 + 0.96 * (1 - rho_bps / 10_000)
    assert edges(step)[0] == pytest.approx(pair_edge(cost_bps=2, variance=variance), rel=1e-9)


def test_zone_counts_both_fees_through_a_hub() -> None:
    """The hub's reference is a mean of ticks, which lie a basis point apart."""
    pools = [v3_pool(WETH, USDC, 2_000, 10**9, 3_000), v3_pool(LINK, WETH, Fraction(15, 2_000), 10**6)]
    values = {"LINK": 50_000, "USDC": 50_000}
    prices = {"LINK": 15}
    step = zoned({"LINK": 5_000, "USDC": 5_000}, values, pools=pools, prices=prices, hubs=["WETH"])
    cost = 1 - 0.997 * 0.9995
    assert edges(step)[0] == pytest.approx(pair_edge(cost, variance=1 + 0.005**2), rel=0.03)


def test_zone_fires_where_the_first_unit_pays() -> None:
    edge = view(zone_step()).intervals[0].high
    inside, outside = (decide(zone_step(edge + step)) for step in (-Fraction(1, 10**6), Fraction(1, 10**6)))
    assert isinstance(inside.decision, Hold)
    assert isinstance(outside.decision, Rebalance)
    assert outside.decision.goal.risk == tracking("WETH", "USDC")
    far = decide(zone_step("3/5"))
    assert mentions(far.decision.reason, "outside", "WETH to USDC", "52.6 bps", "30 bps")
    assert float(far.zone.best_exchange.unit_saving) == pytest.approx(2 * 0.5 * 30 / 365 * 0.640025 * 0.1, rel=1e-9)
    assert float(far.zone.risk_value) / 1e6 == pytest.approx(0.5 * 30 / 365 * 0.640025 * 0.1**2 * V, rel=1e-9)
    short = decide(zone_step("2/5")).zone
    assert short.best_exchange == ZoneExchange(
        USDC.address, WETH.address, far.zone.best_exchange.unit_saving, far.zone.best_exchange.unit_cost
    )


def test_hold_within_the_zone_names_the_next_unit_and_the_edge() -> None:
    assert mentions(decide(zone_step("13/25")).decision.reason, "within", "WETH to USDC", "10.52 bps", "30 bps", "43.02-56.98 %")
    assert "no exchange" in decide(zone_step()).decision.reason


def test_zone_without_a_pool_holds() -> None:
    decision_result = decide(zone_step("9/10", pools=[]))
    assert mentions(decision_result.decision.reason, "usable pool")
    assert decision_result.zone.intervals[0] == ZoneInterval(WETH.address, 9_000, 5_000, Fraction(0), Fraction(1), Fraction(0), Fraction(1))


def test_zone_ignores_an_exchange_above_plan_cost() -> None:
    decision_result = decide(with_limits(zone_step("9/10"), plan_cost_bps=29))
    assert isinstance(decision_result.decision, Hold)
    assert isinstance(decide(with_limits(zone_step("9/10"), plan_cost_bps=30)).decision, Rebalance)


def test_zone_sells_nothing_that_the_wallet_lacks() -> None:
    """All that is too much lies where it cannot be sold: nothing fires."""
    step = zoned({"WETH": 0, "WBTC": 5_000, "USDC": 5_000}, {"WBTC": 90_000, "USDC": 10_000, "WETH": 0}, reserves={"WBTC": 1})
    assert isinstance(decide(step).decision, Rebalance)
    empty = with_snapshot(step, holdings=tuple(replace(h, raw=0) if h.token != USDC.address else h for h in step.snapshot.holdings))
    pair = view(empty).best_exchange
    assert pair.source == USDC.address


@pytest.mark.parametrize("is_locked", [True, False])
def test_zone_sells_nothing_that_is_locked_in_positions(is_locked: bool) -> None:
    step = zone_step("9/10")
    decision_result = decide(step)
    trigger = step.policy.trigger
    assert isinstance(trigger, NoTradeZone)
    drifts = tuple(
        replace(drift, investable_raw=0) if is_locked and drift.token == WETH.address else drift for drift in decision_result.drifts
    )
    zone, drifts = evaluate_zone(PricedMarket.of_step(step, decision_result.references.price_by_token), trigger.risk, drifts)
    assert zone_result(zone, drifts).fired is not is_locked


@pytest.mark.parametrize(
    ("risk", "reason"),
    [
        ({"cost_bps": 0}, "policy.trigger.tracking_error_cost: 0 bps is out of range: it must be above 0"),
        ({"horizon_s": 60}, "policy.trigger.horizon: 60 s is not between 1h and 365d"),
        ({"volatilities": {"USDC": 0}}, "policy.risk.volatilities: USDC = 0 % is not between 0.1 % and 1000 %"),
        ({"correlations": {("WETH", "USDC"): 10_000}}, "policy.risk.correlations: WETH/USDC = 100 % is beyond 99 %"),
    ],
)
def test_zone_halts_on_an_impossible_risk(risk: dict[str, Any], reason: str) -> None:
    """A saved input that was changed by hand: the config would have been refused."""
    decision = decide(zone_step(risk=risk)).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.ZONE,)
    assert reason in decision.reason


def test_zone_halts_on_missing_input() -> None:
    step = zone_step("3/5")
    missing = replace(step, policy=replace(step.policy, trigger=NoTradeZone(tracking("WETH"))))
    for broken, reason in (
        (missing, "the volatility of USDC is unknown"),
        (with_limits(step, plan_cost_bps=None), "the trigger is a zone, but limits.plan_cost is off"),
        (
            replace(step, policy=replace(step.policy, destination=Destination.TARGET)),
            "the trigger is a zone, but the destination is target",
        ),
        (replace(step, policy=replace(step.policy, trigger=Threshold(100, None))), "the destination is a zone, but the trigger is not"),
        (without_feed(with_snapshot(step, pools=()), "WETH"), "WETH has no reference price"),
    ):
        decision = decide(broken).decision
        assert isinstance(decision, Halt)
        assert reason in decision.reason
    unpriced = replace(step, portfolio=replace(step.portfolio, wrapped_native=token("COIN").address))
    decision = decide(unpriced).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.ZONE,)
    assert "gas" in decision.reason


def test_zone_survives_its_codec() -> None:
    step = zone_step("3/5")
    again = codec.loads(StepInput, codec.dumps(step))
    assert again == step
    assert decide(again) == decide(step)
