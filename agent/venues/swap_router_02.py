"""Calldata of one SwapRouter02 multicall per plan: V2 and V3 legs in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.lens import abi_encode
from agent.errors import ErrorCode, Refused
from agent.model import Leg, LegFunding, Plan
from agent.planning.gas import NATIVE_VENUE
from agent.signing.calldata import (
    EXACT_INPUT_SINGLE,
    MULTICALL,
    PULL,
    SWAP_EXACT_TOKENS,
    SWEEP_TOKEN,
    UNWRAP_WETH9,
    WRAP_ETH,
    Call,
    UndecodableCalldata,
    decode,
)
from agent.units import NATIVE
from agent.venues.rebalancer import V2_VENUE, V3_VENUE, native_wei

__all__ = [
    "ROUTER_ITSELF",
    "V2_VENUE",
    "V3_VENUE",
    "Call",
    "UndecodableCalldata",
    "decode",
    "encode",
    "native_wei",
]

ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""Constants.ADDRESS_THIS of SwapRouter02: the router keeps the output for a later leg."""
CONTRACT_BALANCE = 0
"""Constants.CONTRACT_BALANCE of SwapRouter02: the leg spends the router's whole balance of its
token."""


def encode(plan: Plan, wallet: str, deadline_s: int) -> str:
    """Return 0x-hex calldata of `multicall(uint256,bytes[])` with every leg of `plan` in order.

    `wallet` receives the router's outputs; `deadline_s` is a Unix time of the chain. Raises Refused
    if the router cannot run the plan: no legs, an unknown venue, an amount of zero, a token left in
    the router.
    """
    if not plan.legs:
        raise Refused("the plan has no legs; there is nothing to encode", code=ErrorCode.NO_LEGS)
    if deadline_s <= 0:
        raise Refused(
            f"deadline {deadline_s} is not a Unix time",
            remedy="set execution.deadline",
            code=ErrorCode.DEADLINE,
        )
    _check_flow(plan.legs)
    _check_native(plan.legs)
    calls: list[bytes] = []
    paid_wei = 0
    for leg in plan.legs:
        _require_amounts(leg)
        if leg.venue == NATIVE_VENUE:
            calls += _payments(leg, wallet)
            paid_wei = (
                leg.amount_in_raw if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER else 0
            )
        else:
            amount_in = (
                leg.amount_in_raw
                if leg.source is LegFunding.WALLET
                else paid_wei or CONTRACT_BALANCE
            )
            calls.append(_swap(leg, wallet, amount_in))
            paid_wei = 0
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [deadline_s, calls])).hex()


def _require_amounts(leg: Leg) -> None:
    if leg.amount_in_raw <= 0 or leg.min_out_raw <= 0:
        raise Refused(
            f"leg through pool {leg.pool}: amount in {leg.amount_in_raw} and minimum out"
            f" {leg.min_out_raw} must be above zero",
            remedy="raise limits.min_trade to skip dust",
            code=ErrorCode.AMOUNT,
        )


def _swap(leg: Leg, wallet: str, amount_in: int) -> bytes:
    recipient = wallet if leg.sink is LegFunding.WALLET else ROUTER_ITSELF
    if leg.venue == V3_VENUE:
        params = (
            leg.token_in,
            leg.token_out,
            leg.fee_pips,
            recipient,
            amount_in,
            leg.min_out_raw,
            0,
        )
        return EXACT_INPUT_SINGLE + abi_encode(
            ["(address,address,uint24,address,uint256,uint256,uint160)"], [params]
        )
    if leg.venue == V2_VENUE:
        path = [leg.token_in, leg.token_out]
        return SWAP_EXACT_TOKENS + abi_encode(
            ["uint256", "uint256", "address[]", "address"],
            [amount_in, leg.min_out_raw, path, recipient],
        )
    raise Refused(
        f"leg through pool {leg.pool}: SwapRouter02 does not reach venue {leg.venue!r}",
        remedy=f"use {V2_VENUE} or {V3_VENUE}",
        code=ErrorCode.VENUE,
    )


def _payments(leg: Leg, wallet: str) -> list[bytes]:
    """Return the calls of a leg that wraps or unwraps. Wrapping for the next leg needs no call,
    because that leg's payment wraps the coin.
    """
    if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER:
        return []
    if leg.token_in == NATIVE:
        swept = abi_encode(
            ["address", "uint256", "address"], [leg.token_out, leg.min_out_raw, wallet]
        )
        return [WRAP_ETH + abi_encode(["uint256"], [leg.amount_in_raw]), SWEEP_TOKEN + swept]
    pulled = PULL + abi_encode(["address", "uint256"], [leg.token_in, leg.amount_in_raw])
    unwrapped = UNWRAP_WETH9 + abi_encode(["uint256", "address"], [leg.min_out_raw, wallet])
    return [pulled, unwrapped] if leg.source is LegFunding.WALLET else [unwrapped]


def _check_flow(legs: Sequence[Leg]) -> None:
    """Require a later leg to spend every output left in the router, because anyone can take a
    remainder.
    """
    held: set[str] = set()
    for number, leg in enumerate(legs, 1):
        if leg.source is LegFunding.ROUTER:
            if leg.token_in not in held:
                raise Refused(
                    f"leg {number} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            held.discard(leg.token_in)
        elif leg.venue == NATIVE_VENUE and held & {leg.token_in, leg.token_out}:
            raise Refused(
                f"leg {number} would mix with the router's balance", code=ErrorCode.ROUTER_BALANCE
            )
        if leg.sink is LegFunding.ROUTER:
            held.add(leg.token_out)
    if held:
        raise Refused(
            f"the plan leaves {', '.join(sorted(held))} in the router, where anyone could take it",
            code=ErrorCode.ROUTER_BALANCE,
        )


def _check_native(legs: Sequence[Leg]) -> None:
    """Require native coin for a swap to be wrapped directly before it, ahead of all other payments
    in wrapped coin, because the router uses its native coin for any payment in wrapped coin
    (PeripheryPayments.pay).
    """
    wraps = [
        number
        for number, leg in enumerate(legs)
        if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER
    ]
    for number in wraps:
        swap = legs[number + 1]
        if (
            swap.source is not LegFunding.ROUTER
            or swap.venue == NATIVE_VENUE
            or swap.amount_in_raw != legs[number].amount_in_raw
        ):
            raise Refused(
                f"leg {number + 1} wraps {legs[number].amount_in_raw} wei "
                "without a swap of exactly that amount",
                code=ErrorCode.WRAPPING,
            )
        if any(
            leg.token_in == swap.token_in
            for at, leg in enumerate(legs[:number])
            if at - 1 not in wraps
        ):
            raise Refused(
                f"leg {number + 2} is paid in native coin after wrapped coin was spent;"
                " SwapRouter02 would confuse both",
                code=ErrorCode.WRAPPING,
            )
