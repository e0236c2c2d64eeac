"""Tests of agent/layers/gradual by prediction: who sees every slice guesses the next no better than who sees none (T15).

The sequences are drawn as the agent draws them, from chance with fixed seeds. The observer sees more than the mempool shows: sizes as
shares of what is to be moved and waits as shares of their mean, so that it knows goal and plan.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import sqrt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.execution.step_context import StepOutcome, StepReaders
from agent.layers.gradual.policy import mean_interval_s, mean_slice_value, slice_value, slice_wait_s
from agent.layers.gradual.records import record_slice
from agent.layers.gradual.state import ExecutionProgress, ExecutionSlice, GradualResult, GradualState, SliceDraw
from agent.store.store import Store
from tests.support.gradual_execution import STORED_EXECUTION

BINS = 4
EXECUTION_COUNT = 400
SLICE_COUNT = 12
SIGMAS = 4.0
"""By chance alone one predictor in fifteen thousand comes so far; there are fewer than fifty here, and seeds are fixed."""

SliceBins = tuple[int, int]
"""Bins of size and wait of one slice."""
Bins = Sequence[SliceBins]
Predictor = Callable[[Bins], int]
Pattern = Callable[[Bins], object]
"""What a predictor looks at in the slices before."""


@dataclass
class RecordingExecutionStore:
    """A store that keeps the draws of the slices."""

    draws: list[SliceDraw] = field(default_factory=list)

    def begin_slice(self, _execution: str, _number: int, _step: str, _at_s: int, draw: SliceDraw) -> None:
        self.draws.append(draw)


def recorded_draws(seed: int, slice_count: int) -> list[SliceDraw]:
    """Return the draws that are recorded with so many slices."""
    execution_store = RecordingExecutionStore()
    readers = cast(StepReaders, SimpleNamespace(chance=random.Random(seed).random))
    store = cast(Store, SimpleNamespace(layer_repository=lambda _: execution_store))
    for number in range(slice_count):
        progress = ExecutionProgress("e", STORED_EXECUTION, number, Fraction(0), Fraction(0), 0, SliceDraw(0, 0))
        state = GradualState(progress)
        result = GradualResult(ExecutionSlice(number + 1, Fraction(1), Fraction(1)))
        snapshot = SimpleNamespace(head=SimpleNamespace(timestamp_s=0))
        step = SimpleNamespace(layer=lambda _, state=state: state, snapshot=snapshot)
        decision_result: Any = SimpleNamespace(layer=lambda _, result=result: result)
        outcome = SimpleNamespace(decision_result=decision_result, step_input=step, step_id="s")
        record_slice(readers, store, cast(StepOutcome, outcome))
    return execution_store.draws


def observed_bins(draws: Sequence[SliceDraw]) -> list[SliceBins]:
    """Return the bins of size and wait of each slice within their bounds."""
    pace = STORED_EXECUTION.pace
    size_jitter = Fraction(pace.size_jitter_bps, 10_000)
    time_jitter = Fraction(pace.time_jitter_bps, 10_000)
    mean_s = mean_interval_s(pace, STORED_EXECUTION.rounds)
    bins = []
    for draw in draws:
        size = (slice_value(STORED_EXECUTION, draw) / mean_slice_value(STORED_EXECUTION) - 1 + size_jitter) / (2 * size_jitter)
        wait = (Fraction(slice_wait_s(STORED_EXECUTION, draw), mean_s) - 1 + time_jitter) / (2 * time_jitter)
        bins.append((min(BINS - 1, int(size * BINS)), min(BINS - 1, int(wait * BINS))))
    return bins


@cache
def observed_executions() -> list[list[SliceBins]]:
    return [observed_bins(recorded_draws(seed, SLICE_COUNT)) for seed in range(EXECUTION_COUNT)]


def trained_predictor(history: Sequence[Bins], pattern: Pattern, axis: int) -> Predictor:
    """Return the predictor of what came most often after the same pattern in these executions."""
    counts_by_pattern: dict[object, Counter[int]] = {}
    for execution in history:
        for number in range(1, len(execution)):
            counts_by_pattern.setdefault(pattern(execution[:number]), Counter())[execution[number][axis]] += 1
    usual = Counter(slice_bins[axis] for execution in history for slice_bins in execution).most_common(1)[0][0]
    return lambda past: counts_by_pattern[pattern(past)].most_common(1)[0][0] if pattern(past) in counts_by_pattern else usual


PATTERNS: dict[str, Pattern] = {
    "nothing": lambda _: None,
    "the last size": lambda past: past[-1][0],
    "the last wait": lambda past: past[-1][1],
    "the last slice": lambda past: past[-1],
    "the last two sizes": lambda past: tuple(slice_bins[0] for slice_bins in past[-2:]),
    "the last two waits": lambda past: tuple(slice_bins[1] for slice_bins in past[-2:]),
    "the number of the slice": len,
    "all that was moved so far": lambda past: sum(slice_bins[0] for slice_bins in past),
    "all the time so far": lambda past: sum(slice_bins[1] for slice_bins in past),
    "number and sum": lambda past: (len(past), sum(slice_bins[0] for slice_bins in past)),
}


def prediction_sigmas(executions: Sequence[Bins], pattern: Pattern, axis: int) -> float:
    """Return how many standard deviations a predictor of the first half is above chance on the second."""
    half = len(executions) // 2
    predict = trained_predictor(executions[:half], pattern, axis)
    hits = [
        predict(execution[:number]) == execution[number][axis] for execution in executions[half:] for number in range(1, len(execution))
    ]
    chance = 1 / BINS
    return (sum(hits) / len(hits) - chance) / sqrt(chance * (1 - chance) / len(hits))


@pytest.mark.parametrize("axis", [0, 1], ids=["size", "time"])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_next_slice_is_guessed_no_better_than_by_chance(pattern: Pattern, axis: int) -> None:
    assert prediction_sigmas(observed_executions(), pattern, axis) < SIGMAS


@pytest.mark.parametrize("axis", [0, 1], ids=["size", "time"])
def test_sizes_and_waits_are_even(axis: int) -> None:
    """Chi squared of three degrees of freedom; one in a thousand is beyond."""
    counts = Counter(slice_bins[axis] for execution in observed_executions() for slice_bins in execution)
    mean_count = EXECUTION_COUNT * SLICE_COUNT / BINS

    assert sum((counts[number] - mean_count) ** 2 / mean_count for number in range(BINS)) < 16.3, counts


def test_predictors_see_through_slices_that_are_not_random() -> None:
    """Equal ones, ones that even out, and ones that lean to a side."""
    dice = random.Random(7)
    equal: list[Bins] = [[(2, 2)] * SLICE_COUNT for _ in range(EXECUTION_COUNT)]
    evened: list[Bins] = []
    for _ in range(EXECUTION_COUNT):
        bins = [(dice.randrange(BINS), dice.randrange(BINS))]
        while len(bins) < SLICE_COUNT:
            bins.append((BINS - 1 - bins[-1][0], dice.randrange(BINS)))
        evened.append(bins)
    leaning: list[Bins] = [[(max(size, dice.randrange(BINS)), wait) for size, wait in execution] for execution in observed_executions()]

    assert prediction_sigmas(equal, PATTERNS["nothing"], 0) > 50
    assert prediction_sigmas(evened, PATTERNS["the last size"], 0) > 50
    assert prediction_sigmas(leaning, PATTERNS["nothing"], 0) > SIGMAS


def test_seed_draws_its_own_sequence_and_the_same_again() -> None:
    assert recorded_draws(1, SLICE_COUNT) == recorded_draws(1, SLICE_COUNT)
    assert recorded_draws(1, SLICE_COUNT) != recorded_draws(2, SLICE_COUNT)
    assert len({draw.size_ppm for draw in recorded_draws(3, 200)}) > 190
