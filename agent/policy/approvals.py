"""Approvals that a plan still needs before it can be sent, and their gas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.model import Leg, LegFunding, LpAction, Plan, Provide, StepInput, TopUp, Withdraw
from agent.policy.minimum import APPROVAL_GAS
from agent.units import NATIVE


def swap_spend(legs: Sequence[Leg]) -> dict[str, int]:
    """Base units that swaps take from the wallet, by token; native coin is sent along and needs no
    approval.
    """
    amounts: dict[str, int] = {}
    for leg in legs:
        if leg.source is LegFunding.WALLET and leg.token_in != NATIVE:
            amounts[leg.token_in] = amounts.get(leg.token_in, 0) + leg.amount_in_raw
    return amounts


def action_spend(action: LpAction) -> dict[str, int]:
    """Base units that an action with liquidity takes from the wallet at most, by token; LP tokens
    are the pair's own.
    """
    match action:
        case Provide():
            amounts = zip((action.token0, action.token1), action.desired_raw, strict=True)
            return {token: raw for token, raw in amounts if raw > 0}
        case Withdraw(token_id=None):
            return {action.contract: action.liquidity}
        case _:
            return {}


def count(amounts: Mapping[str, int], allowed: Mapping[str, int]) -> int:
    """Return the number of approvals for these amounts: one from an allowance of zero, two from one
    that is too small and reset first.
    """
    short = [allowed.get(token, 0) for token, raw in amounts.items() if allowed.get(token, 0) < raw]
    return sum(2 if raw > 0 else 1 for raw in short)


def gas_units(step: StepInput, plan: Plan) -> int:
    """Gas of the approvals that the plan still needs. A top-up unwraps from the wallet itself, and
    needs none.
    """
    if isinstance(plan.decision, TopUp):
        return 0
    needed = count(swap_spend(plan.legs), _allowed(step, step.execution.router))
    contracts = dict(step.execution.liquidity)
    needed += sum(
        count(action_spend(action), _allowed(step, contracts.get(action.venue, "")))
        for action in plan.actions
    )
    return APPROVAL_GAS * needed


def _allowed(step: StepInput, spender: str) -> dict[str, int]:
    return {one.token: one.raw for one in step.snapshot.allowances if one.spender == spender}
