"""Calldata of a plan's swaps: one Rebalancer call or one SwapRouter02 multicall. Also the
conditions of a Rebalancer call, and verification of its deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm import POOL_KINDS, pool_kind, swap_style
from agent.artifacts import own_artifact
from agent.chain.lens import abi_encode, address_bytes
from agent.chain.rpc import Transport, hex_data
from agent.errors import ConfigError, ErrorCode, Refused
from agent.model import (
    NATIVE_VENUE,
    SPACING_SHIFT,
    Leg,
    LegPlace,
    Plan,
    PoolMaker,
    SwapStyle,
    wallet_changes,
)
from agent.planning.gas import sweeps
from agent.signing.calldata import (
    EXACT_INPUT_SINGLE,
    MULTICALL,
    PULL,
    REBALANCE,
    SWAP_EXACT_TOKENS,
    SWEEP_TOKEN,
    UNWRAP_WETH9,
    WRAP_ETH,
    FundsLocation,
)
from agent.units import NATIVE, floor_int

_MAX_TOKENS = 255


@dataclass(frozen=True, slots=True)
class RebalancerTerms:
    """Conditions of the whole transaction.

    `prices` are numeraire base units per token base unit, of every token whose balance changes.
    `min_value_change_raw` is the least change of the wallet's value, numeraire base units, usually
    negative.
    """

    prices: Mapping[str, Fraction]
    min_value_change_raw: int


def encode_rebalance(
    plan: Plan,
    deadline_s: int,
    terms: RebalancerTerms,
    maker_by_venue: Mapping[str, PoolMaker],
    tier_by_pool: Mapping[str, int],
) -> str:
    """Return 0x-hex calldata of `rebalance(bytes)` with every leg of `plan` in order; the sender
    pays and receives.

    `deadline_s` is a Unix time of the chain, `maker_by_venue` who makes the pools of each venue,
    wrapping included, `tier_by_pool` the tier of each pool by address. Raises Refused if the
    Rebalancer cannot run the plan: no legs, an unknown venue, an amount of zero or beyond 128 bits,
    a token without a price, a token left behind.
    """
    _require_encodable(plan, deadline_s, 40)
    legs = [
        program_leg for leg in plan.legs for program_leg in _with_conversion(leg, maker_by_venue)
    ]
    flows = _leg_flows(legs, maker_by_venue)
    pool_makers = list(dict.fromkeys(maker_by_venue[leg.venue] for leg in legs))
    min_change_by_token = min_balance_changes(plan.legs)
    traded_tokens = [token for leg in legs for token in (leg.token_in, leg.token_out)]
    tokens = list(dict.fromkeys([*min_change_by_token, *traded_tokens]))
    if len(tokens) > _MAX_TOKENS:
        raise Refused(
            f"the plan trades {len(tokens)} tokens, the Rebalancer at most {_MAX_TOKENS}",
            code=ErrorCode.TOKENS,
        )
    header = (
        deadline_s.to_bytes(5, "big")
        + bytes([len(min_change_by_token), len(tokens), len(pool_makers)])
        + _int128_bytes(terms.min_value_change_raw, "the value floor")
    )
    conditions = [
        price_x128(terms.prices, token).to_bytes(24, "big") + _int128_bytes(min_change_raw, token)
        for token, min_change_raw in min_change_by_token.items()
    ]
    encoded_legs = [
        _leg_bytes(legs, leg_index, flow, tokens, (maker_by_venue, pool_makers), tier_by_pool)
        for leg_index, flow in enumerate(flows)
    ]
    program = b"".join(
        [
            header,
            *map(address_bytes, tokens),
            *conditions,
            *map(_maker_bytes, pool_makers),
            *encoded_legs,
        ]
    )
    return hex_data(REBALANCE + abi_encode(["bytes"], [program]))


def _with_conversion(leg: Leg, maker_by_venue: Mapping[str, PoolMaker]) -> list[Leg]:
    """Return the legs of a program for a leg: itself, or with an unwrapping before it or a wrapping
    after it in a pool of the native coin. The swap's own minimum binds, not the conversion's.
    """
    kind = pool_kind(leg.venue)
    if kind is None or not kind.trades_native:
        return [leg]
    wrapped_native = maker_by_venue[NATIVE_VENUE].address
    conversion_leg = replace(leg, pool=wrapped_native, venue=NATIVE_VENUE, min_out_raw=1)
    if leg.token_in == wrapped_native:
        return [
            replace(conversion_leg, token_out=NATIVE, sink=LegPlace.ROUTER),
            replace(leg, token_in=NATIVE, source=LegPlace.ROUTER),
        ]
    return [
        replace(leg, token_out=NATIVE, sink=LegPlace.ROUTER),
        replace(conversion_leg, token_in=NATIVE, source=LegPlace.ROUTER),
    ]


def _maker_bytes(maker: PoolMaker) -> bytes:
    return (
        bytes([maker.style.value])
        + address_bytes(maker.address)
        + bytes.fromhex(maker.init_code_hash[2:])
    )


def wrapped_native_wei(plan: Plan) -> int:
    """Return the native coin sent with the transaction, wei: the amount that the legs wrap."""
    return sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == NATIVE)


def min_balance_changes(legs: Sequence[Leg]) -> dict[str, int]:
    """Return the minimum change of the wallet's balances by token, in base units: the legs' minimum
    outputs less their inputs.
    """
    return wallet_changes([replace(leg, amount_out_raw=leg.min_out_raw) for leg in legs])


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


@dataclass(frozen=True, slots=True)
class _LegFlow:
    """Payer and recipient of a leg; `next_leg_index` is the leg into whose pair it pays, by
    index.
    """

    source: FundsLocation
    sink: FundsLocation
    next_leg_index: int | None = None


def _require_encodable(plan: Plan, deadline_s: int, deadline_bits: int) -> None:
    """Raise Refused for a plan without legs, or a deadline that does not fit the calldata."""
    if not plan.legs:
        raise Refused("the plan has no legs; there is nothing to encode", code=ErrorCode.NO_LEGS)
    if not 0 < deadline_s < 1 << deadline_bits:
        raise Refused(
            f"deadline {deadline_s} is not a Unix time",
            remedy="set execution.deadline",
            code=ErrorCode.DEADLINE,
        )


def _require_amounts(leg: Leg) -> None:
    if leg.amount_in_raw <= 0 or leg.min_out_raw <= 0:
        raise Refused(
            f"leg through pool {leg.pool}: amount in {leg.amount_in_raw} and minimum out"
            f" {leg.min_out_raw} must be above zero",
            remedy="raise limits.min_trade to skip dust",
            code=ErrorCode.AMOUNT,
        )


def _leg_bytes(
    legs: Sequence[Leg],
    leg_index: int,
    flow: _LegFlow,
    tokens: Sequence[str],
    maker_tables: tuple[Mapping[str, PoolMaker], Sequence[PoolMaker]],
    tier_by_pool: Mapping[str, int],
) -> bytes:
    leg = legs[leg_index]
    maker_by_venue, pool_makers = maker_tables
    _require_amounts(leg)
    amount_raw = leg.amount_in_raw if flow.source is FundsLocation.WALLET else 0
    if max(amount_raw, leg.min_out_raw) >> 128:
        raise Refused(
            f"leg through pool {leg.pool}: an amount does not fit 128 bits",
            remedy="trade in smaller parts",
            code=ErrorCode.RANGE,
        )
    next_leg = None if flow.next_leg_index is None else legs[flow.next_leg_index]
    maker = maker_by_venue[leg.venue]
    tier = 0 if maker.style is SwapStyle.NATIVE else tier_by_pool.get(leg.pool, leg.fee_pips)
    leg_header = [
        flow.source.value | flow.sink.value << 2,
        pool_makers.index(maker),
        tokens.index(leg.token_in),
        tokens.index(leg.token_out),
        0 if next_leg is None else tokens.index(next_leg.token_out),
        0 if next_leg is None else pool_makers.index(maker_by_venue[next_leg.venue]),
    ]
    tick_spacing, tier_number = divmod(tier, 1 << SPACING_SHIFT)
    return (
        bytes(leg_header)
        + tier_number.to_bytes(3, "big")
        + tick_spacing.to_bytes(3, "big")
        + amount_raw.to_bytes(16, "big")
        + leg.min_out_raw.to_bytes(16, "big")
    )


def _leg_flows(legs: Sequence[Leg], maker_by_venue: Mapping[str, PoolMaker]) -> list[_LegFlow]:
    """Return payer and recipient of each leg.

    An output for a later V2 leg goes directly into that leg's pair. If another leg uses the pair in
    between, the output goes through the contract instead, because the pair would absorb it; so does
    that of a V4 leg, which is settled at the end of its unlocking.
    """
    paid_leg_by_feeder: dict[int, int] = {}
    output_legs_by_token: dict[str, list[int]] = {}
    for leg_index, leg in enumerate(legs):
        if leg.venue not in maker_by_venue:
            raise Refused(
                f"leg through pool {leg.pool}: the Rebalancer does not reach venue {leg.venue!r}",
                remedy=f"use {' or '.join(maker_by_venue)}",
                code=ErrorCode.VENUE,
            )
        if leg.source is LegPlace.ROUTER:
            if leg.token_in not in output_legs_by_token:
                raise Refused(
                    f"leg {leg_index + 1} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            paid_leg_by_feeder |= dict.fromkeys(output_legs_by_token.pop(leg.token_in), leg_index)
        if leg.sink is LegPlace.ROUTER:
            output_legs_by_token.setdefault(leg.token_out, []).append(leg_index)
    if output_legs_by_token:
        raise Refused(
            f"the plan leaves {', '.join(sorted(output_legs_by_token))} in the router, where anyone could"
            " take it",
            code=ErrorCode.ROUTER_BALANCE,
        )
    directly_paid_legs = {
        paid_leg
        for paid_leg in paid_leg_by_feeder.values()
        if _pays_into_pair(
            legs,
            paid_leg,
            [
                feeder
                for feeder, other_paid_leg in paid_leg_by_feeder.items()
                if other_paid_leg == paid_leg
            ],
        )
    }
    flows: list[_LegFlow] = []
    for leg_index, leg in enumerate(legs):
        if leg.source is LegPlace.WALLET:
            source = FundsLocation.WALLET
        elif leg_index in directly_paid_legs:
            source = FundsLocation.PAIR
        else:
            source = FundsLocation.REBALANCER
        if leg.sink is LegPlace.WALLET:
            flows.append(_LegFlow(source, FundsLocation.WALLET))
        elif paid_leg_by_feeder[leg_index] in directly_paid_legs:
            flows.append(_LegFlow(source, FundsLocation.PAIR, paid_leg_by_feeder[leg_index]))
        else:
            flows.append(_LegFlow(source, FundsLocation.REBALANCER))
    return flows


def _pays_into_pair(legs: Sequence[Leg], paid_leg: int, feeders: Sequence[int]) -> bool:
    pair = legs[paid_leg].pool
    return (
        swap_style(legs[paid_leg].venue) is SwapStyle.V2
        and all(leg.pool != pair for leg in legs[min(feeders) : paid_leg])
        and all(swap_style(legs[feeder].venue) is not SwapStyle.V4 for feeder in feeders)
    )


def _int128_bytes(signed_raw: int, amount_name: str) -> bytes:
    try:
        return signed_raw.to_bytes(16, "big", signed=True)
    except OverflowError:
        raise Refused(
            f"{amount_name}: {signed_raw} does not fit 127 bits",
            remedy="trade in smaller parts",
            code=ErrorCode.RANGE,
        ) from None


def require_own_rebalancer(transport: Transport, address: str) -> None:
    """Raise ConfigError unless the code at `address` is, byte for byte, this version's
    Rebalancer.
    """
    deployed_code = transport.call("eth_getCode", [address, "latest"])
    own_code = own_artifact("Rebalancer").runtime_code
    if not isinstance(deployed_code, str) or deployed_code.lower() != own_code.lower():
        raise ConfigError(
            f"execution.rebalancer: the code at {address} is not this version's Rebalancer",
            "deploy it with trimtab deploy, or use swap_router_02",
        )


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
    _require_encodable(plan, deadline_s, 256)
    _require_spent_outputs(plan.legs)
    _require_wraps_before_swaps(plan.legs)
    calls: list[bytes] = []
    wrapped_wei = 0
    due_sweeps = sweeps(plan.legs)
    for leg_index, leg in enumerate(plan.legs):
        _require_amounts(leg)
        calls += [
            _sweep_call(token, min_raw, wallet)
            for sweep_index, token, min_raw in due_sweeps
            if sweep_index == leg_index
        ]
        if leg.venue == NATIVE_VENUE:
            calls += _wrap_calls(leg, wallet)
            wrapped_wei = (
                leg.amount_in_raw if leg.token_in == NATIVE and leg.sink is LegPlace.ROUTER else 0
            )
        else:
            amount_in_raw = (
                leg.amount_in_raw
                if leg.source is LegPlace.WALLET
                else wrapped_wei or CONTRACT_BALANCE
            )
            calls.append(_swap_call(leg, wallet, amount_in_raw))
            wrapped_wei = 0
    calls += [
        _sweep_call(token, min_raw, wallet)
        for sweep_index, token, min_raw in due_sweeps
        if sweep_index == len(plan.legs)
    ]
    return hex_data(MULTICALL + abi_encode(["uint256", "bytes[]"], [deadline_s, calls]))


def _swap_call(leg: Leg, wallet: str, amount_in_raw: int) -> bytes:
    if _require_reachable_style(leg, "swap_router_02") is SwapStyle.V3:
        swap_params = (
            leg.token_in,
            leg.token_out,
            leg.fee_pips,
            ROUTER_ITSELF,
            amount_in_raw,
            leg.min_out_raw,
            0,
        )
        return EXACT_INPUT_SINGLE + abi_encode(
            ["(address,address,uint24,address,uint256,uint256,uint160)"], [swap_params]
        )
    path = [leg.token_in, leg.token_out]
    recipient = wallet if leg.sink is LegPlace.WALLET else ROUTER_ITSELF
    return SWAP_EXACT_TOKENS + abi_encode(
        ["uint256", "uint256", "address[]", "address"],
        [amount_in_raw, leg.min_out_raw, path, recipient],
    )


def _require_reachable_style(leg: Leg, router: str) -> SwapStyle:
    """Return how the leg's swap is paid. Raises Refused unless the router of this kind reaches its
    venue.
    """
    kind = pool_kind(leg.venue)
    style = swap_style(leg.venue)
    if style is None or (kind is not None and router not in kind.gas.swap_units_by_router):
        reached_kinds = [
            kind_name
            for kind_name, venue_kind in POOL_KINDS.items()
            if router in venue_kind.gas.swap_units_by_router
        ]
        raise Refused(
            f"leg through pool {leg.pool}: {router} does not reach venue {leg.venue!r}",
            remedy=f"use {' or '.join(reached_kinds)}",
            code=ErrorCode.VENUE,
        )
    return style


def _sweep_call(token: str, min_raw: int, wallet: str) -> bytes:
    return SWEEP_TOKEN + abi_encode(["address", "uint256", "address"], [token, min_raw, wallet])


def _wrap_calls(leg: Leg, wallet: str) -> list[bytes]:
    """Return the calls of a leg that wraps or unwraps. Wrapping for the next leg needs no call,
    because that leg's payment wraps the coin.
    """
    if leg.token_in == NATIVE and leg.sink is LegPlace.ROUTER:
        return []
    if leg.token_in == NATIVE:
        wrap_call = WRAP_ETH + abi_encode(["uint256"], [leg.amount_in_raw])
        return [wrap_call, _sweep_call(leg.token_out, leg.min_out_raw, wallet)]
    pull_call = PULL + abi_encode(["address", "uint256"], [leg.token_in, leg.amount_in_raw])
    unwrap_call = UNWRAP_WETH9 + abi_encode(["uint256", "address"], [leg.min_out_raw, wallet])
    return [pull_call, unwrap_call] if leg.source is LegPlace.WALLET else [unwrap_call]


def _require_spent_outputs(legs: Sequence[Leg]) -> None:
    """Require a later leg to spend every output left in the router, because anyone can take a
    remainder, and none to be mixed with an output for the wallet, which passes through the router.
    """
    router_tokens: set[str] = set()
    for leg_number, leg in enumerate(legs, 1):
        if leg.source is LegPlace.ROUTER:
            if leg.token_in not in router_tokens:
                raise Refused(
                    f"leg {leg_number} spends {leg.token_in} from the "
                    "router, but no earlier leg left any",
                    code=ErrorCode.ROUTER_BALANCE,
                )
            router_tokens.discard(leg.token_in)
        elif leg.venue == NATIVE_VENUE and router_tokens & {leg.token_in, leg.token_out}:
            raise Refused(
                f"leg {leg_number} would mix with the router's balance",
                code=ErrorCode.ROUTER_BALANCE,
            )
        if leg.sink is LegPlace.ROUTER:
            router_tokens.add(leg.token_out)
        elif swap_style(leg.venue) is SwapStyle.V3 and leg.token_out in router_tokens:
            raise Refused(
                f"leg {leg_number} would mix with the router's balance",
                code=ErrorCode.ROUTER_BALANCE,
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
        if leg.token_in == NATIVE and leg.sink is LegPlace.ROUTER
    ]
    for wrap_index in wrap_indices:
        swap_leg = legs[wrap_index + 1]
        if (
            swap_leg.source is not LegPlace.ROUTER
            or swap_leg.venue == NATIVE_VENUE
            or swap_leg.amount_in_raw != legs[wrap_index].amount_in_raw
        ):
            raise Refused(
                f"leg {wrap_index + 1} wraps {legs[wrap_index].amount_in_raw} wei "
                "without a swap of exactly that amount",
                code=ErrorCode.WRAPPING,
            )
        if any(
            leg.token_in == swap_leg.token_in
            for index, leg in enumerate(legs[:wrap_index])
            if index - 1 not in wrap_indices
        ):
            raise Refused(
                f"leg {wrap_index + 2} is paid in native coin after wrapped coin was spent;"
                " SwapRouter02 would confuse both",
                code=ErrorCode.WRAPPING,
            )
