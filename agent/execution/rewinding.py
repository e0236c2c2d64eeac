"""Finds what was final and is in the chain no more: a reorganisation took its block, after its confirmations."""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import OperatorNeeded
from agent.execution.carrier import Carrier
from agent.model import Head, Intent, IntentEvent, IntentState

WATCHED_BLOCKS = 64
"""How deep a transaction may lie, its own block counted, to be sent again or cancelled when its block goes. Below, a person decides."""
_MOST = 256
"""Ended transactions that are looked at: more than one wallet sends in so many blocks."""


class Rewinder:
    """Compares the blocks of ended transactions with the chain; remembers, while the process lives, up to where they were found."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._anchor: Head | None = None

    def run(self) -> None:
        """Moves what is in another block, or in none, back to MINED or BROADCAST, oldest first; nothing is sent.

        Raises OperatorNeeded when even a transaction deeper than WATCHED_BLOCKS is gone.
        """
        ended = self._carrier.journal.ended_in_block(_MOST)
        unchecked = self._unchecked(ended)
        if not unchecked:
            return
        head = self._carrier.sender.head()
        gone: list[Intent] = []
        sure = True
        for intent in unchecked:
            depth = head.number - _block(intent)[0] + 1
            stands = self._canonical(intent)
            sure = sure and stands is not None
            if stands is False:
                if depth > WATCHED_BLOCKS:
                    raise self._too_deep(intent, depth)
                gone.append(intent)
            elif depth > WATCHED_BLOCKS:  # what lies deeper still lies under it
                break
        for intent in reversed(gone):
            self._move_back(intent)
        self._anchor = head if sure and not gone else None

    def require_possible(self, nonce: int) -> None:
        """Raises OperatorNeeded when the chain has passed the block that our transaction at `nonce` was final in, and has another there.

        Otherwise a chain whose next nonce is behind ours may just be an endpoint that lags.
        """
        head = self._carrier.sender.head()
        for intent in self._carrier.journal.ended_in_block(_MOST):
            depth = head.number - _block(intent)[0] + 1
            if intent.tx.nonce == nonce and depth > WATCHED_BLOCKS and self._canonical(intent) is False:
                raise self._too_deep(intent, depth)

    def _unchecked(self, ended: Sequence[Intent]) -> Sequence[Intent]:
        """Those that no earlier look has found in the chain as it stands, newest first."""
        anchor = self._anchor
        if not ended or anchor is None or self._carrier.sender.block_hash(anchor.number) != anchor.hash:
            return ended
        return [intent for intent in ended if _block(intent)[0] > anchor.number]

    def _canonical(self, intent: Intent) -> bool | None:
        """Whether its block is part of the chain. None where nobody can tell its height now: an endpoint may lag."""
        number, block_hash = _block(intent)
        found = self._carrier.sender.block_hash(number)
        return None if found is None else found == block_hash

    def _move_back(self, intent: Intent) -> None:
        seen = self._carrier.sender.look(str(intent.tx_hash))
        if seen.receipt is None:
            self._carrier.move(intent, IntentState.BROADCAST, "its block is no longer part of the chain", event=IntentEvent.UNMINE)
        elif seen.receipt != intent.receipt:
            self._carrier.move(intent, IntentState.MINED, "moved to another block", receipt=seen.receipt)

    def _too_deep(self, intent: Intent, depth: int) -> OperatorNeeded:
        number, block_hash = _block(intent)
        return OperatorNeeded(
            f"transaction {intent.tx_hash} ({intent.note}) was {intent.state.value} in block {number} ({block_hash}), {depth} deep, "
            f"and the chain has another block there: a reorganisation of more than {WATCHED_BLOCKS} blocks, or another chain",
            "check the endpoints and the balances; to go on from the chain as it is now: trimtab adopt",
        )


def _block(intent: Intent) -> tuple[int, str]:
    if intent.receipt is None:
        raise OperatorNeeded(f"store: transaction {intent.tx_hash} ended in a block but has no receipt", "restore a backup of the store")
    return intent.receipt.block_number, intent.receipt.block_hash
