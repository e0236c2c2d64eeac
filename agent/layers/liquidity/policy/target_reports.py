"""Status of each liquidity target: its pool's share of the portfolio, due moves, and skipped ones
with reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.amm.lp import positions
from agent.layers.liquidity.policy.adjustments import next_adjustment
from agent.layers.liquidity.policy.book import (
    open_position_book,
    pool_price,
)
from agent.layers.liquidity.policy.moves import (
    ProvideMove,
)
from agent.layers.liquidity.policy.provisions import (
    target_label,
)
from agent.layers.liquidity.policy.targets import (
    is_out_of_range,
    target_positions,
)
from agent.model import (
    LpTarget,
    StepInput,
)
from agent.units import Price, Value


@dataclass(frozen=True, slots=True)
class TargetReport:
    """Report on one liquidity target. `value` is the value provided to its pool, including `fees`,
    which are uncollected; `share` is its share of the portfolio (None for an empty one).
    `out_of_range_names` are positions whose range no longer contains the reference price.
    `pool_deviation` is the pool's deviation from the reference. `due_reasons` are those of the
    moves due now, before triggers and cooldown; `skipped_reasons` those for skipping moves.
    """

    target: LpTarget
    value: Value
    fees: Value
    share: Fraction | None
    out_of_range_names: tuple[str, ...]
    pool_deviation: Fraction | None
    due_reasons: tuple[str, ...]
    skipped_reasons: tuple[str, ...]


def target_reports(step: StepInput, prices: Mapping[str, Price]) -> tuple[TargetReport, ...]:
    """Return a report on every target, in the order of the config. Raises Refused while a position
    or price is unknown.
    """
    if not step.portfolio.lp_targets:
        return ()
    book = open_position_book(step, prices)
    adjustment = next_adjustment(step, prices)
    total_value = book.exposure().portfolio_value
    pool_by_address = {pool.address: pool for pool in step.snapshot.pools}
    reports = []
    for target in step.portfolio.lp_targets:
        pool_positions = target_positions(book, target)
        provided_value = sum(
            (
                book.position_value(confirmed_position, position)
                for confirmed_position, position in pool_positions
            ),
            Fraction(0),
        )
        fees_value = sum(
            (
                book.pair_value(confirmed_position, positions.uncollected_fees(position))
                for confirmed_position, position in pool_positions
            ),
            Fraction(0),
        )
        spot_price = (
            pool_price(pool_by_address[target.pool]) if target.pool in pool_by_address else None
        )
        position_names = {confirmed_position.name for confirmed_position, _ in pool_positions}
        due_reasons = [
            move.reason
            for move in adjustment.moves
            if (
                move.target is target
                if isinstance(move, ProvideMove)
                else move.confirmed_position.name in position_names
            )
        ]
        skipped_reasons = [
            skipped_move.why
            for skipped_move in adjustment.skipped
            if skipped_move.subject == target_label(target)
            or skipped_move.subject in position_names
        ]
        reports.append(
            TargetReport(
                target=target,
                value=provided_value,
                fees=fees_value,
                share=provided_value / total_value if total_value > 0 else None,
                out_of_range_names=tuple(
                    confirmed_position.name
                    for confirmed_position, position in pool_positions
                    if is_out_of_range(position, book.reference_price(target))
                ),
                pool_deviation=None
                if spot_price is None
                else abs(spot_price / book.reference_price(target) - 1),
                due_reasons=tuple(due_reasons),
                skipped_reasons=tuple(skipped_reasons),
            )
        )
    return tuple(reports)
