"""Documents of what the store records: history, explain, limit, txs, flows, pnl, books, exports,
and copies of the store.
"""

from __future__ import annotations

from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.app.documents import (
    Address,
    ConvertedBy,
    Count,
    DecimalText,
    FromAttributes,
    Money,
    PoolAddress,
    PriceText,
    Raw,
    SmallMoney,
    StartDate,
    TimeText,
    TxHash,
    one_of,
    shown,
)
from agent.app.documents.decisions import TransferDocument
from agent.app.documents.executions import GradualExecutionDocument
from agent.app.documents.open_orders import OpenOrderDocument
from agent.app.documents.plans import LimitOrderDocument
from agent.model import IntentState, LotMethod
from agent.units import BPS

BpsFloat = Annotated[float, ConvertedBy(lambda share, _: round(float(share * BPS), 2))]
IsoTime = Annotated[str, ConvertedBy(lambda seconds, _: format_utc(seconds))]


class RealisedCostsDocument(TypedDict):
    """Realised costs in the numeraire."""

    fees: SmallMoney
    impact: SmallMoney
    gas: SmallMoney
    total: Annotated[SmallMoney, shown("cost")]


class FuturesSumsDocument(TypedDict):
    """Trading fees, settled funding (positive: paid) and realised profit of a step's futures orders."""

    fees: Money
    funding: Money
    realised: Money


class FuturesResultDocument(TypedDict):
    """Result of the margin account in a period: profit = price - fees - funding, which the period's
    profit includes. `realised`, net of fees, is the part of `price` from reductions. `transferred` came
    from other accounts and does not count as profit.
    """

    profit: Money
    price: Annotated[Money, FromAttributes("price_result")]
    fees: Money
    funding: Money
    realised: Annotated[Money, FromAttributes("realised_profit")]
    transferred: Annotated[Money, FromAttributes("transferred_value")]


class CancelledOrderDocument(TypedDict):
    cancelled: str


AdoptedKind = TypedDict("AdoptedKind", {"as": str | None})


class ConfirmedTransferDocument(AdoptedKind, TypedDict):
    id: int


class ConfirmedTransfersDocument(TypedDict):
    confirmed: list[ConfirmedTransferDocument]


class ManualSwapsDocument(TypedDict):
    swaps: int
    effect: Money


class PastTransactionDocument(TypedDict):
    """A transaction of a past step; `block` is None without a receipt."""

    kind: str
    status: Annotated[str, FromAttributes("state"), shown("state")]
    hash: TxHash
    nonce: Annotated[int, FromAttributes("tx.nonce")]
    note: Annotated[str, shown("what")]
    block: int | None


class LegExecutionDocument(TypedDict):
    """A swap of a plan in whole coins, with the state of its transaction (`not sent` without one).
    Realised amounts are None without a receipt, or if it does not show them; `difference_bps`
    compares the output per unit of input with the plan, negative for a worse price.
    """

    pool: PoolAddress
    pool_name: Annotated[str, shown("pool")]
    state: str
    token_in: Annotated[str, shown("sell")]
    token_out: Annotated[str, shown("buy")]
    planned_in: DecimalText
    planned_out: DecimalText
    floor: Annotated[DecimalText, shown("at least")]
    realised_in: DecimalText | None
    realised_out: DecimalText | None
    difference_bps: Annotated[float | None, shown(figure="percent+")]


class ExecutionDocument(TypedDict):
    """The mined swaps of a step: what they bought, and sold (negative), by symbol, None with `unknown`
    legs; value of realised less planned amounts in the numeraire, and in bps of the turnover, both None
    until the swaps are final, with `unknown` legs, or without a price.
    """

    legs: Count
    unknown: Count
    amounts: Annotated[dict[str, DecimalText] | None, shown(figure="amount+")]
    difference: Annotated[Money | None, shown("against plan", "cost+")]
    difference_bps: Annotated[float | None, shown(figure="percent+")]


class PastStepDocument(TypedDict):
    step: Annotated[str, FromAttributes("id")]
    time: Annotated[TimeText, FromAttributes("now_s"), shown("time (UTC)")]
    decision: str
    outcome: str
    reason: str
    transactions: list[PastTransactionDocument]
    cost: RealisedCostsDocument | None
    execution: ExecutionDocument | None
    futures: NotRequired[FuturesSumsDocument]


class ValuationDocument(TypedDict):
    time: str
    block: int
    value: DecimalText
    weights_bps: dict[str, int]


class HistoryDocument(TypedDict):
    """The newest steps, newest first. `book_kind` is set for paper trading."""

    steps: list[PastStepDocument]
    gradual_executions: list[GradualExecutionDocument]
    values: list[ValuationDocument]
    book_kind: NotRequired[str]


class InflowDocument(TypedDict):
    """What was paid into the managed value or taken out of it (negative); `index` is that of the first
    point after it.
    """

    time: str
    value: Money
    index: int


class ValueSeriesDocument(TypedDict):
    """Managed value over time and that of buy and hold, oldest first; `rebalances` are the indices of
    the first points after a rebalance.
    """

    times_s: list[int]
    values: list[Money]
    hold_values: list[Money]
    rebalances: list[int]
    inflows: list[InflowDocument]


class WaitingOrdersDocument(TypedDict):
    """Limit orders and gradual executions, newest first."""

    orders: list[LimitOrderDocument]
    gradual_executions: list[GradualExecutionDocument]


class ExplanationDocument(TypedDict):
    step: str
    outcome: str
    sentences: list[str]
    legs: list[LegExecutionDocument]
    transactions: list[PastTransactionDocument]
    book_kind: NotRequired[str]


class JournalledTransactionDocument(TypedDict):
    """A transaction of the journal; `gas_price_wei` is the price paid for each unit of gas, and
    `gas_cost_wei` what all of it cost, with a rollup's data fee.
    """

    id: str
    step: Annotated[str, FromAttributes("step_id")]
    kind: str
    status: Annotated[str, one_of(*(state.value for state in IntentState)), FromAttributes("state")]
    open: bool
    nonce: Annotated[int, FromAttributes("tx.nonce")]
    hash: TxHash
    replaces: Annotated[str | None, FromAttributes("replaced_intent_id")]
    note: str
    created: Annotated[TimeText, FromAttributes("created_s")]
    deadline: Annotated[TimeText | None, FromAttributes("deadline_s")]
    gas: Annotated[int, FromAttributes("tx.gas")]
    max_fee_wei: Raw
    block: int | None
    succeeded: bool | None
    gas_used: int | None
    gas_price_wei: Raw | None
    gas_cost_wei: Raw | None


class TransitionDocument(TypedDict):
    time: Annotated[TimeText, FromAttributes("at_s")]
    status: Annotated[str, FromAttributes("new_state")]
    note: str


class TracedTransactionDocument(JournalledTransactionDocument):
    """A transaction with its transitions; `order` if it is a limit order that rests at a venue,
    `execution` the transaction that was sent to execute a Safe's proposal and is not settled yet.
    """

    moves: list[TransitionDocument]
    order: NotRequired[OpenOrderDocument]
    execution: NotRequired[TxHash]


class AdoptedTransferDocument(TypedDict):
    """A transfer of the wallet; `symbol` and `amount` are None for a token that is not the
    portfolio's.
    """

    token: Address
    symbol: str | None
    amount: str | None
    raw: Raw
    sender: Address
    recipient: Address


class AdoptedTransactionDocument(TypedDict):
    """A transaction at an adopted nonce: empty hash and no block if the endpoints do not show it.
    `intent` is the id of the journal's transaction that it is, None if the journal had none.
    """

    nonce: int
    hash: TxHash
    block: int | None
    intent: str | None
    transfers: list[AdoptedTransferDocument]


class AdoptedNonceDocument(TypedDict):
    """The adopted nonce of the wallet (None: none was adopted), the numbers of the withdrawals that
    it released, and the newest transactions that it takes over.
    """

    nonce: int | None
    wallet: Address | None
    released: list[int]
    transactions: list[AdoptedTransactionDocument]


class JournalStateDocument(TypedDict):
    waiting: int
    confirming: int
    next_nonce: int | None


class TransactionsDocument(JournalStateDocument):
    """The newest transactions with their transitions, newest first."""

    transactions: list[TracedTransactionDocument]


class PendingTransactionsDocument(JournalStateDocument):
    """Transactions; `advice` says how those that were only listed are cancelled, else it is empty."""

    transactions: list[JournalledTransactionDocument]
    advice: str


class SettledTransactionsDocument(PendingTransactionsDocument):
    """Settled transactions; `booked` counts those booked into the budgets."""

    booked: int


class CancelledTransactionsDocument(SettledTransactionsDocument):
    """Cancelled transactions; `withdrawn` says which proposals the chain still accepts from whoever has
    their signatures.
    """

    withdrawn: list[str]


class TransfersDocument(TypedDict):
    """External transfers; `halts` is the reason if they halt trading, or if balances are not compared
    before a used nonce is settled, otherwise empty.
    """

    block: int
    numeraire: str
    halts: str
    flows: list[TransferDocument]


class StatisticsDocument(TypedDict):
    """Annualised statistics of daily returns; `missing` names a package that is not installed."""

    days: int
    volatility: float | None
    sharpe: float | None
    max_drawdown: float | None
    missing: NotRequired[str]


class PeriodDates(StartDate, TypedDict):
    to: str


class PeriodDocument(PeriodDates):
    start_value: Annotated[Money, FromAttributes("start.managed_value")]
    end_value: Annotated[Money, FromAttributes("end.managed_value"), shown("value")]
    deposits: Money
    withdrawals: Money
    from_gas_money: Annotated[Money, FromAttributes("gas_money_inflow")]
    profit: Annotated[Money, shown(figure="money+")]
    twr_bps: Annotated[BpsFloat | None, FromAttributes("twr"), shown("return", "percent+")]
    mwr_bps: Annotated[float | None, shown("money-weighted", "percent+")]
    mwr_year_bps: Annotated[float | None, shown("money-weighted a year", "percent+")]
    hold_profit: Money
    hold_return_bps: Annotated[
        BpsFloat | None, FromAttributes("hold_return"), shown("holding", "percent+")
    ]
    benchmark_return_bps: Annotated[
        BpsFloat | None, FromAttributes("benchmark_return"), shown("benchmark", "percent+")
    ]
    against_holding: Annotated[Money, shown(figure="money+")]
    rebalances: Annotated[Count, FromAttributes("rebalance_count")]
    trades: Count
    refusals: Count
    alerts: Count
    turnover: Money
    costs: RealisedCostsDocument
    costs_year_bps: Annotated[
        BpsFloat | None, FromAttributes("costs_year"), shown("costs a year", "percent")
    ]
    manual_swaps: ManualSwapsDocument
    realised: Annotated[Money, shown(figure="money+")]
    realised_by_token: dict[str, DecimalText]
    weights_bps: dict[str, int]
    hint: str
    statistics: StatisticsDocument | None
    futures: NotRequired[FuturesResultDocument]


class TaxYearsDocument(TypedDict):
    """Realised gains by calendar year. `futures` is realised profit less settled funding of futures, by
    year and apart from the gains; missing without futures.
    """

    method: str
    currency: str
    years: dict[str, DecimalText]
    year_limit: str | None
    rate_warning: str
    futures: NotRequired[dict[str, DecimalText]]


class ProfitDocument(TypedDict):
    """Profit and loss by period, newest last, in the numeraire. `not_final` transactions are mined but
    not booked yet. `book_kind` is set for paper trading, `uncertain` if transfers of the futures
    account are of an unknown kind, or a payment may be mined and is not booked.
    """

    numeraire: str
    benchmark: str
    period: str
    why_empty: str
    since: str
    until: Annotated[str, shown(figure="time")]
    value: Money
    gas_money: Money
    reserved: Money
    periods: list[PeriodDocument]
    unrealised: Annotated[Money, shown(figure="money+")]
    method: str
    unpriced: list[str]
    tax: TaxYearsDocument | None
    not_final: Count
    mined_since: Count
    book_kind: NotRequired[str]
    uncertain: NotRequired[str]


class BookDocument(TypedDict):
    number: int
    kind: str
    opened: Annotated[IsoTime, FromAttributes("opened_s")]
    note: str


class LedgerBalanceDocument(TypedDict):
    symbol: str
    ledger_raw: Raw
    chain_raw: Raw | None


class LedgerChainDocument(TypedDict):
    block: int
    balances: list[LedgerBalanceDocument]
    disagreement: str
    unwritten_flows: int


class LedgerCheckDocument(TypedDict):
    """Check of a ledger: ids of entries that do not balance, ids of transactions whose entries differ
    from their receipts, and stored sums that are not those of the entries (`misstated`). `unaudited`
    are transactions whose step this version cannot read: only the wallet's amounts of their entries
    are compared, and no rebuild changes these entries. After a rebuild `unbalanced`, `missing_lots`
    and `sound` are those of the rewritten ledger.
    """

    book: BookDocument | None
    entries: int
    unbalanced: list[str]
    differing: list[str]
    unaudited: list[str]
    misstated: list[str]
    rebuilt: bool
    missing_lots: dict[str, Raw]
    sound: bool
    chain: NotRequired[LedgerChainDocument | None]


class PostingDocument(TypedDict):
    account: str
    token: Annotated[str, ConvertedBy(lambda token, ledger: ledger.token_names.label(token))]
    raw: Raw
    decimals: Annotated[
        int,
        ConvertedBy(lambda token, ledger: ledger.token_names.decimals(token)),
        FromAttributes("token"),
    ]
    value: Money | None


class FuturesEventDocument(TypedDict):
    """A trading fee, realised profit or funding payment of the margin account: `amount` in the venue's
    quote, `value` in the numeraire (null: no price); negative for a cost.
    """

    event: str
    symbol: str
    amount: DecimalText
    value: DecimalText | None


class EntryDocument(TypedDict):
    id: str
    time: Annotated[IsoTime, FromAttributes("chain_s")]
    block: int
    kind: str
    manual: Annotated[bool, FromAttributes("by_hand")]
    transaction: Annotated[str | None, FromAttributes("tx_hash")]
    note: str
    postings: list[PostingDocument]
    futures: NotRequired[list[FuturesEventDocument]]


class EntriesDocument(TypedDict):
    numeraire: str
    entries: list[EntryDocument]


class ExportedFileDocument(TypedDict):
    name: str
    rows: int


class ExportDocument(TypedDict):
    format: str
    folder: str
    files: list[ExportedFileDocument]
    book_kind: NotRequired[str]


class BackupDocument(TypedDict):
    backup: str
    bytes: int


class StoreCopyDocument(TypedDict):
    """`rows` has the number of rows by table, `secret` the file that goes to each machine."""

    rows: dict[str, int]
    secret: str
    next: str


class RestoreDocument(TypedDict):
    """`kept` is the file to which the replaced store was moved; None if there was none."""

    store: str
    kept: str | None
    next: str


class StoreCheckDocument(TypedDict):
    """A sound store. For a copy that is not adopted yet, `copy` has its source and time."""

    store: str
    bytes: int
    version: str
    present_version: str
    wallet: str
    chain_id: str
    copy: str | None


class ForgottenPricesDocument(TypedDict):
    source: str
    removed: int


LotMethodName = Annotated[str, one_of(*(method.value for method in LotMethod))]


class LotDocument(TypedDict):
    acquired: Annotated[str, shown("acquired (UTC)", "time")]
    amount: DecimalText
    cost: Annotated[DecimalText, shown(figure="money")]
    entry_price: PriceText
    value: Annotated[DecimalText | None, shown(figure="money")]
    unrealised: Annotated[DecimalText | None, shown(figure="money+")]


class AssetLotsDocument(TypedDict):
    """Open lots of an asset, oldest first, with their sums. `realised` is that of the document's year;
    `unmatched` was disposed of without a known purchase.
    """

    symbol: Annotated[str, shown("asset")]
    address: Address
    amount: DecimalText
    cost: Annotated[DecimalText, shown(figure="money")]
    entry_price: PriceText | None
    price: PriceText | None
    value: Annotated[DecimalText | None, shown(figure="money")]
    unrealised: Annotated[DecimalText | None, shown(figure="money+")]
    realised: Annotated[DecimalText, shown(figure="money+")]
    unmatched: DecimalText
    lots: list[LotDocument]


class LotsDocument(TypedDict):
    """Open tax lots in the reporting currency. `gas_money` is native coin that only pays for gas, with
    the oldest lots of the coin; no sum includes it. `not_final` transactions are mined but not booked,
    so the lots are those before them. `valued` is the time of the newest valuation, whose
    prices count; a value is None without a price there. `year` is the calendar year (UTC) of the newest
    entry or valuation, `realised` its gains less losses. `unpriced` are entries with a missing price,
    which counts as zero. `book_kind` is set for paper trading.
    """

    method: LotMethodName
    currency: str
    valued: Annotated[str | None, shown(figure="time")]
    year: str | None
    realised: Annotated[DecimalText, shown(figure="money+")]
    unpriced: list[str]
    assets: list[AssetLotsDocument]
    gas_money: AssetLotsDocument | None
    not_final: Count
    book_kind: NotRequired[str]
