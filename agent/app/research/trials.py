"""Trials of a backtest's portfolio: stress tests on simulated paths and stress scenarios, and
parameter searches over a grid of triggers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from agent.app.research.backtests import (
    MarketOptions,
    PortfolioOptions,
    refuse_options,
    require_numeraire_among_assets,
    require_priced_gas,
)
from agent.app.research.whatif import require_assets
from agent.backtest.data import PriceTable, select_spec_symbols
from agent.backtest.jumps import (
    note_without_suspects,
    settings_of_last_bars,
    suspect_closes,
    without_closes,
)
from agent.backtest.settings import BacktestSpec, SimulationSettings, TaxRule
from agent.backtest.stress.futures import FuturesStressSpec
from agent.backtest.stress.paths import STRESS_SCENARIOS, SpotScenario, SpotSeverity
from agent.backtest.stress.run import Progress as StressProgress
from agent.backtest.stress.run import (
    StressResult,
    StressSpec,
    complete_bar_count,
    estimate_s,
    run_stress_test,
    without_suspects_text,
)
from agent.backtest.stress.work import PieceResult, StressPiece, StressWork, run_sequentially
from agent.backtest.sweep import available_cores
from agent.backtest.tune.grid import (
    DESTINATIONS,
    STRICTNESSES,
    PolicyChoice,
    PolicyGrid,
    TriggerKind,
    calendar_rule,
    require_fit_grid,
)
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
from agent.backtest.tune.search import Progress as TuneProgress
from agent.backtest.tune.search import TuneResult, TuneSpec, tune
from agent.backtest.tune.statistics import Objective, WalkForwardMode
from agent.backtest.workers import (
    run_in_processes,
    run_locally,
    run_on_cluster,
)
from agent.config.writing.template import starting_limits
from agent.errors import ConfigError, Refused
from agent.model import AllocationMethod, Destination, Every, LotMethod, Threshold
from agent.units import DAY_S

SHOCK_OPTION = "--scenarios shock"
USUAL_PATHS = 2_000
USUAL_STEP_PATHS = 3
DEFAULT_BARS = 720
"""Default length of a path: one month of hourly bars."""
USUAL_SEVERITY = SpotSeverity()
PARALLEL_FROM_S = 15.0
"""Estimated seconds on one core above which several processes share the work."""
PROCESS_DIED_MESSAGE = "a process of the stress test died, perhaps for lack of memory"


@dataclass(frozen=True, slots=True)
class StressOptions:
    """Options of a stress test. Without `scenarios` those that apply to the portfolio are run,
    without `bars` a path has up to DEFAULT_BARS. A mean length of resampled blocks that is None is
    chosen from the data.
    """

    paths: int = USUAL_PATHS
    step_paths: int = USUAL_STEP_PATHS
    bars: int = 0
    scenarios: tuple[SpotScenario, ...] = ()
    severity: SpotSeverity = USUAL_SEVERITY
    mean_block_bars: float | None = None
    keeps_drift: bool = True

    def spec(self, table: PriceTable) -> StressSpec:
        """Return the test of the prices of a portfolio's symbols. Raises ConfigError naming the
        option.
        """
        return StressSpec(
            path_count=self.paths,
            step_path_count=self.step_paths,
            path_bars=self.bars or min(DEFAULT_BARS, complete_bar_count(table)),
            scenarios=self.scenarios or STRESS_SCENARIOS,
            severity=self.severity,
            mean_block_bars=self.mean_block_bars,
            keeps_drift=self.keeps_drift,
            has_named_scenarios=bool(self.scenarios),
        )


@dataclass(frozen=True, slots=True)
class PreparedStressTest:
    """A checked stress test, and its estimated seconds on one core."""

    spec: BacktestSpec
    table: PriceTable
    settings: SimulationSettings
    stress_spec: StressSpec
    estimated_s: float


def prepare_stress(
    prices_path: Path,
    settings: SimulationSettings,
    stress_options: StressOptions,
    portfolio_options: PortfolioOptions,
    *,
    limits_choice: str = "",
) -> PreparedStressTest:
    """Check the options and build the stress test. Without a config, `limits_choice` are "usual"
    (default: those of `trimtab init`) or "off". Raises ConfigError naming the option.
    """
    table = portfolio_options.load_prices(prices_path)
    if limits_choice not in ("", "usual", "off"):
        raise ConfigError(f"--limits: {limits_choice!r}", "choose usual or off")
    if limits_choice and portfolio_options.config is not None:
        raise ConfigError("--limits: the config sets them", "omit it, or --config")
    spec = portfolio_options.spec(table)
    if portfolio_options.config is None and limits_choice != "off":
        spec = replace(spec, limits=starting_limits(spec.portfolio.numeraire))
    require_priced_gas(settings, spec, table)
    stress_spec = stress_options.spec(select_spec_symbols(spec, table))
    return estimated_test(spec, table, settings, stress_spec)


def estimated_test(
    spec: BacktestSpec, table: PriceTable, settings: SimulationSettings, stress_spec: StressSpec
) -> PreparedStressTest:
    """Return the test with its estimated time: closes that are probably wrong double it."""
    run_count = 2 if suspect_closes(table, spec) else 1
    estimated_s = run_count * estimate_s(stress_spec, spec, settings)
    return PreparedStressTest(spec, table, settings, stress_spec, estimated_s)


def with_shocks(
    shock_bps_by_symbol: Mapping[str, int],
    prepared_test: PreparedStressTest | None,
    futures_spec: FuturesStressSpec | None,
) -> tuple[PreparedStressTest | None, FuturesStressSpec | None]:
    """Return the tests with a further scenario, these price changes in basis
    points, in each test that has one of the assets. Raises ConfigError for a name that is
    neither an asset nor a market.
    """
    spot_symbols = set[str]()
    if prepared_test is not None:
        portfolio = prepared_test.spec.portfolio
        spot_symbols = {asset.token.symbol for asset in portfolio.assets}
    market_symbols = set[str]() if futures_spec is None else set(futures_spec.table.symbols)
    require_assets(SHOCK_OPTION, shock_bps_by_symbol, sorted(spot_symbols | market_symbols))
    spot_shocks, market_shocks = (
        tuple(shock for shock in shock_bps_by_symbol.items() if shock[0] in symbols)
        for symbols in (spot_symbols, market_symbols)
    )
    if prepared_test is not None and spot_shocks:
        stress_spec = replace(
            prepared_test.stress_spec,
            severity=replace(prepared_test.stress_spec.severity, shocks=spot_shocks),
            scenarios=(*prepared_test.stress_spec.scenarios, SpotScenario.SHOCK),
        )
        prepared_test = estimated_test(
            prepared_test.spec, prepared_test.table, prepared_test.settings, stress_spec
        )
    if futures_spec is not None and market_shocks:
        severity = replace(futures_spec.severity, shocks=market_shocks)
        futures_spec = replace(futures_spec, severity=severity)
    return prepared_test, futures_spec


def run_stress(
    prepared_test: PreparedStressTest,
    progress: StressProgress | None = None,
    cores: int = 0,
    scheduler: str = "",
) -> StressResult:
    """Run the stress test on `cores` cores (0: all), or on the Dask scheduler at the address
    `scheduler`; this does not change the result.

    A short test runs in this process if no scheduler is named. If closes are probably wrong, a note has the result without
    them. Raises ConfigError if the options do not fit the prices, Retryable if a process or the
    scheduler is lost.
    """
    core_count = cores or available_cores()

    def run_parallel(
        work: StressWork, pieces: Sequence[StressPiece]
    ) -> Iterator[tuple[StressPiece, PieceResult]]:
        if scheduler:
            return run_on_cluster(work, pieces, scheduler, "no paths are kept")
        return run_in_processes(work, pieces, min(core_count, len(pieces)), PROCESS_DIED_MESSAGE)

    is_short = core_count == 1 or prepared_test.estimated_s < PARALLEL_FROM_S

    def run(table: PriceTable, stress_spec: StressSpec) -> StressResult:
        return run_stress_test(
            prepared_test.spec,
            table,
            prepared_test.settings,
            stress_spec,
            progress,
            run_sequentially if is_short and not scheduler else run_parallel,
        )

    result = run(prepared_test.table, prepared_test.stress_spec)
    if not (suspects := suspect_closes(prepared_test.table, prepared_test.spec)):
        return result

    def change_text() -> str:
        trusted_table = select_spec_symbols(
            prepared_test.spec, without_closes(prepared_test.table, suspects)
        )
        path_bars = min(result.path_bars, complete_bar_count(trusted_table))
        stress_spec = replace(prepared_test.stress_spec, path_bars=path_bars)
        return without_suspects_text(run(trusted_table, stress_spec), result)

    note = note_without_suspects(suspects, change_text)
    return replace(result, notes=(note, *result.notes))


MIN_FOLDS = 1
MAX_FOLDS = 50
USUAL_BANDS = (
    *(Threshold(None, bps) for bps in range(500, 2_501, 500)),
    *(Threshold(bps, None) for bps in (200, 500, 1_000)),
)
USUAL_INTERVALS_S = (7 * DAY_S, 28 * DAY_S)
"""Grid of a search that names no band, interval, strictness or zone."""
USUAL_GRID = PolicyGrid((), (), (), trigger_kinds=())
USUAL_CALENDAR = calendar_rule(28 * DAY_S)
CALENDAR_OPTION = {"calendar": "--objective calendar"}
RULE_TO_BEAT = "with the objective tracking, the rule to beat is tracking"
SCHEDULE_OPTIONS = {"price_window_s": "--grid window", "rechoose_s": "--grid rechoose"}
WITHOUT_SUSPECTS = "without_suspects"
"""Folder, in that of a search, of the same search without closes that are probably wrong."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """Options of a parameter search: the grid, and the evaluation of its settings.

    `calendar` is the baseline rule, `walk_mode` the mode of the walk-forward test.
    An allocator chooses weights every `rechoose_s` from the prices of the last `price_window_s`.
    `without_kernel` disables the fast kernel. `tax_bps` is the tax rate on realised
    gains and `lots` the lot rule, by default those of the config; a rate of 0 ignores the config's.
    `written_fields` are those that were written, at whatever value.
    """

    grid: PolicyGrid = USUAL_GRID
    calendar: PolicyChoice = USUAL_CALENDAR
    objective: Objective = Objective.TRACKING
    walk_mode: WalkForwardMode = WalkForwardMode.ANCHORED
    folds: int = 4
    price_window_s: int = 60 * DAY_S
    rechoose_s: int = 7 * DAY_S
    without_kernel: bool = False
    tax_bps: int | None = None
    lots: LotMethod | None = None
    written_fields: Set[str] = frozenset()


def searched_grid(named: PolicyGrid, objective: Objective) -> PolicyGrid:
    """Return the grid of a search that names these values. For the objective tracking without named
    strictnesses, STRICTNESSES are added; without bands, intervals, strictnesses and horizons, the
    usual bands and intervals. Raises ConfigError.
    """
    has_bands = bool(named.bands or named.intervals_s)
    has_rules = bool(named.strictnesses or named.horizons_s)
    if has_rules and not has_bands:
        for option, values in (
            ("--grid destination", named.destinations),
            ("--grid trigger", named.trigger_kinds),
        ):
            if values:
                raise ConfigError(f"{option}: tracking and zones have their own", "omit it")
    if has_rules or has_bands:
        grid = replace(
            named,
            destinations=named.destinations or (Destination.TARGET,),
            trigger_kinds=named.trigger_kinds or tuple(TriggerKind),
        )
    else:
        grid = replace(
            named,
            bands=USUAL_BANDS,
            intervals_s=USUAL_INTERVALS_S,
            destinations=named.destinations or DESTINATIONS,
            trigger_kinds=named.trigger_kinds or (TriggerKind.BAND, TriggerKind.EVERY),
        )
    if objective is Objective.TRACKING and not named.strictnesses:
        grid = replace(grid, strictnesses=STRICTNESSES)
    require_fit_grid(grid)
    return grid


def prepare_tune(
    prices_path: Path,
    market_options: MarketOptions,
    tune_options: TuneOptions,
    portfolio_options: PortfolioOptions,
) -> TuneSpec:
    """Check the options and build the search. A config's limits apply; the grid replaces its
    trigger and destination. Raises ConfigError naming the option.
    """
    objective = tune_options.objective
    grid = searched_grid(tune_options.grid, objective)
    if all(method is AllocationMethod.FIXED for method in grid.allocators):
        refuse_options(
            tune_options,
            TuneOptions(),
            SCHEDULE_OPTIONS,
            "only an allocator uses it",
            "omit it, or add --grid allocator",
            tune_options.written_fields,
        )
    if objective is Objective.TRACKING:
        refuse_options(
            tune_options,
            TuneOptions(),
            CALENDAR_OPTION,
            RULE_TO_BEAT,
            "omit it",
            tune_options.written_fields,
        )
    if market_options.settings.flows:
        raise ConfigError("--flow: deposits would count as growth", "omit them")
    if not MIN_FOLDS <= tune_options.folds <= MAX_FOLDS:
        raise ConfigError(
            f"--walk folds: {tune_options.folds}", f"write a number from {MIN_FOLDS} to {MAX_FOLDS}"
        )
    table = portfolio_options.load_prices(prices_path)
    if portfolio_options.config is None:
        spec = replace(
            portfolio_options,
            trigger=tune_options.calendar.trigger,
            band_by_symbol={},
            destination=Destination.TARGET,
        ).spec(table)
    else:
        spec = portfolio_options.spec(table)
        if spec.split is not None:
            raise ConfigError(
                "--config: each of its strategies has its own trigger",
                "search the settings of one strategy at a time",
            )
    if objective is Objective.TRACKING or grid.strictnesses:
        require_numeraire_among_assets(spec.portfolio)
    if grid.horizons_s and spec.limits.plan_cost_bps is None:
        raise ConfigError(
            "--grid zone: a zone needs limits.plan_cost", "use --config, or omit --grid zone"
        )
    spec = replace(spec, tax=_tax_rule(spec.tax, tune_options))
    table = select_spec_symbols(spec, table)
    settings = market_options.settings_for_table(spec, table)
    require_priced_gas(settings, spec, table)
    schedule = AllocatorSchedule(tune_options.rechoose_s, tune_options.price_window_s)
    require_fit_allocators(grid, spec, schedule, table.interval_s)
    return TuneSpec(
        table,
        spec,
        settings,
        grid,
        tune_options.calendar,
        schedule,
        objective,
        tune_options.walk_mode,
        tune_options.folds,
        tune_options.without_kernel,
    )


def require_fit_allocators(
    grid: PolicyGrid, spec: BacktestSpec, schedule: AllocatorSchedule, interval_s: int
) -> None:
    """Raise ConfigError for an allocator of the grid that the portfolio cannot have."""
    for method in grid.allocators:
        if method is not AllocationMethod.FIXED:
            choice = PolicyChoice(Every(schedule.every_s), allocator=method)
            spec_for_choice(spec, choice, schedule, interval_s)


def _tax_rule(tax_rule: TaxRule, tune_options: TuneOptions) -> TaxRule:
    """Return the config's rule with the options of the search. Raises ConfigError."""
    rate_bps = tax_rule.rate_bps if tune_options.tax_bps is None else tune_options.tax_bps
    if tune_options.lots and not rate_bps:
        raise ConfigError(
            "--objective lots: there is no tax rate", "write --objective tax=25%, or omit it"
        )
    return replace(tax_rule, method=tune_options.lots or tax_rule.method, rate_bps=rate_bps)


def run_tune(
    tune_spec: TuneSpec,
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
    search starts immediately. If closes are probably wrong, a note has the result without them.
    Raises Refused if declined, Retryable if the scheduler or a process
    is lost, ConfigError for the folder of another search.
    """
    core_count = cores or available_cores()
    suspects = suspect_closes(tune_spec.table, tune_spec.backtest)

    def require_confirmed(job: TuneJob, chunks: Sequence[TuneChunk]) -> None:
        if confirm is None:
            return
        estimate = estimate_work(job, chunks, core_count)
        if suspects:  # the search without them comes after it
            estimate = replace(
                estimate, run_count=2 * estimate.run_count, core_s=2 * estimate.core_s
            )
        if estimate.wall_s > CONFIRM_ABOVE_S and not confirm(estimate):
            raise Refused(
                f"not started: {estimate.text}",
                remedy="confirm it with --yes, or use a smaller grid or fewer bars",
            )

    def run_chunks(
        job: TuneJob, chunks: Sequence[TuneChunk]
    ) -> Iterator[tuple[TuneChunk, list[RunResult]]]:
        if not scheduler:
            yield from run_locally(job, chunks, core_count)
            return
        yield from run_locally(
            job, [chunk for chunk in chunks if chunk.engine is RunEngine.KERNEL], core_count
        )
        full_chunks = [chunk for chunk in chunks if chunk.engine is RunEngine.FULL]
        if full_chunks:
            yield from run_on_cluster(job, full_chunks, scheduler)

    run_progress = progress or (lambda _done, _runs: None)
    result = tune(tune_spec, run_chunks, folder, require_confirmed, run_progress)
    if not suspects:
        return result

    def change_text() -> str:
        trusted_folder = None if folder is None else folder / WITHOUT_SUSPECTS
        trusted_table = select_spec_symbols(
            tune_spec.backtest, without_closes(tune_spec.table, suspects)
        )
        trusted_spec = replace(
            tune_spec,
            table=trusted_table,
            settings=settings_of_last_bars(tune_spec.settings, trusted_table.bar_count),
        )
        trusted_result = tune(
            trusted_spec, run_chunks, trusted_folder, lambda _job, _chunks: None, run_progress
        )
        return _trusted_search_text(trusted_result, result)

    note = note_without_suspects(suspects, change_text)
    noted_table = replace(tune_spec.table, notes=(note, *tune_spec.table.notes))
    return replace(result, spec=replace(result.spec, table=noted_table))


def _trusted_search_text(trusted_result: TuneResult, result: TuneResult) -> str:
    """Return how the best setting and its end of the last quarter change without suspect closes."""
    trusted_label, label = (
        search.choices[search.best_index].label for search in (trusted_result, result)
    )
    trusted_value, value = (
        search.last_quarter_results[0].final_value for search in (trusted_result, result)
    )
    return (
        f"Without them the best setting is {trusted_label} instead of {label}; it ends the last"
        f" quarter at {trusted_value:,.2f} instead of {value:,.2f}"
    )
