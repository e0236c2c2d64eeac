"""The signer's rule for orders on Hyperliquid: exactly the granted order, immediate-or-cancel, with
a bound near the index, within the leverage limit, and with a short validity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from agent.model import IntentKind, UnsignedTx
from agent.model.futures import FuturesGrant, PerpOrder, PerpOrderKind
from agent.ports import Grant
from agent.signing.base import FuturesRules, refuse
from agent.signing.futures import judge_order

_ACTION = {"type", "orders", "grouping"}
_WIRE = {"a", "b", "p", "s", "r", "t", "c"}
_AT_ONCE = {"limit": {"tif": "Ioc"}}
CLOID_BYTES = 16
NONCE_SLACK_S = 60
"""Largest difference between a nonce, which is a timestamp, and this machine's clock."""


def require_signable_order(
    tx: UnsignedTx, grant: Grant, rules: FuturesRules, now_s: int
) -> dict[str, Any]:
    """Return the action of an order if it may be signed at `now_s` of this machine's clock. Raises
    Refused with the failed rule.
    """
    granted = grant.futures
    if grant.kind is not IntentKind.FUTURES or granted is None:
        refuse("action", "an order", "none: the grant has no futures action")
    order = granted.action
    if not isinstance(order, PerpOrder):
        refuse("action", "an order", f"{type(order).__name__}, as granted")
    if tx.to != rules.trader:
        refuse("trader", tx.to, rules.trader)
    if tx.value_wei or tx.gas:
        refuse("value", f"{tx.value_wei} wei, {tx.gas} gas", "none: it is not a transaction")
    if abs(tx.nonce - now_s * 1000) > NONCE_SLACK_S * 1000:
        refuse("nonce", tx.nonce, f"within {NONCE_SLACK_S} s of {now_s * 1000}")
    last_s = now_s + rules.max_validity_s
    if not now_s < grant.deadline_s <= last_s:
        refuse("deadline", grant.deadline_s, f"after {now_s} and at most {last_s}")
    action = decode_action(tx.data)
    _judge_wire(action["orders"][0], order, granted, rules)
    judge_order(order, granted, grant.now_s, rules)
    return action


def decode_action(data: str) -> dict[str, Any]:
    """Return the action in `data`, 0x-hex of JSON with one order. Raises Refused for any other
    format.
    """
    try:
        action = json.loads(bytes.fromhex(data.removeprefix("0x")))
    except (ValueError, RecursionError):
        action = None
    orders = action.get("orders") if isinstance(action, dict) else None
    if (
        not isinstance(action, dict)
        or not isinstance(orders, list)
        or set(action) != _ACTION
        or (action["type"], action["grouping"], len(orders)) != ("order", "na", 1)
        or not isinstance(orders[0], dict)
        or set(orders[0]) != _WIRE
    ):
        refuse("call", "another action", "one order")
    return action


def _judge_wire(
    wire: Mapping[str, Any], order: PerpOrder, granted: FuturesGrant, rules: FuturesRules
) -> None:
    """Require the granted side, size, bound, kind and client order id."""
    if order.kind is not PerpOrderKind.MARKET or wire["t"] != _AT_ONCE:
        refuse("order", wire["t"], "an immediate-or-cancel order (Ioc)")
    if order.market not in rules.markets:
        refuse("market", order.market, "a configured market")
    market = next((one for one in granted.account.markets if one.market == order.market), None)
    if market is None:
        refuse("market", order.market, "a market of the snapshot")
    if wire["b"] is not (order.size_raw > 0):
        refuse("side", wire["b"], f"a size of {order.size_raw}")
    if wire["r"] is not order.is_reduce_only:
        refuse("reduce_only", wire["r"], order.is_reduce_only)
    size = _decimal(wire["s"], "size")
    if size * market.unit != abs(order.size_raw) or not order.size_raw:
        refuse("size", wire["s"], f"exactly {abs(order.size_raw)} base units, above zero")
    bound = _decimal(wire["p"], "bound") * size * granted.account.quote.unit
    beyond = bound > order.bound_raw if order.size_raw > 0 else bound < order.bound_raw
    if beyond or bound <= 0:
        refuse("bound", wire["p"], f"{order.bound_raw} quote base units for the whole size")
    if not isinstance(wire["a"], int) or wire["a"] < 0:
        refuse("market", wire["a"], "the number of a market")
    cloid = wire["c"]
    if not isinstance(cloid, str) or len(cloid) != 2 + 2 * CLOID_BYTES:
        refuse("order", cloid, f"a client order id of {CLOID_BYTES} bytes")


def _decimal(text: object, rule: str) -> Fraction:
    if not isinstance(text, str) or not text.replace(".", "", 1).isdecimal() or not text.isascii():
        refuse(rule, text, "a decimal")
    return Fraction(text)
