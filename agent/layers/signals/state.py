"""State of the layer: the signals' answers."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerState, SignalAnswer


@dataclass(frozen=True, slots=True)
class SignalState(LayerState):
    """Answers of the signals that a step ran, and faults of those that are not due."""

    answers: tuple[SignalAnswer, ...] = ()

    @property
    def allocator_answers(self) -> tuple[SignalAnswer, ...]:
        """See LayerState."""
        return self.answers

    @property
    def faults(self) -> tuple[SignalAnswer, ...]:
        """Answers without targets."""
        return tuple(answer for answer in self.answers if answer.why)

    def for_part(self, part_name: str) -> LayerState:
        """See LayerState."""
        return SignalState(tuple(answer for answer in self.answers if answer.owner == part_name))
