"""Futures decisions and plans as the core counts them: failures, gas and approvals."""

from __future__ import annotations

from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.model import AdjustFutures, Decision, FuturesPlan, FuturesPolicy, Plan, StepInput

MARGIN = "margin"
"""Name under which failed deposits into the margin account are counted."""


def exit_name(plan: Plan) -> str:
    """Return the market of the first reduction, MARGIN for a deposit; empty for any other plan."""
    futures = planned_futures(plan)
    if futures is None or not futures.is_reducing:
        return ""
    if futures.account_actions:
        return MARGIN
    if futures.orders:
        return futures.orders[0].market
    return f"{futures.trigger} {futures.resting[0].market}"


def needs_no_gas(step: StepInput, decision: Decision) -> bool:
    """True for orders at an off-chain venue."""
    account = margin_account(step.snapshot)
    return isinstance(decision, AdjustFutures) and account is not None and not account.is_on_chain


def deposit(step: StepInput, plan: Plan) -> tuple[str, int, str]:
    """Return collateral, base units and vault of the plan's deposit."""
    futures, policy = planned_futures(plan), futures_policy(step)
    if futures is None or policy is None:
        return "", 0, ""
    return policy.collateral, futures.top_up_raw, policy.vault


def action_count(plan: Plan) -> int:
    """Return the number of the plan's futures actions."""
    return len(plan.layer(FuturesPlan).actions)


def place(step: StepInput) -> str:
    """Return the margin account's name; empty without futures."""
    return "" if futures_policy(step) is None else "margin"


def spenders(step: StepInput) -> dict[str, str]:
    """Return the vault, which may hold an allowance of the collateral, with its role."""
    return vault_spender(futures_policy(step))


def vault_spender(policy: FuturesPolicy | None) -> dict[str, str]:
    """Return the same for a policy; empty for an off-chain venue and without futures."""
    return {policy.vault: "futures vault"} if policy is not None and policy.vault else {}
