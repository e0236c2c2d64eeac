"""Backtests from Python: frames and numbers in place of files and options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from agent.app.research.backtests import simulate_checked
from agent.backtest.data import PriceTable
from agent.backtest.simulate import Progress
from agent.backtest.sweep import available_cores
from agent.backtest.tune.grid import PolicyChoice
from agent.backtest.workers import run_in_processes, run_on_cluster
from agent.calls import described, has_items
from agent.errors import ConfigError
from agent.model import (
    AllocatorConfig,
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    Signal,
    Threshold,
    Trigger,
)
from agent.research.allocators import AnyAllocator, chosen_allocator
from agent.research.arguments import Number, function_name, research_call
from agent.research.costs import USUAL_COSTS, Costs
from agent.research.inputs import (
    USUAL_VALUE,
    MarketArguments,
    cores_and_scheduler,
    read_inputs,
    require_one_process,
)
from agent.research.prices import Moment, read_prices
from agent.research.progress import shown_progress
from agent.research.results import Backtest, Comparison
from agent.research.signals import FunctionRunner, FunctionSignal
from agent.research.triggers import AnyTrigger, FunctionTrigger, checked_trigger
from agent.units import format_duration


@research_call
def backtest(  # noqa: PLR0913  each argument is one thing that a reader sets by name
    prices: object,
    targets: Mapping[str, Number],
    trigger: AnyTrigger | None = None,
    *,
    signal: Signal | FunctionSignal | None = None,
    allocator: AnyAllocator | None = None,
    value: Number = USUAL_VALUE,
    costs: Costs = USUAL_COSTS,
    network: str | None = None,
    flows: Mapping[Moment, Number] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    destination: str | Destination | None = None,
    numeraire: str = "",
    native: str = "",
    progress: Progress | bool | None = None,
) -> Backtest:
    """Simulate a portfolio over prices, by the same steps as the live agent.

    `prices` is a frame of polars or pandas, wide (a column of times and one for each symbol) or long
    (time, symbol, close), or the path or https address of a file. `targets` are shares by symbol. `trigger` is
    `band`, `every`, `cron` or `tracking`, which is the default, or a function that answers at each
    bar whether a rebalance is due. `signal` is a function that chooses the
    weights at each bar, or a `signal(…)` that says when; `targets` are the first ones then, of all
    assets that it may choose. `allocator` is an `allocator(…)`, of the keys of a config, or a
    function as a signal. `value` and `flows` (deposits above zero,
    withdrawals below, by time) are in the numeraire, the first target without prices, or USD.
    `costs` are of pools, such as `research.Costs(fee=0.003)`. `network`, such as "base", adds its
    usual gas price and data fee, which `native` (ETH, WETH or the one named) pays. `destination` is
    of `research.Destination`.
    `start` and `end` limit the bars. Raises ConfigError naming the argument.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> research.backtest(prices, {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    Backtest(2024-01-01 to 2024-01-03, +12.78 % (held +12.50 %), 1 trade, 11,278.11 USD)
    """
    market = MarketArguments(
        value=value,
        costs=costs,
        network=network,
        start=start,
        end=end,
        numeraire=numeraire,
        native=native,
    )
    inputs = read_inputs(
        prices,
        targets,
        trigger,
        market,
        allocator=chosen_allocator(signal, allocator),
        destination=destination,
        flows=flows,
    )
    show = shown_progress(progress)
    result = simulate_checked(inputs.spec, inputs.table, inputs.settings, show)
    notes = _phase_notes(inputs.spec.policy.trigger, inputs.spec.portfolio.allocator)
    if isinstance(runner := inputs.spec.signal_runner, FunctionRunner):
        notes += runner.notes
    result = replace(result, notes=(*result.notes, *notes))
    if show is not None and show is not progress:  # bars without a trade are skipped
        show(inputs.table.bar_count, inputs.table.bar_count)
    return Backtest(result)


def _phase_notes(trigger: Trigger, allocator: AllocatorConfig | None) -> tuple[str, ...]:
    """Return that chosen weights wait for a trigger which knows nothing of their choice; empty if they
    do not.
    """
    if not isinstance(trigger, Every) or allocator is None:
        return ()
    return (
        f"weights are chosen every {format_duration(allocator.every_s)} from the second bar on, and traded"
        f" every {format_duration(trigger.every_s)} from the first, so that a choice may wait nearly as"
        " long; a band, or a function as the trigger, trades it sooner",
    )


class BacktestArguments(MarketArguments, total=False):
    """Arguments of `backtest` that `compare` takes for each of its triggers."""

    signal: Signal | FunctionSignal | None
    allocator: AnyAllocator | None
    flows: Mapping[Moment, Number] | None
    destination: str | Destination | None
    progress: Progress | bool | None


@dataclass(frozen=True, slots=True)
class Trials:
    """Backtests of triggers by their names, each of which may run in a process of its own."""

    table: PriceTable
    targets: Mapping[str, Number]
    triggers: Mapping[str, AnyTrigger]
    arguments: BacktestArguments

    def run(self, name: str) -> Backtest:
        """Return the backtest of a trigger."""
        return backtest(self.table, self.targets, self.triggers[name], **self.arguments)


@research_call
def compare(
    prices: object,
    targets: Mapping[str, Number],
    triggers: Mapping[str, AnyTrigger] | list[Any] | tuple[AnyTrigger, ...],
    *,
    jobs: object = 1,
    **arguments: Unpack[BacktestArguments],
) -> Comparison:
    """Return the backtest of each trigger, by its name; those of a list are named as in the frame of
    `tune` ("band 10 % rel", "every 7 days"), a function by its own name. `jobs` is a number of cores
    or a Dask client as for `tune`, `progress` gets the numbers of finished triggers and of all; other
    `arguments`, such as `signal` and `costs`, are those of `backtest`, with their types and defaults.
    The result is a dict with a method `frame`, a row for each trigger.

    >>> import polars
    >>> from agent import research
    >>> days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    >>> prices = polars.DataFrame({"time": days, "BTC": [100.0, 130.0, 125.0]})
    >>> triggers = {"band": research.band(0.1), "weekly": research.every("7d")}
    >>> results = research.compare(prices, {"BTC": 0.5, "USD": 0.5}, triggers)
    >>> {name: result.summary.trades for name, result in results.items()}
    {'band': 1, 'weekly': 0}
    """
    if isinstance(triggers, list | tuple):
        triggers = dict(zip(_names(triggers), triggers, strict=True))
    if not has_items(triggers) or not dict(triggers.items()):
        raise ConfigError(
            f"triggers: {described(triggers)} has no triggers by name",
            'write for example {"band": research.band(0.1), "weekly": research.every("7d")}',
        )
    cores, scheduler = cores_and_scheduler(jobs)
    table = read_prices(prices)
    progress = shown_progress(arguments.pop("progress", None))
    if cores == 1:
        arguments["progress"] = _ignore_bars
    trials = Trials(table, targets, dict(triggers.items()), arguments)
    names = tuple(trials.triggers)
    if cores == 1:
        return _comparison(((name, trials.run(name)) for name in names), names, progress)
    functions = [arguments.get("signal"), arguments.get("allocator"), *trials.triggers.values()]
    if any(
        callable(function) or isinstance(function, FunctionSignal | FunctionTrigger)
        for function in functions
    ):
        require_one_process(jobs)
    finished = (
        run_on_cluster(trials, names, scheduler, "no backtest is kept")
        if scheduler
        else run_in_processes(
            trials,
            names,
            min(cores or available_cores(), len(names)),
            "a process of the comparison died, perhaps for lack of memory",
        )
    )
    return _comparison(finished, names, progress)


def _ignore_bars(finished: int, total: int) -> None:
    """Progress within a trigger, which a comparison does not show."""


def _comparison(
    finished: Iterable[tuple[str, Backtest]], names: Sequence[str], progress: Progress | None
) -> Comparison:
    result_by_name = {}
    if progress is not None:
        progress(0, len(names))
    for name, result in finished:
        result_by_name[name] = result
        if progress is not None:
            progress(len(result_by_name), len(names))
    return Comparison((name, result_by_name[name]) for name in names)


def _names(triggers: Sequence[AnyTrigger]) -> list[str]:
    """Return a name for each trigger. Raises ConfigError if two have the same."""
    names = []
    for any_trigger in triggers:
        trigger = checked_trigger(any_trigger)
        if isinstance(trigger, FunctionTrigger):
            names.append(function_name(trigger.function))
        elif isinstance(trigger, Threshold | Every | HybridTrigger | NoTradeZone):
            names.append(PolicyChoice(trigger).label)
        else:
            names.append(repr(trigger))
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"triggers: two are {repeated[0]}", 'name them: {"a": research.band(0.1), …}'
        )
    return names
