"""Where each liquidity target stands: what its pool holds of the portfolio, and what is asked for or left now, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.lp import exact
from agent.model import LpTarget, StepInput
from agent.policy.lp_adding import named
from agent.policy.lp_book import open_book, pool_price
from agent.policy.lp_moves import In
from agent.policy.lp_targets import beside, mine
from agent.policy.lp_wish import wish
from agent.units import Price, Value


@dataclass(frozen=True, slots=True)
class TargetReport:
    """One target. `value` lies in its pool with `fees` uncollected of it, `share` of the portfolio that is (None: of nothing).

    `left_range` are positions whose range the reference price has left. `pool_off` is how far the pool is from the reference.
    `asks` is what the target asks for now, before triggers and cooldown; `leaves` what it leaves, with the reasons.
    """

    target: LpTarget
    value: Value
    fees: Value
    share: Fraction | None
    left_range: tuple[str, ...]
    pool_off: Fraction | None
    asks: tuple[str, ...]
    leaves: tuple[str, ...]


def target_reports(step: StepInput, prices: Mapping[str, Price]) -> tuple[TargetReport, ...]:
    """Every target in the order of the config. Raises Refused while a position or price is unknown."""
    if not step.portfolio.lp_targets:
        return ()
    book, wanted = open_book(step, prices), wish(step, prices)
    total = book.load().total
    pools = {pool.address: pool for pool in step.snapshot.pools}
    found = []
    for target in step.portfolio.lp_targets:
        own = mine(book, target)
        value = sum((book.worth(one, position) for one, position in own), Fraction(0))
        fees = sum((book.value(one, exact.uncollected(position)) for one, position in own), Fraction(0))
        price = pool_price(pools[target.pool]) if target.pool in pools else None
        names = {one.name for one, _ in own}
        asks = [move.reason for move in wanted.moves if (move.target is target if isinstance(move, In) else move.one.name in names)]
        leaves = [item.why for item in wanted.skipped if item.what == named(target) or item.what in names]
        found.append(
            TargetReport(
                target=target,
                value=value,
                fees=fees,
                share=value / total if total > 0 else None,
                left_range=tuple(one.name for one, position in own if beside(position, book.ratio(target))),
                pool_off=None if price is None else abs(price / book.ratio(target) - 1),
                asks=tuple(asks),
                leaves=tuple(leaves),
            )
        )
    return tuple(found)
