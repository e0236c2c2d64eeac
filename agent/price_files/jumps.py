"""Closes that are probably wrong: prices far from both neighbours, which the next bars take back,
and single closes at the ends of a series.

A crash that lasts is none of these, and neither is a rise or fall over several bars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR = math.log(1.3)
"""Smallest jump, as a log return: 30 %."""
ROBUST_DEVIATIONS = 10.0
"""Robust deviations of the returns beyond which a return is a jump."""
_DEVIATION_OF_MAD = 1.4826
"""Standard deviation of a normal sample over its median absolute deviation."""
MAX_LASTING_BARS = 3
"""Bars that a wrong price may last."""
_LASTING_FLOOR = math.log(2)
"""Smallest jump of a price that lasts several bars, and of a first or last close."""
_EDGE_PAIR_FLOOR = math.log(5)
"""Smallest jump of two closes at an end of the series."""
_RETURNED_SHARE = 1 / 3
"""Largest part of a jump that may be left after it was taken back."""


@dataclass(frozen=True, slots=True)
class PriceJump:
    """Closes from index `start` up to and without `end` that are apart from the others. `is_edge` is
    True at the start or end of the series, where only one side tells.
    """

    start: int
    end: int
    is_edge: bool


def _threshold(returns: NDArray[np.float64]) -> float:
    """Return the log return beyond which a return is a jump: ROBUST_DEVIATIONS robust deviations of
    the returns, at least FLOOR.
    """
    if not len(returns):
        return FLOOR
    deviation = _DEVIATION_OF_MAD * float(np.median(np.abs(returns - np.median(returns))))
    return max(FLOOR, ROBUST_DEVIATIONS * deviation)


def find_jumps(prices: Sequence[float]) -> list[PriceJump]:
    """Return the jumps of a series of prices above zero, in order, without overlap."""
    returns = _log_returns(prices)
    threshold = _threshold(returns)
    jumps: list[PriceJump] = []
    first_index = 1
    if (first_count := _edge_count(returns, threshold)) > 0:
        jumps.append(PriceJump(0, first_count, True))
        first_index = first_count + 1
    last_count = _edge_count(returns[::-1], threshold)
    end_index = len(prices) - last_count
    for index in (np.flatnonzero(np.abs(returns) > threshold) + 1).tolist():
        if not first_index <= index < end_index:
            continue
        end = _returned_at(prices, index, threshold)
        if end is not None and end <= end_index:
            jumps.append(PriceJump(index, end, False))
            first_index = end + 1
    if last_count:
        jumps.append(PriceJump(end_index, len(prices), True))
    return jumps


def _log_returns(prices: Sequence[float]) -> NDArray[np.float64]:
    closes = np.asarray(prices, dtype=np.float64)
    returns: NDArray[np.float64] = np.log(closes[1:] / closes[:-1])
    return returns


def _returned_at(prices: Sequence[float], start: int, threshold: float) -> int | None:
    """Return the index of the first close after the jump at `start` that takes it back; None if none
    of the next does in one bar.
    """
    before = prices[start - 1]
    height = math.log(prices[start] / before)
    for end in range(start + 1, min(start + 1 + MAX_LASTING_BARS, len(prices))):
        if end > start + 1 and abs(height) < _LASTING_FLOOR:
            return None
        left = math.log(prices[end] / before)
        exit_return = math.log(prices[end] / prices[end - 1])
        is_back = abs(left) <= _RETURNED_SHARE * abs(height)
        if is_back and abs(exit_return) > threshold * (1 - _RETURNED_SHARE):
            return end
        if left / height < 1 / 2:
            return None
    return None


def _edge_count(returns: NDArray[np.float64], threshold: float) -> int:
    """Return how many closes at the start are apart from the following ones: 0 to 2."""
    for count, floor in ((1, _LASTING_FLOOR), (2, _EDGE_PAIR_FLOOR)):
        following = returns[count : count + MAX_LASTING_BARS]
        is_apart = len(returns) > count and abs(returns[count - 1]) > max(threshold, floor)
        is_calm = len(following) > 1 and all(abs(value) <= threshold for value in following)
        if is_apart and is_calm and all(abs(value) <= threshold for value in returns[: count - 1]):
            return count
    return 0
