"""Whether the best setting stands on a plateau or on a needle: the objective over two axes of the grid, and among its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.backtest.tune_grid import Choice, band_text
from agent.policy.words import span

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of the grid: the words of its values in order."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The objective over two axes, everything else as in the best setting; NaN where the grid has no such setting. `best` is its cell."""

    down: Axis
    across: Axis
    values: Floats
    best: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How far the objective falls from the best setting to those one step beside it on one axis: on the mean, and at most.

    `spread` is how far it falls to the median of all settings: what the falls are to be compared with.
    """

    count: int
    mean_fall: float
    largest_fall: float
    spread: float


def _band(choice: Choice) -> tuple[int, int]:
    band = choice.band
    if band is None:
        return (2, 0)
    return (0, band.relative_bps or 0) if band.absolute_bps is None else (1, band.absolute_bps)


def _interval(choice: Choice) -> tuple[int, int]:
    return (1, choice.every_s) if choice.every_s is not None else (0, 0)


_AXES: tuple[tuple[str, Callable[[Choice], tuple[int, int] | str], Callable[[Choice], str]], ...] = (
    ("band", _band, lambda c: "no band" if c.band is None else band_text(c.band)),
    ("interval", _interval, lambda c: "no interval" if c.every_s is None else span(c.every_s)),
    ("destination", lambda c: c.destination.value, lambda c: c.destination.value),
    ("allocator", lambda c: c.allocator.value, lambda c: c.allocator.value),
)
_ORDERED = 2
"""The first two axes have an order; on the others every value is beside every other."""


def _places(choices: Sequence[Choice]) -> tuple[NDArray[np.int64], list[Axis], list[list[object]]]:
    """Where each choice is on every axis, and the axes with their values: bands relative, then absolute, then none."""
    places, axes, all_values = [], [], []
    for name, value_of, label_of in _AXES:
        labels = {value_of(choice): label_of(choice) for choice in choices}
        values = sorted(labels, key=str) if name in ("destination", "allocator") else sorted(labels)
        at = {value: i for i, value in enumerate(values)}
        places.append([at[value_of(choice)] for choice in choices])
        axes.append(Axis(name, tuple(labels[value] for value in values)))
        all_values.append(list[object](values))
    return np.array(places, dtype=np.int64).T, axes, all_values


def heat_map(choices: Sequence[Choice], objective: Floats, best: int) -> HeatMap:
    """Over the two axes with most values, the bands downwards where they are one of them."""
    places, axes, _ = _places(choices)
    most = sorted(range(len(axes)), key=lambda axis: -len(axes[axis].labels))[:2]
    down, across = sorted(most)
    values = np.full((len(axes[down].labels), len(axes[across].labels)), np.nan)
    others = [axis for axis in range(len(axes)) if axis not in (down, across)]
    for place, value in zip(places, objective, strict=True):
        if all(place[axis] == places[best][axis] for axis in others):
            values[place[down], place[across]] = value
    return HeatMap(axes[down], axes[across], values, (int(places[best][down]), int(places[best][across])))


def neighbours(choices: Sequence[Choice], objective: Floats, best: int) -> Neighbours | None:
    """One step along one axis: the next width of the same kind, the next interval, any other destination or allocator. None without any."""
    places, _, values = _places(choices)
    steps = np.abs(places - places[best])
    beside = np.zeros(len(choices), dtype=bool)
    for axis in range(len(_AXES)):
        alone = (np.delete(steps, axis, axis=1) == 0).all(axis=1) & (steps[:, axis] > 0)
        if axis < _ORDERED:
            own = values[axis][places[best][axis]]
            kinds = np.array([value[0] == own[0] for value in values[axis]])  # type: ignore[index]  # ordered axes have pairs
            alone &= (steps[:, axis] == 1) & kinds[places[:, axis]]
        beside |= alone
    if not beside.any():
        return None
    falls = float(objective[best]) - objective[beside]
    return Neighbours(int(beside.sum()), float(falls.mean()), float(falls.max()), float(objective[best] - np.median(objective)))
