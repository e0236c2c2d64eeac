"""Documents of liquidity positions, orders, strategies and weights (lp, orders, strategies, oracle,
weights).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.amm.lp.venues import LpVenue
from agent.app.documents import (
    Address,
    ConvertedBy,
    DecimalText,
    FromAttributes,
    Hash,
    Money,
    PriceText,
    Raw,
    fill,
    money_text,
    one_of,
    shown,
)
from agent.app.documents.decisions import BlockNumber, BpsText, NettingDocument, NumeraireLabel
from agent.app.documents.plans import LimitOrderDocument, LimitPricesDocument, TransactionDocument
from agent.layers.futures.state import margin_account
from agent.layers.strategies.policy.accounting import nav_per_unit
from agent.layers.strategies.policy.capital import current_weights
from agent.layers.strategies.policy.health import FIXED_POINT_ONE
from agent.model import OrderKind, Portfolio, Snapshot
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
    """`stale` has a sentence about each proposal that waits and sells for an order that has ended."""

    armed: list[NamedOrderDocument]
    reenabled: list[str]
    stale: list[str]


class DisarmedOrdersDocument(TypedDict):
    """`stale` has a sentence about each proposal that waits and sells for an order that has ended."""

    disarmed: list[NamedOrderDocument]
    reenabled: list[str]
    stale: list[str]


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
    lvr_per_day: Annotated[Money, shown("LVR a day", "cost")]
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
    level: PriceText | None
    level_now: PriceText | None
    price: PriceText | None
    distance_bps: Annotated[int | None, shown("distance", "percent+")]
    basis: PriceText | None
    highest: PriceText | None
    fired_at: PriceText | None
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
    `unit_worth` is the portfolio's NAV per share. `stopped` is why no order acts, while a stop is
    active. `book_kind` is set for paper trading.
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
    stopped: NotRequired[str]
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
    target_weights_bps = current_weights(strategy, book.state, portfolio.numeraire.address)
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
    waiting_bps: int | None
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
    waiting: AllocationDocument | None
    fault: str
    accepted: bool
    turnover_bps: int | None
    assets: list[WeightedAssetDocument]
    correlations: dict[str, DecimalText]
    target_reasons: list[str]
    book_kind: NotRequired[str]
