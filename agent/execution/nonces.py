"""Which nonces the signer may use: what the journal says, not the transaction."""

from __future__ import annotations

from agent.model import IntentState
from agent.ports import Journal

_OUT = (IntentState.SIGNED, IntentState.BROADCAST)


def signable(journal: Journal) -> dict[int, int | None]:
    """The next nonce, and those of transactions that were signed and that no block has; each with the highest tip signed there.

    An intent that is only planned does not count: its nonce is the caller's word. Nothing where the journal knows no nonce yet.
    """
    expected = journal.expected_nonce()
    found: dict[int, int | None] = {} if expected is None else {expected: None}
    for intent in journal.open_intents():
        if intent.state in _OUT:
            found[intent.tx.nonce] = max(found.get(intent.tx.nonce) or 0, intent.tx.max_priority_fee_wei or 0)
    return found
