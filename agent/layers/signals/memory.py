"""Answers of the signals that are due, from the processes that run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.layers.signals.host import SignalRunner
from agent.layers.signals.policy import idle_signals, signal_requests, trigger_request
from agent.layers.signals.state import SignalState
from agent.model import AnsweredTrigger, SignalAnswer, SignalSettings, StepInput, StepMemory
from agent.policy.target_changes import apply_allocation


@dataclass(frozen=True, slots=True)
class SignalReader:
    """Reader of the signals' answers at a step. `fault_of` is why a signal that is not due could not
    be started; empty if it could.
    """

    host: SignalRunner
    fault_of: Callable[[SignalSettings], str] = lambda _: ""

    def __call__(self, step: StepInput, memory: StepMemory) -> SignalState:
        """Return the answers of the signals that are due, and the faults of the others."""
        last_allocation_by_owner = dict(memory.allocation_by_owner)
        faults = tuple(
            SignalAnswer(settings.name, owner, why=why)
            for owner, settings in idle_signals(step, last_allocation_by_owner)
            if (why := self.fault_of(settings))
        )
        answers = self.host.answers(signal_requests(step, last_allocation_by_owner))
        state = SignalState(answers + faults)
        if not isinstance(step.policy.trigger, AnsweredTrigger):
            return state
        request = trigger_request(apply_allocation(step.with_layer(state)))
        return (
            state if request is None else replace(state, trigger=self.host.answers((request,))[0])
        )
