"""Withdrawals to the limits of loss and weight, at reference prices alone (T3). Order: loss avoided
per unit of cost. The loss is the mean impermanent loss over the horizon. The cost is gas, plus
forgone earnings of liquidity in range. Future fees cannot be known from one block; in a balanced
market they offset the loss of every position equally (Milionis et al. 2022), so limits.plan_cost
of the value stands in for them, so that of positions with equal loss those out of range, which cost
gas alone, go first. Amounts that need a collection alone go before all withdrawals. The last
position is withdrawn only until both sums reach LIMIT_GOAL_SHARE of their limits, so that a small
price move needs no further withdrawal.
"""

from __future__ import annotations

from fractions import Fraction

from agent.amm.lp import action_gas, impermanent_loss, positions
from agent.layers.liquidity.policy.book import (
    LiquidityExposure,
    LiquidityLimits,
    PositionBook,
    liquidity_limits,
    price_deviation_reason,
)
from agent.layers.liquidity.policy.moves import (
    NO_ADJUSTMENT,
    CollectMove,
    LiquidityAdjustment,
    WithdrawMove,
)
from agent.layers.liquidity.policy.provisions import (
    LIMIT_GOAL_SHARE,
    book_after_withdrawal,
)
from agent.layers.liquidity.policy.targets import (
    WITHDRAWAL_FAILED_REASON,
)
from agent.layers.liquidity.state import liquidity_progress
from agent.model import (
    ConfirmedPosition,
    LpPosition,
    LpV2Position,
    LpV3Position,
    SkippedItem,
)
from agent.units import BPS, Value, ceil_int, format_percent

DEFAULT_FORGONE_BPS = 50
"""Forgone earnings in bps if limits.plan_cost is off."""


def withdraw_to_limits(book: PositionBook, gas_unit_value: Value) -> LiquidityAdjustment:
    """Return withdrawals that satisfy both limits; NO_ADJUSTMENT if they hold.

    `gas_unit_value` is the value of a unit of gas.
    """
    limits = liquidity_limits(book.step.limits)
    exposure = book.exposure()
    if exposure.is_within(limits):
        return NO_ADJUSTMENT
    exceeded_text = format_exceeded_limits(exposure, limits)
    goal_limits = limits.scaled(LIMIT_GOAL_SHARE)
    moves: list[WithdrawMove | CollectMove] = []
    skipped_items: list[SkippedItem] = []
    for confirmed_position, position in sorted(
        book.position_states,
        key=lambda confirmed_and_position: (
            _has_fees_alone(confirmed_and_position[1]),
            _loss_per_cost(
                book, confirmed_and_position[0], confirmed_and_position[1], gas_unit_value
            ),
        ),
        reverse=True,
    ):
        if book.exposure().is_within(goal_limits):
            break
        if _pool_address(position) in liquidity_progress(book.step).failed_withdrawal_pools:
            skipped_items.append(
                SkippedItem(confirmed_position.name, f"not withdrawn: {WITHDRAWAL_FAILED_REASON}")
            )
            continue
        if isinstance(position, LpV3Position) and _has_fees_alone(position):
            if (
                book.pair_value(confirmed_position, positions.uncollected_fees(position))
                > action_gas.V3_COLLECT_UNITS * gas_unit_value
            ):
                # dust alone cannot exceed a limit
                moves.append(
                    CollectMove(
                        confirmed_position, position, f"{exceeded_text}: its uncollected amounts"
                    )
                )
                book = book.after_collection(confirmed_position)
            continue
        if not isinstance(position, LpV2Position | LpV3Position) or position.liquidity == 0:
            continue
        deviation_reason = price_deviation_reason(
            book.step.limits,
            positions.pool_price(position),
            book.reference_price(confirmed_position),
        )
        if deviation_reason:
            skipped_items.append(
                SkippedItem(confirmed_position.name, f"not withdrawn: {deviation_reason}")
            )
            continue
        liquidity = _liquidity_to_withdraw(book, confirmed_position, position, goal_limits)
        if liquidity == 0:
            skipped_items.append(
                SkippedItem(
                    confirmed_position.name, "not withdrawn: this step has approved none of it"
                )
            )
            continue
        if liquidity == position.liquidity:
            part_text = "all"
        else:
            part_text = format_percent(Fraction(liquidity, position.liquidity))
        moves.append(
            WithdrawMove(
                confirmed_position, position, liquidity, f"{exceeded_text}: {part_text} of it"
            )
        )
        book = book_after_withdrawal(book, confirmed_position, position, liquidity)
    move_texts = [
        f"{'collect' if isinstance(move, CollectMove) else 'withdraw'} {move.confirmed_position.name}"
        for move in moves
    ]
    moves_text = ", ".join(move_texts) or "no withdrawal is possible now"
    return LiquidityAdjustment(
        tuple(moves),
        f"{exceeded_text}: {moves_text}",
        tuple(skipped_items),
        exceeds_limit=True,
    )


def format_exceeded_limits(exposure: LiquidityExposure, limits: LiquidityLimits) -> str:
    """Format the exceeded limits with their numbers."""
    limit_texts = []
    if exposure.exceeds_loss(limits) and limits.loss is not None:
        limit_texts.append(
            f"expected loss {_share_text(exposure.loss, exposure)} above limits.impermanent_loss"
            f" {format_percent(limits.loss)}"
        )
    if exposure.exceeds_weight(limits) and limits.weight is not None:
        limit_texts.append(
            f"liquidity {_share_text(exposure.value, exposure)} above limits.lp_max_weight"
            f" {format_percent(limits.weight)}"
        )
    return " and ".join(limit_texts)


def _liquidity_to_withdraw(
    book: PositionBook,
    confirmed_position: ConfirmedPosition,
    position: LpV2Position | LpV3Position,
    goal_limits: LiquidityLimits,
) -> int:
    """Return the least liquidity of a position, worth at least min_trade, that brings both sums to
    the target; all of it if that is insufficient.
    """
    available_liquidity = _within_spend_cap(book, confirmed_position, position.liquidity)
    position_value = book.value_without_fees(confirmed_position, position)
    min_value = book.step.limits.min_trade or Fraction(0)
    if position_value > 0:
        low_liquidity = min(
            available_liquidity, max(1, ceil_int(position.liquidity * min_value / position_value))
        )
    else:
        low_liquidity = available_liquidity
    if (
        not book_after_withdrawal(book, confirmed_position, position, available_liquidity)
        .exposure()
        .is_within(goal_limits)
    ):
        return available_liquidity
    high_liquidity = available_liquidity
    if (
        book_after_withdrawal(book, confirmed_position, position, low_liquidity)
        .exposure()
        .is_within(goal_limits)
    ):
        high_liquidity = low_liquidity
    # Loss and value are proportional to liquidity, so a precision of one thousandth is enough.
    while high_liquidity - low_liquidity > max(1, available_liquidity // 1_000):
        middle_liquidity = (low_liquidity + high_liquidity) // 2
        low_liquidity, high_liquidity = (
            (low_liquidity, middle_liquidity)
            if book_after_withdrawal(book, confirmed_position, position, middle_liquidity)
            .exposure()
            .is_within(goal_limits)
            else (middle_liquidity, high_liquidity)
        )
    remaining_value = position_value * (available_liquidity - high_liquidity) / position.liquidity
    # A partial withdrawal collects all fees, but only principal gives it a minimum amount.
    gives_no_principal = max(positions.principal(position, high_liquidity)) == 0
    # A remainder below min_trade, of the position or of what was approved, would not pay for a
    # transaction of its own, here or to take the approval back.
    return (
        available_liquidity if gives_no_principal or remaining_value < min_value else high_liquidity
    )


def _within_spend_cap(
    book: PositionBook, confirmed_position: ConfirmedPosition, liquidity: int
) -> int:
    """Return the liquidity, capped at this step's approval for LP tokens of a pair, which the
    router spends.
    """
    if confirmed_position.token_id is not None:
        return liquidity
    return min(
        liquidity, dict(book.step.progress.spend_caps).get(confirmed_position.contract, liquidity)
    )


def _has_fees_alone(position: LpPosition) -> bool:
    """Return whether a position has no principal, so that a collection is all that is left."""
    return isinstance(position, LpV3Position) and max(positions.principal(position)) == 0


def _pool_address(position: LpPosition) -> str | None:
    match position:
        case LpV2Position():
            return position.pair
        case LpV3Position():
            return position.pool
        case _:
            return None


def _loss_per_cost(
    book: PositionBook,
    confirmed_position: ConfirmedPosition,
    position: LpPosition,
    gas_unit_value: Value,
) -> Fraction:
    """Return the loss avoided per unit of cost; larger goes first."""
    price0 = book.prices[confirmed_position.token0]
    price1 = book.prices[confirmed_position.token1]
    curve = impermanent_loss.liquidity_curve(position, price0, price1)
    if curve is None:
        return Fraction(-1)
    position_value = book.value_without_fees(confirmed_position, position)
    avoided_loss = position_value * impermanent_loss.expected_loss(
        curve, confirmed_position.volatility_bps, confirmed_position.horizon_s
    )
    if isinstance(position, LpV2Position):
        gas_units = action_gas.V2_REMOVE_UNITS
    else:
        gas_units = action_gas.V3_WITHDRAW_UNITS
    plan_cost_bps = book.step.limits.plan_cost_bps
    if curve.in_range:
        forgone_earnings = (
            position_value * (DEFAULT_FORGONE_BPS if plan_cost_bps is None else plan_cost_bps) / BPS
        )
    else:
        forgone_earnings = Fraction(0)
    withdrawal_cost = gas_units * gas_unit_value + forgone_earnings
    return avoided_loss / withdrawal_cost if withdrawal_cost > 0 else avoided_loss


def _share_text(value: Value, exposure: LiquidityExposure) -> str:
    if exposure.portfolio_value > 0:
        return format_percent(value / exposure.portfolio_value)
    return "of nothing"
