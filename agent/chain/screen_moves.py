"""What a plan moves of each token: from which pools to whom, and from whom into which pools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.amm import pools as amm
from agent.model import Funding, Plan, PoolState, Provide, StepInput, V3Pool
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class Move:
    """`raw` base units of a token that a pool pays to `payee`, or takes from the wallet by the hand of `spender`.

    One of both is set; a sale of what an earlier leg left in the router has neither.
    """

    token: str
    pool: PoolState
    raw: int
    payee: str | None = None
    spender: str | None = None

    @property
    def kind(self) -> int:
        """As TokenScreen reads it: bit 0 the token is token1, bit 1 the pool is V3."""
        return (self.token == self.pool.token1) + 2 * isinstance(self.pool, V3Pool)


def moves(step: StepInput, plan: Plan) -> tuple[Move, ...]:
    """Everything that legs exchange and that is provided as liquidity, in the plan's order."""
    return tuple(move for move in (*_legs(step, plan), *_provided(step, plan)) if move.raw > 0)


def _legs(step: StepInput, plan: Plan) -> Iterator[Move]:
    pools = {pool.address: pool for pool in step.snapshot.pools}
    router, wallet = step.execution.router, step.snapshot.owner
    for leg in plan.legs:
        pool = pools.get(leg.pool)
        if pool is None or NATIVE in (leg.token_in, leg.token_out):
            continue  # wrapping: the wrapped token is tried where it is exchanged
        yield Move(leg.token_in, pool, leg.amount_in_raw, spender=router if leg.source is Funding.WALLET else None)
        yield Move(leg.token_out, pool, leg.amount_out_raw, payee=wallet if leg.sink is Funding.WALLET else router)


def _provided(step: StepInput, plan: Plan) -> Iterator[Move]:
    pools = {pool.address: pool for pool in step.snapshot.pools}
    for action in plan.actions:
        pool = pools.get(action.pool)
        if isinstance(action, Provide) and pool is not None:
            for token, raw in zip((action.token0, action.token1), action.desired_raw, strict=True):
                yield Move(token, pool, raw, spender=action.contract)


def first_look(step: StepInput) -> tuple[Move, ...]:
    """A move of each token without a plan: all that the wallet holds, or a hundredth of its deepest pool, into and out of that."""
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    found = []
    for token in (*(asset.token for asset in step.portfolio.assets), *step.portfolio.hubs):
        depths = [(amm.depth(pool, token.address), pool) for pool in step.snapshot.pools if token.address in (pool.token0, pool.token1)]
        deepest_raw, pool = max(depths, key=lambda one: one[0], default=(0, None))
        raw = min(held.get(token.address, 0) or deepest_raw // 100, deepest_raw // 2)
        if pool is not None and raw > 0:
            found.append(Move(token.address, pool, raw, step.snapshot.owner, step.execution.router))
    return tuple(found)


def largest(found: tuple[Move, ...]) -> dict[str, Move]:
    """The largest move of each token."""
    chosen: dict[str, Move] = {}
    for move in found:
        if move.token not in chosen or move.raw > chosen[move.token].raw:
            chosen[move.token] = move
    return chosen
