"""What the engine reads through: clocks, readers, evidence."""

from __future__ import annotations

from typing import Protocol

from agent.model import Evidence, Plan, Snapshot, StepInput


class Clock(Protocol):
    """Wall clock of the agent; a replay hands in its own."""

    def now_s(self) -> int:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits, or moves a simulated clock."""
        ...


class Reader(Protocol):
    """Reads the chain at one block."""

    def snapshot(self) -> Snapshot:
        """Everything a step needs, agreed by the configured quorum. Raises Retryable, Refused, OperatorNeeded."""
        ...


class EvidenceSource(Protocol):
    """Gathers what guards need beyond the snapshot."""

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Second quotes, kill switch, pins, quorum."""
        ...
