"""Records of the layers around a step: before its decision, after it, and before a swap is sent."""

from __future__ import annotations

from typing import Protocol

from agent.execution.step_context import StepOutcome, StepReaders
from agent.layers.gradual import records as gradual
from agent.model import StepInput
from agent.store.store import Store


class LayerRecords(Protocol):
    """Module of a layer that writes its records."""

    def before_decision(self, readers: StepReaders, store: Store, step: StepInput) -> StepInput:
        """Return the step with what the layer has to store before the decision."""

    def after_decision(self, store: Store, outcome: StepOutcome) -> None:
        """Record what the decision means for the layer, whether or not a plan is sent."""

    def before_swap(self, readers: StepReaders, store: Store, outcome: StepOutcome) -> None:
        """Record the swap that is sent next. Raises Refused if it may not be sent any more."""


RECORDS: tuple[LayerRecords, ...] = (gradual,)
