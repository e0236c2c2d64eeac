"""Paths by the thousand: what the fast kernel makes of one, where it knows the policy; and why it does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.backtest.columns import prices_of
from agent.backtest.fast import Run
from agent.backtest.fast import run as run_fast
from agent.backtest.fast_prices import bars_of
from agent.backtest.fast_settings import DESTINATIONS, Setting, costs_of
from agent.backtest.table import PriceTable
from agent.backtest.wanted import Settings, Wanted
from agent.model import Every, Hybrid, Style, Threshold
from agent.policy.bands import band, has_band
from agent.units import BPS

Floats = NDArray[np.float64]
EDGE = 1e-6
"""A weight this close to the edge of its band is inside: what rounding and floats leave of a correction to just there."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one path: the loss at its end and at its worst point since the highest before, and what it is behind holding, as
    shares; turnover in portfolios; the share of bars that ended with a weight outside its band (NaN: no bands).
    """

    loss: float
    drawdown: float
    behind: float
    turnover: float
    outside: float
    rebalances: int
    halted: int = 0
    refused: int = 0


def known(wanted: Wanted, settings: Settings) -> Setting | str:
    """The policy as the kernel takes it; else in words what of it the kernel does not know."""
    portfolio, policy, trigger = wanted.portfolio, wanted.policy, wanted.policy.trigger
    reasons = (
        (wanted.split is not None, "several strategies"),
        (portfolio.weights is not None, "an allocator"),
        (bool(portfolio.orders.terms), "orders"),
        (any(asset.reserve_raw for asset in portfolio.assets), "reserves"),
        (any(asset.band is not None for asset in portfolio.assets), "bands of single assets"),
        (any(asset.max_bps is not None for asset in portfolio.assets), "limits.max_weight"),
        (wanted.execution.pace.style is not Style.MARKET, "corrections over time"),
        (policy.only is not None, "one side alone"),
        (policy.destination not in DESTINATIONS, "this destination"),
        (settings.latency_bars > 0, "latency"),
        (bool(settings.flows), "deposits and withdrawals"),
        (bool(settings.recorded), "recorded pools"),
        (isinstance(trigger, Hybrid) and not isinstance(trigger.schedule, Every), "schedules by the calendar"),
    )
    for unknown, words in reasons:
        if unknown:
            return words
    if not isinstance(trigger, Threshold | Every | Hybrid):
        return "this trigger"
    least = 0.0 if wanted.limits.min_trade is None else float(wanted.limits.min_trade / 10**portfolio.numeraire.decimals)
    targets = tuple(asset.target_bps for asset in portfolio.assets)
    return Setting(targets, trigger, policy.destination, costs_of(wanted, settings), policy.cooldown_s, least)


def edges_of(wanted: Wanted) -> Floats | None:
    """Lower and upper edge of each asset's band around its written target, as shares; None where no weight can leave a band."""
    if not has_band(wanted.policy.trigger) or wanted.portfolio.weights is not None or wanted.split is not None:
        return None
    found = [band(wanted.policy.trigger, asset.target_bps, asset.band, asset.max_bps) for asset in wanted.portfolio.assets]
    return np.array([[float(low) / BPS, float(high) / BPS] for low, high in found])


def by_kernel(wanted: Wanted, setting: Setting, table: PriceTable, value: float) -> Measured:
    """One path without gaps, at the costs of the setting; gas, limits and staleness are not in it."""
    tokens = [asset.token for asset in wanted.portfolio.assets]
    prices = prices_of(wanted, table, table.closes, tokens)
    found = run_fast(bars_of([token.symbol for token in tokens], table.times_s, prices), setting, value, path=True)
    held = _held(found)
    values = held * prices
    worth = values.sum(axis=1)
    moved = 0.0
    for bar in found.rebalanced:
        before = held[bar - 1] if bar else held[0]
        moved += 0.5 * float(np.abs((held[bar] - before) * prices[bar]).sum()) / float(worth[bar])
    return Measured(
        loss=1 - float(worth[-1] / worth[0]),
        drawdown=drawdown(worth),
        behind=1 - found.final_value / found.hold_value,
        turnover=moved,
        outside=outside(values / worth[:, None], edges_of(wanted)),
        rebalances=found.rebalances,
    )


def outside(weights: Floats, edges: Floats | None) -> float:
    """The share of bars at whose end a weight is outside its band; NaN without bands."""
    if edges is None:
        return float("nan")
    return float(((weights < edges[:, 0] - EDGE) | (weights > edges[:, 1] + EDGE)).any(axis=1).mean())


def drawdown(worth: Floats) -> float:
    """The largest fall from the highest worth before, as a share of that."""
    return float((1 - worth / np.maximum.accumulate(worth)).max())


def _held(found: Run) -> Floats:
    """Units at the end of each bar."""
    told = np.where(found.held.any(axis=1), np.arange(len(found.held)), 0)
    held: Floats = found.held[np.maximum.accumulate(told)]
    return held
