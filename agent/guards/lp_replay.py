"""What a plan's actions do to positions and wallet, worked out anew from the snapshot, action after action."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.amm import pools
from agent.amm.v3_math.tick_math import MAX_TICK, MIN_TICK
from agent.errors import Refused
from agent.lp import change, exact, floors, mint
from agent.model import (
    Collect,
    ConfirmedPosition,
    Limits,
    LpAction,
    LpTarget,
    LpV2Position,
    LpV3Position,
    PoolState,
    Provide,
    V3Pool,
    Withdraw,
)
from agent.planning.lp_floors import floors_in
from agent.policy.lp_book import Amounts, Book, band_bps


@dataclass(frozen=True, slots=True)
class ActionRun:
    """One action as it really runs: liquidity and base units of (token0, token1), fees beside them, and the book around it.

    `least` are the lowest minimums by reference prices. `price` is the pool's.
    """

    number: int
    action: LpAction
    before: Book
    after: Book
    liquidity: int
    amounts: Amounts
    fees: Amounts
    least: Amounts
    price: Fraction | None

    @property
    def value(self) -> Fraction:
        """What it moves, at reference prices."""
        return self.before.value(self.action, (self.amounts[0] + self.fees[0], self.amounts[1] + self.fees[1]))

    @property
    def off(self) -> Fraction | None:
        """How far the pool is from the reference."""
        return None if self.price is None else abs(self.price / self.before.ratio(self.action) - 1)


@dataclass(frozen=True, slots=True)
class LpReplay:
    """All actions, and the book after them; `fault` says why one cannot be what it says, and the rest then means nothing."""

    runs: tuple[ActionRun, ...]
    after: Book
    fault: str | None


def replay_actions(book: Book, actions: tuple[LpAction, ...]) -> LpReplay:
    """Runs the actions on the snapshot's positions and pools with the contracts' arithmetic."""
    runs: list[ActionRun] = []
    for number, action in enumerate(actions):
        try:
            run = _run(number, action, book)
        except Refused as why:
            return LpReplay(tuple(runs), book, f"action {number}: {why.message}")
        runs.append(run)
        book = run.after
    return LpReplay(tuple(runs), book, None)


def dearest(run: ActionRun, limits: Limits) -> Fraction:
    """Most that what the run provides costs above its worth, per unit of worth, within the band that its minimums leave."""
    if not isinstance(run.action, Provide):
        return Fraction(0)
    within, ratio = None if run.action.ticks is None else mint.ends(run.action.ticks), run.before.ratio(run.action)
    return floors.overpaid(within, ratio, floors.widest(within, ratio, band_bps(limits) or 0, limits.slippage_bps))


def _run(number: int, action: LpAction, book: Book) -> ActionRun:
    unpriced = [token for token in (action.token0, action.token1) if book.prices.get(token, 0) <= 0]
    if unpriced:
        raise Refused(f"no reference price of {unpriced[0]}")
    match action:
        case Withdraw():
            one, position = _own(book, action)
            if not 0 < action.liquidity <= position.liquidity:
                raise Refused(f"{action.name} has {position.liquidity} of liquidity, not {action.liquidity}")
            amounts, fees, least = exact.principal(position, action.liquidity), exact.uncollected(position), floors_in(book, action)
            after = book.taken(one, action.liquidity, action.min_raw)
            return ActionRun(number, action, book, after, action.liquidity, amounts, fees, least, exact.pool_price(position))
        case Collect():
            one, position = _own(book, action)
            fees = exact.uncollected(position)
            return ActionRun(number, action, book, book.collected(one), 0, (0, 0), fees, (0, 0), exact.pool_price(position))
        case Provide():
            return _provided(number, action, book)


def _provided(number: int, action: Provide, book: Book) -> ActionRun:
    target = next((wanted for wanted in book.step.portfolio.lp_targets if wanted.pool == action.pool), None)
    if target is None or _identity(target) != _identity(action) or target.fee_pips != action.fee_pips:
        raise Refused(f"no liquidity target of this kind names {action.pool}")
    pool = next((found for found in book.step.snapshot.pools if found.address == action.pool), None)
    if pool is None:
        raise Refused(f"pool {action.pool} is not in the snapshot")
    price = pools.marginal_price(pool, pool.token0) if _has_price(pool) else None
    if isinstance(pool, V3Pool) != (action.ticks is not None):
        raise Refused(f"{action.pool} and a range do not go together")
    if isinstance(pool, V3Pool) and action.ticks is not None:
        liquidity, amounts = mint.provided(None, pool.sqrt_price_x96, _range(action.ticks, pool), action.desired_raw)
        if action.token_id is None:
            after = book.minted(target, change.minted(target, pool, action.ticks, liquidity), amounts)
        else:
            one, position = _own(book, action)
            if not isinstance(position, LpV3Position) or (position.tick_lower, position.tick_upper) != action.ticks:
                raise Refused(f"{action.name} does not have the range {action.ticks}")
            after = book.put(one, liquidity, amounts)
    else:
        one, position = _own(book, action)
        liquidity, amounts = mint.provided(position if isinstance(position, LpV2Position) else None, 0, None, action.desired_raw)
        after = book.put(one, liquidity, amounts)
    if liquidity <= 0:
        raise Refused("it provides nothing")
    return ActionRun(number, action, book, after, liquidity, amounts, (0, 0), floors_in(book, action), price)


def _own(book: Book, action: LpAction) -> tuple[ConfirmedPosition, LpV2Position | LpV3Position]:
    """The confirmed position that an action names, if it is what the action says of it."""
    for one, position in book.pairs:
        if one.name == action.name and isinstance(position, LpV2Position | LpV3Position):
            pool = position.pair if isinstance(position, LpV2Position) else position.pool
            if (one.venue, one.contract, one.token0, one.token1, pool) != (*_identity(action), action.pool):
                break
            return one, position
    raise Refused(f"{action.name} is no confirmed position in {action.pool}")


def _identity(of: LpAction | LpTarget) -> tuple[str, str, str, str]:
    return of.venue, of.contract, of.token0, of.token1


def _range(ticks: Amounts, pool: V3Pool) -> mint.Range:
    if not MIN_TICK <= ticks[0] < ticks[1] <= MAX_TICK or ticks[0] % pool.tick_spacing or ticks[1] % pool.tick_spacing:
        raise Refused(f"{ticks} is no range of {pool.address}")
    return mint.ends(ticks)


def _has_price(pool: PoolState) -> bool:
    return pool.sqrt_price_x96 > 0 if isinstance(pool, V3Pool) else min(pool.reserve0, pool.reserve1) > 0
