"""Compares the wallet's balances with the books before each step, and writes down what nobody of ours has moved."""

from __future__ import annotations

from collections.abc import Callable

from agent.model import Flow, Snapshot, StepInput
from agent.policy import flows
from agent.ports import Journal


def note(journal: Journal, snapshot: Snapshot, present: Callable[[], StepInput]) -> tuple[Flow, ...]:
    """Writes unexplained changes of balances down, and the balances of `snapshot` as those to go on from; returns what it wrote:
    new flows, and older ones that now have a value or are accepted.

    `present` is asked only where something changed or may have. A snapshot that cannot be compared leaves the books as they are, and so
    does one that another process was faster with: the next look compares again.
    """
    books = journal.books()
    if not flows.comparable(snapshot, books):
        return ()
    found: tuple[Flow, ...] = ()
    if flows.differences(snapshot, books) or flows.may_change(books):
        step = present()
        books = journal.books()  # what the wallet did elsewhere may have become known meanwhile
        found = flows.changed(step, books)
    return found if journal.note_balances(snapshot, flows.balances_of(snapshot), found, books.turn) else ()
