"""Searches over triggers from Python, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from agent.app.research.backtests import require_numeraire_among_assets
from agent.app.research.trials import (
    RULE_TO_BEAT,
    TuneOptions,
    require_fit_allocators,
    run_tune,
    searched_grid,
)
from agent.backtest.data import select_spec_symbols
from agent.backtest.report.page import ReportPage
from agent.backtest.tune.grid import (
    DESTINATIONS,
    RULE_BY_STRICTNESS,
    PolicyChoice,
    PolicyGrid,
    TriggerKind,
    calendar_rule,
    checked_interval_s,
    require_fit_grid,
)
from agent.backtest.tune.jobs import AllocatorSchedule, spec_for_choice
from agent.backtest.tune.report import tune_document, tune_page
from agent.backtest.tune.search import TuneResult, TuneSpec, yearly_loss
from agent.backtest.tune.statistics import Objective
from agent.calls import described
from agent.errors import ConfigError
from agent.figures import as_sentence
from agent.model import (
    PRICE_ONLY_METHODS,
    AllocationMethod,
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    Signal,
    Threshold,
    Trigger,
)
from agent.price_files.frames import load_polars
from agent.research.allocators import (
    Allocator,
    AnyAllocator,
    allocator_of,
    chosen_allocator,
)
from agent.research.arguments import (
    Number,
    distinct_members,
    member,
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
from agent.units import BPS, pluralize

SHOWN_SETTINGS = 10
"""Settings in a notebook."""


@research_call
def tune(  # noqa: PLR0913  each argument is one thing that a reader sets by name
    prices: object,
    targets: Mapping[str, Number],
    triggers: Sequence[Trigger] = (),
    *,
    signal: Signal | FunctionSignal | None = None,
    allocator: AnyAllocator | None = None,
    destinations: Sequence[str | Destination] = (),
    allocators: Sequence[str | AllocationMethod] = (AllocationMethod.FIXED,),
    combined: bool = False,
    objective: str | Objective = Objective.TRACKING,
    calendar: str = "",
    jobs: object = 1,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | bool | None = None,
    **market: Unpack[MarketArguments],
) -> Tuning:
    """Search for the best of many settings: each runs on the first three quarters of the prices, the
    best is judged on the last quarter. `signal` and `allocator`, which choose the weights of every
    setting, are those of `backtest`, and `market` are its arguments `value` (10,000), `costs`
    (`Costs()`), `network`, `start`, `end`, `numeraire` and `native` (none), with their types and
    defaults. There are no `flows`: deposits would count as growth.

    `triggers` are tried with each of `destinations` (members of `research.Destination`, or their
    values) and `allocators` (`research.AllocationMethod`), and with `combined` each band at each
    interval, too; without any the search is over some usual ones. The `objective` is one of
    `research.Objective`: least loss against a perfect tracker, growth or the Sharpe ratio; the
    setting to beat is the tracking rule, or for the other objectives a rebalance each `calendar`
    (28d). `jobs` is a number of cores (0: all; a script then needs `if __name__ == "__main__"`), a Dask
    client, or the address of its scheduler. `folder` keeps finished runs, and a search begun in it
    goes on. `progress` gets the numbers of finished runs and of all. Raises ConfigError naming the
    argument, Retryable if a process is lost.

    >>> import polars
    >>> from agent import research
    >>> days = [1_700_000_000 + 86_400 * day for day in range(200)]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0 + day % 7 for day in range(200)]})
    >>> triggers = [research.band(0.05), research.every("7d")]
    >>> result = research.tune(prices, {"BTC": 0.5, "USD": 0.5}, triggers)
    >>> result.frame()["setting"].sort().to_list()
    ['band 5 % rel', 'every 7 days', 'tracking normal']
    """
    chosen_objective = member(objective, "objective", Objective)
    options = TuneOptions()
    calendar_s = optional_duration_s(calendar, "calendar")
    if calendar_s is not None:
        options = TuneOptions(calendar=calendar_rule(calendar_s))
        if chosen_objective is Objective.TRACKING:
            raise ConfigError(f"calendar: {RULE_TO_BEAT}", "omit it")
    named = PolicyGrid(
        (),
        (),
        distinct_members(destinations, "destinations", DESTINATIONS),
        distinct_members(allocators, "allocators", PRICE_ONLY_METHODS) or (AllocationMethod.FIXED,),
        tuple(TriggerKind) if combined else (),
    )
    grid = _grid(triggers, named) if triggers else searched_grid(named, chosen_objective)
    inputs = read_inputs(
        prices,
        targets,
        options.calendar.trigger,
        market,
        allocator=chosen_allocator(signal, allocator),
    )
    if inputs.spec.portfolio.allocator is not None and grid.allocators != (AllocationMethod.FIXED,):
        raise ConfigError(
            f"allocators: {'allocator' if signal is None else 'signal'} chooses the weights already",
            "give one of the two",
        )
    if inputs.spec.asks_functions:
        require_one_process(jobs)
        if folder is not None:
            raise ConfigError(
                "folder: it cannot tell the runs of a function from those of another", "omit it"
            )
    if chosen_objective is Objective.TRACKING or grid.strictnesses:
        require_numeraire_among_assets(inputs.spec.portfolio)
    schedule = AllocatorSchedule(options.rechoose_s, options.price_window_s)
    require_fit_allocators(grid, inputs.spec, schedule, inputs.table.interval_s)
    search = TuneSpec(
        select_spec_symbols(inputs.spec, inputs.table),
        inputs.spec,
        inputs.settings,
        grid,
        options.calendar,
        schedule,
        chosen_objective,
    )
    cores, scheduler = cores_and_scheduler(jobs)
    result = run_tune(
        search,
        cores=cores,
        scheduler=scheduler,
        folder=None if folder is None else Path(folder),
        progress=shown_progress(progress),
    )
    return Tuning(result)


def _grid(triggers: Sequence[Trigger], named: PolicyGrid) -> PolicyGrid:
    """Return the grid of exactly these triggers. Raises ConfigError."""
    combined = bool(named.trigger_kinds)
    bands = []
    intervals_s = []
    strictnesses = []
    strictness_by_rule = {rule: strictness for strictness, rule in RULE_BY_STRICTNESS.items()}
    for trigger in triggers:
        if isinstance(trigger, HybridTrigger):
            raise ConfigError(
                "triggers: a band at an interval is no setting of its own",
                "give the band and the interval, and combined=True",
            )
        if isinstance(trigger, Threshold):
            bands.append(trigger)
        elif isinstance(trigger, Every):
            intervals_s.append(checked_interval_s(trigger.every_s, "triggers"))
        elif isinstance(trigger, NoTradeZone) and trigger in strictness_by_rule:
            strictnesses.append(strictness_by_rule[trigger])
        else:
            raise ConfigError(
                f"triggers: {described(trigger)} cannot be searched over",
                "give research.band, research.every and research.tracking; research.compare takes"
                " functions, too",
            )
    if combined and not (bands and intervals_s):
        raise ConfigError(
            "combined: the triggers have no band with an interval to combine",
            "give research.band and research.every, or omit it",
        )
    if named.destinations and not (bands or intervals_s):
        raise ConfigError("destinations: tracking has its own", "omit it")
    grid = replace(
        named,
        bands=tuple(dict.fromkeys(bands)),
        intervals_s=tuple(dict.fromkeys(intervals_s)),
        destinations=named.destinations or (Destination.TARGET,),
        trigger_kinds=named.trigger_kinds or (TriggerKind.BAND, TriggerKind.EVERY),
        strictnesses=tuple(dict.fromkeys(strictnesses)),
    )
    require_fit_grid(grid)
    return grid


class Tuning(ReportedResult):
    """A finished search. Trade by `recommended`: it is `best`, the first row of `frame()`, if the last
    quarter of the prices supports that, else the setting that it had to beat: the tracking rule, or
    for the objectives growth and Sharpe ratio a rebalance each `calendar`. `verdict` says why.

    >>> import polars
    >>> from agent import research
    >>> days = [1_700_000_000 + 86_400 * day for day in range(200)]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0 + day % 7 for day in range(200)]})
    >>> triggers = [research.band(0.05), research.every("7d")]
    >>> research.tune(prices, {"BTC": 0.5, "USD": 0.5}, triggers)
    Tuning(2 settings, best: band 5 % rel, recommended: tracking normal)
    """

    def __init__(self, result: TuneResult) -> None:
        self._result = result

    def __repr__(self) -> str:
        return (
            f"Tuning({pluralize(len(self._result.choices), 'setting')}, best: {self._best.label},"
            f" recommended: {self._result.recommended.label})"
        )

    @property
    def _best(self) -> PolicyChoice:
        return self._result.choices[self._result.best_index]

    @property
    def recommended(self) -> Trigger:
        """The trigger to trade by, as `backtest` and `stress` take it.

        >>> result.recommended
        tracking("normal")
        """
        return self._result.recommended.trigger

    @property
    def recommended_destination(self) -> Destination:
        """The destination of the recommended trigger, as `backtest` and `stress` take it.

        >>> result.recommended_destination.value
        'zone'
        """
        return self._result.recommended.destination

    @property
    def recommended_allocator(self) -> Allocator | None:
        """The allocator of the recommended trigger, as `backtest` and `stress` take it; None for the
        weights that `targets`, `signal` or `allocator` of the search choose.

        >>> result.recommended_allocator is None
        True
        """
        return self._allocator(self._result.recommended)

    @property
    def best(self) -> Trigger:
        """The trigger of the first row of `frame()`, best on the first three quarters of the prices.

        >>> result.best
        band(0.05)
        """
        return self._best.trigger

    @property
    def best_destination(self) -> Destination:
        """The destination of `best`.

        >>> result.best_destination.value
        'target'
        """
        return self._best.destination

    @property
    def best_allocator(self) -> Allocator | None:
        """The allocator of `best`, as `recommended_allocator`.

        >>> result.best_allocator is None
        True
        """
        return self._allocator(self._best)

    def _allocator(self, choice: PolicyChoice) -> Allocator | None:
        if choice.allocator is AllocationMethod.FIXED:
            return None
        spec = self._result.spec
        portfolio = spec_for_choice(
            spec.backtest, choice, spec.allocator_schedule, spec.table.interval_s
        ).portfolio
        return None if portfolio.allocator is None else allocator_of(portfolio, portfolio.allocator)

    @property
    def verdict(self) -> tuple[str, ...]:
        """The reasons for and against the best setting, one sentence each.

        >>> result.verdict[0].partition(",")[0]
        'In the last quarter of the data'
        """
        return self._result.verdict.sentences

    @property
    def document(self) -> dict[str, Any]:
        """The document of `trimtab tune --json`.

        >>> result.document["objective"]
        'tracking'
        """
        return tune_document(self._result)

    def frame(self) -> Any:
        """Return a polars frame with a row for each setting, best first, and last the setting to beat if
        it is none of them: setting, destination, recommended (true for one of them), score (of the
        objective a year; a loss is below zero), loss, costs and drift in bps a year, trades_yearly,
        over_hold (log growth a year above buy and hold), final_value and turnover, both in coins of
        the numeraire and before tax.

        >>> result.frame().select("setting", "recommended").rows()[-1]
        ('tracking normal', True)
        """
        result = self._result
        ranking = result.ranking
        losses = [yearly_loss(ranked.run_result, result.years) for ranked in ranking]
        runs = [ranked.run_result for ranked in ranking]
        choices = [ranked.choice for ranked in ranking]
        return load_polars().DataFrame(
            {
                "setting": [choice.label for choice in choices],
                "destination": [choice.destination.value for choice in choices],
                "recommended": [choice == result.recommended for choice in choices],
                "score": [ranked.score for ranked in ranking],
                "loss_bps": [loss.total * BPS for loss in losses],
                "costs_bps": [loss.costs * BPS for loss in losses],
                "drift_bps": [loss.drift * BPS for loss in losses],
                "trades_yearly": [run.rebalance_count / result.years for run in runs],
                "over_hold": [ranked.excess_growth for ranked in ranking],
                "final_value": [run.final_value for run in runs],
                "turnover": [run.turnover for run in runs],
            }
        )

    def plot(self) -> Any:
        """Return a plotly heat map of the objective over the two axes of the grid with the most
        values; by the objective tracking, of the loss in basis points. Raises ConfigError if plotly
        is not installed.

        >>> result.plot().layout.title.text
        'Loss, bps a year by band and interval'
        """
        graph_objects = load_plotly()
        heat_map = self._result.heat_map
        objective = self._result.spec.objective
        is_loss = objective is Objective.TRACKING
        score_name = "loss, bps" if is_loss else objective.value
        figure = graph_objects.Figure(
            graph_objects.Heatmap(
                x=heat_map.column_axis.labels,
                y=heat_map.row_axis.labels,
                z=-BPS * heat_map.scores if is_loss else heat_map.scores,
                reversescale=is_loss,
                colorbar={"title": f"{score_name} a year"},
                texttemplate="%{z:.3~g}",
                hovertemplate=f"%{{y}}, %{{x}}<br>{score_name} %{{z:.4g}}<extra></extra>",
            )
        )
        figure.update_xaxes(title_text=heat_map.column_axis.name, type="category")
        figure.update_yaxes(title_text=heat_map.row_axis.name, type="category")
        title = f"{score_name} a year by {heat_map.row_axis.name} and {heat_map.column_axis.name}"
        figure.update_layout(title=as_sentence(title), margin={"t": 48, "r": 16})
        return figure

    def _page(self) -> ReportPage:
        return tune_page(self._result)

    def _repr_html_(self) -> str:
        """Return the verdict, the ten best settings and the recommended one for a notebook."""
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.verdict)
        frame = self.frame()
        is_among_first = np.arange(len(frame)) < SHOWN_SETTINGS
        listed_frame = frame.filter(is_among_first | frame["recommended"].to_numpy())
        more_count = len(frame) - len(listed_frame)
        more_text = f"<p>{more_count:,} more in frame()</p>" if more_count > 0 else ""
        table = listed_frame._repr_html_()
        return f"<div><p>{escape(repr(self))}</p><ul>{sentences}</ul>{table}{more_text}</div>"
