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
from agent.layers import questions
from agent.layers.questions import (
    account_baseline,
    account_result,
    unknown_value_reason,
    unweighted_raw,
)
from agent.model import (
    PORTFOLIO_SUBJECT,
    PRICE_ALERTS,
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
from agent.policy.drift import drifts_if_known, investable_total
from agent.reference import (
    depeg_fault,
    price_fault,
    price_inputs,
    prices_from,
    reference_prices,
    sequencer_fault,
    source_conflict,
)
from agent.units import (
    BPS,
    Price,
    Value,
    floor_int,
    format_bps,
    format_percent,
    format_time,
    shown_coin_price,
    shown_price_text,
)

# --- Price levels of orders: trigger price, validity when arming, expiry, NAV per share, and their
# text.


def trigger_price(order: ConditionalOrder) -> Price | None:
    """Return the price at which the order triggers, in numeraire base units per token base unit;
    None while its basis is not fixed.
    """
    is_above = order.kind in (OrderKind.TAKE_PROFIT, OrderKind.ALERT_ABOVE)
    terms = order.terms
    sign = 1 if is_above else -1
    if order.kind is OrderKind.TRAILING_STOP:
        if order.highest_price is None:
            return None
        if terms.price is not None:
            return order.highest_price - terms.price
        return order.highest_price * (1 - _terms_share(terms))
    if terms.price is not None:
        return terms.price
    if order.base_price is None:
        return None
    return order.base_price * (1 + sign * _terms_share(terms))


def arm_order(
    order: ConditionalOrder,
    price: Price,
    now_s: int,
    order_settings: OrdersConfig,
    entry: ConditionalOrder | None = None,
) -> ConditionalOrder:
    """Return the order armed at `price`. Shares of exits count from the level of `entry`, if one is
    in force.

    Raises Refused for a level that can never be met, and for an exit whose level the price has met,
    or has reached within the hysteresis, because it would fire at once. An entry at or above the
    price is refused if the config says so.
    """
    return require_valid_level(armed_order(order, price, now_s, entry), price, order_settings)


def armed_order(
    order: ConditionalOrder, price: Price, now_s: int, entry: ConditionalOrder | None
) -> ConditionalOrder:
    """Return the order as `arm_order` does, whatever its level."""
    basis = None if entry is None or not order.is_exit else trigger_price(entry)
    return replace(
        order,
        stage=OrderStage.ARMED,
        base_price=basis or price,
        highest_price=price,
        event_price=None,
        since_s=now_s,
    )


def require_valid_level(
    order: ConditionalOrder, price: Price, order_settings: OrdersConfig
) -> ConditionalOrder:
    """Return the order if its level fits `price`. Raises Refused otherwise."""
    level = trigger_price(order)
    hysteresis = Fraction(order_settings.hysteresis_bps, BPS)
    if level is None or level <= 0:
        raise Refused(
            "its level is at or below zero, so it can never fire",
            remedy="write a price above zero, or less than 100 %",
        )
    match order.kind:
        case OrderKind.ENTRY:
            if level >= price and order_settings.refuses_filled_entries:
                raise Refused(
                    "its level is at or above the price, so it is bought immediately",
                    remedy="lower it, or remove it",
                )
        case OrderKind.TAKE_PROFIT:
            if level <= price:
                raise Refused(
                    "its level is not above the price", remedy="raise it, or sell manually"
                )
            if level < price * (1 + hysteresis):
                raise Refused(
                    f"its level is within the hysteresis of {format_percent(hysteresis)} of the price",
                    remedy="raise it",
                )
        case OrderKind.STOP_LOSS | OrderKind.TRAILING_STOP:
            if level >= price:
                raise Refused(
                    "its level is not below the price", remedy="lower it, or sell manually"
                )
            if level > price * (1 - hysteresis):
                raise Refused(
                    f"its level is within the hysteresis of {format_percent(hysteresis)} of the price",
                    remedy="lower it",
                )
    return order


def waits_for_entry(kind: OrderKind, entry: ConditionalOrder | None) -> bool:
    """True if the order is armed only after its entry was filled, because before that there is no
    profit or highest price. A stop loss is armed at once, so that a price jump over both levels
    does not buy, and so is a price alert.
    """
    if entry is None or kind in (OrderKind.ENTRY, OrderKind.STOP_LOSS, *PRICE_ALERTS):
        return False
    return entry.stage is not OrderStage.FIRED and entry.event_price is None


def was_filled_when_armed(order: ConditionalOrder) -> bool:
    """True if an entry was at or above the price when it was armed, so it delayed no purchase."""
    level = trigger_price(order)
    return (
        order.kind is OrderKind.ENTRY
        and order.base_price is not None
        and level is not None
        and level >= order.base_price
    )


def distance_to_trigger(order: ConditionalOrder, price: Price) -> Fraction | None:
    """Return the relative price move until the order triggers, signed; None while its level is not
    fixed.
    """
    level = trigger_price(order)
    if level is None or price <= 0:
        return None
    return level / price - 1


def is_reached(order: ConditionalOrder, price: Price) -> bool:
    """Return whether an armed order fires at this price."""
    return _order_after_prices(order, (price, price), price, 0, 0).stage is OrderStage.FIRED


def order_name(portfolio: Portfolio, order: ConditionalOrder | OrderTerms) -> str:
    """Return an order's display name: "stop_loss of WETH"."""
    return f"{order.kind.value} of {order_subject(portfolio, order.token)}"


def order_subject(portfolio: Portfolio, token: str) -> str:
    """Return the subject of an order: a symbol, the portfolio, or the address of a token that is no
    longer an asset.
    """
    if token == PORTFOLIO_SUBJECT:
        return "the portfolio"
    listed_token = portfolio.find_token(token)
    return token if listed_token is None else listed_token.label


def format_order_price(portfolio: Portfolio, token: str, price: Price | None) -> str:
    """Format a price in whole coins of the numeraire; for the portfolio its NAV per share, which
    began at 1.
    """
    if price is None:
        return "not fixed"
    if token == PORTFOLIO_SUBJECT:
        return f"{shown_coin_price(price)} per share"
    listed_token = portfolio.find_token(token)
    if listed_token is None:
        return "unknown"
    return (
        f"{shown_price_text(price, listed_token.decimals, portfolio.numeraire.decimals)}"
        f" {portfolio.numeraire.label}"
    )


def format_price_alert(portfolio: Portfolio, alert: ConditionalOrder) -> str:
    """Format a price alert with its stage: "WETH above 3,000.00 USDC: armed"."""
    subject = order_subject(portfolio, alert.token)
    level = trigger_price(alert)
    level_text = format_order_price(portfolio, alert.token, level)
    alert_text = (
        f"{subject} {alert.kind.value.removeprefix('alert_')} {level_text}: {alert.stage.value}"
    )
    if alert.stage is OrderStage.FIRED:
        fired_price_text = format_order_price(portfolio, alert.token, alert.event_price)
        alert_text += f" at {fired_price_text}, {format_time(alert.since_s)}"
    return alert_text


def format_orders(portfolio: Portfolio) -> str:
    """Format all orders as set by their owner, and the destination of exited weight; empty without
    orders.
    """
    order_settings = portfolio.orders
    if not order_settings.terms:
        return ""
    level_texts = (
        (
            format_order_price(portfolio, term.token, term.price)
            if term.share_bps is None
            else format_bps(term.share_bps)
        )
        for term in order_settings.terms
    )
    order_texts = [
        f"{order_name(portfolio, terms)} {level_text}"
        for terms, level_text in zip(order_settings.terms, level_texts, strict=True)
    ]
    filled_text = "refused" if order_settings.refuses_filled_entries else "bought immediately"
    return (
        f"{', '.join(order_texts)}; absent: {order_settings.reallocation.value}, hysteresis"
        f" {format_bps(order_settings.hysteresis_bps)}, an entry above the price is {filled_text}"
    )


def orders_by_key(
    orders: tuple[ConditionalOrder, ...],
) -> Mapping[tuple[str, OrderKind], ConditionalOrder]:
    """Return orders by their unique key."""
    return {order.key: order for order in orders}


def _terms_share(terms: OrderTerms) -> Fraction:
    return Fraction(terms.share_bps or 0, BPS)


# --- Expiry of a limit order, which is never sent if it could be mined after its time (T14); and
# NAV per share.


def expiry_reason(snapshot: Snapshot, execution: ExecutionConfig, order: LimitOrder) -> str:
    """Return why the order must not be sent at this block; empty if it may. A transaction may be
    mined until its deadline.
    """
    now_s = snapshot.head.timestamp_s
    deadline_s = execution.deadline_s
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
NAV_DENOMINATOR = 10**12
"""Denominator of a stored NAV per share, which is rounded down, because products of exact fractions
would grow without bound.
"""
MIN_HOLDINGS_CHANGE = Fraction(1, 1_000)
"""Fraction of the portfolio by which holdings must change to begin a new span, so that dust causes
no write.
"""


def nav_per_share_at(
    nav_record: NavPerShare | None, prices: Mapping[str, Price], margin_result: Value = ZERO
) -> Fraction:
    """Return the NAV per share at these prices, with the margin account's result since the record;
    1 before the first record. Tokens without a price then or now are skipped.
    """
    if nav_record is None:
        return Fraction(1)
    recorded_prices = dict(nav_record.prices)
    priced_holdings = [
        (raw, recorded_prices[token], prices[token])
        for token, raw in nav_record.holdings
        if token in recorded_prices and token in prices
    ]
    value_before = sum((raw * price for raw, price, _ in priced_holdings), Fraction(0))
    value_after = (
        sum((raw * price for raw, _, price in priced_holdings), margin_result)
        - nav_record.later_loss
    )
    if value_before <= 0:
        return nav_record.nav
    return max(Fraction(0), nav_record.nav * value_after / value_before)


def is_nav_known(nav_record: NavPerShare | None, prices: Mapping[str, Price]) -> bool:
    """True if every recorded holding has a price; otherwise the NAV per share would describe
    another portfolio.
    """
    return nav_record is None or all(token in prices for token, raw in nav_record.holdings if raw)


def updated_nav_record(
    step: StepInput, prices: Mapping[str, Price], drifts: Sequence[AssetDrift]
) -> NavPerShare:
    """Return the NAV record to store: the old one while holdings are equal, else a new one that
    begins at this block. With a margin account each cycle begins a new record.
    """
    nav_record = step.history.orders.nav_per_share
    unweighted_by_token = unweighted_raw(step)
    holdings_raw = {
        drift.token: drift.investable_raw
        + drift.locked_raw
        + unweighted_by_token.get(drift.token, 0)
        for drift in drifts
    }
    margin_baseline = account_baseline(step)
    margin_result = account_result(step, prices)
    recorded_holdings = {} if nav_record is None else dict(nav_record.holdings)
    if (
        nav_record is not None
        and margin_baseline is None
        and nav_record.margin is None
        and recorded_holdings.keys() == holdings_raw.keys()
    ):
        moved_value = sum(
            (
                abs(raw - recorded_holdings[token]) * prices[token]
                for token, raw in holdings_raw.items()
            ),
            Fraction(0),
        )
        if moved_value <= MIN_HOLDINGS_CHANGE * sum((drift.value for drift in drifts), Fraction(0)):
            return nav_record
    nav_per_share = Fraction(
        floor_int(nav_per_share_at(nav_record, prices, margin_result) * NAV_DENOMINATOR),
        NAV_DENOMINATOR,
    )
    recorded_prices = tuple((token, prices[token]) for token in holdings_raw)
    at_s = step.snapshot.head.timestamp_s
    return NavPerShare(
        nav_per_share, at_s, tuple(holdings_raw.items()), recorded_prices, margin=margin_baseline
    )


MIN_TRAILING_RISE = Fraction(1, 1_000)
"""Smallest recorded rise above the highest price of a trailing stop, which limits writes in a
rising market.
"""
DUST_SHARE = Fraction(1, BPS)
"""Fraction of the portfolio that may remain of a sold asset; limits.min_trade applies if it is
larger.
"""
RANK_OF_KIND = {kind: rank for rank, kind in enumerate(OrderKind)}
EXITED_STAGES = (OrderStage.FIRED, OrderStage.DONE)


@dataclass(frozen=True, slots=True)
class PriceWindow:
    """Prices by token at the head and at the preceding blocks, newest first; `is_complete` is true
    if no required block is missing. PORTFOLIO_SUBJECT has the NAV per share.
    """

    current: Mapping[str, Price]
    preceding: tuple[Mapping[str, Price], ...]
    is_complete: bool

    def price_range(self, token: str) -> tuple[Price, Price] | None:
        """Return the lowest and highest price over the blocks; None if one of them has no price."""
        token_prices = [
            prices[token] for prices in (self.current, *self.preceding) if token in prices
        ]
        if self.is_complete and len(token_prices) == 1 + len(self.preceding):
            return (min(token_prices), max(token_prices))
        return None


def advance_orders(step: StepInput) -> StepInput:
    """Return the step with every order advanced to this block, and the NAV per share updated;
    unchanged without orders.

    Orders of a token whose prices conflict do not change, and neither do orders of the portfolio,
    which includes every price, and the result of a margin account once that was known.
    """
    order_settings = step.portfolio.orders
    order_states = step.history.orders.states
    if not order_settings.terms and not order_states:
        return step
    references = reference_prices(step)
    numeraire = step.portfolio.numeraire.address
    if sequencer_fault(step.snapshot, step.reference) or price_fault(
        step, references, (numeraire,)
    ):
        return step
    prices = references.price_by_token
    drifts = drifts_if_known(step, prices)
    nav_record = step.history.orders.nav_per_share
    order_tokens = dict.fromkeys(
        (*(term.token for term in order_settings.terms), *(order.token for order in order_states))
    )
    unclear_tokens = {token for token in order_tokens if price_fault(step, references, (token,))}
    if (
        depeg_fault(step, references)
        or source_conflict(step, of_exit=True)
        or (nav_record is not None and nav_record.margin is not None and unknown_value_reason(step))
    ):
        unclear_tokens.add(PORTFOLIO_SUBJECT)
    if drifts and PORTFOLIO_SUBJECT in order_tokens.keys() - unclear_tokens:
        nav_record = updated_nav_record(step, prices, drifts)
    price_window = _price_window(step, prices, nav_record)
    orders = tuple(
        order
        for token in order_tokens
        for order in (
            [order_state for order_state in order_states if order_state.token == token]
            if token in unclear_tokens
            else _orders_of_token(step, token, price_window, drifts)
        )
    )
    return replace(
        step,
        history=replace(
            step.history,
            orders=replace(step.history.orders, states=orders, nav_per_share=nav_record),
        ),
    )


def needs_past_prices(step: StepInput) -> bool:
    """True if current prices alone would change an order, so that the preceding blocks must be
    read.
    """
    if (
        step.policy.confirm_blocks == 0
        or step.snapshot.past_prices
        or not (step.portfolio.orders.terms or step.history.orders.states)
    ):
        return False
    return unconfirmed_orders(step) != ()


def unconfirmed_orders(step: StepInput) -> tuple[ConditionalOrder, ...]:
    """Return the orders that current prices alone would change, in their next state."""
    if step.policy.confirm_blocks == 0:
        return ()
    advanced_step = advance_orders(replace(step, policy=replace(step.policy, confirm_blocks=0)))
    current_orders = orders_by_key(step.history.orders.states)
    return tuple(
        order
        for order in advanced_step.history.orders.states
        if current_orders.get(order.key) != order
    )


def fired_exit_order(orders: Sequence[ConditionalOrder], token: str) -> ConditionalOrder | None:
    """Return the exit order that keeps `token` out of the portfolio: a triggered exit of the
    portfolio, else of the token; None otherwise.
    """
    return fired_exit_of(orders, PORTFOLIO_SUBJECT) or fired_exit_of(orders, token)


def fired_exit_of(orders: Sequence[ConditionalOrder], subject: str) -> ConditionalOrder | None:
    """Return the triggered exit of the subject, a token or PORTFOLIO_SUBJECT; None otherwise."""
    return next(
        (
            order
            for order in orders
            if order.token == subject and order.is_exit and order.stage in EXITED_STAGES
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


def _price_window(
    step: StepInput, prices: Mapping[str, Price], nav_record: NavPerShare | None
) -> PriceWindow:
    confirm_blocks = step.policy.confirm_blocks
    past_blocks = step.snapshot.past_prices[:confirm_blocks]
    head_number = step.snapshot.head.number
    is_complete = [block.head.number for block in past_blocks] == list(
        range(head_number - 1, head_number - 1 - confirm_blocks, -1)
    )
    reference_inputs = price_inputs(step)
    current_prices, *preceding_prices = [
        (
            {**block_prices, PORTFOLIO_SUBJECT: nav_per_share_at(nav_record, block_prices)}
            if is_nav_known(nav_record, block_prices)
            else block_prices
        )
        for block_prices in (
            dict(prices),
            *(
                prices_from(reference_inputs.at_block(block)).price_by_token
                for block in past_blocks
            ),
        )
    ]
    return PriceWindow(current_prices, tuple(preceding_prices), is_complete)


def _orders_of_token(
    step: StepInput, token: str, price_window: PriceWindow, drifts: Sequence[AssetDrift]
) -> list[ConditionalOrder]:
    """Return all orders of one token. Once an exit of the token or of the portfolio has fired, its
    other exits pause.
    """
    terms_by_kind = {
        terms.kind: terms for terms in step.portfolio.orders.terms if terms.token == token
    }
    order_by_kind = {
        order.kind: order for order in step.history.orders.states if order.token == token
    }
    is_exited = fired_exit_order(step.history.orders.states, token) is not None
    entry: ConditionalOrder | None = None
    orders: list[ConditionalOrder] = []
    for kind in sorted({*terms_by_kind, *order_by_kind}, key=RANK_OF_KIND.__getitem__):
        order = order_by_kind.get(kind)
        terms = terms_by_kind.get(kind)
        if order is None and terms is not None:
            order = ConditionalOrder(
                token, kind, OrderStage.WAITING, terms, step.snapshot.head.timestamp_s
            )
        if order is None or (
            terms is None and not (order.is_exit and order.stage in EXITED_STAGES)
        ):
            continue  # removed from the config by the owner; a fired exit stays in force
        if order.stage is OrderStage.FIRED and order.is_exit:
            order = _done_if_sold(step, order, drifts)
        elif terms is not None and not (is_exited and order.is_exit):
            order = _advanced_order(
                step.snapshot, step.portfolio, order, terms, price_window, entry
            )
            is_exited = is_exited or (order.is_exit and order.stage is OrderStage.FIRED)
        if kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF:
            entry = order
        orders.append(order)
    return orders


def _advanced_order(
    snapshot: Snapshot,
    portfolio: Portfolio,
    order: ConditionalOrder,
    terms: OrderTerms,
    price_window: PriceWindow,
    entry: ConditionalOrder | None,
) -> ConditionalOrder:
    """Return the order at this block's prices: armed, with new terms, fired, closed again, or
    unchanged. An armed exit whose new terms contradict the price goes on with its old ones.
    """
    order_settings = portfolio.orders
    now_s = snapshot.head.timestamp_s
    price_range = price_window.price_range(order.token)
    price = price_window.current.get(order.token)
    if price is None or price <= 0:
        return order
    if order.stage is OrderStage.FIRED and _is_above_entry(
        order, price
    ):  # closing an entry needs no confirmation
        order = replace(order, stage=OrderStage.ARMED, event_price=price, since_s=now_s)
    is_alert_over = order.kind in PRICE_ALERTS and order.stage is OrderStage.FIRED
    if order.terms != terms and (is_alert_over or order.stage is OrderStage.OFF):
        order = replace(order, stage=OrderStage.WAITING)  # the owner's new level counts
    if order.stage is OrderStage.WAITING:
        order = replace(order, terms=terms)
    is_steady = (
        price_range is not None
        and price_range[1] - price_range[0] <= Fraction(order_settings.hysteresis_bps, BPS) * price
    )
    try:
        if (
            order.stage is OrderStage.WAITING
            and is_steady
            and not waits_for_entry(order.kind, entry)
        ):
            order = arm_order(order, price, now_s, order_settings, entry)
        elif order.terms != terms:
            order = require_valid_level(replace(order, terms=terms), price, order_settings)
    except Refused:  # exits.price_contradictions reports it, and only exits are traded until the owner resolves it
        if not order.is_exit:
            return order
    if price_range is None or order.stage is not OrderStage.ARMED:
        return order
    return _order_after_prices(order, price_range, price, now_s, order_settings.hysteresis_bps)


def _is_above_entry(order: ConditionalOrder, price: Price) -> bool:
    level = trigger_price(order)
    return order.kind is OrderKind.ENTRY and level is not None and price > level


def _order_after_prices(
    order: ConditionalOrder,
    price_range: tuple[Price, Price],
    price: Price,
    now_s: int,
    hysteresis_bps: int,
) -> ConditionalOrder:
    """Return an armed order after prices between the lowest and the highest of `price_range`."""
    lowest_price, highest_price = price_range
    level = trigger_price(order)
    if level is None:
        return order
    fired_order = replace(order, stage=OrderStage.FIRED, event_price=price, since_s=now_s)
    match order.kind:
        case OrderKind.ENTRY:
            opening_level = (
                level if order.event_price is None else level * (1 - Fraction(hysteresis_bps, BPS))
            )
            return fired_order if highest_price <= opening_level else order
        case OrderKind.STOP_LOSS | OrderKind.ALERT_BELOW:
            return fired_order if highest_price <= level else order
        case OrderKind.TAKE_PROFIT | OrderKind.ALERT_ABOVE:
            return fired_order if lowest_price >= level else order
        case OrderKind.TRAILING_STOP:
            if highest_price <= level:
                return fired_order
            has_new_high = (
                order.highest_price is not None
                and lowest_price >= order.highest_price * (1 + MIN_TRAILING_RISE)
            )
            if has_new_high:
                return replace(order, highest_price=lowest_price)
            return order


def _done_if_sold(
    step: StepInput, order: ConditionalOrder, drifts: Sequence[AssetDrift]
) -> ConditionalOrder:
    """Return a fired exit as done once only dust of the sold tokens remains."""
    numeraire = step.portfolio.numeraire.address
    drifts_to_sell = [
        drift
        for drift in drifts
        if drift.token == order.token
        or (order.token == PORTFOLIO_SUBJECT and drift.token != numeraire)
    ]
    min_value = dust_value(step.limits, drifts)
    has_remainder = any(
        0 < drift_to_sell.investable_raw * drift_to_sell.price >= min_value
        or any(
            layer.holdings.keeps_value(step, drift_to_sell, min_value) for layer in questions.LAYERS
        )
        for drift_to_sell in drifts_to_sell
    )
    if has_remainder or not drifts:
        return order
    return replace(order, stage=OrderStage.DONE)
