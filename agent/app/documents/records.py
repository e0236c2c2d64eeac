"""Documents of stored records: history, explain, limit, txs, flows, pnl, books."""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.app.documents import ConvertedBy, Decimal, Money, Of, Raw, Time, TxHash, one_of
from agent.app.documents.plans import LimitOrderDocument
from agent.app.documents.steps import TransferDocument
from agent.model import IntentState
from agent.units import BPS

BpsNumber = Annotated[float, ConvertedBy(lambda share, _: round(float(share * BPS), 2))]
UtcTime = Annotated[str, ConvertedBy(lambda seconds, _: format_utc(seconds))]
RoundedRaw = Annotated[Raw, ConvertedBy(lambda value, _: str(round(value)))]

CostsDocument = TypedDict(
    "CostsDocument", {"fees": Money, "impact": Money, "gas": Money, "total": Money}
)
"""Realised costs in the numeraire."""
FuturesLinesDocument = TypedDict("FuturesLinesDocument", {
    "fees": Money, "funding": Money, "realised": Money,
})  # fmt: skip
"""Trading fees, settled funding (positive: paid) and realised profit of a step's futures orders."""
FuturesResultDocument = TypedDict("FuturesResultDocument", {
    "profit": Money, "price": Money, "fees": Money, "funding": Money, "realised": Money,
    "transferred": Money,
})  # fmt: skip
"""Result of the margin account in a period, part of its profit: price less fees less funding.
`realised` is part of `price` and net of fees; `transferred` came from other accounts and does not
count as profit.
"""
CancelledDocument = TypedDict("CancelledDocument", {"cancelled": str})
AdoptedDocument = TypedDict("AdoptedDocument", {"nonce": int | None})
ConfirmedTransferDocument = TypedDict("ConfirmedTransferDocument", {"id": int, "as": str | None})
ConfirmedTransfersDocument = TypedDict(
    "ConfirmedTransfersDocument", {"confirmed": list[ConfirmedTransferDocument]}
)
ByHandDocument = TypedDict("ByHandDocument", {"swaps": int, "effect": Money})
PastTransactionDocument = TypedDict("PastTransactionDocument", {
    "kind": str, "status": Annotated[str, Of("state")], "hash": TxHash,
    "nonce": Annotated[int, Of("tx.nonce")], "note": str, "block": int | None,
})  # fmt: skip
"""A transaction of a past step; `block` is None without a receipt."""
PastStepDocument = TypedDict("PastStepDocument", {
    "step": Annotated[str, Of("id")], "time": Annotated[Time, Of("now_s")], "decision": str,
    "outcome": str, "reason": str, "transactions": list[PastTransactionDocument],
    "cost": CostsDocument | None, "futures": NotRequired[FuturesLinesDocument],
})  # fmt: skip


class CorrectionDocument(TypedDict):
    """A gradual execution, under way or ended; values in numeraire base units."""

    id: Annotated[str, Of("underway.id")]
    style: Annotated[str, one_of("rounds", "twap", "limit"), Of("underway.campaign.pace.style")]
    state: Annotated[str, one_of("open", "ended", "cancelled")]
    why: str
    began: Annotated[Time, Of("underway.campaign.began_s")]
    expires: Annotated[Time, Of("underway.campaign.expires_s")]
    rounds_done: Annotated[int, Of("underway.done")]
    rounds_about: Annotated[int, Of("underway.campaign.rounds")]
    next: str | None
    wish_raw: Annotated[RoundedRaw, Of("underway.campaign.wish")]
    moved_raw: Annotated[RoundedRaw, Of("underway.moved")]
    spent_raw: Annotated[RoundedRaw, Of("underway.spent")]
    budget_raw: Annotated[RoundedRaw | None, Of("underway.campaign.budget")]


ValuationDocument = TypedDict("ValuationDocument", {
    "time": str, "block": int, "value": Decimal, "weights_bps": dict[str, int],
})  # fmt: skip
HistoryDocument = TypedDict("HistoryDocument", {
    "steps": list[PastStepDocument], "corrections": list[CorrectionDocument],
    "values": list[ValuationDocument], "books": NotRequired[str],
})  # fmt: skip
"""Return the newest steps, newest first. `books` is set for paper trading."""
WaitingDocument = TypedDict("WaitingDocument", {
    "orders": list[LimitOrderDocument], "corrections": list[CorrectionDocument],
})  # fmt: skip
"""Limit orders and gradual executions, newest first."""
ExplanationDocument = TypedDict("ExplanationDocument", {
    "step": str, "outcome": str, "words": list[str], "transactions": list[PastTransactionDocument],
    "books": NotRequired[str],
})  # fmt: skip


class JournalledDocument(TypedDict):
    id: str
    step: Annotated[str, Of("step_id")]
    kind: str
    status: Annotated[str, one_of(*(state.value for state in IntentState)), Of("state")]
    open: bool
    nonce: Annotated[int, Of("tx.nonce")]
    hash: TxHash
    replaces: str | None
    note: str
    created: Annotated[Time, Of("created_s")]
    deadline: Annotated[Time | None, Of("deadline_s")]
    gas: Annotated[int, Of("tx.gas")]
    max_fee_wei: Raw
    block: int | None
    succeeded: bool | None
    gas_used: int | None
    gas_cost_wei: Raw | None


class TransitionDocument(TypedDict):
    time: Annotated[Time, Of("at_s")]
    status: Annotated[str, Of("after")]
    note: str


class TracedDocument(JournalledDocument):
    moves: list[TransitionDocument]


JournalStateDocument = TypedDict("JournalStateDocument", {
    "waiting": int, "confirming": int, "next_nonce": int | None,
})  # fmt: skip


class TransactionsDocument(JournalStateDocument):
    """The newest transactions with their transitions, newest first."""

    transactions: list[TracedDocument]


class PendingDocument(JournalStateDocument):
    transactions: list[JournalledDocument]


class SettledDocument(PendingDocument):
    """Settled transactions; `booked` counts those booked into the budgets."""

    booked: int


TransfersDocument = TypedDict("TransfersDocument", {
    "block": int, "numeraire": str, "halts": str, "flows": list[TransferDocument],
})  # fmt: skip
"""External transfers; `halts` is the reason if they halt trading, otherwise empty."""
StatisticsDocument = TypedDict("StatisticsDocument", {
    "days": int, "volatility": float | None, "sharpe": float | None, "max_drawdown": float | None,
    "missing": NotRequired[str],
})  # fmt: skip
"""Annualised statistics of daily returns; `missing` names a package that is not installed."""
PeriodDates = TypedDict("PeriodDates", {"from": str, "to": str})


class PeriodDocument(PeriodDates):
    start_value: Annotated[Money, Of("start.managed")]
    end_value: Annotated[Money, Of("end.managed")]
    deposits: Annotated[Money, Of("came")]
    withdrawals: Annotated[Money, Of("went")]
    from_gas_money: Money
    profit: Money
    twr_bps: Annotated[BpsNumber | None, Of("twr")]
    mwr_bps: float | None
    mwr_year_bps: float | None
    hold_profit: Money
    hold_return_bps: Annotated[BpsNumber | None, Of("hold_return")]
    benchmark_return_bps: Annotated[BpsNumber | None, Of("benchmark")]
    rebalancing_effect: Annotated[Money, Of("effect")]
    rebalances: int
    turnover: Money
    costs: CostsDocument
    by_hand: ByHandDocument
    realised: Money
    realised_by_token: dict[str, Decimal]
    weights_bps: dict[str, int]
    hint: str
    statistics: StatisticsDocument | None
    futures: NotRequired[FuturesResultDocument]


TaxYearsDocument = TypedDict("TaxYearsDocument", {
    "method": str, "currency": str, "years": dict[str, Decimal], "year_limit": str | None,
    "old_rate": str, "futures": NotRequired[dict[str, Decimal]],
})  # fmt: skip
"""Realised gains by calendar year. `futures` is realised profit less settled funding of futures, by
year and apart from the gains; missing without futures."""
ProfitDocument = TypedDict("ProfitDocument", {
    "numeraire": str, "benchmark": str, "period": str, "why_empty": str, "since": str, "until": str,
    "value": Money, "gas_money": Money, "reserved": Money, "periods": list[PeriodDocument],
    "unrealised": Money, "method": str, "unpriced": list[str], "tax": TaxYearsDocument | None,
    "books": NotRequired[str],
})  # fmt: skip
"""Profit and loss by period, newest last, in the numeraire. `books` is set for paper trading."""
BookDocument = TypedDict("BookDocument", {
    "number": int, "kind": str, "opened": Annotated[UtcTime, Of("opened_s")], "note": str,
})  # fmt: skip
LedgerBalanceDocument = TypedDict("LedgerBalanceDocument", {
    "symbol": str, "ledger_raw": Raw, "chain_raw": Raw | None,
})  # fmt: skip
LedgerChainDocument = TypedDict("LedgerChainDocument", {
    "block": int, "balances": list[LedgerBalanceDocument], "disagreement": str,
    "unwritten_flows": int,
})  # fmt: skip
LedgerCheckDocument = TypedDict("LedgerCheckDocument", {
    "book": BookDocument | None, "entries": int, "unbalanced": list[str], "differing": list[str],
    "misstated": list[str], "rebuilt": bool, "missing_lots": dict[str, Raw], "sound": bool,
    "chain": NotRequired[LedgerChainDocument | None],
})  # fmt: skip


class PostingDocument(TypedDict):
    account: str
    token: Annotated[str, ConvertedBy(lambda token, found: found.names.label(token))]
    raw: Raw
    decimals: Annotated[
        int, ConvertedBy(lambda token, found: found.names.decimals(token)), Of("token")
    ]
    value: Money | None


FuturesEventDocument = TypedDict("FuturesEventDocument", {
    "event": str, "symbol": str, "amount": Decimal, "value": str,
})  # fmt: skip
"""A trading fee, realised profit or funding payment of the margin account: `amount` in the venue's
quote, `value` in the numeraire (empty: no price); negative for a cost."""
EntryDocument = TypedDict("EntryDocument", {
    "id": str, "time": Annotated[UtcTime, Of("chain_s")], "block": int, "kind": str,
    "by_hand": bool, "transaction": Annotated[str | None, Of("tx_hash")], "note": str,
    "postings": list[PostingDocument], "futures": NotRequired[list[FuturesEventDocument]],
})  # fmt: skip
EntriesDocument = TypedDict("EntriesDocument", {"numeraire": str, "entries": list[EntryDocument]})
ExportedFileDocument = TypedDict("ExportedFileDocument", {"name": str, "rows": int})
ExportDocument = TypedDict("ExportDocument", {
    "format": str, "folder": str, "files": list[ExportedFileDocument], "books": NotRequired[str],
})  # fmt: skip
BackupDocument = TypedDict("BackupDocument", {"backup": str, "bytes": int})
RestoreDocument = TypedDict("RestoreDocument", {"store": str, "kept": str | None, "next": str})
StoreCheckDocument = TypedDict("StoreCheckDocument", {
    "store": str, "bytes": int, "version": str, "present_version": str, "wallet": str,
    "chain_id": str, "copy": str | None,
})  # fmt: skip
"""A sound store. For a copy that is not adopted yet, `copy` has its source and time."""
UpgradeDocument = TypedDict("UpgradeDocument", {
    "before": str | None, "version": str, "backup": str | None,
})  # fmt: skip
ForgottenPricesDocument = TypedDict("ForgottenPricesDocument", {"source": str, "removed": int})
