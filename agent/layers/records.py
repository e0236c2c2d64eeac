"""Records of the layers around a step and at the end of a cycle, each at its time."""

from __future__ import annotations

from collections.abc import Callable

from agent.execution.step_context import StepOutcome, StepReaders
from agent.layers.gradual import records as gradual
from agent.layers.strategies import records as strategies
from agent.model import StepInput
from agent.store.store import Store

DECISION_PREPARERS: tuple[Callable[[StepReaders, Store, StepInput], StepInput], ...] = (
    gradual.add_slice_draw,
)
"""Return the step with what the layer has to store before the decision."""
INPUT_RECORDERS: tuple[Callable[[Store, StepInput], None], ...] = (strategies.record_after_input,)
"""Record what a step's input says of the layer, before the decision and after a transaction."""
DECISION_RECORDERS: tuple[Callable[[Store, StepOutcome], None], ...] = (gradual.record_executions,)
"""Record what the decision means for the layer, whether or not a plan is sent."""
SWAP_RECORDERS: tuple[Callable[[StepReaders, Store, StepOutcome], None], ...] = (
    gradual.record_slice,
)
"""Record the swap that is sent next. Raises Refused if it may not be sent any more."""
CYCLE_RECORDERS: tuple[Callable[[Store, StepOutcome], None], ...] = (strategies.book_after_cycle,)
"""Record the end of a cycle of an agent that may act, from the outcome of the whole cycle. Not run
while a transaction is open or the kill switch is on.
"""
