"""At which price an order acts, whether it may be armed at a price, and how that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import PORTFOLIO, Order, OrderKind, Orders, OrderStage, Portfolio, Terms
from agent.policy import words
from agent.units import BPS, Price, price_text

FIGURES = 7
"""Significant figures of a price in a sentence."""


def level(order: Order) -> Price | None:
    """The price at which it acts, numeraire base units per token base unit; None while what it counts from is not fixed."""
    terms, sign = order.terms, 1 if order.kind is OrderKind.TAKE_PROFIT else -1
    if order.kind is OrderKind.TRAILING_STOP:
        if order.mark is None:
            return None
        return order.mark - terms.price if terms.price is not None else order.mark * (1 - _share(terms))
    if terms.price is not None:
        return terms.price
    return None if order.basis is None else order.basis * (1 + sign * _share(terms))


def armed(order: Order, price: Price, now_s: int, book: Orders, entry: Order | None = None) -> Order:
    """The order with its level fixed at `price`, watching. Shares of exits count from the level of `entry`, where one is in force.

    Raises Refused, saying why, for a level that could never be met, or that the price has met already: what would fire at once
    is no order but a trade.
    """
    counts_from = price if entry is None or not order.is_exit else level(entry) or price
    return fitted(replace(order, stage=OrderStage.ARMED, basis=counts_from, mark=price, at=None, since_s=now_s), price, book)


def fitted(order: Order, price: Price, book: Orders) -> Order:
    """The order, if its level fits `price`. Raises Refused otherwise."""
    at, room = level(order), Fraction(book.hysteresis_bps, BPS)
    if at is None or at <= 0:
        raise Refused("its level is at or below zero, so that it can never act", remedy="write a price above zero, or less than 100%")
    match order.kind:
        case OrderKind.ENTRY:
            if at >= price and book.refuse_filled:
                raise Refused("its level is at or above the price, so that it is bought at once", remedy="lower it, or remove it")
        case OrderKind.TAKE_PROFIT:
            if at <= price:
                raise Refused("its level is not above the price", remedy="raise it, or sell by hand")
            if at < price * (1 + room):
                raise Refused(f"its level is within the hysteresis of {words.percent(room)} of the price", remedy="raise it")
        case OrderKind.STOP_LOSS | OrderKind.TRAILING_STOP:
            if at >= price:
                raise Refused("its level is not below the price", remedy="lower it, or sell by hand")
            if at > price * (1 - room):
                raise Refused(f"its level is within the hysteresis of {words.percent(room)} of the price", remedy="lower it")
    return order


def waits_for(kind: OrderKind, entry: Order | None) -> bool:
    """Whether an order is armed only once the entry has opened: before that there is no profit to take and no highest price. A stop
    loss is armed at once, so that prices that leap over both buy nothing.
    """
    if entry is None or kind in (OrderKind.ENTRY, OrderKind.STOP_LOSS):
        return False
    return entry.stage is not OrderStage.FIRED and entry.at is None


def filled_at_once(order: Order) -> bool:
    """Whether an entry stood at or above the price when it was armed: it then held nothing back."""
    at = level(order)
    return order.kind is OrderKind.ENTRY and order.basis is not None and at is not None and at >= order.basis


def distance(order: Order, price: Price) -> Fraction | None:
    """By which part of itself the price has to move until the order acts, with sign; None while its level is not fixed."""
    at = level(order)
    return None if at is None or price <= 0 else at / price - 1


def name(portfolio: Portfolio, order: Order | Terms) -> str:
    """What an order is called: "stop_loss of WETH"."""
    return f"{order.kind.value} of {subject(portfolio, order.token)}"


def subject(portfolio: Portfolio, token: str) -> str:
    """What an order is about: a symbol, the portfolio, or the address of a token that is no asset any more."""
    if token == PORTFOLIO:
        return "the portfolio"
    try:
        return portfolio.token(token).label
    except KeyError:
        return token


def price_words(portfolio: Portfolio, token: str, price: Price | None) -> str:
    """A price in whole coins of the numeraire; of the portfolio what a unit of it is worth, which began at 1."""
    if price is None:
        return "not fixed"
    if token == PORTFOLIO:
        return f"{price_text(price, 0, 0, 6)} a unit"
    try:
        decimals = portfolio.token(token).decimals
    except KeyError:
        return "unknown"
    return f"{price_text(price, decimals, portfolio.numeraire.decimals, FIGURES)} {portfolio.numeraire.label}"


def orders_words(portfolio: Portfolio) -> str:
    """All orders as their owner set them, and where the weight of what is out goes; empty without orders."""
    book = portfolio.orders
    if not book.terms:
        return ""
    levels = (price_words(portfolio, one.token, one.price) if one.share_bps is None else f"{one.share_bps / 100:g}%" for one in book.terms)
    told = [f"{name(portfolio, one)} {level}" for one, level in zip(book.terms, levels, strict=True)]
    filled = "refused" if book.refuse_filled else "bought at once"
    return (
        f"{', '.join(told)}; absent: {book.absent.value}, hysteresis {book.hysteresis_bps / 100:g}%, an entry above the price is {filled}"
    )


def by_key(orders: tuple[Order, ...]) -> Mapping[tuple[str, OrderKind], Order]:
    """Orders by what there is one of."""
    return {order.key: order for order in orders}


def _share(terms: Terms) -> Fraction:
    return Fraction(terms.share_bps or 0, BPS)
