"""The trigger that a function of the owner answers. The answer is a part of the step's input, so
that the same input gives the same decision.
"""

from __future__ import annotations

from agent.errors import ConfigError
from agent.model import AnsweredTrigger, Portfolio, SignalSettings
from agent.policy.triggers.bands import (
    KeyUnit,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
    furthest_text,
)
from agent.units import HOUR_S, format_duration


def _validate(trigger: AnsweredTrigger) -> None:
    if trigger.window_s <= 0:
        raise ConfigError(f"policy.trigger: a window of {trigger.window_s} s", "write a time")
    if trigger.signal is not None and not HOUR_S <= trigger.step_s < trigger.window_s:
        raise ConfigError(
            f"policy.trigger.step: {format_duration(trigger.step_s)}",
            "write a time from 1h on that is shorter than window",
        )


def _evaluate(trigger: AnsweredTrigger, inputs: TriggerInput) -> TriggerResult:
    answers = [layer.trigger_answer for layer in inputs.history.layers]
    answer = next((answer for answer in answers if answer is not None), None)
    is_due = trigger.is_due or (answer is not None and answer.is_due and not answer.why)
    answer_text = f"asks for {'a' if is_due else 'no'} rebalance"
    if trigger.signal is not None and (answer is None or answer.why):
        answer_text = f"gave no answer: {'it was not run' if answer is None else answer.why}"
    reason = f"{_name(trigger)} {answer_text}; {furthest_text(inputs.drifts)}"
    return TriggerResult(is_due, reason, None, needs_no_confirmation=is_due)


def _name(trigger: AnsweredTrigger) -> str:
    return "the function" if trigger.signal is None else f"the function {trigger.signal.name}"


def _describe(trigger: AnsweredTrigger, _: Portfolio) -> str:
    signal = trigger.signal
    source = f", {signal.file} {signal.sha256[:12]}" if signal is not None and signal.file else ""
    return f"{_name(trigger)}{source}"


def _build(signal: str, window_s: int, step_s: int) -> AnsweredTrigger:
    return AnsweredTrigger(window_s, step_s=step_s, signal=SignalSettings(signal, timeout_s=0))


RULES = {
    AnsweredTrigger: TriggerRules(
        validate=_validate,
        evaluate=_evaluate,
        describe=_describe,
        price_history_s=lambda trigger: trigger.window_s,
    )
}
NOTATIONS = (
    TriggerNotation(
        "function",
        {"signal": KeyUnit.TEXT, "window": KeyUnit.DURATION, "step": KeyUnit.DURATION},
        _build,
        keys_required=True,
    ),
)
"""The signal's settings are added from [signals.NAME] (agent/config/triggers.py)."""
