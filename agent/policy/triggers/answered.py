"""The trigger that a function of the owner answers. The answer is a part of the step's input, so
that the same input gives the same decision.
"""

from __future__ import annotations

from agent.errors import ConfigError
from agent.model import AnsweredTrigger
from agent.policy.triggers.bands import (
    TriggerInput,
    TriggerResult,
    TriggerRules,
    furthest_text,
)


def _validate(trigger: AnsweredTrigger) -> None:
    if trigger.window_s <= 0:
        raise ConfigError(f"policy.trigger: a window of {trigger.window_s} s", "write a time")


def _evaluate(trigger: AnsweredTrigger, inputs: TriggerInput) -> TriggerResult:
    answer_text = "a rebalance" if trigger.is_due else "no rebalance"
    reason = f"the function asks for {answer_text}; {furthest_text(inputs.drifts)}"
    return TriggerResult(trigger.is_due, reason, None, fired_by_schedule=trigger.is_due)


RULES = {
    AnsweredTrigger: TriggerRules(
        validate=_validate,
        evaluate=_evaluate,
        describe=lambda _, __: "a function",
        price_history_s=lambda trigger: trigger.window_s,
    )
}
