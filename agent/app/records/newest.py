"""The newest recorded step, which brings reports up to the newest cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import codec
from agent.execution.bookkeeping import valuation_of_step
from agent.model import StepInput, Valuation

if TYPE_CHECKING:
    from agent.store.store import Store


def current_valuations(store: Store, step: StepInput | None) -> tuple[Valuation, ...]:
    """Return the recorded valuations and that of the newest step, so that value, profit and lots
    are of the newest cycle although valuations are recorded once an hour.
    """
    recorded_valuations = store.valuations.between()
    newest_valuation = (
        None if not recorded_valuations else later_valuation(store, step, recorded_valuations[-1])
    )
    return (
        recorded_valuations
        if newest_valuation is None
        else (*recorded_valuations, newest_valuation)
    )


def later_valuation(
    store: Store, step: StepInput | None, last_valuation: Valuation
) -> Valuation | None:
    """Return the valuation of a step; None if it is not later than `last_valuation`."""
    if step is None or step.snapshot.head.number <= last_valuation.block:
        return None
    step_valuation = valuation_of_step(store, step)
    return (
        None
        if step_valuation is None or step_valuation.chain_s < last_valuation.chain_s
        else step_valuation
    )


def newest_step_input(store: Store) -> StepInput | None:
    """Return the input of the newest step; None without steps."""
    for step_summary in store.steps.newest(1):
        step_record = store.steps.get(step_summary.id)
        return None if step_record is None else codec.loads(StepInput, step_record.input_json)
    return None
