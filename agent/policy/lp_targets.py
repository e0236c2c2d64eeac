"""What the wanted liquidity asks for: new ranges where the price has left, more or less of a pool, fees put back.

Values are at reference prices (T3). Nothing moves while its pool is off the reference, for less than min_trade, or for gas above
plan_cost of what it moves; shares have a band of BAND around them; nothing is added beyond AIM of the budget and of the largest
weight, nor beyond what may be spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.lp import exact, gas, mint
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, PoolState
from agent.policy import words
from agent.policy.lp_adding import APPROVALS, Course, add
from agent.policy.lp_book import Book, pool_price, too_far
from agent.policy.lp_exits import take
from agent.policy.lp_moves import Fees, Out
from agent.units import BPS, Value, ceil_int

BAND = Fraction(1, 10)
"""Part of its share by which a pool's value may differ before anything is done."""
REST = Fraction(1, 1_000)
"""Part of its share that a step which has acted leaves: what rounding, and prices that moved meanwhile, have left is not worth gas."""
Held = Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]]


def follow(course: Course, target: LpTarget) -> None:
    """Adds what one target asks for."""
    book = course.book
    pool = next((found for found in book.step.snapshot.pools if found.address == target.pool), None)
    if pool is None:
        why = next((item.why for item in book.step.snapshot.quarantined if item.address == target.pool), "trimtab trust pins it")
        course.skip(target, f"the pool was not read: {why}")
        return
    shut = next((one for one in book.step.quarantine if one.token in (pool.token0, pool.token1)), None)
    if shut is not None:
        course.skip(target, f"{book.step.portfolio.token(shut.token).label} is in quarantine: {shut.why}")
        return
    ratio = book.ratio(target)
    off = too_far(book.step.limits, pool_price(pool), ratio)
    if off:
        course.skip(target, off)
        return
    own = mine(book, target)
    total, share = book.load().total, Fraction(target.share_bps, BPS)
    wanted = total * share
    has = sum((book.worth(one, position) for one, position in own), Fraction(0))
    left = [pair for pair in own if beside(pair[1], ratio)]
    stay = [pair for pair in own if pair not in left]
    where = f"{words.percent(has / total if total > 0 else Fraction(0))} of the portfolio against a share of {words.percent(share)}"
    recentred = _leave(course, target, left, wanted)
    lacks = wanted - has + recentred
    if target.share_bps == 0 and stay:
        _reduce(course, target, stay, has - recentred, f"no liquidity is wanted in {target.pool}")
    elif recentred > 0 and lacks > 0:
        add(course, target, pool, stay, lacks, f"a new range around the reference price in {target.pool}")
    elif -lacks > BAND * wanted:
        _reduce(course, target, stay, -lacks, f"{target.pool} has {where}")
    elif lacks > (REST if book.step.acted else BAND) * wanted and add(course, target, pool, stay, lacks, f"{target.pool} has {where}"):
        pass
    else:
        _compound(course, target, pool, stay, lacks)


def mine(book: Book, target: LpTarget) -> Held:
    """Positions with liquidity in the target's pool."""
    found: list[tuple[ConfirmedPosition, LpV2Position | LpV3Position]] = []
    for one, position in book.pairs:
        match position:
            case LpV2Position() if position.pair == target.pool and position.liquidity > 0:
                found.append((one, position))
            case LpV3Position() if position.pool == target.pool and position.liquidity > 0:
                found.append((one, position))
            case _:
                pass
    return found


def beside(position: LpV2Position | LpV3Position, ratio: Fraction) -> bool:
    """Whether the reference price has left the position's range."""
    if isinstance(position, LpV2Position):
        return False
    low, high = mint.ends((position.tick_lower, position.tick_upper))
    return not low <= exact.sqrt_price_x96(ratio) < high


def _leave(course: Course, target: LpTarget, left: Held, wanted: Value) -> Value:
    """Takes out whole what the reference price has left, where that is worth its gas and that of a new range; the value moved."""
    moved = Fraction(0)
    for one, position in left:
        book = course.book
        value = book.worth(one, position)
        units, approvals = (gas.V3_WITHDRAW_UNITS + gas.V3_MINT_UNITS, APPROVALS) if wanted > 0 else (gas.V3_WITHDRAW_UNITS, 0)
        why_not = course.worth_it(value, units, approvals)
        if why_not:
            course.skip(target, f"{one.name} stays beside the price: {why_not}")
            continue
        reason = f"the reference price has left the range of {one.name}: {course.money(value)} taken out"
        if isinstance(position, LpV3Position) and max(exact.principal(position)) == 0:  # nothing that a minimum could be asked of
            course.moves.append(Fees(one, position, reason))
            course.book = book.collected(one)
        else:
            course.moves.append(Out(one, position, position.liquidity, reason))
            course.book = take(book, one, position, position.liquidity)
        course.reasons.append(reason)
        moved += value
    return moved


def _reduce(course: Course, target: LpTarget, stay: Held, excess: Value, reason: str) -> None:
    """Takes out what is above the share, from the smallest position on."""
    sized = sorted((course.book.bare(one, position), number) for number, (one, position) in enumerate(stay))
    for value, number in sized:
        one, position = stay[number]
        if excess <= 0 or value <= 0:
            continue
        pair = isinstance(position, LpV2Position)
        part = min(value, excess)
        why_not = course.worth_it(part, gas.V2_REMOVE_UNITS, 1) if pair else course.worth_it(part, gas.V3_WITHDRAW_UNITS)
        if why_not:
            course.skip(target, why_not)
            continue
        liquidity = min(position.liquidity, ceil_int(position.liquidity * part / value))
        if one.token_id is None:
            liquidity = min(liquidity, dict(course.book.step.spend_caps).get(one.contract, liquidity))
        said = f"{reason}: {course.money(part)} taken out"
        course.moves.append(Out(one, position, liquidity, said))
        course.reasons.append(said)
        course.book = take(course.book, one, position, liquidity)
        excess -= part


def _compound(course: Course, target: LpTarget, pool: PoolState, stay: Held, lacks: Value) -> None:
    """Collects fees above the target's `compound_above`, and puts back what the share then lacks: all of them at the share."""
    for one, position in stay:
        earned = course.book.value(one, exact.uncollected(position))
        if not isinstance(position, LpV3Position) or target.compound_above is None or earned <= target.compound_above:
            continue
        why_not = course.worth_it(earned, gas.V3_COLLECT_UNITS + gas.V3_INCREASE_UNITS, APPROVALS)
        if why_not:
            course.skip(target, f"fees of {one.name} stay: {why_not}")
            continue
        said = f"{one.name} has earned {course.money(earned)}, above compound_above {course.money(target.compound_above)}: collected"
        course.moves.append(Fees(one, position, said))
        course.reasons.append(said)
        course.book = course.book.collected(one)
        lacks += earned
        if lacks > 0:
            add(course, target, pool, [(one, position)], lacks, "fees put back as far as the share lacks them")
            lacks = min(lacks, Fraction(0))
