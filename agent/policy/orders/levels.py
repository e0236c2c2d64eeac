"""Price levels of orders: trigger price, validity when arming, expiry, NAV per share, and their
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    PORTFOLIO,
    AssetDrift,
    ConditionalOrder,
    LimitOrder,
    NavPerShare,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    Portfolio,
    StepInput,
)
from agent.policy import text
from agent.units import BPS, Price, floor_int, price_text

FIGURES = 7
"""Significant figures of a price in a sentence."""


def trigger_price(order: ConditionalOrder) -> Price | None:
    """Return the price at which the order triggers, numeraire base units per token base unit; None
    while its basis is not fixed.
    """
    terms, sign = order.terms, 1 if order.kind is OrderKind.TAKE_PROFIT else -1
    if order.kind is OrderKind.TRAILING_STOP:
        if order.mark is None:
            return None
        return (
            order.mark - terms.price
            if terms.price is not None
            else order.mark * (1 - _share(terms))
        )
    if terms.price is not None:
        return terms.price
    return None if order.basis is None else order.basis * (1 + sign * _share(terms))


def arm_order(
    order: ConditionalOrder,
    price: Price,
    now_s: int,
    book: OrdersConfig,
    entry: ConditionalOrder | None = None,
) -> ConditionalOrder:
    """Return the order armed at `price`. Shares of exits count from the level of `entry`, if one is
    in force.

    Raises Refused for a level that can never be met, or that the price has met already: an order
    that would fire at once is a trade.
    """
    counts_from = price if entry is None or not order.is_exit else trigger_price(entry) or price
    return require_valid_level(
        replace(
            order, stage=OrderStage.ARMED, basis=counts_from, mark=price, at=None, since_s=now_s
        ),
        price,
        book,
    )


def require_valid_level(
    order: ConditionalOrder, price: Price, book: OrdersConfig
) -> ConditionalOrder:
    """The order, if its level fits `price`. Raises Refused otherwise."""
    at, room = trigger_price(order), Fraction(book.hysteresis_bps, BPS)
    if at is None or at <= 0:
        raise Refused(
            "its level is at or below zero, so that it can never act",
            remedy="write a price above zero, or less than 100%",
        )
    match order.kind:
        case OrderKind.ENTRY:
            if at >= price and book.refuse_filled:
                raise Refused(
                    "its level is at or above the price, so it is bought immediately",
                    remedy="lower it, or remove it",
                )
        case OrderKind.TAKE_PROFIT:
            if at <= price:
                raise Refused(
                    "its level is not above the price", remedy="raise it, or sell manually"
                )
            if at < price * (1 + room):
                raise Refused(
                    f"its level is within the hysteresis of {text.format_percent(room)} of the"
                    " price",
                    remedy="raise it",
                )
        case OrderKind.STOP_LOSS | OrderKind.TRAILING_STOP:
            if at >= price:
                raise Refused(
                    "its level is not below the price", remedy="lower it, or sell manually"
                )
            if at > price * (1 - room):
                raise Refused(
                    f"its level is within the hysteresis of {text.format_percent(room)} of the"
                    " price",
                    remedy="lower it",
                )
    return order


def waits_for_entry(kind: OrderKind, entry: ConditionalOrder | None) -> bool:
    """True if an order is armed only once the entry has opened: before that there is no profit or
    highest price.

    A stop loss is armed at once, so that a price that jumps over both levels buys nothing.
    """
    if entry is None or kind in (OrderKind.ENTRY, OrderKind.STOP_LOSS):
        return False
    return entry.stage is not OrderStage.FIRED and entry.at is None


def was_filled_when_armed(order: ConditionalOrder) -> bool:
    """True if an entry was at or above the price when it was armed, so that it held nothing
    back.
    """
    at = trigger_price(order)
    return (
        order.kind is OrderKind.ENTRY
        and order.basis is not None
        and at is not None
        and at >= order.basis
    )


def distance_to_trigger(order: ConditionalOrder, price: Price) -> Fraction | None:
    """Return the relative price move until the order triggers, signed; None while its level is not
    fixed.
    """
    at = trigger_price(order)
    return None if at is None or price <= 0 else at / price - 1


def order_name(portfolio: Portfolio, order: ConditionalOrder | OrderTerms) -> str:
    """Return an order's display name: "stop_loss of WETH"."""
    return f"{order.kind.value} of {order_subject(portfolio, order.token)}"


def order_subject(portfolio: Portfolio, token: str) -> str:
    """Return the subject of an order: a symbol, the portfolio, or the address of a token that is no
    longer an asset.
    """
    if token == PORTFOLIO:
        return "the portfolio"
    try:
        return portfolio.token(token).label
    except KeyError:
        return token


def format_order_price(portfolio: Portfolio, token: str, price: Price | None) -> str:
    """Format a price in whole coins of the numeraire; for the portfolio its NAV per share, which
    began at 1.
    """
    if price is None:
        return "not fixed"
    if token == PORTFOLIO:
        return f"{price_text(price, 0, 0, 6)} a unit"
    try:
        decimals = portfolio.token(token).decimals
    except KeyError:
        return "unknown"
    return (
        f"{price_text(price, decimals, portfolio.numeraire.decimals, FIGURES)}"
        f" {portfolio.numeraire.label}"
    )


def format_orders(portfolio: Portfolio) -> str:
    """Format all orders as set by their owner, and the destination of exited weight; empty without
    orders.
    """
    book = portfolio.orders
    if not book.terms:
        return ""
    levels = (
        (
            format_order_price(portfolio, one.token, one.price)
            if one.share_bps is None
            else f"{one.share_bps / 100:g}%"
        )
        for one in book.terms
    )
    texts = [
        f"{order_name(portfolio, one)} {level}"
        for one, level in zip(book.terms, levels, strict=True)
    ]
    filled = "refused" if book.refuse_filled else "bought immediately"
    return (
        f"{', '.join(texts)}; absent: {book.absent.value}, hysteresis"
        f" {book.hysteresis_bps / 100:g}%, an entry above the price is {filled}"
    )


def orders_by_key(
    orders: tuple[ConditionalOrder, ...],
) -> Mapping[tuple[str, OrderKind], ConditionalOrder]:
    """Return orders by their unique key."""
    return {order.key: order for order in orders}


def _share(terms: OrderTerms) -> Fraction:
    return Fraction(terms.share_bps or 0, BPS)


# --- Expiry of a limit order: it is never sent if it could still be mined after its time (T14); and
# NAV per share.


def expiry_reason(step: StepInput, order: LimitOrder) -> str:
    """Return why the order must not be sent any more at this block; empty while it may. A
    transaction counts until its deadline.
    """
    now_s, deadline_s = step.snapshot.head.timestamp_s, step.execution.deadline_s
    if now_s >= order.until_s:
        return f"expired {text.format_time(order.until_s)}"
    if now_s + deadline_s > order.until_s:
        return (
            f"expires {text.format_time(order.until_s)}, sooner than a transaction of now would"
            f" (execution.deadline {deadline_s} s)"
        )
    return ""


# --- NAV per share, the true time-weighted return: price gains and own trades, without deposits and
# withdrawals.
# A change of holdings starts a new span. Within a span it follows the value of the holdings less
# the loss by own transactions; fees and
# impermanent loss of positions are not counted.


UNIT_VALUE_FIGURES = 10**12
"""Parts of a unit that its value is rounded down to: products of exact fractions would grow without
bound.
"""
MOVED = Fraction(1, 1_000)
"""Part of the portfolio by which holdings must change to begin a new span, so that dust writes
nothing."""


def unit_value_at(kept: NavPerShare | None, prices: Mapping[str, Price]) -> Fraction:
    """Return the NAV per share at these prices; 1 before the first record. Tokens without a price
    then or now are left out.
    """
    if kept is None:
        return Fraction(1)
    then = dict(kept.prices)
    both = [
        (raw, then[token], prices[token])
        for token, raw in kept.holdings
        if token in then and token in prices
    ]
    before = sum((raw * price for raw, price, _ in both), Fraction(0))
    after = sum((raw * price for raw, _, price in both), Fraction(0)) - kept.lost
    return kept.worth if before <= 0 else max(Fraction(0), kept.worth * after / before)


def is_known_at(kept: NavPerShare | None, prices: Mapping[str, Price]) -> bool:
    """True if every recorded holding has a price; otherwise the NAV per share would be another
    portfolio's.
    """
    return kept is None or all(token in prices for token, raw in kept.holdings if raw)


def updated_unit_value(
    step: StepInput, prices: Mapping[str, Price], drifts: Sequence[AssetDrift]
) -> NavPerShare:
    """Return the NAV record to store: the same while holdings are alike, else a new one that begins
    at this block.
    """
    kept = step.history.unit_value
    held = {drift.token: drift.investable_raw + drift.lp_raw for drift in drifts}
    had = {} if kept is None else dict(kept.holdings)
    if kept is not None and had.keys() == held.keys():
        moved = sum(
            (abs(raw - had[token]) * prices[token] for token, raw in held.items()), Fraction(0)
        )
        if moved <= MOVED * sum((drift.value for drift in drifts), Fraction(0)):
            return kept
    worth = Fraction(
        floor_int(unit_value_at(kept, prices) * UNIT_VALUE_FIGURES), UNIT_VALUE_FIGURES
    )
    kept_prices = tuple((token, prices[token]) for token in held)
    return NavPerShare(worth, step.snapshot.head.timestamp_s, tuple(held.items()), kept_prices)
