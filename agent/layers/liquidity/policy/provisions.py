"""Provision of liquidity within budget, weight, balances and gas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import (
    action_gas,
    impermanent_loss,
    minting,
    position_changes,
    positions,
    slippage,
)
from agent.layers.liquidity.policy.book import (
    Amounts,
    PositionBook,
    TickRange,
    liquidity_limits,
    max_pool_deviation_bps,
)
from agent.layers.liquidity.policy.moves import PlannedMove, ProvideMove
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, Pool, SkippedItem
from agent.policy.minimum import ACTION_BYTES, APPROVAL_BYTES
from agent.units import BPS, Value, floor_int

LIMIT_GOAL_SHARE = Fraction(95, 100)
"""Fraction of a limit down to which a withdrawal goes; above it no liquidity is added."""


def book_after_withdrawal(
    book: PositionBook,
    confirmed_position: ConfirmedPosition,
    position: LpV2Position | LpV3Position,
    liquidity: int,
) -> PositionBook:
    """Return the book after the withdrawal, with the guaranteed minimums received."""
    minimums = slippage.withdrawal_minimums(
        position,
        liquidity,
        book.reference_price(confirmed_position),
        max_pool_deviation_bps(book.step.limits) or 0,
    )
    return book.after_withdrawal(confirmed_position, liquidity, minimums)


APPROVAL_COUNT = 2
"""Number of approvals of a provision: both tokens, exact, each time."""
CAP_TOLERANCE_DIVISOR = 1_000_000
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

    def not_worth_reason(
        self,
        moved_value: Value,
        gas_units: Sequence[int],
        approval_count: int = 0,
        skew: Value = Fraction(0),
    ) -> str:
        """Return why a move of this value is too small or too expensive; empty if it is worth it.
        `gas_units` are those of its actions, each a transaction, `approval_count` approvals are
        needed first, `skew` the cost of a pool off the reference. Approvals that this step has paid
        do not count.
        """
        step = self.book.step
        limits = step.limits
        if step.progress.spend_caps:
            approval_count = 0
        total_units = sum(gas_units) + approval_count * action_gas.APPROVE_UNITS
        data_fee_wei = step.snapshot.expected_fee_beyond_gas_wei(
            total_units, *[ACTION_BYTES] * len(gas_units), *[APPROVAL_BYTES] * approval_count
        )
        native_price = self.book.prices.get(step.portfolio.wrapped_native, Fraction(0))
        cost = total_units * self.gas_unit_value + data_fee_wei * native_price + skew
        if limits.min_trade is not None and moved_value < limits.min_trade:
            return f"{self.money_text(moved_value)} to move, limits.min_trade is {self.money_text(limits.min_trade)}"
        if limits.plan_cost_bps is not None and cost * BPS > limits.plan_cost_bps * moved_value:
            cost_text = f"gas of {self.money_text(cost)}"
            if skew * BPS > moved_value:
                cost_text = (
                    f"a cost of {self.money_text(cost)}, {self.money_text(skew)} of it "
                    "because the pool is off the reference,"
                )
            return (
                f"{cost_text} for {self.money_text(moved_value)} is above limits.plan_cost of"
                f" {limits.plan_cost_bps} bps"
            )
        return ""

    def money_text(self, value: Value) -> str:
        """Format a value in whole coins of the numeraire."""
        return self.book.step.portfolio.numeraire.money_text(value)


def target_label(target: LpTarget) -> str:
    """Return a target's display name."""
    return f"liquidity in {target.pool}"


def add_liquidity(
    builder: AdjustmentBuilder,
    target: LpTarget,
    pool: Pool,
    pool_positions: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]],
    max_value: Value,
    reason: str,
) -> bool:
    """Provide up to a value, to the largest position of `pool_positions` or else a new one. Return
    True if liquidity is provided.
    """
    book = builder.book
    position_or_reason = _position_to_grow(book, target, pool, pool_positions)
    if isinstance(position_or_reason, str):
        builder.skip(target, position_or_reason)
        return False
    existing_position, ticks = position_or_reason
    sqrt_range = minting.optional_sqrt_range(ticks)
    widest_band_bps = slippage.widest_band_bps(
        sqrt_range,
        book.reference_price(target),
        max_pool_deviation_bps(book.step.limits) or 0,
        book.step.limits.slippage_bps,
    )
    max_value, limit_reason = _cut_to_limits(book, target, sqrt_range, max_value)
    desired_raw, balance_reason = _affordable_amounts(book, target, pool, sqrt_range, max_value)
    desired_raw = _without_remainder(book, pool, existing_position, ticks, desired_raw)
    amounts_raw = quote_provision(book, pool, existing_position, ticks, desired_raw)[1]
    provided_value = book.pair_value(target, amounts_raw)
    book_after = book_after_provision(book, target, pool, existing_position, ticks, desired_raw)
    gas_units = provision_gas_units(sqrt_range, existing_position)
    skew = Fraction(0) if book_after is None else book.overpayment(target, amounts_raw, book_after)
    skip_reason = _unsafe_reason(
        book, target, pool, sqrt_range, widest_band_bps
    ) or builder.not_worth_reason(provided_value, (gas_units,), APPROVAL_COUNT, skew)
    if not skip_reason and book_after is None:
        skip_reason = "the amounts give no liquidity, or more than a pool can hold"
    elif (
        not skip_reason
        and book_after is not None
        and not book_after.exposure().is_within(liquidity_limits(book.step.limits))
    ):
        skip_reason = "it would exceed limits.impermanent_loss or limits.lp_max_weight"
    for reason_to_skip in (limit_reason, balance_reason, skip_reason):
        if reason_to_skip:
            builder.skip(target, reason_to_skip)
    if skip_reason or book_after is None:
        return False
    provision_text = f"{reason}: {builder.money_text(provided_value)} provided"
    builder.moves.append(ProvideMove(target, existing_position, ticks, desired_raw, provision_text))
    builder.reasons.append(provision_text)
    builder.book = book_after
    return True


def provision_gas_units(
    sqrt_range: minting.SqrtPriceRange | None, existing_position: ConfirmedPosition | None
) -> int:
    """Return the gas units of a provision: to a pair, to a new range, or to an existing one."""
    if sqrt_range is None:
        return action_gas.V2_ADD_UNITS
    if existing_position is None:
        return action_gas.V3_MINT_UNITS
    return action_gas.V3_INCREASE_UNITS


def quote_provision(
    book: PositionBook,
    pool: Pool,
    existing_position: ConfirmedPosition | None,
    ticks: TickRange | None,
    desired_raw: Amounts,
) -> tuple[int, Amounts]:
    """Return liquidity and base units of a provision of `desired_raw` now; (0, (0, 0)) if nothing
    can be provided.
    """
    if (tick_state := pool.tick_state) is not None:
        if ticks is None:
            return 0, (0, 0)
        return minting.provided_liquidity(
            None, tick_state.sqrt_price_x96, minting.sqrt_price_range(ticks), desired_raw
        )
    position = None if existing_position is None else book.position_state_of(existing_position)
    if isinstance(position, LpV2Position):
        return minting.provided_liquidity(position, 0, None, desired_raw)
    return (0, (0, 0))


def _position_to_grow(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    pool_positions: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]],
) -> tuple[ConfirmedPosition | None, TickRange | None] | str:
    """Return the position to increase or the ticks of a new one; or why there is none."""
    if pool.tick_state is None:
        pair_positions = [
            (confirmed_position, position)
            for confirmed_position, position in book.position_states
            if isinstance(position, LpV2Position) and position.pair == target.pool
        ]
        if pair_positions:
            return (pair_positions[0][0], None)
        return "the wallet's account of the pair was not read"
    range_positions = [
        (confirmed_position, position)
        for confirmed_position, position in pool_positions
        if isinstance(position, LpV3Position)
    ]
    if range_positions:
        largest_confirmed_position, largest_position = max(
            range_positions, key=lambda confirmed_and_position: confirmed_and_position[1].liquidity
        )
        return largest_confirmed_position, (
            largest_position.tick_lower,
            largest_position.tick_upper,
        )
    if target.width_bps is None or target.tick_spacing is None:
        return "a new range needs a width"
    return None, minting.range_around(
        book.reference_price(target), target.width_bps, target.tick_spacing
    )


def _cut_to_limits(
    book: PositionBook,
    target: LpTarget,
    sqrt_range: minting.SqrtPriceRange | None,
    wanted_value: Value,
) -> tuple[Value, str]:
    """Return the part of `wanted_value` that fits budget and largest weight, and the limit that
    binds.
    """
    exposure = book.exposure()
    goal_limits = liquidity_limits(book.step.limits).scaled(LIMIT_GOAL_SHARE)
    limit_reason = ""
    if (
        goal_limits.weight is not None
        and (
            max_added_value := max(
                Fraction(0), goal_limits.weight * exposure.portfolio_value - exposure.value
            )
        )
        < wanted_value
    ):
        wanted_value = max_added_value
        limit_reason = "limits.lp_max_weight allows no more"
    loss_rate = _loss_rate(book, target, sqrt_range)
    if (
        goal_limits.loss is not None
        and loss_rate > 0
        and (
            max_added_value := max(
                Fraction(0), goal_limits.loss * exposure.portfolio_value - exposure.loss
            )
            / loss_rate
        )
        < wanted_value
    ):
        wanted_value = max_added_value
        limit_reason = "limits.impermanent_loss allows no more"
    return wanted_value, limit_reason


def _loss_rate(
    book: PositionBook, target: LpTarget, sqrt_range: minting.SqrtPriceRange | None
) -> Fraction:
    """Return the mean loss over the horizon per unit of value provided."""
    if sqrt_range is None:
        curve = impermanent_loss.V2_CURVE
    else:
        sqrt_price_x96 = positions.sqrt_price_x96(book.reference_price(target))
        curve = impermanent_loss.LiquidityCurve(
            sqrt_range[0] / sqrt_price_x96, sqrt_range[1] / sqrt_price_x96
        )
    return impermanent_loss.expected_loss(curve, target.volatility_bps, target.horizon_s)


def _affordable_amounts(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    sqrt_range: minting.SqrtPriceRange | None,
    wanted_value: Value,
) -> tuple[Amounts, str]:
    """Return base units of both tokens in the pool's ratio, worth `wanted_value` at reference
    prices or capped by balance, and the limit that binds.
    """
    if (tick_state := pool.tick_state) is not None:
        unit_amounts_raw = minting.mint_amounts(
            tick_state.sqrt_price_x96, sqrt_range or (0, 0), slippage.REFERENCE_LIQUIDITY
        )
    else:
        unit_amounts_raw = pool.depth(pool.token0), pool.depth(pool.token1)
    unit_value = book.pair_value(target, unit_amounts_raw)
    requested_unit_count = wanted_value / unit_value
    unit_count = requested_unit_count
    balance_reason = ""
    for token, amount_raw in zip((target.token0, target.token1), unit_amounts_raw, strict=True):
        if (
            amount_raw > 0
            and (affordable_unit_count := Fraction(book.spendable_raw(token), amount_raw))
            < unit_count
        ):
            unit_count = affordable_unit_count
            balance_reason = (
                f"the wallet has no spendable {book.step.portfolio.token(token).label} left"
            )
    return (
        floor_int(unit_amounts_raw[0] * unit_count),
        floor_int(unit_amounts_raw[1] * unit_count),
    ), balance_reason


def _without_remainder(
    book: PositionBook,
    pool: Pool,
    existing_position: ConfirmedPosition | None,
    ticks: TickRange | None,
    desired_raw: Amounts,
) -> Amounts:
    """Return `desired_raw` without the part that rounding would leave unused, so that no allowance
    remains to be revoked. For the same reason an amount up to a millionth below this step's
    approval is raised to it.
    """
    cap_raw_by_token = dict(book.step.progress.spend_caps)

    def raised_to_cap(token: str, amount_raw: int) -> int:
        cap_raw = min(cap_raw_by_token.get(token, amount_raw), book.spendable_raw(token))
        if amount_raw < cap_raw <= amount_raw + amount_raw // CAP_TOLERANCE_DIVISOR:
            return cap_raw
        return amount_raw

    desired_raw = (
        raised_to_cap(pool.token0, desired_raw[0]),
        raised_to_cap(pool.token1, desired_raw[1]),
    )
    for _ in range(3):
        liquidity, amounts_raw = quote_provision(book, pool, existing_position, ticks, desired_raw)
        if liquidity <= 0 or amounts_raw == desired_raw:
            break
        desired_raw = (min(desired_raw[0], amounts_raw[0]), min(desired_raw[1], amounts_raw[1]))
    return desired_raw


def _unsafe_reason(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    sqrt_range: minting.SqrtPriceRange | None,
    widest_band_bps: int,
) -> str:
    """Return why the pool is unsafe for provision now; empty if it is safe."""
    spot_price = pools.marginal_price(pool, pool.token0)
    if not slippage.is_within_band(spot_price, book.reference_price(target), widest_band_bps):
        return (
            f"the pool is more than {widest_band_bps} bps off the reference, where limits.slippage "
            "no longer bounds the cost of liquidity"
        )
    tick_state = pool.tick_state
    if (
        sqrt_range is not None
        and tick_state is not None
        and not sqrt_range[0] < tick_state.sqrt_price_x96 < sqrt_range[1]
    ):
        return "the pool's price is outside the range"
    if not pools.is_deep_enough(pool, book.step.limits.pool_min_value, book.prices):
        return "the pool holds less than limits.pool_min_value"
    return ""


def book_after_provision(
    book: PositionBook,
    target: LpTarget,
    pool: Pool,
    existing_position: ConfirmedPosition | None,
    ticks: TickRange | None,
    desired_raw: Amounts,
) -> PositionBook | None:
    """Return the book after provision; None if no liquidity would be provided."""
    liquidity, amounts_raw = quote_provision(book, pool, existing_position, ticks, desired_raw)
    if liquidity <= 0 or min(desired_raw) <= 0:
        return None
    if existing_position is not None:
        return book.after_provision(existing_position, liquidity, amounts_raw)
    if (tick_state := pool.tick_state) is not None and ticks is not None:
        return book.after_mint(
            target, position_changes.new_position(target, tick_state, ticks, liquidity), amounts_raw
        )
    return None
