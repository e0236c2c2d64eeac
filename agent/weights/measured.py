"""Volatilities and correlations of recorded prices in whole basis points, by the returns and the shrinkage that allocators use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.model import PricePoint
from agent.units import BPS
from agent.weights.returns import Floats, Window, covariance, returns


@dataclass(frozen=True, slots=True)
class Measured:
    """Annual volatilities by token and correlations of each pair of them once, bps; `count` returns of `from_s` to `until_s`."""

    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    count: int
    from_s: int
    until_s: int


def measure(window: Window, tokens: Sequence[str], names: Mapping[str, str], prices: Sequence[PricePoint], now_s: int) -> Measured:
    """Of at least one token. Raises Refused naming what is missing, too old, does not move, or is made of the others."""
    seen = returns(window, tokens, names, prices, now_s)
    matrix = covariance(seen, names)
    spread = np.sqrt(np.diag(matrix))
    related = matrix / np.outer(spread, spread)
    pairs = [(one, other) for one in range(len(tokens)) for other in range(one)]
    return Measured(
        tuple((token, _to_bps(float(value))) for token, value in zip(tokens, spread, strict=True)),
        tuple((tokens[other], tokens[one], _to_bps(_entry(related, one, other))) for one, other in pairs),
        len(seen.moves),
        seen.from_s,
        seen.until_s,
    )


def _entry(matrix: Floats, row: int, column: int) -> float:
    return float(matrix[row, column])


def _to_bps(share: float) -> int:
    """Rounded half to even: the one place where these floats become what decisions rest on."""
    return round(share * BPS)
