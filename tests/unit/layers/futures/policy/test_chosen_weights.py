"""Tests of agent/layers/futures/policy/chosen_weights.py: futures targets of a signal or an allocator."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.chosen_weights import chosen_share_by_market, policy_with_shares, with_market_weights
from agent.layers.futures.state import futures_policy
from agent.model import Allocation, AllocationMethod, StepInput
from agent.model.futures import FuturesTarget
from tests.support.builders import NOW_S, split, strategy, threshold, with_history
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, step_of
from tests.support.planning_worlds import allocator


@pytest.mark.parametrize(
    ("shares", "weights_bps", "leverage_bps"),
    [
        pytest.param({"ETH": Fraction(1)}, {"ETH": 10_000}, 20_000, id="whole"),
        pytest.param({"ETH": Fraction(1, 4), "BTC": Fraction(-1, 4)}, {"ETH": 5_000, "BTC": -5_000}, 10_000, id="half of the notional"),
        pytest.param({"ETH": Fraction(1, 3), "BTC": Fraction(1, 3)}, {"ETH": 5_000, "BTC": 5_000}, 13_333, id="leverage rounded down"),
        pytest.param(
            {"ETH": Fraction(1, 3), "BTC": Fraction(1, 3), "SOL": Fraction(-1, 3)},
            {"ETH": 3_334, "BTC": 3_333, "SOL": -3_333}, 20_000, id="largest remainder",
        ),
        pytest.param({"ETH": Fraction(0), "BTC": Fraction(0)}, {"ETH": 0, "BTC": 0}, 0, id="nothing"),
        pytest.param({}, {}, 0, id="no market"),
    ],
)  # fmt: skip
def test_policy_with_shares_lowers_the_leverage_by_their_sum(
    shares: dict[str, Fraction], weights_bps: dict[str, int], leverage_bps: int
) -> None:
    policy = policy_with_shares(FUTURES_POLICY, shares)

    assert policy.targets == tuple(FuturesTarget(market, bps) for market, bps in weights_bps.items())
    assert (policy.leverage_bps, policy.configured_leverage_bps) == (leverage_bps, 20_000)


def test_policy_with_shares_counts_from_the_configured_leverage() -> None:
    lowered = policy_with_shares(FUTURES_POLICY, {"ETH": Fraction(1, 4)})

    assert policy_with_shares(lowered, {"ETH": Fraction(1, 2)}).leverage_bps == 10_000


def allocated_step(*market_bps: tuple[str, int], has_allocator: bool = True) -> StepInput:
    """Return a step whose newest allocation has these signed shares of the target notional."""
    method = AllocationMethod.FUTURES_VOLATILITY
    step = with_history(step_of(EMPTY), allocation=Allocation(NOW_S, method, (), "", "", "", market_bps=market_bps))
    return replace(step, portfolio=replace(step.portfolio, allocator=allocator(method, ()) if has_allocator else None))


CHOSEN = allocated_step(("ETH", 5_000), ("BTC", -2_500))
DIVIDED = CHOSEN.with_config(split(strategy("core", 10_000, {"WETH": 5_000, "USDC": 5_000}, threshold(500))))


@pytest.mark.parametrize(
    ("step", "shares"),
    [
        pytest.param(CHOSEN, {"ETH": Fraction(1, 2), "BTC": Fraction(-1, 4)}, id="allocation"),
        pytest.param(DIVIDED, None, id="wallet divided among strategies"),
        pytest.param(allocated_step(("ETH", 5_000), has_allocator=False), None, id="no allocator"),
        pytest.param(with_history(CHOSEN, allocation=None), None, id="nothing chosen"),
        pytest.param(allocated_step(), None, id="no markets"),
    ],
)
def test_chosen_shares_are_those_of_the_newest_allocation(step: StepInput, shares: dict[str, Fraction] | None) -> None:
    assert chosen_share_by_market(step) == shares


@pytest.mark.parametrize(
    ("step", "shares"),
    [pytest.param(step_of(EMPTY), None, id="nothing chosen"), pytest.param(step_of(EMPTY, None), {"ETH": Fraction(1)}, id="no futures")],
)
def test_with_market_weights_leaves_a_step_without_them(step: StepInput, shares: dict[str, Fraction] | None) -> None:
    assert with_market_weights(step, shares, "the signal") is step


def test_with_market_weights_names_their_origin() -> None:
    step = with_market_weights(step_of(EMPTY), {"ETH": Fraction(3, 10), "BTC": Fraction(-2, 10)}, "the signal")

    policy = futures_policy(step)
    assert policy is not None
    assert policy == policy_with_shares(FUTURES_POLICY, {"ETH": Fraction(3, 10), "BTC": Fraction(-2, 10)})
    assert step.targets.reasons == ("futures targets are those of the signal: 50 % of the target notional",)
