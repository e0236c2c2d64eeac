"""What a plan's legs do to the snapshot's pools and to the wallet, simulated anew leg after leg."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.amm import pools
from agent.errors import Refused
from agent.model import Funding, Leg, Plan, PoolState, Snapshot


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
class Replay:
    """The whole plan: what the wallet gives and gets per token over all legs, what stays behind in the router.

    `fault` says in words why the simulation ended early; the numbers then mean nothing.
    """

    runs: tuple[LegRun, ...]
    sold: Mapping[str, int]
    bought: Mapping[str, int]
    stranded: Mapping[str, int]
    fault: str | None

    def delta(self, token: str) -> int:
        """Change of the wallet's balance, base units."""
        return self.bought.get(token, 0) - self.sold.get(token, 0)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens whose wallet balance a leg touches, in the order of the legs."""
        return tuple(dict.fromkeys((*self.sold, *self.bought)))


def replay(snapshot: Snapshot, plan: Plan) -> Replay:
    """Runs the legs on the snapshot's pools with the contracts' arithmetic; a wallet leg spends its amount, a router leg what is there."""
    start = {pool.address: pool for pool in snapshot.pools}
    now = dict(start)
    runs: list[LegRun] = []
    sold: dict[str, int] = {}
    bought: dict[str, int] = {}
    router: dict[str, int] = {}

    def ended(why: str | None) -> Replay:
        return Replay(tuple(runs), sold, bought, {token: raw for token, raw in router.items() if raw}, why)

    for number, leg in enumerate(plan.legs):
        amount_in = leg.amount_in_raw if leg.source is Funding.WALLET else router.pop(leg.token_in, 0)
        before = now.get(leg.pool)
        if before is None:
            return ended(f"leg {number}: pool {leg.pool} is not in the snapshot")
        if {leg.token_in, leg.token_out} != {before.token0, before.token1}:
            return ended(f"leg {number}: pool {leg.pool} does not exchange these tokens")
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
        if leg.source is Funding.WALLET:
            sold[leg.token_in] = sold.get(leg.token_in, 0) + amount_in
        target = bought if leg.sink is Funding.WALLET else router
        target[leg.token_out] = target.get(leg.token_out, 0) + swapped.amount_out_raw
    return ended(None)
