"""Stress tests: a policy over thousands of simulated paths by the kernel, the live step over stress
scenarios; and their report: figures, JSON document and page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, select_spec_symbols
from agent.backtest.report.page import (
    Chart,
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    round_duration,
)
from agent.backtest.settings import BacktestSpec, SimulationSettings
from agent.backtest.simulate import spec_digest
from agent.backtest.stress.distribution import (
    FEW_PATHS_TEXT,
    QUANTILES,
    WORST_SHARE,
    distribution_document,
    expected_shortfall,
    outcome_distributions,
    quantiles,
)
from agent.backtest.stress.paths import (
    MAX_INTERVALS,
    USUAL_CRASH_BARS,
    ReturnHistory,
    SpotScenario,
    SpotSeverity,
    apply_scenario,
    inapplicable_scenarios,
    mean_block_length,
    require_block_length,
    return_history,
)
from agent.backtest.stress.work import (
    METHOD_NAMES,
    PathMetrics,
    PieceKind,
    PieceResult,
    StressPiece,
    StressWork,
    kernel_setting_or_reason,
    measure_by_kernel,
    run_sequentially,
)
from agent.errors import ConfigError
from agent.model import schedules_of
from agent.policy.triggers.rules import is_band_and_schedule_only
from agent.units import pluralize

Progress = Callable[[str, int, int], None]
"""Called with the case, and its numbers of finished paths and of all paths."""
PieceRunner = Callable[
    [StressWork, Sequence[StressPiece]], Iterable[tuple[StressPiece, PieceResult]]
]
MAX_PATHS = 1_000_000
MIN_PATH_BARS = 3
MAX_BARS = 1_000_000
MAX_TOTAL_BARS = 20_000_000_000
"""Maximum number of bars over all paths; more would take days."""
KERNEL_PATH_S = 1e-3
KERNEL_PRICE_S = 1.5e-7
STEP_BAR_S = 0.03
QUIET_BAR_S = 0.003
"""Estimated seconds per kernel path, per price in a kernel path, per evaluated bar of a live step,
and per bar of a band-only policy.
"""


@dataclass(frozen=True, slots=True)
class StressSpec:
    """Size of the test: `path_count` of each method run by the kernel, and `step_path_count` for
    each scenario run by the live step, each `path_bars` long.

    `mean_block_bars` is the mean block length, None for the rule of Politis & White. Without
    `keeps_drift` resampled and jump paths have no mean growth; the recorded path, the first of each
    scenario, keeps its own. With `has_named_scenarios`, every scenario was
    requested by name; otherwise inapplicable scenarios are skipped and reported.
    """

    path_count: int
    step_path_count: int
    path_bars: int
    scenarios: tuple[SpotScenario, ...]
    severity: SpotSeverity
    mean_block_bars: float | None = None
    keeps_drift: bool = True
    has_named_scenarios: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError naming the option that is invalid or far too large."""
        for option, path_count in (
            ("--paths", self.path_count),
            ("--paths step-paths", self.step_path_count),
        ):
            if not 1 <= path_count <= MAX_PATHS:
                raise ConfigError(f"{option}: {path_count}", f"use 1 to {MAX_PATHS:,} paths")
        if not MIN_PATH_BARS <= self.path_bars <= MAX_BARS:
            raise ConfigError(
                f"--paths bars: {self.path_bars}",
                f"a path has {MIN_PATH_BARS} to {MAX_BARS:,} bars",
            )
        if (
            total_bars := self.path_bars
            * (2 * self.path_count + self.step_path_count * (len(self.scenarios) + 1))
        ) > MAX_TOTAL_BARS:
            raise ConfigError(
                f"--paths: {total_bars:,} bars in total would take days",
                "use fewer paths, or shorter paths with --paths bars=…",
            )


@dataclass(frozen=True, slots=True)
class StressCase:
    """One kind of paths with its results, computed by `engine`, "kernel" or "step". `refusals`
    counts refusals by limit.
    """

    name: str
    engine: str
    path_metrics: tuple[PathMetrics, ...]
    refusals: tuple[tuple[str, int], ...] = ()

    def metric_values(self, metric_name: str) -> NDArray[np.float64]:
        """Return the field of PathMetrics with this name for every path."""
        return np.array(
            [getattr(metrics, metric_name) for metrics in self.path_metrics], dtype=np.float64
        )


@dataclass(frozen=True, slots=True)
class StressResult:
    """All cases, skipped scenarios with reasons, and the data needed to repeat the test.

    `kernel_difference` is the largest relative difference between kernel and live step in the final
    value of the calm paths; None if the kernel does not support the policy.
    """

    cases: tuple[StressCase, ...]
    skipped_cases: tuple[tuple[str, str], ...]
    path_bars: int
    interval_s: int
    return_count: int
    mean_block_bars: float
    jump_rate: float
    kernel_difference: float | None
    notes: tuple[str, ...]
    parameter_texts: tuple[tuple[str, str], ...]
    seed: int
    config_hash: str
    data_hash: str
    versions: tuple[tuple[str, str], ...]
    start_value: Fraction
    """Value at the start of every path, in coins of the numeraire."""


def estimate_s(spec: StressSpec, backtest: BacktestSpec, settings: SimulationSettings) -> float:
    """Return the estimated seconds on one core, an approximate upper bound."""
    trigger = backtest.policy.trigger
    skips_bars = (
        is_band_and_schedule_only(trigger)
        and not schedules_of(trigger)
        and backtest.split is None
        and backtest.portfolio.allocator is None
    )
    bar_s = QUIET_BAR_S if skips_bars and not settings.looks_at_all else STEP_BAR_S
    step_paths_s = spec.step_path_count * (len(spec.scenarios) + 1) * spec.path_bars * bar_s
    if isinstance(kernel_setting_or_reason(backtest, settings), str):
        return 2 * step_paths_s
    return step_paths_s + 2 * spec.path_count * (
        KERNEL_PATH_S + spec.path_bars * len(backtest.portfolio.assets) * KERNEL_PRICE_S
    )


def run_stress_test(
    backtest: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    spec: StressSpec,
    progress: Progress | None = None,
    piece_runner: PieceRunner = run_sequentially,
) -> StressResult:
    """Run the test on paths that begin at the newest prices of the table.

    Each path depends on the seed and its number, not on the count of paths. `piece_runner` may run
    the pieces of work in any order, with identical results. Raises ConfigError for too few prices,
    an invalid block length, and a named scenario that does not apply.
    """
    table = select_spec_symbols(backtest, table)
    history = return_history(table, spec.keeps_drift)
    mean_block_bars = (
        mean_block_length(history) if spec.mean_block_bars is None else spec.mean_block_bars
    )
    require_block_length(mean_block_bars, history)
    recorded_path = _recorded_path(table, spec.path_bars)
    skipped_cases = list[tuple[str, str]]()
    if spec.has_named_scenarios:  # reject inapplicable scenarios before any path runs
        for scenario in spec.scenarios:
            apply_scenario(scenario, backtest, recorded_path, settings, spec.severity)
    else:
        skipped_cases = inapplicable_scenarios(
            spec.scenarios, backtest, recorded_path, settings, spec.severity
        )
    work = StressWork.prepare(
        backtest, settings, spec.severity, history, mean_block_bars, recorded_path
    )
    scenarios = (
        SpotScenario.CALM,
        *(
            applicable_scenario
            for applicable_scenario in spec.scenarios
            if applicable_scenario.value not in dict(skipped_cases)
        ),
    )
    pieces = work.pieces(spec.path_count, spec.step_path_count, scenarios)
    piece_results = _run_pieces(work, pieces, piece_runner, progress or (lambda *_: None))
    calm_results = {
        piece.start: piece_result
        for piece, piece_result in zip(pieces, piece_results, strict=True)
        if piece.kind is PieceKind.STRESSED and piece.scenario is SpotScenario.CALM
    }
    if isinstance(work.kernel_setting_or_reason, str):
        skipped_cases.append(
            (
                "kernel",
                f"it does not support {work.kernel_setting_or_reason}; those paths ran in the live step",
            )
        )
    return StressResult(
        cases=_cases(pieces, piece_results),
        skipped_cases=tuple(skipped_cases),
        path_bars=spec.path_bars,
        interval_s=history.interval_s,
        return_count=len(history.returns),
        mean_block_bars=mean_block_bars,
        jump_rate=work.jump_model.jumps_per_bar,
        kernel_difference=_kernel_difference(work, calm_results),
        notes=(*table.notes, *_skipped_notes(table, history)),
        parameter_texts=(
            *_parameter_texts(spec),
            ("start_value", str(settings.start_value)),
            ("fee_pips", str(settings.fee_pips)),
        ),
        seed=settings.seed,
        config_hash=sha256(f"{spec_digest(backtest, settings)}\n{spec!r}".encode()).hexdigest(),
        data_hash=table.digest,
        versions=(*calm_results[0].versions, ("numba", version("numba"))),
        start_value=settings.start_value,
    )


def _run_pieces(
    work: StressWork, pieces: Sequence[StressPiece], piece_runner: PieceRunner, progress: Progress
) -> list[PieceResult]:
    """Return the results of all pieces in the order of the pieces, not of their completion."""
    result_by_piece = dict[StressPiece, PieceResult]()
    finished_counts = dict[str, int]()
    path_counts = dict[str, int]()
    for piece in pieces:
        path_counts[piece.case_name] = path_counts.get(piece.case_name, 0) + piece.end - piece.start
    for case_name, path_count in list(path_counts.items())[:1]:
        progress(case_name, 0, path_count)
    for piece, piece_result in piece_runner(work, pieces):
        result_by_piece[piece] = piece_result
        finished_counts[piece.case_name] = (
            finished_counts.get(piece.case_name, 0) + piece.end - piece.start
        )
        progress(piece.case_name, finished_counts[piece.case_name], path_counts[piece.case_name])
    return [result_by_piece[piece] for piece in pieces]


def _cases(
    pieces: Sequence[StressPiece], piece_results: Sequence[PieceResult]
) -> tuple[StressCase, ...]:
    cases = []
    for case_name in dict.fromkeys(piece.case_name for piece in pieces):
        pieces_and_results = [
            (piece, piece_result)
            for piece, piece_result in zip(pieces, piece_results, strict=True)
            if piece.case_name == case_name
        ]
        refusal_counts: dict[str, int] = {}
        for refusing_limit, refusal_count in (
            refusal
            for _, result_of_piece in pieces_and_results
            for refusal in result_of_piece.refusals
        ):
            refusal_counts[refusing_limit] = refusal_counts.get(refusing_limit, 0) + refusal_count
        engine = "kernel" if pieces_and_results[0][0].kind is PieceKind.KERNEL else "step"
        cases.append(
            StressCase(
                case_name,
                engine,
                tuple(
                    metrics
                    for _, result_of_piece in pieces_and_results
                    for metrics in result_of_piece.path_metrics
                ),
                tuple(sorted(refusal_counts.items())),
            )
        )
    return tuple(cases)


def _kernel_difference(work: StressWork, calm_results: Mapping[int, PieceResult]) -> float | None:
    """Return the largest difference between kernel and live step (see StressResult). `calm_results`
    has the live step's results of the calm paths, by number.

    Paths with gaps are excluded, since kernel and step handle missing prices differently.
    """
    if isinstance(work.kernel_setting_or_reason, str):
        return None
    start_value = float(work.settings.start_value)
    relative_differences = []
    for path_number, piece_result in calm_results.items():
        path = work.calm_path(path_number)
        if not np.isnan(path.closes).any():
            loss = measure_by_kernel(
                work.backtest, work.kernel_setting_or_reason, path, start_value
            ).loss
            relative_differences.append(abs((1 - loss) / piece_result.growth_factors[0] - 1))
    return max(relative_differences, default=None)


def _recorded_path(table: PriceTable, bars: int) -> PriceTable:
    """Return the last `bars` bars up to the newest at which every asset has a price. Raises
    ConfigError if there are fewer.
    """
    end_bar = complete_bar_count(table)
    if end_bar < bars:
        raise ConfigError(
            f"--paths bars: {bars}, but the file has {end_bar}", f"use {end_bar} or fewer"
        )
    return table.bars(end_bar - bars, end_bar)


def complete_bar_count(table: PriceTable) -> int:
    """Return the number of bars up to the newest at which every asset has a price."""
    has_all_prices = np.logical_and.reduce(~np.isnan(table.closes), axis=1)
    return int(np.nonzero(has_all_prices)[0][-1]) + 1


def _skipped_notes(table: PriceTable, history: ReturnHistory) -> list[str]:
    incomplete_bars = table.bar_count - complete_bar_count(table)
    notes = []
    if history.skipped_returns:
        notes.append(f"{history.skipped_returns} returns with a missing price are skipped")
    if history.gap_returns:
        notes.append(
            f"{history.gap_returns} returns over gaps of more than {MAX_INTERVALS} bars are skipped"
        )
    if incomplete_bars:
        notes.append(
            f"the recorded path ends {incomplete_bars} bars before the end of the data, because an asset has no price after it"
        )
    return notes


def _parameter_texts(spec: StressSpec) -> tuple[tuple[str, str], ...]:
    severity = spec.severity
    crash_text = f"{severity.crash_bars} bars"
    if severity.crash_bars is None:
        crash_text = f"at most {USUAL_CRASH_BARS} bars"
    return (
        ("paths", str(spec.path_count)),
        ("step_paths", str(spec.step_path_count)),
        ("bars", str(spec.path_bars)),
        ("block", "by rule" if spec.mean_block_bars is None else f"{spec.mean_block_bars:g}"),
        ("drift", "as recorded" if spec.keeps_drift else "none"),
        ("crash", f"{severity.crash_bps} bps over {crash_text}"),
        ("depeg", f"{severity.depeg_bps} bps"),
        ("gas", f"{severity.gas_price_wei} wei"),
        ("depth", str(severity.depth_part)),
        *((("shock", severity.shocks_text),) if severity.shocks else ()),
    )


BIN_COUNT = 60
LEFT_OUT = "–"
MEASURES = ("loss", "drawdown", "hold_shortfall", "turnover", "outside_bands")
FIELD_BY_MEASURE = dict(
    zip(MEASURES, ("loss", "drawdown", "hold_shortfall", "turnover", "outside_share"), strict=True)
)
TITLE_BY_MEASURE = dict(
    zip(
        MEASURES,
        ("Loss", "Worst drawdown", "Loss against hold", "Turnover", "Time outside the bands"),
        strict=True,
    )
)


def measure_statistics(case: StressCase) -> dict[str, Any]:
    """Return the distribution of each measure over the paths; None without values."""
    return {
        measure: distribution_document(case.metric_values(field), 6, is_loss=True)
        for measure, field in FIELD_BY_MEASURE.items()
    }


def stress_document(stress_result: StressResult) -> dict[str, Any]:
    """Return the document of a stress test. Shares and ratios are decimal strings of six places,
    null without values.
    """
    return {
        "cases": [
            {
                "name": case.name,
                "engine": case.engine,
                "paths": len(case.path_metrics),
                **outcome_distributions(
                    case.metric_values("loss"), float(stress_result.start_value)
                ),
                **measure_statistics(case),
                "rebalances": sum(metrics.rebalance_count for metrics in case.path_metrics),
                "halted_bars": sum(
                    path_metrics.halted_bar_count for path_metrics in case.path_metrics
                ),
                "refused": dict(case.refusals),
            }
            for case in stress_result.cases
        ],
        "skipped": dict(stress_result.skipped_cases),
        "bars": stress_result.path_bars,
        "interval_s": stress_result.interval_s,
        "return_count": stress_result.return_count,
        "bootstrap_block_length": f"{stress_result.mean_block_bars:.6f}",
        "jumps_per_bar": f"{stress_result.jump_rate:.6f}",
        "kernel_difference": None
        if stress_result.kernel_difference is None
        else f"{stress_result.kernel_difference:.3e}",
        "notes": list(stress_result.notes),
        "parameters": dict(stress_result.parameter_texts),
        "seed": stress_result.seed,
        "config_hash": stress_result.config_hash,
        "data_hash": stress_result.data_hash,
        "versions": dict(stress_result.versions),
    }


def stress_sections(stress_result: StressResult) -> tuple[ReportSection, ...]:
    """Return the sections on simulated paths, then on stress scenarios."""
    simulated_cases = [
        case
        for case in stress_result.cases
        if case.engine == "kernel" or case.name in METHOD_NAMES.values()
    ]
    stressed_cases = [case for case in stress_result.cases if case not in simulated_cases]
    span_text = f"{stress_result.path_bars} bars of {round_duration(stress_result.interval_s)}"
    method_text = (
        f"Blocks of the recorded moves, {stress_result.mean_block_bars:.1f} bars long on average, are drawn in random"
        " order (stationary bootstrap, Politis & Romano 1994); the jump diffusion (Merton"
        f" 1976) has their covariance and {stress_result.jump_rate * 1000:.2f} jumps in 1,000 bars. Each"
        f" path is {span_text}, made from {stress_result.return_count} moves."
    )
    shortfall_text = (
        f"Expected shortfall is the mean of the worst {WORST_SHARE * 100:.0f} % of paths; with fewer than"
        f" {1 / WORST_SHARE:.0f} paths, the worst path. A negative loss is a gain."
    )
    simulated_section = ReportSection(
        "Simulated paths",
        (method_text, shortfall_text, FEW_PATHS_TEXT, *_kernel_note(stress_result)),
        tuple(_distribution_figure(simulated_cases, measure) for measure in ("loss", "turnover")),
        (
            _outcome_table(simulated_cases, float(stress_result.start_value)),
            *(
                _quantile_table(simulated_cases, measure)
                for measure in MEASURES
                if any(
                    quantiles(case.metric_values(FIELD_BY_MEASURE[measure]))
                    for case in simulated_cases
                )
            ),
        ),
    )
    stressed_texts = (
        (
            "The live step on recorded and resampled prices, with gas, limits, minimums and halts."
            " The scenario applies to the middle third of a path; a crash or shock starts from a flat market and has no recovery."
        ),
        FEW_PATHS_TEXT,
        *(f"Skipped: {case_name}: {reason}." for case_name, reason in stress_result.skipped_cases),
    )
    stressed_section = ReportSection(
        "Stress scenarios",
        stressed_texts,
        (_loss_figure(stressed_cases),),
        (
            _outcome_table(stressed_cases, float(stress_result.start_value)),
            _step_table(stressed_cases),
            *(_quantile_table(stressed_cases, measure) for measure in MEASURES[:3]),
        ),
    )
    return simulated_section, stressed_section


def without_suspects_text(trusted_result: StressResult, stress_result: StressResult) -> str:
    """Return how the shortfall of each case changes without suspect closes."""
    trusted_case_by_name = {case.name: case for case in trusted_result.cases}
    shortfall_texts = [
        f"{_shortfall_text(trusted_case_by_name[case.name])} instead of {_shortfall_text(case)}"
        f" ({case.name})"
        for case in stress_result.cases
        if case.name in trusted_case_by_name
    ]
    return f"Without them the expected shortfall is {', '.join(shortfall_texts)}"


def _shortfall_text(case: StressCase) -> str:
    return _format_percent(expected_shortfall(case.metric_values("loss")))


def stress_page(stress_result: StressResult) -> ReportPage:
    """Build the whole report."""
    worst_case = max(
        stress_result.cases, key=lambda case: expected_shortfall(case.metric_values("loss"))
    )
    facts = [
        ReportFact(
            f"{case.name}: expected shortfall",
            _shortfall_text(case),
            pluralize(len(case.path_metrics), "path"),
        )
        for case in stress_result.cases[:2]
    ]
    path_count = len(worst_case.path_metrics)
    shortfall_subject = f"the mean of its worst {WORST_SHARE * 100:.0f} % of paths"
    if path_count == 1:
        shortfall_subject = "its only path"
    elif (
        path_count * WORST_SHARE < 1
    ):  # with so few paths, the expected shortfall is the worst path
        shortfall_subject = f"the worst of its {path_count} paths"
    loss_text = _shortfall_text(worst_case)
    summary = (
        (
            f"The worst case is {worst_case.name}: {shortfall_subject} is a loss of {loss_text} within {stress_result.path_bars} bars."
        ),
    )
    origin = (
        *(ReportFact(name, fact_value) for name, fact_value in stress_result.parameter_texts),
        ReportFact("config", stress_result.config_hash),
        ReportFact("data", stress_result.data_hash),
        ReportFact("seed", str(stress_result.seed)),
        *(ReportFact(name, fact_value) for name, fact_value in stress_result.versions),
    )
    return ReportPage(
        "Stress test",
        tuple(facts),
        stress_sections(stress_result),
        summary,
        origin,
        subtitle="Stress",
    )


def _kernel_note(stress_result: StressResult) -> tuple[str, ...]:
    if stress_result.kernel_difference is None:
        return ()
    return (
        (
            "These paths ran in the fast kernel, without gas and limits. On the calm paths below,"
            " its final value differs from the live step's by at most"
            f" {stress_result.kernel_difference:.1e}."
        ),
    )


def _distribution_figure(cases: list[StressCase], measure: str) -> Chart:
    all_outcomes = np.concatenate([case.metric_values(FIELD_BY_MEASURE[measure]) for case in cases])
    bin_edges = np.linspace(all_outcomes.min(), all_outcomes.max() + 1e-12, BIN_COUNT + 1)
    bin_centres = (bin_edges[1:] + bin_edges[:-1]) / 2
    traces = []
    for case in cases:
        bin_counts, _ = np.histogram(case.metric_values(FIELD_BY_MEASURE[measure]), bin_edges)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "line": {"shape": "hvh"},
                "x": bin_centres,
                "y": bin_counts / bin_counts.sum(),
                "name": case.name,
            }
        )
    x_axis: dict[str, Any] = {"title": {"text": TITLE_BY_MEASURE[measure]}}
    if measure != "turnover":
        x_axis = {"title": {"text": f"{TITLE_BY_MEASURE[measure]} at the end"}, "tickformat": ".0%"}
    return {
        "title": TITLE_BY_MEASURE[measure],
        "says": f"Distribution of {TITLE_BY_MEASURE[measure].lower()} over the paths.",
        "data": traces,
        "layout": {
            "xaxis": x_axis,
            "yaxis": {"title": {"text": "Share of paths"}, "tickformat": ".0%"},
        },
    }


def _loss_figure(cases: list[StressCase]) -> Chart:
    case_names = [case.name for case in cases]
    traces = [
        {
            "type": "bar",
            "name": statistic_name,
            "x": case_names,
            "y": [statistic(case.metric_values("loss")) for case in cases],
        }
        for statistic_name, statistic in (("median", np.median), ("worst", np.max))
    ]
    return {
        "title": "Loss at the end",
        "says": "Median and worst loss of each scenario.",
        "data": traces,
        "layout": {"yaxis": {"tickformat": ".0%"}, "barmode": "group"},
    }


def _quantile_table(cases: list[StressCase], measure: str) -> ReportTable:
    header = (
        "case",
        "paths",
        "mean",
        *(f"{level * 100:.0f} %" for level in QUANTILES),
        "shortfall",
        "worst",
    )
    quantile_rows = []
    for case in cases:
        path_outcomes = case.metric_values(FIELD_BY_MEASURE[measure])
        if (quantile_values := quantiles(path_outcomes)) is not None:
            statistics = (
                path_outcomes.mean(),
                *quantile_values,
                expected_shortfall(path_outcomes),
                path_outcomes.max(),
            )
            cell_texts = tuple(
                LEFT_OUT
                if statistic is None
                else f"{statistic:.3f}"
                if measure == "turnover"
                else _format_percent(float(statistic))
                for statistic in statistics
            )
            quantile_rows.append((case.name, str(len(path_outcomes)), *cell_texts))
    return ReportTable(header, tuple(quantile_rows), TITLE_BY_MEASURE[measure])


def _outcome_table(cases: list[StressCase], start_value: float) -> ReportTable:
    """Return median, bad and good results of each case as return and end value."""
    quantile_labels = ("5%", "50%", "95%")
    outcome_rows = []
    for case in cases:
        distributions = outcome_distributions(case.metric_values("loss"), start_value)
        if distributions["return"] is not None:
            return_by_label = distributions["return"]["quantiles"]
            value_by_label = distributions["end_value"]["quantiles"]
            returns = (
                LEFT_OUT if text is None else f"{100 * float(text):+.2f} %"
                for text in (return_by_label[label] for label in quantile_labels)
            )
            end_values = (
                LEFT_OUT if text is None else f"{float(text):,.2f}"
                for text in (value_by_label[label] for label in quantile_labels)
            )
            outcome_rows.append((case.name, str(len(case.path_metrics)), *returns, *end_values))
    header = (
        "case",
        "paths",
        *(
            f"{figure} {quantile_label.replace('%', ' %')}"
            for figure in ("return", "end value")
            for quantile_label in quantile_labels
        ),
    )
    return ReportTable(
        header, tuple(outcome_rows), f"Returns, and end values of {start_value:,.2f}"
    )


def _step_table(cases: list[StressCase]) -> ReportTable:
    case_rows = tuple(
        (
            case.name,
            str(len(case.path_metrics)),
            str(sum(metrics.rebalance_count for metrics in case.path_metrics)),
            str(sum(path_metrics.halted_bar_count for path_metrics in case.path_metrics)),
            ", ".join(f"{reason} ({count})" for reason, count in case.refusals) or "–",
        )
        for case in cases
    )
    return ReportTable(
        ("case", "paths", "rebalances", "bars halted", "refused by"),
        case_rows,
        "Steps over all paths",
    )


def _format_percent(share: float) -> str:
    return f"{100 * share:.2f} %"
