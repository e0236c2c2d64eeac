"""Paths of a simulation: value and weights at the end of each bar, time-weighted returns, tax
years.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.accounting.performance import calendar_periods, year_start_s
from agent.accounting.tax_lots import TaxLotRun, run_tax_lots
from agent.backtest.data import numeraire_prices
from agent.backtest.result import (
    AppliedTransfer,
    RebalanceRecord,
    RebalancingPremium,
    YearGain,
    rebalancing_premium,
)
from agent.backtest.settings import TaxRule
from agent.backtest.world import SimulatedWorld
from agent.model import AssetDrift, Portfolio, TaxState
from agent.store import Store
from agent.units import BPS, NATIVE

Path = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetBands:
    """Targets and bands as shares by token, from a bar on."""

    bar: int
    targets: dict[str, float]
    bands: dict[str, tuple[float, float]]


def target_bands(bar: int, drifts: Sequence[AssetDrift], banded: bool) -> TargetBands:
    """Targets of a step; bands only if its trigger has them, and if they exclude anything."""
    edges = {
        one.token: (float(one.band_low_bps) / BPS, float(one.band_high_bps) / BPS) for one in drifts
    }
    bands = {token: found for token, found in edges.items() if banded and found != (0.0, 1.0)}
    return TargetBands(bar, {one.token: one.target_bps / BPS for one in drifts}, bands)


@dataclass(frozen=True, slots=True)
class PortfolioPaths:
    """One value or row for each bar, money in whole coins of the numeraire; columns are the
    portfolio's assets.
    """

    equity: Path
    hold: Path
    weights: Path
    prices: Path
    targets: Path
    bands: Path


def portfolio_paths(world: SimulatedWorld, aims: Sequence[TargetBands]) -> PortfolioPaths:
    """Build the paths from the records of bars with changes."""
    table, records = world.table, world.records
    tokens, assets = world.tokens, [asset.token.address for asset in world.wanted.portfolio.assets]
    prices = numeraire_prices(world.wanted, table, world.closes, tokens)
    coins = np.array([10.0**token.decimals for token in tokens])
    equity, hold, values = (
        np.empty(table.bars),
        np.empty(table.bars),
        np.empty((table.bars, len(tokens))),
    )
    for number, one in enumerate(records):
        end = records[number + 1].bar if number + 1 < len(records) else table.bars
        here = slice(one.bar, end)
        values[here] = (
            np.array([float(one.balances[token.address]) for token in tokens])
            / coins
            * prices[here]
        )
        equity[here] = values[here].sum(axis=1) - float(one.gas / 10**world.money.decimals)
        hold[here] = (
            np.array([float(one.hold[token.address]) for token in tokens]) / coins * prices[here]
        ).sum(axis=1)
    weights = values[:, : len(assets)]
    targets, bands = (
        np.full((table.bars, len(assets)), np.nan),
        np.full((table.bars, len(assets), 2), np.nan),
    )
    for number, target in enumerate(aims):
        here = slice(target.bar, aims[number + 1].bar if number + 1 < len(aims) else table.bars)
        targets[here] = [target.targets.get(token, 0.0) for token in assets]
        bands[here] = [target.bands.get(token, (np.nan, np.nan)) for token in assets]
    return PortfolioPaths(
        equity,
        hold,
        weights / weights.sum(axis=1, keepdims=True),
        prices[:, : len(assets)],
        targets,
        bands,
    )


def time_weighted_return(
    start: Fraction, end: Fraction, flows: Sequence[tuple[Fraction, Fraction]]
) -> float:
    """Product of growth between transfers, less one (Global Investment Performance Standards);
    `flows` are (value before, transfer).
    """
    found, base = 1.0, start
    for before, came in flows:
        found *= float(before / base)
        base = before + came
    return found * float(end / base) - 1


def time_weighted_returns(
    world: SimulatedWorld, start: Fraction, flows: Sequence[AppliedTransfer]
) -> tuple[float, float]:
    """Time-weighted returns of the rebalanced portfolio, after gas, and of the held one."""
    last = world.records[-1]
    end, held = world.value(last.balances) - last.gas, world.value(last.hold)
    return (
        time_weighted_return(start, end, [(one.before, one.value) for one in flows]),
        time_weighted_return(start, held, [(one.hold_before, one.value) for one in flows]),
    )


def premium_of_simulation(
    world: SimulatedWorld, paths: PortfolioPaths, done: Sequence[RebalanceRecord]
) -> RebalancingPremium | None:
    """Rebalancing premium (agent/backtest/result.py): each bar's costs are shares of the holdings
    before; None if gas consumed everything.
    """
    taken = np.zeros(world.table.bars)
    for one in done:
        taken[one.bar] += float((one.fees + one.impact + one.gas) / 10**world.money.decimals)
    if not (paths.equity > 0).all():
        return None
    first = world.records[0].hold  # value before the first bar's trades: transfers come later
    tokens = world.tokens[: paths.weights.shape[1]]
    bought = (
        np.array([float(first[token.address]) / 10.0**token.decimals for token in tokens])
        * paths.prices[0]
    )
    return rebalancing_premium(
        paths.prices,
        paths.weights,
        taken / (paths.equity + taken),
        world.table.times_s,
        bought / bought.sum(),
    )


# --- Realised gains by the ledger of a simulation, without the native coin that pays gas.


class TaxLotLedger:
    """Caches the tax run over the ledger, one per version of the ledger."""

    def __init__(self, store: Store, portfolio: Portfolio, rule: TaxRule) -> None:
        self._store, self._portfolio, self._rule = store, portfolio, rule
        self._mark: tuple[int, ...] | None = None
        self._found: TaxLotRun | None = None

    def state(self, now_s: int) -> TaxState | None:
        """Tax state that a plan's gain is calculated from; None if no limit depends on it."""
        if self._rule.year_limit is None:
            return None
        mark = self._store.ledger.version()
        if self._found is None or mark != self._mark:
            self._found, self._mark = self._run(), mark
        realised = self._found.realised(year_start_s(now_s))
        return TaxState(
            self._rule.method, "", Fraction(1), self._found.open(), realised, self._rule.year_limit
        )

    def years(self, from_s: int, until_s: int) -> tuple[YearGain, ...]:
        """Every calendar year that the simulation touches."""
        found = self._run()
        spans = calendar_periods("year", from_s, until_s)
        return tuple(
            YearGain(datetime.fromtimestamp(start, UTC).year, found.realised(start, end))
            for start, end in spans
        )

    def _run(self) -> TaxLotRun:
        entries = [
            replace(one, postings=tuple(p for p in one.postings if p.token != NATIVE))
            for one in self._store.ledger.entries()
        ]
        return run_tax_lots(
            entries,
            self._rule.method,
            self._portfolio.numeraire.address,
            self._portfolio.wrapped_native,
        )
