"""Emergencies of the futures layer: positions closed ahead of liquidation, with a separate fee
ceiling and gas budget.
"""

from __future__ import annotations

from agent.model import AdjustFutures, FuturesLimits, Limits, Plan, StepInput
from agent.policy.futures.decide import stale_markets
from agent.policy.futures.targets import emergency_orders

FEE_MULTIPLE = 5
"""Default fee ceiling of an emergency, as a multiple of limits.gas_price."""


def emergency_need(step: StepInput) -> AdjustFutures | None:
    """Return the emergency of the account, judged at the marks, as liquidation is; None if there is
    none, while the account is unknown, and if no market of its orders has a fresh index.
    """
    account, policy = step.snapshot.futures, step.futures
    if account is None or policy is None or step.futures_held:
        return None
    if not emergency_orders(account, policy).keys() - stale_markets(step).keys():
        return None
    return AdjustFutures("futures: liquidation is near", is_reducing=True)


def is_emergency(plan: Plan | None) -> bool:
    """True if the plan closes positions ahead of liquidation."""
    return plan is not None and plan.futures is not None and plan.futures.is_emergency


def fee_ceiling_wei(futures: FuturesLimits, limits: Limits) -> int | None:
    """Return the maximum gas price of an emergency, in wei (None: unlimited):
    futures.limits.emergency_gas_price, else FEE_MULTIPLE times limits.gas_price.
    """
    if futures.emergency_gas_price_wei:
        return futures.emergency_gas_price_wei
    return None if limits.gas_price_wei is None else FEE_MULTIPLE * limits.gas_price_wei


def gas_per_day_wei(futures: FuturesLimits, limits: Limits) -> int | None:
    """Return the maximum gas cost of emergencies in 24 h, in wei, separate from all other gas
    (None: unlimited): futures.limits.emergency_gas_per_day, else limits.gas_per_day.
    """
    return futures.emergency_gas_per_day_wei or limits.gas_per_day_wei


def step_fee_ceiling_wei(step: StepInput, plan: Plan | None) -> int | None:
    """Return the fee ceiling of a plan, wei; None: unlimited."""
    if step.futures is None or not is_emergency(plan):
        return step.limits.gas_price_wei
    return fee_ceiling_wei(step.futures.limits, step.limits)
