"""Outcome of a whole cycle, from those of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.errors import Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers import execution as layers
from agent.model import Cycle, CycleEnd, IntentKind, Portfolio

QUIET_KINDS = (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.PLANNED)
OutcomeOf = Callable[[str], StepOutcome]
"""Outcome of the step of the cycle with this id."""


def outcome_of_cycle(cycle: Cycle, last: StepOutcome, outcome_of: OutcomeOf) -> StepOutcome:
    """Return the outcome of a cycle that ends with `last`, including what the layers did and
    everything that could not be sent. Raise the endpoint's error if nothing was sent.
    """
    whole = _of_trades(cycle, last, outcome_of)
    for complete in layers.COMPLETED:
        whole = complete(cycle, whole, outcome_of)
    return _with_unsold_exits(cycle, whole, outcome_of)


def _of_trades(cycle: Cycle, last: StepOutcome, outcome_of: OutcomeOf) -> StepOutcome:
    """Return the outcome of the swap, else of the exits, else `last`."""
    if last.step_id == cycle.swapped:
        return _with_sold_exits(cycle, last)
    if cycle.swapped and cycle.ended is CycleEnd.NOTHING_DUE:
        swapped = _with_sold_exits(cycle, outcome_of(cycle.swapped))
        return replace(swapped, after=last.step_input)
    if cycle.exits and cycle.ended in (CycleEnd.NOTHING_DUE, CycleEnd.REFUSED):
        return _after_exits(cycle, last, outcome_of)
    return last


def with_actions(cycle: Cycle, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that sends nothing more: done, if the cycle has only acted in
    layers before.
    """
    notes = [note for part in cycle.layers for note in part.notes()]
    left = any(part.is_done_before(outcome.plan) for part in cycle.layers)
    if cycle.swapped or cycle.exits or not notes:
        return outcome
    if outcome.kind is not OutcomeKind.HOLD and not left:
        return outcome
    reason = "; ".join([*notes, outcome.reason])
    return replace(outcome, kind=OutcomeKind.DONE, reason=reason, after=outcome.step_input)


def _after_exits(cycle: Cycle, last: StepOutcome, outcome_of: OutcomeOf) -> StepOutcome:
    """Return the outcome of the last failed exit, else of the last exit."""
    whole = outcome_of((cycle.failed_exits or cycle.exits)[-1].step_id)
    sent = {note.exit_token for note in cycle.exits}
    blocked = tuple(item for item in last.decided.blocked_exits if item.token not in sent)
    parts = [whole.reason]
    if len(sent) > 1:
        parts += _sold_exits(cycle, last.step_input.portfolio)
    if blocked or last.kind is not OutcomeKind.HOLD:
        parts.append(f"then: {last.reason}")
    return replace(
        whole,
        reason="; ".join(parts),
        decided=replace(whole.decided, blocked_exits=blocked),
        exits_tried=cycle.tried,
        after=last.step_input,
    )


def _with_unsold_exits(cycle: Cycle, outcome: StepOutcome, outcome_of: OutcomeOf) -> StepOutcome:
    """Add the exits that the cycle could not sell to the outcome, even if later plans succeeded.
    Raise the endpoint's error if nothing was sent and no exit was held.
    """
    quiet = outcome.kind in QUIET_KINDS
    unsent = [*cycle.failed_in_layers, *cycle.held]
    if quiet and unsent:
        outcome = outcome_of(unsent[-1].step_id)
    elif quiet and cycle.interrupted and not cycle.sent:
        first = cycle.interrupted[0]
        raise Retryable(first.message, first.remedy, code=first.code)
    failed = [*cycle.failed_exits, *cycle.failed_in_layers]
    token_at = outcome.step_input.portfolio.token
    unsold = [note.reason for note in failed if note.reason not in outcome.reason]
    unsold += [
        f"{token_at(exit_.token).label} was not sold: {error_text(exit_.message, exit_.remedy)}"
        for exit_ in cycle.interrupted
        if exit_.message not in outcome.reason
    ]
    hidden = outcome.kind is OutcomeKind.DONE or (quiet and not unsent)
    if (failed or cycle.interrupted) and hidden:
        outcome = replace(outcome, kind=OutcomeKind.FAILED)
    return replace(outcome, reason="; ".join([outcome.reason, *unsold]))


def error_text(message: str, remedy: str) -> str:
    """Return an error as text."""
    return str(Retryable(message, remedy))


def _with_sold_exits(cycle: Cycle, outcome: StepOutcome) -> StepOutcome:
    reasons = [outcome.reason, *_sold_exits(cycle, outcome.step_input.portfolio)]
    return replace(outcome, reason="; ".join(reasons))


def _sold_exits(cycle: Cycle, portfolio: Portfolio) -> list[str]:
    """Return a note on the sold exits; empty if there are none."""
    labels = [portfolio.token(note.exit_token).label for note in cycle.exits if not note.failed]
    return [f"exits sold, each in its own transaction: {', '.join(labels)}"] if labels else []


def sent_so_far(sent: Sequence[IntentKind]) -> str:
    """Return the words before "sent" in the note on a declined plan, such as "nothing more was" if
    other actions were sent.
    """
    if any(kind is not IntentKind.APPROVE for kind in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"
