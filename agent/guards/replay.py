"""Replay of a plan's legs on the pools of the snapshot and on the wallet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import Refused
from agent.model import (
    Leg,
    LegFunding,
    Plan,
    Pool,
    Snapshot,
)
from agent.planning.gas import NATIVE_VENUE
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class SimulatedSwap:
    """Simulation of one leg. `start` is the pool in the snapshot, `before` and `after` its state
    around the leg.
    """

    number: int
    leg: Leg
    start: Pool
    before: Pool
    after: Pool
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class LegFlow:
    """Simulated input and output of one leg, a swap or a conversion, in base units."""

    number: int
    leg: Leg
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Replay of all legs: tokens given and received by the wallet, and `stranded` amounts left in
    the router.

    `runs` are the swaps, `flows` all legs. In `sold` and `bought`, native coin counts as its
    wrapped token and conversions are ignored; `moved` has both separately. `fault` is the reason
    why the replay ended early (None: complete), which makes the numbers meaningless.
    """

    runs: tuple[SimulatedSwap, ...]
    sold: Mapping[str, int]
    bought: Mapping[str, int]
    stranded: Mapping[str, int]
    fault: str | None
    flows: tuple[LegFlow, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)

    def delta(self, token: str) -> int:
        """Return the change of the wallet's balance in base units."""
        return self.bought.get(token, 0) - self.sold.get(token, 0)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens that the wallet gives or receives, in the order of the legs."""
        return tuple(dict.fromkeys((*self.sold, *self.bought)))


def replay_legs(snapshot: Snapshot, plan: Plan, wrapped_native: str = "") -> Replay:  # noqa: C901
    """Replay the legs on the snapshot's pools with the contracts' arithmetic.

    A wallet leg spends its amount, a router leg the router's balance. Only `wrapped_native`
    converts to native coin, one to one.
    """
    start = {pool.address: pool for pool in snapshot.pools}
    now = dict(start)
    runs: list[SimulatedSwap] = []
    sold: dict[str, int] = {}
    bought: dict[str, int] = {}
    router: dict[str, int] = {}
    moved: dict[str, int] = {}
    flows: list[LegFlow] = []

    def result(fault: str | None) -> Replay:
        stranded = {token: raw for token, raw in router.items() if raw}
        return Replay(tuple(runs), sold, bought, stranded, fault, tuple(flows), moved)

    def book(flow: LegFlow) -> None:
        leg, coin = flow.leg, {NATIVE: wrapped_native}
        converts = leg.venue == NATIVE_VENUE and leg.source is leg.sink is LegFunding.WALLET
        flows.append(flow)
        if leg.source is LegFunding.WALLET:
            moved[leg.token_in] = moved.get(leg.token_in, 0) - flow.amount_in_raw
            if not converts:
                token = coin.get(leg.token_in, leg.token_in)
                sold[token] = sold.get(token, 0) + flow.amount_in_raw
        if leg.sink is LegFunding.ROUTER:
            router[leg.token_out] = router.get(leg.token_out, 0) + flow.amount_out_raw
        else:
            moved[leg.token_out] = moved.get(leg.token_out, 0) + flow.amount_out_raw
            if not converts:
                token = coin.get(leg.token_out, leg.token_out)
                bought[token] = bought.get(token, 0) + flow.amount_out_raw

    for number, leg in enumerate(plan.legs):
        amount_in = (
            leg.amount_in_raw if leg.source is LegFunding.WALLET else router.pop(leg.token_in, 0)
        )
        if leg.venue == NATIVE_VENUE:
            if (
                leg.pool != wrapped_native
                or {leg.token_in, leg.token_out} != {NATIVE, wrapped_native}
                or amount_in <= 0
            ):
                return result(
                    f"leg {number}: {leg.pool} does not convert {amount_in} of {leg.token_in} to"
                    f" {leg.token_out}"
                )
            book(LegFlow(number, leg, amount_in, amount_in))
            continue
        before = now.get(leg.pool)
        if before is None:
            return result(f"leg {number}: pool {leg.pool} is not in the snapshot")
        if {leg.token_in, leg.token_out} != {before.token0, before.token1}:
            return result(f"leg {number}: pool {leg.pool} does not trade these tokens")
        if amount_in <= 0:
            return result(f"leg {number}: no balance to spend")
        try:
            swapped = before.swap(leg.token_in, amount_in)
        except (Refused, ValueError, ArithmeticError) as error:
            return result(f"leg {number}: {error}")
        if swapped.amount_in_raw != amount_in:
            return result(
                f"leg {number}: pool {leg.pool} accepts only {swapped.amount_in_raw} of {amount_in}"
            )
        if swapped.amount_out_raw <= 0:
            return result(f"leg {number}: pool {leg.pool} pays nothing for {amount_in}")
        now[leg.pool] = swapped.after
        runs.append(
            SimulatedSwap(
                number,
                leg,
                start[leg.pool],
                before,
                swapped.after,
                amount_in,
                swapped.amount_out_raw,
            )
        )
        book(LegFlow(number, leg, amount_in, swapped.amount_out_raw))
    return result(None)
