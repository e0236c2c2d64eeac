"""What a plan leaves undone is told with the limit that binds: lifting that one moves the token, lifting another does not."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import pytest

from agent.errors import Refused
from agent.model import Plan, StepInput
from agent.planning.planner import NothingPlanned, plan
from tests.support.builders import with_limits
from tests.support.planning_worlds import any_problem_with_gas, rebalance_to_targets, weights_bps
from tests.support.samples import slow


def planned(step: StepInput) -> Plan | Refused:
    try:
        return plan(step, rebalance_to_targets(step))
    except Refused as refused:
        return refused


@cache
def unbounded(seed: int, min_trade: Fraction | None = None) -> Plan | Refused:
    """The plan without a limit of turnover."""
    return planned(bounded(seed, None, min_trade))


def bounded(seed: int, turnover_bps: int | None, min_trade: Fraction | None = None) -> StepInput:
    return with_limits(any_problem_with_gas(seed), turnover_bps=turnover_bps, daily_turnover_bps=None, min_trade=min_trade)


@pytest.mark.parametrize("min_trade", [None, Fraction(50 * 10**6)])
@pytest.mark.parametrize("turnover_bps", [10, *slow([1, 30])])
@pytest.mark.parametrize("seeds", [(1, 4), *slow([(range(8),)])])
def test_where_turnover_leaves_too_little_for_a_trade_it_is_named(
    seeds: Sequence[int], turnover_bps: int, min_trade: Fraction | None
) -> None:
    told = 0
    for seed in seeds:
        nothing = planned(bounded(seed, turnover_bps, min_trade))
        if isinstance(nothing, NothingPlanned) and isinstance(unbounded(seed, min_trade), Plan):
            told += 1
            assert nothing.limiting_rule == "", "it is worth its cost: the limit of turnover keeps it back"
            assert ": limits.turnover leaves " in nothing.message
            assert nothing.remedy.startswith("raise limits.turnover")
            assert [one.guard for one in nothing.verdicts] == ["turnover"]
    assert told


@pytest.mark.parametrize(("problems", "least"), [(6, 20), *slow([(20, 100)])])
def test_a_token_is_said_to_wait_for_turnover_only_where_that_would_move_it(problems: int, least: int) -> None:
    said = 0
    for seed in range(problems):
        step, free = bounded(seed, 500), unbounded(seed)
        found = planned(step)
        if not isinstance(found, Plan) or not isinstance(free, Plan):
            continue
        targets = {asset.token.label: asset.target_bps for asset in step.effective_assets}
        now, then = weights_bps(step, found), weights_bps(step, free)
        for item in found.skipped:
            if item.subject not in targets or abs(now[item.subject] - targets[item.subject]) <= 2:
                continue
            closer = abs(now[item.subject] - targets[item.subject]) - abs(then[item.subject] - targets[item.subject])
            if "turnover" in item.why:
                said += 1
                assert closer > -1, (seed, item, closer)
                assert "plan_cost" not in item.why, (seed, item, closer)
            else:
                assert closer <= 1, (seed, item, closer)
    assert said > least
