"""How much may be provided: as far as budget, largest weight, balances and gas allow, and never while the price could be turned on us."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from agent.amm import pools
from agent.lp import change, exact, floors, gas, loss, mint
from agent.model import ConfirmedPosition, LpTarget, LpV2Position, LpV3Position, PoolState, Skipped, V3Pool
from agent.policy.lp_book import Amounts, Book, band_bps, bounds
from agent.policy.lp_exits import AIM
from agent.policy.lp_moves import In, Move
from agent.units import BPS, Value, floor_int, value_text

APPROVALS = 2
"""Both tokens are approved exactly, each time anew."""
NEAR = 1_000_000
"""Of an amount, one part: so little below an approval is brought up to it."""


@dataclass
class Course:
    """What was put together so far: the book after it, the moves, and what is left with the reason."""

    book: Book
    gas_unit_value: Value
    moves: list[Move] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, target: LpTarget, why: str) -> None:
        """Leaves something of a target, and says why."""
        self.skipped.append(Skipped(named(target), why))

    def worth_it(self, value: Value, units: int, approvals: int = 0, skew: Value = Fraction(0)) -> str:
        """Why a move of this value is not worth its cost or too small; empty when it is. `approvals` are those it needs first,
        `skew` is what it costs because its pool is off the reference.

        Once a step has approved, that gas is spent and holds nothing back.
        """
        limits = self.book.step.limits
        units += 0 if self.book.step.spend_caps else approvals * gas.APPROVE_UNITS
        cost = units * self.gas_unit_value + skew
        if limits.min_trade is not None and value < limits.min_trade:
            return f"{self.money(value)} to move, limits.min_trade is {self.money(limits.min_trade)}"
        if limits.plan_cost_bps is not None and cost * BPS > limits.plan_cost_bps * value:
            what = f"gas of {self.money(cost)}"
            if skew * BPS > value:
                what = f"a cost of {self.money(cost)}, {self.money(skew)} of it since the pool is off the reference,"
            return f"{what} for {self.money(value)} is above limits.plan_cost of {limits.plan_cost_bps} bps"
        return ""

    def money(self, value: Value) -> str:
        """In whole coins of the numeraire."""
        numeraire = self.book.step.portfolio.numeraire
        return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"


def named(target: LpTarget) -> str:
    """What a target is called where something of it is left."""
    return f"liquidity in {target.pool}"


def add(
    course: Course,
    target: LpTarget,
    pool: PoolState,
    own: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]],
    value: Value,
    reason: str,
) -> bool:
    """Provides up to this value: to the largest position of `own`, else to a new one. Says whether anything is."""
    book = course.book
    place = _place(book, target, pool, own)
    if isinstance(place, str):
        course.skip(target, place)
        return False
    one, ticks = place
    within = None if ticks is None else mint.ends(ticks)
    band = floors.widest(within, book.ratio(target), band_bps(book.step.limits) or 0, book.step.limits.slippage_bps)
    value, bound = _allowed(book, target, within, value)
    desired, short = _desired(book, target, pool, within, value)
    desired = _taken_whole(book, pool, one, ticks, desired)
    amounts = quote(book, pool, one, ticks, desired)[1]
    moved = book.value(target, amounts)
    after = after_in(book, target, pool, one, ticks, desired)
    units = gas.V2_ADD_UNITS if within is None else gas.V3_MINT_UNITS if one is None else gas.V3_INCREASE_UNITS
    skew = Fraction(0) if after is None else book.overpaid(target, amounts, after)
    why_not = _unsafe(book, target, pool, within, band) or course.worth_it(moved, units, APPROVALS, skew)
    if not why_not and after is None:
        why_not = "what could be provided comes to no liquidity, or to more than a pool can hold"
    elif not why_not and after is not None and not after.load().within(bounds(book.step.limits)):
        why_not = "what could be provided would exceed limits.impermanent_loss or limits.lp_max_weight"
    for why in (bound, short, why_not):
        if why:
            course.skip(target, why)
    if why_not or after is None:
        return False
    said = f"{reason}: {course.money(moved)} provided"
    course.moves.append(In(target, one, ticks, desired, said))
    course.reasons.append(said)
    course.book = after
    return True


def quote(book: Book, pool: PoolState, one: ConfirmedPosition | None, ticks: Amounts | None, desired: Amounts) -> tuple[int, Amounts]:
    """Liquidity and exact base units that providing `desired` takes now; (0, (0, 0)) where nothing can be provided."""
    if isinstance(pool, V3Pool):
        return (0, (0, 0)) if ticks is None else mint.provided(None, pool.sqrt_price_x96, mint.ends(ticks), desired)
    pair = None if one is None else book.at(one)
    return mint.provided(pair, 0, None, desired) if isinstance(pair, LpV2Position) else (0, (0, 0))


def _place(
    book: Book, target: LpTarget, pool: PoolState, own: Sequence[tuple[ConfirmedPosition, LpV2Position | LpV3Position]]
) -> tuple[ConfirmedPosition | None, Amounts | None] | str:
    """The position that grows, or the ticks of a new one; or why there is no place."""
    if not isinstance(pool, V3Pool):
        pairs = [(one, position) for one, position in book.pairs if isinstance(position, LpV2Position) and position.pair == target.pool]
        return (pairs[0][0], None) if pairs else "the wallet's account of the pair was not read"
    ranges = [(one, position) for one, position in own if isinstance(position, LpV3Position)]
    if ranges:
        one, largest = max(ranges, key=lambda pair: pair[1].liquidity)
        return one, (largest.tick_lower, largest.tick_upper)
    if target.width_bps is None or target.tick_spacing is None:
        return "a new range needs a width"
    return None, mint.range_around(book.ratio(target), target.width_bps, target.tick_spacing)


def _allowed(book: Book, target: LpTarget, within: mint.Range | None, value: Value) -> tuple[Value, str]:
    """The part of `value` that budget and largest weight leave room for, and what binds."""
    load, aim, said = book.load(), bounds(book.step.limits).scaled(AIM), ""
    if aim.weight is not None and (room := max(Fraction(0), aim.weight * load.total - load.weight)) < value:
        value, said = room, "limits.lp_max_weight leaves no room for more"
    rate = _loss_rate(book, target, within)
    if aim.loss is not None and rate > 0 and (room := max(Fraction(0), aim.loss * load.total - load.loss) / rate) < value:
        value, said = room, "limits.impermanent_loss leaves no room for more"
    return value, said


def _loss_rate(book: Book, target: LpTarget, within: mint.Range | None) -> Fraction:
    """Mean loss over the horizon per unit of value provided."""
    if within is None:
        curve = loss.V2_CURVE
    else:
        now_x96 = exact.sqrt_price_x96(book.ratio(target))
        curve = loss.Curve(within[0] / now_x96, within[1] / now_x96)
    return loss.expected_loss(curve, target.volatility_bps, target.horizon_s)


def _desired(book: Book, target: LpTarget, pool: PoolState, within: mint.Range | None, value: Value) -> tuple[Amounts, str]:
    """Base units of both tokens in the pool's mix, worth `value` at reference prices or what the wallet has; and what it lacks."""
    if isinstance(pool, V3Pool):
        unit = mint.amounts_in(pool.sqrt_price_x96, within or (0, 0), floors.UNIT)
    else:
        unit = (pool.reserve0, pool.reserve1)
    worth = book.value(target, unit)
    wanted = value / worth
    part, short = wanted, ""
    for token, amount in zip((target.token0, target.token1), unit, strict=True):
        if amount > 0 and (most := Fraction(book.spendable(token), amount)) < part:
            part, short = most, f"the wallet has no more {book.step.portfolio.token(token).label} to spend"
    return (floor_int(unit[0] * part), floor_int(unit[1] * part)), short


def _taken_whole(book: Book, pool: PoolState, one: ConfirmedPosition | None, ticks: Amounts | None, desired: Amounts) -> Amounts:
    """The same without what rounding would leave untaken: an allowance that is used up needs no transaction to take it back.

    For the same reason amounts that are a millionth below what this step has approved are brought up to it.
    """
    caps = dict(book.step.spend_caps)

    def near(token: str, raw: int) -> int:
        most = min(caps.get(token, raw), book.spendable(token))
        return most if raw < most <= raw + raw // NEAR else raw

    desired = near(pool.token0, desired[0]), near(pool.token1, desired[1])
    for _ in range(3):
        liquidity, amounts = quote(book, pool, one, ticks, desired)
        if liquidity <= 0 or amounts == desired:
            break
        desired = (min(desired[0], amounts[0]), min(desired[1], amounts[1]))
    return desired


def _unsafe(book: Book, target: LpTarget, pool: PoolState, within: mint.Range | None, band: int) -> str:
    """Why nothing may be provided to this pool now; empty when it may."""
    price = pools.marginal_price(pool, pool.token0)
    if not floors.inside(price, book.ratio(target), band):
        return f"the pool is beyond the {band} bps around the reference within which limits.slippage bounds what liquidity costs"
    if within is not None and isinstance(pool, V3Pool) and not within[0] < pool.sqrt_price_x96 < within[1]:
        return "the pool's price is beside the range"
    least = book.step.limits.pool_min_value
    if least is not None:
        depth = sum((pools.depth(pool, token) * book.prices[token] for token in (pool.token0, pool.token1)), Fraction(0))
        if depth < least:
            return "the pool holds less than limits.pool_min_value"
    return ""


def after_in(
    book: Book, target: LpTarget, pool: PoolState, one: ConfirmedPosition | None, ticks: Amounts | None, desired: Amounts
) -> Book | None:
    """The book once it is provided; None when it would come to nothing."""
    liquidity, amounts = quote(book, pool, one, ticks, desired)
    if liquidity <= 0 or min(desired) <= 0:
        return None
    if one is not None:
        return book.put(one, liquidity, amounts)
    if isinstance(pool, V3Pool) and ticks is not None:
        return book.minted(target, change.minted(target, pool, ticks, liquidity), amounts)
    return None
