"""Orders of Hyperliquid: prices in ticks, client order ids, actions, and order states. Amounts are
decimal strings in the venue's JSON, written from integers and parsed strictly, without floats.
Sources: "Tick and lot size", "Exchange endpoint" and "Info endpoint" of the venue's API
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.chain.rpc import scrub
from agent.codec import json_field
from agent.errors import ErrorCode, Refused, Retryable
from agent.model import PerpMarket, PerpOrder, StopOrder
from agent.signing.futures import TIME_IN_FORCE
from agent.units import Price, ceil_int, decimal_text, floor_int

QUOTE_DECIMALS = 6
"""Decimals of USDC. A price has at most 6 − size_decimals decimal places, so that price times size
is a whole number of base units.
"""
SIGNIFICANT_FIGURES = 5
"""Maximum significant figures of a price that is not a whole number."""
MIN_NOTIONAL_RAW = 10 * 10**QUOTE_DECIMALS
"""Smallest order but for a full close: 10 USD at its limit price."""
_DECIMAL_PATTERN = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")


def parse_decimal(venue_decimal: object, value_name: str) -> Fraction:
    """Parse a decimal of the venue. Raises Retryable with `value_name`."""
    if isinstance(venue_decimal, str) and _DECIMAL_PATTERN.fullmatch(venue_decimal):
        return Fraction(venue_decimal)
    raise Retryable(f"the venue's answer for {value_name} is not a decimal", code=ErrorCode.ANSWER)


def parse_positive(venue_decimal: object, value_name: str) -> Fraction:
    """Parse a size or price of the venue. Raises Retryable with `value_name` unless it is above zero."""
    value = parse_decimal(venue_decimal, value_name)
    if value <= 0:
        raise Retryable(
            f"the venue's answer for {value_name} is not above zero", code=ErrorCode.ANSWER
        )
    return value


def parse_raw(venue_decimal: object, decimals: int, value_name: str) -> int:
    """Parse a decimal as base units. Raises Retryable with `value_name` if it has more places."""
    return require_whole(parse_decimal(venue_decimal, value_name) * 10**decimals, value_name)


def require_whole(base_units: Fraction, value_name: str) -> int:
    """Parse a number of base units. Raises Retryable for a fraction of a base unit."""
    if base_units.denominator != 1:
        raise Retryable(
            f"the venue's answer for {value_name} has too many decimal places",
            code=ErrorCode.ANSWER,
        )
    return base_units.numerator


def parse_amount(venue_decimal: object, value_name: str) -> int:
    """Parse an amount in USD as base units, rounded to the nearest, because the venue computes
    amounts in floats ("1071327.7162500001"). Raises Retryable with `value_name`.
    """
    rounded_raw: int = round(parse_decimal(venue_decimal, value_name) * 10**QUOTE_DECIMALS)
    return rounded_raw


def model_price(venue_price: Fraction, size_decimals: int) -> Price:
    """Return a quoted price, USDC per coin, in quote base units per base unit of size."""
    return venue_price * Fraction(10**QUOTE_DECIMALS, 10**size_decimals)


def quoted_price(price: Price, size_decimals: int) -> Fraction:
    """Convert a price of the model to the venue's quotation, USDC per coin."""
    return price * Fraction(10**size_decimals, 10**QUOTE_DECIMALS)


def fill_on_book(
    book_side: Iterable[tuple[Fraction, Fraction]],
    size: Fraction,
    limit_price: Fraction,
    *,
    is_buy: bool,
) -> tuple[Fraction, Fraction]:
    """Return the size that stays unfilled, in coins, and the dollars traded, of an order within its
    limit price. `book_side` has price and size of the resting orders, best first.
    """
    unfilled_size = size
    traded_quote = Fraction(0)
    for level_price, level_size in book_side:
        if unfilled_size <= 0 or (
            level_price > limit_price if is_buy else level_price < limit_price
        ):
            break
        fill_size = min(unfilled_size, level_size)
        unfilled_size -= fill_size
        traded_quote += fill_size * level_price
    return unfilled_size, traded_quote


def tick_at(venue_price: Fraction, size_decimals: int) -> Fraction:
    """Return the tick at a quoted price: five significant figures, at most 6 − `size_decimals`
    decimal places; whole numbers are always allowed.
    """
    exponent = len(str(floor_int(venue_price))) - 1 if venue_price >= 1 else -1
    while venue_price < 1 and venue_price < Fraction(10) ** exponent and exponent > -QUOTE_DECIMALS:
        exponent -= 1
    decimal_places = min(QUOTE_DECIMALS - size_decimals, SIGNIFICANT_FIGURES - 1 - exponent)
    return Fraction(1, 10 ** max(0, decimal_places))


def limit_price(market: PerpMarket, order: PerpOrder) -> Fraction:
    """Return the quoted limit price of an order in whole ticks: rounded down for a buy, up for a
    sale, so that the fill keeps the bound.
    """
    return price_in_ticks(market, order.size_raw, order.bound_raw)


def price_in_ticks(market: PerpMarket, size_raw: int, quote_raw: int) -> Fraction:
    """Return the quoted price of a size for a quote: rounded down for a buy, up for a sale."""
    venue_price = quoted_price(Fraction(quote_raw, abs(size_raw)), market.size_decimals)
    tick = tick_at(venue_price, market.size_decimals)
    return tick * (floor_int(venue_price / tick) if size_raw > 0 else ceil_int(venue_price / tick))


def price_text(venue_price: Fraction) -> str:
    """Format a quoted price for the venue's JSON, without trailing zeros."""
    return decimal_text(_whole_number(venue_price * 10**QUOTE_DECIMALS), QUOTE_DECIMALS)


def size_text(market: PerpMarket, size_raw: int) -> str:
    """Format the absolute size for the venue's JSON."""
    return decimal_text(abs(size_raw), market.size_decimals)


def _whole_number(scaled_price: Fraction) -> int:
    if scaled_price.denominator != 1:
        raise ValueError(f"{scaled_price} is not a whole number")
    return scaled_price.numerator


@dataclass(frozen=True, slots=True)
class OrderTicket:
    """An order with the fields that make it execute at most once. `cloid` is the client order id,
    16 bytes as 0x-hex. The venue accepts each nonce of a signer once, and nothing after
    `expires_ms`. A ticket is stored before it is submitted; a resubmission has the same bytes,
    which the venue cannot accept twice.
    """

    order: PerpOrder
    cloid: str
    nonce_ms: int
    expires_ms: int


# The order of keys in an action is part of its signature.
def order_action(
    ticket: OrderTicket, market: PerpMarket, market_number: int, *, is_close: bool = False
) -> dict[str, object]:
    """Return the action of a ticket; `market_number` is the market's number at the venue.
    `is_close` is true if the order may close a whole position, which the venue accepts at any size.

    A market order is an immediate-or-cancel limit order at its bound (Ioc). A limit order rests
    there (Gtc); a post-only one is rejected if it would fill at once (Alo). Raises Refused for an
    order that the venue would always reject. A paused market is not a reason to refuse, because the
    venue may have accepted the order before the pause.
    """
    order = ticket.order
    if order.market != market.market or not order.size_raw or order.bound_raw <= 0:
        raise Refused(
            "the order has no size or no bound, or is for another market", remedy="plan again"
        )
    if order.size_raw % market.lot_raw:
        raise Refused(
            f"{market.symbol}: {order.size_raw} base units are not whole lots", remedy="plan again"
        )
    venue_price = limit_price(market, order)
    if venue_price <= 0:
        raise Refused(
            f"{market.symbol}: the bound is below one tick", remedy="plan again with a wider bound"
        )
    notional_raw = floor_int(model_price(venue_price, market.size_decimals) * abs(order.size_raw))
    if notional_raw < MIN_NOTIONAL_RAW and not is_close:
        raise Refused(
            f"{market.symbol}: an order of {decimal_text(notional_raw, QUOTE_DECIMALS)} USD is below"
            f" the venue's minimum of {decimal_text(MIN_NOTIONAL_RAW, QUOTE_DECIMALS)} USD",
            remedy="wait until it is larger",
            code=ErrorCode.AMOUNT,
        )
    order_json = {
        "a": market_number,
        "b": order.size_raw > 0,
        "p": price_text(venue_price),
        "s": size_text(market, order.size_raw),
        "r": order.is_reduce_only,
        "t": {"limit": {"tif": TIME_IN_FORCE[order.kind]}},
        "c": ticket.cloid,
    }
    return {"type": "order", "orders": [order_json], "grouping": "na"}


CANCEL_TYPE = "cancelByCloid"


def stop_action(
    stop: StopOrder, market: PerpMarket, market_number: int, cloid: str
) -> dict[str, object]:
    """Return the action of a resting stop: reduce-only, a market order within its bound once the
    mark reaches the trigger.
    """
    trigger_text, limit_text = (
        price_text(price_in_ticks(market, stop.size_raw, quote_raw))
        for quote_raw in (stop.trigger_raw, stop.bound_raw)
    )
    order_json = {
        "a": market_number,
        "b": stop.size_raw > 0,
        "p": limit_text,
        "s": size_text(market, stop.size_raw),
        "r": True,
        "t": {"trigger": {"isMarket": True, "triggerPx": trigger_text, "tpsl": "sl"}},
        "c": cloid,
    }
    return {"type": "order", "orders": [order_json], "grouping": "na"}


def cancel_action(cloid: str, market_number: int) -> dict[str, object]:
    """Return the action that cancels an order by its client order id."""
    return {"type": CANCEL_TYPE, "cancels": [{"asset": market_number, "cloid": cloid}]}


class VenueOrderStage(Enum):
    """Outcome of an order."""

    UNKNOWN = "unknown"
    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class OrderFill:
    """One fill of an order, by the venue's number, with the same signs as OrderState."""

    fill_id: str
    size_raw: int
    quote_change_raw: int
    fee_raw: int
    realised_profit_raw: int


@dataclass(frozen=True, slots=True)
class OrderState:
    """The venue's status of a client order id. `filled_raw` has the sign of the order's size,
    `quote_change_raw` is the change of the quote balance by the fills without the fee, `fee_raw`
    the fee (negative: a rebate), `realised_profit_raw` the profit realised by the fills, before the
    fee. `fills` are the single fills, oldest first. `venue_status` is the venue's status verbatim.
    """

    cloid: str
    stage: VenueOrderStage
    oid: int = 0
    filled_raw: int = 0
    quote_change_raw: int = 0
    fee_raw: int = 0
    venue_status: str = ""
    coin: str = ""
    realised_profit_raw: int = 0
    fills: tuple[OrderFill, ...] = ()

    @property
    def is_final(self) -> bool:
        """True if the order cannot fill further."""
        return self.stage in {
            VenueOrderStage.FILLED,
            VenueOrderStage.CANCELED,
            VenueOrderStage.REJECTED,
        }


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An order known to the venue, without its fills. `size` and `unfilled_size` are in coins,
    negative for a sale; `accepted_ms` is the time at which the venue accepted it, `changed_ms` that
    of its newest status. `can_rest` is false for an immediate order.
    """

    cloid: str
    stage: VenueOrderStage
    oid: int
    coin: str
    size: Fraction
    accepted_ms: int
    venue_status: str
    unfilled_size: Fraction
    changed_ms: int
    can_rest: bool

    @property
    def has_partial_rest(self) -> bool:
        """True if the rest is neither nothing nor everything."""
        return 0 < self.unfilled_size / self.size < 1

    @property
    def may_hide_fills(self) -> bool:
        """True for a cancelled order whose rest is reported as nothing, or as everything though it
        was immediate: the venue rejects one without a match, so its fills are not listed yet.
        """
        is_known = self.has_partial_rest or (self.can_rest and self.unfilled_size == self.size)
        return self.stage is VenueOrderStage.CANCELED and not is_known


def parse_order_status(answer: object, cloid: str) -> OrderRecord | None:
    """Parse an `orderStatus` answer; None for an order that the venue does not know. Raises
    Retryable for an answer about another order or with an unexpected format.
    """
    if isinstance(answer, Mapping) and answer.get("status") == "unknownOid":
        return None
    status_record = json_field(answer, "order")
    order_fields = json_field(status_record, "order")
    if not isinstance(status_record, Mapping) or not isinstance(order_fields, Mapping):
        raise Retryable(
            "the venue's answer for an order has an unexpected format", code=ErrorCode.ANSWER
        )
    if order_fields.get("cloid") != cloid:
        raise Retryable("the venue answered for another order", code=ErrorCode.ANSWER)
    oid = order_fields.get("oid")
    accepted_ms = order_fields.get("timestamp")
    changed_ms = status_record.get("statusTimestamp")
    side = order_fields.get("side")
    if (
        type(oid) is not int
        or type(accepted_ms) is not int
        or type(changed_ms) is not int
        or side not in ("A", "B")
    ):
        raise Retryable(
            "the venue's answer for an order has an unexpected format", code=ErrorCode.ANSWER
        )
    status = scrub(str(status_record.get("status")))
    size = parse_positive(order_fields.get("origSz"), "the size of an order")
    unfilled_size = parse_decimal(order_fields.get("sz"), "the rest of an order")
    if not 0 <= unfilled_size <= size:
        raise Retryable(
            "the venue's answer for the rest of an order is not within its size",
            code=ErrorCode.ANSWER,
        )
    return OrderRecord(
        cloid,
        _stage_of(status),
        oid,
        str(order_fields.get("coin")),
        size if side == "B" else -size,
        accepted_ms,
        status,
        unfilled_size if side == "B" else -unfilled_size,
        changed_ms,
        order_fields.get("tif") in ("Gtc", "Alo") or order_fields.get("isTrigger") is True,
    )


def order_state(record: OrderRecord, fills_answer: object, size_decimals: int) -> OrderState:
    """Return the state of an order with its fills, a `userFillsByTime` answer.

    Raises Retryable if the fills of a filled, resting or partly filled order do not add up or
    exceed its size, because the venue lists fills with a delay. A fill that is listed twice counts
    once.
    """
    if not isinstance(fills_answer, list) or not all(
        isinstance(fill, Mapping) for fill in fills_answer
    ):
        raise Retryable(
            "the venue's answer for fills has an unexpected format", code=ErrorCode.ANSWER
        )
    filled_size = Fraction(0)
    quote_change = Fraction(0)
    fee_total = Fraction(0)
    closed_profit = Fraction(0)
    sign = 1 if record.size > 0 else -1
    fill_by_id = dict[str, OrderFill]()
    for fill in fills_answer:
        fill_id = fill.get("tid")
        if fill.get("oid") != record.oid or str(fill_id) in fill_by_id:
            continue
        if type(fill_id) is not int:
            raise Retryable(
                "the venue's answer for a fill has an unexpected format", code=ErrorCode.ANSWER
            )
        fill_size = sign * parse_positive(fill.get("sz"), "the size of a fill")
        fill_quote_change = -fill_size * parse_positive(fill.get("px"), "the price of a fill")
        fill_fee = parse_decimal(fill.get("fee"), "the fee of a fill")
        fill_profit = parse_decimal(fill.get("closedPnl", "0"), "the profit of a fill")
        filled_size += fill_size
        quote_change += fill_quote_change
        fee_total += fill_fee
        closed_profit += fill_profit
        fill_by_id[str(fill_id)] = OrderFill(
            str(fill_id),
            require_whole(fill_size * 10**size_decimals, "the size of a fill"),
            floor_int(fill_quote_change * 10**QUOTE_DECIMALS),
            ceil_int(fill_fee * 10**QUOTE_DECIMALS),
            floor_int(fill_profit * 10**QUOTE_DECIMALS),
        )
    if not _is_possible_fill(record, filled_size):
        raise Retryable("the fills of an order do not add up yet", code=ErrorCode.ANSWER)
    return OrderState(
        record.cloid,
        record.stage,
        record.oid,
        require_whole(filled_size * 10**size_decimals, "the size of a fill"),
        floor_int(quote_change * 10**QUOTE_DECIMALS),
        ceil_int(fee_total * 10**QUOTE_DECIMALS),
        record.venue_status,
        record.coin,
        floor_int(closed_profit * 10**QUOTE_DECIMALS),
        tuple(fill_by_id.values()),
    )


def _is_possible_fill(record: OrderRecord, listed_size: Fraction) -> bool:
    """True if the listed fills can be all of an order's. The rest of an open order may be that of
    its opening (hyperliquid-python-sdk, issue 141), so it may have filled more than its record says.
    """
    reported_size = record.size - record.unfilled_size
    match record.stage:
        case VenueOrderStage.FILLED:
            return listed_size == record.size
        case VenueOrderStage.OPEN:
            return abs(reported_size) <= abs(listed_size) <= abs(record.size)
        case VenueOrderStage.CANCELED if record.has_partial_rest:
            return listed_size == reported_size
    return abs(listed_size) <= abs(record.size)


def _stage_of(status: str) -> VenueOrderStage:
    """Return the stage of a status word. The venue's many other final statuses end in `Canceled` or
    `Rejected`.
    """
    if status in ("open", "triggered"):
        return VenueOrderStage.OPEN
    if status == "filled":
        return VenueOrderStage.FILLED
    if status.lower().endswith(("canceled", "cancel")):
        return VenueOrderStage.CANCELED
    if status.lower().endswith("rejected"):
        return VenueOrderStage.REJECTED
    raise Retryable(f"the venue has an unknown status of an order: {status}", code=ErrorCode.ANSWER)


_ACCEPTED_ANSWERS = ("success", "waitingForTrigger", "waitingForFill")
"""Answers without further data to an accepted action."""


@dataclass(frozen=True, slots=True)
class VenueRefusal:
    """The venue's reason for a rejection, sanitised. `is_judged` is true if it judged the order
    itself, so the nonce is used and no copy of the action can execute; otherwise the action may
    have been executed before.
    """

    reason: str
    is_judged: bool


def parse_refusals(answer: object, count: int) -> list[VenueRefusal | None]:
    """Parse the answer to an action of `count` orders or cancels, in their order; None for one that
    the venue accepted. One error may stand for all of them. Raises Retryable for an unexpected
    format.
    """
    if isinstance(answer, Mapping) and answer.get("status") == "err":
        return [VenueRefusal(scrub(str(answer.get("response"))), is_judged=False)] * count
    response_data = json_field(json_field(answer, "response"), "data")
    statuses = json_field(response_data, "statuses")
    if isinstance(statuses, list):
        refusals = [_parse_status(status) for status in statuses]
        if len(refusals) == count:
            return refusals
        if len(refusals) == 1 and refusals[0] is not None:
            return refusals * count
    raise _malformed_answer_error()


def _parse_status(status: object) -> VenueRefusal | None:
    if isinstance(status, Mapping) and "error" in status:
        return VenueRefusal(scrub(str(status["error"])), is_judged=True)
    if status in _ACCEPTED_ANSWERS or isinstance(status, Mapping):
        return None
    raise _malformed_answer_error()


def _malformed_answer_error() -> Retryable:
    return Retryable(
        "the venue's answer to an action has an unexpected format", code=ErrorCode.ANSWER
    )
