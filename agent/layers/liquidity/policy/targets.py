"""Moves to the liquidity targets: new ranges, changes of size, fees reinvested. Values are at
reference prices (T3). No liquidity moves while its pool is off the reference, below min_trade, or
if gas exceeds plan_cost of its value. Shares have a band. Additions stay within a part of the
loss budget and of the maximum weight, and within the spendable balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.amm.lp import action_gas, minting, positions
from agent.layers.liquidity.policy.book import (
    PositionBook,
    pool_price,
    price_deviation_reason,
)
from agent.layers.liquidity.policy.moves import CollectMove, WithdrawMove
from agent.layers.liquidity.policy.provisions import (
    APPROVAL_COUNT,
    AdjustmentBuilder,
    add_liquidity,
    book_after_withdrawal,
)
from agent.layers.liquidity.state import liquidity_progress
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, Pool
from agent.units import BPS, Value, ceil_int, format_percent

SHARE_TOLERANCE = Fraction(1, 10)
"""Tolerance of a pool's value, as a fraction of its share."""
TOLERANCE_AFTER_MOVE = Fraction(1, 1_000)
"""Fraction of the share that a step which has already acted ignores: rounding and price moves do
not justify gas.
"""
HeldPositions = Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]]


WITHDRAWAL_FAILED_REASON = "its withdrawal failed in this step"


def adjust_to_target(builder: AdjustmentBuilder, target: LpTarget) -> None:
    """Add the moves of one target."""
    book = builder.book
    if target.pool in liquidity_progress(book.step).failed_withdrawal_pools:
        builder.skip(target, WITHDRAWAL_FAILED_REASON)
        return
    pool = next(
        (
            listed_pool
            for listed_pool in book.step.snapshot.pools
            if listed_pool.address == target.pool
        ),
        None,
    )
    quarantine_reason = next(
        (
            unreadable_item.why
            for unreadable_item in book.step.snapshot.unreadable_items
            if unreadable_item.address == target.pool
        ),
        None,
    )
    if pool is None:
        unread_reason = quarantine_reason or "it is not pinned; trimtab trust pins it"
        builder.skip(target, f"the pool was not read: {unread_reason}")
        return
    if quarantine_reason is not None:
        builder.skip(target, f"the pool is in quarantine: {quarantine_reason}")
        return
    quarantined_token = next(
        (
            screened_token
            for screened_token in book.step.targets.quarantined_tokens
            if screened_token.token in (pool.token0, pool.token1)
        ),
        None,
    )
    if quarantined_token is not None:
        builder.skip(
            target,
            f"{book.step.portfolio.token(quarantined_token.token).label} is in quarantine: {quarantined_token.why}",
        )
        return
    reference_price = book.reference_price(target)
    deviation_reason = price_deviation_reason(book.step.limits, pool_price(pool), reference_price)
    if deviation_reason:
        builder.skip(target, deviation_reason)
        return
    pool_positions = target_positions(book, target)
    total_value = book.exposure().portfolio_value
    target_share = Fraction(target.share_bps, BPS)
    target_value = total_value * target_share
    provided_value = sum(
        (
            book.position_value(confirmed_position, position)
            for confirmed_position, position in pool_positions
        ),
        Fraction(0),
    )
    out_of_range_positions = [
        held_position
        for held_position in pool_positions
        if is_out_of_range(held_position[1], reference_price)
    ]
    in_range_positions = [
        held_position
        for held_position in pool_positions
        if held_position not in out_of_range_positions
    ]
    share_text = (
        f"{format_percent(provided_value / total_value if total_value > 0 else Fraction(0))} of the portfolio against"
        f" a share of {format_percent(target_share)}"
    )
    withdrawn_value = _withdraw_out_of_range(builder, target, out_of_range_positions, target_value)
    shortfall_value = target_value - provided_value + withdrawn_value
    if target.share_bps == 0 and in_range_positions:
        _withdraw_excess(
            builder,
            target,
            in_range_positions,
            provided_value - withdrawn_value,
            f"no liquidity is targeted in {target.pool}",
        )
    elif withdrawn_value > 0 and shortfall_value > 0:
        add_liquidity(
            builder,
            target,
            pool,
            in_range_positions,
            shortfall_value,
            f"a new range around the reference price in {target.pool}",
        )
    elif -shortfall_value > SHARE_TOLERANCE * target_value:
        _withdraw_excess(
            builder, target, in_range_positions, -shortfall_value, f"{target.pool} has {share_text}"
        )
    else:
        has_moved = liquidity_progress(book.step).has_moved
        tolerance = TOLERANCE_AFTER_MOVE if has_moved else SHARE_TOLERANCE
        is_added = shortfall_value > tolerance * target_value and add_liquidity(
            builder,
            target,
            pool,
            in_range_positions,
            shortfall_value,
            f"{target.pool} has {share_text}",
        )
        if not is_added:
            _reinvest_fees(builder, target, pool, in_range_positions, shortfall_value)


def target_positions(book: PositionBook, target: LpTarget) -> HeldPositions:
    """Return positions with liquidity in the target's pool."""
    held_positions: list[tuple[ConfirmedPosition, LpV2Position | LpV3Position]] = []
    for confirmed_position, position in book.position_states:
        match position:
            case LpV2Position() if position.pair == target.pool and position.liquidity > 0:
                held_positions.append((confirmed_position, position))
            case LpV3Position() if position.pool == target.pool and position.liquidity > 0:
                held_positions.append((confirmed_position, position))
            case _:
                pass
    return held_positions


def is_out_of_range(position: LpV2Position | LpV3Position, reference_price: Fraction) -> bool:
    """True if the reference price has left the position's range."""
    if isinstance(position, LpV2Position):
        return False
    low_sqrt_price_x96, high_sqrt_price_x96 = minting.sqrt_price_range(
        (position.tick_lower, position.tick_upper)
    )
    return not low_sqrt_price_x96 <= positions.sqrt_price_x96(reference_price) < high_sqrt_price_x96


def _withdraw_out_of_range(
    builder: AdjustmentBuilder,
    target: LpTarget,
    out_of_range_positions: HeldPositions,
    target_value: Value,
) -> Value:
    """Withdraw out-of-range positions if that is worth the gas of the withdrawal and of a new
    range; return the value moved.
    """
    withdrawn_value = Fraction(0)
    for confirmed_position, position in out_of_range_positions:
        book = builder.book
        position_value = book.position_value(confirmed_position, position)
        gas_units, approval_count = (
            ((action_gas.V3_WITHDRAW_UNITS, action_gas.V3_MINT_UNITS), APPROVAL_COUNT)
            if target_value > 0
            else ((action_gas.V3_WITHDRAW_UNITS,), 0)
        )
        skip_reason = builder.not_worth_reason(position_value, gas_units, approval_count)
        if skip_reason:
            builder.skip(target, f"{confirmed_position.name} stays out of range: {skip_reason}")
            continue
        reason = (
            f"the reference price has left the range of {confirmed_position.name}: "
            f"{builder.money_text(position_value)} withdrawn"
        )
        if isinstance(position, LpV3Position) and max(positions.principal(position)) == 0:
            # the position is empty, so no minimum applies
            builder.moves.append(CollectMove(confirmed_position, position, reason))
            builder.book = book.after_collection(confirmed_position)
        else:
            builder.moves.append(
                WithdrawMove(confirmed_position, position, position.liquidity, reason)
            )
            builder.book = book_after_withdrawal(
                book, confirmed_position, position, position.liquidity
            )
        builder.reasons.append(reason)
        withdrawn_value += position_value
    return withdrawn_value


def _withdraw_excess(
    builder: AdjustmentBuilder,
    target: LpTarget,
    in_range_positions: HeldPositions,
    excess_value: Value,
    reason: str,
) -> None:
    """Withdraw the excess over the share, smallest positions first, whose fees are paid out too; if
    these suffice, they alone are collected.
    """
    values_and_indices = sorted(
        (builder.book.value_without_fees(confirmed_position, position), index)
        for index, (confirmed_position, position) in enumerate(in_range_positions)
    )
    for position_value, index in values_and_indices:
        confirmed_position, position = in_range_positions[index]
        if excess_value <= 0 or position_value <= 0:
            continue
        fees_value = builder.book.pair_value(
            confirmed_position, positions.uncollected_fees(position)
        )
        excess_principal_value = min(position_value, max(Fraction(0), excess_value - fees_value))
        withdrawn_liquidity = min(
            position.liquidity,
            ceil_int(position.liquidity * excess_principal_value / position_value),
        )
        if confirmed_position.token_id is None:
            withdrawn_liquidity = min(
                withdrawn_liquidity,
                dict(builder.book.step.progress.spend_caps).get(
                    confirmed_position.contract, withdrawn_liquidity
                ),
            )
        withdrawn_value = fees_value + position_value * withdrawn_liquidity / position.liquidity
        # only principal gives a withdrawal a minimum amount
        has_principal = max(positions.principal(position, withdrawn_liquidity)) > 0
        if isinstance(position, LpV2Position):
            skip_reason = builder.not_worth_reason(
                withdrawn_value, (action_gas.V2_REMOVE_UNITS,), 1
            )
        else:
            gas_units = (
                action_gas.V3_WITHDRAW_UNITS if has_principal else action_gas.V3_COLLECT_UNITS
            )
            skip_reason = builder.not_worth_reason(withdrawn_value, (gas_units,))
        if skip_reason:
            builder.skip(target, skip_reason)
            continue
        move_reason = f"{reason}: {builder.money_text(withdrawn_value)} withdrawn"
        if isinstance(position, LpV3Position) and not has_principal:
            move_reason = f"{reason}: fees of {builder.money_text(fees_value)} collected"
            builder.moves.append(CollectMove(confirmed_position, position, move_reason))
            builder.book = builder.book.after_collection(confirmed_position)
        else:
            builder.moves.append(
                WithdrawMove(confirmed_position, position, withdrawn_liquidity, move_reason)
            )
            builder.book = book_after_withdrawal(
                builder.book, confirmed_position, position, withdrawn_liquidity
            )
        builder.reasons.append(move_reason)
        excess_value -= withdrawn_value


def _reinvest_fees(
    builder: AdjustmentBuilder,
    target: LpTarget,
    pool: Pool,
    in_range_positions: HeldPositions,
    shortfall_value: Value,
) -> None:
    """Collect fees above the target's `compound_above` and reinvest as much as the share then
    lacks, which is all of them if it was on target.
    """
    for confirmed_position, position in in_range_positions:
        fees_value = builder.book.pair_value(
            confirmed_position, positions.uncollected_fees(position)
        )
        if (
            not isinstance(position, LpV3Position)
            or target.compound_above is None
            or fees_value <= target.compound_above
        ):
            continue
        skip_reason = builder.not_worth_reason(
            fees_value,
            (action_gas.V3_COLLECT_UNITS, action_gas.V3_INCREASE_UNITS),
            APPROVAL_COUNT,
        )
        if skip_reason:
            builder.skip(
                target, f"fees of {confirmed_position.name} are not collected: {skip_reason}"
            )
            continue
        collection_reason = (
            f"{confirmed_position.name} has earned {builder.money_text(fees_value)}, above compound_above"
            f" {builder.money_text(target.compound_above)}: collected"
        )
        builder.moves.append(CollectMove(confirmed_position, position, collection_reason))
        builder.reasons.append(collection_reason)
        builder.book = builder.book.after_collection(confirmed_position)
        shortfall_value += fees_value
        if shortfall_value > 0:
            add_liquidity(
                builder,
                target,
                pool,
                [(confirmed_position, position)],
                shortfall_value,
                "fees reinvested up to the target share",
            )
            shortfall_value = min(shortfall_value, Fraction(0))
