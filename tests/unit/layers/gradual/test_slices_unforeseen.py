"""T15: whoever sees every round that was sent, its size and its time, guesses size and time of the next no better than who sees none.

The sequences are drawn as the agent draws them, from chance with fixed seeds. What the observer is given is more than the mempool
shows: sizes as shares of what is to be moved and waits as shares of their mean, so that he knows goal and plan by heart.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import sqrt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.execution.step_context import StepOutcome, StepReaders
from agent.layers.gradual.policy import mean_interval_s, mean_slice_value, slice_value, slice_wait_s
from agent.layers.gradual.records import record_slice
from agent.layers.gradual.state import ExecutionProgress, ExecutionSlice, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.model import Destination, Goal
from agent.store.store import Store
from tests.support.gradual_execution import PACE

BINS = 4
CAMPAIGNS = 400
ROUNDS = 12
SIGMAS = 4.0
"""By chance alone one predictor in fifteen thousand comes so far; there are fewer than fifty here, and seeds are fixed."""

Seen = tuple[int, int]
"""Bins of size and wait of one round."""
Sequence_ = Sequence[Seen]
Predictor = Callable[[Sequence_], int]


@dataclass
class RecordingJournal:
    """A journal that keeps what the engine drew."""

    kept: list[SliceDraw]

    def begin_slice(self, _campaign: str, _number: int, _step: str, _at_s: int, draw: SliceDraw) -> None:
        self.kept.append(draw)


CAMPAIGN = GradualExecution(
    pace=PACE,
    targets_bps=(),
    destination=Destination.TARGET,
    goal=Goal(()),
    arrival_prices=(),
    side_by_token=(),
    value_to_move=Fraction(10**12),
    rounds=6,
    max_loss=None,
    began_s=0,
    ends_s=10**9,
    expires_s=10**9,
    first_draw=SliceDraw(0, 0),
)


def drawn(seed: int, rounds: int) -> list[SliceDraw]:
    """What the engine writes down for so many rounds."""
    chance = random.Random(seed).random
    journal = RecordingJournal([])
    readers = cast(StepReaders, SimpleNamespace(chance=chance))
    for number in range(rounds):
        under = ExecutionProgress("c", CAMPAIGN, number, Fraction(0), Fraction(0), 0, SliceDraw(0, 0))
        state = GradualState(under)
        due = GradualResult(ExecutionSlice(number + 1, Fraction(1), Fraction(1)))
        step = SimpleNamespace(layer=lambda _, state=state: state, snapshot=SimpleNamespace(head=SimpleNamespace(timestamp_s=0)))
        decided: Any = SimpleNamespace(order="", layer=lambda _, due=due: due)
        record_slice(
            readers,
            cast(Store, SimpleNamespace(layer_repository=lambda _: journal)),
            cast(StepOutcome, SimpleNamespace(decision_result=decided, step_input=step, step_id="s")),
        )
    return journal.kept


def observed_bins(draws: Sequence[SliceDraw]) -> list[Seen]:
    """What a perfect observer makes of them: the bin of each size within its bounds, and of each wait."""
    jitter = Fraction(PACE.size_jitter_bps, 10_000)
    late = Fraction(PACE.time_jitter_bps, 10_000)
    mean_s = mean_interval_s(PACE, CAMPAIGN.rounds)
    values = []
    for draw in draws:
        sized = (slice_value(CAMPAIGN, draw) / mean_slice_value(CAMPAIGN) - 1 + jitter) / (2 * jitter)
        waited = (Fraction(slice_wait_s(CAMPAIGN, draw), mean_s) - 1 + late) / (2 * late)
        values.append((min(BINS - 1, int(sized * BINS)), min(BINS - 1, int(waited * BINS))))
    return values


@cache
def ours() -> list[list[Seen]]:
    """Campaigns of the engine, as an observer sees them."""
    return [observed_bins(drawn(seed, ROUNDS)) for seed in range(CAMPAIGNS)]


def learned(history: Sequence[Sequence_], looks: Callable[[Sequence_], object], what: int) -> Predictor:
    """Guesses what came most often after what looked the same, in campaigns seen before."""
    after: dict[object, Counter[int]] = {}
    for execution in history:
        for number in range(1, len(execution)):
            after.setdefault(looks(execution[:number]), Counter())[execution[number][what]] += 1
    usual = Counter(seen_[what] for execution in history for seen_ in execution).most_common(1)[0][0]
    return lambda past: after[looks(past)].most_common(1)[0][0] if looks(past) in after else usual


LOOKS: dict[str, Callable[[Sequence_], object]] = {
    "nothing": lambda _: None,
    "the last size": lambda past: past[-1][0],
    "the last wait": lambda past: past[-1][1],
    "the last round": lambda past: past[-1],
    "the last two sizes": lambda past: tuple(execution[0] for execution in past[-2:]),
    "the last two waits": lambda past: tuple(execution[1] for execution in past[-2:]),
    "the number of the round": len,
    "all that was moved so far": lambda past: sum(execution[0] for execution in past),
    "all the time so far": lambda past: sum(execution[1] for execution in past),
    "number and sum": lambda past: (len(past), sum(execution[0] for execution in past)),
}


def gain(campaigns: Sequence[Sequence_], looks: Callable[[Sequence_], object], what: int) -> float:
    """How many standard deviations a predictor that learned from the first half is above chance on the second."""
    half = len(campaigns) // 2
    guess = learned(campaigns[:half], looks, what)
    hits = [guess(campaign[:number]) == campaign[number][what] for campaign in campaigns[half:] for number in range(1, len(campaign))]
    chance = 1 / BINS
    return (sum(hits) / len(hits) - chance) / sqrt(chance * (1 - chance) / len(hits))


@pytest.mark.parametrize("what", [0, 1], ids=["size", "time"])
@pytest.mark.parametrize("looks", LOOKS.values(), ids=LOOKS)
def test_next_round__is_guessed_no_better_than_by_chance(looks: Callable[[Sequence_], object], what: int) -> None:
    assert gain(ours(), looks, what) < SIGMAS


@pytest.mark.parametrize("what", [0, 1], ids=["size", "time"])
def test_every_size_and_every_wait_comes_as_often_as_any_other(what: int) -> None:
    counts = Counter(size[what] for campaign in ours() for size in campaign)
    fair = CAMPAIGNS * ROUNDS / BINS
    chi_squared = sum((counts[number] - fair) ** 2 / fair for number in range(BINS))
    assert chi_squared < 16.3, counts  # 3 degrees of freedom, one in a thousand


# what the same predictors would see through
def test_equal_evened_and_leaning_rounds__are_seen_through() -> None:
    dice = random.Random(7)
    equal = [[(2, 2)] * ROUNDS for _ in range(CAMPAIGNS)]
    assert gain(equal, LOOKS["nothing"], 0) > 50
    even_out = []
    for _ in range(CAMPAIGNS):
        bins = [(dice.randrange(BINS), dice.randrange(BINS))]
        while len(bins) < ROUNDS:
            bins.append((BINS - 1 - bins[-1][0], dice.randrange(BINS)))
        even_out.append(bins)
    assert gain(even_out, LOOKS["the last size"], 0) > 50
    leaning = [[(max(size_, dice.randrange(BINS)), wait) for size_, wait in campaign] for campaign in ours()]
    assert gain(leaning, LOOKS["nothing"], 0) > SIGMAS


def test_seed__draws_its_own_sequence_and_the_same_again() -> None:
    assert drawn(1, ROUNDS) == drawn(1, ROUNDS)
    assert drawn(1, ROUNDS) != drawn(2, ROUNDS)
    assert len({draw.size_ppm for draw in drawn(3, 200)}) > 190
