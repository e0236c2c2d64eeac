"""Work of a search in chunks: runs by the fast kernel or the full step, stored results, and a time
estimate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from agent.backtest.data import PriceTable, forward_fill, prices_in_numeraire
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PERMISSIVE_LIMITS, BacktestSpec, SimulationSettings
from agent.backtest.simulate import SimulationRun, simulate
from agent.backtest.sweep import KernelSetting, prepare_prices, simulated_costs, sweep
from agent.backtest.tune.grid import PolicyChoice, StopLevel
from agent.backtest.tune.kernel_rule import is_rule_supported, kernel_rule, with_owner_risk
from agent.backtest.tune.loss import active_variance, balanced_growth, drift_of, step_losses
from agent.backtest.tune.taxes import tax_by_mark
from agent.config.tables.weights import LONGEST_WINDOW_S
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.files import Content, replace_file, sync_folder
from agent.floats import FloatArray
from agent.foreign_text import read_json
from agent.model import (
    PORTFOLIO_SUBJECT,
    AllocationMethod,
    AllocatorConfig,
    ExecutionStyle,
    InitialWeights,
    NoTradeZone,
    OrderKind,
    OrderTerms,
    Trigger,
)
from agent.units import BPS, DAY_S, HOUR_S, format_duration, rough_duration

KERNEL_CHUNK_RUNS = 128
"""Number of runs whose values at every bar are in memory together."""
MIN_WEIGHTED_ASSETS = 2
STOP_KINDS = (OrderKind.STOP_LOSS, OrderKind.TRAILING_STOP)
EMPTY_WEIGHT = 1e-6
"""Weight below which an asset was sold; what is left of it is dust."""


class RunEngine(Enum):
    """Engine of a run: the kernel of fixed weights, or the live step."""

    KERNEL = "kernel"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class AllocatorSchedule:
    """Schedule of allocators: a new choice every `every_s` from the prices of the last
    `window_s`.
    """

    every_s: int
    window_s: int


def _no_marks() -> FloatArray:
    return np.zeros(0)


@dataclass(frozen=True, slots=True)
class RunResult:
    """Result of one run, in whole coins of the numeraire; `value_by_mark` are at the job's marks,
    after trading.

    All figures start at the first mark, as if the run had begun there with the initial wallet.
    Earlier trades are a warm-up, in which an allocator collects its prices, and are excluded.
    `stopped_asset_count` is the number of assets that the setting's stop keeps out of the market at
    the last bar. `tax_by_mark` is the tax owed on gains realised until each mark; empty if tax is
    no cost. Until each mark `cost_share_by_mark` are the trading costs as shares of the portfolio at
    each trade, `active_variance_by_mark` the sum of squared active returns
    (agent/backtest/tune/loss.py).
    """

    run_number: int
    final_value: float
    turnover: float
    costs: float
    rebalance_count: int
    value_by_mark: FloatArray
    stopped_asset_count: int = 0
    tax_by_mark: FloatArray = field(default_factory=_no_marks)
    cost_share_by_mark: FloatArray = field(default_factory=_no_marks)
    active_variance_by_mark: FloatArray = field(default_factory=_no_marks)

    @property
    def net_value_by_mark(self) -> FloatArray:
        """Values at the marks, less the tax owed by then."""
        return (
            self.value_by_mark - self.tax_by_mark if len(self.tax_by_mark) else self.value_by_mark
        )

    @property
    def trading_costs(self) -> FloatArray:
        """Trading costs of each period, shares of the portfolio."""
        costs: FloatArray = np.diff(self.cost_share_by_mark)
        return costs

    @property
    def costs_and_tax(self) -> FloatArray:
        """Trading costs of each period, and the tax that it adds, shares of the portfolio."""
        if not len(self.tax_by_mark):
            return self.trading_costs
        return self.trading_costs + np.diff(self.tax_by_mark) / self.value_by_mark[:-1]

    @property
    def drifts(self) -> FloatArray:
        """What the tracking error of each period is worth, shares of the portfolio."""
        return drift_of(np.diff(self.active_variance_by_mark))


@dataclass(frozen=True, slots=True)
class TuneChunk:
    """Runs from `start` to before `end`, run and stored together."""

    index: int
    start: int
    end: int
    engine: RunEngine


@dataclass(frozen=True, slots=True)
class TuneJob:
    """One run for each of `choices`, over one table with only the portfolio's symbols, each with a
    price in its first row. `mark_bars` are the ascending bars at which values are recorded.
    """

    table: PriceTable
    backtest: BacktestSpec
    settings: SimulationSettings
    choices: tuple[PolicyChoice, ...]
    mark_bars: tuple[int, ...]
    allocator_schedule: AllocatorSchedule
    uses_full_step: bool = False

    def engine(self, choice: PolicyChoice) -> RunEngine:
        """Return the kernel if it supports the setting and is not disabled, else the full step,
        whose ledger has the lots that a tax needs.
        """
        is_kernel_run = (
            not self.uses_full_step
            and not self.backtest.tax.rate_bps
            and choice.allocator is AllocationMethod.FIXED
            and is_kernel_supported(with_stop(self.backtest, choice.stop), self.settings)
            and (
                not isinstance(choice.trigger, NoTradeZone)
                or is_rule_supported(self.backtest, choice.trigger)
            )
        )
        return RunEngine.KERNEL if is_kernel_run else RunEngine.FULL

    def chunks(self) -> tuple[TuneChunk, ...]:
        """Return all chunks, in order: many kernel runs together, each run of the full step
        alone.
        """
        chunks: list[TuneChunk] = []
        for run_number, choice in enumerate(self.choices):
            engine = self.engine(choice)
            if (
                chunks
                and chunks[-1].engine is engine is RunEngine.KERNEL
                and chunks[-1].end - chunks[-1].start < KERNEL_CHUNK_RUNS
            ):
                chunks[-1] = replace(chunks[-1], end=run_number + 1)
            else:
                chunks.append(TuneChunk(len(chunks), run_number, run_number + 1, engine))
        return tuple(chunks)

    def run(self, chunk: TuneChunk, cores: int | None = 1) -> list[RunResult]:
        """Run a chunk; the kernel uses `cores` cores. Raises the errors of a simulation."""
        if chunk.engine is RunEngine.KERNEL:
            return self._run_by_kernel(chunk, cores)
        return [self._run_by_step(run) for run in range(chunk.start, chunk.end)]

    def _run_by_kernel(self, chunk: TuneChunk, cores: int | None) -> list[RunResult]:
        tokens = [asset.token for asset in self.backtest.portfolio.assets]
        start_value = float(self.settings.start_value)
        prices = prices_in_numeraire(self.backtest, self.table, self.table.closes, tokens)
        kernel_prices = prepare_prices(
            [token.symbol for token in tokens], self.table.times_s, prices
        )
        kernel_settings = [
            kernel_setting(self.backtest, self.settings, choice)
            for choice in self.choices[chunk.start : chunk.end]
        ]
        sweep_result = sweep(
            kernel_prices,
            kernel_settings,
            start_value,
            marked_bars=range(self.table.bar_count),
            cores=cores,
        )
        targets = np.array([asset.target_bps / BPS for asset in self.backtest.portfolio.assets])
        balanced = balanced_growth(kernel_prices.arrays.quote_prices, targets)
        marks = list(self.mark_bars)
        return [
            RunResult(
                chunk.start + setting_index,
                float(sweep_result.final_values[setting_index]),
                float(sweep_result.turnover[setting_index]),
                float(sweep_result.costs[setting_index]),
                int(sweep_result.rebalance_counts[setting_index]),
                sweep_result.mark_values[setting_index, marks],
                cost_share_by_mark=sweep_result.cost_shares[setting_index, marks],
                active_variance_by_mark=active_variance(
                    balanced,
                    sweep_result.mark_values[setting_index],
                    sweep_result.cost_shares[setting_index],
                )[marks],
            )
            for setting_index in range(len(kernel_settings))
        ]

    def _run_by_step(self, run_number: int) -> RunResult:
        choice = self.choices[run_number]
        spec = spec_for_choice(
            self.backtest, choice, self.allocator_schedule, self.table.interval_s
        )
        simulation_result = simulate(spec, self.table, self.settings)
        first_mark_bar = self.mark_bars[0]
        value_by_mark = simulation_result.equity[list(self.mark_bars)]
        warm_up_growth = Fraction(1)
        if first_mark_bar:  # bars before the first mark are a warm-up
            start_value = buy_and_hold_values(
                self.backtest, self.settings, self.table, self.mark_bars[:1]
            )
            warm_up_growth = Fraction(float(value_by_mark[0])) / Fraction(float(start_value[0]))
        raw_per_coin = 10**simulation_result.decimals * warm_up_growth
        cost_shares, active_variances = step_losses(spec, simulation_result)
        rebalances = [
            rebalance
            for rebalance in simulation_result.rebalances
            if rebalance.bar > first_mark_bar
        ]
        return RunResult(
            run_number,
            float(simulation_result.final_value / raw_per_coin),
            float(
                sum((rebalance.turnover for rebalance in rebalances), Fraction(0)) / raw_per_coin
            ),
            float(
                sum(
                    (rebalance.fees + rebalance.impact + rebalance.gas for rebalance in rebalances),
                    Fraction(0),
                )
                / raw_per_coin
            ),
            sum(rebalance.succeeded for rebalance in rebalances),
            np.ascontiguousarray(value_by_mark / float(warm_up_growth)),
            _stopped_asset_count(spec, simulation_result) if choice.stop is not None else 0,
            self._tax_by_mark(simulation_result, float(raw_per_coin)),
            cost_shares[list(self.mark_bars)],
            active_variances[list(self.mark_bars)],
        )

    def _tax_by_mark(self, result: SimulationResult, raw_per_coin: float) -> FloatArray:
        if not (rate_bps := self.backtest.tax.rate_bps):
            return _no_marks()
        gains = [(gain_s, float(gain) / raw_per_coin) for gain_s, gain in result.dated_gains]
        return tax_by_mark(gains, result.times_s[list(self.mark_bars)].tolist(), rate_bps)


def _stopped_asset_count(spec: BacktestSpec, result: SimulationResult) -> int:
    """Return the number of assets with a stop and a target, of which nothing is left at the end."""
    stopped_tokens = {
        terms.token for terms in spec.portfolio.orders.terms if terms.kind in STOP_KINDS
    }
    weight_by_symbol = dict(zip(result.symbols, result.weights[-1].tolist(), strict=True))
    return sum(
        asset.token.address in stopped_tokens
        and asset.target_bps > 0
        and weight_by_symbol[asset.token.symbol] < EMPTY_WEIGHT
        for asset in spec.portfolio.assets
    )


def is_kernel_supported(spec: BacktestSpec, settings: SimulationSettings) -> bool:
    """Return whether fixed weights, fees and depth describe the policy: no gas, latency, limits,
    reserves, orders, layers such as strategies, or bands of single assets.
    """
    portfolio = spec.portfolio
    policy = spec.policy
    plain_settings = SimulationSettings(
        settings.depth,
        settings.fee_pips,
        settings.start_value,
        settings.pool_kind,
        seed=settings.seed,
    )
    has_no_asset_rules = all(
        asset.reserve_raw == 0 and asset.band is None and asset.max_bps is None
        for asset in portfolio.assets
    )
    has_fixed_targets = (
        not spec.layers
        and portfolio.allocator is None
        and not portfolio.orders.terms
        and policy.trade_side is None
    )
    return (
        settings == plain_settings
        and has_no_asset_rules
        and has_fixed_targets
        and spec.limits == PERMISSIVE_LIMITS
        and spec.execution.pace.style is ExecutionStyle.MARKET
    )


def kernel_setting(
    spec: BacktestSpec, settings: SimulationSettings, choice: PolicyChoice
) -> KernelSetting:
    """Return a choice as a kernel setting: each asset has a pool with the numeraire."""
    targets = tuple(asset.target_bps for asset in spec.portfolio.assets)
    costs = simulated_costs(spec, settings)
    rule = None
    if isinstance(choice.trigger, NoTradeZone):
        rule = kernel_rule(spec, choice.trigger, costs)
    return KernelSetting(
        targets, choice.trigger, choice.destination, costs, spec.policy.cooldown_s, rule=rule
    )


def spec_for_choice(
    spec: BacktestSpec, choice: PolicyChoice, schedule: AllocatorSchedule, interval_s: int
) -> BacktestSpec:
    """Return the spec with this choice's trigger, destination, allocator and stop."""
    spec = with_stop(spec, choice.stop)
    trigger: Trigger = choice.trigger
    if isinstance(trigger, NoTradeZone):
        trigger = with_owner_risk(spec, trigger)
    policy = replace(spec.policy, trigger=trigger, destination=choice.destination)
    allocator = spec.portfolio.allocator
    if choice.allocator is not AllocationMethod.FIXED:
        allocator = _allocator_config(spec, choice.allocator, schedule, interval_s)
    return replace(spec, policy=policy, portfolio=replace(spec.portfolio, allocator=allocator))


def with_stop(spec: BacktestSpec, stop: StopLevel | None) -> BacktestSpec:
    """Return the spec with this stop of every asset except the numeraire, in place of their own
    stop losses and trailing stops; unchanged for None.
    """
    if stop is None:
        return spec
    portfolio = spec.portfolio
    orders = portfolio.orders
    tokens = [
        asset.token.address
        for asset in portfolio.assets
        if asset.token.address != portfolio.numeraire.address
    ]
    terms = [
        terms
        for terms in orders.terms
        if terms.kind not in STOP_KINDS or terms.token == PORTFOLIO_SUBJECT
    ]
    if stop.kind is not None:
        terms += [OrderTerms(token, stop.kind, None, stop.share_bps) for token in tokens]
    return replace(spec, portfolio=replace(portfolio, orders=replace(orders, terms=tuple(terms))))


def _allocator_config(
    spec: BacktestSpec, method: AllocationMethod, schedule: AllocatorSchedule, interval_s: int
) -> AllocatorConfig:
    """Return the allocator of the choice. The targets apply until it has enough data. The numeraire
    keeps its target, so that all allocators divide the same remainder.
    """
    numeraire = spec.portfolio.numeraire.address
    weighted_assets = [asset for asset in spec.portfolio.assets if asset.token.address != numeraire]
    if len(weighted_assets) < MIN_WEIGHTED_ASSETS:
        raise ConfigError(
            "--grid allocator: the portfolio has fewer than two assets to weight",
            "add assets to --target, or omit --grid allocator",
        )
    sample_interval_s = max(DAY_S, interval_s)
    if not HOUR_S <= schedule.every_s <= LONGEST_WINDOW_S:
        raise ConfigError(
            f"--grid rechoose: {format_duration(schedule.every_s)}",
            "use 1h to 730d; the live agent records prices once an hour",
        )
    if schedule.window_s > LONGEST_WINDOW_S:
        raise ConfigError(
            f"--grid window: {format_duration(schedule.window_s)}, more than a live allocator's longest window",
            "use 730d or less",
        )
    min_steps = max(2, len(weighted_assets) + 1)
    if schedule.window_s < min_steps * sample_interval_s:
        raise ConfigError(
            f"--grid window: shorter than {min_steps} steps of {format_duration(sample_interval_s)}, which {len(weighted_assets)} assets"
            " need",
            f"write {min_steps * sample_interval_s // DAY_S}d or more",
        )
    fixed_tokens = tuple(
        asset.token.address for asset in spec.portfolio.assets if asset.token.address == numeraire
    )
    min_returns = max(min_steps, schedule.window_s // sample_interval_s // 2)
    return AllocatorConfig(
        method,
        schedule.every_s,
        schedule.window_s,
        sample_interval_s,
        min_returns,
        3 * sample_interval_s,
        schedule.window_s,
        0,
        InitialWeights.TARGETS,
        fixed_tokens,
        (),
    )


def slice_settings(settings: SimulationSettings, start: int, end: int) -> SimulationSettings:
    """Return the market settings restricted to those bars."""
    if isinstance(settings.gas_price_wei, int):
        return settings
    return replace(settings, gas_price_wei=tuple(settings.gas_price_wei[start:end]))


def buy_and_hold_values(
    spec: BacktestSpec, settings: SimulationSettings, table: PriceTable, mark_bars: Sequence[int]
) -> FloatArray:
    """Return values at the marks, in whole coins, of a wallet that begins at its targets with its
    reserves and never trades.
    """
    assets = spec.portfolio.assets
    prices = prices_in_numeraire(
        spec, table, forward_fill(table.closes), [asset.token for asset in assets]
    )
    shares = np.array([asset.target_bps / BPS for asset in assets])
    units = float(settings.start_value) * shares / prices[mark_bars[0]]
    units += np.array([asset.reserve_raw / 10.0**asset.token.decimals for asset in assets])
    hold_values: FloatArray = prices[list(mark_bars)] @ units
    return hold_values


STAMP_FILE = "search.json"
STAMP_PARTS = {
    "format": "the format of the files",
    "version": "the version of trimtab",
    "grid": "the grid",
    "data": "the prices",
    "settings": "the portfolio or the market",
    "search": "the options of the search",
}
"""Parts of a search's stamp, with display names."""
_RESULT_COLUMNS = (
    "run_number",
    "final_value",
    "turnover",
    "costs",
    "rebalance_count",
    "stopped_asset_count",
)


class ResultStore:
    """Results so far, in the folder, or in memory without one. Only one process at a time may write
    to the folder.
    """

    def __init__(self, folder: Path | None, stamp: Mapping[str, str]) -> None:
        self._folder = folder
        self._stamp = dict(stamp)
        self.results_by_key: dict[str, list[RunResult]] = {}

    @contextmanager
    def opened(self) -> Iterator[ResultStore]:
        """Load the results of an earlier run and lock the folder.

        Raises ConfigError for a folder of another search, or with other content, OperatorNeeded
        while another process writes there.
        """
        if self._folder is None:
            yield self
            return
        lock = FileLock(self._folder / ".lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise OperatorNeeded(
                f"--out: another search is writing to {self._folder}",
                "wait until it ends, or name another folder",
                code=ErrorCode.LOCK,
            ) from None
        except OSError as error:
            raise _unwritable_error(self._folder, error) from None
        try:
            self._load(self._folder)
            yield self
        finally:
            lock.release()

    def _load(self, folder: Path) -> None:
        for draft_path in folder.glob(".*.draft"):  # left over from a process killed while writing
            draft_path.unlink(missing_ok=True)
        stamp_path = folder / STAMP_FILE
        result_paths = sorted(folder.glob("*.parquet"))
        if not stamp_path.is_file():
            if result_paths:
                raise ConfigError(
                    f"--out: {folder} has files that do not belong to a search",
                    "name an empty folder",
                )
            _write_file(stamp_path, json.dumps(self._stamp, indent=1).encode())
            return
        _require_same_search(stamp_path, self._stamp)
        for result_path in result_paths:
            self.results_by_key[result_path.stem] = _read_results(result_path)

    def file_key(self, chunk: TuneChunk) -> str:
        """Return the name of a chunk's file."""
        return f"runs-{chunk.start:07d}-{chunk.end:07d}"

    def add(self, key: str, run_results: list[RunResult], choices: Sequence[PolicyChoice]) -> None:
        """Write the results to the file `file_key`, then count them as done."""
        if self._folder is not None:
            frame = _polars().DataFrame(_result_columns(run_results, choices))
            _write_file(self._folder / f"{key}.parquet", frame.write_parquet)
        self.results_by_key[key] = run_results


def _polars() -> Any:
    return import_module("polars")


def _result_columns(
    run_results: list[RunResult], choices: Sequence[PolicyChoice]
) -> dict[str, Any]:
    bands = [choice.band for choice in choices]
    return {
        **{
            column_name: [getattr(chunk_result, column_name) for chunk_result in run_results]
            for column_name in _RESULT_COLUMNS
        },
        "band_absolute_bps": [None if band is None else band.absolute_bps for band in bands],
        "band_relative_bps": [None if band is None else band.relative_bps for band in bands],
        "every_s": [choice.every_s for choice in choices],
        "strictness": [choice.strictness for choice in choices],
        "horizon_s": [choice.horizon_s for choice in choices],
        "destination": [choice.destination.value for choice in choices],
        "allocator": [choice.allocator.value for choice in choices],
        "stop": [None if choice.stop is None else choice.stop.label for choice in choices],
        "values": [run_result.value_by_mark.tolist() for run_result in run_results],
        "taxes": [run_result.tax_by_mark.tolist() for run_result in run_results],
        "cost_shares": [run_result.cost_share_by_mark.tolist() for run_result in run_results],
        "active_variances": [
            run_result.active_variance_by_mark.tolist() for run_result in run_results
        ],
    }


def _read_results(result_path: Path) -> list[RunResult]:
    try:
        frame = _polars().read_parquet(result_path)
        return [_parse_result(row) for row in frame.iter_rows(named=True)]
    except Exception:  # a broken file may raise any error of the library
        raise ConfigError(
            f"--out: {result_path} is damaged", "remove that file; its runs will be repeated"
        ) from None


def _parse_result(row: Mapping[str, Any]) -> RunResult:
    final_value, turnover, costs = (
        float(row[column_name]) for column_name in ("final_value", "turnover", "costs")
    )
    return RunResult(
        int(row["run_number"]),
        final_value,
        turnover,
        costs,
        int(row["rebalance_count"]),
        np.array(row["values"], dtype=np.float64),
        int(row["stopped_asset_count"]),
        np.array(row["taxes"], dtype=np.float64),
        np.array(row["cost_shares"], dtype=np.float64),
        np.array(row["active_variances"], dtype=np.float64),
    )


def _require_same_search(stamp_path: Path, stamp: Mapping[str, str]) -> None:
    try:
        stored_stamp = read_json(stamp_path.read_text(encoding="utf-8"))
    except ValueError:
        stored_stamp = None
    if not isinstance(stored_stamp, dict):
        raise ConfigError(f"--out: {stamp_path} is not valid JSON", "name an empty folder")
    differing_parts = [
        display_name
        for part, display_name in STAMP_PARTS.items()
        if stored_stamp.get(part) != stamp[part]
    ]
    if differing_parts:
        raise ConfigError(
            f"--out: {stamp_path.parent} belongs to another search: {', '.join(differing_parts)} differ",
            "name another folder, or repeat the original command",
        )


def _unwritable_error(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"--out: {path} cannot be written: {error.strerror or error}",
        "name a writable folder, or free some space; finished runs are kept",
    )


def _write_file(path: Path, file_content: Content) -> None:
    """Write a file atomically. Raises ConfigError if it cannot be written."""
    try:
        replace_file(path, file_content)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable_error(path, error) from None


CONFIRM_ABOVE_S = 300
"""Estimated seconds above which a search asks for confirmation."""
MAX_UNMEASURED_RUNS = 2_000
"""Number of kernel runs below which no measurement is needed."""
KERNEL_SAMPLES = 8
STEP_SAMPLES = 3
SAMPLE_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkEstimate:
    """Remaining runs, their bars, the work in seconds of one core, and the number of cores."""

    run_count: int
    bars: int
    core_s: float
    cores: int
    measured_run_count: int

    @property
    def wall_s(self) -> float:
        """Estimated wall time, seconds."""
        return self.core_s / self.cores

    @property
    def text(self) -> str:
        """The estimate as a sentence."""
        cores_text = ""
        if self.cores > 1:
            cores_text = f", on {self.cores} cores about {rough_duration(round(self.wall_s))}"
        return (
            f"{self.run_count:,} runs over {self.bars:,} bars: about"
            f" {rough_duration(max(1, round(self.core_s)))} of one core{cores_text}"
        )


def estimate_work(job: TuneJob, chunks: Sequence[TuneChunk], cores: int) -> WorkEstimate:
    """Measure a few settings, evenly spread; a run of the full step is measured for at most two
    seconds, then scaled to all bars.
    """
    kernel_runs = [
        run_number
        for chunk in chunks
        if chunk.engine is RunEngine.KERNEL
        for run_number in range(chunk.start, chunk.end)
    ]
    step_runs = [chunk.start for chunk in chunks if chunk.engine is RunEngine.FULL]
    core_s = 0.0
    measured_runs = 0
    if len(kernel_runs) > MAX_UNMEASURED_RUNS:
        sample_runs = _spread_runs(kernel_runs, KERNEL_SAMPLES)
        job.run(
            TuneChunk(0, sample_runs[0], sample_runs[0] + 1, RunEngine.KERNEL)
        )  # warm-up: load and compile
        for sample_run in sample_runs:
            started_s = time.perf_counter()
            job.run(TuneChunk(0, sample_run, sample_run + 1, RunEngine.KERNEL))
            core_s += (time.perf_counter() - started_s) / len(sample_runs) * len(kernel_runs)
        measured_runs += len(sample_runs)
    if step_runs:
        sample_runs = _spread_runs(step_runs, STEP_SAMPLES)
        core_s += (
            sum(_step_run_s(job, step_run) for step_run in sample_runs)
            / len(sample_runs)
            * len(step_runs)
        )
        measured_runs += len(sample_runs)
    return WorkEstimate(
        len(kernel_runs) + len(step_runs), job.table.bar_count, core_s, max(1, cores), measured_runs
    )


def _spread_runs(runs: Sequence[int], max_count: int) -> list[int]:
    sample_count = min(max_count, len(runs))
    return [
        runs[round(sample_index * (len(runs) - 1) / max(1, sample_count - 1))]
        for sample_index in range(sample_count)
    ]


def _step_run_s(job: TuneJob, run_number: int) -> float:
    """Return the estimated seconds of a run of the full step, from its first bars."""
    spec = spec_for_choice(
        job.backtest, job.choices[run_number], job.allocator_schedule, job.table.interval_s
    )
    started_s = time.perf_counter()
    with SimulationRun(spec, job.table, job.settings) as simulation_run:
        while simulation_run.evaluate_next_bar():
            elapsed_s = time.perf_counter() - started_s
            if elapsed_s > SAMPLE_S:
                return elapsed_s * job.table.bar_count / (simulation_run.world.bar + 1)
    return time.perf_counter() - started_s
