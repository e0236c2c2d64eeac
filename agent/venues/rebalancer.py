"""Calldata of one Rebalancer call per plan, its conditions, and verification of a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.artifacts import own_artifact
from agent.chain.lens import abi_encode
from agent.chain.rpc import Transport
from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import Leg, LegFunding, Plan
from agent.planning.gas import NATIVE_VENUE, balance_deltas
from agent.signing.calldata import (
    REBALANCE,
    FundsLocation,
    RebalanceCall,
    UndecodableCalldata,
    Venue,
    decode,
)
from agent.units import NATIVE, floor_int

__all__ = [
    "NATIVE_VENUE",
    "V2_VENUE",
    "V3_VENUE",
    "RebalanceCall",
    "RebalancerTerms",
    "UndecodableCalldata",
    "decode",
    "encode",
    "min_balance_changes",
    "native_wei",
    "price_x128",
]

V2_VENUE = "uniswap_v2"
V3_VENUE = "uniswap_v3"
_VENUES = {V2_VENUE: Venue.V2, V3_VENUE: Venue.V3, NATIVE_VENUE: Venue.NATIVE}
_MOST_TOKENS = 255


@dataclass(frozen=True, slots=True)
class RebalancerTerms:
    """Conditions of the whole transaction.

    `prices` are numeraire base units per token base unit, of every token whose balance changes.
    `floor_raw` is the least change of the wallet's value, numeraire base units, usually negative.
    """

    prices: Mapping[str, Fraction]
    floor_raw: int


def encode(plan: Plan, deadline_s: int, terms: RebalancerTerms) -> str:
    """Return 0x-hex calldata of `rebalance(bytes)` with every leg of `plan` in order; the sender
    pays and receives.

    `deadline_s` is a Unix time of the chain. Raises Refused if the Rebalancer cannot run the plan:
    no legs, an unknown venue, an amount of zero or beyond 128 bits, a token without a price, a
    token left behind.
    """
    if not plan.legs:
        raise Refused("the plan has no legs; there is nothing to encode", code=ErrorCode.NO_LEGS)
    if not 0 < deadline_s < 1 << 40:
        raise Refused(
            f"deadline {deadline_s} is not a Unix time",
            remedy="set execution.deadline",
            code=ErrorCode.DEADLINE,
        )
    places = _places(plan.legs)
    changes = min_balance_changes(plan.legs)
    traded = [token for leg in plan.legs for token in (leg.token_in, leg.token_out)]
    tokens = list(dict.fromkeys([*changes, *traded]))
    if len(tokens) > _MOST_TOKENS:
        raise Refused(
            f"the plan trades {len(tokens)} tokens, the Rebalancer at most {_MOST_TOKENS}",
            code=ErrorCode.TOKENS,
        )
    header = (
        deadline_s.to_bytes(5, "big")
        + bytes([len(changes), len(tokens)])
        + _signed(terms.floor_raw, "the value floor")
    )
    conditions = [
        price_x128(terms.prices, token).to_bytes(24, "big") + _signed(raw, token)
        for token, raw in changes.items()
    ]
    legs = [_leg(leg, *place, tokens) for leg, place in zip(plan.legs, places, strict=True)]
    program = b"".join([header, *map(_address, tokens), *conditions, *legs])
    return "0x" + (REBALANCE + abi_encode(["bytes"], [program])).hex()


def native_wei(plan: Plan) -> int:
    """Return the native coin sent with the transaction, wei: the amount that the legs wrap."""
    return sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == NATIVE)


def min_balance_changes(legs: Sequence[Leg]) -> dict[str, int]:
    """Return the minimum change of the wallet's balances by token, in base units: the legs' minimum
    outputs less their inputs.
    """
    return balance_deltas([replace(leg, amount_out_raw=leg.min_out_raw) for leg in legs])


def price_x128(prices: Mapping[str, Fraction], token: str) -> int:
    """Return a price times 2^128, rounded down. Raises Refused if there is none, or it does not fit
    192 bits.
    """
    price = prices.get(token, Fraction(0))
    scaled = floor_int(price * 2**128)
    if not 0 < scaled < 1 << 192:
        raise Refused(
            f"the Rebalancer needs a price of {token}, got {price}",
            remedy="give the token a price feed",
            code=ErrorCode.REFERENCE_PRICE,
        )
    return scaled


def _leg(
    leg: Leg, source: FundsLocation, sink: FundsLocation, after: str | None, tokens: Sequence[str]
) -> bytes:
    if leg.amount_in_raw <= 0 or leg.min_out_raw <= 0:
        raise Refused(
            f"leg through pool {leg.pool}: amount in {leg.amount_in_raw} and minimum out"
            f" {leg.min_out_raw} must be above zero",
            remedy="raise limits.min_trade to skip dust",
            code=ErrorCode.AMOUNT,
        )
    venue = _VENUES[leg.venue]
    amount_raw = leg.amount_in_raw if source is FundsLocation.WALLET else 0
    if max(amount_raw, leg.min_out_raw) >> 128:
        raise Refused(
            f"leg through pool {leg.pool}: an amount does not fit 128 bits",
            remedy="trade in smaller parts",
        )
    kind = venue.value | source.value << 2 | sink.value << 4
    numbers = [
        tokens.index(leg.token_in),
        tokens.index(leg.token_out),
        0 if after is None else tokens.index(after),
    ]
    fee = 0 if venue is Venue.NATIVE else leg.fee_pips
    return (
        bytes([kind, *numbers])
        + fee.to_bytes(3, "big")
        + amount_raw.to_bytes(16, "big")
        + leg.min_out_raw.to_bytes(16, "big")
    )


def _places(legs: Sequence[Leg]) -> list[tuple[FundsLocation, FundsLocation, str | None]]:
    """Return source and sink of each leg, and the other token of the pair that it pays into.

    An output for a later V2 leg goes directly into that leg's pair. If another leg uses the pair in
    between, the output goes through the contract instead, because the pair would absorb it.
    """
    spenders: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    for number, leg in enumerate(legs):
        if leg.venue not in _VENUES:
            raise Refused(
                f"leg through pool {leg.pool}: the Rebalancer does not reach venue {leg.venue!r}",
                remedy=f"use {V2_VENUE} or {V3_VENUE}",
                code=ErrorCode.VENUE,
            )
        if leg.source is LegFunding.ROUTER:
            if leg.token_in not in waiting:
                raise Refused(
                    f"leg {number + 1} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            spenders |= dict.fromkeys(waiting.pop(leg.token_in), number)
        if leg.sink is LegFunding.ROUTER:
            waiting.setdefault(leg.token_out, []).append(number)
    if waiting:
        raise Refused(
            f"the plan leaves {', '.join(sorted(waiting))} in the router, where anyone could"
            " take it",
            code=ErrorCode.ROUTER_BALANCE,
        )
    direct = {
        spender
        for spender in spenders.values()
        if _direct(legs, spender, [f for f, s in spenders.items() if s == spender])
    }
    places: list[tuple[FundsLocation, FundsLocation, str | None]] = []
    for number, leg in enumerate(legs):
        if leg.source is LegFunding.WALLET:
            source = FundsLocation.WALLET
        elif number in direct:
            source = FundsLocation.PAIR
        else:
            source = FundsLocation.HERE
        if leg.sink is LegFunding.WALLET:
            places.append((source, FundsLocation.WALLET, None))
        elif spenders[number] in direct:
            places.append((source, FundsLocation.PAIR, legs[spenders[number]].token_out))
        else:
            places.append((source, FundsLocation.HERE, None))
    return places


def _direct(legs: Sequence[Leg], spender: int, feeders: Sequence[int]) -> bool:
    pair = legs[spender].pool
    return legs[spender].venue == V2_VENUE and all(
        leg.pool != pair for leg in legs[min(feeders) : spender]
    )


def _signed(raw: int, what: str) -> bytes:
    try:
        return raw.to_bytes(16, "big", signed=True)
    except OverflowError:
        raise Refused(
            f"{what}: {raw} does not fit 127 bits",
            remedy="trade in smaller parts",
            code=ErrorCode.RANGE,
        ) from None


def _address(address: str) -> bytes:
    return bytes.fromhex(address[2:])


# --- Deployment bytecode of the Rebalancer, and verification of a deployed one.


V2_INIT_CODE_HASH = "0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f"
"""keccak256 of UniswapV2Pair's creation code; UniswapV2Library.pairFor."""
V3_INIT_CODE_HASH = "0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54"
"""keccak256 of UniswapV3Pool's creation code; PoolAddress.POOL_INIT_CODE_HASH."""


def creation_code(wrapped_native: str, factories: Mapping[str, str]) -> str:
    """Return 0x-hex data of the transaction that deploys a Rebalancer for these factories, by
    venue. An unused venue gets the zero address, which has no pools.
    """
    v2, v3 = factories.get(V2_VENUE, NATIVE), factories.get(V3_VENUE, NATIVE)
    words = [wrapped_native, v2, _bytes(V2_INIT_CODE_HASH), v3, _bytes(V3_INIT_CODE_HASH)]
    return (
        own_artifact("Rebalancer").bytecode
        + abi_encode(["address", "address", "bytes32", "address", "bytes32"], words).hex()
    )


def require_own_rebalancer(
    transport: Transport, address: str, wrapped_native: str, factories: Mapping[str, str]
) -> None:
    """Raise ConfigError unless the code at `address` equals, byte for byte, a deployment by
    `creation_code`.
    """
    answers = transport.batch(
        [
            ("eth_call", [{"data": creation_code(wrapped_native, factories)}, "latest"]),
            ("eth_getCode", [address, "latest"]),
        ]
    )
    expected, found = (answer.lower() if isinstance(answer, str) else "" for answer in answers)
    if len(expected) <= 2 or expected != found:
        raise ConfigError(
            f"execution.rebalancer: the code at {address} is not this version's Rebalancer for the"
            " factories of the config",
            "deploy it with the data that scripts/rebalancer_code.py prints, or use swap_router_02",
        )


def _bytes(word: str) -> bytes:
    return bytes.fromhex(word[2:])
