"""A search for a setting from what a command line says: prices and wishes as of a backtest, a grid, and how sure one has to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.api.backtesting import Market, from_config, from_options, priced, require_priced_gas
from agent.api.reporting import write_pages
from agent.backtest.columns import only_wanted
from agent.backtest.fast import cores_here
from agent.backtest.tune import Progress, Search, Tuned, tune
from agent.backtest.tune_cluster import check_address, on_cluster
from agent.backtest.tune_cost import ASK_ABOVE_S, Estimate, estimated
from agent.backtest.tune_document import document as tune_document
from agent.backtest.tune_grid import Choice, calendar_of, grid_of, named
from agent.backtest.tune_job import Chunk, Engine, Found, Job, Terms, wanted_of
from agent.backtest.tune_report import page
from agent.backtest.tune_stats import Objective
from agent.backtest.tune_walk import Walk
from agent.backtest.tune_workers import local
from agent.config.fields import parse_duration_s
from agent.config.load import load_config
from agent.errors import ConfigError, Refused
from agent.model import Every, Method

__all__ = ["Grids", "prepare_tune", "run_tune", "tune_document", "write_tune_report"]
FEWEST_FOLDS, MOST_FOLDS = 1, 50


@dataclass(frozen=True, slots=True)
class Grids:
    """What is tried out, and how it is judged, as it is written. `calendar` is the interval of the rule that has to be beaten; an
    allocator chooses anew every `rechoose` from the prices of `window`. `full` rules the fast kernel out.
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
    prices: Path,
    market: Market,
    grids: Grids,
    *,
    config: Path | None = None,
    target: str = "",
    numeraire: str = "",
    native: str = "",
    names: str = "",
) -> Search:
    """The search, checked before anything runs. With a config its limits hold, and its trigger and destination are those of the grid.

    Raises ConfigError naming the option.
    """
    grid = grid_of(grids.band, grids.every, grids.destination, grids.allocator, grids.trigger)
    calendar = calendar_of(grids.calendar)
    if market.flows or market.flow_file is not None:
        raise ConfigError("--flow: deposits would count as growth", "leave them away")
    if not FEWEST_FOLDS <= grids.folds <= MOST_FOLDS:
        raise ConfigError(f"--folds: {grids.folds}", f"write a number from {FEWEST_FOLDS} to {MOST_FOLDS}")
    table = priced(prices, names)
    if config is not None:
        if target:
            raise ConfigError("--config: says targets itself", "leave --target away")
        wanted = from_config(load_config(config))
        if wanted.split is not None:
            raise ConfigError("--config: several strategies have triggers of their own", "search for the setting of each by itself")
    else:
        wanted = from_options(table, target, "", grids.calendar, "target", numeraire, native)
    table = only_wanted(wanted, table)
    settings = market.for_table(market.settings(False), wanted, table)
    require_priced_gas(settings, wanted, table)
    terms = Terms(parse_duration_s(grids.rechoose, "--rechoose"), parse_duration_s(grids.window, "--window"))
    for method in grid.allocators:
        if method is not Method.FIXED:
            wanted_of(wanted, Choice(Every(terms.every_s), allocator=method), terms, table.interval_s)
    objective = named(grids.objective, "--objective", {one.value: one for one in Objective})
    walk = named(grids.walk, "--walk", {one.value: one for one in Walk})
    return Search(table, wanted, settings, grid, calendar, terms, objective, walk, grids.folds, grids.full)


def run_tune(
    search: Search,
    *,
    cores: int = 0,
    scheduler: str = "",
    folder: Path | None = None,
    confirm: Callable[[Estimate], bool] | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Does the search, or goes on with the one in `folder`. `cores` 0 takes all; `scheduler` is the address of a Dask scheduler, which
    gets the runs of the full step. `confirm` is asked where it takes longer than five minutes; None goes on unasked.

    Raises Refused where the answer is no, Retryable for a scheduler or process that is lost, ConfigError for a folder of another search.
    """
    many = cores or cores_here()
    if scheduler:
        check_address(scheduler)

    def allow(job: Job, rest: Sequence[Chunk]) -> None:
        if confirm is None:
            return
        estimate = estimated(job, rest, many)
        if estimate.wall_s > ASK_ABOVE_S and not confirm(estimate):
            raise Refused(f"not begun: {estimate.words}", remedy="begin it with --yes, or take a smaller grid or fewer bars")

    def work(job: Job, rest: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[Found]]]:
        if not scheduler:
            yield from local(job, rest, many)
            return
        yield from local(job, [chunk for chunk in rest if chunk.engine is Engine.KERNEL], many)
        steps = [chunk for chunk in rest if chunk.engine is Engine.FULL]
        if steps:
            yield from on_cluster(job, steps, scheduler)

    return tune(search, work, folder, allow, progress or (lambda _done, _runs: None))


def write_tune_report(tuned: Tuned, path: Path) -> tuple[Path, Path]:
    """Writes the page, and beside it the same as JSON; returns both paths. Raises ConfigError where nothing can be written."""
    return write_pages(page(tuned), path)
