"""Documents of futures: positions, margin, funding, and the summary in status and plan."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, NotRequired

from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.accounting.futures import FundingDay
from agent.app.documents import (
    Address,
    ConvertedBy,
    Count,
    DecimalText,
    FromAttributes,
    Money,
    PriceText,
    Raw,
    SignedDecimal,
    SignedMoney,
    TokenSymbol,
    fill,
    money_text,
    one_of,
    shown,
)
from agent.app.documents.futures_report import FuturesReport, futures_report
from agent.app.documents.open_orders import OpenOrderDocument, open_order_documents
from agent.layers.futures.execution.cycle import hedge_comparisons_of
from agent.layers.futures.policy.targets import unnamed_market_reasons
from agent.layers.futures.state import futures_policy, margin_account
from agent.margin import account as margin
from agent.margin.account import nearest_liquidation
from agent.margin.state import multiple_text
from agent.model import (
    DelegateChange,
    FuturesReading,
    MarginDeposit,
    MarginWithdrawal,
    PerpOrder,
    StopOrder,
)
from agent.units import (
    BPS,
    DAY_S,
    Price,
    decimal_text,
    format_bps,
    format_percent,
    price_text,
    shortened_text,
    value_text,
)

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome
    from agent.model import (
        AssetDrift,
        FuturesAction,
        FuturesPlan,
        FuturesPolicy,
        MarginAccount,
        PerpMarket,
        Position,
        StepInput,
    )
    from agent.units import Token

FUNDING_HORIZON_DAYS = 30
"""Horizon of the expected funding."""
RATIO_PLACES = 6
RATE_PLACES = 12

Side = Annotated[str, one_of("long", "short")]
OrderSide = Annotated[str, one_of("buy", "sell")]


class FuturesPositionDocument(TypedDict):
    """An open position. `unrealised` is the profit at the mark, `funding_pending` the amount that the
    account owes (negative: receives), `liquidation_distance` the move of the mark to
    `liquidation_price` as a share.
    """

    market: str
    symbol: Annotated[str, shown("market")]
    side: Side
    size: DecimalText
    size_raw: Raw
    notional: Annotated[DecimalText, shown(figure="money")]
    entry: PriceText
    mark: PriceText
    index: PriceText
    index_age_s: int
    unrealised: Annotated[DecimalText, shown(figure="money+")]
    funding_pending: Annotated[DecimalText, shown("funding", "money+")]
    liquidation_price: Annotated[PriceText | None, shown("liquidation")]
    liquidation_distance: Annotated[DecimalText | None, shown("distance", "ratio+")]


class AccountDocument(TypedDict):
    """Keys of every document about the margin account."""

    block: int
    account: Address
    unknown: str
    unit: str
    book_kind: NotRequired[str]


class FuturesPositionsDocument(AccountDocument):
    """Open positions. `unknown` is the reason if the account is unknown; `positions` is then empty."""

    positions: list[FuturesPositionDocument]


class LimitDocument(TypedDict):
    limit: Annotated[str, FromAttributes("limit_name")]
    measured: Annotated[str, FromAttributes("measured_text")]
    allowed: Annotated[str, FromAttributes("limit_text")]
    broken: Annotated[bool, FromAttributes("is_broken"), shown("state")]


class FuturesOrderDocument(TypedDict):
    """An order. `bound` is the maximum quote paid by a purchase or the minimum received by a sale."""

    market: str
    symbol: Annotated[str, shown("market")]
    side: OrderSide
    size: DecimalText
    size_raw: Raw
    bound: Annotated[DecimalText, shown(figure="money")]
    bound_raw: Raw
    bound_price: PriceText
    reduce_only: bool


class FuturesPlanDocument(TypedDict):
    """The current plan; `hold_reason` is the reason why none of its orders is sent (empty if they
    are).
    """

    trigger: str
    reason: str
    top_up: DecimalText
    top_up_raw: Raw
    reducing: bool
    emergency: bool
    orders: list[FuturesOrderDocument]
    refused: list[str]
    hold_reason: str


class MarginFiguresDocument(TypedDict):
    """Figures of the account by the definitions of docs/futures.md; ratios are None for an account
    without value. `target_note` is empty if the target leverage is restored.
    """

    collateral: Annotated[DecimalText, shown(figure="money")]
    realised: Annotated[DecimalText, shown("realised, unsettled", "money")]
    unrealised: Annotated[DecimalText, shown(figure="money+")]
    funding_pending: Annotated[DecimalText, shown("funding owed", "money+")]
    value: Annotated[DecimalText, shown("account value", "money")]
    free: Annotated[DecimalText, shown("free margin", "money")]
    utilisation: Annotated[DecimalText | None, shown("margin in use", "ratio")]
    leverage: Annotated[DecimalText | None, shown(figure="multiple")]
    initial: Annotated[DecimalText, shown("initial margin", "money")]
    maintenance: Annotated[DecimalText, shown("maintenance margin", "money")]
    gross: Annotated[DecimalText, shown("gross notional", "money")]
    net: Annotated[DecimalText, shown("net notional", "money")]
    spot_value: Annotated[DecimalText | None, shown("spot portfolio", "money")]
    target_leverage: Annotated[DecimalText, shown(figure="multiple")]
    target_note: str


class MarginDocument(AccountDocument):
    """The margin account, its limits, and the orders that the agent would plan now; `no_plan` is the
    reason if there is no plan, `blocked` the reason why orders cannot be sent (empty if they can).
    """

    margin: MarginFiguresDocument | None
    limits: list[LimitDocument]
    plan: FuturesPlanDocument | None
    no_plan: str
    blocked: str


class MarketFundingDocument(TypedDict):
    """Funding of one market: longs pay shorts `daily_rate` of the notional per day (negative: shorts
    pay). `pending`, `today`, `daily` and `expected` are amounts that the account pays (negative:
    receives); `today`, in the numeraire, is the funding since midnight UTC, from the ledger and this
    block's reading.
    """

    market: str
    symbol: Annotated[str, shown("market")]
    daily_rate: Annotated[DecimalText, shown(figure="rate+")]
    notional: Annotated[DecimalText, shown(figure="money")]
    pending: Annotated[DecimalText, shown("owed", "cost+")]
    today: SignedMoney
    daily: Annotated[DecimalText, shown("a day", "cost+")]
    expected: SignedDecimal


class FundingDayDocument(TypedDict):
    """Recorded funding of one market on one day (UTC): `paid` in the numeraire (negative: received),
    `daily_rate` the mean of the rates read.
    """

    day: Annotated[str, shown("day (UTC)")]
    market: str
    symbol: Annotated[str, shown("market")]
    paid: SignedMoney
    daily_rate: Annotated[DecimalText, shown("mean daily rate", "rate+")]
    readings: Annotated[Count, FromAttributes("reading_count")]


class FundingDocument(AccountDocument):
    """Funding of all markets; `expected` covers `days` at the current rates. `recorded` is by day and
    market, oldest first.
    """

    numeraire: str
    days: Count
    markets: list[MarketFundingDocument]
    pending: Annotated[DecimalText, shown("owed", "cost+")]
    today: SignedMoney
    daily: Annotated[DecimalText, shown("a day", "cost+")]
    expected: SignedDecimal
    recorded: list[FundingDayDocument]


class HedgeComparisonDocument(TypedDict):
    """Comparison of selling `hedged`, a part of `excess`, with shorting it, in the numeraire; fees
    include gas. `margin` is the margin required by the short, `hedge_funding` the funding expected over
    `days` (negative: received).
    """

    symbol: TokenSymbol
    excess: Money
    hedged: Annotated[Money, FromAttributes("hedged_value")]
    sale_fees: Money
    sale_impact: Money
    sale_tax: Money
    sale_cost: Money
    hedge_fees: Money
    hedge_funding: Money
    hedge_capital: Annotated[Money, FromAttributes("capital_cost")]
    hedge_cost: Money
    margin: Annotated[Money, FromAttributes("required_margin")]
    days: Annotated[
        DecimalText,
        ConvertedBy(lambda horizon_s, _: value_text(Fraction(horizon_s, DAY_S), 0, RATIO_PLACES)),
        FromAttributes("horizon_s"),
    ]
    choice: Annotated[
        str,
        one_of("sell", "hedge"),
        ConvertedBy(lambda is_hedged, _: "hedge" if is_hedged else "sell"),
        FromAttributes("is_hedged"),
    ]
    reason: str


class FuturesFillDocument(TypedDict):
    """A filled futures order. `price` is the mean price; `notional`, `fee` and `realised` are in
    `unit`; `note` describes the order with its bound.
    """

    symbol: Annotated[str, shown("market")]
    side: OrderSide
    size: DecimalText
    size_raw: Raw
    price: PriceText
    notional: Annotated[DecimalText, shown(figure="money")]
    fee: Annotated[DecimalText, shown(figure="money")]
    realised: Annotated[DecimalText, shown(figure="money")]
    unit: str
    note: str


class ExposureDocument(TypedDict):
    symbol: str
    spot: Money
    futures: Money
    net: Money


class NearestLiquidationDocument(TypedDict):
    """The position whose mark is nearest to its liquidation price: `distance` is the move as a
    share.
    """

    symbol: str
    price: PriceText
    distance: DecimalText


class FuturesSummaryDocument(TypedDict):
    """The futures in status and plan: leverage, utilisation, the nearest liquidation, and the exposure
    to each price. `value` and `gross` are in `unit`, exposures in the numeraire. `actions` are the
    top-ups and reductions that the agent would plan now, as text, `blocked` the reason why orders
    cannot be sent (empty if they can), `unnamed` the positions in markets that the config does not
    name, `paused` the markets with a target or position that the venue has paused.
    """

    account: Address
    unknown: str
    unit: str
    leverage: DecimalText | None
    max_leverage: DecimalText
    value: DecimalText
    gross: DecimalText
    utilisation: DecimalText | None
    max_utilisation: DecimalText
    target_leverage: DecimalText
    target_note: str
    liquidation: NearestLiquidationDocument | None
    broken: list[str]
    exposures: list[ExposureDocument]
    actions: list[str]
    blocked: str
    unnamed: list[str]
    paused: list[str]
    margin_in_weights: bool
    open_orders: list[OpenOrderDocument]


def _account_keys(report: FuturesReport) -> AccountDocument:
    return {
        "block": report.step.snapshot.head.number,
        "account": report.policy.trader,
        "unknown": report.step.snapshot.layer(FuturesReading).unknown_reason,
        "unit": "USD" if report.account is None else report.account.quote.symbol,
    }


def positions_document(report: FuturesReport) -> FuturesPositionsDocument:
    """Return the document of the open positions."""
    account = report.account
    now_s = report.step.snapshot.head.timestamp_s
    position_documents = []
    if account is not None:
        position_documents = [
            _position_document(account, position, now_s) for position in account.positions
        ]
    return {
        **_account_keys(report),
        "positions": position_documents,
    }


def margin_document(report: FuturesReport) -> MarginDocument:
    """Return the document of the margin account, its limits and the plan."""
    account = report.account
    return {
        **_account_keys(report),
        "margin": None if account is None else _margin_figures_document(account, report),
        "limits": [fill(LimitDocument, limit_check) for limit_check in report.limit_checks],
        "plan": None
        if account is None or report.plan is None
        else _plan_document(account, report.plan, report.hold_reason),
        "no_plan": report.step.snapshot.layer(FuturesReading).unknown_reason,
        "blocked": report.step.snapshot.layer(FuturesReading).blocked_reason,
    }


def funding_document(
    report: FuturesReport, recorded_days: Sequence[FundingDay] = ()
) -> FundingDocument:
    """Return the document of funding: current rates, paid amounts by day, pending and expected
    amounts.
    """
    account = report.account
    portfolio = report.step.portfolio
    today_s = report.step.snapshot.head.timestamp_s // DAY_S * DAY_S
    paid_by_market = {
        funding_day.market: funding_day.paid
        for funding_day in recorded_days
        if funding_day.day_s == today_s
    }
    market_documents: list[MarketFundingDocument] = [
        {
            **_market_funding_document(account, market),
            "today": money_text(paid_by_market.get(market.market, Fraction(0)), portfolio),
        }
        for market in (() if account is None else account.markets)
        if account is not None
    ]
    pending_raw = Fraction(0)
    daily_raw = Fraction(0)
    if account is not None:
        pending_raw = Fraction(margin.funding_pending_raw(account))
        daily_raw = sum(
            (_daily_funding_raw(account, perp_market) for perp_market in account.markets),
            Fraction(0),
        )
    return {
        **_account_keys(report),
        "numeraire": portfolio.numeraire.label,
        "days": FUNDING_HORIZON_DAYS,
        "markets": market_documents,
        "pending": _quote_text(account, pending_raw),
        "today": money_text(sum(paid_by_market.values(), Fraction(0)), portfolio),
        "daily": _quote_text(account, daily_raw),
        "expected": _quote_text(account, FUNDING_HORIZON_DAYS * daily_raw),
        "recorded": [
            fill(
                FundingDayDocument,
                funding_day,
                portfolio,
                day=format_utc(funding_day.day_s)[:10],
                daily_rate=value_text(funding_day.daily_rate, 0, RATE_PLACES),
            )
            for funding_day in recorded_days
        ],
    }


def order_fill_documents(outcome: StepOutcome) -> list[FuturesFillDocument]:
    """Return the documents of the fills of a step's futures orders."""
    account = margin_account(outcome.step_input.snapshot)
    policy = futures_policy(outcome.step_input)
    if account is None or policy is None:
        return []
    markets_by_name = {market.market: market for market in account.markets}
    return [
        {
            "symbol": market.symbol,
            "side": "sell" if order_fill.size_raw < 0 else "buy",
            "size": decimal_text(abs(order_fill.size_raw), market.size_decimals),
            "size_raw": str(order_fill.size_raw),
            "price": _price_text(
                account, market, Fraction(-order_fill.quote_raw, order_fill.size_raw)
            ),
            "notional": _quote_text(account, Fraction(abs(order_fill.quote_raw))),
            "fee": _quote_text(account, Fraction(order_fill.fee_raw)),
            "realised": _quote_text(account, Fraction(order_fill.realised_raw)),
            "unit": account.quote.label,
            "note": intent.note,
        }
        for intent in outcome.transactions
        if intent.receipt is not None
        for order_fill in intent.receipt.fills
        if order_fill.trader == policy.trader
        and order_fill.size_raw
        and (market := markets_by_name.get(order_fill.market)) is not None
    ]


def _paused_symbols(account: MarginAccount, policy: FuturesPolicy) -> list[str]:
    """Return the paused markets with a target or a position."""
    relevant_market_names = {target.market for target in policy.targets if target.weight_bps}
    relevant_market_names |= {position.market for position in account.positions}
    return [
        market.symbol
        for market in account.markets
        if market.is_paused and market.market in relevant_market_names
    ]


def summary_document(report: FuturesReport) -> FuturesSummaryDocument:
    """Return the summary of the futures together with the spot portfolio."""
    account = report.account
    portfolio = report.step.portfolio
    account_keys = _account_keys(report)
    leverage = utilisation = liquidation = None
    value_raw = gross_raw = 0
    unnamed_symbols: list[str] = []
    if account is not None:
        leverage = margin.leverage(account)
        utilisation = margin.utilisation(account)
        value_raw = margin.account_value_raw(account)
        gross_raw = margin.gross_notional_raw(account)
        liquidation = _nearest_liquidation_document(account)
        unnamed_symbols = [
            account.market(market_name).symbol for market_name in unnamed_market_reasons(account)
        ]
    return {
        "account": account_keys["account"],
        "unknown": account_keys["unknown"],
        "unit": account_keys["unit"],
        "leverage": ratio_text(leverage),
        "max_leverage": decimal_text(report.policy.limits.max_leverage_bps, 4),
        "target_leverage": decimal_text(report.policy.leverage_bps, 4),
        "target_note": target_note(report.policy),
        "value": _quote_text(account, Fraction(value_raw)),
        "gross": _quote_text(account, Fraction(gross_raw)),
        "utilisation": ratio_text(utilisation),
        "max_utilisation": decimal_text(report.policy.limits.max_utilisation_bps, 4),
        "liquidation": liquidation,
        "broken": [
            limit_check.limit_name for limit_check in report.limit_checks if limit_check.is_broken
        ],
        "actions": _reducing_action_texts(report),
        "blocked": report.step.snapshot.layer(FuturesReading).blocked_reason,
        "unnamed": unnamed_symbols,
        "paused": [] if account is None else _paused_symbols(account, report.policy),
        "open_orders": open_order_documents(account, report.policy),
        "margin_in_weights": report.policy.margin_in_weights,
        "exposures": [
            fill(
                ExposureDocument,
                exposure,
                portfolio,
                **({"symbol": portfolio.token(exposure.token).label} if exposure.token else {}),
            )
            for exposure in report.exposures
        ],
    }


def target_note(policy: FuturesPolicy) -> str:
    """Return a message if the target leverage is not restored; empty if it is."""
    return "" if policy.leverage_band_bps else "not restored: leverage_band is off"


def _reducing_action_texts(report: FuturesReport) -> list[str]:
    """Return the actions of the plan as text if they only reduce risk."""
    account = report.account
    plan = report.plan
    portfolio = report.step.portfolio
    if account is None or plan is None or not plan.is_reducing:
        return []
    asset_tokens = (asset.token for asset in portfolio.assets)
    collateral = next(
        (token for token in asset_tokens if token.address == report.policy.collateral), None
    )
    return [action_text(account, action, collateral) for action in plan.actions]


def _nearest_liquidation_document(account: MarginAccount) -> NearestLiquidationDocument | None:
    """Return the position nearest to its liquidation; None if none can be liquidated."""
    market_and_distance = nearest_liquidation(account)
    if market_and_distance is None:
        return None
    market, distance = market_and_distance
    liquidation_price = market.mark * (1 + distance)
    return {
        "symbol": market.symbol,
        "price": _price_text(account, market, liquidation_price),
        "distance": value_text(distance, 0, RATIO_PLACES),
    }


PAST_TENSE = {
    "deposit": "deposited",
    "withdraw": "withdrew",
    "close": "closed",
    "buy": "bought",
    "sell": "sold",
}
"""Past-tense verbs of completed actions."""


def action_text(
    account: MarginAccount,
    action: FuturesAction,
    collateral: Token | None,
    *,
    is_done: bool = False,
) -> str:
    """Return "close 0.4 of 1.2 WETH (long)" for a reduction, "buy 0.2 WETH" for another order,
    "deposit 500 USDC" for a move of collateral; in the past tense if completed.
    """
    verbs = PAST_TENSE if is_done else {verb: verb for verb in PAST_TENSE}
    match action:
        case PerpOrder():
            market = account.market(action.market)
            size_text, size_before_text = (
                shortened_text(raw, market.size_decimals)
                for raw in (abs(action.size_raw), abs(account.size_raw(action.market)))
            )
            if action.is_reduce_only:
                side = "short" if action.size_raw > 0 else "long"
                return (
                    f"{verbs['close']} {size_text} of {size_before_text} {market.symbol} ({side})"
                )
            verb = "buy" if action.size_raw > 0 else "sell"
            return f"{verbs[verb]} {size_text} {market.symbol}"
        case MarginDeposit(raw) | MarginWithdrawal(raw):
            verb = "deposit" if isinstance(action, MarginDeposit) else "withdraw"
            amount_text = str(raw) if collateral is None else decimal_text(raw, collateral.decimals)
            unit_label = "base units" if collateral is None else collateral.label
            return f"{verbs[verb]} {amount_text} {unit_label}"
        case DelegateChange(delegate, is_allowed):
            return f"{'allow' if is_allowed else 'remove'} the delegate {delegate}"
        case _:
            verb = "place" if isinstance(action, StopOrder) else "cancel"
            return f"{verb} a resting stop of {account.market(action.market).symbol}"


def margin_figures_text(account: MarginAccount, policy: FuturesPolicy) -> str:
    """Format leverage, utilisation and the nearest liquidation, each with its limit."""
    limits = policy.limits
    leverage = margin.leverage(account)
    utilisation = margin.utilisation(account)
    figure_texts = [
        f"leverage {multiple_text(leverage)} of at most {limits.max_leverage_bps / BPS:g}x",
        f"utilisation {'unlimited' if utilisation is None else format_percent(utilisation)} of at most"
        f" {format_bps(limits.max_utilisation_bps)}",
    ]
    if (market_and_distance := nearest_liquidation(account)) is not None:
        market, distance = market_and_distance
        figure_texts.append(f"liquidation of {market.symbol} {format_percent(abs(distance))} away")
    return ", ".join(figure_texts)


def optional_futures_summary(
    step: StepInput, drifts: Sequence[AssetDrift]
) -> dict[str, FuturesSummaryDocument]:
    """Return the key `futures` with the summary of a step; empty without futures."""
    report = futures_report(step, drifts)
    return {} if report is None else {"futures": summary_document(report)}


def optional_hedge_comparisons(outcome: StepOutcome) -> dict[str, list[HedgeComparisonDocument]]:
    """Return the key `comparisons` of sales and hedges; empty if there are none."""
    portfolio = outcome.step_input.portfolio
    comparison_documents = [
        fill(HedgeComparisonDocument, comparison, portfolio)
        for comparison in hedge_comparisons_of(outcome)
    ]
    return {"comparisons": comparison_documents} if comparison_documents else {}


def _position_document(
    account: MarginAccount, position: Position, now_s: int
) -> FuturesPositionDocument:
    market = account.market(position.market)
    value_raw = margin.value_at_mark_raw(account, position)
    liquidation_price = margin.liquidation_price(account, position.market)
    distance = margin.liquidation_distance(account, position.market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "side": "long" if position.is_long else "short",
        "size": decimal_text(position.size_raw, market.size_decimals),
        "size_raw": str(position.size_raw),
        "notional": _quote_text(account, Fraction(value_raw)),
        "entry": _price_text(account, market, position.entry_price),
        "mark": _price_text(account, market, market.mark),
        "index": _price_text(account, market, market.index),
        "index_age_s": now_s - market.index_s,
        "unrealised": _quote_text(account, Fraction(value_raw + position.open_notional_raw)),
        "funding_pending": _quote_text(account, Fraction(position.funding_pending_raw)),
        "liquidation_price": None
        if liquidation_price is None
        else _price_text(account, market, liquidation_price),
        "liquidation_distance": ratio_text(distance),
    }


def _margin_figures_document(
    account: MarginAccount, report: FuturesReport
) -> MarginFiguresDocument:
    def quote_text(raw: int) -> str:
        return _quote_text(account, Fraction(raw))

    return {
        "collateral": quote_text(account.collateral_raw),
        "realised": quote_text(account.realised_raw),
        "unrealised": quote_text(margin.unrealised_profit_raw(account)),
        "funding_pending": quote_text(margin.funding_pending_raw(account)),
        "value": quote_text(margin.account_value_raw(account)),
        "free": quote_text(margin.free_margin_raw(account)),
        "utilisation": ratio_text(margin.utilisation(account)),
        "leverage": ratio_text(margin.leverage(account)),
        "initial": quote_text(margin.initial_margin_raw(account)),
        "maintenance": quote_text(margin.maintenance_margin_raw(account)),
        "gross": quote_text(margin.gross_notional_raw(account)),
        "net": quote_text(margin.net_notional_raw(account)),
        "spot_value": None
        if report.spot_value_raw is None
        else _quote_text(account, report.spot_value_raw),
        "target_leverage": decimal_text(report.policy.leverage_bps, 4),
        "target_note": target_note(report.policy),
    }


def _plan_document(
    account: MarginAccount, plan: FuturesPlan, hold_reason: str
) -> FuturesPlanDocument:
    return {
        "trigger": plan.trigger,
        "reason": plan.reason,
        "top_up": _quote_text(account, Fraction(plan.top_up_raw * account.collateral_unit_raw)),
        "top_up_raw": str(plan.top_up_raw),
        "reducing": plan.is_reducing,
        "emergency": plan.is_emergency,
        "orders": [_order_document(account, order) for order in plan.orders],
        "refused": list(plan.refusal_texts),
        "hold_reason": hold_reason,
    }


def _order_document(account: MarginAccount, order: PerpOrder) -> FuturesOrderDocument:
    market = account.market(order.market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "side": "buy" if order.size_raw > 0 else "sell",
        "size": decimal_text(abs(order.size_raw), market.size_decimals),
        "size_raw": str(order.size_raw),
        "bound": _quote_text(account, Fraction(order.bound_raw)),
        "bound_raw": str(order.bound_raw),
        "bound_price": _price_text(account, market, Fraction(order.bound_raw, abs(order.size_raw))),
        "reduce_only": order.is_reduce_only,
    }


def _market_funding_document(account: MarginAccount, market: PerpMarket) -> MarketFundingDocument:
    pending_raw = sum(
        position.funding_pending_raw
        for position in account.positions
        if position.market == market.market
    )
    daily_funding = _daily_funding_raw(account, market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "daily_rate": value_text(market.funding_daily, 0, RATE_PLACES),
        "notional": _quote_text(account, Fraction(_notional_raw(account, market))),
        "pending": _quote_text(account, Fraction(pending_raw)),
        "today": "0",
        "daily": _quote_text(account, daily_funding),
        "expected": _quote_text(account, FUNDING_HORIZON_DAYS * daily_funding),
    }


def _notional_raw(account: MarginAccount, market: PerpMarket) -> int:
    return margin.position_value_raw(market, account.size_raw(market.market))


def _daily_funding_raw(account: MarginAccount, market: PerpMarket) -> Fraction:
    """Return the funding per day at the current rate; negative if the account receives it."""
    return _notional_raw(account, market) * market.funding_daily


def _quote_text(account: MarginAccount | None, raw: Fraction) -> str:
    return "0" if account is None else value_text(raw, account.quote.decimals)


def _price_text(account: MarginAccount, market: PerpMarket, price: Price) -> str:
    return price_text(price, market.size_decimals, account.quote.decimals)


def ratio_text(ratio: Fraction | None) -> str | None:
    """Return a ratio such as a leverage, truncated; None if it is unknown or unlimited."""
    return None if ratio is None else value_text(ratio, 0, RATIO_PLACES)
