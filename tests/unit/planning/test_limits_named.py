"""A trade that is not made names every limit that binds in its first sentence, the decisive one first."""

from __future__ import annotations

import pytest

from agent.errors import Refused
from agent.figures import first_sentence
from agent.model import Hold, StepInput
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.policy.drift import investable_total
from agent.units import format_time
from tests.support.builders import GWEI, NOW_S, with_history, with_limits, with_snapshot
from tests.support.decisions.tracking import balance_changes, tracking_step
from tests.support.planning_worlds import two

COIN = 10**6
FREES_S = NOW_S + 3_600
LIMITS = ("plan_cost", "daily_turnover")


def with_day_left(step: StepInput, left_usd: int) -> StepInput:
    """Return the step with this many dollars left of a day's turnover of the whole portfolio."""
    total = investable_total(decide(step).drifts)
    step = with_limits(step, turnover_bps=None, daily_turnover_bps=10_000)
    return with_history(step, turnover_24h=total - left_usd * COIN, turnover_frees_s=FREES_S)


def reason_of(step: StepInput) -> str:
    """Return the reason of the hold, or of the refusal."""
    try:
        decision = propose_rebalance(step).decision_result.decision
    except Refused as refusal:
        return refusal.message
    assert isinstance(decision, Hold)
    return decision.reason


def named_limits(reason: str) -> list[str]:
    """Return the limits of a reason's first sentence in its order."""
    sentence = first_sentence(reason)
    return sorted((name for name in LIMITS if name in sentence), key=sentence.index)


BAND = with_snapshot(two(5_600, 4_400), priority_fee_wei=100 * GWEI)
"""A band fired: 600 dollars to move, whose gas alone is above limits.plan_cost."""
FEE = with_limits(two(5_600, 4_400), plan_cost_bps=4)
"""A band fired: the fee is above limits.plan_cost of 4 bps."""
TRACKING = tracking_step(balance_changes(WETH=6_000))
"""The tracking rule fired."""
CUT = with_snapshot(with_limits(TRACKING, plan_cost_bps=None), priority_fee_wei=GWEI)
"""The rest of the day saves less risk than it costs, twice of it more."""


@pytest.mark.parametrize(
    ("step", "left_usd", "limits"),
    [
        pytest.param(BAND, 100, ["plan_cost", "daily_turnover"], id="band: gas and day"),
        pytest.param(BAND, 10_000, ["plan_cost"], id="band: gas"),
        pytest.param(FEE, 100, ["plan_cost", "daily_turnover"], id="band: fee and day"),
        pytest.param(FEE, 10_000, ["plan_cost"], id="band: fee"),
        pytest.param(with_limits(TRACKING, plan_cost_bps=10), 100, ["plan_cost", "daily_turnover"], id="tracking: cost and day"),
        pytest.param(with_limits(TRACKING, plan_cost_bps=10), 20_000, ["plan_cost"], id="tracking: cost"),
        pytest.param(CUT, 50, ["daily_turnover"], id="tracking: plan that the day cuts"),
        pytest.param(TRACKING, 12, ["daily_turnover"], id="tracking: rest of the day"),
        pytest.param(TRACKING, 5, ["daily_turnover"], id="tracking: day used up"),
        pytest.param(two(5_600, 4_400), 5, ["daily_turnover"], id="band: day used up"),
    ],
)
def test_first_sentence_names_limits_that_bind(step: StepInput, left_usd: int, limits: list[str]) -> None:
    reason = reason_of(with_day_left(step, left_usd))

    assert named_limits(reason) == limits, reason
    assert (format_time(FREES_S) in first_sentence(reason)) is ("daily_turnover" in limits), reason


@pytest.mark.parametrize(("left_usd", "says"), [(0, "used up"), (5, "leaves 5 USDC")])
def test_refusal_says_what_the_day_leaves(left_usd: int, says: str) -> None:
    """5 dollars are less than limits.min_trade of 10."""
    assert says in first_sentence(reason_of(with_day_left(TRACKING, left_usd)))


def test_unknown_time_of_the_day_is_left_out() -> None:
    reason = reason_of(with_history(with_day_left(TRACKING, 5), turnover_frees_s=None))

    assert named_limits(reason) == ["daily_turnover"]
    assert "until" not in reason
