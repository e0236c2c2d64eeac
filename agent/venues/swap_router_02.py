"""Turns a plan into the calldata of one SwapRouter02 multicall, V2 and V3 legs in one transaction, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode as abi_encode

from agent.chain.calls import EXACT_INPUT_SINGLE, MULTICALL, SWAP_EXACT_TOKENS, Call, decode
from agent.chain.words import NotUnderstood
from agent.errors import Refused
from agent.model import Funding, Leg, Plan

__all__ = ["ROUTER_ITSELF", "V2_VENUE", "V3_VENUE", "Call", "NotUnderstood", "decode", "encode"]

ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""Constants.ADDRESS_THIS of SwapRouter02: the router keeps what comes out, for a later leg."""
CONTRACT_BALANCE = 0
"""Constants.CONTRACT_BALANCE of SwapRouter02: the leg spends the router's whole balance of its token."""
V2_VENUE = "uniswap_v2"
V3_VENUE = "uniswap_v3"


def encode(plan: Plan, wallet: str, deadline_s: int) -> str:
    """0x-hex calldata of `multicall(uint256,bytes[])` with every leg of `plan` in order.

    `wallet` receives what leaves the router; `deadline_s` is a Unix time of the chain. Raises Refused when the plan
    cannot run in this router: no legs, a venue it does not know, an amount of zero, a token left behind in the router.
    """
    if not plan.legs:
        raise Refused("the plan has no legs; there is nothing to encode")
    if deadline_s <= 0:
        raise Refused(f"deadline {deadline_s} is not a Unix time", remedy="set execution.deadline")
    _check_flow(plan.legs)
    calls = [_leg(leg, wallet) for leg in plan.legs]
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [deadline_s, calls])).hex()


def _leg(leg: Leg, wallet: str) -> bytes:
    amount_in = leg.amount_in_raw if leg.source is Funding.WALLET else CONTRACT_BALANCE
    recipient = wallet if leg.sink is Funding.WALLET else ROUTER_ITSELF
    if leg.amount_in_raw <= 0 or leg.min_out_raw <= 0:
        raise Refused(
            f"leg through pool {leg.pool}: amount in {leg.amount_in_raw} and minimum out {leg.min_out_raw} must be above zero",
            remedy="raise limits.min_trade so that dust is left alone",
        )
    if leg.venue == V3_VENUE:
        params = (leg.token_in, leg.token_out, leg.fee_pips, recipient, amount_in, leg.min_out_raw, 0)
        return EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint24,address,uint256,uint256,uint160)"], [params])
    if leg.venue == V2_VENUE:
        path = [leg.token_in, leg.token_out]
        return SWAP_EXACT_TOKENS + abi_encode(["uint256", "uint256", "address[]", "address"], [amount_in, leg.min_out_raw, path, recipient])
    raise Refused(f"leg through pool {leg.pool}: SwapRouter02 does not reach venue {leg.venue!r}", remedy=f"use {V2_VENUE} or {V3_VENUE}")


def _check_flow(legs: Sequence[Leg]) -> None:
    """What a leg leaves in the router must be spent by a later one: anybody may take what stays there."""
    held: set[str] = set()
    for number, leg in enumerate(legs, 1):
        if leg.source is Funding.ROUTER:
            if leg.token_in not in held:
                raise Refused(f"leg {number} spends {leg.token_in} from the router, where no leg before it left any")
            held.discard(leg.token_in)
        if leg.sink is Funding.ROUTER:
            held.add(leg.token_out)
    if held:
        raise Refused(f"the plan leaves {', '.join(sorted(held))} in the router, where anybody may take it")
