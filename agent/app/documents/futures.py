"""Documents of the futures layer: positions, margin, funding, and the summary in status and plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

from typing_extensions import TypedDict

from agent.app.documents import Address, Decimal, Money, Raw, money, one_of
from agent.margin import account as margin
from agent.margin.state import LimitCheck, limit_checks, margin_state
from agent.planning.futures import plan_futures
from agent.policy.futures.exposure import Exposure, exposures, spot_value_raw
from agent.units import Price, decimal_text, price_text, value_text

if TYPE_CHECKING:
    from agent.model import AssetDrift, StepInput
    from agent.model.futures import (
        FuturesPlan,
        FuturesPolicy,
        MarginAccount,
        PerpMarket,
        PerpOrder,
        Position,
    )

# --- The futures layer of a step: account, limits, exposure beside the spot portfolio, and plan.


@dataclass(frozen=True, slots=True)
class FuturesReport:
    """The futures layer of a step. `account` is None if unknown; `spot_value` (quote base units) is
    None if the collateral has no reference price. In both cases there is no plan.
    """

    step: StepInput
    policy: FuturesPolicy
    account: MarginAccount | None
    spot_value: Fraction | None
    checks: tuple[LimitCheck, ...]
    exposures: tuple[Exposure, ...]
    plan: FuturesPlan | None


def futures_report(step: StepInput, drifts: Sequence[AssetDrift]) -> FuturesReport | None:
    """Return the futures layer of a step beside its spot portfolio; None without futures."""
    return None if step.futures is None else report_of(step, step.futures, drifts)


def report_of(
    step: StepInput, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> FuturesReport:
    """Return the futures layer. Its plan may deposit the wallet's investable collateral."""
    account = step.snapshot.futures
    if account is None:
        return FuturesReport(step, policy, None, None, (), (), None)
    spot = spot_value_raw(account, policy, drifts)
    if spot is None:
        return FuturesReport(step, policy, account, None, (), (), None)
    at_hand = next(one.investable_raw for one in drifts if one.token == policy.collateral)
    now_s = step.snapshot.head.timestamp_s
    return FuturesReport(
        step,
        policy,
        account,
        spot,
        tuple(limit_checks(margin_state(account, policy.limits), policy.limits, spot)),
        exposures(account, policy, drifts),
        plan_futures(account, policy, spot, now_s, at_hand),
    )


# --- Documents.


DAYS = 30
"""Horizon of the expected funding."""
RATIO_PLACES = 6
RATE_PLACES = 12
NO_SPOT_VALUE = (
    "the collateral has no reference price, so the value of the spot portfolio is not known"
)

Side = Annotated[str, one_of("long", "short")]
OrderSide = Annotated[str, one_of("buy", "sell")]

FuturesPositionDocument = TypedDict("FuturesPositionDocument", {
    "market": Address, "symbol": str, "side": Side, "size": Decimal, "size_raw": Raw,
    "notional": Decimal, "entry": Decimal, "mark": Decimal, "index": Decimal, "index_age_s": int,
    "unrealised": Decimal, "funding_pending": Decimal, "liquidation_price": Decimal | None,
    "liquidation_distance": Decimal | None,
})  # fmt: skip
"""An open position. `unrealised` is the profit at the mark, `funding_pending` the amount that the
account owes (negative: receives), `liquidation_distance` the move of the mark to
`liquidation_price` as a share."""
FuturesPositionsDocument = TypedDict("FuturesPositionsDocument", {
    "block": int, "account": Address, "unknown": str, "unit": str,
    "positions": list[FuturesPositionDocument],
})  # fmt: skip
"""Open positions. `unknown` is the reason if the account is unknown; `positions` is then empty."""
LimitDocument = TypedDict(
    "LimitDocument", {"limit": str, "measured": str, "allowed": str, "broken": bool}
)
FuturesOrderDocument = TypedDict("FuturesOrderDocument", {
    "market": Address, "symbol": str, "side": OrderSide, "size": Decimal, "size_raw": Raw,
    "bound": Decimal, "bound_raw": Raw, "bound_price": Decimal, "reduce_only": bool,
})  # fmt: skip
"""An order. `bound` is the maximum quote paid by a purchase or the minimum received by a sale."""
FuturesPlanDocument = TypedDict("FuturesPlanDocument", {
    "trigger": str, "reason": str, "top_up": Decimal, "top_up_raw": Raw, "reducing": bool,
    "emergency": bool, "orders": list[FuturesOrderDocument], "refused": list[str],
})  # fmt: skip
MarginFiguresDocument = TypedDict("MarginFiguresDocument", {
    "collateral": Decimal, "realised": Decimal, "unrealised": Decimal, "funding_pending": Decimal,
    "value": Decimal, "free": Decimal, "utilisation": Decimal | None, "leverage": Decimal | None,
    "initial": Decimal, "maintenance": Decimal, "gross": Decimal, "net": Decimal,
    "spot_value": Decimal | None,
})  # fmt: skip
"""Figures of the account by the definitions of docs/futures.md; ratios are None for an account
without value."""
MarginDocument = TypedDict("MarginDocument", {
    "block": int, "account": Address, "unknown": str, "unit": str,
    "margin": MarginFiguresDocument | None, "limits": list[LimitDocument],
    "plan": FuturesPlanDocument | None, "no_plan": str,
})  # fmt: skip
"""The margin account, its limits, and the orders that the agent would plan now; `no_plan` is the
reason if there is no plan."""
MarketFundingDocument = TypedDict("MarketFundingDocument", {
    "market": Address, "symbol": str, "daily_rate": Decimal, "notional": Decimal,
    "pending": Decimal, "daily": Decimal, "expected": Decimal,
})  # fmt: skip
"""Funding of one market: longs pay shorts `daily_rate` of the notional per day (negative: shorts
pay). `pending`, `daily` and `expected` are amounts that the account pays (negative: receives)."""
FundingDocument = TypedDict("FundingDocument", {
    "block": int, "account": Address, "unknown": str, "unit": str, "days": int,
    "markets": list[MarketFundingDocument], "pending": Decimal, "daily": Decimal,
    "expected": Decimal,
})  # fmt: skip
"""Funding of all markets; `expected` covers `days` at the current rates."""
ExposureDocument = TypedDict(
    "ExposureDocument", {"symbol": str, "spot": Money, "futures": Money, "net": Money}
)
FuturesSummaryDocument = TypedDict("FuturesSummaryDocument", {
    "account": Address, "unknown": str, "unit": str, "leverage": Decimal | None,
    "max_leverage": Decimal, "value": Decimal, "gross": Decimal, "utilisation": Decimal | None,
    "broken": list[str], "exposures": list[ExposureDocument],
})  # fmt: skip
"""The futures layer in status and plan: leverage, and the exposure to each price. `value` and
`gross` are in `unit`, exposures in the numeraire."""


def positions(found: FuturesReport) -> FuturesPositionsDocument:
    """Document of the open positions."""
    account, now_s = found.account, found.step.snapshot.head.timestamp_s
    shown = []
    if account is not None:
        shown = [_position(account, one, now_s) for one in account.positions]
    return {
        "block": found.step.snapshot.head.number,
        "account": found.policy.account,
        "unknown": found.step.snapshot.futures_unknown,
        "unit": _unit(found),
        "positions": shown,
    }


def margin_account(found: FuturesReport) -> MarginDocument:
    """Document of the margin account, its limits and the plan."""
    account = found.account
    no_plan = found.step.snapshot.futures_unknown
    if account is not None and found.plan is None:
        no_plan = NO_SPOT_VALUE
    return {
        "block": found.step.snapshot.head.number,
        "account": found.policy.account,
        "unknown": found.step.snapshot.futures_unknown,
        "unit": _unit(found),
        "margin": None if account is None else _figures(account, found),
        "limits": _limits(found),
        "plan": None if account is None or found.plan is None else _plan(account, found.plan),
        "no_plan": no_plan,
    }


def funding(found: FuturesReport) -> FundingDocument:
    """Document of funding: rates, what is pending, and what is expected."""
    account = found.account
    markets = [] if account is None else [_market_funding(account, one) for one in account.markets]
    pending, daily = Fraction(0), Fraction(0)
    if account is not None:
        pending = Fraction(margin.funding_pending_raw(account))
        daily = sum((_daily(account, one) for one in account.markets), Fraction(0))
    return {
        "block": found.step.snapshot.head.number,
        "account": found.policy.account,
        "unknown": found.step.snapshot.futures_unknown,
        "unit": _unit(found),
        "days": DAYS,
        "markets": markets,
        "pending": _quote(account, pending),
        "daily": _quote(account, daily),
        "expected": _quote(account, DAYS * daily),
    }


def summary(found: FuturesReport) -> FuturesSummaryDocument:
    """Summary of the futures layer beside the spot portfolio."""
    account, portfolio = found.account, found.step.portfolio
    return {
        "account": found.policy.account,
        "unknown": found.step.snapshot.futures_unknown,
        "unit": _unit(found),
        "leverage": None if account is None else _ratio(margin.leverage(account)),
        "max_leverage": decimal_text(found.policy.limits.max_leverage_bps, 4),
        "value": _quote(
            account, Fraction(0 if account is None else margin.account_value_raw(account))
        ),
        "gross": _quote(
            account, Fraction(0 if account is None else margin.gross_notional_raw(account))
        ),
        "utilisation": None if account is None else _ratio(margin.utilisation(account)),
        "broken": [one.limit for one in found.checks if one.is_broken],
        "exposures": [
            {
                "symbol": portfolio.token(one.token).label if one.token else one.symbol,
                "spot": money(one.spot, portfolio),
                "futures": money(one.futures, portfolio),
                "net": money(one.net, portfolio),
            }
            for one in found.exposures
        ],
    }


def optional_summary(
    step: StepInput, drifts: Sequence[AssetDrift]
) -> dict[str, FuturesSummaryDocument]:
    """Return the key `futures` with the summary of a step; nothing without futures."""
    found = futures_report(step, drifts)
    return {} if found is None else {"futures": summary(found)}


def _position(account: MarginAccount, position: Position, now_s: int) -> FuturesPositionDocument:
    market = account.market(position.market)
    value = margin.value_at_mark_raw(account, position)
    price = margin.liquidation_price(account, position.market)
    distance = margin.liquidation_distance(account, position.market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "side": "long" if position.is_long else "short",
        "size": decimal_text(position.size_raw, market.size_decimals),
        "size_raw": str(position.size_raw),
        "notional": _quote(account, Fraction(value)),
        "entry": _price(account, market, position.entry),
        "mark": _price(account, market, market.mark),
        "index": _price(account, market, market.index),
        "index_age_s": now_s - market.index_s,
        "unrealised": _quote(account, Fraction(value + position.open_notional_raw)),
        "funding_pending": _quote(account, Fraction(position.funding_pending_raw)),
        "liquidation_price": None if price is None else _price(account, market, price),
        "liquidation_distance": _ratio(distance),
    }


def _figures(account: MarginAccount, found: FuturesReport) -> MarginFiguresDocument:
    def amount(raw: int) -> str:
        return _quote(account, Fraction(raw))

    return {
        "collateral": amount(account.collateral_raw),
        "realised": amount(account.realised_raw),
        "unrealised": amount(margin.unrealised_raw(account)),
        "funding_pending": amount(margin.funding_pending_raw(account)),
        "value": amount(margin.account_value_raw(account)),
        "free": amount(margin.free_raw(account)),
        "utilisation": _ratio(margin.utilisation(account)),
        "leverage": _ratio(margin.leverage(account)),
        "initial": amount(margin.initial_raw(account)),
        "maintenance": amount(margin.maintenance_raw(account)),
        "gross": amount(margin.gross_notional_raw(account)),
        "net": amount(margin.net_notional_raw(account)),
        "spot_value": None if found.spot_value is None else _quote(account, found.spot_value),
    }


def _limits(found: FuturesReport) -> list[LimitDocument]:
    return [
        {
            "limit": one.limit,
            "measured": one.measured,
            "allowed": one.allowed,
            "broken": one.is_broken,
        }
        for one in found.checks
    ]


def _plan(account: MarginAccount, plan: FuturesPlan) -> FuturesPlanDocument:
    return {
        "trigger": plan.trigger,
        "reason": plan.reason,
        "top_up": _quote(account, Fraction(plan.top_up_raw * account.settlement_raw)),
        "top_up_raw": str(plan.top_up_raw),
        "reducing": plan.is_reducing,
        "emergency": plan.is_emergency,
        "orders": [_order(account, order) for order in plan.orders],
        "refused": list(plan.refused),
    }


def _order(account: MarginAccount, order: PerpOrder) -> FuturesOrderDocument:
    market = account.market(order.market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "side": "buy" if order.size_raw > 0 else "sell",
        "size": decimal_text(abs(order.size_raw), market.size_decimals),
        "size_raw": str(order.size_raw),
        "bound": _quote(account, Fraction(order.bound_raw)),
        "bound_raw": str(order.bound_raw),
        "bound_price": _price(account, market, Fraction(order.bound_raw, abs(order.size_raw))),
        "reduce_only": order.is_reduce_only,
    }


def _market_funding(account: MarginAccount, market: PerpMarket) -> MarketFundingDocument:
    owed = sum(one.funding_pending_raw for one in account.positions if one.market == market.market)
    daily = _daily(account, market)
    return {
        "market": market.market,
        "symbol": market.symbol,
        "daily_rate": value_text(market.funding_daily, 0, RATE_PLACES),
        "notional": _quote(account, Fraction(_notional_raw(account, market))),
        "pending": _quote(account, Fraction(owed)),
        "daily": _quote(account, daily),
        "expected": _quote(account, DAYS * daily),
    }


def _notional_raw(account: MarginAccount, market: PerpMarket) -> int:
    return margin.position_value_raw(market, account.size_raw(market.market))


def _daily(account: MarginAccount, market: PerpMarket) -> Fraction:
    """Return the funding per day at the current rate; negative if the account receives it."""
    return _notional_raw(account, market) * market.funding_daily


def _unit(found: FuturesReport) -> str:
    return "USD" if found.account is None else found.account.quote.symbol


def _quote(account: MarginAccount | None, raw: Fraction) -> str:
    return "0" if account is None else value_text(raw, account.quote.decimals)


def _price(account: MarginAccount, market: PerpMarket, price: Price) -> str:
    return price_text(price, market.size_decimals, account.quote.decimals)


def _ratio(value: Fraction | None) -> str | None:
    return None if value is None else value_text(value, 0, RATIO_PLACES)
