"""Walk-forward: settings are chosen in one stretch of the data and judged in the next, and the last quarter is kept from all choosing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from agent.backtest.tune_stats import Objective, scores

Floats = NDArray[np.float64]
LAST_SHARE = 4
"""The last one of so many equal parts is never seen by the search."""
ROLLING_PIECES = 2
"""Of how many pieces a rolling window is made; an anchored one begins with as many."""


class Walk(Enum):
    """A window that always begins with the data, or one of a fixed length."""

    ANCHORED = "anchored"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True)
class Fold:
    """Periods to choose in, and those after them to be judged in, each from and to before."""

    chosen_from: int
    judged_from: int
    judged_to: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What was chosen in a fold, the objective there and afterwards, and log returns per period afterwards."""

    fold: Fold
    choice: int
    inside: float
    outside: float
    returns: Floats


def first_of_last(bars: int) -> int:
    """The first bar of the last quarter."""
    return bars - bars // LAST_SHARE


def folds(periods: int, count: int, walk: Walk) -> tuple[Fold, ...]:
    """So many folds over equal pieces; none where a piece would have fewer than two periods."""
    pieces = count + ROLLING_PIECES
    if periods < 2 * pieces:
        return ()
    edges = [periods * piece // pieces for piece in range(pieces + 1)]
    first = ROLLING_PIECES
    return tuple(
        Fold(0 if walk is Walk.ANCHORED else edges[piece - ROLLING_PIECES], edges[piece], edges[piece + 1])
        for piece in range(first, pieces)
    )


def walked(returns: Floats, objective: Objective, all_folds: tuple[Fold, ...]) -> tuple[Judged, ...]:
    """The best of `returns[period, setting]` in each fold, judged in the periods that follow; of equals the first."""
    found = []
    for fold in all_folds:
        inside = scores(returns[fold.chosen_from : fold.judged_from], objective)
        best = int(inside.argmax())
        after = returns[fold.judged_from : fold.judged_to]
        found.append(Judged(fold, best, float(inside[best]), float(scores(after[:, [best]], objective)[0]), after[:, best]))
    return tuple(found)
