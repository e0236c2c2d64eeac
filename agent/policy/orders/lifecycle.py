"""How orders move from stage to stage: by reference prices that the blocks before confirm, and by nothing else (T3).

Nothing moves while a price is unknown or contradicts another; then nothing is decided either, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import PORTFOLIO, AssetDrift, Order, OrderKind, OrderStage, StepInput, Terms, UnitValue
from agent.policy.drift import drift, total
from agent.policy.orders import levels as unit_value
from agent.policy.orders.levels import armed, by_key, fitted, level, waits_for
from agent.reference import contradiction, depeg_fault, prices_at, reference_prices, sequencer_fault
from agent.units import BPS, Price, Value

HIGHER = Fraction(1, 1_000)
"""Least rise above the highest price of a trailing stop that is written down: a market that climbs makes few writes."""
CRUMB = Fraction(1, BPS)
"""Part of the portfolio that may be left of what was sold, where limits.min_trade is off or less."""
ORDER = {kind: number for number, kind in enumerate(OrderKind)}
SOLD = (OrderStage.FIRED, OrderStage.DONE)


@dataclass(frozen=True, slots=True)
class Seen:
    """Prices by token, of now and of the blocks before, newest first; `settled` says that these are all that are asked for.

    PORTFOLIO is what a unit of the portfolio is worth.
    """

    now: Mapping[str, Price]
    before: tuple[Mapping[str, Price], ...]
    settled: bool

    def span(self, token: str) -> tuple[Price, Price] | None:
        """Lowest and highest price that the blocks agree on; None where one of them does not tell it."""
        found = [prices[token] for prices in (self.now, *self.before) if token in prices]
        return (min(found), max(found)) if self.settled and len(found) == 1 + len(self.before) else None


def moved(step: StepInput) -> StepInput:
    """The step with every order as it stands after this block, and the unit's worth carried on. Changes nothing without orders."""
    book, known = step.portfolio.orders, step.history.orders
    if not book.terms and not known:
        return step
    references = reference_prices(step)
    if any((sequencer_fault(step), depeg_fault(step, references), contradiction(step))):
        return step
    prices = {token: found.price for token, found in references.prices.items()}
    drifts = _drifts(step, prices)
    kept = step.history.unit_value
    if drifts and PORTFOLIO in {*(one.token for one in book.terms), *(one.token for one in known)}:
        kept = unit_value.carried(step, prices, drifts)
    seen = _seen(step, prices, kept)
    tokens = dict.fromkeys((*(one.token for one in book.terms), *(order.token for order in known)))
    orders = tuple(order for token in tokens for order in _of_token(step, token, seen, drifts))
    return replace(step, history=replace(step.history, orders=orders, unit_value=kept))


def stirring(step: StepInput) -> bool:
    """Whether prices of now alone would move an order, so that the blocks before have to be read."""
    if step.policy.confirm_blocks == 0 or step.snapshot.past or not (step.portfolio.orders.terms or step.history.orders):
        return False
    return unconfirmed(step) != ()


def unconfirmed(step: StepInput) -> tuple[Order, ...]:
    """Orders as they would stand next if the blocks before said what this one says; none of those that stay as they are."""
    if step.policy.confirm_blocks == 0:
        return ()
    alone = moved(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    now = by_key(step.history.orders)
    return tuple(order for order in alone.history.orders if now.get(order.key) != order)


def out_of(orders: Sequence[Order], token: str) -> Order | None:
    """The order that keeps `token` out of the market: an exit that fired, its own or the portfolio's; None when none does."""
    return next((order for order in orders if order.token == token and order.is_exit and order.stage in SOLD), None)


def waits(step: StepInput, token: str) -> bool:
    """Whether its entry holds it back: it has not fired, or has closed again."""
    entry = by_key(step.history.orders).get((token, OrderKind.ENTRY))
    return entry is not None and entry.stage in (OrderStage.WAITING, OrderStage.ARMED)


def crumb(step: StepInput, drifts: Sequence[AssetDrift]) -> Value:
    """Worth below which what is left of an asset counts as sold, numeraire base units."""
    return max(step.limits.min_trade or Fraction(0), total(drifts) * CRUMB)


def in_wanted_liquidity(step: StepInput, token: str) -> bool:
    """Whether some of it lies in a pool for which there is a target, so that it is taken out."""
    pools = {target.pool for target in step.portfolio.lp_targets if token in (target.token0, target.token1)}
    found = {getattr(one, "pair", None) or getattr(one, "pool", None) for one in step.snapshot.positions if getattr(one, "liquidity", 0)}
    return bool(pools & found)


def _drifts(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    try:
        return drift(step, prices)
    except Refused:  # a balance or a price lacks: nothing is decided, and nothing counts as sold
        return ()


def _seen(step: StepInput, prices: Mapping[str, Price], kept: UnitValue | None) -> Seen:
    wanted = step.policy.confirm_blocks
    past, head = step.snapshot.past[:wanted], step.snapshot.head.number
    settled = [block.head.number for block in past] == list(range(head - 1, head - 1 - wanted, -1))
    found = [{token: one.price for token, one in prices_at(step, block).prices.items()} for block in past]
    now, *before = [
        {**each, PORTFOLIO: unit_value.worth_at(kept, each)} if unit_value.known_at(kept, each) else each for each in (dict(prices), *found)
    ]
    return Seen(now, tuple(before), settled)


def _of_token(step: StepInput, token: str, seen: Seen, drifts: Sequence[AssetDrift]) -> list[Order]:
    """All orders of one token. Once one of its exits has fired, or one of the portfolio, the others rest with it."""
    wanted = {terms.kind: terms for terms in step.portfolio.orders.terms if terms.token == token}
    known = {order.kind: order for order in step.history.orders if order.token == token}
    gone = any(out_of(step.history.orders, one) for one in (token, PORTFOLIO))
    entry: Order | None = None
    found: list[Order] = []
    for kind in sorted({*wanted, *known}, key=ORDER.__getitem__):
        order, terms = known.get(kind), wanted.get(kind)
        if order is None and terms is not None:
            order = Order(token, kind, OrderStage.WAITING, terms, step.snapshot.head.timestamp_s)
        if order is None or (terms is None and not (order.is_exit and order.stage in SOLD)):
            continue  # its owner has taken it out of the config; what fired stays out all the same
        if order.stage is OrderStage.FIRED and order.is_exit:
            order = _sold(step, order, drifts)
        elif terms is not None and not (gone and order.is_exit):
            order = _next(step, order, terms, seen, entry)
            gone = gone or (order.is_exit and order.stage is OrderStage.FIRED)
        if kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF:
            entry = order
        found.append(order)
    return found


def _next(step: StepInput, order: Order, terms: Terms, seen: Seen, entry: Order | None) -> Order:
    book, now_s, span = step.portfolio.orders, step.snapshot.head.timestamp_s, seen.span(order.token)
    price = seen.now.get(order.token)
    if price is None or price <= 0:
        return order
    if order.stage is OrderStage.FIRED and _above(order, price):  # an entry closes at once: nobody's confirmation makes it buy dearer
        order = replace(order, stage=OrderStage.ARMED, at=price, since_s=now_s)
    if order.stage in (OrderStage.WAITING, OrderStage.OFF):
        order = replace(order, terms=terms)
    steady = span is not None and span[1] - span[0] <= Fraction(book.hysteresis_bps, BPS) * price
    try:
        if order.stage is OrderStage.WAITING and steady and not waits_for(order.kind, entry):
            order = armed(order, price, now_s, book, entry)
        elif order.terms != terms:
            order = fitted(replace(order, terms=terms), price, book)
    except Refused:  # said by order_targets.faults, and nothing is traded until its owner has looked at it
        return order
    return order if span is None or order.stage is not OrderStage.ARMED else _watched(order, span, price, now_s, book.hysteresis_bps)


def _above(order: Order, price: Price) -> bool:
    at = level(order)
    return order.kind is OrderKind.ENTRY and at is not None and price > at


def _watched(order: Order, span: tuple[Price, Price], price: Price, now_s: int, hysteresis_bps: int) -> Order:
    """An order that watches, after prices between the lowest and the highest of `span`."""
    lowest, highest = span
    at = level(order)
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
    return in_wanted_liquidity(step, one.token) and one.lp_raw * one.price >= least


def _sold(step: StepInput, order: Order, drifts: Sequence[AssetDrift]) -> Order:
    """An exit that fired is done once no more than a crumb is left of what it sells."""
    numeraire = step.portfolio.numeraire.address
    sells = [one for one in drifts if one.token == order.token or (order.token == PORTFOLIO and one.token != numeraire)]
    least = crumb(step, drifts)
    left = any(0 < one.investable_raw * one.price >= least or _in_liquidity(step, one, least) for one in sells)
    if left or not drifts:
        return order
    return replace(order, stage=OrderStage.DONE, since_s=step.snapshot.head.timestamp_s)
