"""Replay of liquidity actions on the positions and pools of the snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import minting, position_changes, positions, slippage
from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.errors import Refused
from agent.layers.liquidity.policy.book import (
    Amounts,
    PositionBook,
    TickRange,
    max_pool_deviation_bps,
)
from agent.layers.liquidity.policy.minimums import minimum_amounts_in_book
from agent.model import (
    Collect,
    ConfirmedPosition,
    Limits,
    LpAction,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Provide,
    Withdraw,
)


@dataclass(frozen=True, slots=True)
class SimulatedAction:
    """Simulation of one liquidity action: liquidity, base units of (token0, token1) without fees,
    the fees, and the positions after it. `lowest_minimums` are the lowest allowed minimums at
    reference prices. `pool_price` is the pool's price (None: no price). `number` counts actions
    from 1.
    """

    number: int
    action: LpAction
    book_before: PositionBook
    book_after: PositionBook
    liquidity: int
    amounts: Amounts
    fees: Amounts
    lowest_minimums: Amounts
    pool_price: Fraction | None

    @property
    def minimums(self) -> Amounts:
        """Return the minimums of the action; a collect has none."""
        return (0, 0) if isinstance(self.action, Collect) else self.action.min_raw

    @property
    def value(self) -> Fraction:
        """Return the value moved, at reference prices."""
        return self.book_before.pair_value(
            self.action, (self.amounts[0] + self.fees[0], self.amounts[1] + self.fees[1])
        )

    @property
    def pool_deviation(self) -> Fraction | None:
        """Return the pool's relative deviation from the reference."""
        return (
            None
            if self.pool_price is None
            else abs(self.pool_price / self.book_before.reference_price(self.action) - 1)
        )


@dataclass(frozen=True, slots=True)
class LpReplay:
    """All simulated actions and the positions after them. `fault` is the reason why an action
    failed (None: complete), which makes the rest meaningless.
    """

    simulations: tuple[SimulatedAction, ...]
    book_after: PositionBook
    fault: str | None


def replay_actions(book: PositionBook, actions: tuple[LpAction, ...]) -> LpReplay:
    """Replay the actions on the snapshot's positions and pools with the contracts' arithmetic."""
    simulations: list[SimulatedAction] = []
    for action_number, action in enumerate(actions, 1):
        try:
            simulation = _simulate(action_number, action, book)
        except Refused as refusal:
            return LpReplay(tuple(simulations), book, f"action {action_number}: {refusal.message}")
        simulations.append(simulation)
        book = simulation.book_after
    return LpReplay(tuple(simulations), book, None)


def worst_overpayment_share(simulation: SimulatedAction, limits: Limits) -> Fraction:
    """Return the largest overpayment, per unit of value, within the band of prices that the limits
    accept: what minimums of provided liquidity allow that the guard fair_floor passes.
    """
    if not isinstance(simulation.action, Provide):
        return Fraction(0)
    ticks = simulation.action.ticks
    reference_price = simulation.book_before.reference_price(simulation.action)
    sqrt_range = minting.optional_sqrt_range(ticks)
    widest_band_bps = slippage.widest_band_bps(
        sqrt_range, reference_price, max_pool_deviation_bps(limits) or 0, limits.slippage_bps
    )
    return slippage.max_overpayment(sqrt_range, reference_price, widest_band_bps)


def _simulate(action_number: int, action: LpAction, book: PositionBook) -> SimulatedAction:
    unpriced_tokens = [
        token for token in (action.token0, action.token1) if book.prices.get(token, 0) <= 0
    ]
    if unpriced_tokens:
        raise Refused(f"no reference price of {unpriced_tokens[0]}")
    match action:
        case Withdraw():
            confirmed_position, position = _confirmed_position(book, action)
            if not 0 < action.liquidity <= position.liquidity:
                raise Refused(
                    f"{action.name} has {position.liquidity} of liquidity, not {action.liquidity}"
                )
            amounts = positions.principal(position, action.liquidity)
            fees = positions.uncollected_fees(position)
            lowest_minimums = minimum_amounts_in_book(book, action)
            book_after = book.after_withdrawal(confirmed_position, action.liquidity, action.min_raw)
            return SimulatedAction(
                action_number,
                action,
                book,
                book_after,
                action.liquidity,
                amounts,
                fees,
                lowest_minimums,
                positions.pool_price(position),
            )
        case Collect():
            confirmed_position, position = _confirmed_position(book, action)
            fees = positions.uncollected_fees(position)
            return SimulatedAction(
                action_number,
                action,
                book,
                book.after_collection(confirmed_position),
                0,
                (0, 0),
                fees,
                (0, 0),
                positions.pool_price(position),
            )
        case Provide():
            return _simulate_provision(action_number, action, book)


def _simulate_provision(action_number: int, action: Provide, book: PositionBook) -> SimulatedAction:
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
    pool = next(
        (candidate for candidate in book.step.snapshot.pools if candidate.address == action.pool),
        None,
    )
    if pool is None:
        raise Refused(f"pool {action.pool} is not in the snapshot")
    price = pools.marginal_price(pool, pool.token0) if pool.has_price else None
    tick_state = pool.tick_state
    if (tick_state is None) != (action.ticks is None):
        raise Refused(f"{action.pool}: a V3 pool needs a range, a V2 pair has none")
    if tick_state is not None and action.ticks is not None:
        sqrt_range = _sqrt_range(action.ticks, pool.address, tick_state.spacing)
        liquidity, amounts = minting.provided_liquidity(
            None, tick_state.sqrt_price_x96, sqrt_range, action.desired_raw
        )
        if action.token_id is None:
            book_after = book.after_mint(
                target,
                position_changes.new_position(target, tick_state, action.ticks, liquidity),
                amounts,
            )
        else:
            confirmed_position, position = _confirmed_position(book, action)
            if (
                not isinstance(position, LpV3Position)
                or (position.tick_lower, position.tick_upper) != action.ticks
            ):
                raise Refused(f"{action.name} does not have the range {action.ticks}")
            book_after = book.after_provision(confirmed_position, liquidity, amounts)
    else:
        confirmed_position, position = _confirmed_position(book, action)
        liquidity, amounts = minting.provided_liquidity(
            position if isinstance(position, LpV2Position) else None, 0, None, action.desired_raw
        )
        book_after = book.after_provision(confirmed_position, liquidity, amounts)
    if liquidity <= 0:
        raise Refused("it provides no liquidity")
    return SimulatedAction(
        action_number,
        action,
        book,
        book_after,
        liquidity,
        amounts,
        (0, 0),
        minimum_amounts_in_book(book, action),
        price,
    )


def _confirmed_position(
    book: PositionBook, action: LpAction
) -> tuple[ConfirmedPosition, LpV2Position | LpV3Position]:
    """Return the confirmed position of an action. Raises Refused if it does not match the
    action.
    """
    for confirmed_position, position in book.position_states:
        if confirmed_position.name == action.name and isinstance(
            position, LpV2Position | LpV3Position
        ):
            pool_address = position.pair if isinstance(position, LpV2Position) else position.pool
            if (*_identity(confirmed_position), pool_address) != (*_identity(action), action.pool):
                break
            return confirmed_position, position
    raise Refused(f"{action.name} is not a confirmed position in {action.pool}")


def _identity(
    position_or_action: ConfirmedPosition | LpAction | LpTarget,
) -> tuple[str, str, str, str]:
    return (
        position_or_action.venue,
        position_or_action.contract,
        position_or_action.token0,
        position_or_action.token1,
    )


def _sqrt_range(ticks: TickRange, pool_address: str, tick_spacing: int) -> minting.SqrtPriceRange:
    if (
        not MIN_TICK <= ticks[0] < ticks[1] <= MAX_TICK
        or ticks[0] % tick_spacing
        or ticks[1] % tick_spacing
    ):
        raise Refused(f"{ticks} is not a valid range of {pool_address}")
    return minting.sqrt_price_range(ticks)
