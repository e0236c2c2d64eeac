"""Liquidity moves at this block: first withdrawals that a limit requires, else moves towards the
targets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm.lp import positions
from agent.errors import Refused
from agent.model import LpTarget, StepInput, Verdict
from agent.policy.liquidity.book import (
    NO_ADJUSTMENT,
    LiquidityAdjustment,
    ProvideMove,
    open_position_book,
    pool_price,
)
from agent.policy.liquidity.targets import (
    AdjustmentBuilder,
    adjust_to_target,
    is_out_of_range,
    target_label,
    target_positions,
    withdraw_to_limits,
)
from agent.units import Price, Value


def limit_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the withdrawals that an exceeded limit requires; NO_ADJUSTMENT while both hold. Raises
    Refused if an input is unknown.
    """
    if not step.portfolio.positions:
        return NO_ADJUSTMENT
    return withdraw_to_limits(
        open_position_book(step, prices), gas_unit_value(step, prices, needed=False)
    )


def target_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the moves towards the liquidity targets, within budget. Raises Refused if an input is
    unknown.
    """
    if not step.portfolio.lp_targets:
        return NO_ADJUSTMENT
    builder = AdjustmentBuilder(
        open_position_book(step, prices),
        gas_unit_value(step, prices, needed=step.limits.plan_cost_bps is not None),
    )
    for target in step.portfolio.lp_targets:
        adjust_to_target(builder, target)
    return LiquidityAdjustment(
        tuple(builder.moves), "; ".join(builder.reasons), tuple(builder.skipped)
    )


def next_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the required withdrawals, else the moves towards the targets."""
    first = limit_adjustment(step, prices)
    return first if first.over else target_adjustment(step, prices)


def restrict_to_pools(step: StepInput, pools: Collection[str]) -> StepInput:
    """Return the step with targets only in these pools; with all targets if none is named."""
    if not pools:
        return step
    kept = tuple(target for target in step.portfolio.lp_targets if target.pool in pools)
    return replace(step, portfolio=replace(step.portfolio, lp_targets=kept))


def gas_unit_value(step: StepInput, prices: Mapping[str, Price], needed: bool) -> Value:
    """Value of a unit of gas in numeraire base units; zero if it has no price and is not `needed`,
    else Refused.
    """
    native = prices.get(step.portfolio.wrapped_native)
    base_wei = step.snapshot.head.base_fee_wei
    price_wei = (
        step.snapshot.gas_price_wei
        if base_wei is None
        else base_wei + step.snapshot.priority_fee_wei
    )
    if native is not None:
        return price_wei * native
    if needed:
        raise Refused(
            "gas cannot be valued: the wrapped native coin has no reference price",
            (
                Verdict(
                    "plan_cost", "gas without a price", f"{step.limits.plan_cost_bps} bps", False
                ),
            ),
            "add the wrapped native coin to portfolio.hubs, or give it a feed",
        )
    return Fraction(0)


# --- Status of each liquidity target: its pool's share of the portfolio, due moves, and skipped
# ones with reasons.


@dataclass(frozen=True, slots=True)
class TargetReport:
    """Report on one liquidity target.

    `value` is provided to its pool, `fees` of it are uncollected, `share` is its share of the
    portfolio (None for an empty one). `left_range` are positions whose range the reference price
    has left. `pool_off` is the pool's deviation from the reference. `asks` are the moves due now,
    before triggers and cooldown; `leaves` the skipped ones with their reasons.
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
    """Every target in the order of the config. Raises Refused while a position or price is
    unknown.
    """
    if not step.portfolio.lp_targets:
        return ()
    book, wanted = open_position_book(step, prices), next_adjustment(step, prices)
    total = book.load().total
    pools = {pool.address: pool for pool in step.snapshot.pools}
    found = []
    for target in step.portfolio.lp_targets:
        own = target_positions(book, target)
        value = sum((book.value_of(one, position) for one, position in own), Fraction(0))
        fees = sum(
            (book.value(one, positions.uncollected_fees(position)) for one, position in own),
            Fraction(0),
        )
        price = pool_price(pools[target.pool]) if target.pool in pools else None
        names = {one.name for one, _ in own}
        asks = [
            move.reason
            for move in wanted.moves
            if (move.target is target if isinstance(move, ProvideMove) else move.one.name in names)
        ]
        leaves = [
            item.why
            for item in wanted.skipped
            if item.what == target_label(target) or item.what in names
        ]
        found.append(
            TargetReport(
                target=target,
                value=value,
                fees=fees,
                share=value / total if total > 0 else None,
                left_range=tuple(
                    one.name
                    for one, position in own
                    if is_out_of_range(position, book.ratio(target))
                ),
                pool_off=None if price is None else abs(price / book.ratio(target) - 1),
                asks=tuple(asks),
                leaves=tuple(leaves),
            )
        )
    return tuple(found)
