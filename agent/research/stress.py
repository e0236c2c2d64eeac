"""Stress tests from Python, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from html import escape
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from agent.app.research.trials import (
    USUAL_PATHS,
    USUAL_STEP_PATHS,
    StressOptions,
    estimated_test,
    run_stress,
)
from agent.backtest.data import PriceTable, select_spec_symbols
from agent.backtest.report.page import ReportPage
from agent.backtest.stress.paths import STRESS_SCENARIOS, SpotScenario
from agent.backtest.stress.run import (
    MIN_PATH_BARS,
    StressResult,
    complete_bar_count,
    stress_document,
    stress_page,
)
from agent.backtest.stress.work import PathMetrics
from agent.config.writing.template import starting_limits
from agent.errors import ConfigError
from agent.model import Destination, Signal
from agent.price_files.frames import load_polars
from agent.research.allocators import AnyAllocator, chosen_allocator
from agent.research.arguments import (
    Duration,
    Number,
    distinct_members,
    optional_duration_s,
    research_call,
)
from agent.research.charts import load_plotly
from agent.research.inputs import (
    MarketArguments,
    cores_and_scheduler,
    read_inputs,
    require_one_process,
)
from agent.research.progress import shown_progress
from agent.research.reported import ReportedResult
from agent.research.signals import FunctionSignal
from agent.research.triggers import AnyTrigger
from agent.units import format_duration, pluralize


@research_call
def stress(  # noqa: PLR0913  each argument is one thing that a reader sets by name
    prices: object,
    targets: Mapping[str, Number],
    trigger: AnyTrigger | None = None,
    *,
    signal: Signal | FunctionSignal | None = None,
    allocator: AnyAllocator | None = None,
    destination: str | Destination | None = None,
    paths: int = USUAL_PATHS,
    step_paths: int = USUAL_STEP_PATHS,
    bars: int = 0,
    horizon: Duration = "",
    scenarios: Sequence[str | SpotScenario] = (),
    jobs: object = 1,
    progress: Callable[[str, int, int], None] | bool | None = None,
    **market: Unpack[MarketArguments],
) -> StressTest:
    """Run a portfolio over thousands of simulated futures of its prices and over stress scenarios,
    with the limits of a new config. `signal` and `allocator` are those of `backtest`, and `market`
    are its arguments `value` (10,000), `costs` (`Costs()`), `network`, `start`, `end`, `numeraire`
    and `native` (none), with their types and defaults. There are no `flows`: a loss is that of a
    path's start value.

    `paths` are simulated by each of two methods, each `bars` or a `horizon` such as "30d"
    long (720 bars if there are as many). `step_paths` are those of each scenario, which take the live step, and in place of `paths`
    those of a function or an allocator, which need it too. `scenarios` are members of
    `research.Scenario` or their values, but for CALM, which each test has, and SHOCK, which is of
    `trimtab whatif --shock`; without any all that apply. `jobs` is a number of cores (0: all; a script then needs
    `if __name__ == "__main__"`), a Dask client, or the address of its scheduler. `progress` gets the
    case, and the numbers of its finished paths and of all. Raises ConfigError naming the argument,
    Retryable if a process is lost.

    >>> import polars
    >>> from agent import research
    >>> days = [1_700_000_000 + 86_400 * day for day in range(200)]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0 + day % 7 for day in range(200)]})
    >>> targets = {"BTC": 0.5, "USD": 0.5}
    >>> result = research.stress(prices, targets, research.band(0.1), paths=10, scenarios=["crash"])
    >>> result.frame()["case"].to_list()[-1]
    'crash'
    """
    inputs = read_inputs(
        prices,
        targets,
        trigger,
        market,
        allocator=chosen_allocator(signal, allocator),
        destination=destination,
    )
    if inputs.spec.asks_functions:
        require_one_process(jobs)
    table = select_spec_symbols(inputs.spec, inputs.table)
    if (horizon_s := optional_duration_s(horizon, "horizon")) is not None:
        bars = _bars_of(horizon_s, bars, table)
    options = StressOptions(
        paths=int(paths),
        step_paths=int(step_paths),
        bars=int(bars),
        scenarios=_chosen_scenarios(scenarios),
    )
    spec = replace(inputs.spec, limits=starting_limits(inputs.spec.portfolio.numeraire))
    test = estimated_test(spec, inputs.table, inputs.settings, options.spec(table))
    return StressTest(run_stress(test, shown_progress(progress), *cores_and_scheduler(jobs)))


def _chosen_scenarios(choices: Sequence[str | SpotScenario]) -> tuple[SpotScenario, ...]:
    """Return the scenarios that a test may be asked for. Raises ConfigError for any other."""
    if any(choice in (SpotScenario.CALM, SpotScenario.CALM.value) for choice in choices):
        raise ConfigError(
            "scenarios: 'calm' is a case of each test, beside the scenarios", "leave it out"
        )
    return distinct_members(choices, "scenarios", STRESS_SCENARIOS)


def _bars_of(horizon_s: int, bars: int, table: PriceTable) -> int:
    """Return the bars of a horizon. Raises ConfigError for both arguments, less than a bar, or more
    bars than the prices have.
    """
    interval_s = table.interval_s
    if bars:
        raise ConfigError("horizon: bars give the length already", "give one of the two")
    count = horizon_s // interval_s
    if not count:
        raise ConfigError(
            f"horizon: {format_duration(horizon_s)} is shorter than a bar of {format_duration(interval_s)}",
            f'write for example horizon="{format_duration(30 * interval_s)}"',
        )
    bar_count = complete_bar_count(table)
    if not MIN_PATH_BARS <= count <= bar_count:
        raise ConfigError(
            f"horizon: {format_duration(horizon_s)} is {pluralize(count, 'bar')} of"
            f" {format_duration(interval_s)}, the prices have {bar_count}",
            f"write {format_duration(MIN_PATH_BARS * interval_s)} to"
            f" {format_duration(bar_count * interval_s)}",
        )
    return count


TWENTIETH_PATHS = 20
"""Fewest paths that have a worst twentieth."""


def _worst_twentieths(cases: Sequence[NDArray[np.float64]]) -> list[float | None]:
    """Return the 95th percentile of each case; None if it has too few paths."""
    return [
        float(np.quantile(values, 0.95)) if len(values) >= TWENTIETH_PATHS else None
        for values in cases
    ]


class StressTest(ReportedResult):
    """A finished stress test: for each case (a method of simulated paths, or a scenario) losses,
    drawdowns and turnover of its paths.

    >>> import polars
    >>> from agent import research
    >>> days = [1_700_000_000 + 86_400 * day for day in range(200)]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0 + day % 7 for day in range(200)]})
    >>> targets = {"BTC": 0.5, "USD": 0.5}
    >>> research.stress(prices, targets, research.band(0.1), paths=10, scenarios=["crash"])
    StressTest(4 cases of 200 bars, worst: crash, mean loss 28.09 %)
    """

    def __init__(self, result: StressResult) -> None:
        self._result = result

    def __repr__(self) -> str:
        worst = max(self._result.cases, key=lambda case: float(case.metric_values("loss").mean()))
        loss = float(worst.metric_values("loss").mean())
        return (
            f"StressTest({pluralize(len(self._result.cases), 'case')} of"
            f" {pluralize(self._result.path_bars, 'bar')}, worst:"
            f" {worst.name}, mean loss {loss * 100:.2f} %)"
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the prices and the test, and what was skipped.

        >>> result.notes[0].partition(",")[0]
        'loss_95 and drawdown_95 need 20 paths'
        """
        skipped = (f"skipped: {case}: {why}" for case, why in self._result.skipped_cases)
        short_cases = [
            case.name for case in self._result.cases if len(case.path_metrics) < TWENTIETH_PATHS
        ]
        too_few = (
            f"loss_95 and drawdown_95 need {TWENTIETH_PATHS} paths, fewer have {', '.join(short_cases)}",
        )
        return (*self._result.notes, *skipped, *(too_few if short_cases else ()))

    @property
    def document(self) -> dict[str, Any]:
        """The document of `trimtab stress --json`.

        >>> result.document["bars"]
        200
        """
        return stress_document(self._result)

    @property
    def paths(self) -> Any:
        """A polars frame with a row for each path: case, engine, and what PathMetrics names: loss,
        drawdown, hold_shortfall, outside_share as shares, turnover in portfolios, and counts.

        >>> len(result.paths)
        26
        """
        columns: dict[str, list[object]] = {"case": [], "engine": []}
        columns |= {field.name: [] for field in fields(PathMetrics)}
        for case in self._result.cases:
            for metrics in case.path_metrics:
                columns["case"].append(case.name)
                columns["engine"].append(case.engine)
                for field in fields(PathMetrics):
                    columns[field.name].append(getattr(metrics, field.name))
        return load_polars().DataFrame(columns)

    def frame(self) -> Any:
        """Return a polars frame with a row for each case: case, engine, paths, the median, the
        worst twentieth and the worst of the loss, median and worst twentieth of the drawdown, and
        the median turnover.

        >>> result.frame()["case"].to_list()
        ['resampled blocks', 'jump diffusion', 'calm', 'crash']
        """
        cases = self._result.cases
        losses = [case.metric_values("loss") for case in cases]
        drawdowns = [case.metric_values("drawdown") for case in cases]
        polars = load_polars()
        return polars.DataFrame(
            {
                "case": [case.name for case in cases],
                "engine": [case.engine for case in cases],
                "paths": [len(case.path_metrics) for case in cases],
                "loss_median": [float(np.median(values)) for values in losses],
                "loss_95": _worst_twentieths(losses),
                "loss_worst": [float(values.max()) for values in losses],
                "drawdown_median": [float(np.median(values)) for values in drawdowns],
                "drawdown_95": _worst_twentieths(drawdowns),
                "turnover_median": [
                    float(np.median(case.metric_values("turnover"))) for case in cases
                ],
            },
            schema_overrides=dict.fromkeys(("loss_95", "drawdown_95"), polars.Float64),
        )

    def plot(self) -> Any:
        """Return a plotly figure of the losses of each case. Raises ConfigError if plotly is not
        installed.

        >>> [box.name for box in result.plot().data]
        ['resampled blocks', 'jump diffusion', 'calm', 'crash']
        """
        graph_objects = load_plotly()
        figure = graph_objects.Figure(
            [
                graph_objects.Box(y=case.metric_values("loss"), name=case.name)
                for case in self._result.cases
            ]
        )
        figure.update_yaxes(title_text="loss", tickformat=".0%", hoverformat=".2%")
        title = f"Losses of paths of {pluralize(self._result.path_bars, 'bar')}"
        figure.update_layout(title=title, showlegend=False, margin={"t": 56, "r": 16})
        return figure

    def _page(self) -> ReportPage:
        return stress_page(self._result)

    def _repr_html_(self) -> str:
        """Return the figures of each case for a notebook."""
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<div><p>{escape(repr(self))}</p>{self.frame()._repr_html_()}{notes}</div>"
