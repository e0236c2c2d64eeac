"""Futures decisions and plans as the core counts them: failures, gas and approvals."""

from __future__ import annotations

from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.model import (
    AdjustFutures,
    Decision,
    FuturesLimits,
    FuturesPlan,
    FuturesPolicy,
    Limits,
    Plan,
    StepInput,
)

MARGIN_PLACE = "margin"
"""Name of the margin account among the places of holdings, and under which failed deposits into it
are counted.
"""
EMERGENCY_GAS_PRICE_MULTIPLE = 5
"""Default fee ceiling of an emergency, as a multiple of limits.gas_price."""


def failure_key(plan: Plan) -> str:
    """Return the market of the first reduction, MARGIN_PLACE for a deposit; empty for any other
    plan.
    """
    layer_plan = planned_futures(plan)
    if layer_plan is None or not layer_plan.is_reducing:
        return ""
    if layer_plan.account_actions:
        return MARGIN_PLACE
    if layer_plan.orders:
        return layer_plan.orders[0].market
    return f"{layer_plan.trigger} {layer_plan.resting_actions[0].market}"


def needs_no_gas(step: StepInput, decision: Decision) -> bool:
    """True for orders at an off-chain venue."""
    account = margin_account(step.snapshot)
    return isinstance(decision, AdjustFutures) and account is not None and not account.is_on_chain


def planned_deposit(step: StepInput, plan: Plan) -> tuple[str, int, str]:
    """Return collateral, base units and vault of the plan's deposit."""
    layer_plan = planned_futures(plan)
    policy = futures_policy(step)
    if layer_plan is None or policy is None:
        return "", 0, ""
    return policy.collateral, layer_plan.top_up_raw, policy.vault


def action_count(plan: Plan) -> int:
    """Return the number of the plan's futures actions."""
    return len(plan.layer(FuturesPlan).actions)


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


def max_emergency_gas_price_wei(step: StepInput) -> int | None:
    """Return the maximum gas price of an emergency, in wei; None: unlimited."""
    policy = futures_policy(step)
    return (
        step.limits.gas_price_wei
        if policy is None
        else emergency_gas_price_limit_wei(policy.limits, step.limits)
    )
