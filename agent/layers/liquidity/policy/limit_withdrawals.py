"""Withdrawals to the limits of loss and weight, at reference prices alone (T3). Order: loss avoided
per unit of cost. The loss is the mean impermanent loss over the horizon. The cost is gas, plus
forgone earnings of liquidity in range. Future fees cannot be known from one block; in a balanced
market they offset the loss of every position equally (Milionis et al. 2022), so limits.plan_cost
of the value stands in for them. Positions without earnings therefore go first, then those with
the highest loss per value. The last position is withdrawn only until both sums reach
EXIT_TARGET_SHARE of their limits, so that a small price move needs no further withdrawal.
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
    EXIT_TARGET_SHARE,
    book_after_withdrawal,
)
from agent.layers.liquidity.policy.targets import (
    WITHDRAWAL_FAILED,
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

FORGONE_BPS = 50
"""Forgone earnings in bps if limits.plan_cost is off."""


def withdraw_to_limits(book: PositionBook, gas_unit_value: Value) -> LiquidityAdjustment:
    """Return withdrawals that satisfy both limits; NO_ADJUSTMENT if they hold.

    `gas_unit_value` is the value of a unit of gas.
    """
    limits = liquidity_limits(book.step.limits)
    load = book.exposure()
    if load.within(limits):
        return NO_ADJUSTMENT
    why = format_exceeded_limits(load, limits)
    exit_limits = limits.scaled(EXIT_TARGET_SHARE)
    moves: list[WithdrawMove | CollectMove] = []
    skipped: list[SkippedItem] = []
    for confirmed_position, position in sorted(
        book.pairs, key=lambda pair: _rank(book, pair[0], pair[1], gas_unit_value), reverse=True
    ):
        if book.exposure().within(exit_limits):
            break
        pool = getattr(position, "pair", None) or getattr(position, "pool", None)
        if pool in liquidity_progress(book.step).left_pools:
            skipped.append(
                SkippedItem(confirmed_position.name, f"not withdrawn: {WITHDRAWAL_FAILED}")
            )
            continue
        if isinstance(position, LpV3Position) and max(positions.principal(position)) == 0:
            if (
                book.value(confirmed_position, positions.uncollected_fees(position))
                > action_gas.V3_COLLECT_UNITS * gas_unit_value
            ):  # dust alone cannot exceed a limit
                moves.append(
                    CollectMove(confirmed_position, position, f"{why}: its uncollected amounts")
                )
                book = book.after_collection(confirmed_position)
            continue
        if not isinstance(position, LpV2Position | LpV3Position) or position.liquidity == 0:
            continue
        off = price_deviation_reason(
            book.step.limits, positions.pool_price(position), book.ratio(confirmed_position)
        )
        if off:
            skipped.append(SkippedItem(confirmed_position.name, f"not withdrawn: {off}"))
            continue
        liquidity = _needed(book, confirmed_position, position, exit_limits)
        if liquidity == 0:
            skipped.append(
                SkippedItem(
                    confirmed_position.name, "not withdrawn: this step has approved none of it"
                )
            )
            continue
        if liquidity == position.liquidity:
            part = "all"
        else:
            part = format_percent(Fraction(liquidity, position.liquidity))
        moves.append(WithdrawMove(confirmed_position, position, liquidity, f"{why}: {part} of it"))
        book = book_after_withdrawal(book, confirmed_position, position, liquidity)
    taken = (
        ", ".join(move.confirmed.name for move in moves)
        or "no withdrawal now: every position is skipped"
    )
    return LiquidityAdjustment(tuple(moves), f"{why}: withdraw {taken}", tuple(skipped), over=True)


def format_exceeded_limits(load: LiquidityExposure, limits: LiquidityLimits) -> str:
    """Format the exceeded limits with their numbers."""
    parts = []
    if load.exceeds_loss(limits) and limits.loss is not None:
        parts.append(
            f"expected loss {_share(load.loss, load)} above limits.impermanent_loss"
            f" {format_percent(limits.loss)}"
        )
    if load.exceeds_weight(limits) and limits.weight is not None:
        parts.append(
            f"liquidity {_share(load.weight, load)} above limits.lp_max_weight"
            f" {format_percent(limits.weight)}"
        )
    return " and ".join(parts)


def _needed(
    book: PositionBook,
    one: ConfirmedPosition,
    position: LpV2Position | LpV3Position,
    exit_limits: LiquidityLimits,
) -> int:
    """Return the least liquidity of a position, worth at least min_trade, that brings both sums to
    the target; all of it if that is insufficient.
    """
    whole = _capped(book, one, position.liquidity)
    bare = book.value_without_fees(one, position)
    least = book.step.limits.min_trade or Fraction(0)
    if bare > 0:
        low = min(whole, max(1, ceil_int(position.liquidity * least / bare)))
    else:
        low = whole
    if not book_after_withdrawal(book, one, position, whole).exposure().within(exit_limits):
        return whole
    high = whole
    if book_after_withdrawal(book, one, position, low).exposure().within(exit_limits):
        high = low
    # Loss and value are proportional to liquidity, so a precision of one thousandth is enough.
    while high - low > max(1, whole // 1_000):
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if book_after_withdrawal(book, one, position, middle).exposure().within(exit_limits)
            else (middle, high)
        )
    stays = bare * (whole - high) / position.liquidity
    nothing = (
        max(positions.principal(position, high)) == 0
    )  # a partial withdrawal collects all fees, but only principal gives it a minimum amount
    return (
        whole if nothing or stays < least else high
    )  # the remainder would not pay for a transaction


def _capped(book: PositionBook, one: ConfirmedPosition, liquidity: int) -> int:
    """Return the liquidity, capped at this step's approval for LP tokens of a pair, which the
    router spends.
    """
    if one.token_id is not None:
        return liquidity
    return min(liquidity, dict(book.step.progress.spend_caps).get(one.contract, liquidity))


def _rank(
    book: PositionBook, one: ConfirmedPosition, position: LpPosition, gas_unit_value: Value
) -> Fraction:
    """Return the loss avoided per unit of cost; larger goes first."""
    price0, price1 = book.prices[one.token0], book.prices[one.token1]
    curve = impermanent_loss.liquidity_curve(position, price0, price1)
    if curve is None:
        return Fraction(-1)
    bare = book.value_without_fees(one, position)
    avoided = bare * impermanent_loss.expected_loss(curve, one.volatility_bps, one.horizon_s)
    if isinstance(position, LpV2Position):
        units = action_gas.V2_REMOVE_UNITS
    else:
        units = action_gas.V3_WITHDRAW_UNITS
    share_bps = book.step.limits.plan_cost_bps
    if curve.in_range:
        forgone = bare * (FORGONE_BPS if share_bps is None else share_bps) / BPS
    else:
        forgone = Fraction(0)
    cost = units * gas_unit_value + forgone
    return avoided / cost if cost > 0 else avoided


def _share(value: Value, load: LiquidityExposure) -> str:
    if load.total > 0:
        return format_percent(value / load.total)
    return "of nothing"
