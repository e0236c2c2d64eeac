"""Outcome of a whole cycle, from those of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers import execution as layer_execution
from agent.model import Cycle, CycleEnd, IntentKind, Portfolio

UNSENT_KINDS = (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.PLANNED)
"""Outcomes of steps that sent nothing, and in which nothing was refused."""
OutcomeLookup = Callable[[str], StepOutcome]
"""Outcome of the step of the cycle with this id."""


def outcome_of_cycle(
    cycle: Cycle, last_outcome: StepOutcome, outcome_of: OutcomeLookup
) -> StepOutcome:
    """Return the outcome of a cycle that ends with `last_outcome`, including what the layers did
    and everything that could not be sent. Raise the endpoint's error if nothing was sent.
    """
    outcome = _trades_outcome(cycle, last_outcome, outcome_of)
    for layer in layer_execution.LAYERS:
        outcome = layer.complete_outcome(cycle, outcome, outcome_of)
    return _with_unsold_exits(cycle, outcome, outcome_of)


def _trades_outcome(
    cycle: Cycle, last_outcome: StepOutcome, outcome_of: OutcomeLookup
) -> StepOutcome:
    """Return the outcome of the swap, else of the exits, else `last_outcome`."""
    if last_outcome.step_id == cycle.swap_step_id:
        return _with_sold_exits(cycle, last_outcome)
    if cycle.swap_step_id:
        return _after_swap(cycle, last_outcome, outcome_of)
    if cycle.sent_exits and cycle.end_state in (CycleEnd.NOTHING_DUE, CycleEnd.REFUSED):
        return _after_exits(cycle, last_outcome, outcome_of)
    return last_outcome


def with_layer_notes(cycle: Cycle, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that sends nothing more, with what layers did before in the
    cycle: done, if only layers sent transactions.
    """
    notes = [note for layer_part in cycle.layers for note in layer_part.notes()]
    is_layer_done = any(
        layer_part.counts_as_done_despite(outcome.plan) for layer_part in cycle.layers
    )
    if cycle.swap_step_id or cycle.sent_exits or not notes:
        return outcome
    if outcome.kind is not OutcomeKind.HOLD and not is_layer_done:
        return outcome
    reason = "; ".join([*notes, outcome.reason])
    return replace(outcome, kind=OutcomeKind.DONE, reason=reason, input_after=outcome.step_input)


def _after_swap(cycle: Cycle, last_outcome: StepOutcome, outcome_of: OutcomeLookup) -> StepOutcome:
    """Return the outcome of the swap with what ended the cycle after it without a transaction, or
    that of a transaction that failed after it.
    """
    swap_outcome = _with_sold_exits(cycle, outcome_of(cycle.swap_step_id))
    reason = f"{swap_outcome.reason}; then: {last_outcome.reason}"
    if cycle.end_state is CycleEnd.FAILED:
        return replace(last_outcome, reason=reason)
    if cycle.end_state not in (CycleEnd.NOTHING_DUE, CycleEnd.REFUSED, CycleEnd.DECLINED):
        return last_outcome
    if last_outcome.kind is OutcomeKind.HOLD:
        reason = swap_outcome.reason
    return replace(swap_outcome, reason=reason, input_after=last_outcome.step_input)


def _after_exits(cycle: Cycle, last_outcome: StepOutcome, outcome_of: OutcomeLookup) -> StepOutcome:
    """Return the outcome of the last failed exit, else of the last exit."""
    outcome = outcome_of((cycle.failed_exits or cycle.sent_exits)[-1].step_id)
    sent_tokens = {note.exit_token for note in cycle.sent_exits}
    unsent_exits = tuple(
        blocked_exit
        for blocked_exit in last_outcome.decision_result.blocked_exits
        if blocked_exit.token not in sent_tokens
    )
    reasons = [outcome.reason]
    if len(sent_tokens) > 1:
        reasons += _sold_exits_note(cycle, last_outcome.step_input.portfolio)
    if unsent_exits or last_outcome.kind is not OutcomeKind.HOLD:
        reasons.append(f"then: {last_outcome.reason}")
    return replace(
        outcome,
        reason="; ".join(reasons),
        decision_result=replace(outcome.decision_result, blocked_exits=unsent_exits),
        exits_tried=cycle.tried_exit_tokens,
        input_after=last_outcome.step_input,
    )


def _with_unsold_exits(
    cycle: Cycle, outcome: StepOutcome, outcome_of: OutcomeLookup
) -> StepOutcome:
    """Add the exits that the cycle could not sell to the outcome, even if later plans succeeded.
    Raise the endpoint's error if nothing was sent and no exit was withheld.
    """
    is_unsent = outcome.kind in UNSENT_KINDS
    unsent_exits = [*cycle.failed_layer_exits, *cycle.withheld_exits]
    if is_unsent and unsent_exits:
        outcome = outcome_of(unsent_exits[-1].step_id)
    elif is_unsent and cycle.interrupted_exits and not cycle.sent_kinds:
        first_interruption = cycle.interrupted_exits[0]
        raise Retryable(
            first_interruption.message, first_interruption.remedy, code=first_interruption.code
        )
    failures = [*cycle.failed_exits, *cycle.failed_layer_exits]
    token_of = outcome.step_input.portfolio.token
    unsold_reasons = [note.reason for note in failures if note.reason not in outcome.reason]
    unsold_reasons += [
        f"{token_of(interruption.token).label} was not sold: {Retryable(interruption.message, interruption.remedy)}"
        for interruption in cycle.interrupted_exits
        if interruption.message not in outcome.reason
    ]
    hides_failures = outcome.kind is OutcomeKind.DONE or (is_unsent and not unsent_exits)
    if (failures or cycle.interrupted_exits) and hides_failures:
        outcome = replace(outcome, kind=OutcomeKind.FAILED)
    return replace(outcome, reason="; ".join([outcome.reason, *unsold_reasons]))


def _with_sold_exits(cycle: Cycle, outcome: StepOutcome) -> StepOutcome:
    reasons = [outcome.reason, *_sold_exits_note(cycle, outcome.step_input.portfolio)]
    return replace(outcome, reason="; ".join(reasons))


def _sold_exits_note(cycle: Cycle, portfolio: Portfolio) -> list[str]:
    """Return a note on the sold exits; empty if there are none."""
    labels = [
        portfolio.token(note.exit_token).label for note in cycle.sent_exits if not note.failed
    ]
    return [f"exits sold, each in its own transaction: {', '.join(labels)}"] if labels else []


def unsent_phrase(sent_kinds: Sequence[IntentKind]) -> str:
    """Return the words before "sent" in the note on a declined plan, such as "nothing more was" if
    other actions were sent.
    """
    if any(kind is not IntentKind.APPROVE for kind in sent_kinds):
        return "nothing more was"
    return "only approvals were" if sent_kinds else "nothing was"
