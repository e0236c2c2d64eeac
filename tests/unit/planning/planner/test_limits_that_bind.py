"""What a plan leaves undone is told with the limit that binds: lifting that one moves the token, lifting another does not."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import pytest

from agent.errors import Refused
from agent.model import Plan, StepInput
from agent.planning import planner
from agent.planning.planner import NothingPlanned
from tests.support.builders import with_limits
from tests.support.planning_worlds import any_problem_with_gas, rebalance_to_targets, weights_bps
from tests.support.samples import slow


def plan_or_refusal(step: StepInput) -> Plan | Refused:
    try:
        return planner.plan(step, rebalance_to_targets(step))
    except Refused as refusal:
        return refusal


@cache
def plan_without_turnover_limit(seed: int, min_trade: Fraction | None = None) -> Plan | Refused:
    """The plan without a limit of turnover."""
    return plan_or_refusal(step_with_turnover_limit(seed, None, min_trade))


def step_with_turnover_limit(seed: int, turnover_bps: int | None, min_trade: Fraction | None = None) -> StepInput:
    return with_limits(any_problem_with_gas(seed), turnover_bps=turnover_bps, daily_turnover_bps=None, min_trade=min_trade)


@pytest.mark.parametrize("min_trade", [None, Fraction(50 * 10**6)])
@pytest.mark.parametrize("turnover_bps", [10, *slow([1, 30])])
@pytest.mark.parametrize("seeds", [(1, 4), *slow([(range(8),)])])
def test_refusal_names_turnover_that_leaves_too_little(seeds: Sequence[int], turnover_bps: int, min_trade: Fraction | None) -> None:
    named_count = 0
    for seed in seeds:
        refusal = plan_or_refusal(step_with_turnover_limit(seed, turnover_bps, min_trade))
        if isinstance(refusal, NothingPlanned) and isinstance(plan_without_turnover_limit(seed, min_trade), Plan):
            named_count += 1
            assert refusal.limiting_rule == "", "it is worth its cost: the limit of turnover keeps it back"
            assert ": limits.turnover leaves " in refusal.message
            assert refusal.remedy.startswith("raise limits.turnover")
            assert [verdict.guard for verdict in refusal.verdicts] == ["turnover"]
    assert named_count


@pytest.mark.parametrize(("problems", "least"), [(6, 20), *slow([(20, 100)])])
def test_skipped_names_turnover_only_where_it_binds(problems: int, least: int) -> None:
    named_count = 0
    for seed in range(problems):
        step = step_with_turnover_limit(seed, 500)
        free = plan_without_turnover_limit(seed)
        plan = plan_or_refusal(step)
        if not isinstance(plan, Plan) or not isinstance(free, Plan):
            continue
        targets = {asset.token.label: asset.target_bps for asset in step.effective_assets}
        now = weights_bps(step, plan)
        then = weights_bps(step, free)
        for item in plan.skipped:
            if item.subject not in targets or abs(now[item.subject] - targets[item.subject]) <= 2:
                continue
            closer = abs(now[item.subject] - targets[item.subject]) - abs(then[item.subject] - targets[item.subject])
            if "turnover" in item.why:
                named_count += 1
                assert closer > -1, (seed, item, closer)
                assert "plan_cost" not in item.why, (seed, item, closer)
            else:
                assert closer <= 1, (seed, item, closer)
    assert named_count > least
