"""The table of what may be signed: selector, then decoder, then rule; everything else is refused by name (threat T4).

The transaction is decoded here and compared with the grant; no field of it is believed. Adding a feature means adding
a row, its rule and its mutation tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from eth_utils.address import is_checksum_address

from agent.chain import calls, liquidity_calls, liquidity_rule, rebalance_rule
from agent.chain.calls import Approve, Call, ExactInputSingle, Multicall, Swap, SwapExactTokens
from agent.chain.judging import SigningRules, no, require_deadline
from agent.chain.program import Rebalance
from agent.chain.words import NotUnderstood
from agent.model import Funding, IntentKind, Leg, UnsignedTx
from agent.ports import Grant
from agent.units import UINT256_MAX

__all__ = ["TABLE", "Row", "SigningRules", "check", "check_typed", "no"]

ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""SwapRouter02's sentinel for its own balance."""
V3_VENUE = "uniswap_v3"
V2_VENUE = "uniswap_v2"
MAX_NONCE = 2**64 - 2
"""EIP-2681."""
MIN_GAS = 21_000


def check(tx: UnsignedTx, grant: Grant, rules: SigningRules) -> None:
    """Returns when `tx` may be signed. Raises Refused naming the rule that says no, what it saw and what it allows."""
    if tx.chain_id != rules.chain_id:
        no("chain_id", tx.chain_id, rules.chain_id)
    if not 0 <= tx.nonce <= MAX_NONCE:
        no("nonce", tx.nonce, f"0 to {MAX_NONCE}")
    _fees(tx, grant)
    data = _data(tx)
    if tx.value_wei != 0 and data[:4] not in BRING_NATIVE:
        no("value", f"{tx.value_wei} wei", "0 wei")
    row = TABLE.get(data[:4])
    if row is None:
        no("call", f"function 0x{data[:4].hex()}", "a function of the table")
    if row.kind is not grant.kind:
        no("kind", f"a transaction of kind {row.kind.value}", f"kind {grant.kind.value}, as granted")
    row.rule(tx, data, grant, rules)


def check_typed(typed_data: Mapping[str, object]) -> NoReturn:
    """Refuses EIP-712 data: the table of typed data is empty."""
    primary = typed_data.get("primaryType")
    shown = primary if isinstance(primary, str) and primary.isidentifier() and len(primary) <= 40 else "without a plain type name"
    no("typed_data", f"typed data {shown}", "none: no typed data is signed")


def _fees(tx: UnsignedTx, grant: Grant) -> None:
    """One form of fee, and at most the granted gas money even if all gas is used."""
    match (tx.max_fee_wei, tx.max_priority_fee_wei, tx.gas_price_wei):
        case (int() as max_fee, int() as priority, None):
            if not 0 <= priority <= max_fee:
                no("fees", f"priority fee {priority} wei", f"0 to the max fee of {max_fee} wei")
            price = max_fee
        case (None, None, int() as gas_price):
            price = gas_price
        case _:
            no("fees", "a mix of fee fields", "max fee and priority fee, or a gas price")
    if price <= 0:
        no("fees", f"{price} wei per gas", "a positive price")
    if tx.gas < MIN_GAS:
        no("gas", tx.gas, f"at least {MIN_GAS}")
    if tx.gas * price > grant.max_gas_wei:
        no("gas_cost", f"{tx.gas * price} wei", f"{grant.max_gas_wei} wei")


def _data(tx: UnsignedTx) -> bytes:
    if not is_checksum_address(tx.to):
        no("to", "an address that is not checksummed", "a checksummed address")
    try:
        return calls.data_bytes(tx.data)
    except NotUnderstood as error:
        no("call", error.message, "0x-hex calldata")


def _decoded(data: bytes) -> Call:
    try:
        return calls.decode(data)
    except NotUnderstood as error:
        no("call", error.message, "the canonical encoding of a call of the table")


def _cancel(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """A cancel takes a nonce and does nothing else: to ourselves, no value, no data."""
    if data:
        no("call", f"{len(data)} bytes of data", "no data in a cancel")
    if tx.to != rules.wallet:
        no("cancel", f"a recipient {tx.to}", f"the wallet {rules.wallet}")


def _approve(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """An approval is the granted one to the unit, for a pinned token and spender; setting to zero needs no pinned spender.

    LP tokens of a pair, the position manager and the V2 router come in only through the action of a grant.
    """
    call = _decoded(data)
    if not isinstance(call, Approve) or grant.approve is None:
        no("approval", "an approval", "none: the grant names no approval")
    token, spender, raw = grant.approve
    if tx.to not in rules.tokens and tx.to not in rules.pairs:
        no("contract", tx.to, "a pinned token")
    if tx.to != token:
        no("contract", tx.to, f"the granted token {token}")
    if call.spender != spender:
        no("spender", call.spender, f"the granted spender {spender}")
    if grant.action is not None:
        liquidity_rule.require_approval(token, call.spender, call.raw, grant.action, rules)
    elif call.raw != 0 and tx.to not in rules.tokens:
        no("contract", tx.to, "a pinned token")
    elif call.raw != 0 and call.spender not in (*rules.routers, *rules.rebalancers):
        no("spender", call.spender, "a pinned router or Rebalancer")
    if call.raw != raw:
        no("approval_amount", call.raw, f"exactly {raw}")
    if call.raw == UINT256_MAX:
        no("approval_amount", "an unlimited allowance", "an exact amount")
    if grant.plan is not None and call.raw not in (0, _spent(grant.plan.legs, token)):
        no("approval_amount", call.raw, f"0, or the {_spent(grant.plan.legs, token)} that the plan spends")


def _spent(legs: tuple[Leg, ...], token: str) -> int:
    return sum(leg.amount_in_raw for leg in legs if leg.token_in == token and leg.source is Funding.WALLET)


def _swap(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """A multicall is the granted plan, leg by leg, at or above every floor, to our wallet, and soon over."""
    if tx.to not in rules.routers:
        no("contract", tx.to, "a pinned router")
    call = _decoded(data)
    if not isinstance(call, Multicall) or grant.plan is None:
        no("plan", "a swap", "none: the grant holds no plan")
    require_deadline(call.deadline_s, grant, rules)
    legs = grant.plan.legs
    if not legs or len(call.calls) != len(legs):
        no("legs", f"{len(call.calls)} swaps", f"the {len(legs)} of the plan, at least one")
    if len(grant.floors_raw) != len(legs):
        no("floor", f"{len(grant.floors_raw)} floors", f"one for each of {len(legs)} legs")
    for number, (swap, leg, floor) in enumerate(zip(call.calls, legs, grant.floors_raw, strict=True), 1):
        _leg(f"leg {number}: ", swap, leg, floor, rules)
    _router_emptied(call)


def _leg(where: str, swap: Swap, leg: Leg, floor_raw: int, rules: SigningRules) -> None:
    token_in, token_out = _pair(where, swap, leg)
    if (token_in, token_out) != (leg.token_in, leg.token_out):
        no("tokens", f"{where}{token_in} to {token_out}", f"{leg.token_in} to {leg.token_out}")
    if token_in == token_out or token_in not in rules.tokens or token_out not in rules.tokens:
        no("tokens", f"{where}{token_in} to {token_out}", "two different pinned tokens")
    amount_in = leg.amount_in_raw if leg.source is Funding.WALLET else 0
    if swap.amount_in_raw != amount_in or leg.amount_in_raw <= 0:
        no("amount_in", f"{where}{swap.amount_in_raw}", f"exactly {amount_in}, and more than nothing in the plan")
    if leg.min_out_raw < max(1, floor_raw):
        no("floor", f"{where}minimum of the plan {leg.min_out_raw}", f"at least the floor {floor_raw}, and above zero")
    if swap.min_out_raw != leg.min_out_raw:
        no("min_out", f"{where}{swap.min_out_raw}", f"exactly the plan's {leg.min_out_raw}")
    recipient = rules.wallet if leg.sink is Funding.WALLET else ROUTER_ITSELF
    if swap.recipient != recipient:
        no("recipient", f"{where}{swap.recipient}", recipient)


def _pair(where: str, swap: Swap, leg: Leg) -> tuple[str, str]:
    """Tokens of a swap, once it is seen to use the kind of pool that the plan names."""
    match swap:
        case ExactInputSingle():
            if leg.venue != V3_VENUE:
                no("venue", f"{where}a V3 swap", leg.venue)
            if swap.fee_pips != leg.fee_pips:
                no("pool_fee", f"{where}{swap.fee_pips}", leg.fee_pips)
            if swap.sqrt_price_limit_x96 != 0:
                no("price_limit", f"{where}{swap.sqrt_price_limit_x96}", "0: a partial swap would leave tokens behind")
            return swap.token_in, swap.token_out
        case SwapExactTokens():
            if leg.venue != V2_VENUE:
                no("venue", f"{where}a V2 swap", leg.venue)
            if len(swap.path) != 2:
                no("tokens", f"{where}a path of {len(swap.path)} tokens", "a path of 2")
            return swap.path[0], swap.path[1]


def _router_emptied(call: Multicall) -> None:
    """What a swap leaves in the router is spent by a later one; whatever stays there belongs to whoever comes first."""
    held: set[str] = set()
    for swap in call.calls:
        path = (swap.token_in, swap.token_out) if isinstance(swap, ExactInputSingle) else swap.path
        if swap.amount_in_raw == 0:
            if path[0] not in held:
                no("router_balance", f"a swap of the router's {path[0]}", "only what a swap before it left there")
            held.discard(path[0])
        if swap.recipient == ROUTER_ITSELF:
            held.add(path[-1])
    if held:
        no("router_balance", f"{', '.join(sorted(held))} left in the router", "nothing")


def _rebalance(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    call = _decoded(data)
    if not isinstance(call, Rebalance):
        no("call", "another call", "a rebalance")
    rebalance_rule.judge(tx, call, grant, rules)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that may be signed: the kind of intent it serves, and its rule."""

    kind: IntentKind
    rule: Callable[[UnsignedTx, bytes, Grant, SigningRules], None]


TABLE: dict[bytes, Row] = {
    b"": Row(IntentKind.CANCEL, _cancel),
    calls.APPROVE: Row(IntentKind.APPROVE, _approve),
    calls.MULTICALL: Row(IntentKind.SWAP, _swap),
    calls.REBALANCE: Row(IntentKind.SWAP, _rebalance),
    **{selector: Row(IntentKind.LIQUIDITY, liquidity_rule.judge) for selector in sorted(liquidity_calls.SELECTORS)},
}
BRING_NATIVE = frozenset({calls.REBALANCE})
"""Calls whose own rule says how much native coin they bring; all others bring none."""
