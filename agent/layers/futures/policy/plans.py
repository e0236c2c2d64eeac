"""Futures as the core counts them: where margin is, gas of emergencies, and approvals."""

from __future__ import annotations

from agent.layers.futures.state import futures_policy, planned_futures
from agent.model import MARGIN_PLACE, FuturesLimits, FuturesPolicy, Limits, Plan, StepInput

EMERGENCY_GAS_PRICE_MULTIPLE = 5
"""Default fee ceiling of an emergency, as a multiple of limits.gas_price."""


def place_name(step: StepInput) -> str:
    """Return the margin account's name; empty without futures."""
    return "" if futures_policy(step) is None else MARGIN_PLACE


def spenders(step: StepInput) -> dict[str, str]:
    """Return the vault, which may hold an allowance of the collateral, with its role."""
    return vault_spender(futures_policy(step))


def vault_spender(policy: FuturesPolicy | None) -> dict[str, str]:
    """Return the same for a policy; empty for an off-chain venue and without futures."""
    return {policy.vault: "futures vault"} if policy is not None and policy.vault else {}


def emergency_gas_price_limit_wei(futures_limits: FuturesLimits, limits: Limits) -> int | None:
    """Return the maximum gas price of an emergency, in wei (None: unlimited):
    futures.limits.emergency_gas_price, else EMERGENCY_GAS_PRICE_MULTIPLE times limits.gas_price.
    """
    if futures_limits.emergency_gas_price_wei:
        return futures_limits.emergency_gas_price_wei
    return (
        None
        if limits.gas_price_wei is None
        else EMERGENCY_GAS_PRICE_MULTIPLE * limits.gas_price_wei
    )


def emergency_gas_per_day_wei(futures_limits: FuturesLimits, limits: Limits) -> int | None:
    """Return the maximum gas cost of emergencies in 24 h, in wei, separate from all other gas
    (None: unlimited): futures.limits.emergency_gas_per_day, else limits.gas_per_day.
    """
    return futures_limits.emergency_gas_per_day_wei or limits.gas_per_day_wei


def gas_price_limit_wei(step: StepInput, plan: Plan, limit_wei: int | None) -> int | None:
    """Return the maximum gas price of a plan, in wei (None: unlimited): that of an emergency, else
    `limit_wei`.
    """
    layer_plan = planned_futures(plan)
    policy = futures_policy(step)
    if layer_plan is None or not layer_plan.is_emergency or policy is None:
        return limit_wei
    return emergency_gas_price_limit_wei(policy.limits, step.limits)
