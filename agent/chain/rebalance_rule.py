"""The signer's rule for the Rebalancer: its program is the granted plan, leg by leg, and its conditions hold nothing back."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.chain.judging import SigningRules, no, require_deadline
from agent.chain.program import Place, ProgramLeg, Rebalance, Venue
from agent.model import Funding, Leg, UnsignedTx
from agent.ports import Grant
from agent.units import NATIVE, floor_int

VENUES = {Venue.V2: "uniswap_v2", Venue.V3: "uniswap_v3", Venue.NATIVE: "wrapped_native"}


def judge(tx: UnsignedTx, call: Rebalance, grant: Grant, rules: SigningRules) -> None:
    """Returns when `call` may be signed; raises Refused naming the rule that says no."""
    if tx.to not in rules.rebalancers:
        no("contract", tx.to, "a pinned Rebalancer")
    if grant.plan is None:
        no("plan", "a rebalance", "none: the grant holds no plan")
    require_deadline(call.deadline_s, grant, rules)
    legs = grant.plan.legs
    if not legs or len(call.legs) != len(legs):
        no("legs", f"{len(call.legs)} swaps", f"the {len(legs)} of the plan, at least one")
    if len(grant.floors_raw) != len(legs):
        no("floor", f"{len(grant.floors_raw)} floors", f"one for each of {len(legs)} legs")
    for number, (swap, leg, floor) in enumerate(zip(call.legs, legs, grant.floors_raw, strict=True), 1):
        _leg(f"leg {number}: ", swap, leg, floor, rules)
    wrapped_wei = sum(leg.amount_in_raw for leg in legs if leg.token_in == NATIVE)
    if tx.value_wei != wrapped_wei:
        no("value", f"{tx.value_wei} wei", f"the {wrapped_wei} wei that the plan wraps")
    _nothing_stays(call)
    _conditions(call, legs, grant)


def _leg(where: str, swap: ProgramLeg, leg: Leg, floor_raw: int, rules: SigningRules) -> None:
    if VENUES[swap.venue] != leg.venue:
        no("venue", f"{where}{VENUES[swap.venue]}", leg.venue)
    if (swap.token_in, swap.token_out) != (leg.token_in, leg.token_out):
        no("tokens", f"{where}{swap.token_in} to {swap.token_out}", f"{leg.token_in} to {leg.token_out}")
    if swap.venue is Venue.NATIVE:
        if {swap.token_in, swap.token_out} != {NATIVE, rules.wrapped_native}:
            no("tokens", f"{where}{swap.token_in} to {swap.token_out}", f"the native coin and {rules.wrapped_native}")
    elif swap.token_in == swap.token_out or not {swap.token_in, swap.token_out} <= set(rules.tokens):
        no("tokens", f"{where}{swap.token_in} to {swap.token_out}", "two different pinned tokens")
    fee_pips = 0 if swap.venue is Venue.NATIVE else leg.fee_pips
    if swap.fee_pips != fee_pips:
        no("pool_fee", f"{where}{swap.fee_pips}", fee_pips)
    if (swap.source is Place.WALLET) != (leg.source is Funding.WALLET):
        no("source", f"{where}paid from {swap.source.value}", leg.source.value)
    if (swap.sink is Place.WALLET) != (leg.sink is Funding.WALLET):
        no("recipient", f"{where}pays to {swap.sink.name.lower()}", leg.sink.value)
    amount_in = leg.amount_in_raw if leg.source is Funding.WALLET else 0
    if swap.amount_raw != amount_in or leg.amount_in_raw <= 0:
        no("amount_in", f"{where}{swap.amount_raw}", f"exactly {amount_in}, and more than nothing in the plan")
    if leg.min_out_raw < max(1, floor_raw):
        no("floor", f"{where}minimum of the plan {leg.min_out_raw}", f"at least the floor {floor_raw}, and above zero")
    if swap.least_raw != leg.min_out_raw:
        no("min_out", f"{where}{swap.least_raw}", f"exactly the plan's {leg.min_out_raw}")


def _nothing_stays(call: Rebalance) -> None:
    """What a leg leaves in the contract or sends to a pair is spent by a later one, and no other leg comes between it and its pair."""
    here: set[str] = set()
    pairs: dict[frozenset[str], str] = {}
    for number, leg in enumerate(call.legs, 1):
        where, own = f"leg {number}", frozenset((leg.token_in, leg.token_out))
        if leg.source is Place.HERE:
            if leg.token_in not in here:
                no("router_balance", f"{where} spends the contract's {leg.token_in}", "only what a leg before it left there")
            here.discard(leg.token_in)
        if leg.venue is Venue.V2:
            waiting = pairs.pop(own, None)
            if waiting != (leg.token_in if leg.source is Place.PAIR else None):
                no("router_balance", f"{where} trades in a pair where {waiting} waits", "the leg that it waits for, paid by it")
        elif leg.source is Place.PAIR:
            no("router_balance", f"{where} is paid in its pool", "a V2 pair")
        if leg.sink is Place.HERE:
            here.add(leg.token_out)
        elif leg.sink is Place.PAIR and leg.pair_with is not None:
            to = frozenset((leg.token_out, leg.pair_with))
            if len(to) != 2 or (leg.venue is Venue.V2 and to == own) or pairs.setdefault(to, leg.token_out) != leg.token_out:
                no("router_balance", f"{where} pays to a pair that is in use", "a pair of its own")
    if here or pairs:
        no("router_balance", f"{', '.join(sorted(here | set(pairs.values())))} left behind", "nothing")


def _conditions(call: Rebalance, legs: tuple[Leg, ...], grant: Grant) -> None:
    """Every balance that the plan changes is watched, at the granted price, and may lose no more than the plan's minimums allow."""
    prices = dict(grant.prices)
    expected: dict[str, int] = {}
    for leg in legs:
        if leg.source is Funding.WALLET:
            expected[leg.token_in] = expected.get(leg.token_in, 0) - leg.amount_in_raw
        if leg.sink is Funding.WALLET:
            expected[leg.token_out] = expected.get(leg.token_out, 0) + leg.min_out_raw
    found = {entry.token: entry.bound_raw for entry in call.watched}
    if found != expected:
        no("bounds", f"{len(found)} balances with bounds {found}", f"those of the plan {expected}")
    for entry in call.watched:
        price = prices.get(entry.token, Fraction(0))
        if price <= 0 or entry.price_x128 != floor_int(price * 2**128):
            no("price", f"{entry.token} at {entry.price_x128}", f"the granted price {price} times 2^128")
    if call.floor_raw != grant.value_floor_raw:
        no("value_floor", call.floor_raw, f"the granted {grant.value_floor_raw}")
    least_raw = _least_value(legs, grant.floors_raw, prices)
    if call.floor_raw < least_raw:
        no("value_floor", call.floor_raw, f"at least {least_raw}, which the floors of the legs come to")


def _least_value(legs: tuple[Leg, ...], floors_raw: tuple[int, ...], prices: Mapping[str, Fraction]) -> int:
    """Change of the wallet's value when every leg brings its floor and no more, less one base unit for the rounding of prices."""
    value = Fraction(0)
    for leg, floor in zip(legs, floors_raw, strict=True):
        if leg.source is Funding.WALLET:
            value -= leg.amount_in_raw * prices[leg.token_in]
        if leg.sink is Funding.WALLET:
            value += floor * prices[leg.token_out]
    return floor_int(value) - 1
