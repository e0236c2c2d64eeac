"""What a plan's legs do to the snapshot's pools and to the wallet, simulated anew leg after leg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.amm import pools
from agent.errors import Refused
from agent.model import Funding, Leg, Plan, PoolState, Snapshot
from agent.planning.payments import NATIVE_VENUE
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class LegRun:
    """One leg as it really runs. `start` is the pool in the snapshot, `before` and `after` around this leg."""

    number: int
    leg: Leg
    start: PoolState
    before: PoolState
    after: PoolState
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class Flow:
    """What one leg, a swap or not, really takes and brings, base units."""

    number: int
    leg: Leg
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The whole plan: what the wallet gives and gets per token over all legs, what stays behind in the router.

    `runs` are the swaps, `flows` all legs. In `sold` and `bought` the native coin counts as its wrapped token, and what only
    turns from one into the other not at all; `moved` tells both apart. `fault` says in words why the simulation ended early; the
    numbers then mean nothing.
    """

    runs: tuple[LegRun, ...]
    sold: Mapping[str, int]
    bought: Mapping[str, int]
    stranded: Mapping[str, int]
    fault: str | None
    flows: tuple[Flow, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)

    def delta(self, token: str) -> int:
        """Change of the wallet's balance, base units."""
        return self.bought.get(token, 0) - self.sold.get(token, 0)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens whose wallet balance a leg touches, in the order of the legs."""
        return tuple(dict.fromkeys((*self.sold, *self.bought)))


def replay(snapshot: Snapshot, plan: Plan, wrapped_native: str = "") -> Replay:
    """Runs the legs on the snapshot's pools with the contracts' arithmetic; a wallet leg spends its amount, a router leg what is there.

    `wrapped_native` alone is exchanged for the native coin, one for one.
    """
    start = {pool.address: pool for pool in snapshot.pools}
    now = dict(start)
    runs: list[LegRun] = []
    sold: dict[str, int] = {}
    bought: dict[str, int] = {}
    router: dict[str, int] = {}
    moved: dict[str, int] = {}
    flows: list[Flow] = []

    def ended(why: str | None) -> Replay:
        stranded = {token: raw for token, raw in router.items() if raw}
        return Replay(tuple(runs), sold, bought, stranded, why, tuple(flows), moved)

    def book(flow: Flow) -> None:
        leg, coin = flow.leg, {NATIVE: wrapped_native}
        turns = leg.venue == NATIVE_VENUE and leg.source is leg.sink is Funding.WALLET
        flows.append(flow)
        if leg.source is Funding.WALLET:
            moved[leg.token_in] = moved.get(leg.token_in, 0) - flow.amount_in_raw
            if not turns:
                token = coin.get(leg.token_in, leg.token_in)
                sold[token] = sold.get(token, 0) + flow.amount_in_raw
        if leg.sink is Funding.ROUTER:
            router[leg.token_out] = router.get(leg.token_out, 0) + flow.amount_out_raw
        else:
            moved[leg.token_out] = moved.get(leg.token_out, 0) + flow.amount_out_raw
            if not turns:
                token = coin.get(leg.token_out, leg.token_out)
                bought[token] = bought.get(token, 0) + flow.amount_out_raw

    for number, leg in enumerate(plan.legs):
        amount_in = leg.amount_in_raw if leg.source is Funding.WALLET else router.pop(leg.token_in, 0)
        if leg.venue == NATIVE_VENUE:
            if leg.pool != wrapped_native or {leg.token_in, leg.token_out} != {NATIVE, wrapped_native} or amount_in <= 0:
                return ended(f"leg {number}: {amount_in} of {leg.token_in} do not turn into {leg.token_out} in {leg.pool}")
            book(Flow(number, leg, amount_in, amount_in))
            continue
        before = now.get(leg.pool)
        if before is None:
            return ended(f"leg {number}: pool {leg.pool} is not in the snapshot")
        if {leg.token_in, leg.token_out} != {before.token0, before.token1}:
            return ended(f"leg {number}: pool {leg.pool} does not trade these tokens")
        if amount_in <= 0:
            return ended(f"leg {number}: nothing to spend")
        try:
            swapped = pools.swap_exact_in(before, leg.token_in, amount_in)
        except (Refused, ValueError, ArithmeticError) as error:
            return ended(f"leg {number}: {error}")
        if swapped.amount_in_raw != amount_in:
            return ended(f"leg {number}: pool {leg.pool} takes only {swapped.amount_in_raw} of {amount_in}")
        if swapped.amount_out_raw <= 0:
            return ended(f"leg {number}: pool {leg.pool} pays nothing for {amount_in}")
        now[leg.pool] = swapped.after
        runs.append(LegRun(number, leg, start[leg.pool], before, swapped.after, amount_in, swapped.amount_out_raw))
        book(Flow(number, leg, amount_in, swapped.amount_out_raw))
    return ended(None)
