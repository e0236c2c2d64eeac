"""Calldata of the wallet's transactions: one Rebalancer call or one SwapRouter02 multicall per
plan, and liquidity actions for the V3 position manager and the V2 router. Also the conditions of a
Rebalancer call, and verification of its deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.artifacts import own_artifact
from agent.chain.lens import abi_encode
from agent.chain.rpc import Transport
from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import Leg, LegFunding, Plan
from agent.planning.gas import NATIVE_VENUE, V3_VENUE, balance_deltas, sweeps
from agent.signing.calldata import (
    EXACT_INPUT_SINGLE,
    MULTICALL,
    PULL,
    REBALANCE,
    SWAP_EXACT_TOKENS,
    SWEEP_TOKEN,
    UNWRAP_WETH9,
    WRAP_ETH,
    Call,
    FundsLocation,
    RebalanceCall,
    UndecodableCalldata,
    Venue,
    decode,
)
from agent.units import NATIVE, floor_int

__all__ = [
    "NATIVE_VENUE",
    "ROUTER_ITSELF",
    "V2_VENUE",
    "V3_VENUE",
    "Call",
    "RebalanceCall",
    "RebalancerTerms",
    "UndecodableCalldata",
    "decode",
    "min_balance_changes",
    "native_wei",
    "price_x128",
]


V2_VENUE = "uniswap_v2"
_VENUES = {V2_VENUE: Venue.V2, V3_VENUE: Venue.V3, NATIVE_VENUE: Venue.NATIVE}
_MAX_TOKENS = 255


@dataclass(frozen=True, slots=True)
class RebalancerTerms:
    """Conditions of the whole transaction.

    `prices` are numeraire base units per token base unit, of every token whose balance changes.
    `floor_raw` is the least change of the wallet's value, numeraire base units, usually negative.
    """

    prices: Mapping[str, Fraction]
    floor_raw: int


def encode_rebalance(plan: Plan, deadline_s: int, terms: RebalancerTerms) -> str:
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
    flows = _leg_flows(plan.legs)
    min_changes = min_balance_changes(plan.legs)
    traded_tokens = [token for leg in plan.legs for token in (leg.token_in, leg.token_out)]
    tokens = list(dict.fromkeys([*min_changes, *traded_tokens]))
    if len(tokens) > _MAX_TOKENS:
        raise Refused(
            f"the plan trades {len(tokens)} tokens, the Rebalancer at most {_MAX_TOKENS}",
            code=ErrorCode.TOKENS,
        )
    header = (
        deadline_s.to_bytes(5, "big")
        + bytes([len(min_changes), len(tokens)])
        + _int128_bytes(terms.floor_raw, "the value floor")
    )
    conditions = [
        price_x128(terms.prices, token).to_bytes(24, "big") + _int128_bytes(raw, token)
        for token, raw in min_changes.items()
    ]
    encoded_legs = [
        _leg_bytes(leg, *leg_flow, tokens) for leg, leg_flow in zip(plan.legs, flows, strict=True)
    ]
    program = b"".join([header, *map(_address_bytes, tokens), *conditions, *encoded_legs])
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
    scaled_price = floor_int(price * 2**128)
    if not 0 < scaled_price < 1 << 192:
        raise Refused(
            f"the Rebalancer needs a price of {token}, got {price}",
            remedy="give the token a price feed",
            code=ErrorCode.REFERENCE_PRICE,
        )
    return scaled_price


def _leg_bytes(
    leg: Leg,
    source: FundsLocation,
    sink: FundsLocation,
    next_pair_token: str | None,
    tokens: Sequence[str],
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
    packed_kind = venue.value | source.value << 2 | sink.value << 4
    token_indices = [
        tokens.index(leg.token_in),
        tokens.index(leg.token_out),
        0 if next_pair_token is None else tokens.index(next_pair_token),
    ]
    fee_pips = 0 if venue is Venue.NATIVE else leg.fee_pips
    return (
        bytes([packed_kind, *token_indices])
        + fee_pips.to_bytes(3, "big")
        + amount_raw.to_bytes(16, "big")
        + leg.min_out_raw.to_bytes(16, "big")
    )


def _leg_flows(legs: Sequence[Leg]) -> list[tuple[FundsLocation, FundsLocation, str | None]]:
    """Return source and sink of each leg, and the other token of the pair that it pays into.

    An output for a later V2 leg goes directly into that leg's pair. If another leg uses the pair in
    between, the output goes through the contract instead, because the pair would absorb it.
    """
    spender_by_feeder: dict[int, int] = {}
    router_outputs: dict[str, list[int]] = {}
    for leg_index, leg in enumerate(legs):
        if leg.venue not in _VENUES:
            raise Refused(
                f"leg through pool {leg.pool}: the Rebalancer does not reach venue {leg.venue!r}",
                remedy=f"use {V2_VENUE} or {V3_VENUE}",
                code=ErrorCode.VENUE,
            )
        if leg.source is LegFunding.ROUTER:
            if leg.token_in not in router_outputs:
                raise Refused(
                    f"leg {leg_index + 1} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            spender_by_feeder |= dict.fromkeys(router_outputs.pop(leg.token_in), leg_index)
        if leg.sink is LegFunding.ROUTER:
            router_outputs.setdefault(leg.token_out, []).append(leg_index)
    if router_outputs:
        raise Refused(
            f"the plan leaves {', '.join(sorted(router_outputs))} in the router, where anyone could"
            " take it",
            code=ErrorCode.ROUTER_BALANCE,
        )
    directly_paid_legs = {
        spender
        for spender in spender_by_feeder.values()
        if _pays_into_pair(
            legs,
            spender,
            [
                feeder
                for feeder, other_spender in spender_by_feeder.items()
                if other_spender == spender
            ],
        )
    }
    flows: list[tuple[FundsLocation, FundsLocation, str | None]] = []
    for leg_index, leg in enumerate(legs):
        if leg.source is LegFunding.WALLET:
            source = FundsLocation.WALLET
        elif leg_index in directly_paid_legs:
            source = FundsLocation.PAIR
        else:
            source = FundsLocation.HERE
        if leg.sink is LegFunding.WALLET:
            flows.append((source, FundsLocation.WALLET, None))
        elif spender_by_feeder[leg_index] in directly_paid_legs:
            flows.append((source, FundsLocation.PAIR, legs[spender_by_feeder[leg_index]].token_out))
        else:
            flows.append((source, FundsLocation.HERE, None))
    return flows


def _pays_into_pair(legs: Sequence[Leg], spender: int, feeders: Sequence[int]) -> bool:
    pair = legs[spender].pool
    return legs[spender].venue == V2_VENUE and all(
        leg.pool != pair for leg in legs[min(feeders) : spender]
    )


def _int128_bytes(raw: int, what: str) -> bytes:
    try:
        return raw.to_bytes(16, "big", signed=True)
    except OverflowError:
        raise Refused(
            f"{what}: {raw} does not fit 127 bits",
            remedy="trade in smaller parts",
            code=ErrorCode.RANGE,
        ) from None


def _address_bytes(address: str) -> bytes:
    return bytes.fromhex(address[2:])


V2_INIT_CODE_HASH = "0x96e8ac4277198ff8b6f785478aa9a39f403cb768dd02cbee326c3e7da348845f"
"""keccak256 of UniswapV2Pair's creation code; UniswapV2Library.pairFor."""
V3_INIT_CODE_HASH = "0xe34f199b19b2b4f47f68442619d555527d244f78a3297ea89325f843f87b8b54"
"""keccak256 of UniswapV3Pool's creation code; PoolAddress.POOL_INIT_CODE_HASH."""


def creation_code(wrapped_native: str, factories: Mapping[str, str]) -> str:
    """Return 0x-hex data of the transaction that deploys a Rebalancer for these factories, by
    venue. An unused venue gets the zero address, which has no pools.
    """
    v2_factory, v3_factory = factories.get(V2_VENUE, NATIVE), factories.get(V3_VENUE, NATIVE)
    arguments = [
        wrapped_native,
        v2_factory,
        _hex_bytes(V2_INIT_CODE_HASH),
        v3_factory,
        _hex_bytes(V3_INIT_CODE_HASH),
    ]
    return (
        own_artifact("Rebalancer").bytecode
        + abi_encode(["address", "address", "bytes32", "address", "bytes32"], arguments).hex()
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
    expected_code, deployed_code = (
        answer.lower() if isinstance(answer, str) else "" for answer in answers
    )
    if len(expected_code) <= 2 or expected_code != deployed_code:
        raise ConfigError(
            f"execution.rebalancer: the code at {address} is not this version's Rebalancer for the"
            " factories of the config",
            "deploy it with the data that scripts/rebalancer_code.py prints, or use swap_router_02",
        )


def _hex_bytes(word: str) -> bytes:
    return bytes.fromhex(word[2:])


ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""Constants.ADDRESS_THIS of SwapRouter02: the router keeps the output for a later leg."""
CONTRACT_BALANCE = 0
"""Constants.CONTRACT_BALANCE of SwapRouter02: the leg spends the router's whole balance of its
token."""


def encode_multicall(plan: Plan, wallet: str, deadline_s: int) -> str:
    """Return 0x-hex calldata of `multicall(uint256,bytes[])` with every leg of `plan` in order.

    `wallet` receives the router's outputs; `deadline_s` is a Unix time of the chain. V3 outputs go
    through the router: exactInputSingle compares its minimum with the amount that the pool
    computed, and only sweepToken compares one with a balance, which a transfer fee lowers. V2 legs
    pay the wallet, because swapExactTokensForTokens measures the recipient's balance. Raises
    Refused if the router cannot run the plan: no legs, an unknown venue, an amount of zero, a token
    left in the router.
    """
    if not plan.legs:
        raise Refused("the plan has no legs; there is nothing to encode", code=ErrorCode.NO_LEGS)
    if deadline_s <= 0:
        raise Refused(
            f"deadline {deadline_s} is not a Unix time",
            remedy="set execution.deadline",
            code=ErrorCode.DEADLINE,
        )
    _require_spent_outputs(plan.legs)
    _require_wraps_before_swaps(plan.legs)
    calls: list[bytes] = []
    wrapped_wei = 0
    due_sweeps = sweeps(plan.legs)
    for leg_index, leg in enumerate(plan.legs):
        if leg.amount_in_raw <= 0 or leg.min_out_raw <= 0:
            raise Refused(
                f"leg through pool {leg.pool}: amount in {leg.amount_in_raw} and minimum out"
                f" {leg.min_out_raw} must be above zero",
                remedy="raise limits.min_trade to skip dust",
                code=ErrorCode.AMOUNT,
            )
        calls += [
            _sweep_call(token, min_raw, wallet)
            for sweep_index, token, min_raw in due_sweeps
            if sweep_index == leg_index
        ]
        if leg.venue == NATIVE_VENUE:
            calls += _wrap_calls(leg, wallet)
            wrapped_wei = (
                leg.amount_in_raw if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER else 0
            )
        else:
            amount_in_raw = (
                leg.amount_in_raw
                if leg.source is LegFunding.WALLET
                else wrapped_wei or CONTRACT_BALANCE
            )
            calls.append(_swap_call(leg, wallet, amount_in_raw))
            wrapped_wei = 0
    calls += [
        _sweep_call(token, min_raw, wallet)
        for sweep_index, token, min_raw in due_sweeps
        if sweep_index == len(plan.legs)
    ]
    return "0x" + (MULTICALL + abi_encode(["uint256", "bytes[]"], [deadline_s, calls])).hex()


def _swap_call(leg: Leg, wallet: str, amount_in_raw: int) -> bytes:
    if leg.venue == V3_VENUE:
        params = (
            leg.token_in,
            leg.token_out,
            leg.fee_pips,
            ROUTER_ITSELF,
            amount_in_raw,
            leg.min_out_raw,
            0,
        )
        return EXACT_INPUT_SINGLE + abi_encode(
            ["(address,address,uint24,address,uint256,uint256,uint160)"], [params]
        )
    if leg.venue == V2_VENUE:
        path = [leg.token_in, leg.token_out]
        recipient = wallet if leg.sink is LegFunding.WALLET else ROUTER_ITSELF
        return SWAP_EXACT_TOKENS + abi_encode(
            ["uint256", "uint256", "address[]", "address"],
            [amount_in_raw, leg.min_out_raw, path, recipient],
        )
    raise Refused(
        f"leg through pool {leg.pool}: SwapRouter02 does not reach venue {leg.venue!r}",
        remedy=f"use {V2_VENUE} or {V3_VENUE}",
        code=ErrorCode.VENUE,
    )


def _sweep_call(token: str, min_raw: int, wallet: str) -> bytes:
    return SWEEP_TOKEN + abi_encode(["address", "uint256", "address"], [token, min_raw, wallet])


def _wrap_calls(leg: Leg, wallet: str) -> list[bytes]:
    """Return the calls of a leg that wraps or unwraps. Wrapping for the next leg needs no call,
    because that leg's payment wraps the coin.
    """
    if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER:
        return []
    if leg.token_in == NATIVE:
        wrap_call = WRAP_ETH + abi_encode(["uint256"], [leg.amount_in_raw])
        return [wrap_call, _sweep_call(leg.token_out, leg.min_out_raw, wallet)]
    pull_call = PULL + abi_encode(["address", "uint256"], [leg.token_in, leg.amount_in_raw])
    unwrap_call = UNWRAP_WETH9 + abi_encode(["uint256", "address"], [leg.min_out_raw, wallet])
    return [pull_call, unwrap_call] if leg.source is LegFunding.WALLET else [unwrap_call]


def _require_spent_outputs(legs: Sequence[Leg]) -> None:
    """Require a later leg to spend every output left in the router, because anyone can take a
    remainder, and none to be mixed with an output for the wallet, which passes through the router.
    """
    router_tokens: set[str] = set()
    for number, leg in enumerate(legs, 1):
        if leg.source is LegFunding.ROUTER:
            if leg.token_in not in router_tokens:
                raise Refused(
                    f"leg {number} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            router_tokens.discard(leg.token_in)
        elif leg.venue == NATIVE_VENUE and router_tokens & {leg.token_in, leg.token_out}:
            raise Refused(
                f"leg {number} would mix with the router's balance", code=ErrorCode.ROUTER_BALANCE
            )
        if leg.sink is LegFunding.ROUTER:
            router_tokens.add(leg.token_out)
        elif leg.venue == V3_VENUE and leg.token_out in router_tokens:
            raise Refused(
                f"leg {number} would mix with the router's balance", code=ErrorCode.ROUTER_BALANCE
            )
    if router_tokens:
        raise Refused(
            f"the plan leaves {', '.join(sorted(router_tokens))} in the router, where anyone could take it",
            code=ErrorCode.ROUTER_BALANCE,
        )


def _require_wraps_before_swaps(legs: Sequence[Leg]) -> None:
    """Require native coin for a swap to be wrapped directly before it, ahead of all other payments
    in wrapped coin, because the router uses its native coin for any payment in wrapped coin
    (PeripheryPayments.pay).
    """
    wrap_indices = [
        wrap_index
        for wrap_index, leg in enumerate(legs)
        if leg.token_in == NATIVE and leg.sink is LegFunding.ROUTER
    ]
    for wrap_index in wrap_indices:
        swap = legs[wrap_index + 1]
        if (
            swap.source is not LegFunding.ROUTER
            or swap.venue == NATIVE_VENUE
            or swap.amount_in_raw != legs[wrap_index].amount_in_raw
        ):
            raise Refused(
                f"leg {wrap_index + 1} wraps {legs[wrap_index].amount_in_raw} wei "
                "without a swap of exactly that amount",
                code=ErrorCode.WRAPPING,
            )
        if any(
            leg.token_in == swap.token_in
            for index, leg in enumerate(legs[:wrap_index])
            if index - 1 not in wrap_indices
        ):
            raise Refused(
                f"leg {wrap_index + 2} is paid in native coin after wrapped coin was spent;"
                " SwapRouter02 would confuse both",
                code=ErrorCode.WRAPPING,
            )


def to_hex(data: bytes) -> str:
    """Return 0x-hex of calldata."""
    return "0x" + data.hex()
