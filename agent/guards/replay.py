"""Replay of a plan, recomputed from the snapshot: its legs on pools and wallet, its actions on
positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import minting, positions
from agent.amm.v3.tick_math import MAX_TICK, MIN_TICK
from agent.errors import Refused
from agent.model import (
    Collect,
    ConfirmedPosition,
    Leg,
    LegFunding,
    Limits,
    LpAction,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Plan,
    Pool,
    Provide,
    Snapshot,
    Withdraw,
)
from agent.planning.gas import NATIVE_VENUE
from agent.planning.liquidity import least_amounts_in_book
from agent.policy.liquidity.book import Amounts, PositionBook, band_bps
from agent.units import NATIVE

# --- Replay of a plan's legs on the snapshot's pools and the wallet, leg after leg.


@dataclass(frozen=True, slots=True)
class SimulatedSwap:
    """One leg as it really runs. `start` is the pool in the snapshot, `before` and `after` around
    this leg.
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
    """Real input and output of one leg, a swap or not, base units."""

    number: int
    leg: Leg
    amount_in_raw: int
    amount_out_raw: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Replay of the whole plan: tokens given and received by the wallet over all legs, and any
    remainder in the router. `runs` are the swaps, `flows` all legs. In `sold` and `bought` native
    coin counts as its wrapped token, and conversions are ignored; `moved` keeps them apart. `fault`
    is why the replay ended early; the numbers are then meaningless.
    """

    runs: tuple[SimulatedSwap, ...]
    sold: Mapping[str, int]
    bought: Mapping[str, int]
    stranded: Mapping[str, int]
    fault: str | None
    flows: tuple[LegFlow, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)

    def delta(self, token: str) -> int:
        """Change of the wallet's balance, base units."""
        return self.bought.get(token, 0) - self.sold.get(token, 0)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens whose wallet balance a leg touches, in the order of the legs."""
        return tuple(dict.fromkeys((*self.sold, *self.bought)))


def replay_legs(snapshot: Snapshot, plan: Plan, wrapped_native: str = "") -> Replay:  # noqa: C901
    """Replay the legs on the snapshot's pools with the contracts' arithmetic.

    A wallet leg spends its amount, a router leg the router's balance. `wrapped_native` alone is
    exchanged for the native coin, one for one.
    """
    start = {pool.address: pool for pool in snapshot.pools}
    now = dict(start)
    runs: list[SimulatedSwap] = []
    sold: dict[str, int] = {}
    bought: dict[str, int] = {}
    router: dict[str, int] = {}
    moved: dict[str, int] = {}
    flows: list[LegFlow] = []

    def ended(why: str | None) -> Replay:
        stranded = {token: raw for token, raw in router.items() if raw}
        return Replay(tuple(runs), sold, bought, stranded, why, tuple(flows), moved)

    def book(flow: LegFlow) -> None:
        leg, coin = flow.leg, {NATIVE: wrapped_native}
        turns = leg.venue == NATIVE_VENUE and leg.source is leg.sink is LegFunding.WALLET
        flows.append(flow)
        if leg.source is LegFunding.WALLET:
            moved[leg.token_in] = moved.get(leg.token_in, 0) - flow.amount_in_raw
            if not turns:
                token = coin.get(leg.token_in, leg.token_in)
                sold[token] = sold.get(token, 0) + flow.amount_in_raw
        if leg.sink is LegFunding.ROUTER:
            router[leg.token_out] = router.get(leg.token_out, 0) + flow.amount_out_raw
        else:
            moved[leg.token_out] = moved.get(leg.token_out, 0) + flow.amount_out_raw
            if not turns:
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
                return ended(
                    f"leg {number}: {amount_in} of {leg.token_in} do not turn into {leg.token_out}"
                    f" in {leg.pool}"
                )
            book(LegFlow(number, leg, amount_in, amount_in))
            continue
        before = now.get(leg.pool)
        if before is None:
            return ended(f"leg {number}: pool {leg.pool} is not in the snapshot")
        if {leg.token_in, leg.token_out} != {before.token0, before.token1}:
            return ended(f"leg {number}: pool {leg.pool} does not trade these tokens")
        if amount_in <= 0:
            return ended(f"leg {number}: nothing to spend")
        try:
            swapped = before.swap(leg.token_in, amount_in)
        except (Refused, ValueError, ArithmeticError) as error:
            return ended(f"leg {number}: {error}")
        if swapped.amount_in_raw != amount_in:
            return ended(
                f"leg {number}: pool {leg.pool} takes only {swapped.amount_in_raw} of {amount_in}"
            )
        if swapped.amount_out_raw <= 0:
            return ended(f"leg {number}: pool {leg.pool} pays nothing for {amount_in}")
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
    return ended(None)


@dataclass(frozen=True, slots=True)
class SimulatedAction:
    """One simulated action: liquidity and base units of (token0, token1), separate fees, and the
    book after it. `least` are the lowest minimums by reference prices. `price` is the pool's.
    """

    number: int
    action: LpAction
    before: PositionBook
    after: PositionBook
    liquidity: int
    amounts: Amounts
    fees: Amounts
    least: Amounts
    price: Fraction | None

    @property
    def value(self) -> Fraction:
        """Return the value moved, at reference prices."""
        return self.before.value(
            self.action, (self.amounts[0] + self.fees[0], self.amounts[1] + self.fees[1])
        )

    @property
    def off(self) -> Fraction | None:
        """Return the pool's relative deviation from the reference."""
        return None if self.price is None else abs(self.price / self.before.ratio(self.action) - 1)


@dataclass(frozen=True, slots=True)
class LpReplay:
    """All actions, and the book after them; with a `fault`, the inconsistency of an action, the
    rest is meaningless.
    """

    runs: tuple[SimulatedAction, ...]
    after: PositionBook
    fault: str | None


def replay_actions(book: PositionBook, actions: tuple[LpAction, ...]) -> LpReplay:
    """Replay the actions on the snapshot's positions and pools with the contracts' arithmetic."""
    runs: list[SimulatedAction] = []
    for number, action in enumerate(actions):
        try:
            run = _run(number, action, book)
        except Refused as why:
            return LpReplay(tuple(runs), book, f"action {number}: {why.message}")
        runs.append(run)
        book = run.after
    return LpReplay(tuple(runs), book, None)


def worst_overpayment_share(run: SimulatedAction, limits: Limits) -> Fraction:
    """Return the largest cost of the provided liquidity above its value, per unit of value, within
    the band of its minimums.
    """
    if not isinstance(run.action, Provide):
        return Fraction(0)
    within, ratio = (
        None if run.action.ticks is None else minting.sqrt_price_range(run.action.ticks),
        run.before.ratio(run.action),
    )
    return minting.max_overpayment(
        within,
        ratio,
        minting.widest_band_bps(within, ratio, band_bps(limits) or 0, limits.slippage_bps),
    )


def _run(number: int, action: LpAction, book: PositionBook) -> SimulatedAction:
    unpriced = [token for token in (action.token0, action.token1) if book.prices.get(token, 0) <= 0]
    if unpriced:
        raise Refused(f"no reference price of {unpriced[0]}")
    match action:
        case Withdraw():
            one, position = _own(book, action)
            if not 0 < action.liquidity <= position.liquidity:
                raise Refused(
                    f"{action.name} has {position.liquidity} of liquidity, not {action.liquidity}"
                )
            amounts, fees, least = (
                positions.principal(position, action.liquidity),
                positions.uncollected_fees(position),
                least_amounts_in_book(book, action),
            )
            after = book.taken(one, action.liquidity, action.min_raw)
            return SimulatedAction(
                number,
                action,
                book,
                after,
                action.liquidity,
                amounts,
                fees,
                least,
                positions.pool_price(position),
            )
        case Collect():
            one, position = _own(book, action)
            fees = positions.uncollected_fees(position)
            return SimulatedAction(
                number,
                action,
                book,
                book.collected(one),
                0,
                (0, 0),
                fees,
                (0, 0),
                positions.pool_price(position),
            )
        case Provide():
            return _provided(number, action, book)


def _provided(number: int, action: Provide, book: PositionBook) -> SimulatedAction:
    target = next(
        (wanted for wanted in book.step.portfolio.lp_targets if wanted.pool == action.pool), None
    )
    if (
        target is None
        or _identity(target) != _identity(action)
        or target.fee_pips != action.fee_pips
    ):
        raise Refused(f"no liquidity target of this kind names {action.pool}")
    pool = next((found for found in book.step.snapshot.pools if found.address == action.pool), None)
    if pool is None:
        raise Refused(f"pool {action.pool} is not in the snapshot")
    price = pools.marginal_price(pool, pool.token0) if pool.has_price else None
    at = pool.tick_state
    if (at is None) != (action.ticks is None):
        raise Refused(f"{action.pool} and a range do not go together")
    if at is not None and action.ticks is not None:
        within = _range(action.ticks, pool.address, at.spacing)
        liquidity, amounts = minting.provided_liquidity(
            None, at.sqrt_price_x96, within, action.desired_raw
        )
        if action.token_id is None:
            after = book.minted(
                target, positions.new_position(target, at, action.ticks, liquidity), amounts
            )
        else:
            one, position = _own(book, action)
            if (
                not isinstance(position, LpV3Position)
                or (position.tick_lower, position.tick_upper) != action.ticks
            ):
                raise Refused(f"{action.name} does not have the range {action.ticks}")
            after = book.put(one, liquidity, amounts)
    else:
        one, position = _own(book, action)
        liquidity, amounts = minting.provided_liquidity(
            position if isinstance(position, LpV2Position) else None, 0, None, action.desired_raw
        )
        after = book.put(one, liquidity, amounts)
    if liquidity <= 0:
        raise Refused("it provides nothing")
    return SimulatedAction(
        number,
        action,
        book,
        after,
        liquidity,
        amounts,
        (0, 0),
        least_amounts_in_book(book, action),
        price,
    )


def _own(
    book: PositionBook, action: LpAction
) -> tuple[ConfirmedPosition, LpV2Position | LpV3Position]:
    """Return the confirmed position that an action names, if its state matches the action."""
    for one, position in book.pairs:
        if one.name == action.name and isinstance(position, LpV2Position | LpV3Position):
            pool = position.pair if isinstance(position, LpV2Position) else position.pool
            if (one.venue, one.contract, one.token0, one.token1, pool) != (
                *_identity(action),
                action.pool,
            ):
                break
            return one, position
    raise Refused(f"{action.name} is not a confirmed position in {action.pool}")


def _identity(of: LpAction | LpTarget) -> tuple[str, str, str, str]:
    return of.venue, of.contract, of.token0, of.token1


def _range(ticks: Amounts, pool: str, spacing: int) -> minting.SqrtPriceRange:
    if not MIN_TICK <= ticks[0] < ticks[1] <= MAX_TICK or ticks[0] % spacing or ticks[1] % spacing:
        raise Refused(f"{ticks} is no range of {pool}")
    return minting.sqrt_price_range(ticks)
