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
    APPROVALS,
    AdjustmentBuilder,
    add_liquidity,
    book_after_withdrawal,
)
from agent.layers.liquidity.state import liquidity_progress
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, Pool
from agent.units import BPS, Value, ceil_int, format_percent

BAND = Fraction(1, 10)
"""Tolerance of a pool's value, as a fraction of its share."""
REST = Fraction(1, 1_000)
"""Fraction of the share that a step which has already acted ignores: rounding and price moves do
not justify gas.
"""
HeldPositions = Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]]


WITHDRAWAL_FAILED = "its withdrawal failed in this step"


def adjust_to_target(builder: AdjustmentBuilder, target: LpTarget) -> None:
    """Add the moves of one target."""
    book = builder.book
    if target.pool in liquidity_progress(book.step).left_pools:
        builder.skip(target, WITHDRAWAL_FAILED)
        return
    pool = next((known for known in book.step.snapshot.pools if known.address == target.pool), None)
    if pool is None:
        why = next(
            (item.why for item in book.step.snapshot.quarantined if item.address == target.pool),
            "trimtab trust pins it",
        )
        builder.skip(target, f"the pool was not read: {why}")
        return
    shut = next(
        (
            token
            for token in book.step.targets.quarantine
            if token.token in (pool.token0, pool.token1)
        ),
        None,
    )
    if shut is not None:
        builder.skip(
            target, f"{book.step.portfolio.token(shut.token).label} is in quarantine: {shut.why}"
        )
        return
    ratio = book.ratio(target)
    off = price_deviation_reason(book.step.limits, pool_price(pool), ratio)
    if off:
        builder.skip(target, off)
        return
    own = target_positions(book, target)
    total, share = book.exposure().total, Fraction(target.share_bps, BPS)
    target_value = total * share
    has = sum(
        (book.value_of(confirmed_position, position) for confirmed_position, position in own),
        Fraction(0),
    )
    left = [pair for pair in own if is_out_of_range(pair[1], ratio)]
    stay = [pair for pair in own if pair not in left]
    where = (
        f"{format_percent(has / total if total > 0 else Fraction(0))} of the portfolio against"
        f" a share of {format_percent(share)}"
    )
    recentred = _leave(builder, target, left, target_value)
    lacks = target_value - has + recentred
    if target.share_bps == 0 and stay:
        _reduce(
            builder, target, stay, has - recentred, f"no liquidity is targeted in {target.pool}"
        )
    elif recentred > 0 and lacks > 0:
        add_liquidity(
            builder,
            target,
            pool,
            stay,
            lacks,
            f"a new range around the reference price in {target.pool}",
        )
    elif -lacks > BAND * target_value:
        _reduce(builder, target, stay, -lacks, f"{target.pool} has {where}")
    elif lacks > (
        REST if liquidity_progress(book.step).acted else BAND
    ) * target_value and add_liquidity(
        builder, target, pool, stay, lacks, f"{target.pool} has {where}"
    ):
        pass
    else:
        _compound(builder, target, pool, stay, lacks)


def target_positions(book: PositionBook, target: LpTarget) -> HeldPositions:
    """Return positions with liquidity in the target's pool."""
    pairs: list[tuple[ConfirmedPosition, LpV2Position | LpV3Position]] = []
    for pair, position in book.pairs:
        match position:
            case LpV2Position() if position.pair == target.pool and position.liquidity > 0:
                pairs.append((pair, position))
            case LpV3Position() if position.pool == target.pool and position.liquidity > 0:
                pairs.append((pair, position))
            case _:
                pass
    return pairs


def is_out_of_range(position: LpV2Position | LpV3Position, ratio: Fraction) -> bool:
    """True if the reference price has left the position's range."""
    if isinstance(position, LpV2Position):
        return False
    low, high = minting.sqrt_price_range((position.tick_lower, position.tick_upper))
    return not low <= positions.sqrt_price_x96(ratio) < high


def _leave(
    builder: AdjustmentBuilder, target: LpTarget, left: HeldPositions, wanted: Value
) -> Value:
    """Withdraw out-of-range positions if that is worth the gas of the withdrawal and of a new
    range; return the value moved.
    """
    moved = Fraction(0)
    for confirmed_position, position in left:
        book = builder.book
        value = book.value_of(confirmed_position, position)
        units, approvals = (
            (action_gas.V3_WITHDRAW_UNITS + action_gas.V3_MINT_UNITS, APPROVALS)
            if wanted > 0
            else (action_gas.V3_WITHDRAW_UNITS, 0)
        )
        why_not = builder.worth_it(value, units, approvals)
        if why_not:
            builder.skip(target, f"{confirmed_position.name} stays out of range: {why_not}")
            continue
        reason = (
            f"the reference price has left the range of {confirmed_position.name}: "
            f"{builder.money(value)} withdrawn"
        )
        if (
            isinstance(position, LpV3Position) and max(positions.principal(position)) == 0
        ):  # the position is empty, so no minimum applies
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
        moved += value
    return moved


def _reduce(
    builder: AdjustmentBuilder, target: LpTarget, stay: HeldPositions, excess: Value, reason: str
) -> None:
    """Withdraw the excess over the share, smallest positions first."""
    sized = sorted(
        (builder.book.value_without_fees(confirmed_position, position), number)
        for number, (confirmed_position, position) in enumerate(stay)
    )
    for value, number in sized:
        confirmed, position = stay[number]
        if excess <= 0 or value <= 0:
            continue
        pair = isinstance(position, LpV2Position)
        part = min(value, excess)
        if pair:
            why_not = builder.worth_it(part, action_gas.V2_REMOVE_UNITS, 1)
        else:
            why_not = builder.worth_it(part, action_gas.V3_WITHDRAW_UNITS)
        if why_not:
            builder.skip(target, why_not)
            continue
        liquidity = min(position.liquidity, ceil_int(position.liquidity * part / value))
        if confirmed.token_id is None:
            liquidity = min(
                liquidity,
                dict(builder.book.step.progress.spend_caps).get(confirmed.contract, liquidity),
            )
        message = f"{reason}: {builder.money(part)} withdrawn"
        builder.moves.append(WithdrawMove(confirmed, position, liquidity, message))
        builder.reasons.append(message)
        builder.book = book_after_withdrawal(builder.book, confirmed, position, liquidity)
        excess -= part


def _compound(
    builder: AdjustmentBuilder, target: LpTarget, pool: Pool, stay: HeldPositions, lacks: Value
) -> None:
    """Collect fees above the target's `compound_above` and reinvest as much as the share then
    lacks, which is all of them if it was on target.
    """
    for confirmed_position, position in stay:
        earned = builder.book.value(confirmed_position, positions.uncollected_fees(position))
        if (
            not isinstance(position, LpV3Position)
            or target.compound_above is None
            or earned <= target.compound_above
        ):
            continue
        why_not = builder.worth_it(
            earned, action_gas.V3_COLLECT_UNITS + action_gas.V3_INCREASE_UNITS, APPROVALS
        )
        if why_not:
            builder.skip(target, f"fees of {confirmed_position.name} are not collected: {why_not}")
            continue
        message = (
            f"{confirmed_position.name} has earned {builder.money(earned)}, above compound_above"
            f" {builder.money(target.compound_above)}: collected"
        )
        builder.moves.append(CollectMove(confirmed_position, position, message))
        builder.reasons.append(message)
        builder.book = builder.book.after_collection(confirmed_position)
        lacks += earned
        if lacks > 0:
            add_liquidity(
                builder,
                target,
                pool,
                [(confirmed_position, position)],
                lacks,
                "fees reinvested up to the target share",
            )
            lacks = min(lacks, Fraction(0))
