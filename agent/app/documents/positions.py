"""Documents of positions, orders, strategies and weights: lp, orders, strategies, oracle,
weights.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import (
    Address,
    ConvertedBy,
    Decimal,
    Hash,
    Money,
    Of,
    Raw,
    fill,
    money,
    one_of,
)
from agent.app.documents.plans import LimitOrderDocument, LimitPricesDocument, TransactionDocument
from agent.app.documents.steps import Block, BpsOfShare, NettingDocument, Numeraire, bps_text
from agent.policy.strategies.accounting import unit_value
from agent.policy.strategies.capital import ONE
from agent.units import BPS, decimal_text, value_text

if TYPE_CHECKING:
    from agent.app.positions.liquidity import LiquidityReport
    from agent.model import StepInput
    from agent.model.strategies import CapitalSplit, StrategyBook
    from agent.policy.strategies.netting import StrategyAdjustment
    from agent.units import Price

Venue = Annotated[str, one_of("uniswap_v2", "uniswap_v3")]
PairSymbols = Annotated[
    list[str], ConvertedBy(lambda pair, portfolio: [portfolio.token(one).label for one in pair])
]

Kind = Annotated[str, one_of("entry", "stop_loss", "take_profit", "trailing_stop")]
Stage = Annotated[str, one_of("waiting", "armed", "fired", "done", "off")]
NamedOrderDocument = TypedDict("NamedOrderDocument", {"subject": str, "kind": Kind, "stage": Stage})
ArmedDocument = TypedDict(
    "ArmedDocument", {"armed": list[NamedOrderDocument], "back_in": list[str]}
)
DisarmedDocument = TypedDict(
    "DisarmedDocument", {"disarmed": list[NamedOrderDocument], "back_in": list[str]}
)
SplitBandDocument = TypedDict(
    "SplitBandDocument", {"absolute_bps": int | None, "relative_bps": int | None}
)
LimitedSumDocument = TypedDict("LimitedSumDocument", {
    "value": Money | None, "share_bps": Annotated[BpsOfShare | None, Of("share")],
    "limit_bps": int | None, "within": bool | None,
})  # fmt: skip


class ForecastDocument(TypedDict):
    move_bps: int
    moving: str
    loss_bps: Annotated[BpsOfShare, Of("loss")]
    loss: Annotated[Money, Of("loss_value")]


class PositionDocument(TypedDict):
    """A liquidity position compared with holding its tokens; amounts by symbol."""

    position: Annotated[str, Of("confirmed.name")]
    venue: Annotated[Venue, Of("confirmed.venue")]
    contract: Annotated[Address, Of("confirmed.contract")]
    token_id: Annotated[Raw | None, Of("confirmed.token_id")]
    tokens: Annotated[PairSymbols, Of("confirmed.token0", "confirmed.token1")]
    state: str
    entry_raw: dict[str, Raw]
    entry_block: Annotated[int | None, Of("confirmed.entry_block")]
    redeemable_raw: dict[str, Raw]
    fees_raw: dict[str, Raw]
    counted_raw: dict[str, Raw]
    value: Money
    hold_value: Annotated[Money, Of("hold")]
    loss: Money
    loss_bps: Decimal | None
    fees: Money
    lvr_per_day: Money
    volatility_bps: Annotated[int, Of("confirmed.volatility_bps")]
    horizon_s: Annotated[int, Of("confirmed.horizon_s")]
    expected_loss: Money
    pool_off_bps: Annotated[BpsOfShare | None, Of("pool_off")]
    forecasts: list[ForecastDocument]


class LiquidityTargetDocument(TypedDict):
    pool: Annotated[Address, Of("target.pool")]
    venue: Annotated[Venue, Of("target.venue")]
    tokens: Annotated[PairSymbols, Of("target.token0", "target.token1")]
    fee_pips: Annotated[int, Of("target.fee_pips")]
    share_bps: Annotated[int, Of("target.share_bps")]
    width_bps: Annotated[int | None, Of("target.width_bps")]
    compound_above: Annotated[Money | None, Of("target.compound_above")]
    value: Money | None
    fees: Money | None
    weight_bps: Annotated[BpsOfShare | None, Of("share")]
    left_range: list[str]
    pool_off_bps: Annotated[BpsOfShare | None, Of("pool_off")]
    asks: list[str]
    leaves: list[str]


IgnoredPositionDocument = TypedDict("IgnoredPositionDocument", {
    "position": Annotated[str, Of("name")], "contract": Address, "token_id": Raw | None,
    "tokens": list[str], "liquidity": Raw,
})  # fmt: skip


class LiquidityDocument(TypedDict):
    block: Block
    block_hash: Annotated[Hash, Of("step_input.snapshot.head.hash")]
    numeraire: Numeraire
    portfolio_value: Money | None
    expected_loss: LimitedSumDocument
    weight: LimitedSumDocument
    positions: list[PositionDocument]
    targets: list[LiquidityTargetDocument]
    unreadable: list[str]
    warnings: list[str]
    ignored: Annotated[list[IgnoredPositionDocument], Of("ignored.found")]
    ignored_more: Annotated[int, Of("ignored.more")]


AdoptedPositionDocument = TypedDict(
    "AdoptedPositionDocument",
    {"position": str, "taken": bool, "amounts_raw": NotRequired[list[Raw]]},
)


def liquidity_document(found: LiquidityReport) -> LiquidityDocument:
    """Document of liquidity positions and targets."""
    portfolio = found.step_input.portfolio
    positions = []
    for one in found.reports:
        confirmed = one.confirmed
        symbols = [
            portfolio.token(address).label for address in (confirmed.token0, confirmed.token1)
        ]
        amounts = {
            "entry_raw": confirmed.entry_raw,
            "redeemable_raw": one.redeemable_raw,
            "fees_raw": one.fees_raw,
            "counted_raw": one.counted_raw,
        }
        pairs = {
            name: {symbol: str(raw) for symbol, raw in zip(symbols, pair, strict=True)}
            for name, pair in amounts.items()
        }
        loss_bps = None if one.hold == 0 else bps_text(one.loss / one.hold)
        positions.append(fill(PositionDocument, one, portfolio, **pairs, loss_bps=loss_bps))
    return fill(LiquidityDocument, found, portfolio, positions=positions)


class ConditionalOrderDocument(NamedOrderDocument):
    terms: str
    level: Decimal | None
    price: Decimal | None
    distance_bps: int | None
    basis: Decimal | None
    highest: Decimal | None
    fired_at: Decimal | None
    since_s: int
    since: str
    unconfirmed: Stage | None
    filled_at_once: bool


class OpenLimitOrderDocument(LimitOrderDocument, LimitPricesDocument):
    """An open limit order with its price and the market's."""


ChangedLevelsDocument = TypedDict("ChangedLevelsDocument", {
    "config": str, "subject": str, "changes": dict[str, tuple[str | None, str | None]],
})  # fmt: skip
"""Levels before and after, by kind of order."""
OrdersDocument = TypedDict("OrdersDocument", {
    "block": int, "numeraire": str, "absent": Annotated[str, one_of("cash", "redistribute")],
    "hysteresis_bps": int, "confirm_blocks": int, "unit_worth": Decimal | None,
    "contradictions": list[str], "orders": list[ConditionalOrderDocument], "told": list[str],
    "stuck": list[str], "limit_orders": NotRequired[list[OpenLimitOrderDocument]],
})  # fmt: skip
StrategyHoldingDocument = TypedDict("StrategyHoldingDocument", {
    "symbol": str, "raw": Raw, "amount": Decimal, "value": Money, "weight_bps": int,
    "target_bps": int,
})  # fmt: skip
StrategyDocument = TypedDict("StrategyDocument", {
    "name": str, "state": Annotated[str, one_of("active", "paused"), Of("state.health")],
    "since_s": Annotated[int, Of("state.since_s")], "why": Annotated[str, Of("state.reason")],
    "capital": Money, "share_bps": int | None, "target_share_bps": int, "floor_bps": int,
    "units": Raw, "unit_value": Decimal | None, "return_bps": int | None, "sharpe": Decimal | None,
    "sharpe_window_s": int | None, "turning_since_s": Annotated[int | None, Of("state.turning_s")],
    "costs": Money, "last_rebalance_s": int | None, "acts": bool, "reason": str,
    "holdings": list[StrategyHoldingDocument], "futures": NotRequired[dict[str, int]],
})  # fmt: skip
"""`futures` has signed weights in bps by market, for strategies with futures."""


def strategy_document(
    one: StrategyBook,
    split: CapitalSplit,
    adjustment: StrategyAdjustment | None,
    due: Fraction,
    step: StepInput,
    prices: dict[str, Price],
) -> StrategyDocument:
    """Document of one strategy."""
    portfolio = step.portfolio
    value = sum((raw * prices[token] for token, raw in one.holdings if raw), Fraction(0))
    unit = unit_value(value, one.units)
    strategy = next(item for item in split.strategies if item.name == one.name)
    whole, weights = max(value, Fraction(1)), dict(strategy.weights_bps)
    holdings: list[StrategyHoldingDocument] = [
        {
            "symbol": portfolio.token(token).label,
            "raw": str(raw),
            "amount": value_text(Fraction(raw), portfolio.token(token).decimals),
            "value": money(raw * prices[token], portfolio),
            "weight_bps": round(raw * prices[token] / whole * BPS),
            "target_bps": weights.get(token, 0),
        }
        for token, raw in one.holdings
    ]
    document = fill(
        StrategyDocument,
        one,
        portfolio,
        capital=money(value, portfolio),
        share_bps=None if adjustment is None else round(adjustment.share * BPS),
        target_share_bps=round(due * BPS),
        floor_bps=strategy.floor_bps,
        unit_value=None if unit is None else decimal_text(unit, 12),
        return_bps=None if unit is None else round(Fraction(unit - ONE, ONE) * BPS),
        sharpe=None if one.state.sharpe_milli is None else decimal_text(one.state.sharpe_milli, 3),
        sharpe_window_s=None if strategy.health is None else strategy.health.window_s,
        acts=adjustment is not None and adjustment.acts,
        reason="" if adjustment is None else adjustment.reason,
        holdings=holdings,
    )
    if strategy.futures_bps:
        account = step.snapshot.futures
        markets = () if account is None else account.markets
        names = {one.market: one.symbol for one in markets}
        document["futures"] = {
            names.get(market, market): bps for market, bps in strategy.futures_bps
        }
    return document


StrategiesDocument = TypedDict("StrategiesDocument", {
    "block": int, "numeraire": str, "total_value": Money, "fault": str,
    "split_band": SplitBandDocument, "strategies": list[StrategyDocument],
    "together": NettingDocument | None, "sharpe_basis": str, "why": NotRequired[str],
    "applied": NotRequired[bool],
})  # fmt: skip
"""Strategies over one wallet; `why` and `applied` are set when their books are reconciled."""
RoutedTransfersDocument = TypedDict("RoutedTransfersDocument", {"flows_to": str | None})
"""Name of the strategy that receives deposits; None if they are shared by capital."""
ObservationsDocument = TypedDict("ObservationsDocument", {
    "pool": Address, "tokens": list[str], "fee_pips": int, "observations": int,
    "observations_next": int, "counts": bool, "why": str,
})  # fmt: skip
PoolObservationsDocument = TypedDict("PoolObservationsDocument", {
    "block": int, "window_s": int, "enough": int, "pools": list[ObservationsDocument],
})  # fmt: skip


class RaisedObservationsDocument(ObservationsDocument):
    block: int
    enough: int
    to: int
    rises: int
    gas_units: int
    cost_native: Decimal
    cost: Money | None
    most_native: Decimal | None
    outcome: Annotated[str, one_of("planned", "hold", "done", "declined", "failed")]
    transactions: list[TransactionDocument]


AllocationDocument = TypedDict("AllocationDocument", {
    "at_s": int, "weights_bps": dict[str, int], "why": str, "data": str, "from_s": int | None,
    "until_s": int | None, "returns": int,
})  # fmt: skip
WeightedAssetDocument = TypedDict("WeightedAssetDocument", {
    "symbol": str, "address": str, "fixed": bool, "target_bps": int, "standing_bps": int | None,
    "now_bps": int | None, "limits_bps": list[int] | None, "volatility": Decimal | None,
    "supply_raw": Raw | None, "supply_source": str | None,
})  # fmt: skip
WeightsDocument = TypedDict("WeightsDocument", {
    "block": int, "at_s": int, "kind": str, "due": bool, "next_s": int | None,
    "standing": AllocationDocument | None, "now": AllocationDocument | None, "fault": str,
    "turnover_bps": int | None, "assets": list[WeightedAssetDocument],
    "correlations": dict[str, Decimal], "wishes": list[str],
})  # fmt: skip
