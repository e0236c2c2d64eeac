"""Functions as signals: weights from what was known at a bar, by the same steps as a signal of a
config (docs/signals.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.backtest.data import PriceTable
from agent.backtest.settings import MAX_AGE_BARS
from agent.calls import checked_call, described, has_items
from agent.config.tables.weights import (
    DEFAULT_MAX_CHANGE_BPS,
    LONGEST_WINDOW_S,
    MOST_INTERVALS,
    AllocatorTable,
)
from agent.errors import ConfigError
from agent.layers.signals.policy import IMPORT_HINT, checked_answer
from agent.model import (
    AllocationMethod,
    AllocatorConfig,
    InitialWeights,
    Signal,
    SignalAnswer,
    SignalRequest,
    SignalSettings,
    SignalTargets,
    SignalView,
)
from agent.price_files.frames import load_polars
from agent.research.arguments import (
    Duration,
    call_text,
    duration_s,
    function_name,
    optional_duration_s,
    research_call,
)
from agent.research.live_files import checked_lines, signal_source
from agent.research.prices import times
from agent.signals.worker import raised_text, targets_document
from agent.units import (
    DAY_S,
    HOUR_S,
    exact_duration,
    format_bps,
    format_duration,
    minute_text,
    pluralize,
)

SIGNAL_NAME = "function"
USUAL_WINDOW_S = 90 * DAY_S
LEAST_REST = 0.0001
"""Least rest of weights that is told, a basis point."""


@dataclass(frozen=True, slots=True)
class FunctionSignal:
    """A function that chooses the weights, when, and from how many seconds of prices, as
    `live_window_s` says. Errors name the `argument` that gives it.
    """

    function: Signal
    every_s: int
    window_s: int | None
    argument: str = "signal"

    def __repr__(self) -> str:
        return call_text("signal", self.function, every=self.every_s, window=self.window_s)

    @research_call
    def config(self, path: str | Path, *, step: Duration) -> str:
        """Return what a config needs to trade by the function live, as TOML: the weights, which are
        chosen from a price each `step` (the bar of the backtest), and the signal in the file at
        `path`, which goes beside the config, with its hash. Live, the function is first asked once
        there is a third of its window, and at prices of at most two steps before; in a backtest from
        its first bar on, and at prices of at most three bars before. Raises ConfigError.
        """
        step_s = duration_s(step, "step")
        window_s = live_window_s(self.window_s, step_s, self.argument)
        every_s = max(self.every_s, step_s)
        source = signal_source(self.function, path, self.argument)
        weights = {
            "kind": "signal",
            "signal": source.name,
            "every": exact_duration(every_s),
            "window": exact_duration(window_s),
            "step": exact_duration(step_s),
            "min_history": exact_duration(max(2 * step_s, window_s // 3 // step_s * step_s)),
            "max_age": exact_duration(2 * step_s),
            "keep": exact_duration(every_s),
            "churn": "0%",
            "max_change": format_bps(DEFAULT_MAX_CHANGE_BPS).replace(" ", ""),
            "until_chosen": "targets",
        }
        return f"[portfolio.weights]\n{checked_lines(AllocatorTable, weights)}\n{source.block}"

    def allocator(self, table: PriceTable) -> AllocatorConfig:
        """Return the allocator of a portfolio of these prices."""
        interval_s = table.interval_s
        every_s = max(self.every_s, int(np.diff(table.times_s).min()))
        return AllocatorConfig(
            method=AllocationMethod.SIGNAL,
            every_s=every_s,
            window_s=live_window_s(self.window_s, interval_s, self.argument),
            step_s=max(interval_s, HOUR_S),
            min_returns=0,
            max_age_s=(MAX_AGE_BARS + 1) * interval_s,
            max_overdue_s=every_s + MAX_AGE_BARS * interval_s,
            churn_bps=0,
            initial_weights=InitialWeights.TARGETS,
            fixed_tokens=(),
            limits=(),
            signal=SignalSettings(SIGNAL_NAME, timeout_s=1),
        )


def live_window_s(window_s: int | None, interval_s: int, argument: str) -> int:
    """Return the window of a function that a live agent takes too, of bars `interval_s` apart; None:
    90 days, or less if that is too long. Raises ConfigError for a longer one, and for one of a bar,
    whose start is excluded.
    """
    step_s = max(interval_s, HOUR_S)
    longest_s = min(LONGEST_WINDOW_S, MOST_INTERVALS * step_s)
    if window_s is None:
        return min(USUAL_WINDOW_S, longest_s)
    if window_s > longest_s:
        raise ConfigError(
            f"{argument}: a live agent takes no window of {format_duration(window_s)}, at most 730 days"
            f" and {MOST_INTERVALS} steps of {format_duration(step_s)}",
            f'write window="{longest_s // HOUR_S}h" or less, or give prices of longer bars',
        )
    if window_s <= interval_s:
        raise ConfigError(
            f"{argument}: no price is within the window of {format_duration(window_s)} before a bar",
            f"write a window longer than the {format_duration(interval_s)} of a bar",
        )
    return window_s


@checked_call
def signal(function: Signal, *, every: Duration = "", window: Duration = "") -> FunctionSignal:
    """Let a function choose the weights `every` so often (at each bar without it), from the prices
    of the last `window`; without it 90 days, at most 1000 bars. Raises ConfigError.

    The function gets a view of what was known at the bar (agent.signals.SignalView) and returns
    weights by symbol, as a dict or a Series of pandas; what they leave of one is the numeraire's, if
    it is a target. It may return SignalTargets, too. A window of N days has the closes of N - 1 daily
    bars, because a bar's own close is not known and the window's start is excluded.

    >>> def constant(view):
    ...     return {"BTC": 0.6}
    >>> signal(constant, every="7d")
    signal(constant, every="7d")
    """
    maker: object = signal
    if not callable(function) or isinstance(function, type) or function is maker:
        raise ConfigError(
            f"signal: {described(function)} is no function that chooses weights",
            'give a function such as lambda view: {"BTC": 0.6}',
        )
    every_s = optional_duration_s(every, "every") or 0
    return FunctionSignal(function, every_s, optional_duration_s(window, "window"))


@dataclass(frozen=True, slots=True)
class AskedFunction:
    """The function that an `argument` gives. Errors name both and the bar."""

    function: Callable[[SignalView], Any]
    argument: str

    def answer(self, view: SignalView) -> Any:
        """Return what the function returns. Raises ConfigError for what it raises."""
        try:
            return self.function(view)
        except Exception as error:
            trace = None if error.__traceback__ is None else error.__traceback__.tb_next
            line_text = "" if trace is None else f" at line {trace.tb_lineno}"
            close_count = max(map(len, view.prices.values()), default=0)
            seen_text = f"{pluralize(close_count, 'close')} of {', '.join(view.prices)}"
            raise self.error(
                view,
                f"{function_name(self.function)} raised {raised_text(error)}",
                f"correct the function{line_text}, which saw {seen_text}",
            ) from error

    def error(self, view: SignalView, words: str, remedy: str) -> ConfigError:
        """Return an error about the answer at this bar."""
        time_text = f"{minute_text(view.now_s)} UTC"
        return ConfigError(f"{self.argument}: {words}, at {time_text}", remedy)


class FunctionRunner:
    """Answers a portfolio's signal by a function of this process. What the function raises ends the
    backtest, and so does an answer that a live agent would refuse.
    """

    def __init__(self, signal: FunctionSignal) -> None:
        self._asked = AskedFunction(signal.function, signal.argument)
        self._rests: list[float] = []
        self._numeraire = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the weights left of one, if they did."""
        if max(self._rests, default=0.0) < LEAST_REST:
            return ()
        shares = dict.fromkeys(
            f"{100 * rest:.0f} %" for rest in (min(self._rests), max(self._rests))
        )
        return (
            f"{self._asked.argument}: what its weights leave of 1 stays in {self._numeraire}:"
            f" {' to '.join(shares)}, {pluralize(len(self._rests), 'choice')}",
        )

    def answers(self, requests: Sequence[SignalRequest]) -> tuple[SignalAnswer, ...]:
        """Return the answer to each request. Raises ConfigError for weights that are refused."""
        return tuple(self._answer(request) for request in requests)

    def _answer(self, request: SignalRequest) -> SignalAnswer:
        if request.why:
            why = request.why.removesuffix(f"; {IMPORT_HINT}")
            return SignalAnswer(request.settings.name, request.owner, why=why)
        view = request.view
        returned = self._asked.answer(view)
        if not (isinstance(returned, SignalTargets) or has_items(returned)):
            words = f"it returned {described(returned)}, not a dict of weights"
            raise self._asked.error(view, words, 'return for example {"BTC": 0.6}')
        try:
            document = targets_document(returned, view)
            answer = checked_answer(request, document, SIGNAL_NAME)
        except (TypeError, ValueError) as error:
            remedy = 'return numbers from 0 to 1 by symbol, such as {"BTC": 0.6}'
            raise self._asked.error(view, str(error), remedy) from None
        if answer.why:
            numeraire = view.numeraire
            rest_text = f'with "{numeraire}": 0 among the targets'
            if numeraire in view.targets:
                rest_text = f"in a dict without {numeraire}"
            raise self._asked.error(
                view,
                answer.why,
                "return weights from 0 to 1 by the targets' symbols, which sum to 1;"
                f" {rest_text} they may sum to less, and {numeraire} takes the rest",
            )
        if has_items(returned) and view.numeraire not in dict(returned.items()):
            self._rests.append(document["spot"].get(view.numeraire, 0.0))
            self._numeraire = view.numeraire
        return answer


@checked_call
def closes(view: SignalView) -> Any:
    """Return the prices of a view as a polars frame: time, and a column for each symbol; null where
    one has no price. Raises ConfigError for anything else.

    >>> from agent.signals import PriceBar, SignalView
    >>> bars = (PriceBar(1_704_067_200, 42_000.0), PriceBar(1_704_153_600, 43_000.0))
    >>> view = SignalView(1_704_240_000, "USD", {"BTC": bars}, {"BTC": 0.6, "USD": 0.4})
    >>> closes(view)["BTC"].to_list()
    [42000.0, 43000.0]
    """
    polars = load_polars()
    if not isinstance(view, SignalView):
        raise ConfigError(
            f"view: {described(view)} is no view", "call it in the function, with what it gets"
        )
    all_times_s = sorted({bar.at_s for bars in view.prices.values() for bar in bars})
    columns = {}
    for symbol, bars in view.prices.items():
        close_by_time = {bar.at_s: bar.close for bar in bars}
        columns[symbol] = [close_by_time.get(time_s) for time_s in all_times_s]
    return polars.DataFrame({"time": times(all_times_s), **columns})
