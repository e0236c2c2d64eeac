"""Parameter search: every setting runs on the first three quarters of the data; the best is judged
on the last quarter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.backtest.context import price_history_s
from agent.backtest.data import PriceTable
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.simulate import spec_digest
from agent.backtest.tune.grid import RULE, PolicyChoice, PolicyGrid
from agent.backtest.tune.jobs import (
    AllocatorSchedule,
    ResultStore,
    RunEngine,
    RunResult,
    TuneChunk,
    TuneJob,
    buy_and_hold_values,
    slice_settings,
    spec_for_choice,
)
from agent.backtest.tune.statistics import (
    ConfidenceInterval,
    DeflatedSharpe,
    Excess,
    FoldResult,
    HeatMap,
    NeighbourComparison,
    Objective,
    OverfittingEstimate,
    TuneVerdict,
    WalkForwardMode,
    bootstrap_interval,
    compare_neighbours,
    deflated_sharpe,
    heat_map,
    judge_choice,
    judge_loss,
    last_quarter_start,
    make_folds,
    objective_scores,
    overfitting_probability,
    walk_forward,
)
from agent.errors import ConfigError
from agent.floats import FloatArray
from agent.policy.triggers.tracking_rule import TrackingLoss
from agent.units import DAY_S, YEAR_S

ChunkRunner = Callable[[TuneJob, Sequence[TuneChunk]], Iterator[tuple[TuneChunk, list[RunResult]]]]
Progress = Callable[[int, int], None]
"""Called with the numbers of finished runs and of all runs."""
_LastQuarterJudgement = tuple[
    tuple[Excess, ...], tuple[RunResult, RunResult], FloatArray, float, NDArray[np.int64]
]
MAX_VALUES = 100_000_000
"""Maximum number of values in memory, settings times periods: 0.8 GB as float64."""
MIN_PERIODS = 8
FORMAT_VERSION = "6"


@dataclass(frozen=True, slots=True)
class TuneSpec:
    """Spec of a search. `table` only has the portfolio's symbols; `calendar_rule` is the baseline
    rule.
    """

    table: PriceTable
    backtest: BacktestSpec
    settings: SimulationSettings
    grid: PolicyGrid
    calendar_rule: PolicyChoice
    allocator_schedule: AllocatorSchedule
    objective: Objective = Objective.TRACKING
    walk_forward_mode: WalkForwardMode = WalkForwardMode.ANCHORED
    fold_count: int = 4
    uses_full_step: bool = False

    @property
    def baseline(self) -> PolicyChoice:
        """The setting that the best has to beat, which is the safe default: the tracking rule by
        loss, else the calendar rule.
        """
        return RULE if self.objective is Objective.TRACKING else self.calendar_rule

    @property
    def benchmark_names(self) -> tuple[str, ...]:
        """Names of what the best setting is compared with; the baseline comes last."""
        if self.objective is Objective.TRACKING:
            return (f"the rule ({RULE.label})",)
        return "hold", f"the calendar rule ({self.calendar_rule.label})"


@dataclass(frozen=True, slots=True)
class RankedChoice:
    """A setting with its run over the first three quarters, its annualised objective, and its
    annualised log growth above buy and hold.
    """

    choice: PolicyChoice
    run_result: RunResult
    score: float
    excess_growth: float


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Result of a search.

    - `scores` is each choice's annualised objective, a loss below zero, net of tax if the portfolio
      has a tax rate, `gross_scores` the same before tax, `excess_growths` its annualised log growth
      above buy and hold, both over the first three quarters of the data; `period_s` is the mean
      length of one return's period, and `mark_times_s` are the times between which they lie;
      `ranked_baseline` is the baseline over the same.
    - `fold_results_and_excesses` has per fold the choice and its excess, log returns or loss saved,
      over each benchmark; `fold_claims` are the claims from all folds pooled.
    - `claims` are the claims from the last quarter. For that quarter, `last_quarter_results` are
      the results of the best setting and of the baseline, `last_quarter_hold_values` the
      values of buy and hold at the same times, `last_hold_value` its value at the last bar, and
      `judged_setting_count` the number of this folder's settings evaluated on it.
    - `run_counts_by_engine` counts runs by engine, `resumed_run_count` the runs loaded from the
      folder; `stamp` identifies the search.
    """

    spec: TuneSpec
    choices: tuple[PolicyChoice, ...]
    run_results: tuple[RunResult, ...]
    scores: FloatArray
    gross_scores: FloatArray
    excess_growths: FloatArray
    best_index: int
    ranked_baseline: RankedChoice
    period_s: float
    mark_times_s: NDArray[np.int64]
    deflated_sharpe: DeflatedSharpe | None
    overfitting: OverfittingEstimate | None
    heat_map: HeatMap
    neighbours: NeighbourComparison | None
    fold_results_and_excesses: tuple[tuple[FoldResult, tuple[FloatArray, ...]], ...]
    fold_claims: tuple[Excess, ...]
    claims: tuple[Excess, ...]
    verdict: TuneVerdict
    last_quarter_start_s: int
    last_quarter_results: tuple[RunResult, RunResult]
    last_quarter_hold_values: FloatArray
    last_hold_value: float
    judged_setting_count: int
    last_quarter_times_s: NDArray[np.int64]
    run_counts_by_engine: tuple[tuple[str, int], ...]
    resumed_run_count: int
    stamp: dict[str, str]

    @property
    def recommended(self) -> PolicyChoice:
        """The best choice if the last quarter supports it, else the baseline."""
        return self.choices[self.best_index] if self.verdict.is_recommended else self.spec.baseline

    @property
    def ranking(self) -> list[RankedChoice]:
        """All settings, best first, and last the baseline if it is none of them."""
        ranked_choices = [
            RankedChoice(
                self.choices[index],
                self.run_results[index],
                float(self.scores[index]),
                float(self.excess_growths[index]),
            )
            for index in np.argsort(-self.scores, kind="stable").tolist()
        ]
        if self.spec.baseline not in self.choices:
            ranked_choices.append(self.ranked_baseline)
        return ranked_choices

    def shown_ranking(self, best_count: int) -> list[RankedChoice]:
        """The best settings, and after them the recommended one and the baseline."""
        ranking = self.ranking
        return ranking[:best_count] + [
            ranked
            for ranked in ranking[best_count:]
            if ranked.choice in (self.recommended, self.spec.baseline)
        ]

    @property
    def years(self) -> float:
        """Length of the first three quarters."""
        return self.period_s * len(self.run_results[0].drifts) / YEAR_S


def yearly_loss(run_result: RunResult, years: float) -> TrackingLoss:
    """Return what a run of that many years lost a year."""
    return TrackingLoss(
        float(run_result.costs_and_tax.sum()) / years, float(run_result.drifts.sum()) / years
    )


def tune(
    search: TuneSpec,
    run_chunks: ChunkRunner,
    folder: Path | None,
    confirm_work: Callable[[TuneJob, Sequence[TuneChunk]], None],
    progress: Progress,
) -> TuneResult:
    """Run the search. `run_chunks` runs chunks, `confirm_work` raises if the estimated work is
    declined, `folder` stores results.

    Raises ConfigError if the data are too short, the results do not fit in memory, or the folder
    belongs to another search.
    """
    choices = search.grid.choices()
    table = search.table
    split_bar = last_quarter_start(table.bar_count)
    mark_bars = tuple(range(0, split_bar, _period_bars(table)))
    period_count = len(mark_bars) - 1
    if period_count < MIN_PERIODS:
        raise ConfigError(
            f"--prices: the first three quarters of {table.bar_count} bars are {period_count} periods",
            f"a search needs at least {MIN_PERIODS}; use more prices",
        )
    if len(choices) * len(mark_bars) > MAX_VALUES:
        raise ConfigError(
            f"the grid has {len(choices):,} settings over {period_count:,} periods",
            "use wider steps, or fewer values",
        )
    run_choices = (*choices, search.baseline)
    job = TuneJob(
        table.bars(0, split_bar),
        search.backtest,
        slice_settings(search.settings, 0, split_bar),
        run_choices,
        mark_bars,
        search.allocator_schedule,
        search.uses_full_step,
    )
    with ResultStore(folder, _stamp(search, run_choices)).opened() as store:
        resumed_count = sum(
            len(run_results)
            for result_key, run_results in store.results_by_key.items()
            if result_key.startswith("runs-")
        )
        job_results = _run_missing_chunks(job, store, run_chunks, confirm_work, progress)
        return _assemble_result(search, job, store, job_results, resumed_count)


def _run_missing_chunks(
    job: TuneJob,
    store: ResultStore,
    run_chunks: ChunkRunner,
    confirm_work: Callable[[TuneJob, Sequence[TuneChunk]], None],
    progress: Progress,
) -> tuple[RunResult, ...]:
    chunks = job.chunks()
    missing_chunks = [
        chunk for chunk in chunks if store.file_key(chunk) not in store.results_by_key
    ]
    if missing_chunks:
        confirm_work(job, missing_chunks)
    finished_count = sum(chunk.end - chunk.start for chunk in chunks) - sum(
        chunk.end - chunk.start for chunk in missing_chunks
    )
    progress(finished_count, len(job.choices))
    for chunk, run_results in run_chunks(job, missing_chunks):
        _require_matching_runs(run_results, range(chunk.start, chunk.end), len(job.mark_bars))
        store.add(store.file_key(chunk), run_results, job.choices[chunk.start : chunk.end])
        finished_count += len(run_results)
        progress(finished_count, len(job.choices))
    for chunk in chunks:
        _require_matching_runs(
            store.results_by_key[store.file_key(chunk)],
            range(chunk.start, chunk.end),
            len(job.mark_bars),
        )
    return tuple(
        run_result for chunk in chunks for run_result in store.results_by_key[store.file_key(chunk)]
    )


def _require_matching_runs(
    run_results: Sequence[RunResult], run_numbers: range, mark_count: int
) -> None:
    if [run_result.run_number for run_result in run_results] != list(run_numbers) or any(
        len(result_of_run.value_by_mark) != mark_count for result_of_run in run_results
    ):
        raise ConfigError(
            f"results of runs {run_numbers.start} to {run_numbers.stop - 1} do not fit",
            "remove their file from the folder of --out",
        )


def _assemble_result(
    search: TuneSpec,
    job: TuneJob,
    store: ResultStore,
    run_results: tuple[RunResult, ...],
    resumed_count: int,
) -> TuneResult:
    table = search.table
    choices = job.choices[:-1]
    objective = search.objective
    scored_returns = np.column_stack([_scored_returns(run, objective) for run in run_results])
    choice_returns = scored_returns[:, :-1]
    baseline_returns = scored_returns[:, -1]
    growths = np.column_stack([log_returns(run.net_value_by_mark) for run in run_results[:-1]])
    hold_returns = log_returns(
        buy_and_hold_values(search.backtest, search.settings, job.table, job.mark_bars)
    )
    periods_per_year = _periods_per_year(job.table, job.mark_bars)
    annual_factor = objective.annual_factor(periods_per_year)
    scores = objective_scores(choice_returns, objective) * annual_factor
    gross_scores = scores
    if search.backtest.tax.rate_bps:
        gross_returns = [
            _scored_returns(run, objective, before_tax=True) for run in run_results[:-1]
        ]
        gross_scores = objective_scores(np.column_stack(gross_returns), objective) * annual_factor
    best_index = int(scores.argmax())
    fold_results = walk_forward(
        choice_returns,
        objective,
        make_folds(len(choice_returns), search.fold_count, search.walk_forward_mode),
    )
    fold_excess_pairs = [
        _fold_excess_returns(search, job, fold_result, baseline_returns)
        for fold_result in fold_results
    ]
    claims, last_results, last_hold_values, last_hold_value, last_times_s = _judge_last_quarter(
        search, store, best_index, choices[best_index]
    )
    overfitting = overfitting_probability(choice_returns, objective)
    settings_judged = (
        sum(result_key.startswith("last-") for result_key in store.results_by_key) - 1
    )  # one of them is the baseline
    engine_names = [job.engine(choice).value for choice in job.choices]
    return TuneResult(
        spec=search,
        choices=choices,
        run_results=run_results[:-1],
        scores=scores,
        gross_scores=gross_scores,
        excess_growths=(growths.mean(axis=0) - hold_returns.mean()) * periods_per_year,
        best_index=best_index,
        ranked_baseline=RankedChoice(
            search.baseline,
            run_results[-1],
            float(objective_scores(scored_returns[:, -1:], objective)[0] * annual_factor),
            float(log_returns(run_results[-1].net_value_by_mark).mean() - hold_returns.mean())
            * periods_per_year,
        ),
        period_s=YEAR_S / periods_per_year,
        mark_times_s=job.table.times_s[list(job.mark_bars)],
        deflated_sharpe=None
        if objective is Objective.TRACKING
        else deflated_sharpe(growths - hold_returns[:, None], best_index),
        overfitting=overfitting,
        heat_map=heat_map(choices, scores, best_index),
        neighbours=compare_neighbours(choices, scores, best_index),
        fold_results_and_excesses=tuple(zip(fold_results, fold_excess_pairs, strict=True)),
        fold_claims=()
        if not fold_excess_pairs
        else tuple(
            _claim(search, benchmark_name, np.concatenate(excess_returns), periods_per_year)
            for benchmark_name, excess_returns in zip(
                search.benchmark_names, zip(*fold_excess_pairs, strict=True), strict=True
            )
        ),
        claims=claims,
        verdict=_judge(
            search,
            choices[best_index],
            claims,
            last_results,
            last_times_s,
            overfitting,
            settings_judged,
        ),
        last_quarter_start_s=int(table.times_s[last_quarter_start(table.bar_count)]),
        last_quarter_results=last_results,
        last_quarter_hold_values=last_hold_values,
        last_hold_value=last_hold_value,
        judged_setting_count=settings_judged,
        last_quarter_times_s=last_times_s,
        run_counts_by_engine=tuple(
            (engine.value, engine_names.count(engine.value))
            for engine in RunEngine
            if engine.value in engine_names
        ),
        resumed_run_count=resumed_count,
        stamp=_stamp(search, job.choices),
    )


def log_returns(portfolio_values: FloatArray) -> FloatArray:
    """Return the log return of each period; a value of zero or less counts as almost zero."""
    returns: FloatArray = np.diff(np.log(np.maximum(portfolio_values, 1e-9 * portfolio_values[0])))
    return returns


def _period_bars(table: PriceTable) -> int:
    """Return the number of bars between two marks: a day, or one bar if bars are longer."""
    return max(1, round(DAY_S / table.interval_s))


def _periods_per_year(table: PriceTable, mark_bars: Sequence[int]) -> float:
    return (
        YEAR_S
        * (len(mark_bars) - 1)
        / float(table.times_s[mark_bars[-1]] - table.times_s[mark_bars[0]])
    )


def _scored_returns(
    run_result: RunResult, objective: Objective, *, before_tax: bool = False
) -> FloatArray:
    """Return the log return of each period, or its loss below zero, of which the objective is
    made.
    """
    if objective is Objective.TRACKING:
        costs = run_result.trading_costs if before_tax else run_result.costs_and_tax
        return -(costs + run_result.drifts)
    return log_returns(run_result.value_by_mark if before_tax else run_result.net_value_by_mark)


def _fold_excess_returns(
    search: TuneSpec, job: TuneJob, fold_result: FoldResult, baseline_returns: FloatArray
) -> tuple[FloatArray, ...]:
    """Return the excess over each benchmark; buy and hold begins with the evaluated periods."""
    start = fold_result.fold.evaluation_start
    end = fold_result.fold.evaluation_end
    over_baseline = fold_result.returns - baseline_returns[start:end]
    if search.objective is Objective.TRACKING:
        return (over_baseline,)
    hold_values = buy_and_hold_values(
        search.backtest, search.settings, job.table, job.mark_bars[start : end + 1]
    )
    return fold_result.returns - log_returns(hold_values), over_baseline


def _claim(
    search: TuneSpec, benchmark_name: str, excess_returns: FloatArray, periods_per_year: float
) -> Excess:
    interval = _yearly_interval(excess_returns, periods_per_year, search.settings.seed)
    return Excess(benchmark_name, interval, search.objective is Objective.TRACKING)


def _judge(
    search: TuneSpec,
    best_choice: PolicyChoice,
    claims: tuple[Excess, ...],
    last_results: tuple[RunResult, RunResult],
    last_times_s: NDArray[np.int64],
    overfitting: OverfittingEstimate | None,
    settings_judged: int,
) -> TuneVerdict:
    if search.objective is not Objective.TRACKING:
        return judge_choice(best_choice, search.calendar_rule, claims, overfitting, settings_judged)
    years = float(last_times_s[-1] - last_times_s[0]) / YEAR_S
    best_loss, rule_loss = (yearly_loss(run_result, years) for run_result in last_results)
    return judge_loss(best_choice, claims[0], best_loss, rule_loss, overfitting, settings_judged)


def _yearly_interval(
    excess_returns: FloatArray, periods_per_year: float, seed: int
) -> ConfidenceInterval | None:
    interval = bootstrap_interval(excess_returns, seed)
    return None if interval is None else interval.scaled(periods_per_year)


def _judge_last_quarter(
    search: TuneSpec, store: ResultStore, best_index: int, best_choice: PolicyChoice
) -> _LastQuarterJudgement:
    """Run the chosen setting and the baseline over the last quarter, each starting at its
    targets; one that measures prices starts before the quarter by as much as it measures.
    """
    table = search.table
    split_bar = last_quarter_start(table.bar_count)
    period_bars = _period_bars(table)
    run_results = []
    for result_key, policy_choice in (
        (f"last-{best_index:07d}", best_choice),
        ("last-baseline", search.baseline),
    ):
        spec = spec_for_choice(
            search.backtest, policy_choice, search.allocator_schedule, table.interval_s
        )
        warm_up_bars = min(split_bar, price_history_s(spec) // table.interval_s)
        start_bar = split_bar - warm_up_bars
        end_bar = table.bar_count
        mark_bars = tuple(range(warm_up_bars, end_bar - start_bar, period_bars))
        job = TuneJob(
            table.bars(start_bar, end_bar),
            search.backtest,
            slice_settings(search.settings, start_bar, end_bar),
            (policy_choice,),
            mark_bars,
            search.allocator_schedule,
            search.uses_full_step,
        )
        if result_key not in store.results_by_key:
            store.add(result_key, job.run(job.chunks()[0]), (policy_choice,))
        _require_matching_runs(store.results_by_key[result_key], range(1), len(mark_bars))
        run_results.append(store.results_by_key[result_key][0])
    last_table = table.bars(split_bar, table.bar_count)
    mark_bars = tuple(range(0, last_table.bar_count, period_bars))
    *hold_value_list, last_hold_value = buy_and_hold_values(
        search.backtest, search.settings, last_table, (*mark_bars, last_table.bar_count - 1)
    ).tolist()
    hold_values = np.array(hold_value_list)
    periods_per_year = _periods_per_year(last_table, mark_bars) if len(mark_bars) > 1 else 0.0
    choice_returns, baseline_returns = (
        _scored_returns(run_result, search.objective) for run_result in run_results
    )
    excess_returns = [choice_returns - baseline_returns]
    if search.objective is not Objective.TRACKING:
        excess_returns.insert(0, choice_returns - log_returns(hold_values))
    claims = tuple(
        _claim(search, benchmark_name, excess, periods_per_year)
        for benchmark_name, excess in zip(search.benchmark_names, excess_returns, strict=True)
    )
    return (
        claims,
        (run_results[0], run_results[1]),
        hold_values,
        last_hold_value,
        last_table.times_s[list(mark_bars)],
    )


def _stamp(search: TuneSpec, choices: Sequence[PolicyChoice]) -> dict[str, str]:
    return {
        "format": FORMAT_VERSION,
        "version": version("trimtab"),
        "grid": sha256("\n".join(map(repr, choices)).encode()).hexdigest(),
        "data": search.table.digest,
        "settings": spec_digest(search.backtest, search.settings),
        "search": sha256(
            repr((search.allocator_schedule, search.uses_full_step)).encode()
        ).hexdigest(),
    }
