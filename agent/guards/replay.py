"""Replay of a plan from the snapshot: legs on pools and wallet, actions on liquidity positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import minting, positions
from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.errors import Refused
from agent.layers.liquidity.policy.book import Amounts, PositionBook, band_bps
from agent.layers.liquidity.policy.minimums import least_amounts_in_book
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
from agent.units import NATIVE

# --- Replay of legs on the pools of the snapshot.


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


@dataclass(frozen=True, slots=True)
class SimulatedAction:
    """Simulation of one liquidity action: liquidity, base units of (token0, token1) without fees,
    the fees, and the positions after it. `least` are the lowest allowed minimums at reference
    prices. `price` is the pool's price (None: no price).
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
    """All simulated actions and the positions after them. `fault` is the reason why an action
    failed (None: complete), which makes the rest meaningless.
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
    """Return the largest overpayment, per unit of value, that the minimums of provided liquidity
    allow.
    """
    if not isinstance(run.action, Provide):
        return Fraction(0)
    ticks, ratio = run.action.ticks, run.before.ratio(run.action)
    within = minting.price_range(ticks)
    widest_bps = minting.widest_band_bps(within, ratio, band_bps(limits) or 0, limits.slippage_bps)
    return minting.max_overpayment(within, ratio, widest_bps)


def _run(number: int, action: LpAction, book: PositionBook) -> SimulatedAction:
    unpriced = [token for token in (action.token0, action.token1) if book.prices.get(token, 0) <= 0]
    if unpriced:
        raise Refused(f"no reference price of {unpriced[0]}")
    match action:
        case Withdraw():
            named, position = _own(book, action)
            if not 0 < action.liquidity <= position.liquidity:
                raise Refused(
                    f"{action.name} has {position.liquidity} of liquidity, not {action.liquidity}"
                )
            amounts, fees, least = (
                positions.principal(position, action.liquidity),
                positions.uncollected_fees(position),
                least_amounts_in_book(book, action),
            )
            after = book.taken(named, action.liquidity, action.min_raw)
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
            named, position = _own(book, action)
            fees = positions.uncollected_fees(position)
            return SimulatedAction(
                number,
                action,
                book,
                book.collected(named),
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
        (
            lp_target
            for lp_target in book.step.portfolio.lp_targets
            if lp_target.pool == action.pool
        ),
        None,
    )
    if (
        target is None
        or _identity(target) != _identity(action)
        or target.fee_pips != action.fee_pips
    ):
        raise Refused(f"no liquidity target of this kind has pool {action.pool}")
    pool = next((found for found in book.step.snapshot.pools if found.address == action.pool), None)
    if pool is None:
        raise Refused(f"pool {action.pool} is not in the snapshot")
    price = pools.marginal_price(pool, pool.token0) if pool.has_price else None
    at = pool.tick_state
    if (at is None) != (action.ticks is None):
        raise Refused(f"{action.pool}: a V3 pool needs a range, a V2 pair has none")
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
            named, position = _own(book, action)
            if (
                not isinstance(position, LpV3Position)
                or (position.tick_lower, position.tick_upper) != action.ticks
            ):
                raise Refused(f"{action.name} does not have the range {action.ticks}")
            after = book.put(named, liquidity, amounts)
    else:
        named, position = _own(book, action)
        liquidity, amounts = minting.provided_liquidity(
            position if isinstance(position, LpV2Position) else None, 0, None, action.desired_raw
        )
        after = book.put(named, liquidity, amounts)
    if liquidity <= 0:
        raise Refused("it provides no liquidity")
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
    """Return the confirmed position of an action. Raises Refused if it does not match the
    action.
    """
    for named, position in book.pairs:
        if named.name == action.name and isinstance(position, LpV2Position | LpV3Position):
            pool = position.pair if isinstance(position, LpV2Position) else position.pool
            if (*_identity(named), pool) != (*_identity(action), action.pool):
                break
            return named, position
    raise Refused(f"{action.name} is not a confirmed position in {action.pool}")


def _identity(of: ConfirmedPosition | LpAction | LpTarget) -> tuple[str, str, str, str]:
    return of.venue, of.contract, of.token0, of.token1


def _range(ticks: Amounts, pool: str, spacing: int) -> minting.SqrtPriceRange:
    if not MIN_TICK <= ticks[0] < ticks[1] <= MAX_TICK or ticks[0] % spacing or ticks[1] % spacing:
        raise Refused(f"{ticks} is not a valid range of {pool}")
    return minting.sqrt_price_range(ticks)
