"""Transfers to screen: those of a plan, or of each token through its pools without a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.amm import swap_style
from agent.amm.pools import holds_token
from agent.model import LegPlace, Plan, Pool, Provide, Snapshot, StepInput, SwapStyle
from agent.units import NATIVE

MIN_SCREENED_RAW = 1_000_000
"""Balance that is screened itself, base units. Of less, which anyone can send, a fee of a millionth
rounds to zero.
"""


@dataclass(frozen=True, slots=True)
class TokenMove:
    """Transfer of `raw` base units of a token: from a pool to `payee`, or from the wallet to a pool
    by `spender`. A leg's transfer has one of the two, or neither if the router's balance is sold;
    a transfer to screen without a plan has both.
    """

    token: str
    pool: Pool
    raw: int
    payee: str | None = None
    spender: str | None = None

    @property
    def lent_raw(self) -> int:
        """What the pool is tried to send, base units: all that it has to pay; of a token that it only
        receives, of which it may hold less, half of its depth.
        """
        if self.payee is not None:
            return self.raw
        return min(self.raw, max(self.pool.depth(self.token) // 2, 1))

    @property
    def pool_flags(self) -> int:
        """Flags for TokenScreen: bit 0 if the token is token1, bit 1 if the pool is V3, bit 2 if
        V4.
        """
        lender_flag = {SwapStyle.V2: 0, SwapStyle.V4: 4}.get(self.pool.style, 2)
        return (self.token == self.pool.token1) + lender_flag


def plan_token_moves(step: StepInput, plan: Plan) -> tuple[TokenMove, ...]:
    """Return the transfers of all legs and provided liquidity, in the plan's order."""
    return tuple(
        move
        for move in (*_leg_moves(step, plan), *_provided_moves(step.snapshot, plan))
        if move.raw > 0
    )


def _leg_moves(step: StepInput, plan: Plan) -> Iterator[TokenMove]:
    pool_by_address = {pool.address: pool for pool in step.snapshot.pools}
    router = step.execution.router
    wallet = step.snapshot.owner
    for leg in plan.legs:
        pool = pool_by_address.get(leg.pool)
        if pool is None or NATIVE in (leg.token_in, leg.token_out):
            continue  # the wrapped token is screened at its swap
        spender = router if leg.source is LegPlace.WALLET else None
        payees = [wallet] if leg.sink is LegPlace.WALLET else [router]
        if (
            step.execution.sweeps_outputs
            and swap_style(leg.venue) is SwapStyle.V3
            and payees == [wallet]
        ):
            payees.append(router)
        if loan := _lender_and_amount(step.snapshot, pool, leg.token_in, leg.amount_in_raw):
            lender, lent_raw = loan
            yield TokenMove(leg.token_in, lender, lent_raw, spender=spender)
        if loan := _lender_and_amount(step.snapshot, pool, leg.token_out, leg.amount_out_raw):
            lender, lent_raw = loan
            for payee in payees:
                yield TokenMove(leg.token_out, lender, lent_raw, payee=payee)


def _lender_and_amount(
    snapshot: Snapshot, pool: Pool, token: str, raw: int
) -> tuple[Pool, int] | None:
    """Return a pool that holds a token of a leg through `pool`, and what it can lend of `raw` base
    units: the leg's own pool, or for wrapped coin that the pool has as native coin the deepest
    other one, if possible not in quarantine; None without one.
    """
    if holds_token(pool, token):
        return pool, raw
    lender = next(iter((*lending_pools(snapshot, token), *holding_pools(snapshot, token))), None)
    return None if lender is None else (lender, min(raw, lender.depth(token) // 2))


def lending_pools(snapshot: Snapshot, token: str) -> list[Pool]:
    """Return the pools that have liquidity, hold a token and are not in quarantine, deepest
    first.
    """
    unreadable_addresses = {item.address for item in snapshot.unreadable_items}
    return [
        pool for pool in holding_pools(snapshot, token) if pool.address not in unreadable_addresses
    ]


def holding_pools(snapshot: Snapshot, token: str) -> list[Pool]:
    """Return the pools that have liquidity and hold a token, deepest first. One that is in
    quarantine for its other token can still lend this one.
    """
    pools = [pool for pool in snapshot.pools if holds_token(pool, token) and not pool.is_empty]
    return sorted(pools, key=lambda pool: pool.depth(token), reverse=True)


def _provided_moves(snapshot: Snapshot, plan: Plan) -> Iterator[TokenMove]:
    pool_by_address = {pool.address: pool for pool in snapshot.pools}
    for action in plan.layer_actions:
        pool = pool_by_address.get(action.pool)
        if isinstance(action, Provide) and pool is not None:
            for token, move_raw in zip(
                (action.token0, action.token1), action.desired_raw, strict=True
            ):
                yield TokenMove(token, pool, move_raw, spender=action.contract)


def screening_moves(step: StepInput) -> tuple[TokenMove, ...]:
    """Return a transfer of each token in both directions through each pool that holds it, without a
    plan: the wallet's balance, or if that is dust a hundredth of the pool.
    """
    balance_raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    moves = []
    for token in (*(asset.token for asset in step.portfolio.assets), *step.portfolio.hubs):
        for pool in lending_pools(step.snapshot, token.address):
            depth_raw = pool.depth(token.address)
            balance_raw = balance_raw_by_token.get(token.address, 0)
            if balance_raw < MIN_SCREENED_RAW:
                balance_raw = max(balance_raw, depth_raw // 100)
            move_raw = min(balance_raw, depth_raw // 2)
            if move_raw > 0:
                moves.append(
                    TokenMove(
                        token.address, pool, move_raw, step.snapshot.owner, step.execution.router
                    )
                )
    return tuple(moves)


def pool_moves(moves: tuple[TokenMove, ...], token: str) -> list[TokenMove]:
    """Return the largest transfer of a token at each contract that pools hold it in, largest
    first.
    """
    token_moves = sorted(
        (move for move in moves if move.token == token), key=lambda move: move.raw, reverse=True
    )
    largest_move_by_contract: dict[str, TokenMove] = {}
    for move in token_moves:
        largest_move_by_contract.setdefault(move.pool.contract, move)
    return list(largest_move_by_contract.values())
