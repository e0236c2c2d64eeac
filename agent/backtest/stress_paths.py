"""Prices that could have been: blocks of what was recorded in another order, or a walk with jumps of the same covariance."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from agent.backtest.table import PriceTable, carried
from agent.backtest.tune_bootstrap import block_length
from agent.errors import ConfigError

Floats = NDArray[np.float64]
FEWEST_RETURNS = 30
"""Below so many returns neither blocks nor a covariance say anything."""
JUMP_DEVIATIONS = 4.0
"""A move of any asset beyond so many robust standard deviations counts as a jump."""
MAD_TO_DEVIATION = 1.4826
"""Median absolute deviation to standard deviation, of normal numbers."""


class Method(Enum):
    """How paths are made."""

    BLOCKS = "blocks"
    JUMPS = "jumps"


@dataclass(frozen=True, slots=True)
class Past:
    """What paths are made from: log returns by bar and asset, the prices they start at, and the distance of bars in seconds.

    `left_out` counts bars of the table at which, or before which, an asset had no price: nothing is made up for them.
    """

    symbols: tuple[str, ...]
    returns: Floats
    last: Floats
    end_s: int
    interval_s: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Jumps:
    """A walk of log returns per bar with jumps that come to all assets at once: Merton (1976), "Option pricing when underlying stock
    returns are discontinuous", with vectors in the place of numbers. A bar has a normal move and Poisson(`rate`) normal jumps.
    """

    drift: Floats
    covariance: Floats
    rate: float
    jump_mean: Floats
    jump_covariance: Floats


def past_of(table: PriceTable, drift: bool = True) -> Past:
    """The log returns between neighbouring bars at which every asset has a price; without `drift` the mean growth of prices is taken off.

    Raises ConfigError for too few.
    """
    known: NDArray[np.bool_] = np.logical_and.reduce(~np.isnan(table.closes), axis=1)
    usable = known[1:] & known[:-1]
    with np.errstate(invalid="ignore"):
        returns = np.diff(np.log(table.closes), axis=0)[usable]
    if len(returns) < FEWEST_RETURNS:
        raise ConfigError(
            f"--prices: {len(returns)} moves between bars at which all assets have a price", f"{FEWEST_RETURNS} or more are needed"
        )
    if not drift:
        returns = returns - np.log(np.exp(returns).mean(axis=0))  # so that prices, not their logarithms, go nowhere
    last = carried(table.closes)[-1]
    return Past(table.symbols, returns, last, int(table.times_s[-1]), table.interval_s, table.bars - 1 - len(returns))


def resampled(past: Past, bars: int, block: float, chance: np.random.Generator) -> PriceTable:
    """A path of `bars` by the stationary bootstrap, with blocks of geometric length, `block` on average, that begin anywhere and go on
    at the beginning past the end: Politis & Romano (1994), "The stationary bootstrap". All assets move together.
    """
    count, moves = len(past.returns), bars - 1
    begins = chance.random(moves) < 1 / block
    begins[:1] = True
    starts = chance.integers(0, count, moves)
    at = np.maximum.accumulate(np.where(begins, np.arange(moves), 0))
    rows = (starts[at] + np.arange(moves) - at) % count
    return _table(past, past.returns[rows])


def jumped(past: Past, model: Jumps, bars: int, chance: np.random.Generator) -> PriceTable:
    """A path of `bars` by the model."""
    moves, assets = bars - 1, len(past.symbols)
    normal = chance.standard_normal((moves, assets)) @ _root(model.covariance).T
    times = chance.poisson(model.rate, moves)[:, None]
    jumps = times * model.jump_mean + np.sqrt(times) * (chance.standard_normal((moves, assets)) @ _root(model.jump_covariance).T)
    return _table(past, model.drift + normal + jumps)


def jumps_of(past: Past) -> Jumps:
    """The model of these returns: bars at which any asset moved further than JUMP_DEVIATIONS are its jumps, all others its walk.

    By threshold as Mancini (2009), "Non-parametric threshold estimation for models with stochastic diffusion coefficient and jumps",
    with the median absolute deviation for the scale, which jumps themselves do not move.
    """
    returns = past.returns
    centre = np.median(returns, axis=0)
    scale = MAD_TO_DEVIATION * np.median(np.abs(returns - centre), axis=0)
    wild = (np.abs(returns - centre) > JUMP_DEVIATIONS * np.where(scale > 0, scale, np.inf)).any(axis=1)
    calm = returns[~wild]
    if len(calm) < 2:
        calm, wild = returns, np.zeros(len(returns), dtype=np.bool_)
    drift, covariance = calm.mean(axis=0), _covariance(calm)
    sizes = returns[wild] - drift
    zero = np.zeros(len(past.symbols))
    if not len(sizes):
        return Jumps(drift, covariance, 0.0, zero, np.zeros_like(covariance))
    # A bar that jumps moves by its walk as well, which is in the covariance of the sizes: taken off, but never below zero.
    spread = _covariance(sizes) - covariance if len(sizes) > 1 else np.zeros_like(covariance)
    return Jumps(drift, covariance, float(wild.mean()), sizes.mean(axis=0), _not_negative(spread))


def block_of(past: Past) -> float:
    """The average length of blocks by the rule of Politis & White (agent/backtest/tune_bootstrap.py), the longest that any asset asks for.

    Of absolute returns: it is the size of moves that clusters, their direction hardly depends on the past. No longer than the data.
    """
    asked = [block_length(np.abs(past.returns[:, column])) for column in range(past.returns.shape[1])]
    return min(max(asked), float(len(past.returns)))


def check_block(block: float, past: Past) -> None:
    """Raises ConfigError for a block that is shorter than one bar, or longer than what there is to take it from."""
    if not 1 <= block <= len(past.returns):
        raise ConfigError(f"--block: {block:g} of {len(past.returns)} moves", "a block is at least 1 and no longer than the data")


def _table(past: Past, returns: Floats) -> PriceTable:
    paths = past.last * np.exp(np.vstack([np.zeros(len(past.symbols)), np.cumsum(returns, axis=0)]))
    times = past.end_s + past.interval_s * np.arange(len(paths), dtype=np.int64)
    return PriceTable(past.symbols, times, paths)


def _covariance(returns: Floats) -> Floats:
    found: Floats = np.atleast_2d(np.cov(returns, rowvar=False))
    return found


def _root(covariance: Floats) -> Floats:
    """A matrix whose square is the covariance; one that has no inverse will do."""
    values, vectors = np.linalg.eigh(covariance)
    found: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return found


def _not_negative(matrix: Floats) -> Floats:
    """The nearest matrix that is a covariance."""
    root = _root(matrix)
    found: Floats = root @ root.T
    return found
