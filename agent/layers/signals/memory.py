"""Answers of the signals that are due, from the processes that run them."""

from __future__ import annotations

from dataclasses import dataclass

from agent.layers.signals.host import SignalRunner
from agent.layers.signals.policy import signal_requests
from agent.layers.signals.state import SignalState
from agent.model import StepInput, StepMemory


@dataclass(frozen=True, slots=True)
class SignalReader:
    """Reader of the signals' answers at a step."""

    host: SignalRunner

    def __call__(self, step: StepInput, memory: StepMemory) -> SignalState:
        """Return the answers of the signals that are due."""
        return SignalState(
            self.host.answers(signal_requests(step, dict(memory.allocation_by_owner)))
        )
