"""Documents of limit orders that rest at an off-chain venue, from its account or from the
journal.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from typing_extensions import TypedDict

from agent.app.documents import DecimalText, PriceText, TimeText, one_of
from agent.units import decimal_text, price_text, utc_text

if TYPE_CHECKING:
    from agent.model import FuturesGrant, FuturesPolicy, Intent, MarginAccount, PerpOrder


class OpenOrderDocument(TypedDict):
    """A limit order that rests at the venue; the agent cancels it once `expires` is past."""

    symbol: str
    side: Annotated[str, one_of("buy", "sell")]
    size: DecimalText
    filled: DecimalText
    price: PriceText
    expires: TimeText


def open_order_documents(
    account: MarginAccount | None, policy: FuturesPolicy
) -> list[OpenOrderDocument]:
    """Return the documents of an account's resting orders."""
    if account is None:
        return []
    return [
        {
            "symbol": (market := account.market(order.market)).symbol,
            "side": "buy" if order.original_size_raw > 0 else "sell",
            "size": decimal_text(abs(order.original_size_raw), market.size_decimals),
            "filled": decimal_text(
                abs(order.original_size_raw - order.size_raw), market.size_decimals
            ),
            "price": price_text(order.price, market.size_decimals, account.quote.decimals),
            "expires": utc_text(order.placed_s + policy.order_time_s),
        }
        for order in account.resting_orders
    ]


def journalled_order_document(
    order: PerpOrder, grant: FuturesGrant, intent: Intent, max_rest_s: int
) -> OpenOrderDocument:
    """Return the document of a resting order from its intent and grant in the journal; the agent
    cancels it `max_rest_s` seconds after it was made.
    """
    wire_order = json.loads(bytes.fromhex(intent.tx.data[2:]))["orders"][0]
    market = grant.account.market(order.market)
    fills = () if intent.receipt is None else intent.receipt.fills
    filled_raw = abs(sum(fill.size_raw for fill in fills))
    return {
        "symbol": market.symbol,
        "side": "buy" if wire_order["b"] else "sell",
        "size": wire_order["s"],
        "filled": decimal_text(filled_raw, market.size_decimals),
        "price": wire_order["p"],
        "expires": utc_text(intent.created_s + max_rest_s),
    }
