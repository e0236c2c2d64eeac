"""What is mined or on its way and not in the ledger yet, as entries: so that a year's gain is not realised twice."""

from __future__ import annotations

from agent.books import entries as book
from agent.books.entries import Change
from agent.books.plans import wallet_changes
from agent.execution.booking import own_step
from agent.execution.ledger import entry_of, prices_of
from agent.model import Entry, Intent, IntentState, StepInput
from agent.ports import Journal
from agent.units import NATIVE

_MINED = (IntentState.MINED, IntentState.FINAL, IntentState.REVERTED)


def pending(journal: Journal, present: StepInput) -> tuple[Entry, ...]:
    """One entry of each nonce: by the receipt where there is one, else as planned and without gas, which would lower the gain.

    Of what shares its nonce because it was sent again for more, what is mined counts, else the first. `present` stands in for a
    step that cannot be read any more.
    """
    by_nonce: dict[int, Intent] = {}
    for intent in journal.unsettled():
        known = by_nonce.get(intent.tx.nonce)
        if known is None or (intent.state in _MINED and known.state not in _MINED):
            by_nonce[intent.tx.nonce] = intent
    found = []
    for intent in by_nonce.values():
        if intent.receipt is not None:
            found.append(entry_of(journal, intent, present, journal.counted(intent.id), journal.principal))
        elif (planned := _planned(journal, intent, present)) is not None:
            found.append(planned)
    return tuple(found)


def _planned(journal: Journal, intent: Intent, present: StepInput) -> Entry | None:
    """What a transaction without a receipt does where it goes as planned; nothing where it exchanges nothing."""
    plan = journal.grant(intent.id).plan
    if plan is None:
        return None
    basis = own_step(journal, intent) or present
    head, moved = basis.snapshot.head, wallet_changes(plan)
    change = Change(intent.id, head.number, head.timestamp_s, intent.tx_hash or "", intent.note, moved, 0)
    return book.exchange(change, prices_of(basis), {*moved, NATIVE}, {})
