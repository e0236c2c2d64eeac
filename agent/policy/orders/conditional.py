"""Conditional orders: price levels, stages, expiry, and NAV per share.

Stages change only at reference prices that the preceding blocks confirm (T3). While the price of a
token is unknown or its sources conflict, the stages of its orders do not change, and the reason is
reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.questions import (
    KEEPS,
    account_mark,
    account_result,
    apart_raw,
    unknown_value_reason,
)
from agent.model import (
    PORTFOLIO,
    AssetDrift,
    ConditionalOrder,
    ExecutionConfig,
    History,
    LimitOrder,
    Limits,
    NavPerShare,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy.drift import compute_drifts, investable_total
from agent.reference import (
    depeg_fault,
    price_fault,
    price_inputs,
    prices_from,
    reference_prices,
    sequencer_fault,
    source_conflict,
)
from agent.units import BPS, Price, Value, floor_int, format_percent, format_time, price_text

# --- Price levels of orders: trigger price, validity when arming, expiry, NAV per share, and their
# text.


FIGURES = 7
"""Significant figures of a price in messages."""


def trigger_price(order: ConditionalOrder) -> Price | None:
    """Return the price at which the order triggers, in numeraire base units per token base unit;
    None while its basis is not fixed.
    """
    terms, sign = order.terms, 1 if order.kind is OrderKind.TAKE_PROFIT else -1
    if order.kind is OrderKind.TRAILING_STOP:
        if order.mark is None:
            return None
        if terms.price is not None:
            return order.mark - terms.price
        return order.mark * (1 - _share(terms))
    if terms.price is not None:
        return terms.price
    if order.basis is None:
        return None
    return order.basis * (1 + sign * _share(terms))


def arm_order(
    order: ConditionalOrder,
    price: Price,
    now_s: int,
    book: OrdersConfig,
    entry: ConditionalOrder | None = None,
) -> ConditionalOrder:
    """Return the order armed at `price`. Shares of exits count from the level of `entry`, if one is
    in force.

    Raises Refused for a level that can never be met, and for an exit whose level the price has met,
    or has reached within the hysteresis, because it would fire at once. An entry at or above the
    price is refused if the config says so.
    """
    if entry is None or not order.is_exit:
        counts_from = price
    else:
        counts_from = trigger_price(entry) or price
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
    """Return the order if its level fits `price`. Raises Refused otherwise."""
    at, room = trigger_price(order), Fraction(book.hysteresis_bps, BPS)
    if at is None or at <= 0:
        raise Refused(
            "its level is at or below zero, so it can never fire",
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
                    f"its level is within the hysteresis of {format_percent(room)} of the price",
                    remedy="raise it",
                )
        case OrderKind.STOP_LOSS | OrderKind.TRAILING_STOP:
            if at >= price:
                raise Refused(
                    "its level is not below the price", remedy="lower it, or sell manually"
                )
            if at > price * (1 - room):
                raise Refused(
                    f"its level is within the hysteresis of {format_percent(room)} of the price",
                    remedy="lower it",
                )
    return order


def waits_for_entry(kind: OrderKind, entry: ConditionalOrder | None) -> bool:
    """True if the order is armed only after its entry was filled, because before that there is no
    profit or highest price. A stop loss is armed at once, so that a price jump over both levels
    does not buy.
    """
    if entry is None or kind in (OrderKind.ENTRY, OrderKind.STOP_LOSS):
        return False
    return entry.stage is not OrderStage.FIRED and entry.at is None


def was_filled_when_armed(order: ConditionalOrder) -> bool:
    """True if an entry was at or above the price when it was armed, so it delayed no purchase."""
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
    if at is None or price <= 0:
        return None
    return at / price - 1


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
        return f"{price_text(price, 0, 0, 6)} per share"
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
            format_order_price(portfolio, term.token, term.price)
            if term.share_bps is None
            else f"{term.share_bps / 100:g}%"
        )
        for term in book.terms
    )
    texts = [
        f"{order_name(portfolio, terms)} {level}"
        for terms, level in zip(book.terms, levels, strict=True)
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


# --- Expiry of a limit order, which is never sent if it could be mined after its time (T14); and
# NAV per share.


def expiry_reason(snapshot: Snapshot, execution: ExecutionConfig, order: LimitOrder) -> str:
    """Return why the order must not be sent at this block; empty if it may. A transaction may be
    mined until its deadline.
    """
    now_s, deadline_s = snapshot.head.timestamp_s, execution.deadline_s
    if now_s >= order.until_s:
        return f"expired {format_time(order.until_s)}"
    if now_s + deadline_s > order.until_s:
        return (
            f"expires {format_time(order.until_s)}, sooner than a transaction sent now would"
            f" (execution.deadline {deadline_s} s)"
        )
    return ""


# --- NAV per share, the true time-weighted return: price gains and own trades, without deposits and
# withdrawals.
# A change of holdings starts a new span. Within a span it follows the value of holdings plus the
# margin account's result, less the losses of the agent's trades; fees and impermanent loss of
# positions are not counted.


ZERO = Fraction(0)
UNIT_VALUE_FIGURES = 10**12
"""Denominator of a stored unit value, which is rounded down, because products of exact fractions
would grow without bound.
"""
MOVED = Fraction(1, 1_000)
"""Fraction of the portfolio by which holdings must change to begin a new span, so that dust causes
no write.
"""


def unit_value_at(
    kept: NavPerShare | None, prices: Mapping[str, Price], in_margin: Value = ZERO
) -> Fraction:
    """Return the NAV per share at these prices, with the margin account's result since the record;
    1 before the first record. Tokens without a price then or now are skipped.
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
    after = sum((raw * price for raw, _, price in both), in_margin) - kept.lost
    if before <= 0:
        return kept.worth
    return max(Fraction(0), kept.worth * after / before)


def is_known_at(kept: NavPerShare | None, prices: Mapping[str, Price]) -> bool:
    """True if every recorded holding has a price; otherwise the NAV per share would describe
    another portfolio.
    """
    return kept is None or all(token in prices for token, raw in kept.holdings if raw)


def updated_unit_value(
    step: StepInput, prices: Mapping[str, Price], drifts: Sequence[AssetDrift]
) -> NavPerShare:
    """Return the NAV record to store: the old one while holdings are equal, else a new one that
    begins at this block. With a margin account each cycle begins a new record.
    """
    kept = step.history.orders.nav_per_share
    apart = apart_raw(step)
    held = {
        drift.token: drift.investable_raw + drift.locked_raw + apart.get(drift.token, 0)
        for drift in drifts
    }
    mark, result = account_mark(step), account_result(step, prices)
    if kept is not None and kept.margin is not None and unknown_value_reason(step):
        return kept  # count its result once it is known again
    had = {} if kept is None else dict(kept.holdings)
    if kept is not None and mark is None and kept.margin is None and had.keys() == held.keys():
        moved = sum(
            (abs(raw - had[token]) * prices[token] for token, raw in held.items()), Fraction(0)
        )
        if moved <= MOVED * sum((drift.value for drift in drifts), Fraction(0)):
            return kept
    worth = Fraction(
        floor_int(unit_value_at(kept, prices, result) * UNIT_VALUE_FIGURES), UNIT_VALUE_FIGURES
    )
    kept_prices = tuple((token, prices[token]) for token in held)
    at_s = step.snapshot.head.timestamp_s
    return NavPerShare(worth, at_s, tuple(held.items()), kept_prices, margin=mark)


HIGHER = Fraction(1, 1_000)
"""Smallest recorded rise above the highest price of a trailing stop, which limits writes in a
rising market.
"""
DUST_SHARE = Fraction(1, BPS)
"""Fraction of the portfolio that may remain of a sold asset; limits.min_trade applies if it is
larger.
"""
ORDER = {kind: number for number, kind in enumerate(OrderKind)}
EXITED_STAGES = (OrderStage.FIRED, OrderStage.DONE)


@dataclass(frozen=True, slots=True)
class PriceWindow:
    """Prices by token at the head and at the preceding blocks, newest first; `is_complete` is true
    if no required block is missing. PORTFOLIO has the NAV per share.
    """

    now: Mapping[str, Price]
    before: tuple[Mapping[str, Price], ...]
    is_complete: bool

    def span(self, token: str) -> tuple[Price, Price] | None:
        """Return the lowest and highest price over the blocks; None if one of them has no price."""
        known = [prices[token] for prices in (self.now, *self.before) if token in prices]
        if self.is_complete and len(known) == 1 + len(self.before):
            return (min(known), max(known))
        return None


def advance_orders(step: StepInput) -> StepInput:
    """Return the step with every order advanced to this block, and the NAV per share updated;
    unchanged without orders.

    Orders of a token whose prices conflict do not change, and neither do orders of the portfolio,
    which includes every price.
    """
    book, known = step.portfolio.orders, step.history.orders.states
    if not book.terms and not known:
        return step
    references = reference_prices(step)
    numeraire = step.portfolio.numeraire.address
    if sequencer_fault(step.snapshot, step.reference) or price_fault(
        step, references, (numeraire,)
    ):
        return step
    prices = references.by_token
    drifts = _drifts(step, prices)
    kept = step.history.orders.nav_per_share
    tokens = dict.fromkeys(
        (*(term.token for term in book.terms), *(order.token for order in known))
    )
    unclear = {token for token in tokens if price_fault(step, references, (token,))}
    if depeg_fault(step, references) or source_conflict(step, of_exit=True):
        unclear.add(PORTFOLIO)
    if drifts and PORTFOLIO in tokens.keys() - unclear:
        kept = updated_unit_value(step, prices, drifts)
    seen = _seen(step, prices, kept)
    orders = tuple(
        order
        for token in tokens
        for order in (
            [conditional_order for conditional_order in known if conditional_order.token == token]
            if token in unclear
            else _of_token(step, token, seen, drifts)
        )
    )
    return replace(
        step,
        history=replace(
            step.history, orders=replace(step.history.orders, states=orders, nav_per_share=kept)
        ),
    )


def needs_past_prices(step: StepInput) -> bool:
    """True if current prices alone would change an order, so that the preceding blocks must be
    read.
    """
    if (
        step.policy.confirm_blocks == 0
        or step.snapshot.past
        or not (step.portfolio.orders.terms or step.history.orders.states)
    ):
        return False
    return unconfirmed_orders(step) != ()


def unconfirmed_orders(step: StepInput) -> tuple[ConditionalOrder, ...]:
    """Return the orders that current prices alone would change, in their next state."""
    if step.policy.confirm_blocks == 0:
        return ()
    alone = advance_orders(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    now = orders_by_key(step.history.orders.states)
    return tuple(order for order in alone.history.orders.states if now.get(order.key) != order)


def fired_exit_order(orders: Sequence[ConditionalOrder], token: str) -> ConditionalOrder | None:
    """Return the exit order that keeps `token` out of the portfolio: a triggered exit of the token
    or of the portfolio; None otherwise.
    """
    return next(
        (
            order
            for order in orders
            if order.token == token and order.is_exit and order.stage in EXITED_STAGES
        ),
        None,
    )


def is_entry_pending(history: History, token: str) -> bool:
    """True if the token's entry blocks its purchase: not filled, or closed again."""
    entry = orders_by_key(history.orders.states).get((token, OrderKind.ENTRY))
    return entry is not None and entry.stage in (OrderStage.WAITING, OrderStage.ARMED)


def dust_value(limits: Limits, drifts: Sequence[AssetDrift]) -> Value:
    """Return the value below which the remainder of an asset counts as sold, numeraire base
    units.
    """
    return max(limits.min_trade or Fraction(0), investable_total(drifts) * DUST_SHARE)


def _drifts(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    try:
        return compute_drifts(step, prices)
    except Refused:  # without a balance or a price no decision is made, and no exit counts as sold
        return ()


def _seen(step: StepInput, prices: Mapping[str, Price], kept: NavPerShare | None) -> PriceWindow:
    confirm_blocks = step.policy.confirm_blocks
    past, head = step.snapshot.past[:confirm_blocks], step.snapshot.head.number
    settled = [block.head.number for block in past] == list(
        range(head - 1, head - 1 - confirm_blocks, -1)
    )
    inputs = price_inputs(step)
    now, *before = [
        ({**at, PORTFOLIO: unit_value_at(kept, at)} if is_known_at(kept, at) else at)
        for at in (dict(prices), *(prices_from(inputs.at(block)).by_token for block in past))
    ]
    return PriceWindow(now, tuple(before), settled)


def _of_token(
    step: StepInput, token: str, seen: PriceWindow, drifts: Sequence[AssetDrift]
) -> list[ConditionalOrder]:
    """Return all orders of one token. Once an exit of the token or of the portfolio has fired, its
    other exits pause.
    """
    terms_of = {terms.kind: terms for terms in step.portfolio.orders.terms if terms.token == token}
    known = {order.kind: order for order in step.history.orders.states if order.token == token}
    gone = any(fired_exit_order(step.history.orders.states, key) for key in (token, PORTFOLIO))
    entry: ConditionalOrder | None = None
    orders: list[ConditionalOrder] = []
    for kind in sorted({*terms_of, *known}, key=ORDER.__getitem__):
        order, terms = known.get(kind), terms_of.get(kind)
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
            order = _next(step.snapshot, step.portfolio, order, terms, seen, entry)
            gone = gone or (order.is_exit and order.stage is OrderStage.FIRED)
        if kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF:
            entry = order
        orders.append(order)
    return orders


def _next(
    snapshot: Snapshot,
    portfolio: Portfolio,
    order: ConditionalOrder,
    terms: OrderTerms,
    seen: PriceWindow,
    entry: ConditionalOrder | None,
) -> ConditionalOrder:
    book = portfolio.orders
    now_s = snapshot.head.timestamp_s
    span = seen.span(order.token)
    price = seen.now.get(order.token)
    if price is None or price <= 0:
        return order
    if order.stage is OrderStage.FIRED and _above(
        order, price
    ):  # closing an entry needs no confirmation
        order = replace(order, stage=OrderStage.ARMED, at=price, since_s=now_s)
    if order.stage in (OrderStage.WAITING, OrderStage.OFF):
        order = replace(order, terms=terms)
    steady = span is not None and span[1] - span[0] <= Fraction(book.hysteresis_bps, BPS) * price
    try:
        if order.stage is OrderStage.WAITING and steady and not waits_for_entry(order.kind, entry):
            order = arm_order(order, price, now_s, book, entry)
        elif order.terms != terms:
            order = require_valid_level(replace(order, terms=terms), price, book)
    except (
        Refused
    ):  # exits.faults reports it, and only exits are traded until the owner resolves it
        return order
    if span is None or order.stage is not OrderStage.ARMED:
        return order
    return _watched(order, span, price, now_s, book.hysteresis_bps)


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
    """Return an armed order after prices between the lowest and the highest of `span`."""
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
            if higher:
                return replace(order, mark=lowest)
            return order


def _sold(
    step: StepInput, order: ConditionalOrder, drifts: Sequence[AssetDrift]
) -> ConditionalOrder:
    """Return a fired exit as done once only dust of the sold tokens remains."""
    numeraire = step.portfolio.numeraire.address
    sells = [
        drift
        for drift in drifts
        if drift.token == order.token or (order.token == PORTFOLIO and drift.token != numeraire)
    ]
    least = dust_value(step.limits, drifts)
    left = any(
        0 < sell.investable_raw * sell.price >= least
        or any(keeps(step, sell, least) for keeps in KEEPS)
        for sell in sells
    )
    if left or not drifts:
        return order
    return replace(order, stage=OrderStage.DONE, since_s=step.snapshot.head.timestamp_s)
