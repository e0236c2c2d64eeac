"""Horizons of the tracking rule's risk: assets without a route and the numeraire have the least, so that the risk stays a risk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Hold, NoTradeZone, Rebalance, StepInput, TrackingRisk
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.risk import covariance
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.tracking import risk_at_costs
from agent.policy.triggers.tracking_rule import TradingCost
from tests.support.builders import token
from tests.support.decisions.tracking import DEPTH, TARGETS, balance_changes, pools_of, tracking_step, weights_after, zone_of

CHEAP_PIPS = 500
COINS = ("WETH", "WBTC", "LINK", "DAI")


def without_link_pool(link_dollars: int) -> StepInput:
    """A step in cheap pools, none of which trades LINK; WETH and WBTC are on target."""
    return tracking_step(balance_changes(LINK=link_dollars), pools=pools_of(DEPTH, CHEAP_PIPS)[:2])


@pytest.mark.parametrize("link_dollars", [-2_500, -1_500, 1_500, 2_500], ids=lambda dollars: f"{20 + dollars / 500:g} %")
def test_asset_without_a_pool_a_little_off_leaves_the_others(link_dollars: int) -> None:
    step = without_link_pool(link_dollars)
    assert isinstance(decide(step).decision, Hold)
    assert propose_rebalance(step).plan is None


@pytest.mark.parametrize("link_dollars", [-4_000, 5_000], ids=lambda dollars: f"{20 + dollars / 500:g} %")
def test_asset_without_a_pool_far_off_moves_the_others_by_less(link_dollars: int) -> None:
    """What moves with it stands in for a part of it: at most half of what is lacking or too much, over both."""
    step = without_link_pool(link_dollars)
    assert isinstance(decide(step).decision, Rebalance)
    after = weights_after(step)
    stand_in = sum(after[symbol] - TARGETS[symbol] / 100 for symbol in ("WETH", "WBTC"))
    lacking = -link_dollars / 500
    assert 0 < stand_in / lacking < 0.7


@pytest.mark.parametrize("symbol", COINS)
def test_plan_is_made_where_every_pair_moves_together(symbol: str) -> None:
    """`correlation` of the config fills every pair, the numeraire's too."""
    targets = {"WETH": 2_500, "WBTC": 2_000, "LINK": 1_500, "DAI": 2_000, "USDC": 2_000}
    values = {name: 5 * bps for name, bps in targets.items()}
    values[symbol] += 8_000
    values["USDC"] -= 8_000
    volatilities = {"WETH": 6_500, "WBTC": 5_000, "LINK": 9_000, "DAI": 200, "USDC": 50}
    step = tracking_step(values, targets=targets)
    trigger = step.policy.trigger
    assert isinstance(trigger, NoTradeZone)
    risk = replace(
        trigger.risk,
        volatilities_bps=tuple((token(name).address, bps) for name, bps in volatilities.items()),
        correlations_bps=tuple((token(first).address, token(second).address, 9_500) for first, second in combinations(targets, 2)),
    )
    step = replace(step, policy=replace(step.policy, trigger=NoTradeZone(risk)))
    assert least_eigenvalue(zone_of(step).risk, [asset.token.address for asset in step.portfolio.assets]) > 0.1
    assert isinstance(decide(step).decision, Rebalance)
    assert propose_rebalance(step).plan is not None


@st.composite
def random_risks(draw: st.DrawFn) -> tuple[TrackingRisk, list[str], list[float], Mapping[int, TradingCost]]:
    """A risk by two common factors, with its tokens, their targets, and the costs of those that have a route."""
    count = draw(st.integers(2, 6))
    tokens = [f"0x{number:040x}" for number in range(count)]
    parts = [draw(st.integers(0, 100)) for _ in range(count)]
    targets = [(part + 1) / (sum(parts) + count) for part in parts]
    angles = [draw(st.floats(0, math.pi)) for _ in range(count)]
    correlations = tuple(
        (tokens[first], tokens[second], round(9_000 * math.cos(angles[first] - angles[second])))
        for first, second in combinations(range(count), 2)
    )
    volatilities = tuple((address, draw(st.integers(50, 20_000))) for address in tokens)
    routed = draw(st.sets(st.integers(0, count - 2)))
    costs = {
        index: TradingCost(draw(st.floats(1e-4, 0.03)), draw(st.floats(0, 1e-3)), draw(st.floats(0, 0.01)), 0.0) for index in sorted(routed)
    }
    trigger = build_tracking(draw(st.sampled_from(["relaxed", "normal", "strict"])))
    risk = replace(trigger.risk, volatilities_bps=volatilities, correlations_bps=correlations)
    return risk, tokens, targets, costs


@given(random_risks())
def test_risk_over_horizons_is_positive_definite(
    drawn: tuple[TrackingRisk, list[str], list[float], Mapping[int, TradingCost]],
) -> None:
    risk, tokens, targets, costs = drawn
    over_horizons = risk_at_costs(risk, tokens, targets, len(tokens) - 1, costs)
    assert least_eigenvalue(over_horizons, tokens) > 0.01


@given(random_risks(), st.lists(st.floats(1e-4, 0.03), min_size=15, max_size=15))
def test_risk_with_cheap_pairs_leaves_no_mix_without_risk(
    drawn: tuple[TrackingRisk, list[str], list[float], Mapping[int, TradingCost]], pair_costs: list[float]
) -> None:
    risk, tokens, targets, costs = drawn
    pairs = dict(zip(combinations(sorted(costs), 2), pair_costs, strict=False))
    without_pairs = risk_at_costs(risk, tokens, targets, len(tokens) - 1, costs)
    over_horizons = risk_at_costs(risk, tokens, targets, len(tokens) - 1, costs, pairs)
    assert least_eigenvalue(over_horizons, tokens) > 0.0009
    assert (over_horizons.widths, over_horizons.volatilities_bps) == (without_pairs.widths, without_pairs.volatilities_bps)
    for (*_, raised), (*_, usual) in zip(over_horizons.correlations_bps, without_pairs.correlations_bps, strict=True):
        assert raised >= usual


def test_pairs_that_contradict_one_another_do_not_count() -> None:
    """Three coins, of which one moves against a second: it cannot move with both almost as one."""
    tokens = ["0xa", "0xb", "0xc", "0xd"]
    correlations = (("0xa", "0xb", -3_000), ("0xa", "0xc", 0), ("0xb", "0xc", 0), *((address, "0xd", 0) for address in tokens[:3]))
    trigger = build_tracking("normal")
    risk = replace(trigger.risk, volatilities_bps=tuple((address, 6_000) for address in tokens), correlations_bps=correlations)
    costs = {index: TradingCost(0.01, 0.0, 0.0) for index in range(3)}
    cheap = {(0, 2): 1e-4, (1, 2): 1e-4}
    shares = [0.2, 0.2, 0.2, 0.4]
    assert risk_at_costs(risk, tokens, shares, 3, costs, cheap) == risk_at_costs(risk, tokens, shares, 3, costs)
    assert len(risk_at_costs(risk, tokens, shares, 3, costs, {(0, 2): 1e-4}).pair_widths) == 1


@given(random_risks(), st.integers(50, 20_000), st.integers(-9_000, 9_000))
def test_risk_over_horizons_ignores_an_excluded_token(
    drawn: tuple[TrackingRisk, list[str], list[float], Mapping[int, TradingCost]], volatility_bps: int, correlation_bps: int
) -> None:
    """A token in quarantine stays in the risk of the config."""
    risk, tokens, targets, costs = drawn
    left_out = "0x" + "ff" * 20
    wider_risk = replace(
        risk,
        volatilities_bps=(*risk.volatilities_bps, (left_out, volatility_bps)),
        correlations_bps=(*risk.correlations_bps, *((address, left_out, correlation_bps) for address in tokens)),
    )
    over_horizons = risk_at_costs(risk, tokens, targets, len(tokens) - 1, costs)
    wider = risk_at_costs(wider_risk, tokens, targets, len(tokens) - 1, costs)
    assert wider.widths == over_horizons.widths
    assert covariance(wider, tokens) == covariance(over_horizons, tokens)


def least_eigenvalue(risk: TrackingRisk, tokens: list[str]) -> float:
    """The least eigenvalue of the correlations of a risk."""
    matrix = np.array(covariance(risk, tokens), dtype=float)
    scale = np.sqrt(np.diag(matrix))
    return float(np.linalg.eigvalsh(matrix / np.outer(scale, scale)).min())
