"""Which liquidity has to go: budget or weight exceeded, at reference prices alone (T3).

Taken first is what avoids most loss per unit of cost. The loss avoided is the mean impermanent loss over the horizon. The cost
is the gas, and for liquidity that is in range the earnings forgone. Fees to come are not known from one block, and in a balanced
market they make up for the loss of every position alike (Milionis et al. 2022), which would tell none from another: taken for
the earnings is limits.plan_cost of the value, what its owner pays for moving it. So what earns nothing goes first, then what
loses most for its worth. Only as much of the last is taken as brings both sums to AIM of their limits, so that the next small
move does not ask for more.
"""

from __future__ import annotations

from fractions import Fraction

from agent.lp import exact, floors, gas, loss
from agent.model import ConfirmedPosition, LpPosition, LpV2Position, LpV3Position, Skipped
from agent.policy import words
from agent.policy.lp_book import Book, band_bps, bounds, too_far
from agent.policy.lp_moves import NOTHING, Bounds, Fees, Load, Out, Wish
from agent.units import BPS, Value, ceil_int

AIM = Fraction(95, 100)
"""Part of a limit that an exit comes back to, and beyond which nothing is added."""


FORGONE_BPS = 50
"""In place of limits.plan_cost where that is off."""


def exits(book: Book, gas_unit_value: Value) -> Wish:
    """What to take out; NOTHING while both limits hold. `gas_unit_value` is the worth of a unit of gas."""
    limits = bounds(book.step.limits)
    load = book.load()
    if load.within(limits):
        return NOTHING
    why = exceeded(load, limits)
    aim = limits.scaled(AIM)
    moves: list[Out | Fees] = []
    skipped: list[Skipped] = []
    for one, position in sorted(book.pairs, key=lambda pair: _rank(book, pair[0], pair[1], gas_unit_value), reverse=True):
        if book.load().within(aim):
            break
        if isinstance(position, LpV3Position) and max(exact.principal(position)) == 0:
            if book.value(one, exact.uncollected(position)) > gas.V3_COLLECT_UNITS * gas_unit_value:  # dust keeps no limit exceeded
                moves.append(Fees(one, position, f"{why}: what it is still owed"))
                book = book.collected(one)
            continue
        if not isinstance(position, LpV2Position | LpV3Position) or position.liquidity == 0:
            continue
        off = too_far(book.step.limits, exact.pool_price(position), book.ratio(one))
        if off:
            skipped.append(Skipped(one.name, f"not taken out: {off}"))
            continue
        liquidity = _needed(book, one, position, aim)
        if liquidity == 0:
            skipped.append(Skipped(one.name, "not taken out: this step has approved none of it"))
            continue
        part = "all" if liquidity == position.liquidity else words.percent(Fraction(liquidity, position.liquidity))
        moves.append(Out(one, position, liquidity, f"{why}: {part} of it"))
        book = take(book, one, position, liquidity)
    taken = ", ".join(move.one.name for move in moves) or "nothing can be taken out now"
    return Wish(tuple(moves), f"{why}: take out {taken}", tuple(skipped), over=True)


def exceeded(load: Load, limits: Bounds) -> str:
    """What is above its limit, in words with numbers."""
    parts = []
    if load.over_loss(limits) and limits.loss is not None:
        parts.append(f"expected loss {_share(load.loss, load)} above limits.impermanent_loss {words.percent(limits.loss)}")
    if load.over_weight(limits) and limits.weight is not None:
        parts.append(f"liquidity {_share(load.weight, load)} above limits.lp_max_weight {words.percent(limits.weight)}")
    return " and ".join(parts)


def take(book: Book, one: ConfirmedPosition, position: LpV2Position | LpV3Position, liquidity: int) -> Book:
    """The book after it, with what is sure to come by the minimums."""
    least = floors.out_floor(position, liquidity, book.ratio(one), band_bps(book.step.limits) or 0)
    return book.taken(one, liquidity, least)


def _needed(book: Book, one: ConfirmedPosition, position: LpV2Position | LpV3Position, aim: Bounds) -> int:
    """Least liquidity of this position that brings everything to the aim, at least min_trade worth of it; all if that is not enough."""
    whole = _capped(book, one, position.liquidity)
    bare = book.bare(one, position)
    least = book.step.limits.min_trade or Fraction(0)
    low = min(whole, max(1, ceil_int(position.liquidity * least / bare))) if bare > 0 else whole
    if not take(book, one, position, whole).load().within(aim):
        return whole
    high = whole
    if take(book, one, position, low).load().within(aim):
        high = low
    # Loss and worth of a position are proportional to its liquidity; a thousandth of it is near enough to the least.
    while high - low > max(1, whole // 1_000):
        middle = (low + high) // 2
        low, high = (low, middle) if take(book, one, position, middle).load().within(aim) else (middle, high)
    stays = bare * (whole - high) / position.liquidity
    nothing = max(exact.principal(position, high)) == 0  # fees come with any part, but none goes out without a minimum
    return whole if nothing or stays < least else high  # what would stay is not worth a transaction of its own


def _capped(book: Book, one: ConfirmedPosition, liquidity: int) -> int:
    """LP tokens of a pair are paid to the router: no more than this step has approved."""
    return liquidity if one.token_id is not None else min(liquidity, dict(book.step.spend_caps).get(one.contract, liquidity))


def _rank(book: Book, one: ConfirmedPosition, position: LpPosition, gas_unit_value: Value) -> Fraction:
    """Loss avoided per unit of cost; larger goes first."""
    price0, price1 = book.prices[one.token0], book.prices[one.token1]
    curve = loss.curve(position, price0, price1)
    if curve is None:
        return Fraction(-1)
    bare = book.bare(one, position)
    avoided = bare * loss.expected_loss(curve, one.volatility_bps, one.horizon_s)
    units = gas.V2_REMOVE_UNITS if isinstance(position, LpV2Position) else gas.V3_WITHDRAW_UNITS
    share_bps = book.step.limits.plan_cost_bps
    forgone = bare * (FORGONE_BPS if share_bps is None else share_bps) / BPS if curve.in_range else Fraction(0)
    cost = units * gas_unit_value + forgone
    return avoided / cost if cost > 0 else avoided


def _share(value: Value, load: Load) -> str:
    return words.percent(value / load.total) if load.total > 0 else "of nothing"
