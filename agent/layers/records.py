"""Records of the layers around a step and at the end of a cycle, each at its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.execution.step_context import StepOutcome, StepReaders
from agent.layers.gradual import records as gradual
from agent.layers.strategies import records as strategies
from agent.model import StepInput
from agent.store.store import Store


@dataclass(frozen=True, slots=True)
class LayerRecords:
    """What a layer stores, and when; a layer stores nothing at a time that its row does not name."""

    prepare_decision: Callable[[StepReaders, Store, StepInput], StepInput] = (
        lambda readers, store, step: step
    )
    """Return the step with what the layer has to store before the decision."""
    record_input: Callable[[Store, StepInput], None] = lambda store, step: None
    """Record what a step's input says of the layer, before the decision and after a transaction."""
    record_decision: Callable[[Store, StepOutcome], None] = lambda store, outcome: None
    """Record what the decision means for the layer, whether or not a plan is sent."""
    record_swap: Callable[[StepReaders, Store, StepOutcome], None] = (
        lambda readers, store, outcome: None
    )
    """Record the swap that is sent next. Raises Refused if it may not be sent any more."""
    record_cycle: Callable[[Store, StepOutcome], None] = lambda store, outcome: None
    """Record the end of a cycle of an agent that may act, from the outcome of the whole cycle. Not
    run while a transaction is open or the kill switch is on.
    """


LAYERS: tuple[LayerRecords, ...] = (
    LayerRecords(
        prepare_decision=gradual.add_slice_draw,
        record_decision=gradual.record_executions,
        record_swap=gradual.record_slice,
    ),
    LayerRecords(
        record_input=strategies.record_after_input, record_cycle=strategies.book_after_cycle
    ),
)
"""Records of each layer, in the order in which they are written."""
