"""Reads until a snapshot has seen our own last transaction: endpoints that lag behind would let it be done again."""

from __future__ import annotations

from agent.errors import Retryable
from agent.model import Snapshot
from agent.ports import Clock, Journal, Reader

LOOKS = 10
PAUSE_S = 2.0
"""Together twenty seconds: more than a block of any chain this is for."""


class CaughtUp:
    """ports.Reader whose snapshots are at or after every transaction that the journal knows to be mined."""

    def __init__(self, reader: Reader, journal: Journal, clock: Clock) -> None:
        self._reader = reader
        self._journal = journal
        self._clock = clock

    def snapshot(self) -> Snapshot:
        """See ports.Reader. Raises Retryable when the endpoints that agree stay behind."""
        ours = self._journal.expected_nonce() or 0
        found = self._reader.snapshot()
        for _ in range(LOOKS):
            if found.nonce_latest >= ours:
                return found
            self._clock.sleep(PAUSE_S)
            found = self._reader.snapshot()
        raise Retryable(
            f"the endpoints agree on block {found.head.number} only, which is behind our transaction of nonce {ours - 1}",
            "try again when the slower endpoint has caught up",
        )
