"""How chance becomes sizes and waits, and how long a campaign may take."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.gradual.planning import max_slices, remaining_impact
from agent.layers.gradual.policy import (
    NO_JITTER,
    TARGETS_CHANGED_REASON,
    budget_left,
    carried_budget,
    execution_deadlines,
    find_prior_carryover,
    jitter_factor,
    mean_interval_s,
    slice_fraction,
    slice_wait_s,
)
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualState, SliceDraw
from agent.model import Destination, ExecutionPace, ExecutionStyle, Goal
from tests.support.builders import NOW_S, step_input
from tests.support.gradual_execution import PACE, paced

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)


def test_chance_spreads_evenly_around_one_and_never_beyond() -> None:
    assert jitter_factor(0, 3_000) == Fraction(7, 10)
    assert jitter_factor(999_999, 3_000) == Fraction(13, 10)
    assert jitter_factor(123, 0) == 1


@pytest.mark.parametrize(
    ("pace", "rounds", "length_s", "grace_s"),
    [
        pytest.param(PACE, 4, 2 * 4 * 600, 600, id="rounds"),
        pytest.param(TWAP, 8, 14_400, 1_800, id="fixed duration"),
        pytest.param(replace(PACE, style=ExecutionStyle.LIMIT, patience_s=7_200), 1, 7_200, 0, id="limit order"),
    ],
)
def test_how_long_a_campaign_may_take(pace: object, rounds: int, length_s: int, grace_s: int) -> None:
    assert execution_deadlines(pace, rounds, 1_000) == (1_000 + length_s, 1_000 + length_s + grace_s)  # type: ignore[arg-type]  # a Pace


def test_a_wait_is_the_mean_give_or_take_its_jitter() -> None:
    campaign = GradualExecution(PACE, (), Destination.TARGET, Goal(()), (), (), Fraction(1), 4, None, 0, 1, 2, SliceDraw(0, 0))
    assert slice_wait_s(campaign, SliceDraw(0, 0)) == 300
    assert slice_wait_s(campaign, SliceDraw(0, 999_999)) == 900


def execution(pace: ExecutionPace = PACE, **changes: object) -> GradualExecution:
    """Four slices of 250 from second 1 on."""
    plain = GradualExecution(pace, (), Destination.TARGET, Goal(()), (), (), Fraction(1_000), 4, None, 0, 1, 2, SliceDraw(0, 0))
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names


MEAN = SliceDraw(0, 0)
EVEN = replace(PACE, size_jitter_bps=0)


@pytest.mark.parametrize(("remaining", "fraction"), [(1_000, Fraction(1, 4)), (251, Fraction(250, 251)), (250, 1), (100, 1)])
def test_slice__is_its_part_of_the_remainder_or_all_of_a_small_one(remaining: int, fraction: Fraction) -> None:
    assert slice_fraction(execution(EVEN), MEAN, Fraction(remaining)) == fraction


@pytest.mark.parametrize(
    ("pace", "rounds", "interval_s"),
    [
        pytest.param(PACE, 4, 600, id="configured"),
        pytest.param(TWAP, 7, 2_057, id="part of the duration"),
        pytest.param(replace(TWAP, twap_duration_s=3), 8, 1, id="a second at least"),
    ],
)
def test_interval__is_the_config_s_or_the_part_of_the_whole_time(pace: ExecutionPace, rounds: int, interval_s: int) -> None:
    assert mean_interval_s(pace, rounds) == interval_s


@pytest.mark.parametrize(
    ("min_trade", "count"), [(None, 6), (0, 6), (100, 6), (117, 5), (140, 5), (141, 4), (350, 2), (351, 1), (9_000, 1)]
)
def test_max_slices__smallest_slice_is_no_smaller_than_min_trade(min_trade: int | None, count: int) -> None:
    """The smallest of n slices of 1,000 is 700 / n; the config allows six."""
    step = paced(step_input())
    limits = replace(step.limits, min_trade=None if min_trade is None else Fraction(min_trade))
    assert max_slices(limits, step.execution, Fraction(1_000)) == count


@pytest.mark.parametrize(
    ("before", "budget"),
    [
        (None, 10),
        (BudgetCarryover(9, Fraction(1_000), Fraction(4)), 6),
        (BudgetCarryover(9, Fraction(3_000), Fraction(4)), 10),
        (BudgetCarryover(9, Fraction(500), Fraction(4)), 6),
        (BudgetCarryover(9, Fraction(1_000), Fraction(11)), 0),
    ],
)
def test_budget__shared_by_executions_is_at_most_the_largest_alone(before: BudgetCarryover | None, budget: int) -> None:
    """1 % of 1,000."""
    assert budget_left(PACE, Fraction(1_000), before) == budget


def test_budget__none_is_without_a_limit() -> None:
    assert budget_left(replace(PACE, max_loss_bps=None), Fraction(1_000), None) is None


@pytest.mark.parametrize(
    ("spent", "why", "before", "carried"),
    [
        pytest.param(5, "done", None, BudgetCarryover(2, Fraction(1_000), Fraction(5)), id="loss"),
        pytest.param(-5, "done", None, BudgetCarryover(2, Fraction(1_000), Fraction(0)), id="gain"),
        pytest.param(
            5, TARGETS_CHANGED_REASON, None, BudgetCarryover(2, Fraction(1_000), Fraction(5), (("A", Fraction(3)),)), id="targets changed"
        ),
        pytest.param(
            5,
            "done",
            BudgetCarryover(9, Fraction(4_000), Fraction(6)),
            BudgetCarryover(9, Fraction(4_000), Fraction(11)),
            id="loss after a loss",
        ),
        pytest.param(
            -5,
            "done",
            BudgetCarryover(9, Fraction(400), Fraction(6)),
            BudgetCarryover(9, Fraction(1_000), Fraction(6)),
            id="gain after a loss",
        ),
    ],
)
def test_carryover__losses_add_up_and_gains_win_nothing_back(
    spent: int, why: str, before: BudgetCarryover | None, carried: BudgetCarryover
) -> None:
    progress = ExecutionProgress(
        "c", execution(arrival_prices=(("A", Fraction(3)),), carryover=before), 1, Fraction(0), Fraction(spent), 0, MEAN
    )
    assert carried_budget(progress, why) == carried


@pytest.mark.parametrize(("until_s", "is_shared"), [(NOW_S + 1, True), (NOW_S, False)])
def test_carryover__ends_at_its_second(until_s: int, is_shared: bool) -> None:
    carried = BudgetCarryover(until_s, Fraction(1_000), Fraction(5))
    step = step_input().with_layer(GradualState(carryover=carried))
    assert (find_prior_carryover(step) is not None) is is_shared


@pytest.mark.parametrize(
    ("seconds", "half_life_s", "impact_left"),
    [
        pytest.param(600, 600, Fraction(1, 2), id="one half-life"),
        pytest.param(1_200, 600, Fraction(1, 4), id="two half-lives"),
        pytest.param(0, 600, Fraction(1), id="at once"),
    ],
)
def test_remaining_impact__halves_each_half_life_rounded_up(seconds: int, half_life_s: int, impact_left: Fraction) -> None:
    assert remaining_impact(seconds, half_life_s) - impact_left in (0, Fraction(1, 10**12))


def test_no_jitter__size_and_wait_are_their_means() -> None:
    factors = [jitter_factor(ppm, 5_000) for ppm in (NO_JITTER.size_ppm, NO_JITTER.wait_ppm)]
    assert all(abs(factor - 1) < Fraction(1, 10**6) for factor in factors)
