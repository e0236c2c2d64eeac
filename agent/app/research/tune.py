"""Parameter searches: a grid of triggers over a backtest's portfolio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.app.research.backtests import MarketOptions, PortfolioOptions, require_priced_gas
from agent.backtest.data import select_spec_symbols
from agent.backtest.sweep import available_cores
from agent.backtest.tune.grid import PolicyChoice, parse_calendar_rule, parse_choice, parse_grid
from agent.backtest.tune.jobs import (
    CONFIRM_ABOVE_S,
    AllocatorSchedule,
    RunEngine,
    RunResult,
    TuneChunk,
    TuneJob,
    WorkEstimate,
    estimate_work,
    spec_for_choice,
)
from agent.backtest.tune.report import document as tune_document
from agent.backtest.tune.search import Progress as TuneProgress
from agent.backtest.tune.search import TuneResult, TuneSpec, tune
from agent.backtest.tune.statistics import Objective, WalkForwardMode
from agent.backtest.workers import check_address, run_locally, run_on_cluster
from agent.config.fields import parse_duration_s
from agent.errors import ConfigError, Refused
from agent.model import AllocationMethod, Every

__all__ = ["tune_document"]

MIN_FOLDS, MAX_FOLDS = 1, 50


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options of a parameter search, as entered: the grid, and the evaluation of its settings.

    `calendar` is the interval of the baseline rule. An allocator chooses weights every `rechoose`
    from the prices of the last `window`. `full` disables the fast kernel.
    """

    band: str = ""
    every: str = ""
    destination: str = "target"
    allocator: str = "fixed"
    trigger: str = ""
    calendar: str = "28d"
    objective: str = "growth"
    walk: str = "anchored"
    folds: int = 4
    window: str = "60d"
    rechoose: str = "7d"
    full: bool = False


def prepare_tune(
    prices: Path, market: MarketOptions, grids: TuneOptions, portfolio: PortfolioOptions
) -> TuneSpec:
    """Check the options and build the search. A config's limits apply; the grid replaces its
    trigger and destination. Raises ConfigError naming the option.
    """
    grid = parse_grid(grids.band, grids.every, grids.destination, grids.allocator, grids.trigger)
    calendar = parse_calendar_rule(grids.calendar)
    if market.flows or market.flow_file is not None:
        raise ConfigError("--flow: deposits would count as growth", "omit them")
    if not MIN_FOLDS <= grids.folds <= MAX_FOLDS:
        raise ConfigError(
            f"--folds: {grids.folds}", f"write a number from {MIN_FOLDS} to {MAX_FOLDS}"
        )
    table = portfolio.load_prices(prices)
    if portfolio.config is None:
        spec = replace(portfolio, band="", every=grids.calendar, destination="target").spec(table)
    elif portfolio.target:
        raise ConfigError("--config: it already sets targets", "omit --target")
    else:
        spec = portfolio.spec(table)
        if spec.split is not None:
            raise ConfigError(
                "--config: each of its strategies has its own trigger",
                "search the settings of one strategy at a time",
            )
    table = select_spec_symbols(spec, table)
    settings = market.for_table(market.settings(every_bar=False), spec, table)
    require_priced_gas(settings, spec, table)
    schedule = AllocatorSchedule(
        parse_duration_s(grids.rechoose, "--rechoose"), parse_duration_s(grids.window, "--window")
    )
    for method in grid.allocators:
        if method is not AllocationMethod.FIXED:
            spec_for_choice(
                spec,
                PolicyChoice(Every(schedule.every_s), allocator=method),
                schedule,
                table.interval_s,
            )
    objective = parse_choice(grids.objective, "--objective", {one.value: one for one in Objective})
    walk = parse_choice(grids.walk, "--walk", {one.value: one for one in WalkForwardMode})
    return TuneSpec(
        table, spec, settings, grid, calendar, schedule, objective, walk, grids.folds, grids.full
    )


def run_tune(
    search: TuneSpec,
    *,
    cores: int = 0,
    scheduler: str = "",
    folder: Path | None = None,
    confirm: Callable[[WorkEstimate], bool] | None = None,
    progress: TuneProgress | None = None,
) -> TuneResult:
    """Run the search, or resume the one in `folder`.

    It uses `cores` cores (0: all), and for runs of the full step the Dask scheduler at the address
    `scheduler`. `confirm` is called if the search would take more than five minutes; without it the
    search starts immediately. Raises Refused if declined, Retryable if the scheduler or a process
    is lost, ConfigError for the folder of another search.
    """
    many = cores or available_cores()
    if scheduler:
        check_address(scheduler)

    def allow(job: TuneJob, rest: Sequence[TuneChunk]) -> None:
        if confirm is None:
            return
        estimate = estimate_work(job, rest, many)
        if estimate.wall_s > CONFIRM_ABOVE_S and not confirm(estimate):
            raise Refused(
                f"not started: {estimate.words}",
                remedy="confirm it with --yes, or use a smaller grid or fewer bars",
            )

    def work(
        job: TuneJob, rest: Sequence[TuneChunk]
    ) -> Iterator[tuple[TuneChunk, list[RunResult]]]:
        if not scheduler:
            yield from run_locally(job, rest, many)
            return
        yield from run_locally(
            job, [chunk for chunk in rest if chunk.engine is RunEngine.KERNEL], many
        )
        steps = [chunk for chunk in rest if chunk.engine is RunEngine.FULL]
        if steps:
            yield from run_on_cluster(job, steps, scheduler)

    return tune(search, work, folder, allow, progress or (lambda _done, _runs: None))
