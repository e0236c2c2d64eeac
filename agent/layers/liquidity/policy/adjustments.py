"""Liquidity moves at this block: withdrawals that a limit requires, else moves towards the
targets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.liquidity.policy.book import (
    open_position_book,
)
from agent.layers.liquidity.policy.limit_withdrawals import withdraw_to_limits
from agent.layers.liquidity.policy.moves import (
    NO_ADJUSTMENT,
    LiquidityAdjustment,
)
from agent.layers.liquidity.policy.provisions import (
    AdjustmentBuilder,
)
from agent.layers.liquidity.policy.targets import (
    adjust_to_target,
)
from agent.model import (
    Limits,
    Portfolio,
    Snapshot,
    StepInput,
    Verdict,
)
from agent.units import Price, Value


def limit_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the withdrawals that an exceeded limit requires; NO_ADJUSTMENT while
    impermanent_loss and lp_max_weight hold. Raises Refused if an input is unknown.
    """
    if not step.portfolio.positions:
        return NO_ADJUSTMENT
    return withdraw_to_limits(
        open_position_book(step, prices),
        gas_unit_value(step.snapshot, step.portfolio, step.limits, prices, is_needed=False),
    )


def target_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the moves towards the liquidity targets, within budget. Raises Refused if an input is
    unknown.
    """
    if not step.portfolio.lp_targets:
        return NO_ADJUSTMENT
    builder = AdjustmentBuilder(
        open_position_book(step, prices),
        gas_unit_value(
            step.snapshot,
            step.portfolio,
            step.limits,
            prices,
            is_needed=step.limits.plan_cost_bps is not None,
        ),
    )
    for target in step.portfolio.lp_targets:
        adjust_to_target(builder, target)
    return LiquidityAdjustment(
        tuple(builder.moves), "; ".join(builder.reasons), tuple(builder.skipped)
    )


def next_adjustment(step: StepInput, prices: Mapping[str, Price]) -> LiquidityAdjustment:
    """Return the required withdrawals, else the moves towards the targets."""
    required_withdrawals = limit_adjustment(step, prices)
    if required_withdrawals.exceeds_limit:
        return required_withdrawals
    return target_adjustment(step, prices)


def restrict_to_pools(step: StepInput, pools: Collection[str]) -> StepInput:
    """Return the step with targets only in these pools; with all targets if no pool is given."""
    if not pools:
        return step
    targets = tuple(target for target in step.portfolio.lp_targets if target.pool in pools)
    return replace(step, portfolio=replace(step.portfolio, lp_targets=targets))


def gas_unit_value(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    prices: Mapping[str, Price],
    is_needed: bool,
) -> Value:
    """Return the value of a unit of gas in numeraire base units; zero if it has no price and is not
    `is_needed`. Raises Refused if it is needed.
    """
    native_price = prices.get(portfolio.wrapped_native)
    if native_price is not None:
        return snapshot.current_gas_price_wei * native_price
    if is_needed:
        raise Refused(
            "gas cannot be valued: the wrapped native coin has no reference price",
            (Verdict("plan_cost", "gas without a price", f"{limits.plan_cost_bps} bps", False),),
            "add the wrapped native coin to portfolio.hubs, or give it a feed",
        )
    return Fraction(0)
