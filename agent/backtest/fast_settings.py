"""What the fast kernel can try out: targets, when to act, where to go, what trading costs; and many of them as its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan

import numpy as np
from numpy.typing import NDArray

from agent.backtest.wanted import Settings, Wanted
from agent.errors import ConfigError
from agent.model import Destination, Every, Hybrid, Policy, Threshold
from agent.policy.trigger_rules import validate_policy
from agent.units import BPS, PIPS

Floats = NDArray[np.float64]
DESTINATIONS = {Destination.TARGET: 0, Destination.HALFWAY: 1, Destination.BAND: 2}
"""Their numbers in agent/backtest/fast_kernel.py."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What trading each asset costs, in the table's order: against the numeraire, so that what is sold pays and what is bought pays.

    `fee_bps` is charged on what goes in. `depth` is the value, in the numeraire, of each side of the constant-product pool that the
    asset trades in, at the recorded price before every rebalance; infinite where size does not matter.
    """

    fee_bps: tuple[float, ...]
    depth: tuple[float, ...]

    @classmethod
    def proportional(cls, bps: float, assets: int, numeraire: int | None = None) -> Costs:
        """The same `bps` for every asset but the one at index `numeraire`, which the others trade against and which costs nothing."""
        return cls.pools(bps, inf, assets, numeraire)

    @classmethod
    def pools(cls, fee_bps: float, depth: float, assets: int, numeraire: int | None = None) -> Costs:
        """A pool of that fee and depth for every asset but the numeraire."""
        if numeraire is not None and not 0 <= numeraire < assets:
            raise ConfigError(f"costs.numeraire: {numeraire} is none of {assets} assets", "give the index of its column, or None")
        own = [i == numeraire for i in range(assets)]
        return cls(tuple(0.0 if one else float(fee_bps) for one in own), tuple(inf if one else float(depth) for one in own))


def costs_of(wanted: Wanted, settings: Settings) -> Costs:
    """Those of the simulated market: a pool with the numeraire for each asset."""
    assets = [asset.token.address for asset in wanted.portfolio.assets]
    money = wanted.portfolio.numeraire.address
    own = assets.index(money) if money in assets else None
    return Costs.pools(settings.fee_pips * BPS / PIPS, float(settings.depth), len(assets), own)


@dataclass(frozen=True, slots=True)
class Setting:
    """One policy to try out. `targets_bps` sum to 10,000; `min_trade` is in the numeraire; a correction below it is left alone."""

    targets_bps: tuple[int, ...]
    trigger: Threshold | Every | Hybrid
    destination: Destination
    costs: Costs
    cooldown_s: int = 0
    min_trade: float = 0.0


@dataclass(frozen=True, slots=True)
class Rows:
    """Settings as arrays, one row each: shares, [width absolute, relative, least trade], [interval, cooldown], destination, costs."""

    targets: Floats
    numbers: Floats
    seconds: NDArray[np.int64]
    destination: NDArray[np.int64]
    fee: Floats
    shallow: Floats

    def part(self, start: int, end: int) -> Rows:
        """Some of them, without a copy."""
        some = slice(start, end)
        return Rows(self.targets[some], self.numbers[some], self.seconds[some], self.destination[some], self.fee[some], self.shallow[some])


def rows_of(settings: Sequence[Setting], assets: int) -> Rows:
    """The rows of some settings for a table of so many assets. Raises ConfigError for none at all, and for what makes no sense."""
    if not settings:
        raise ConfigError("settings: there are none", "give at least one")
    for setting in settings:
        _check(setting, assets)
    every = [_parts(setting) for setting in settings]
    return Rows(
        np.array([setting.targets_bps for setting in settings], dtype=np.float64) / BPS,
        np.array([[*widths, setting.min_trade] for (widths, _), setting in zip(every, settings, strict=True)], dtype=np.float64),
        np.array([[every_s, setting.cooldown_s] for (_, every_s), setting in zip(every, settings, strict=True)], dtype=np.int64),
        np.array([DESTINATIONS[setting.destination] for setting in settings], dtype=np.int64),
        np.array([setting.costs.fee_bps for setting in settings], dtype=np.float64) / BPS,
        1.0 / np.array([setting.costs.depth for setting in settings], dtype=np.float64),
    )


def _parts(setting: Setting) -> tuple[tuple[float, float], int]:
    """Widths of the band as shares, NaN where there is none, and the interval in seconds, zero where there is none."""
    match setting.trigger:
        case Threshold():
            threshold, schedule = setting.trigger, None
        case Hybrid(banded, timed):
            threshold, schedule = banded, timed
        case Every():
            threshold, schedule = Threshold(None, None), setting.trigger
    absolute, relative = (np.nan if bps is None else bps / BPS for bps in (threshold.absolute_bps, threshold.relative_bps))
    return (absolute, relative), schedule.every_s if isinstance(schedule, Every) else 0


def _check(setting: Setting, assets: int) -> None:
    trigger, costs = setting.trigger, setting.costs
    if not isinstance(trigger, Threshold | Every | Hybrid) or (isinstance(trigger, Hybrid) and not isinstance(trigger.schedule, Every)):
        raise ConfigError(
            f"trigger: the fast kernel knows no {type(trigger).__name__} like this", "use bands, intervals, or both as hybrid"
        )
    validate_policy(Policy(trigger, setting.destination, setting.cooldown_s))
    if len(setting.targets_bps) != assets or sum(setting.targets_bps) != BPS or min(setting.targets_bps) < 0:
        raise ConfigError(f"targets: {setting.targets_bps} for {assets} assets", f"one of 0 or more for each, {BPS} in all")
    if len(costs.fee_bps) != assets or len(costs.depth) != assets:
        raise ConfigError(f"costs: {len(costs.fee_bps)} fees and {len(costs.depth)} depths for {assets} assets", "one of each per asset")
    if not all(0 <= bps < BPS for bps in costs.fee_bps):
        raise ConfigError(f"costs.fee_bps: {costs.fee_bps}", "a fee is at least 0 and below 10,000 bps")
    if not all(depth > 0 and not isnan(depth) for depth in costs.depth):
        raise ConfigError(f"costs.depth: {costs.depth}", "a depth is above zero, or infinite")
    if not (setting.min_trade >= 0 and isfinite(setting.min_trade)):
        raise ConfigError(f"min_trade: {setting.min_trade}", "write a value of 0 or more")
