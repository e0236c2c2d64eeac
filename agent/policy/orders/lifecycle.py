"""Order lifecycle: stages change by reference prices that the preceding blocks confirm, and by
nothing else (T3).

No stage changes while a price is unknown or sources conflict; then nothing is decided, and the
reason is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    PORTFOLIO,
    AssetDrift,
    ConditionalOrder,
    NavPerShare,
    OrderKind,
    OrderStage,
    OrderTerms,
    StepInput,
)
from agent.policy.drift import compute_drifts, investable_total
from agent.policy.orders import levels
from agent.policy.orders.levels import (
    arm_order,
    orders_by_key,
    require_valid_level,
    trigger_price,
    waits_for_entry,
)
from agent.reference import (
    depeg_fault,
    reference_prices,
    reference_prices_at,
    sequencer_fault,
    source_conflict,
)
from agent.units import BPS, Price, Value

HIGHER = Fraction(1, 1_000)
"""Smallest recorded rise above the highest price of a trailing stop: limits writes in a rising
market.
"""
DUST_SHARE = Fraction(1, BPS)
"""Fraction of the portfolio that may remain of a sold asset, if limits.min_trade is off or less."""
ORDER = {kind: number for number, kind in enumerate(OrderKind)}
EXITED_STAGES = (OrderStage.FIRED, OrderStage.DONE)


@dataclass(frozen=True, slots=True)
class PriceWindow:
    """Prices by token, of now and of the preceding blocks, newest first; `is_complete` is true if
    no required block is missing.

    PORTFOLIO has the NAV per share.
    """

    now: Mapping[str, Price]
    before: tuple[Mapping[str, Price], ...]
    is_complete: bool

    def span(self, token: str) -> tuple[Price, Price] | None:
        """Return the lowest and highest price over the blocks; None if one of them has no price."""
        found = [prices[token] for prices in (self.now, *self.before) if token in prices]
        return (
            (min(found), max(found))
            if self.is_complete and len(found) == 1 + len(self.before)
            else None
        )


def advance_orders(step: StepInput) -> StepInput:
    """Return the step with every order advanced to this block, and the NAV per share updated.
    Unchanged without orders.
    """
    book, known = step.portfolio.orders, step.history.orders
    if not book.terms and not known:
        return step
    references = reference_prices(step)
    if any((sequencer_fault(step), depeg_fault(step, references), source_conflict(step))):
        return step
    prices = references.by_token
    drifts = _drifts(step, prices)
    kept = step.history.unit_value
    if drifts and PORTFOLIO in {*(one.token for one in book.terms), *(one.token for one in known)}:
        kept = levels.updated_unit_value(step, prices, drifts)
    seen = _seen(step, prices, kept)
    tokens = dict.fromkeys((*(one.token for one in book.terms), *(order.token for order in known)))
    orders = tuple(order for token in tokens for order in _of_token(step, token, seen, drifts))
    return replace(step, history=replace(step.history, orders=orders, unit_value=kept))


def needs_past_prices(step: StepInput) -> bool:
    """True if current prices alone would change an order, so that the preceding blocks must be
    read.
    """
    if (
        step.policy.confirm_blocks == 0
        or step.snapshot.past
        or not (step.portfolio.orders.terms or step.history.orders)
    ):
        return False
    return unconfirmed_orders(step) != ()


def unconfirmed_orders(step: StepInput) -> tuple[ConditionalOrder, ...]:
    """Return the orders that current prices alone would change, in their next state."""
    if step.policy.confirm_blocks == 0:
        return ()
    alone = advance_orders(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    now = orders_by_key(step.history.orders)
    return tuple(order for order in alone.history.orders if now.get(order.key) != order)


def fired_exit_order(orders: Sequence[ConditionalOrder], token: str) -> ConditionalOrder | None:
    """Return the order that keeps `token` out of the market: a triggered exit of it or of the
    portfolio; None otherwise.
    """
    return next(
        (
            order
            for order in orders
            if order.token == token and order.is_exit and order.stage in EXITED_STAGES
        ),
        None,
    )


def is_entry_pending(step: StepInput, token: str) -> bool:
    """True if the token's entry holds it back: not fired, or closed again."""
    entry = orders_by_key(step.history.orders).get((token, OrderKind.ENTRY))
    return entry is not None and entry.stage in (OrderStage.WAITING, OrderStage.ARMED)


def dust_value(step: StepInput, drifts: Sequence[AssetDrift]) -> Value:
    """Return the value below which the remainder of an asset counts as sold, numeraire base
    units.
    """
    return max(step.limits.min_trade or Fraction(0), investable_total(drifts) * DUST_SHARE)


def is_in_targeted_pool(step: StepInput, token: str) -> bool:
    """True if a pool with a liquidity target holds the token, and is withdrawn first."""
    pools = {
        target.pool
        for target in step.portfolio.lp_targets
        if token in (target.token0, target.token1)
    }
    found = {
        getattr(one, "pair", None) or getattr(one, "pool", None)
        for one in step.snapshot.positions
        if getattr(one, "liquidity", 0)
    }
    return bool(pools & found)


def _drifts(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    try:
        return compute_drifts(step, prices)
    except Refused:  # without a balance or a price nothing is decided, and no exit counts as sold
        return ()


def _seen(step: StepInput, prices: Mapping[str, Price], kept: NavPerShare | None) -> PriceWindow:
    wanted = step.policy.confirm_blocks
    past, head = step.snapshot.past[:wanted], step.snapshot.head.number
    settled = [block.head.number for block in past] == list(range(head - 1, head - 1 - wanted, -1))
    found = [reference_prices_at(step, block).by_token for block in past]
    now, *before = [
        (
            {**each, PORTFOLIO: levels.unit_value_at(kept, each)}
            if levels.is_known_at(kept, each)
            else each
        )
        for each in (dict(prices), *found)
    ]
    return PriceWindow(now, tuple(before), settled)


def _of_token(
    step: StepInput, token: str, seen: PriceWindow, drifts: Sequence[AssetDrift]
) -> list[ConditionalOrder]:
    """Return all orders of one token. Once one of its exits or one of the portfolio has fired, its
    other exits pause.
    """
    wanted = {terms.kind: terms for terms in step.portfolio.orders.terms if terms.token == token}
    known = {order.kind: order for order in step.history.orders if order.token == token}
    gone = any(fired_exit_order(step.history.orders, one) for one in (token, PORTFOLIO))
    entry: ConditionalOrder | None = None
    found: list[ConditionalOrder] = []
    for kind in sorted({*wanted, *known}, key=ORDER.__getitem__):
        order, terms = known.get(kind), wanted.get(kind)
        if order is None and terms is not None:
            order = ConditionalOrder(
                token, kind, OrderStage.WAITING, terms, step.snapshot.head.timestamp_s
            )
        if order is None or (
            terms is None and not (order.is_exit and order.stage in EXITED_STAGES)
        ):
            continue  # removed from the config by the owner; a fired exit stays in force
        if order.stage is OrderStage.FIRED and order.is_exit:
            order = _sold(step, order, drifts)
        elif terms is not None and not (gone and order.is_exit):
            order = _next(step, order, terms, seen, entry)
            gone = gone or (order.is_exit and order.stage is OrderStage.FIRED)
        if kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF:
            entry = order
        found.append(order)
    return found


def _next(
    step: StepInput,
    order: ConditionalOrder,
    terms: OrderTerms,
    seen: PriceWindow,
    entry: ConditionalOrder | None,
) -> ConditionalOrder:
    book, now_s, span = (
        step.portfolio.orders,
        step.snapshot.head.timestamp_s,
        seen.span(order.token),
    )
    price = seen.now.get(order.token)
    if price is None or price <= 0:
        return order
    if order.stage is OrderStage.FIRED and _above(
        order, price
    ):  # an entry closes without confirmation
        order = replace(order, stage=OrderStage.ARMED, at=price, since_s=now_s)
    if order.stage in (OrderStage.WAITING, OrderStage.OFF):
        order = replace(order, terms=terms)
    steady = span is not None and span[1] - span[0] <= Fraction(book.hysteresis_bps, BPS) * price
    try:
        if order.stage is OrderStage.WAITING and steady and not waits_for_entry(order.kind, entry):
            order = arm_order(order, price, now_s, book, entry)
        elif order.terms != terms:
            order = require_valid_level(replace(order, terms=terms), price, book)
    except Refused:  # exits.faults reports it, and nothing is traded until the owner resolves it
        return order
    return (
        order
        if span is None or order.stage is not OrderStage.ARMED
        else _watched(order, span, price, now_s, book.hysteresis_bps)
    )


def _above(order: ConditionalOrder, price: Price) -> bool:
    at = trigger_price(order)
    return order.kind is OrderKind.ENTRY and at is not None and price > at


def _watched(
    order: ConditionalOrder,
    span: tuple[Price, Price],
    price: Price,
    now_s: int,
    hysteresis_bps: int,
) -> ConditionalOrder:
    """An order that watches, after prices between the lowest and the highest of `span`."""
    lowest, highest = span
    at = trigger_price(order)
    if at is None:
        return order
    fired = replace(order, stage=OrderStage.FIRED, at=price, since_s=now_s)
    match order.kind:
        case OrderKind.ENTRY:
            opens = at if order.at is None else at * (1 - Fraction(hysteresis_bps, BPS))
            return fired if highest <= opens else order
        case OrderKind.STOP_LOSS:
            return fired if highest <= at else order
        case OrderKind.TAKE_PROFIT:
            return fired if lowest >= at else order
        case OrderKind.TRAILING_STOP:
            if highest <= at:
                return fired
            higher = order.mark is not None and lowest >= order.mark * (1 + HIGHER)
            return replace(order, mark=lowest) if higher else order


def _in_liquidity(step: StepInput, one: AssetDrift, least: Value) -> bool:
    return is_in_targeted_pool(step, one.token) and one.lp_raw * one.price >= least


def _sold(
    step: StepInput, order: ConditionalOrder, drifts: Sequence[AssetDrift]
) -> ConditionalOrder:
    """Mark a fired exit as done once only dust of what it sells remains."""
    numeraire = step.portfolio.numeraire.address
    sells = [
        one
        for one in drifts
        if one.token == order.token or (order.token == PORTFOLIO and one.token != numeraire)
    ]
    least = dust_value(step, drifts)
    left = any(
        0 < one.investable_raw * one.price >= least or _in_liquidity(step, one, least)
        for one in sells
    )
    if left or not drifts:
        return order
    return replace(order, stage=OrderStage.DONE, since_s=step.snapshot.head.timestamp_s)
