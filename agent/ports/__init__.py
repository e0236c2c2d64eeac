"""Ports of the engine, as Protocols: clock, reader and evidence here, acting in `execution`,
remembering in `storage`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from agent.model import Evidence, Head, PastPrices, Plan, Snapshot, StepInput
from agent.ports.execution import (
    Approval,
    Composer,
    ConflictingTransactionFinder,
    Executor,
    ExternalSigner,
    Grant,
    MinedTransaction,
    Outbox,
    PreparedTransaction,
    Sender,
    Signer,
    SigningKey,
    Simulation,
    TransactionStatus,
)
from agent.ports.storage import (
    AllocationJournal,
    AuditedLedger,
    BalanceJournal,
    BudgetJournal,
    GradualExecutionJournal,
    Journal,
    LedgerJournal,
    OrderJournal,
    PositionJournal,
    PriceJournal,
    ProposalJournal,
    StepJournal,
    StepStorage,
    StrategyJournal,
    ValuationJournal,
)


class Clock(Protocol):
    """Clock of the agent; a replay passes its own."""

    def now_s(self) -> int:
        """Unix seconds."""

    def sleep(self, seconds: float) -> None:
        """Wait, or advance a simulated clock."""


class Reader(Protocol):
    """Reader of the chain at one block."""

    def snapshot(self) -> Snapshot:
        """Everything a step needs, agreed by the configured quorum. Raises Retryable, Refused,
        OperatorNeeded.
        """

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """Return prices of that many blocks before `head`, newest first, on the chain of `head`,
        with the quorum of the snapshot.
        """

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """Return the snapshot with more ticks of these V3 pools, read at its block in one more
        request, with the same quorum.

        It is returned unchanged if there are no more ticks, or none can be read. Raises Retryable.
        """


class EvidenceSource(Protocol):
    """Gathers what guards need beyond the snapshot."""

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Second quotes, kill switch, pins, quorum."""


# --- Ports: readers, signers, senders, clocks, journals. Adapters are named in `wiring` only.


__all__ = [
    "AllocationJournal",
    "Approval",
    "AuditedLedger",
    "BalanceJournal",
    "BudgetJournal",
    "Clock",
    "Composer",
    "ConflictingTransactionFinder",
    "EvidenceSource",
    "Executor",
    "ExternalSigner",
    "GradualExecutionJournal",
    "Grant",
    "Journal",
    "LedgerJournal",
    "MinedTransaction",
    "OrderJournal",
    "Outbox",
    "PositionJournal",
    "PreparedTransaction",
    "PriceJournal",
    "ProposalJournal",
    "Reader",
    "Sender",
    "Signer",
    "SigningKey",
    "Simulation",
    "StepJournal",
    "StepStorage",
    "StrategyJournal",
    "TransactionStatus",
    "ValuationJournal",
]
