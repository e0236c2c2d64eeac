"""State of the layer: the signals' answers."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import LayerState, SignalAnswer


@dataclass(frozen=True, slots=True)
class SignalState(LayerState):
    """Answers of the signals that a step ran, faults of those that are not due, and the answer of
    the one that is the trigger.
    """

    answers: tuple[SignalAnswer, ...] = ()
    trigger: SignalAnswer | None = None

    @property
    def allocator_answers(self) -> tuple[SignalAnswer, ...]:
        """See LayerState."""
        return self.answers

    @property
    def trigger_answer(self) -> SignalAnswer | None:
        """See LayerState."""
        return self.trigger

    @property
    def faults(self) -> tuple[SignalAnswer, ...]:
        """Answers without targets, or of the trigger without a decision."""
        answers = self.answers if self.trigger is None else (*self.answers, self.trigger)
        return tuple(answer for answer in answers if answer.why)

    def for_part(self, part_name: str) -> LayerState:
        """See LayerState."""
        return SignalState(tuple(answer for answer in self.answers if answer.owner == part_name))
