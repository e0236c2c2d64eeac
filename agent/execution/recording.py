"""Writes the reference prices of a look down, at most once an hour: what triggers, allocators and books know of the past."""

from __future__ import annotations

from agent.errors import Refused, Retryable
from agent.execution.booking import reviewed_s
from agent.execution.fresh import Eyes
from agent.model import StepInput
from agent.ports import Journal
from agent.reference.recorded import confirmed


def keep_choice(step: StepInput, journal: Journal) -> None:
    """Writes down the weights that this step chose, so that a restart goes by the same."""
    chosen = step.history.allocation
    if chosen is not None and chosen != journal.allocation():
        journal.note_allocation(chosen)


def record(eyes: Eyes, step: StepInput, journal: Journal) -> None:
    """The first look of each hour whose prices are confirmed writes them down.

    Where policy.confirm_blocks is set, the blocks before are read for it once an hour; where they cannot be, the next look
    tries again: a look never fails for this.
    """
    at_s, numeraire = reviewed_s(step.snapshot), step.portfolio.numeraire.address
    if journal.has_prices(numeraire, at_s):
        return
    past, wanted = step.snapshot.past, step.policy.confirm_blocks
    if len(past) < wanted:
        try:
            past = eyes.reader.past(step.snapshot.head, wanted)
        except (Refused, Retryable):
            return
    points = confirmed(step, past, at_s)
    if points:
        journal.note_prices(numeraire, points)
