"""The venue's budget of request weights: what fits is sent at once, what does not waits for the oldest weight to pass."""

from __future__ import annotations

import pytest

from agent.venues.hyperliquid.budget import WEIGHT_PER_MINUTE, WINDOW_S, RequestBudget
from tests.support.fakes.clock import FakeClock


@pytest.mark.parametrize(
    ("spent", "weight", "waited_s"),
    [
        pytest.param(0, 5_000, 0, id="nothing spent"),
        pytest.param(1_190, 10, 0, id="exactly the rest"),
        pytest.param(1_190, 11, WINDOW_S, id="one beyond the rest"),
        pytest.param(1_200, 1, WINDOW_S, id="all spent"),
    ],
)
def test_request__waits_only_for_a_weight_above_what_is_left(spent: int, weight: int, waited_s: int) -> None:
    clock = FakeClock()
    began_s = clock.now_s()
    budget = RequestBudget(clock)
    if spent:
        budget.spend(spent)
    budget.wait_for(weight)
    assert clock.now_s() - began_s == waited_s


def test_request__waits_for_the_oldest_weights_alone() -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    budget.spend(700)
    clock.sleep(20)
    budget.spend(500)
    began_s = clock.now_s()
    budget.wait_for(600)
    assert clock.now_s() - began_s == WINDOW_S - 20
    assert budget.left() == WEIGHT_PER_MINUTE - 500


@pytest.mark.parametrize(
    ("seconds", "weight_left"),
    [
        (59, 0),
        (60, 0),
        (61, WEIGHT_PER_MINUTE),
        pytest.param(-1, WEIGHT_PER_MINUTE, id="clock set back"),
    ],
)
def test_weight__counts_for_the_venue_s_minute_and_a_second(seconds: int, weight_left: int) -> None:
    clock = FakeClock()
    budget = RequestBudget(clock)
    budget.spend(WEIGHT_PER_MINUTE)
    clock.advance(seconds)
    assert budget.left() == weight_left
