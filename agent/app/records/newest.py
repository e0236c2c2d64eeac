"""The newest step of the store, for reports that are of the newest cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import codec
from agent.execution.bookkeeping import valuation_of_step
from agent.model import StepInput, Valuation

if TYPE_CHECKING:
    from agent.store.store import Store


def recorded_valuations(store: Store, step: StepInput | None) -> tuple[Valuation, ...]:
    """Return the recorded valuations and that of the newest step, so that value, profit and lots
    are of the newest cycle although valuations are recorded once an hour.
    """
    recorded = store.valuations.between()
    newest = None if not recorded else later_valuation(store, step, recorded[-1])
    return recorded if newest is None else (*recorded, newest)


def later_valuation(store: Store, step: StepInput | None, last: Valuation) -> Valuation | None:
    """Return the valuation of a step; None if it is not later than `last`."""
    if step is None or step.snapshot.head.number <= last.block:
        return None
    newest = valuation_of_step(store, step)
    return None if newest is None or newest.chain_s < last.chain_s else newest


def newest_step_input(store: Store) -> StepInput | None:
    """Return the input of the newest step; None without steps."""
    for summary in store.steps.newest(1):
        record = store.steps.get(summary.id)
        return None if record is None else codec.loads(StepInput, record.input_json)
    return None
