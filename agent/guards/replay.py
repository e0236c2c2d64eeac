"""Replay of a plan's legs on the pools of the snapshot and on the wallet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import Refused
from agent.model import (
    NATIVE_VENUE,
    Leg,
    LegPlace,
    Plan,
    Pool,
    Snapshot,
)
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class SimulatedSwap:
    """Simulation of one leg; `number` counts legs from 1. `snapshot_pool` is the pool in the
    snapshot, `pool_before` and `pool_after` its state around the leg.
    """

    number: int
    leg: Leg
    snapshot_pool: Pool
    pool_before: Pool
    pool_after: Pool
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class LegFlow:
    """Simulated input and output of one leg, a swap or a conversion, in base units; `number` counts
    legs from 1.
    """

    number: int
    leg: Leg
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Replay of all legs: tokens given and received by the wallet, and `stranded_raw_by_token` amounts left in
    the router.

    `swaps` are the exchanges in pools, `flows` all legs. `sold_raw_by_token` and `bought_raw_by_token` count native coin as
    its wrapped token and leave out conversions. `balance_changes_raw` is the change of each
    balance, with native and wrapped coin apart and conversions included. `fault` is the reason why
    the replay ended early (None: complete), which makes the numbers meaningless.
    """

    swaps: tuple[SimulatedSwap, ...]
    sold_raw_by_token: Mapping[str, int]
    bought_raw_by_token: Mapping[str, int]
    stranded_raw_by_token: Mapping[str, int]
    fault: str | None
    flows: tuple[LegFlow, ...] = ()
    balance_changes_raw: Mapping[str, int] = field(default_factory=dict)

    def delta_raw(self, token: str) -> int:
        """Return the change of the wallet's balance in base units."""
        return self.bought_raw_by_token.get(token, 0) - self.sold_raw_by_token.get(token, 0)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that the wallet gives or receives, in the order of the legs."""
        return tuple(dict.fromkeys((*self.sold_raw_by_token, *self.bought_raw_by_token)))


def replay_legs(snapshot: Snapshot, plan: Plan, wrapped_native: str = "") -> Replay:  # noqa: C901
    """Replay the legs on the snapshot's pools with the contracts' arithmetic.

    A wallet leg spends its amount, a router leg the router's balance. Only `wrapped_native`
    converts to native coin, one to one.
    """
    start_pool_by_address = {pool.address: pool for pool in snapshot.pools}
    current_pool_by_address = dict(start_pool_by_address)
    swaps: list[SimulatedSwap] = []
    sold_raw_by_token: dict[str, int] = {}
    bought_raw_by_token: dict[str, int] = {}
    router_raw_by_token: dict[str, int] = {}
    balance_changes_raw: dict[str, int] = {}
    flows: list[LegFlow] = []

    def end_replay(fault: str | None) -> Replay:
        stranded_raw_by_token = {
            token: router_raw for token, router_raw in router_raw_by_token.items() if router_raw
        }
        return Replay(
            tuple(swaps),
            sold_raw_by_token,
            bought_raw_by_token,
            stranded_raw_by_token,
            fault,
            tuple(flows),
            balance_changes_raw,
        )

    def book(flow: LegFlow) -> None:
        leg = flow.leg
        wrapped_by_native = {NATIVE: wrapped_native}
        is_conversion = leg.venue == NATIVE_VENUE and leg.source is leg.sink is LegPlace.WALLET
        flows.append(flow)
        if leg.source is LegPlace.WALLET:
            balance_changes_raw[leg.token_in] = (
                balance_changes_raw.get(leg.token_in, 0) - flow.amount_in_raw
            )
            if not is_conversion:
                token = wrapped_by_native.get(leg.token_in, leg.token_in)
                sold_raw_by_token[token] = sold_raw_by_token.get(token, 0) + flow.amount_in_raw
        if leg.sink is LegPlace.ROUTER:
            router_raw_by_token[leg.token_out] = (
                router_raw_by_token.get(leg.token_out, 0) + flow.amount_out_raw
            )
        else:
            balance_changes_raw[leg.token_out] = (
                balance_changes_raw.get(leg.token_out, 0) + flow.amount_out_raw
            )
            if not is_conversion:
                token = wrapped_by_native.get(leg.token_out, leg.token_out)
                bought_raw_by_token[token] = bought_raw_by_token.get(token, 0) + flow.amount_out_raw

    for leg_number, leg in enumerate(plan.legs, 1):
        amount_in_raw = (
            leg.amount_in_raw
            if leg.source is LegPlace.WALLET
            else router_raw_by_token.pop(leg.token_in, 0)
        )
        if leg.venue == NATIVE_VENUE:
            if (
                leg.pool != wrapped_native
                or {leg.token_in, leg.token_out} != {NATIVE, wrapped_native}
                or amount_in_raw <= 0
            ):
                return end_replay(
                    f"leg {leg_number}: {leg.pool} does not convert {amount_in_raw} of {leg.token_in} to"
                    f" {leg.token_out}"
                )
            book(LegFlow(leg_number, leg, amount_in_raw, amount_in_raw))
            continue
        pool_before = current_pool_by_address.get(leg.pool)
        if pool_before is None:
            return end_replay(f"leg {leg_number}: pool {leg.pool} is not in the snapshot")
        if {leg.token_in, leg.token_out} != {pool_before.token0, pool_before.token1}:
            return end_replay(f"leg {leg_number}: pool {leg.pool} does not trade these tokens")
        if amount_in_raw <= 0:
            return end_replay(f"leg {leg_number}: no balance to spend")
        try:
            swap_result = pool_before.swap(leg.token_in, amount_in_raw)
        except (Refused, ValueError, ArithmeticError) as error:
            return end_replay(f"leg {leg_number}: {error}")
        if swap_result.amount_in_raw != amount_in_raw:
            return end_replay(
                f"leg {leg_number}: pool {leg.pool} accepts only {swap_result.amount_in_raw} of {amount_in_raw}"
            )
        if swap_result.amount_out_raw <= 0:
            return end_replay(f"leg {leg_number}: pool {leg.pool} pays nothing for {amount_in_raw}")
        current_pool_by_address[leg.pool] = swap_result.pool_after
        swaps.append(
            SimulatedSwap(
                leg_number,
                leg,
                start_pool_by_address[leg.pool],
                pool_before,
                swap_result.pool_after,
                amount_in_raw,
                swap_result.amount_out_raw,
            )
        )
        book(LegFlow(leg_number, leg, amount_in_raw, swap_result.amount_out_raw))
    return end_replay(None)
