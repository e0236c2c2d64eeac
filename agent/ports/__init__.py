"""Ports of the engine as Protocols: clock, reader and evidence here, transactions in
`execution`, futures venues in `perpetuals`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from agent.model import (
    Evidence,
    Head,
    PastPrices,
    Plan,
    Snapshot,
    StepInput,
)
from agent.ports.execution import (
    Approval,
    Composer,
    ConflictingTransactionFinder,
    Executor,
    ExternalSigner,
    Grant,
    MinedTransaction,
    NextAct,
    OrderExecutor,
    PreparedTransaction,
    Sender,
    Signer,
    SigningKey,
    Simulation,
    TransactionStatus,
)


class Clock(Protocol):
    """Clock of the agent; replays and backtests pass a simulated one."""

    def now_s(self) -> int:
        """Return Unix seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait, or advance a simulated clock."""


@runtime_checkable
class MonotonicClock(Protocol):
    """A clock that also counts seconds which no one sets."""

    def monotonic_s(self) -> float:
        """Return seconds since an unspecified moment; they may stop while the machine is
        suspended.
        """


class Reader(Protocol):
    """Reader of the chain at one block."""

    def snapshot(self) -> Snapshot:
        """Return the chain data of a step, confirmed by the configured quorum. Raises Retryable,
        Refused, OperatorNeeded.
        """

    def past_prices(self, head: Head, block_count: int) -> tuple[PastPrices, ...]:
        """Return the prices at the last `block_count` blocks before `head`, newest first, on the
        same chain and with the quorum of the snapshot. Raises Retryable.
        """

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """Return the snapshot with more ticks of these V3 pools, read at the same block in one
        request, with the same quorum.

        The snapshot is unchanged if there are no more ticks or none can be read. Raises Retryable.
        """


class ReaderLayer:
    """Past prices and ticks of the `reader` beneath; a subclass adds its own snapshots."""

    reader: Reader

    def past_prices(self, head: Head, block_count: int) -> tuple[PastPrices, ...]:
        """See Reader."""
        return self.reader.past_prices(head, block_count)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See Reader."""
        return self.reader.with_more_ticks(snapshot, pools)


class EvidenceSource(Protocol):
    """Source of the guards' inputs beyond the snapshot."""

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Return second quotes, screens, kill switch, pins and quorum for a plan."""


__all__ = [
    "Approval",
    "Clock",
    "Composer",
    "ConflictingTransactionFinder",
    "EvidenceSource",
    "Executor",
    "ExternalSigner",
    "Grant",
    "MinedTransaction",
    "MonotonicClock",
    "NextAct",
    "OrderExecutor",
    "PreparedTransaction",
    "Reader",
    "Sender",
    "Signer",
    "SigningKey",
    "Simulation",
    "TransactionStatus",
]
