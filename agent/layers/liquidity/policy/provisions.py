"""Provision of liquidity within budget, weight, balances and gas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import action_gas, impermanent_loss, minting, position_changes, positions
from agent.layers.liquidity.policy.book import (
    Amounts,
    PositionBook,
    band_bps,
    liquidity_limits,
)
from agent.layers.liquidity.policy.moves import PlannedMove, ProvideMove
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, Pool, SkippedItem
from agent.units import BPS, Value, floor_int, value_text

EXIT_TARGET_SHARE = Fraction(95, 100)
"""Fraction of a limit down to which a withdrawal goes; above it no liquidity is added."""


def book_after_withdrawal(
    book: PositionBook,
    one: ConfirmedPosition,
    position: LpV2Position | LpV3Position,
    liquidity: int,
) -> PositionBook:
    """Return the book after the withdrawal, with the guaranteed minimums received."""
    least = action_gas.withdrawal_minimums(
        position, liquidity, book.ratio(one), band_bps(book.step.limits) or 0
    )
    return book.after_withdrawal(one, liquidity, least)


APPROVALS = 2
"""Number of approvals of a provision: both tokens, exact, each time."""
NEAR = 1_000_000
"""Inverse of the largest relative distance below its approval at which an amount is raised to it.
"""


@dataclass
class AdjustmentBuilder:
    """Builder of an adjustment: book after the moves so far, moves, and skipped items with
    reasons.
    """

    book: PositionBook
    gas_unit_value: Value
    moves: list[PlannedMove] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    skipped: list[SkippedItem] = field(default_factory=list)

    def skip(self, target: LpTarget, why: str) -> None:
        """Record a skipped target, or a skipped part of it, with the reason."""
        self.skipped.append(SkippedItem(target_label(target), why))

    def worth_it(
        self, value: Value, units: int, approvals: int = 0, skew: Value = Fraction(0)
    ) -> str:
        """Return why a move of this value is too small or too expensive; empty if it is worth it.
        `approvals` is the number that it needs first, `skew` the cost of a pool off the reference.
        Gas already spent on this step's approvals does not count.
        """
        limits = self.book.step.limits
        units += 0 if self.book.step.progress.spend_caps else approvals * action_gas.APPROVE_UNITS
        cost = units * self.gas_unit_value + skew
        if limits.min_trade is not None and value < limits.min_trade:
            return (
                f"{self.money(value)} to move, limits.min_trade is {self.money(limits.min_trade)}"
            )
        if limits.plan_cost_bps is not None and cost * BPS > limits.plan_cost_bps * value:
            what = f"gas of {self.money(cost)}"
            if skew * BPS > value:
                what = (
                    f"a cost of {self.money(cost)}, {self.money(skew)} of it "
                    "because the pool is off the reference,"
                )
            return (
                f"{what} for {self.money(value)} is above limits.plan_cost of"
                f" {limits.plan_cost_bps} bps"
            )
        return ""

    def money(self, value: Value) -> str:
        """Format a value in whole coins of the numeraire."""
        numeraire = self.book.step.portfolio.numeraire
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"


def target_label(target: LpTarget) -> str:
    """Return a target's display name."""
    return f"liquidity in {target.pool}"


def add_liquidity(
    builder: AdjustmentBuilder,
    target: LpTarget,
    pool: Pool,
    own: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]],
    value: Value,
    reason: str,
) -> bool:
    """Provide up to a value, to the largest position of `own` or else a new one. Return True if
    liquidity is provided.
    """
    book = builder.book
    place = _place(book, target, pool, own)
    if isinstance(place, str):
        builder.skip(target, place)
        return False
    position, ticks = place
    within = minting.price_range(ticks)
    band = action_gas.widest_band_bps(
        within, book.ratio(target), band_bps(book.step.limits) or 0, book.step.limits.slippage_bps
    )
    value, bound = _allowed(book, target, within, value)
    desired, short = _desired(book, target, pool, within, value)
    desired = _taken_whole(book, pool, position, ticks, desired)
    amounts = quote_provision(book, pool, position, ticks, desired)[1]
    moved = book.value(target, amounts)
    after = book_after_provision(book, target, pool, position, ticks, desired)
    units = provision_gas_units(within, position)
    skew = Fraction(0) if after is None else book.overpayment(target, amounts, after)
    why_not = _unsafe(book, target, pool, within, band) or builder.worth_it(
        moved, units, APPROVALS, skew
    )
    if not why_not and after is None:
        why_not = "the amounts give no liquidity, or more than a pool can hold"
    elif (
        not why_not
        and after is not None
        and not after.exposure().within(liquidity_limits(book.step.limits))
    ):
        why_not = "it would exceed limits.impermanent_loss or limits.lp_max_weight"
    for why in (bound, short, why_not):
        if why:
            builder.skip(target, why)
    if why_not or after is None:
        return False
    message = f"{reason}: {builder.money(moved)} provided"
    builder.moves.append(ProvideMove(target, position, ticks, desired, message))
    builder.reasons.append(message)
    builder.book = after
    return True


def provision_gas_units(
    within: minting.SqrtPriceRange | None, position: ConfirmedPosition | None
) -> int:
    """Return the gas units of a provision: to a pair, to a new range, or to an existing one."""
    if within is None:
        return action_gas.V2_ADD_UNITS
    if position is None:
        return action_gas.V3_MINT_UNITS
    return action_gas.V3_INCREASE_UNITS


def quote_provision(
    book: PositionBook,
    pool: Pool,
    one: ConfirmedPosition | None,
    ticks: Amounts | None,
    desired: Amounts,
) -> tuple[int, Amounts]:
    """Return liquidity and base units of a provision of `desired` now; (0, (0, 0)) if nothing can
    be provided.
    """
    if (at := pool.tick_state) is not None:
        if ticks is None:
            return 0, (0, 0)
        return minting.provided_liquidity(
            None, at.sqrt_price_x96, minting.sqrt_price_range(ticks), desired
        )
    pair = None if one is None else book.state_of(one)
    if isinstance(pair, LpV2Position):
        return minting.provided_liquidity(pair, 0, None, desired)
    return (0, (0, 0))


def _place(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    own: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]],
) -> tuple[ConfirmedPosition | None, Amounts | None] | str:
    """Return the position to increase or the ticks of a new one; or why there is none."""
    if pool.tick_state is None:
        pairs = [
            (confirmed, position)
            for confirmed, position in book.pairs
            if isinstance(position, LpV2Position) and position.pair == target.pool
        ]
        if pairs:
            return (pairs[0][0], None)
        return "the wallet's account of the pair was not read"
    ranges = [
        (confirmed_position, position)
        for confirmed_position, position in own
        if isinstance(position, LpV3Position)
    ]
    if ranges:
        chosen, largest = max(ranges, key=lambda pair: pair[1].liquidity)
        return chosen, (largest.tick_lower, largest.tick_upper)
    if target.width_bps is None or target.tick_spacing is None:
        return "a new range needs a width"
    return None, minting.range_around(book.ratio(target), target.width_bps, target.tick_spacing)


def _allowed(
    book: PositionBook, target: LpTarget, within: minting.SqrtPriceRange | None, value: Value
) -> tuple[Value, str]:
    """Return the part of `value` that fits budget and largest weight, and the limit that binds."""
    load = book.exposure()
    exit_limits = liquidity_limits(book.step.limits).scaled(EXIT_TARGET_SHARE)
    message = ""
    if (
        exit_limits.weight is not None
        and (room := max(Fraction(0), exit_limits.weight * load.total - load.weight)) < value
    ):
        value, message = room, "limits.lp_max_weight allows no more"
    rate = _loss_rate(book, target, within)
    if (
        exit_limits.loss is not None
        and rate > 0
        and (room := max(Fraction(0), exit_limits.loss * load.total - load.loss) / rate) < value
    ):
        value, message = room, "limits.impermanent_loss allows no more"
    return value, message


def _loss_rate(
    book: PositionBook, target: LpTarget, within: minting.SqrtPriceRange | None
) -> Fraction:
    """Return the mean loss over the horizon per unit of value provided."""
    if within is None:
        curve = impermanent_loss.V2_CURVE
    else:
        now_x96 = positions.sqrt_price_x96(book.ratio(target))
        curve = impermanent_loss.LiquidityCurve(within[0] / now_x96, within[1] / now_x96)
    return impermanent_loss.expected_loss(curve, target.volatility_bps, target.horizon_s)


def _desired(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    within: minting.SqrtPriceRange | None,
    value: Value,
) -> tuple[Amounts, str]:
    """Return base units of both tokens in the pool's ratio, worth `value` at reference prices or
    capped by balance, and the limit that binds.
    """
    if (at := pool.tick_state) is not None:
        unit = minting.mint_amounts(
            at.sqrt_price_x96, within or (0, 0), action_gas.REFERENCE_LIQUIDITY
        )
    else:
        unit = pool.depth(pool.token0), pool.depth(pool.token1)
    worth = book.value(target, unit)
    sides = value / worth
    part, short = sides, ""
    for token, amount in zip((target.token0, target.token1), unit, strict=True):
        if amount > 0 and (most := Fraction(book.spendable(token), amount)) < part:
            part = most
            short = f"the wallet has no spendable {book.step.portfolio.token(token).label} left"
    return (floor_int(unit[0] * part), floor_int(unit[1] * part)), short


def _taken_whole(
    book: PositionBook,
    pool: Pool,
    one: ConfirmedPosition | None,
    ticks: Amounts | None,
    desired: Amounts,
) -> Amounts:
    """Return `desired` without the part that rounding would leave unused, so that no allowance
    remains to be revoked. For the same reason an amount up to a millionth below this step's
    approval is raised to it.
    """
    caps = dict(book.step.progress.spend_caps)

    def near(token: str, raw: int) -> int:
        most = min(caps.get(token, raw), book.spendable(token))
        if raw < most <= raw + raw // NEAR:
            return most
        return raw

    desired = near(pool.token0, desired[0]), near(pool.token1, desired[1])
    for _ in range(3):
        liquidity, amounts = quote_provision(book, pool, one, ticks, desired)
        if liquidity <= 0 or amounts == desired:
            break
        desired = (min(desired[0], amounts[0]), min(desired[1], amounts[1]))
    return desired


def _unsafe(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    within: minting.SqrtPriceRange | None,
    band: int,
) -> str:
    """Return why the pool is unsafe for provision now; empty if it is safe."""
    price = pools.marginal_price(pool, pool.token0)
    if not action_gas.is_within_band(price, book.ratio(target), band):
        return (
            f"the pool is more than {band} bps off the reference, where limits.slippage "
            "no longer bounds the cost of liquidity"
        )
    at = pool.tick_state
    if within is not None and at is not None and not within[0] < at.sqrt_price_x96 < within[1]:
        return "the pool's price is outside the range"
    least = book.step.limits.pool_min_value
    if least is not None:
        depth = sum(
            (pool.depth(token) * book.prices[token] for token in (pool.token0, pool.token1)),
            Fraction(0),
        )
        if depth < least:
            return "the pool holds less than limits.pool_min_value"
    return ""


def book_after_provision(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    one: ConfirmedPosition | None,
    ticks: Amounts | None,
    desired: Amounts,
) -> PositionBook | None:
    """Return the book after provision; None if no liquidity would be provided."""
    liquidity, amounts = quote_provision(book, pool, one, ticks, desired)
    if liquidity <= 0 or min(desired) <= 0:
        return None
    if one is not None:
        return book.after_provision(one, liquidity, amounts)
    if (at := pool.tick_state) is not None and ticks is not None:
        return book.after_mint(
            target, position_changes.new_position(target, at, ticks, liquidity), amounts
        )
    return None
