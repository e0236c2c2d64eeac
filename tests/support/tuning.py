"""Searches of settings over made-up prices, so that tests say only what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from agent.backtest.data import PriceTable, make_price_table
from agent.backtest.settings import SimulationSettings, make_spec
from agent.backtest.tune.grid import parse_grid
from agent.backtest.tune.jobs import AllocatorSchedule, TuneChunk, TuneJob
from agent.backtest.tune.search import ChunkRunner, TuneResult, TuneSpec, tune
from agent.backtest.tune.workers import run_locally
from agent.model import Every
from tests.support.simulating import START_S

DAY_S = 86_400
CALENDAR = parse_grid("", "28d", "target", "").choices()[0]
FAIR = SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000))
TERMS = AllocatorSchedule(7 * DAY_S, 20 * DAY_S)
WALKING = {"A": 4_000, "B": 3_000, "USD": 3_000}


def daily(closes: dict[str, Sequence[float]]) -> PriceTable:
    """One bar a day."""
    bars = len(next(iter(closes.values())))
    return make_price_table([START_S + DAY_S * bar for bar in range(bars)], closes)


def walks(seed: int, bars: int, volatility: float = 0.04) -> PriceTable:
    """Two geometric random walks."""
    steps = np.random.default_rng(seed).normal(0, volatility, (bars, 2))
    paths = np.round(100 * np.exp(np.cumsum(steps, axis=0)), 6)
    return daily({"A": paths[:, 0].tolist(), "B": paths[:, 1].tolist()})


def swinging(bars: int, seed: int = 0) -> PriceTable:
    """Two assets that swing against each other, up and back by 30 % within eight days: whoever acts beyond a band earns by it, and a
    calendar of whole swings does not.
    """
    noise = np.random.default_rng(seed).normal(0, 0.002, (bars, 2))
    swing = 0.3 * np.sin(np.arange(bars) * np.pi / 4)
    return daily({"A": (100 * np.exp(swing + noise[:, 0])).tolist(), "B": (100 * np.exp(-swing + noise[:, 1])).tolist()})


def search(table: PriceTable, band: str = "2%rel..20%rel:4", every: str = "", **changes: object) -> TuneSpec:
    """A search over bands, and whatever is said besides."""
    grid = parse_grid(band, every, str(changes.pop("destination", "target")), str(changes.pop("allocator", "")))
    wanted = make_spec(WALKING, Every(28 * DAY_S), "USD", interval_s=table.interval_s)
    made = TuneSpec(table, wanted, FAIR, grid, CALENDAR, TERMS)
    return replace(made, **changes)  # type: ignore[arg-type]  # field names, checked by replace


def allowed(_job: TuneJob, _rest: Sequence[TuneChunk]) -> None:
    """No question asked."""


def tuned(
    asked: TuneSpec, folder: Path | None = None, work: ChunkRunner | None = None, progress: Callable[[int, int], None] | None = None
) -> TuneResult:
    """The search, done here."""
    return tune(asked, work or (lambda job, rest: run_locally(job, rest, 1)), folder, allowed, progress or (lambda _done, _runs: None))
