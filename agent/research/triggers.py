"""Triggers of a backtest: the same objects as those of a config's [policy] trigger, and functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.calls import MAX_QUOTED_LENGTH, checked_call, described, has_items
from agent.errors import ConfigError
from agent.model import (
    AnsweredTrigger,
    Cron,
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    Policy,
    SignalSettings,
    SignalView,
    Threshold,
    Trigger,
    TriggerFunction,
)
from agent.policy.triggers.bands import validate_band
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.schedule_triggers import validate_schedule
from agent.policy.triggers.validation import validate_policy
from agent.research.arguments import (
    Duration,
    call_text,
    duration_s,
    function_name,
    is_number,
    optional_duration_s,
    research_call,
)
from agent.research.live_files import inline_table, signal_source
from agent.research.signals import AskedFunction, live_window_s
from agent.units import BPS, exact_duration

_EXAMPLE_BY_MAKER = {
    "band": "research.band(0.1)",
    "cron": 'research.cron("@monthly")',
    "every": 'research.every("7d")',
    "tracking": "research.tracking()",
    "trigger": "research.trigger(function)",
}


@dataclass(frozen=True, slots=True)
class FunctionTrigger:
    """A function that answers whether a rebalance is due, from how many seconds of prices, as
    `live_window_s` says.
    """

    function: TriggerFunction
    window_s: int | None

    def __repr__(self) -> str:
        return call_text("trigger", self.function, window=self.window_s)

    @research_call
    def config(self, path: str | Path, *, step: Duration) -> str:
        """Return what a config needs to trade by the function live, as TOML: the trigger, which sees
        a price each `step`, and the signal in the file at `path`, which goes beside the config, with
        its hash. The line `trigger` replaces the one of the config's [policy]. Raises ConfigError.
        """
        step_s = duration_s(step, "step")
        window_s = live_window_s(self.window_s, step_s, "trigger")
        source = signal_source(self.function, path, "trigger")
        live_trigger = AnsweredTrigger(
            window_s, step_s=step_s, signal=SignalSettings(source.name, 0)
        )
        validate_policy(Policy(live_trigger, Destination.TARGET, cooldown_s=0))
        trigger_table = {
            "kind": "function",
            "signal": source.name,
            "window": exact_duration(window_s),
            "step": exact_duration(step_s),
        }
        return (
            "[policy]  # its trigger replaces that of the config\n"
            f"trigger = {inline_table(trigger_table)}\n\n{source.block}"
        )

    def is_due(self, view: SignalView) -> bool:
        """Return the function's answer. Raises ConfigError unless it is True or False."""
        asked_function = AskedFunction(self.function, "trigger")
        answer = asked_function.answer(view)
        if not isinstance(answer, bool | np.bool_):
            words = f"{function_name(self.function)} returned {repr(answer)[:MAX_QUOTED_LENGTH]}"
            remedy = "return True, if a rebalance is due, or False"
            if has_items(answer):
                remedy = f"write signal={function_name(self.function)} if it chooses weights, else {remedy}"
            raise asked_function.error(view, words, remedy)
        return bool(answer)


AnyTrigger = Trigger | FunctionTrigger | TriggerFunction


@checked_call
def trigger(function: TriggerFunction, *, window: Duration = "") -> FunctionTrigger:
    """Let a function answer at each bar whether a rebalance is due, from the prices of the last
    `window`; without it 90 days, at most 1000 bars. Raises ConfigError.

    The function gets a view of what was known at the bar (agent.signals.SignalView), and returns
    True or False.

    >>> def falls(view):
    ...     return view.prices["BTC"][-1].close < 40_000
    >>> trigger(falls, window="30d")
    trigger(falls, window="30d")
    """
    makers: tuple[object, ...] = (band, cron, every, tracking, trigger)
    if any(function is maker for maker in makers):
        raise ConfigError(
            f"trigger: the function research.{function.__name__} is no trigger before it is called",
            f"write for example {_EXAMPLE_BY_MAKER[function.__name__]}",
        )
    if not callable(function) or isinstance(function, type):
        raise ConfigError(
            f"trigger: {described(function)} is no trigger",
            "give research.band, research.cron, research.every, research.tracking, or a function such as"
            ' lambda view: view.weights["BTC"] > 0.5',
        )
    return FunctionTrigger(function, optional_duration_s(window, "window"))


def checked_trigger(any_trigger: AnyTrigger) -> Trigger | FunctionTrigger:
    """Return the trigger, with a window if it is a function. Raises ConfigError if it is neither."""
    if isinstance(any_trigger, Trigger | FunctionTrigger):
        return any_trigger
    return trigger(any_trigger)


@checked_call
def band(relative: float | None = None, *, absolute: float | None = None) -> Threshold:
    """Rebalance once a weight leaves its band, as shares: `relative` to its target, or `absolute`
    in the portfolio; the narrower applies. Raises ConfigError.

    >>> band(0.1)
    band(0.1)
    """
    threshold = Threshold(
        absolute_bps=_bps(absolute, "absolute"), relative_bps=_bps(relative, "relative")
    )
    if threshold.absolute_bps is None and threshold.relative_bps is None:
        raise ConfigError("band: no width", "write for example band(0.1), or band(absolute=0.05)")
    validate_band(threshold, "band")
    return threshold


@checked_call
def every(interval: Duration, threshold: Threshold | None = None) -> Every | HybridTrigger:
    """Rebalance at intervals such as "12h", "7d"; with `threshold`, only once a weight has left its
    band by then. An interval begins at the last rebalance or review, the first at the first bar, at
    which a portfolio is on target; a bar that comes later than its end counts. Raises ConfigError.

    >>> every("7d", band(0.1))
    every("7d", band(0.1))
    """
    if not isinstance(threshold, Threshold | None):
        raise ConfigError(
            f"every: {described(threshold)} is no band", "write for example research.band(0.1)"
        )
    try:
        schedule = Every(duration_s(interval, "every"))
    except ConfigError as error:
        remedy = f"{error.remedy}, or {_EXAMPLE_BY_MAKER['cron']} in place of months"
        raise ConfigError(error.message, remedy) from None
    return schedule if threshold is None else HybridTrigger(threshold, schedule)


@research_call
def cron(expression: str, *, timezone: str = "UTC") -> Cron:
    """Rebalance at the times of a cron expression with five fields, or "@weekly", "@monthly", "@yearly";
    a bar that comes later counts. Raises ConfigError.

    >>> cron("0 0 1 1,4,7,10 *")
    cron("0 0 1 1,4,7,10 *")
    """
    if not isinstance(expression, str) or not isinstance(timezone, str):
        raise ConfigError(
            f"cron: {described(expression)}, {described(timezone)} are no texts",
            'write for example research.cron("@monthly", timezone="Europe/Berlin")',
        )
    schedule = Cron(expression, timezone)
    validate_schedule(schedule)
    return schedule


@research_call
def tracking(strictness: str = "normal") -> NoTradeZone:
    """Rebalance where trading costs less than it saves in the long run, the default of `trimtab
    init`: "relaxed", "normal" or "strict" (docs/triggers.md). Raises ConfigError.

    >>> tracking("strict")
    tracking("strict")
    """
    return build_tracking(strictness)


def _bps(share: Any, name: str) -> int | None:
    if share is None:
        return None
    if not is_number(share) or not 0 < share <= 1:
        raise ConfigError(
            f"band: {name} {described(share)} is no share", "write for example 0.1, a tenth"
        )
    bps: int = round(share * BPS)
    if abs(bps - share * BPS) > 1e-6:
        raise ConfigError(f"band: {name} {share} is finer than 0.0001", "round it")
    return bps
