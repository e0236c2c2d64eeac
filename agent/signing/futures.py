"""The signer's rules for futures. Perpetual Protocol v2: exactly the granted order, with a bound
near the index and within the leverage limit; margin moves only to and from the wallet.
Hyperliquid: exactly the granted order, byte for byte as recomputed here, in the market whose number
is pinned under its name, with the same bounds and a short validity.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NoReturn

from eth_utils.crypto import keccak

from agent.codec import json_field
from agent.errors import kind_words
from agent.model import (
    DelegateChange,
    FuturesAction,
    FuturesGrant,
    IntentKind,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    RestingAction,
    RestingOrder,
    StopOrder,
    UnsignedTx,
)
from agent.ports import Grant
from agent.ports.perpetuals import futures_grant, granted_action
from agent.signing.calldata import CalldataReader, UndecodableCalldata, decode_call, selector
from agent.signing.terms import FuturesRules, SigningRules, refuse, require_deadline
from agent.units import BPS, decimal_text

_ORDER_ABI = "(address,bool,bool,uint256,uint256,uint256,uint160,bytes32)"
OPEN_POSITION = selector(f"openPosition({_ORDER_ABI})")
OPEN_POSITION_FOR = selector(f"openPositionFor(address,{_ORDER_ABI})")
DEPOSIT = selector("deposit(address,uint256)")
WITHDRAW = selector("withdraw(address,uint256)")
APPROVE = selector("approve(address,uint8)")
REVOKE = selector("revoke(address,uint8)")
TRADE_ONLY = 1
"""Action of DelegateApproval that only allows a delegate to open and reduce positions."""
PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenPosition:
    """ClearingHouse.openPosition, or openPositionFor with a `trader`. A sale is exact base in, a
    purchase exact base out; `size_raw` is negative for a sale.
    """

    trader: str | None
    market: str
    size_raw: int
    bound_raw: int
    deadline_s: int


@dataclass(frozen=True, slots=True)
class MarginTransfer:
    """Vault.deposit or withdraw of `raw` base units of a token, for the sender."""

    token: str
    raw: int
    is_deposit: bool


@dataclass(frozen=True, slots=True)
class DelegateApprovalCall:
    """DelegateApproval.approve or revoke of trading by `delegate`."""

    delegate: str
    is_allowed: bool


FuturesCall = OpenPosition | MarginTransfer | DelegateApprovalCall


def decode(data: bytes) -> FuturesCall:
    """Decode the call in `data`. Raises UndecodableCalldata naming the error."""
    return decode_call(data, _DECODERS)


def _decode_order(words: CalldataReader, trader: str | None = None) -> OpenPosition:
    market = words.address()
    is_sale = words.uint(1)
    is_exact_input = words.uint(1)
    if is_sale != is_exact_input:
        raise UndecodableCalldata("calldata: the size of the order is not in base units")
    size_raw = words.uint()
    bound_raw = words.uint()
    deadline_s = words.uint()
    words.require_word(0, "the price limit")
    words.require_word(0, "the referral code")
    return OpenPosition(trader, market, -size_raw if is_sale else size_raw, bound_raw, deadline_s)


def _decode_delegate(words: CalldataReader, *, is_allowed: bool) -> DelegateApprovalCall:
    delegate = words.address()
    words.require_word(TRADE_ONLY, "the right to trade")
    return DelegateApprovalCall(delegate, is_allowed)


_DECODERS: dict[bytes, Callable[[CalldataReader], FuturesCall]] = {
    OPEN_POSITION: _decode_order,
    OPEN_POSITION_FOR: lambda words: _decode_order(words, words.address()),
    DEPOSIT: lambda words: MarginTransfer(words.address(), words.uint(), True),
    WITHDRAW: lambda words: MarginTransfer(words.address(), words.uint(), False),
    APPROVE: lambda words: _decode_delegate(words, is_allowed=True),
    REVOKE: lambda words: _decode_delegate(words, is_allowed=False),
}
SELECTORS = frozenset(_DECODERS)
"""Functions that a transaction of the futures layer may call."""


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, naming the rule that failed, unless the call may be signed."""
    try:
        call = decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    if rules.futures is None:
        refuse("futures", kind_words(type(call)), "none: no futures are configured")
    layer_grant = futures_grant(grant)
    futures_rules = rules.futures
    if layer_grant is None:
        refuse("action", kind_words(type(call)), "none: the grant has no futures action")
    match call, layer_grant.action:
        case [OpenPosition(), PerpOrder()]:
            _require_contract(tx.to, futures_rules.clearing_house, "clearing house")
            _judge_trader(call, rules.wallet, futures_rules)
            _judge_size(call, layer_grant.action, futures_rules)
            judge_order(layer_grant.action, layer_grant, grant.now_s, futures_rules)
            require_deadline(call.deadline_s, grant, rules)
        case [MarginTransfer(is_deposit=True), MarginDeposit()]:
            _judge_margin(tx.to, call, layer_grant.action.raw, rules.wallet, futures_rules)
        case [MarginTransfer(is_deposit=False), MarginWithdrawal()]:
            _judge_margin(tx.to, call, layer_grant.action.raw, rules.wallet, futures_rules)
        case [DelegateApprovalCall(), DelegateChange()]:
            _require_contract(tx.to, futures_rules.delegate_approval, "delegate approval")
            _judge_delegate(call, layer_grant.action, rules.wallet, futures_rules)
        case _:
            _refuse_action(call, layer_grant.action)


def require_approval(
    token: str, spender: str, raw: int, layer_grant: FuturesGrant, rules: SigningRules
) -> None:
    """Require that an approval is for the vault, of exactly the collateral of the granted deposit,
    or of zero, which resets it.
    """
    if rules.futures is None or not isinstance(layer_grant.action, MarginDeposit):
        refuse("approval", "an approval", "none: no deposit of margin is granted")
    if token != rules.futures.collateral or token not in rules.tokens:
        refuse("contract", token, f"the pinned collateral {rules.futures.collateral}")
    if spender != rules.futures.vault:
        refuse("spender", spender, f"the pinned vault {rules.futures.vault}")
    if raw not in (0, layer_grant.action.raw):
        refuse("approval_amount", raw, f"0, or the {layer_grant.action.raw} that is deposited")


def _refuse_action(call: FuturesCall, action: FuturesAction) -> NoReturn:
    refuse("action", kind_words(type(call)), f"{kind_words(type(action))}, as granted")


def _require_contract(to: str, pinned_address: str, role: str) -> None:
    if to != pinned_address:
        refuse("contract", to, f"the pinned {role} {pinned_address}")


def _require_own_account(wallet: str, rules: FuturesRules) -> None:
    """Require the wallet to be the trader, because a delegate must change neither margin nor
    delegates.
    """
    if rules.trader != wallet:
        refuse("trader", f"the delegate {wallet}", f"the account {rules.trader} itself")


def _judge_trader(call: OpenPosition, wallet: str, rules: FuturesRules) -> None:
    """Require the call to trade for the configured account; openPosition always trades for the
    wallet itself.
    """
    trader = wallet if call.trader is None else call.trader
    if trader != rules.trader:
        refuse("trader", trader, rules.trader)


def _judge_margin(
    to: str, call: MarginTransfer, granted_raw: int, wallet: str, rules: FuturesRules
) -> None:
    _require_contract(to, rules.vault, "vault")
    _require_own_account(wallet, rules)
    if call.token != rules.collateral:
        refuse("tokens", call.token, f"the collateral {rules.collateral}")
    if call.raw != granted_raw or call.raw <= 0:
        refuse("amount", call.raw, f"exactly {granted_raw}, above zero")


def _judge_delegate(
    call: DelegateApprovalCall, action: DelegateChange, wallet: str, rules: FuturesRules
) -> None:
    _require_own_account(wallet, rules)
    if call.delegate != rules.delegate or int(call.delegate, 16) == 0:
        refuse("delegate", call.delegate, f"the configured delegate {rules.delegate}")
    if (call.delegate, call.is_allowed) != (action.delegate, action.is_allowed):
        refuse("delegate", _delegate_text(call), f"exactly {_delegate_text(action)}")


def _delegate_text(call: DelegateApprovalCall | DelegateChange) -> str:
    return f"{'approve' if call.is_allowed else 'revoke'} {call.delegate}"


def _judge_size(call: OpenPosition, order: PerpOrder, rules: FuturesRules) -> None:
    """Require a market order with the granted market, size and bound; in a market that the config
    does not name, only a reduction.
    """
    if order.kind is not PerpOrderKind.MARKET:
        refuse("order", order.kind.value, "a market order")
    if call.market not in rules.markets and not order.is_reduce_only:
        refuse("market", call.market, "a configured market, or a reduction")
    if call.market != order.market:
        refuse("market", call.market, f"the granted market {order.market}")
    if call.size_raw != order.size_raw or call.size_raw == 0:
        refuse("size", call.size_raw, f"exactly {order.size_raw}, above zero")
    if call.bound_raw != order.bound_raw or call.bound_raw <= 0:
        refuse("bound", call.bound_raw, f"exactly {order.bound_raw}, above zero")


def judge_order(
    order: PerpOrder, layer_grant: FuturesGrant, now_s: int, rules: FuturesRules
) -> None:
    """Require a bound near the snapshot's index. An order that does not reduce must keep the
    leverage limit.
    """
    account = layer_grant.account
    market = _require_recent_market(account, order.market, now_s, rules)
    position_raw = _position_raw(account, order.market)
    is_reduction = position_raw * order.size_raw < 0 and abs(order.size_raw) <= abs(position_raw)
    if order.is_reduce_only and not is_reduction:
        refuse(
            "reduce_only", f"{order.size_raw} on a position of {position_raw}", "a smaller position"
        )
    if layer_grant.is_emergency and not order.is_reduce_only:
        refuse("emergency", "an order that may open", "a reduction")
    slippage_limit_bps = (
        rules.emergency_slippage_bps if layer_grant.is_emergency else rules.slippage_bps
    )
    _judge_bound(order, market, slippage_limit_bps)
    if not is_reduction:
        _judge_leverage(order, market, account, rules.max_leverage_bps)


def _require_recent_market(
    account: MarginAccount, market_name: str, now_s: int, rules: FuturesRules
) -> PerpMarket:
    """Return a market of the account. Refuses one without prices, or with an old index."""
    market = next(
        (perp_market for perp_market in account.markets if perp_market.market == market_name), None
    )
    if market is None or market.index <= 0 or market.mark <= 0:
        refuse("market", market_name, "a market of the snapshot with both prices")
    age_s = now_s - market.index_s
    if not 0 <= age_s <= rules.max_index_age_s:
        refuse("index_age", f"{age_s} s", f"0 to {rules.max_index_age_s} s")
    return market


def _position_raw(account: MarginAccount, market_name: str) -> int:
    return sum(
        position.size_raw for position in account.positions if position.market == market_name
    )


def _judge_bound(order: PerpOrder, market: PerpMarket, slippage_bps: int) -> None:
    index_value_raw = abs(order.size_raw) * market.index
    if order.size_raw > 0:
        max_bound_raw = index_value_raw * Fraction(BPS + slippage_bps, BPS)
        if order.bound_raw > max_bound_raw:
            refuse("bound", f"pays {order.bound_raw}", f"at most {max_bound_raw.__floor__()}")
    else:
        min_bound_raw = index_value_raw * Fraction(BPS - slippage_bps, BPS)
        if order.bound_raw < min_bound_raw:
            refuse("bound", f"brings {order.bound_raw}", f"at least {min_bound_raw.__ceil__()}")


def _judge_leverage(
    order: PerpOrder, market: PerpMarket, account: MarginAccount, max_leverage_bps: int
) -> None:
    """Require gross notional (at the marks) over account value to be within the limit after a fill
    at the bound with the fee, whichever resting orders are filled.
    """
    mark_by_market = {perp_market.market: perp_market.mark for perp_market in account.markets}
    size_by_market = {position.market: position.size_raw for position in account.positions}
    if markets_without_mark := sorted(size_by_market.keys() - mark_by_market.keys()):
        refuse("market", ", ".join(markets_without_mark), "positions in markets of the snapshot")
    account_value_raw = account.collateral_raw + account.realised_raw
    for position in account.positions:
        account_value_raw += position.open_notional_raw - position.funding_pending_raw
        account_value_raw += _value_at_mark(position.size_raw, mark_by_market[position.market])
    order_mark_value_raw = abs(_value_at_mark(order.size_raw, market.mark))
    slippage_raw = (
        order.bound_raw - order_mark_value_raw
        if order.size_raw > 0
        else order_mark_value_raw - order.bound_raw
    )
    fee_raw = -(-max(order_mark_value_raw, order.bound_raw) * market.fee_ppm // PPM)
    account_value_raw -= max(0, slippage_raw) + fee_raw
    size_by_market[order.market] = size_by_market.get(order.market, 0) + order.size_raw
    sizes_by_market = {
        market_name: (size_raw, size_raw) for market_name, size_raw in size_by_market.items()
    }  # with the resting sales filled, and with the purchases
    for resting_order in account.resting_orders:
        account_value_raw -= _resting_cost_raw(resting_order, account)
        smallest_raw, largest_raw = sizes_by_market.get(resting_order.market, (0, 0))
        sizes_by_market[resting_order.market] = (
            smallest_raw + min(0, resting_order.size_raw),
            largest_raw + max(0, resting_order.size_raw),
        )
    gross_notional_raw = sum(
        max(abs(_value_at_mark(size_raw, mark_by_market[market_name])) for size_raw in sizes_raw)
        for market_name, sizes_raw in sizes_by_market.items()
    )
    if account_value_raw <= 0 or gross_notional_raw * BPS > max_leverage_bps * account_value_raw:
        leverage_text = (
            "unlimited"
            if account_value_raw <= 0
            else f"{Fraction(gross_notional_raw, account_value_raw).__float__():.4f}x"
        )
        refuse("leverage", leverage_text, f"{max_leverage_bps / BPS:g}x")


def _resting_cost_raw(resting_order: RestingOrder, account: MarginAccount) -> int:
    """Return what a fill of a resting order at its price would take from the account's value."""
    market = next(
        (
            perp_market
            for perp_market in account.markets
            if perp_market.market == resting_order.market
        ),
        None,
    )
    if market is None:
        refuse("market", resting_order.market, "resting orders in markets of the snapshot")
    slippage_raw = resting_order.size_raw * (resting_order.price - market.mark)
    fee_raw = (
        abs(resting_order.size_raw) * max(resting_order.price, market.mark) * market.fee_ppm / PPM
    )
    return (max(Fraction(0), slippage_raw) + fee_raw).__ceil__()


def _value_at_mark(size_raw: int, mark: Fraction) -> int:
    """Return the signed value of a size, truncated toward zero."""
    value_raw = abs(size_raw) * mark.numerator // mark.denominator
    return -value_raw if size_raw < 0 else value_raw


_ACTION_KEYS = {"type", "orders", "grouping"}
_RULE_BY_KEY = {
    "a": "market",
    "b": "side",
    "p": "bound",
    "s": "size",
    "r": "reduce_only",
    "t": "order",
    "c": "client_order_id",
}
"""Keys of an order in the order in which they are signed, each with the name of its rule."""
FIRST_SPOT_NUMBER = 10_000
"""Numbers from here on are spot pairs, and markets of other deployers."""
PRICE_DIGITS = 5
PRICE_DECIMALS = 6
"""A price has at most five significant figures, and six decimals less those of a size."""
CLOID_BYTES = 16
NONCE_SLACK_S = 60
"""Largest difference between a nonce, which is a timestamp, and this machine's clock, seconds."""


STOP_TAG = b"stop"
LIMIT_TAG = b"rest"
"""First bytes of the client order ids of resting stops and limit orders, by which the agent knows
its own.
"""
TIME_IN_FORCE = {
    PerpOrderKind.MARKET: "Ioc",
    PerpOrderKind.LIMIT: "Gtc",
    PerpOrderKind.POST_ONLY: "Alo",
}
"""The venue's name of what happens to the part of an order that is not filled at once."""


def cloid_of(nonce_ms: int, action: PerpOrder | RestingAction) -> str:
    """Return the client order id of an action with this nonce. It depends on its arguments alone, so
    it is the same after a restart, also of a newer version. The venue never sees the id of a cancel;
    it names the cancel in the journal.
    """
    id_fields: list[object] = ["trimtab", str(nonce_ms), 0, action.market]
    match action:
        case PerpOrder():
            id_fields += [
                *(action.size_raw, action.kind.value, action.bound_raw, action.is_reduce_only)
            ]
        case StopOrder():
            id_fields += ["stop", action.size_raw, action.trigger_raw, action.bound_raw]
        case OrderCancel():
            id_fields += ["cancel", action.cloid]
    digest = keccak(json.dumps(id_fields).encode())
    if isinstance(action, StopOrder):
        digest = STOP_TAG + digest
    if isinstance(action, PerpOrder) and action.kind.can_rest:
        digest = LIMIT_TAG + digest
    return "0x" + digest[:CLOID_BYTES].hex()


def is_limit_cloid(cloid: str) -> bool:
    """True for the client order id of a limit order of the agent."""
    hex_tag = "0x" + LIMIT_TAG.hex()
    return cloid.startswith(hex_tag) and re.fullmatch("0x[0-9a-f]{32}", cloid) is not None


def granted_venue_action(grant: Grant) -> PerpOrder | RestingAction:
    """Return the action of an off-chain venue that a grant permits. Raises Refused without one."""
    action = granted_action(grant)
    if grant.kind is not IntentKind.FUTURES or action is None:
        refuse("action", "an order", "none: the grant has no futures action")
    if not isinstance(action, PerpOrder | StopOrder | OrderCancel):
        refuse("action", "an order", f"{kind_words(type(action))}, as granted")
    return action


def require_signable_order(
    tx: UnsignedTx, grant: Grant, rules: FuturesRules, now_s: int
) -> dict[str, Any]:
    """Return the action of an order if it may be signed at `now_s` of this machine's clock. Raises
    Refused with the failed rule.
    """
    order = granted_venue_action(grant)
    layer_grant = futures_grant(grant)
    if layer_grant is None:
        refuse("action", "an order", "none: the grant has no futures action")
    if tx.to != rules.trader:
        refuse("trader", tx.to, rules.trader)
    if tx.value_wei or tx.gas:
        refuse("value", f"{tx.value_wei} wei, {tx.gas} gas", "none: it is not a transaction")
    if abs(tx.nonce - now_s * 1000) > NONCE_SLACK_S * 1000:
        refuse("nonce", f"{tx.nonce} ms", f"within {NONCE_SLACK_S * 1000} ms of {now_s * 1000} ms")
    latest_deadline_s = now_s + rules.max_validity_s
    if not now_s < grant.deadline_s <= latest_deadline_s:
        refuse("deadline", grant.deadline_s, f"after {now_s} and at most {latest_deadline_s}")
    if isinstance(order, OrderCancel):
        return _judge_cancel(tx.data, order, layer_grant, rules)
    order_json = decode_action(tx.data)["orders"][0]
    expected_order = _expected_order(order, tx.nonce, layer_grant, rules)
    for order_key, rule_name in _RULE_BY_KEY.items():
        if json.dumps(order_json[order_key]) != json.dumps(expected_order[order_key]):
            refuse(rule_name, order_json[order_key], f"exactly {expected_order[order_key]}")
    action = {"type": "order", "orders": [expected_order], "grouping": "na"}
    _require_encoding(tx.data, action)
    if isinstance(order, PerpOrder):
        judge_order(order, layer_grant, grant.now_s, rules)
    else:
        _judge_stop(order, layer_grant, grant.now_s, rules)
    return action


def require_signable_orders(
    orders: Sequence[tuple[UnsignedTx, Grant]], rules: FuturesRules, now_s: int
) -> dict[str, Any]:
    """Return one action of orders that each pass the rules, and expire together. Raises Refused
    with the failed rule.
    """
    if len({grant.deadline_s for _, grant in orders}) != 1:
        refuse("deadline", "orders with different expiries", "one expiry of all orders")
    return batch_action([require_signable_order(tx, grant, rules, now_s) for tx, grant in orders])


def batch_action(actions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one action with the orders of actions that may each be signed. Raises Refused for
    anything but reductions, which together cannot exceed what each may do.
    """
    orders = [order for action in actions for order in action.get("orders", ())]
    markets = {order["a"] for order in orders}
    if len(orders) != len(actions) or len(markets) != len(orders):
        refuse("call", f"{len(orders)} orders in {len(markets)} markets", "one order a market")
    if not all(order["r"] is True and "limit" in order["t"] for order in orders):
        refuse("reduce_only", "an order that may open", "only reductions in one action")
    return {"type": "order", "orders": orders, "grouping": "na"}


def _require_encoding(data: str, action: dict[str, Any]) -> None:
    if data != "0x" + json.dumps(action, separators=(",", ":")).encode().hex():
        refuse("call", "another encoding", "the canonical encoding of the granted action")


def _judge_cancel(
    data: str, cancel: OrderCancel, layer_grant: FuturesGrant, rules: FuturesRules
) -> dict[str, Any]:
    """Return the action that cancels a resting stop of the agent in the snapshot, or any limit
    order of the agent: without the order no position is opened.
    """
    resting_stops = {(stop.market, stop.cloid) for stop in layer_grant.account.resting_stops}
    if not is_limit_cloid(cancel.cloid) and (cancel.market, cancel.cloid) not in resting_stops:
        refuse("client_order_id", cancel.cloid, "a resting stop of the snapshot, or a limit order")
    cancel_json = {"asset": _pinned_market_number(cancel.market, rules), "cloid": cancel.cloid}
    action = {"type": "cancelByCloid", "cancels": [cancel_json]}
    _require_encoding(data, action)
    return action


def _judge_stop(
    stop: StopOrder, layer_grant: FuturesGrant, now_s: int, rules: FuturesRules
) -> None:
    """Require a stop of the whole position, on the losing side of mark and index, with a bound
    within the slippage of emergencies from its trigger.
    """
    account = layer_grant.account
    market = _require_recent_market(account, stop.market, now_s, rules)
    position_raw = _position_raw(account, stop.market)
    if not position_raw or stop.size_raw != -position_raw:
        refuse(
            "reduce_only", f"{stop.size_raw} on a position of {position_raw}", "the whole position"
        )
    slippage_share = Fraction(rules.emergency_slippage_bps, BPS)
    if position_raw > 0:
        is_within_slippage = stop.bound_raw >= stop.trigger_raw * (1 - slippage_share)
    else:
        is_within_slippage = stop.bound_raw <= stop.trigger_raw * (1 + slippage_share)
    if not market.is_on_losing_side(position_raw, stop.trigger_raw):
        refuse("trigger", stop.trigger_raw, "the losing side of mark and index")
    if not is_within_slippage:
        refuse("bound", stop.bound_raw, f"within {rules.emergency_slippage_bps} bps of the trigger")


def decode_action(data: str) -> dict[str, Any]:
    """Return the action in `data`, 0x-hex of JSON with one order. Raises Refused for any other
    format.
    """
    try:
        action = json.loads(bytes.fromhex(data.removeprefix("0x")))
    except (ValueError, RecursionError):
        action = None
    orders = json_field(action, "orders")
    if (
        not isinstance(action, dict)
        or not isinstance(orders, list)
        or set(action) != _ACTION_KEYS
        or (action["type"], action["grouping"], len(orders)) != ("order", "na", 1)
        or not isinstance(orders[0], dict)
        or set(orders[0]) != set(_RULE_BY_KEY)
    ):
        refuse("call", "another action", "one order")
    return action


def _pinned_market_number(market: str, rules: FuturesRules) -> int:
    market_number = dict(rules.market_numbers).get(market)
    if type(market_number) is not int or not 0 <= market_number < FIRST_SPOT_NUMBER:
        refuse("market", f"number {market_number}", f"the number of {market}, as pinned")
    return market_number


def _expected_order(
    order: PerpOrder | StopOrder, nonce_ms: int, layer_grant: FuturesGrant, rules: FuturesRules
) -> dict[str, Any]:
    """Return the only form in which the granted order may be signed. Raises Refused for an order
    that has none.
    """
    is_reduce_only = True
    if isinstance(order, PerpOrder):
        _judge_kind(order, layer_grant, rules)
        if order.market not in rules.markets and not order.is_reduce_only:
            refuse("market", order.market, "a configured market, or a reduction")
        is_reduce_only = order.is_reduce_only
    market = next(
        (
            perp_market
            for perp_market in layer_grant.account.markets
            if perp_market.market == order.market
        ),
        None,
    )
    if market is None:
        refuse("market", order.market, "a market of the snapshot")
    market_number = _pinned_market_number(order.market, rules)
    quote_unit = layer_grant.account.quote.unit
    if not order.size_raw or order.bound_raw <= 0:
        refuse("size", order.size_raw, "a size and a bound above zero")
    if isinstance(order, StopOrder):
        trigger_price = _price_text(order.size_raw, order.trigger_raw, market, quote_unit)
        order_type: dict[str, object] = {
            "trigger": {"isMarket": True, "triggerPx": trigger_price, "tpsl": "sl"}
        }
    else:
        order_type = {"limit": {"tif": TIME_IN_FORCE[order.kind]}}
    return {
        "a": market_number,
        "b": order.size_raw > 0,
        "p": _price_text(order.size_raw, order.bound_raw, market, quote_unit),
        "s": decimal_text(abs(order.size_raw), market.size_decimals),
        "r": is_reduce_only,
        "t": order_type,
        "c": cloid_of(nonce_ms, order),
    }


def _judge_kind(order: PerpOrder, layer_grant: FuturesGrant, rules: FuturesRules) -> None:
    """Require an immediate-or-cancel order, or an opening of the configured kind in a market in
    which no other rests.
    """
    if not order.kind.can_rest:
        return
    if order.kind is not rules.order_kind:
        refuse("order", order.kind.value, f"{rules.order_kind.value}, as configured")
    if order.is_reduce_only or layer_grant.is_emergency:
        refuse("order", order.kind.value, "a market order for a reduction (Ioc)")
    if any(
        resting_order.market == order.market for resting_order in layer_grant.account.resting_orders
    ):
        refuse("order", order.kind.value, "none beside the order that rests in its market")


def _price_text(size_raw: int, quote_raw: int, market: PerpMarket, quote_unit: int) -> str:
    """Return the price of a size for a quote in whole ticks: rounded down for a buy, up for a
    sale.
    """
    price = Fraction(quote_raw * market.unit, abs(size_raw) * quote_unit)
    exponent = len(str(price.__floor__())) - 1
    while price < Fraction(10) ** exponent and exponent > -PRICE_DECIMALS:
        exponent -= 1
    decimals = max(0, min(PRICE_DECIMALS - market.size_decimals, PRICE_DIGITS - 1 - exponent))
    ticks = price * 10**decimals
    whole_ticks = ticks.__floor__() if size_raw > 0 else ticks.__ceil__()
    if whole_ticks <= 0:
        refuse("bound", quote_raw, "at least one tick")
    return decimal_text(whole_ticks, decimals)
