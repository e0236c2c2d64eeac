"""Reorgs: ended transactions whose block left the chain after their confirmations."""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import ErrorCode, OperatorNeeded
from agent.execution.submission.submitter import Submitter, block_of
from agent.model import Head, Intent

REORG_WATCH_BLOCKS = 64
"""Maximum depth, its own block included, at which a transaction is resent or cancelled after a
reorg. Deeper reorgs need an operator.
"""
_MAX_CHECKED_INTENTS = 256
"""Maximum number of ended transactions checked; one wallet sends fewer within REORG_WATCH_BLOCKS.
"""
_NEWEST_INTENTS = 16
"""Ended transactions that a look reads first; few wallets send more within REORG_WATCH_BLOCKS."""


class ReorgHandler:
    """Compares the blocks of ended transactions with the chain. The newest checked head stays in
    memory, so that blocks below it are checked only once.
    """

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._checked_head: Head | None = None

    def follow_reorgs(self) -> None:
        """Move transactions whose block left the chain back to MINED or BROADCAST, oldest first.
        Sends nothing. Raises OperatorNeeded if a block deeper than REORG_WATCH_BLOCKS is gone.
        """
        unchecked_intents = self._unchecked_intents(self._newest_ended_intents())
        if not unchecked_intents:
            return
        head = self._submitter.sender.head()
        reorged_intents: list[Intent] = []
        all_blocks_known = True
        for intent in unchecked_intents:
            depth = head.number - block_of(intent)[0] + 1
            is_canonical = self._is_canonical(intent)
            all_blocks_known = all_blocks_known and is_canonical is not None
            if is_canonical is False:
                if depth > REORG_WATCH_BLOCKS:
                    raise self._deep_reorg_error(intent, depth)
                reorged_intents.append(intent)
            elif depth > REORG_WATCH_BLOCKS:
                break  # deeper blocks are ancestors of a canonical block
        for intent in reversed(reorged_intents):
            self._move_back(intent)
        self._checked_head = head if all_blocks_known and not reorged_intents else None

    def require_no_deep_reorg(self, nonce: int) -> None:
        """Raise OperatorNeeded if the chain replaced the final block of our transaction at `nonce`.
        Otherwise a next nonce below ours may come from a lagging endpoint.
        """
        head = self._submitter.sender.head()
        for intent in self._submitter.journal.intents_ended_in_block(_MAX_CHECKED_INTENTS):
            depth = head.number - block_of(intent)[0] + 1
            if (
                intent.tx.nonce == nonce
                and depth > REORG_WATCH_BLOCKS
                and self._is_canonical(intent) is False
            ):
                raise self._deep_reorg_error(intent, depth)

    def _newest_ended_intents(self) -> Sequence[Intent]:
        """Return the newest transactions that ended in a block, newest first, among them all of the
        newest REORG_WATCH_BLOCKS.
        """
        journal = self._submitter.journal
        if (checked_head := self._checked_head) is not None:
            newest_intents = journal.intents_ended_in_block(_NEWEST_INTENTS)
            oldest_block = min((block_of(intent)[0] for intent in newest_intents), default=0)
            is_all = len(newest_intents) < _NEWEST_INTENTS
            # twice, because a reorganised chain may be shorter for a while
            if is_all or checked_head.number - oldest_block >= 2 * REORG_WATCH_BLOCKS:
                return newest_intents
        return journal.intents_ended_in_block(_MAX_CHECKED_INTENTS)

    def _unchecked_intents(self, ended_intents: Sequence[Intent]) -> Sequence[Intent]:
        """Return the transactions that no earlier check of the current chain covers, newest
        first.
        """
        checked_head = self._checked_head
        if (
            not ended_intents
            or checked_head is None
            or self._submitter.sender.block_hash(checked_head.number) != checked_head.hash
        ):
            return ended_intents
        return [intent for intent in ended_intents if block_of(intent)[0] > checked_head.number]

    def _is_canonical(self, intent: Intent) -> bool | None:
        """True if the chain has its block; None if no endpoint has a block at that height."""
        block_number, block_hash = block_of(intent)
        canonical_hash = self._submitter.sender.block_hash(block_number)
        return None if canonical_hash is None else canonical_hash == block_hash

    def _move_back(self, intent: Intent) -> None:
        receipt = self._submitter.receipt_of(intent)
        if receipt is None or receipt != intent.receipt:
            self._submitter.follow_reorg(intent, receipt)

    def _deep_reorg_error(self, intent: Intent, depth: int) -> OperatorNeeded:
        block_number, block_hash = block_of(intent)
        return OperatorNeeded(
            f"transaction {intent.tx_hash} ({intent.note}) was {intent.state.value} in block"
            f" {block_number} ({block_hash}), {depth} deep, and the chain has another block there: a"
            f" reorg of more than {REORG_WATCH_BLOCKS} blocks, or another chain",
            "check the endpoints and the balances; to continue from the current chain: trimtab"
            " adopt",
            code=ErrorCode.DEEP_REORG,
        )
