"""How chance becomes sizes and waits, and how long a campaign may take."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.gradual.policy import execution_deadlines, jitter_factor, slice_wait_s
from agent.layers.gradual.state import GradualExecution, SliceDraw
from agent.model import Destination, ExecutionStyle, Goal
from tests.support.gradual_execution import PACE

TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, over_s=14_400)


def test_chance_spreads_evenly_around_one_and_never_beyond() -> None:
    assert jitter_factor(0, 3_000) == Fraction(7, 10)
    assert jitter_factor(999_999, 3_000) == Fraction(13, 10)
    assert jitter_factor(123, 0) == 1


@pytest.mark.parametrize(
    ("pace", "rounds", "length_s", "grace_s"),
    [(PACE, 4, 2 * 4 * 600, 600), (TWAP, 8, 14_400, 1_800), (replace(PACE, style=ExecutionStyle.LIMIT, patience_s=7_200), 1, 7_200, 0)],
)
def test_how_long_a_campaign_may_take(pace: object, rounds: int, length_s: int, grace_s: int) -> None:
    assert execution_deadlines(pace, rounds, 1_000) == (1_000 + length_s, 1_000 + length_s + grace_s)  # type: ignore[arg-type]  # a Pace


def test_a_wait_is_the_mean_give_or_take_its_jitter() -> None:
    campaign = GradualExecution(PACE, (), Destination.TARGET, Goal(()), (), (), Fraction(1), 4, None, 0, 1, 2, SliceDraw(0, 0))
    assert slice_wait_s(campaign, SliceDraw(0, 0)) == 300
    assert slice_wait_s(campaign, SliceDraw(0, 999_999)) == 900
