"""The signer's rule for SwapRouter02: its multicall is the granted plan, leg by leg, pays our wallet, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.calls import ExactInputSingle, Inner, Multicall, Pull, Swap, SwapExactTokens, SweepToken, UnwrapWeth9, WrapEth
from agent.chain.judging import SigningRules, no, require_deadline
from agent.model import Funding, Leg, UnsignedTx
from agent.ports import Grant
from agent.units import NATIVE

ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""SwapRouter02's sentinel for its own balance."""
V3_VENUE = "uniswap_v3"
V2_VENUE = "uniswap_v2"
NATIVE_VENUE = "wrapped_native"


def judge(tx: UnsignedTx, call: Multicall, grant: Grant, rules: SigningRules) -> None:
    """Returns when `call` may be signed; raises Refused naming the rule that says no."""
    if tx.to not in rules.routers:
        no("contract", tx.to, "a pinned router")
    if grant.plan is None:
        no("plan", "a swap", "none: the grant holds no plan")
    require_deadline(call.deadline_s, grant, rules)
    legs = grant.plan.legs
    if len(grant.floors_raw) != len(legs):
        no("floor", f"{len(grant.floors_raw)} floors", f"one for each of {len(legs)} legs")
    wrapped_wei = sum(leg.amount_in_raw for leg in legs if leg.token_in == NATIVE)
    if tx.value_wei != wrapped_wei:
        no("value", f"{tx.value_wei} wei", f"the {wrapped_wei} wei that the plan wraps")
    for number, (leg, floor) in enumerate(zip(legs, grant.floors_raw, strict=True), 1):
        _pinned(f"leg {number}: ", leg, floor, rules)
    expected = _groups(legs)
    if not legs or len(call.calls) != sum(len(group) for group in expected):
        no("legs", f"{len(call.calls)} calls", f"those of the {len(legs)} legs of the plan, at least one")
    left = list(call.calls)
    for group in expected:
        for number, leg, form in group:
            _call(f"leg {number}: ", left.pop(0), leg, form, rules)
    _router_emptied(call.calls, legs, tx.value_wei, rules)


def _groups(legs: Sequence[Leg]) -> list[list[tuple[int, Leg, str]]]:
    """For every leg the calls that it is made of, each with what it is: a swap, or a kind of payment.

    A leg that the router pays with native coin sent along is one call together with the wrap leg before it.
    """
    groups: list[list[tuple[int, Leg, str]]] = []
    paid_wei: int | None = None
    for number, leg in enumerate(legs, 1):
        if paid_wei is not None:
            if leg.venue == NATIVE_VENUE or leg.source is not Funding.ROUTER or leg.amount_in_raw != paid_wei:
                no("native", f"leg {number} after {paid_wei} wei were wrapped for it", "a swap of exactly that, from the router")
            groups.append([(number, leg, "paid")])
            paid_wei = None
        elif leg.venue != NATIVE_VENUE:
            groups.append([(number, leg, "swap")])
        elif leg.token_in == NATIVE and leg.sink is Funding.ROUTER:
            paid_wei = leg.amount_in_raw
        elif leg.token_in == NATIVE:
            groups.append([(number, leg, "wrap"), (number, leg, "sweep")])
        else:
            pull = [(number, leg, "pull")] if leg.source is Funding.WALLET else []
            groups.append([*pull, (number, leg, "unwrap")])
    if paid_wei is not None:
        no("native", f"{paid_wei} wei wrapped for no swap", "a swap after every wrap into the router")
    return groups


def _pinned(where: str, leg: Leg, floor_raw: int, rules: SigningRules) -> None:
    """The leg exchanges pinned tokens, of the native coin only for its wrapped token and one for one, at or above its floor."""
    ends = {leg.token_in, leg.token_out}
    if leg.venue == NATIVE_VENUE:
        if ends != {NATIVE, rules.wrapped_native}:
            no("tokens", f"{where}{leg.token_in} to {leg.token_out}", f"the native coin and {rules.wrapped_native}")
        if leg.source is leg.sink is Funding.ROUTER or (leg.token_in == NATIVE and leg.source is Funding.ROUTER):
            no("source", f"{where}from {leg.source.value} to {leg.sink.value}", "the wallet's native coin at one end")
        if leg.token_out == NATIVE and leg.sink is not Funding.WALLET:
            no("recipient", f"{where}native coin to {leg.sink.value}", "the wallet")
    elif len(ends) != 2 or not ends <= set(rules.tokens):
        no("tokens", f"{where}{leg.token_in} to {leg.token_out}", "two different pinned tokens")
    if leg.amount_in_raw <= 0:
        no("amount_in", f"{where}{leg.amount_in_raw}", "more than nothing")
    if leg.min_out_raw < max(1, floor_raw):
        no("floor", f"{where}minimum of the plan {leg.min_out_raw}", f"at least the floor {floor_raw}, and above zero")


def _call(where: str, call: Inner, leg: Leg, form: str, rules: SigningRules) -> None:
    """One call of the multicall is what its leg asks for."""
    if form in ("swap", "paid"):
        if not isinstance(call, ExactInputSingle | SwapExactTokens):
            no("call", f"{where}{type(call).__name__}", "a swap")
        _swap(where, call, leg, leg.amount_in_raw if form == "paid" or leg.source is Funding.WALLET else 0, rules)
        return
    wrapped = leg.token_out if leg.token_in == NATIVE else leg.token_in
    expected: dict[str, Inner] = {
        "wrap": WrapEth(leg.amount_in_raw),
        "sweep": SweepToken(wrapped, leg.min_out_raw, rules.wallet),
        "pull": Pull(wrapped, leg.amount_in_raw),
        "unwrap": UnwrapWeth9(leg.min_out_raw, rules.wallet),
    }
    if call != expected[form]:
        no("native", f"{where}{call}", expected[form])


def _swap(where: str, swap: Swap, leg: Leg, amount_in_raw: int, rules: SigningRules) -> None:
    token_in, token_out = _pair(where, swap, leg)
    if (token_in, token_out) != (leg.token_in, leg.token_out):
        no("tokens", f"{where}{token_in} to {token_out}", f"{leg.token_in} to {leg.token_out}")
    if swap.amount_in_raw != amount_in_raw:
        no("amount_in", f"{where}{swap.amount_in_raw}", f"exactly {amount_in_raw}")
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


def _router_emptied(calls: Sequence[Inner], legs: Sequence[Leg], value_wei: int, rules: SigningRules) -> None:
    """What a call leaves in the router is spent by a later one; whatever stays there belongs to whoever comes first.

    PeripheryPayments.pay takes native coin for a payment in wrapped coin whenever there is enough of it, whoever should pay:
    while some of it waits, only the swaps that it was sent for may spend wrapped coin.
    """
    held: set[str] = set()
    waiting_wei = value_wei
    wrapped = rules.wrapped_native or NATIVE
    paid = iter([leg.amount_in_raw for leg in legs if leg.token_in == NATIVE and leg.sink is Funding.ROUTER])
    due_wei = next(paid, 0)
    for call in calls:
        match call:
            case WrapEth(value):
                waiting_wei -= value
                _free(wrapped, held)
                held.add(wrapped)
            case SweepToken(token, _, _):
                held.discard(token)
            case Pull(token, _):
                _free(token, held)
                held.add(token)
            case UnwrapWeth9():
                if wrapped not in held:
                    no("router_balance", f"unwrapping of the router's {wrapped}", "only what a call before it left there")
                held.discard(wrapped)
            case ExactInputSingle() | SwapExactTokens():
                path = (call.token_in, call.token_out) if isinstance(call, ExactInputSingle) else call.path
                if path[0] == wrapped and waiting_wei > 0:
                    if call.amount_in_raw != due_wei:
                        no("native", f"a swap of {wrapped} while {waiting_wei} wei wait in the router", "swaps paid in native coin first")
                    waiting_wei, due_wei = waiting_wei - due_wei, next(paid, 0)
                elif call.amount_in_raw == 0:
                    if path[0] not in held:
                        no("router_balance", f"a swap of the router's {path[0]}", "only what a call before it left there")
                    held.discard(path[0])
                if call.recipient == ROUTER_ITSELF:
                    held.add(path[-1])
    if held:
        no("router_balance", f"{', '.join(sorted(held))} left in the router", "nothing")
    if waiting_wei != 0:
        no("native", f"{waiting_wei} wei left in the router", "nothing")


def _free(token: str, held: set[str]) -> None:
    if token in held:
        no("router_balance", f"{token} on top of what waits in the router", "one amount at a time")
