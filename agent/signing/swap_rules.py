"""The signer's rules for SwapRouter02 and the Rebalancer: the granted plan, leg by leg, paid to the
wallet, without remainder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice

from agent.amm import pool_kind, swap_style
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.errors import kind_words
from agent.model import NATIVE_VENUE, Leg, LegPlace, PoolMaker, SwapStyle, UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import (
    ExactInputSingle,
    FundsLocation,
    Multicall,
    MulticallItem,
    ProgramLeg,
    Pull,
    RebalanceCall,
    RouterSwap,
    SwapExactTokens,
    SweepToken,
    UnwrapWeth9,
    WrapEth,
)
from agent.signing.pool_makers import pool_address
from agent.signing.terms import SigningRules, refuse, require_deadline
from agent.units import NATIVE, floor_int

ROUTER_ITSELF = "0x0000000000000000000000000000000000000002"
"""Constants.ADDRESS_THIS of SwapRouter02: as a recipient, the router itself."""


_ROUTER_VENUES = (V2Pool.kind, V3Pool.kind, NATIVE_VENUE)
"""Venues of SwapRouter02, which finds the pools of one deployment of each kind."""


def judge_multicall(tx: UnsignedTx, call: Multicall, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, naming the rule that failed, unless `call` may be signed."""
    if tx.to not in rules.routers:
        refuse("contract", tx.to, "a pinned router")
    if grant.plan is None:
        refuse("plan", "a swap", "none: the grant holds no plan")
    require_deadline(call.deadline_s, grant, rules)
    legs = grant.plan.legs
    if len(grant.floors_raw) != len(legs):
        refuse("floor", f"{len(grant.floors_raw)} floors", f"one for each of {len(legs)} legs")
    wrapped_wei = sum(leg.amount_in_raw for leg in legs if leg.token_in == NATIVE)
    if tx.value_wei != wrapped_wei:
        refuse("value", f"{tx.value_wei} wei", f"the {wrapped_wei} wei that the plan wraps")
    for leg_number, (leg, floor_raw) in enumerate(zip(legs, grant.floors_raw, strict=True), 1):
        _require_pinned_leg(f"leg {leg_number}: ", leg, floor_raw, rules)
    expected_calls = [leg_call for leg_calls in _calls_of_legs(legs) for leg_call in leg_calls]
    if not expected_calls:
        refuse("legs", f"{len(call.calls)} calls", "those of the legs of the plan, at least one")
    remaining_calls = list(call.calls)
    unswept_outputs = _UnsweptOutputs(rules.wallet)
    for leg_number, leg, call_kind in expected_calls:
        unswept_outputs.take_sweeps(remaining_calls)
        if not remaining_calls:
            refuse("legs", f"{len(call.calls)} calls", f"those of the {len(legs)} legs of the plan")
        unswept_outputs.add_leg(f"leg {leg_number}: ", leg)
        _require_call(f"leg {leg_number}: ", remaining_calls.pop(0), leg, call_kind, rules)
    unswept_outputs.take_sweeps(remaining_calls)
    if remaining_calls:
        refuse("legs", f"{len(call.calls)} calls", f"those of the {len(legs)} legs of the plan")
    unswept_outputs.require_none()
    _require_router_emptied(call.calls, legs, tx.value_wei, rules)


class _UnsweptOutputs:
    """Outputs of V3 legs that wait in the router for a sweep to the wallet, by token, and the other
    tokens there, which a later leg spends.

    The router compares a V3 leg's minimum with the pool's own figure, and only a sweep's with a
    balance. A sweep therefore has the sum of the minimums since the last, exactly, and comes before
    any leg that would mix or spend the same token.
    """

    def __init__(self, wallet: str) -> None:
        self._wallet = wallet
        self._min_raw_by_token: dict[str, int] = {}
        self._hub_tokens: set[str] = set()

    def take_sweeps(self, remaining_calls: list[MulticallItem]) -> None:
        """Take the sweeps of waiting outputs from the front of the calls."""
        while remaining_calls:
            call = remaining_calls[0]
            if not isinstance(call, SweepToken) or call.token not in self._min_raw_by_token:
                return
            min_raw = self._min_raw_by_token[call.token]
            if call.recipient != self._wallet:
                refuse("recipient", f"a sweep to {call.recipient}", self._wallet)
            if call.min_raw != min_raw:
                refuse("min_out", f"a sweep of {call.min_raw}", f"exactly {min_raw}")
            del remaining_calls[0], self._min_raw_by_token[call.token]

    def add_leg(self, leg_label: str, leg: Leg) -> None:
        """Add a leg. Refuse one that would mix an output for the wallet with another amount."""
        router_tokens = {leg.token_in} if leg.source is LegPlace.ROUTER else set[str]()
        router_tokens |= {leg.token_out} if leg.sink is LegPlace.ROUTER else set()
        router_tokens |= {leg.token_in, leg.token_out} if leg.venue == NATIVE_VENUE else set()
        awaits_sweep = swap_style(leg.venue) is SwapStyle.V3 and leg.sink is LegPlace.WALLET
        mixed_tokens = router_tokens & self._min_raw_by_token.keys()
        if leg.source is LegPlace.ROUTER:
            self._hub_tokens.discard(leg.token_in)
        mixed_tokens |= {leg.token_out} & self._hub_tokens if awaits_sweep else set()
        if mixed_tokens:
            refuse(
                "router_balance",
                f"{leg_label}through {', '.join(sorted(mixed_tokens))} in the router",
                "a sweep to the wallet first",
            )
        if awaits_sweep:
            self._min_raw_by_token[leg.token_out] = (
                self._min_raw_by_token.get(leg.token_out, 0) + leg.min_out_raw
            )
        elif leg.sink is LegPlace.ROUTER:
            self._hub_tokens.add(leg.token_out)

    def require_none(self) -> None:
        """Refuse a multicall that ends without a sweep of every output."""
        if self._min_raw_by_token:
            tokens = ", ".join(sorted(self._min_raw_by_token))
            refuse("router_balance", f"{tokens} without a sweep", "swept to the wallet")


def _calls_of_legs(legs: Sequence[Leg]) -> list[list[tuple[int, Leg, str]]]:
    """Return the calls of each leg, each with its kind: a swap, or a kind of payment. A leg paid by
    the router in attached native coin forms one call with the wrap leg before it.
    """
    calls_by_leg: list[list[tuple[int, Leg, str]]] = []
    wrapped_wei: int | None = None
    for leg_number, leg in enumerate(legs, 1):
        if wrapped_wei is not None:
            if (
                leg.venue == NATIVE_VENUE
                or leg.source is not LegPlace.ROUTER
                or leg.amount_in_raw != wrapped_wei
            ):
                refuse(
                    "native",
                    f"leg {leg_number} after {wrapped_wei} wei were wrapped for it",
                    "a swap of exactly that, from the router",
                )
            calls_by_leg.append([(leg_number, leg, "paid")])
            wrapped_wei = None
        elif leg.venue != NATIVE_VENUE:
            calls_by_leg.append([(leg_number, leg, "swap")])
        elif leg.token_in == NATIVE and leg.sink is LegPlace.ROUTER:
            wrapped_wei = leg.amount_in_raw
        elif leg.token_in == NATIVE:
            calls_by_leg.append([(leg_number, leg, "wrap"), (leg_number, leg, "sweep")])
        else:
            pull_calls = [(leg_number, leg, "pull")] if leg.source is LegPlace.WALLET else []
            calls_by_leg.append([*pull_calls, (leg_number, leg, "unwrap")])
    if wrapped_wei is not None:
        refuse(
            "native",
            f"{wrapped_wei} wei wrapped without a swap",
            "a swap after every wrap into the router",
        )
    return calls_by_leg


def _require_pinned_leg(leg_label: str, leg: Leg, floor_raw: int, rules: SigningRules) -> None:
    """Require that the leg exchanges pinned tokens at or above its floor; native coin only for its
    wrapped token.
    """
    tokens = {leg.token_in, leg.token_out}
    if leg.venue not in _ROUTER_VENUES:
        refuse("venue", f"{leg_label}{leg.venue}", f"one of {', '.join(_ROUTER_VENUES)}")
    if leg.venue == NATIVE_VENUE:
        if tokens != {NATIVE, rules.wrapped_native}:
            refuse(
                "tokens",
                f"{leg_label}{leg.token_in} to {leg.token_out}",
                f"the native coin and {rules.wrapped_native}",
            )
        if leg.source is leg.sink is LegPlace.ROUTER or (
            leg.token_in == NATIVE and leg.source is LegPlace.ROUTER
        ):
            refuse(
                "source",
                f"{leg_label}from {leg.source.value} to {leg.sink.value}",
                "the wallet's native coin at one end",
            )
        if leg.token_out == NATIVE and leg.sink is not LegPlace.WALLET:
            refuse("recipient", f"{leg_label}native coin to {leg.sink.value}", "the wallet")
    elif len(tokens) != 2 or not tokens <= set(rules.tokens):
        refuse(
            "tokens", f"{leg_label}{leg.token_in} to {leg.token_out}", "two different pinned tokens"
        )
    if leg.amount_in_raw <= 0:
        refuse("amount_in", f"{leg_label}{leg.amount_in_raw}", "above zero")
    if leg.min_out_raw < max(1, floor_raw):
        refuse(
            "floor",
            f"{leg_label}minimum of the plan {leg.min_out_raw}",
            f"at least the floor {floor_raw}, and above zero",
        )


def _require_call(
    leg_label: str, call: MulticallItem, leg: Leg, call_kind: str, rules: SigningRules
) -> None:
    """Require that a call of the multicall matches its leg."""
    if call_kind in ("swap", "paid"):
        if not isinstance(call, ExactInputSingle | SwapExactTokens):
            refuse("call", f"{leg_label}{kind_words(type(call))}", "a swap")
        _require_swap(
            leg_label,
            call,
            leg,
            leg.amount_in_raw if call_kind == "paid" or leg.source is LegPlace.WALLET else 0,
            rules,
        )
        return
    wrapped_native = leg.token_out if leg.token_in == NATIVE else leg.token_in
    expected_call_by_kind: dict[str, MulticallItem] = {
        "wrap": WrapEth(leg.amount_in_raw),
        "sweep": SweepToken(wrapped_native, leg.min_out_raw, rules.wallet),
        "pull": Pull(wrapped_native, leg.amount_in_raw),
        "unwrap": UnwrapWeth9(leg.min_out_raw, rules.wallet),
    }
    if call != expected_call_by_kind[call_kind]:
        refuse("native", f"{leg_label}{call}", expected_call_by_kind[call_kind])


def _require_swap(
    leg_label: str, swap: RouterSwap, leg: Leg, amount_in_raw: int, rules: SigningRules
) -> None:
    token_in, token_out = _swap_tokens(leg_label, swap, leg)
    if (token_in, token_out) != (leg.token_in, leg.token_out):
        refuse(
            "tokens", f"{leg_label}{token_in} to {token_out}", f"{leg.token_in} to {leg.token_out}"
        )
    if swap.amount_in_raw != amount_in_raw:
        refuse("amount_in", f"{leg_label}{swap.amount_in_raw}", f"exactly {amount_in_raw}")
    if swap.min_out_raw != leg.min_out_raw:
        refuse("min_out", f"{leg_label}{swap.min_out_raw}", f"exactly the plan's {leg.min_out_raw}")
    pays_wallet = leg.sink is LegPlace.WALLET and swap_style(leg.venue) is not SwapStyle.V3
    recipient = rules.wallet if pays_wallet else ROUTER_ITSELF
    if swap.recipient != recipient:
        refuse("recipient", f"{leg_label}{swap.recipient}", recipient)


def _swap_tokens(leg_label: str, swap: RouterSwap, leg: Leg) -> tuple[str, str]:
    """Return the tokens of a swap, after checking that it uses the plan's kind of pool."""
    match swap:
        case ExactInputSingle():
            if swap_style(leg.venue) is not SwapStyle.V3:
                refuse("venue", f"{leg_label}a V3 swap", leg.venue)
            if swap.fee_pips != leg.fee_pips:
                refuse("pool_fee", f"{leg_label}{swap.fee_pips}", leg.fee_pips)
            if swap.sqrt_price_limit_x96 != 0:
                refuse(
                    "price_limit",
                    f"{leg_label}{swap.sqrt_price_limit_x96}",
                    "0: a partial swap would leave tokens in the router",
                )
            return swap.token_in, swap.token_out
        case SwapExactTokens():
            if swap_style(leg.venue) is not SwapStyle.V2:
                refuse("venue", f"{leg_label}a V2 swap", leg.venue)
            if len(swap.path) != 2:
                refuse("tokens", f"{leg_label}a path of {len(swap.path)} tokens", "a path of 2")
            return swap.path[0], swap.path[1]


def _require_router_emptied(  # noqa: C901
    calls: Sequence[MulticallItem], legs: Sequence[Leg], value_wei: int, rules: SigningRules
) -> None:
    """Require every amount left in the router to be spent by a later call; anyone can take a
    remainder. PeripheryPayments.pay uses native coin for any payment in wrapped coin while it has
    enough. While attached native coin remains, only the swaps it was sent for may spend wrapped
    coin.
    """
    router_tokens: set[str] = set()
    attached_wei = value_wei
    wrapped_native = rules.wrapped_native or NATIVE
    native_payments_wei = iter(
        [
            leg.amount_in_raw
            for leg in legs
            if leg.token_in == NATIVE and leg.sink is LegPlace.ROUTER
        ]
    )
    next_payment_wei = next(native_payments_wei, None)
    for call in calls:
        match call:
            case WrapEth(wrapped_wei):
                attached_wei -= wrapped_wei
                _require_not_held(wrapped_native, router_tokens)
                router_tokens.add(wrapped_native)
            case SweepToken(token, _, _):
                router_tokens.discard(token)
            case Pull(token, _):
                _require_not_held(token, router_tokens)
                router_tokens.add(token)
            case UnwrapWeth9():
                if wrapped_native not in router_tokens:
                    refuse(
                        "router_balance",
                        f"unwrapping of the router's {wrapped_native}",
                        "only what a call before it left there",
                    )
                router_tokens.discard(wrapped_native)
            case ExactInputSingle() | SwapExactTokens():
                path = (
                    (call.token_in, call.token_out)
                    if isinstance(call, ExactInputSingle)
                    else call.path
                )
                if path[0] == wrapped_native and attached_wei > 0:
                    if call.amount_in_raw != next_payment_wei:
                        refuse(
                            "native",
                            f"a swap of {wrapped_native} while {attached_wei} wei are in the router",
                            "swaps paid in native coin first",
                        )
                    attached_wei -= call.amount_in_raw
                    next_payment_wei = next(native_payments_wei, None)
                elif call.amount_in_raw == 0:
                    if path[0] not in router_tokens:
                        refuse(
                            "router_balance",
                            f"a swap of the router's {path[0]}",
                            "only what a call before it left there",
                        )
                    router_tokens.discard(path[0])
                if call.recipient == ROUTER_ITSELF:
                    router_tokens.add(path[-1])
    if router_tokens:
        refuse(
            "router_balance", f"{', '.join(sorted(router_tokens))} left in the router", "nothing"
        )
    if attached_wei != 0:
        refuse("native", f"{attached_wei} wei left in the router", "nothing")


def _require_not_held(token: str, router_tokens: set[str]) -> None:
    if token in router_tokens:
        refuse(
            "router_balance",
            f"a second amount of {token} while the router still holds the first",
            "one unspent amount per token",
        )


def judge_rebalance(tx: UnsignedTx, call: RebalanceCall, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, naming the rule that failed, unless `call` may be signed."""
    if tx.to not in rules.rebalancers:
        refuse("contract", tx.to, "a pinned Rebalancer")
    if grant.plan is None:
        refuse("plan", "a rebalance", "none: the grant holds no plan")
    require_deadline(call.deadline_s, grant, rules)
    legs = grant.plan.legs
    call = replace(call, legs=tuple(_without_conversions(call.legs, legs, rules)))
    if not legs or len(call.legs) != len(legs):
        refuse("legs", f"{len(call.legs)} swaps", f"the {len(legs)} of the plan, at least one")
    if len(grant.floors_raw) != len(legs):
        refuse("floor", f"{len(grant.floors_raw)} floors", f"one for each of {len(legs)} legs")
    for leg_number, (program_leg, leg, floor_raw) in enumerate(
        zip(call.legs, legs, grant.floors_raw, strict=True), 1
    ):
        _require_leg(f"leg {leg_number}: ", program_leg, leg, floor_raw, rules)
    wrapped_wei = sum(leg.amount_in_raw for leg in legs if leg.token_in == NATIVE)
    if tx.value_wei != wrapped_wei:
        refuse("value", f"{tx.value_wei} wei", f"the {wrapped_wei} wei that the plan wraps")
    _require_nothing_left(call)
    _require_watched_balances(call, legs, grant)


def _without_conversions(
    program_legs: Sequence[ProgramLeg], legs: Sequence[Leg], rules: SigningRules
) -> Iterator[ProgramLeg]:
    """Yield the legs of the program, each swap of native coin with the conversion beside it as one
    swap of wrapped coin. Refuse a conversion of anything but that swap's whole amount.
    """
    wrapped_native = rules.wrapped_native or NATIVE
    remaining_program_legs = iter(program_legs)
    if any(map(_trades_native, legs)) and any(leg.token_in == NATIVE for leg in legs):
        refuse("native", "the wallet's native coin beside a pool of native coin", "one of them")
    for leg_number, leg in enumerate(legs, 1):
        if not _trades_native(leg):
            yield from islice(remaining_program_legs, 1)
            continue
        program_pair = list(islice(remaining_program_legs, 2))
        if len(program_pair) < 2:
            refuse(
                "legs",
                f"{len(program_legs)} swaps",
                f"those of leg {leg_number}, with a conversion",
            )
        sells_wrapped = leg.token_in == wrapped_native
        conversion, swap = program_pair if sells_wrapped else program_pair[::-1]
        conversion_tokens = (wrapped_native, NATIVE) if sells_wrapped else (NATIVE, wrapped_native)
        expected_conversion = replace(
            conversion,
            maker=PoolMaker(SwapStyle.NATIVE, wrapped_native),
            token_in=conversion_tokens[0],
            token_out=conversion_tokens[1],
            tier=0,
            min_out_raw=1,
        )
        handover = (
            program_pair[0].sink,
            program_pair[0].token_out,
            program_pair[1].source,
            program_pair[1].token_in,
        )
        if conversion != expected_conversion or handover != (
            FundsLocation.REBALANCER,
            NATIVE,
            FundsLocation.REBALANCER,
            NATIVE,
        ):
            refuse(
                "native", f"leg {leg_number}: {conversion}", "a conversion of what the pool trades"
            )
        if sells_wrapped:
            yield replace(
                swap,
                token_in=wrapped_native,
                source=conversion.source,
                amount_raw=conversion.amount_raw,
            )
        else:
            yield replace(
                swap,
                token_out=wrapped_native,
                sink=conversion.sink,
                next_pair_token=conversion.next_pair_token,
                next_pair_maker=conversion.next_pair_maker,
            )
    yield from remaining_program_legs


def _trades_native(leg: Leg) -> bool:
    pool_type = pool_kind(leg.venue)
    return pool_type is not None and pool_type.trades_native


def _require_pool(leg_label: str, program_leg: ProgramLeg, leg: Leg, rules: SigningRules) -> None:
    """Require the plan's pool, made by the pinned maker of its venue, between two pinned tokens; or
    wrapping of the native coin.
    """
    maker = dict(rules.venue_makers).get(leg.venue)
    if maker is None or program_leg.maker != maker:
        refuse("venue", f"{leg_label}{program_leg.maker}", f"{leg.venue}, made by {maker}")
    tokens = {program_leg.token_in, program_leg.token_out}
    if (program_leg.token_in, program_leg.token_out) != (leg.token_in, leg.token_out):
        refuse(
            "tokens",
            f"{leg_label}{program_leg.token_in} to {program_leg.token_out}",
            f"{leg.token_in} to {leg.token_out}",
        )
    if maker.style is SwapStyle.NATIVE:
        if maker.address != rules.wrapped_native or tokens != {NATIVE, rules.wrapped_native}:
            refuse(
                "tokens",
                f"{leg_label}{program_leg.token_in} to {program_leg.token_out}",
                f"the native coin and {rules.wrapped_native}",
            )
        pays_from_wallet = program_leg.source is FundsLocation.WALLET
        pays_to_wallet = program_leg.sink is FundsLocation.WALLET
        if not (pays_from_wallet if program_leg.token_in == NATIVE else pays_to_wallet):
            refuse(
                "native",
                f"{leg_label}native coin of the contract",
                "the wallet's native coin, in or out",
            )
        return
    if len(tokens) != 2 or not tokens <= set(rules.tokens):
        refuse(
            "tokens",
            f"{leg_label}{program_leg.token_in} to {program_leg.token_out}",
            "two different pinned tokens",
        )
    currency_in, currency_out = (
        NATIVE if _trades_native(leg) and token == rules.wrapped_native else token
        for token in (program_leg.token_in, program_leg.token_out)
    )
    derived_pool = pool_address(maker, currency_in, currency_out, program_leg.tier)
    if derived_pool != leg.pool:
        refuse("pool", f"{leg_label}{derived_pool}", leg.pool)
    if maker.style is SwapStyle.V2 and program_leg.tier != leg.fee_pips:
        refuse("pool_fee", f"{leg_label}{program_leg.tier}", leg.fee_pips)


def _require_leg(
    leg_label: str, program_leg: ProgramLeg, leg: Leg, floor_raw: int, rules: SigningRules
) -> None:
    _require_pool(leg_label, program_leg, leg, rules)
    if (program_leg.source is FundsLocation.WALLET) != (leg.source is LegPlace.WALLET):
        refuse("source", f"{leg_label}paid from {program_leg.source.value}", leg.source.value)
    if (program_leg.sink is FundsLocation.WALLET) != (leg.sink is LegPlace.WALLET):
        refuse("recipient", f"{leg_label}pays to {program_leg.sink.name.lower()}", leg.sink.value)
    amount_in_raw = leg.amount_in_raw if leg.source is LegPlace.WALLET else 0
    if program_leg.amount_raw != amount_in_raw or leg.amount_in_raw <= 0:
        refuse(
            "amount_in",
            f"{leg_label}{program_leg.amount_raw}",
            f"exactly {amount_in_raw}, above zero in the plan",
        )
    if leg.min_out_raw < max(1, floor_raw):
        refuse(
            "floor",
            f"{leg_label}minimum of the plan {leg.min_out_raw}",
            f"at least the floor {floor_raw}, and above zero",
        )
    if program_leg.min_out_raw != leg.min_out_raw:
        refuse(
            "min_out",
            f"{leg_label}{program_leg.min_out_raw}",
            f"exactly the plan's {leg.min_out_raw}",
        )


def _require_nothing_left(call: RebalanceCall) -> None:
    """Require every amount left in the contract or sent to a pair to be spent by a later leg; the
    next leg through that pair must be the one that spends it.
    """
    contract_tokens: set[str] = set()
    prepaid_token_by_pair: dict[tuple[PoolMaker | None, frozenset[str]], str] = {}
    for leg_number, leg in enumerate(call.legs, 1):
        leg_label = f"leg {leg_number}"
        leg_pair = (leg.maker, frozenset((leg.token_in, leg.token_out)))
        if leg.source is FundsLocation.REBALANCER:
            if leg.token_in not in contract_tokens:
                refuse(
                    "router_balance",
                    f"{leg_label} spends the contract's {leg.token_in}",
                    "only what a leg before it left there",
                )
            contract_tokens.discard(leg.token_in)
        if leg.style is SwapStyle.V2:
            prepaid_token = prepaid_token_by_pair.pop(leg_pair, None)
            if prepaid_token != (leg.token_in if leg.source is FundsLocation.PAIR else None):
                refuse(
                    "router_balance",
                    f"{leg_label} trades in a pair that was paid {prepaid_token or 'nothing'}",
                    "exactly what the leg spends from its pair",
                )
        elif leg.source is FundsLocation.PAIR:
            refuse(
                "router_balance",
                f"{leg_label} expects its input already in its pool, which is not a V2 pair",
                "prepayment only to a V2 pair",
            )
        if leg.sink is FundsLocation.REBALANCER:
            contract_tokens.add(leg.token_out)
        elif leg.sink is FundsLocation.PAIR and leg.next_pair_token is not None:
            next_pair = leg.next_pair_maker, frozenset((leg.token_out, leg.next_pair_token))
            if (
                leg.token_out == leg.next_pair_token
                or next_pair == leg_pair
                or prepaid_token_by_pair.setdefault(next_pair, leg.token_out) != leg.token_out
            ):
                refuse(
                    "router_balance",
                    f"{leg_label} pays to a pair that is in use",
                    "a pair of its own",
                )
    if contract_tokens or prepaid_token_by_pair:
        refuse(
            "router_balance",
            f"{', '.join(sorted(contract_tokens | set(prepaid_token_by_pair.values())))} left behind",
            "nothing",
        )


def _require_watched_balances(call: RebalanceCall, legs: tuple[Leg, ...], grant: Grant) -> None:
    """Require that every balance that the plan changes is watched, at the granted price, and may
    lose no more than the plan's minimums allow.
    """
    price_by_token = dict(grant.prices)
    expected_bound_raw_by_token: dict[str, int] = {}
    for leg in legs:
        if leg.source is LegPlace.WALLET:
            expected_bound_raw_by_token[leg.token_in] = (
                expected_bound_raw_by_token.get(leg.token_in, 0) - leg.amount_in_raw
            )
        if leg.sink is LegPlace.WALLET:
            expected_bound_raw_by_token[leg.token_out] = (
                expected_bound_raw_by_token.get(leg.token_out, 0) + leg.min_out_raw
            )
    bound_raw_by_token = {
        watched_balance.token: watched_balance.min_change_raw
        for watched_balance in call.watched_balances
    }
    if bound_raw_by_token != expected_bound_raw_by_token:
        refuse(
            "bounds",
            f"{len(bound_raw_by_token)} balances with bounds {bound_raw_by_token}",
            f"those of the plan {expected_bound_raw_by_token}",
        )
    for watched_balance in call.watched_balances:
        price = price_by_token.get(watched_balance.token, Fraction(0))
        if price <= 0 or watched_balance.price_x128 != floor_int(price * 2**128):
            refuse(
                "price",
                f"{watched_balance.token} at {watched_balance.price_x128}",
                f"the granted price {price} times 2^128",
            )
    if call.min_value_change_raw != grant.min_value_change_raw:
        refuse(
            "value_floor", call.min_value_change_raw, f"the granted {grant.min_value_change_raw}"
        )
    min_change_raw = _min_value_change(legs, grant.floors_raw, price_by_token)
    if call.min_value_change_raw < min_change_raw:
        refuse(
            "value_floor",
            call.min_value_change_raw,
            f"at least {min_change_raw}, the sum of the legs' floors",
        )


def _min_value_change(
    legs: tuple[Leg, ...], floors_raw: tuple[int, ...], price_by_token: Mapping[str, Fraction]
) -> int:
    """Return the change of the wallet's value if every leg pays only its floor, less one base unit
    for the rounding of prices.
    """
    value_change_raw = Fraction(0)
    for leg, floor_raw in zip(legs, floors_raw, strict=True):
        if leg.source is LegPlace.WALLET:
            value_change_raw -= leg.amount_in_raw * price_by_token[leg.token_in]
        if leg.sink is LegPlace.WALLET:
            value_change_raw += floor_raw * price_by_token[leg.token_out]
    return floor_int(value_change_raw) - 1
