"""Documents of what the store holds: positions, orders, strategies and weights (lp, orders,
strategies, oracle, weights), and records (history, explain, limit, txs, flows, pnl, books).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.amm.lp.venues import LpVenue
from agent.app.documents import (
    Address,
    ConvertedBy,
    Count,
    DecimalText,
    FromAttributes,
    Hash,
    Money,
    PoolAddress,
    Raw,
    SmallMoney,
    StartDate,
    TimeText,
    TxHash,
    fill,
    money_text,
    one_of,
    shown,
)
from agent.app.documents.executions import GradualExecutionDocument
from agent.app.documents.open_orders import OpenOrderDocument
from agent.app.documents.plans import (
    BlockNumber,
    BpsText,
    LimitOrderDocument,
    LimitPricesDocument,
    NettingDocument,
    NumeraireLabel,
    TransactionDocument,
    TransferDocument,
)
from agent.layers.futures.state import margin_account
from agent.layers.strategies.policy.accounting import nav_per_unit
from agent.layers.strategies.policy.health import FIXED_POINT_ONE
from agent.model import IntentState, OrderKind, Portfolio, Snapshot
from agent.units import BPS, decimal_text, value_text

if TYPE_CHECKING:
    from agent.layers.strategies.policy.netting import StrategyAdjustment
    from agent.layers.strategies.state import CapitalSplit, StrategyBook
    from agent.units import Price


Venue = Annotated[str, one_of(*LpVenue)]
PairSymbols = Annotated[
    list[str],
    ConvertedBy(
        lambda token_pair, portfolio: [portfolio.token(address).label for address in token_pair]
    ),
]

OrderKindName = Annotated[str, one_of(*(kind.value for kind in OrderKind))]
Stage = Annotated[str, one_of("waiting", "armed", "fired", "done", "off")]


class NamedOrderDocument(TypedDict):
    subject: Annotated[str, shown("asset")]
    kind: Annotated[OrderKindName, shown("order")]
    stage: Stage


class ArmedOrdersDocument(TypedDict):
    armed: list[NamedOrderDocument]
    reenabled: list[str]


class DisarmedOrdersDocument(TypedDict):
    disarmed: list[NamedOrderDocument]
    reenabled: list[str]


class SplitBandDocument(TypedDict):
    absolute_bps: int | None
    relative_bps: int | None


class LimitedSumDocument(TypedDict):
    value: Money | None
    share_bps: Annotated[BpsText | None, FromAttributes("share")]
    limit_bps: int | None
    within: Annotated[bool | None, FromAttributes("is_within_limit")]


class LossForecastDocument(TypedDict):
    """Impermanent loss if the price of the token `moving` changes by `move_bps`."""

    move_bps: Annotated[int, shown("moves by", "percent+")]
    moving: Annotated[str, shown("price of"), FromAttributes("moving_token")]
    loss_bps: Annotated[BpsText, FromAttributes("loss_share"), shown("loss, share")]
    loss: Annotated[Money, FromAttributes("loss_value")]


class PositionDocument(TypedDict):
    """A liquidity position compared with holding its tokens; amounts by symbol. `counted_raw` is
    what weights count.
    """

    position: Annotated[str, FromAttributes("confirmed.name")]
    venue: Annotated[Venue, FromAttributes("confirmed.venue")]
    contract: Annotated[Address, FromAttributes("confirmed.contract")]
    token_id: Annotated[Raw | None, FromAttributes("confirmed.token_id")]
    tokens: Annotated[PairSymbols, FromAttributes("confirmed.token0", "confirmed.token1")]
    state: str
    entry_raw: dict[str, Raw]
    entry_block: Annotated[int | None, FromAttributes("confirmed.entry_block")]
    redeemable_raw: dict[str, Raw]
    fees_raw: dict[str, Raw]
    counted_raw: dict[str, Raw]
    value: Money
    hold_value: Annotated[Money, shown("if held")]
    loss: Annotated[Money, shown("loss so far", "money+")]
    loss_bps: Annotated[DecimalText | None, shown("loss, share", "percent+")]
    fees: Money
    lvr_per_day: Annotated[Money, shown("LVR a day", "amount")]
    volatility_bps: Annotated[int, FromAttributes("confirmed.volatility_bps")]
    horizon_s: Annotated[int, FromAttributes("confirmed.horizon_s")]
    expected_loss: Money
    pool_deviation_bps: Annotated[
        BpsText | None, FromAttributes("pool_deviation"), shown("pool off reference", "percent+")
    ]
    forecasts: list[LossForecastDocument]


class LiquidityTargetDocument(TypedDict):
    pool: Annotated[Address, FromAttributes("target.pool")]
    venue: Annotated[Venue, FromAttributes("target.venue")]
    tokens: Annotated[PairSymbols, FromAttributes("target.token0", "target.token1")]
    fee_pips: Annotated[int, FromAttributes("target.fee_pips")]
    share_bps: Annotated[int, FromAttributes("target.share_bps"), shown("target")]
    width_bps: Annotated[int | None, FromAttributes("target.width_bps"), shown("width")]
    compound_above: Annotated[Money | None, FromAttributes("target.compound_above")]
    value: Money | None
    fees: Money | None
    weight_bps: Annotated[BpsText | None, FromAttributes("share"), shown("share")]
    out_of_range: Annotated[list[str], FromAttributes("out_of_range_names")]
    pool_deviation_bps: Annotated[BpsText | None, FromAttributes("pool_deviation")]
    due_reasons: Annotated[list[str], shown("next")]
    skipped_reasons: list[str]


class IgnoredPositionDocument(TypedDict):
    position: Annotated[str, FromAttributes("name")]
    contract: Address
    token_id: Raw | None
    tokens: list[str]
    liquidity: Raw


class LiquidityDocument(TypedDict):
    block: BlockNumber
    block_hash: Annotated[Hash, FromAttributes("step_input.snapshot.head.hash")]
    numeraire: NumeraireLabel
    portfolio_value: Money | None
    expected_loss: LimitedSumDocument
    weight: LimitedSumDocument
    positions: list[PositionDocument]
    targets: list[LiquidityTargetDocument]
    unreadable: list[str]
    warnings: list[str]
    ignored: Annotated[
        list[IgnoredPositionDocument], FromAttributes("unsolicited_positions.positions")
    ]
    ignored_more: Annotated[int, FromAttributes("unsolicited_positions.unchecked_count")]
    forgettable: NotRequired[list[str]]
    """Positions that `trimtab lp forget` accepts, if there are any."""


class AdoptedPositionDocument(TypedDict):
    """`taken` is true for a position that counts from now on, false for one that no longer does."""

    position: str
    taken: bool
    amounts_raw: NotRequired[list[Raw]]


class ConditionalOrderDocument(NamedOrderDocument):
    """A stored order; `since` is null if no cycle has stored it yet. `level_now` is the level that
    a waiting order would have if it were armed now, `next_stage` the stage that a cycle would store
    now, `unconfirmed` the stage once the price is confirmed, `basis` the price from which a
    level in percent counts.
    """

    terms: str
    level: DecimalText | None
    level_now: DecimalText | None
    price: DecimalText | None
    distance_bps: Annotated[int | None, shown("distance", "percent+")]
    basis: DecimalText | None
    highest: DecimalText | None
    fired_at: DecimalText | None
    since_s: int | None
    since: Annotated[str | None, shown("since (UTC)")]
    next_stage: Stage | None
    unconfirmed: Stage | None
    filled_at_once: bool


class OpenLimitOrderDocument(LimitOrderDocument, LimitPricesDocument):
    """An open limit order with its price and the market's."""


class ChangedLevelsDocument(TypedDict):
    """Levels before and after, by kind of order; `notes` say what levels without a unit mean."""

    config: str
    subject: str
    changes: dict[str, tuple[str | None, str | None]]
    notes: list[str]


class OrdersDocument(TypedDict):
    """Orders: `absent` says where the weight of an asset goes that was sold or awaits its entry,
    `unit_worth` is the portfolio's NAV per share. `book_kind` is set for paper trading.
    """

    block: int
    numeraire: str
    absent: Annotated[str, one_of("cash", "redistribute")]
    hysteresis_bps: int
    confirm_blocks: int
    unit_worth: DecimalText | None
    contradictions: list[str]
    orders: list[ConditionalOrderDocument]
    target_reasons: list[str]
    blocked_exits: list[str]
    limit_orders: NotRequired[list[OpenLimitOrderDocument]]
    book_kind: NotRequired[str]


class StrategyHoldingDocument(TypedDict):
    symbol: Annotated[str, shown("asset")]
    raw: Raw
    amount: DecimalText
    value: Money
    weight_bps: int
    target_bps: int


class StrategyDocument(TypedDict):
    """`futures` has signed weights in bps by market, for strategies with futures."""

    name: Annotated[str, shown("strategy")]
    state: Annotated[str, one_of("active", "paused"), FromAttributes("state.health")]
    since_s: Annotated[int, FromAttributes("state.since_s"), shown("since (UTC)", "text")]
    state_reason: Annotated[str, FromAttributes("state.reason")]
    capital: Money
    share_bps: int | None
    target_share_bps: Annotated[int, shown("target")]
    floor_bps: int
    units: Raw
    unit_value: DecimalText | None
    return_bps: Annotated[int | None, shown(figure="percent+")]
    sharpe: DecimalText | None
    sharpe_window_s: int | None
    sharpe_crossed_s: Annotated[int | None, FromAttributes("state.opposite_since_s")]
    costs: Annotated[Money, FromAttributes("total_cost")]
    last_rebalance_s: int | None
    acts: bool
    reason: str
    holdings: list[StrategyHoldingDocument]
    futures: NotRequired[dict[str, int]]


def strategy_document(
    book: StrategyBook,
    split: CapitalSplit,
    adjustment: StrategyAdjustment | None,
    target_share: Fraction,
    snapshot: Snapshot,
    portfolio: Portfolio,
    price_by_token: dict[str, Price],
) -> StrategyDocument:
    """Return the document of one strategy."""
    strategy_value = sum(
        (raw * price_by_token[token] for token, raw in book.holdings if raw), Fraction(0)
    )
    unit_nav = nav_per_unit(strategy_value, book.units)
    strategy = next(strategy for strategy in split.strategies if strategy.name == book.name)
    nonzero_value = max(strategy_value, Fraction(1))
    target_weights_bps = dict(strategy.weights_bps)
    holdings: list[StrategyHoldingDocument] = [
        {
            "symbol": portfolio.token(token).label,
            "raw": str(raw),
            "amount": value_text(Fraction(raw), portfolio.token(token).decimals),
            "value": money_text(raw * price_by_token[token], portfolio),
            "weight_bps": round(raw * price_by_token[token] / nonzero_value * BPS),
            "target_bps": target_weights_bps.get(token, 0),
        }
        for token, raw in book.holdings
    ]
    share_bps = None
    acts = False
    reason = ""
    if adjustment is not None:
        share_bps = round(adjustment.share * BPS)
        acts = adjustment.acts
        reason = adjustment.reason
    unit_value = None
    return_bps = None
    if unit_nav is not None:
        unit_value = decimal_text(unit_nav, 12)
        return_bps = round(Fraction(unit_nav - FIXED_POINT_ONE, FIXED_POINT_ONE) * BPS)
    strategy_fields = fill(
        StrategyDocument,
        book,
        portfolio,
        capital=money_text(strategy_value, portfolio),
        share_bps=share_bps,
        target_share_bps=round(target_share * BPS),
        floor_bps=strategy.floor_bps,
        unit_value=unit_value,
        return_bps=return_bps,
        sharpe=None
        if book.state.sharpe_milli is None
        else decimal_text(book.state.sharpe_milli, 3),
        sharpe_window_s=None if strategy.health is None else strategy.health.window_s,
        acts=acts,
        reason=reason,
        holdings=holdings,
    )
    if strategy.market_bps:
        account = margin_account(snapshot)
        markets = () if account is None else account.markets
        symbol_by_market = {perp_market.market: perp_market.symbol for perp_market in markets}
        strategy_fields["futures"] = {
            symbol_by_market.get(market, market): bps for market, bps in strategy.market_bps
        }
    return strategy_fields


class StrategiesDocument(TypedDict):
    """Strategies over one wallet; `flows_to` gets deposits (None: shared by capital), `why` and
    `applied` are set when their books are reconciled.
    """

    block: int
    numeraire: str
    total_value: Money
    fault: str
    flows_to: str | None
    split_band: SplitBandDocument
    strategies: list[StrategyDocument]
    together: NettingDocument | None
    sharpe_basis: str
    why: NotRequired[str]
    applied: NotRequired[bool]


class RoutedTransfersDocument(TypedDict):
    """Name of the strategy that receives deposits; None if they are shared by capital."""

    flows_to: str | None


class HoldingsChangeDocument(TypedDict):
    """What a control changes in the records of positions or strategies, with the strategies after
    it.
    """

    changes: list[str]
    warnings: list[str]
    strategies: StrategiesDocument | None


class ObservationsDocument(TypedDict):
    pool: Address
    tokens: list[str]
    fee_pips: int
    observations: int
    observations_next: int
    sufficient: bool
    why: str


class PoolObservationsDocument(TypedDict):
    block: int
    window_s: int
    enough: int
    pools: list[ObservationsDocument]


class RaisedObservationsDocument(ObservationsDocument):
    block: int
    enough: int
    to: int
    increase: int
    gas_units: int
    cost_native: DecimalText
    cost: Money | None
    most_native: DecimalText | None
    outcome: Annotated[str, one_of("planned", "hold", "done", "declined", "failed")]
    transactions: list[TransactionDocument]


class AllocationDocument(TypedDict):
    at_s: int
    weights_bps: dict[str, int]
    why: str
    price_source: Annotated[str, FromAttributes("sample_text")]
    from_s: Annotated[int | None, FromAttributes("first_price_s")]
    until_s: Annotated[int | None, FromAttributes("last_price_s")]
    returns: Annotated[int, FromAttributes("return_count")]


class WeightedAssetDocument(TypedDict):
    symbol: str
    address: str
    fixed: bool
    target_bps: int
    chosen_bps: int | None
    now_bps: int | None
    limits_bps: list[int] | None
    volatility: DecimalText | None
    supply_raw: Raw | None
    supply_source: str | None


class WeightsDocument(TypedDict):
    block: int
    at_s: int
    kind: str
    strategy: str
    due: bool
    next_s: int | None
    chosen: AllocationDocument | None
    now: AllocationDocument | None
    fault: str
    accepted: bool
    turnover_bps: int | None
    assets: list[WeightedAssetDocument]
    correlations: dict[str, DecimalText]
    target_reasons: list[str]
    book_kind: NotRequired[str]


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
    difference: Annotated[Money | None, shown("against plan", "amount+")]
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


class ValueSeriesDocument(TypedDict):
    """Managed value over time and that of buy and hold, oldest first; `rebalances` are the indices of
    the first points after a rebalance.
    """

    times_s: list[int]
    values: list[Money]
    hold_values: list[Money]
    rebalances: list[int]


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
    """A transaction with its transitions; `order` if it is a limit order that rests at a venue."""

    moves: list[TransitionDocument]
    order: NotRequired[OpenOrderDocument]


class JournalStateDocument(TypedDict):
    waiting: int
    confirming: int
    next_nonce: int | None


class TransactionsDocument(JournalStateDocument):
    """The newest transactions with their transitions, newest first."""

    transactions: list[TracedTransactionDocument]


class PendingTransactionsDocument(JournalStateDocument):
    transactions: list[JournalledTransactionDocument]


class SettledTransactionsDocument(PendingTransactionsDocument):
    """Settled transactions; `booked` counts those booked into the budgets."""

    booked: int


class TransfersDocument(TypedDict):
    """External transfers; `halts` is the reason if they halt trading, otherwise empty."""

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
    rebalancing_effect: Annotated[
        Money, FromAttributes("rebalancing_premium"), shown(figure="money+")
    ]
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
    account are of an unknown kind.
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
    from their receipts, and stored sums that are not those of the entries (`misstated`). After a
    rebuild `unbalanced`, `missing_lots` and `sound` are those of the rewritten ledger.
    """

    book: BookDocument | None
    entries: int
    unbalanced: list[str]
    differing: list[str]
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
    quote, `value` in the numeraire (empty: no price); negative for a cost.
    """

    event: str
    symbol: str
    amount: DecimalText
    value: str


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


LotMethodName = Annotated[str, one_of("fifo", "lifo", "hifo", "average")]


class LotDocument(TypedDict):
    acquired: Annotated[str, shown("acquired (UTC)", "time")]
    amount: DecimalText
    cost: Annotated[DecimalText, shown(figure="money")]
    entry_price: DecimalText
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
    entry_price: DecimalText | None
    price: DecimalText | None
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
