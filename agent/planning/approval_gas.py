"""Approvals that a plan still needs before it can be sent, and their gas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers import questions as layer_questions
from agent.model import (
    Leg,
    LegPlace,
    Plan,
    Provide,
    Snapshot,
    StepInput,
    TopUp,
)
from agent.model.rollups import MAX_FEE_RISE
from agent.policy import native_coin
from agent.policy.minimum import ACTION_BYTES, APPROVAL_BYTES, APPROVAL_GAS, LEG_BYTES
from agent.units import NATIVE, ceil_int


def swap_spend(legs: Sequence[Leg]) -> dict[str, int]:
    """Return the base units that swaps take from the wallet, by token; native coin is sent along
    and needs no approval.
    """
    spent_raw: dict[str, int] = {}
    for leg in legs:
        if leg.source is LegPlace.WALLET and leg.token_in != NATIVE:
            spent_raw[leg.token_in] = spent_raw.get(leg.token_in, 0) + leg.amount_in_raw
    return spent_raw


def approval_count(amounts_raw: Mapping[str, int], allowances_raw: Mapping[str, int]) -> int:
    """Return the number of approvals for these amounts: one from a zero allowance, two if a smaller
    allowance is reset first.
    """
    short_allowances_raw = [
        allowances_raw.get(token, 0)
        for token, raw in amounts_raw.items()
        if allowances_raw.get(token, 0) < raw
    ]
    return sum(2 if raw > 0 else 1 for raw in short_allowances_raw)


def approval_gas_units(step: StepInput, plan: Plan) -> int:
    """Return the gas of the approvals that the plan still needs. A top-up needs none, because the
    wallet itself unwraps.
    """
    if isinstance(plan.decision, TopUp):
        return 0
    approvals_needed = approval_count(
        swap_spend(plan.legs), _allowances(step.snapshot, step.execution.router)
    )
    for action in plan.layer_actions:
        spender = step.execution.position_contract(action.venue)
        approvals_needed += approval_count(action.spends_raw, _allowances(step.snapshot, spender))
    for layer_config in step.layer_configs:
        if (deposit := layer_config.planned_deposit(plan)) is not None:
            token, raw, spender = deposit
            approvals_needed += approval_count({token: raw}, _allowances(step.snapshot, spender))
    return APPROVAL_GAS * approvals_needed


def revocation_gas_units(plan: Plan) -> int:
    """Return the gas of setting to zero what a pool leaves of the allowances for provided
    liquidity: of one of two tokens, since its price moves before the transaction is mined. Swaps
    use exactly what they were allowed.
    """
    two_sided_actions = [
        action
        for action in plan.layer_actions
        if isinstance(action, Provide) and min(action.desired_raw)
    ]
    return APPROVAL_GAS * len(two_sided_actions)


def worst_gas_wei(step: StepInput, plan: Plan) -> int:
    """Return the largest gas cost of the plan's transactions: gas limits (GAS_MARGIN times the
    estimate) at the fee cap, which is at most limits.gas_price or, in an emergency, that
    emergency's ceiling; on rollups also MAX_FEE_RISE times the data fee.
    """
    gas_price_wei = native_coin.capped_gas_price_wei(
        step.snapshot, layer_questions.gas_price_limit_wei(step, plan)
    )
    allowance_gas_units = approval_gas_units(step, plan) + revocation_gas_units(plan)
    gas_units = ceil_int((plan.gas_units + allowance_gas_units) * native_coin.GAS_MARGIN)
    if not gas_units:  # nothing is sent on chain
        return 0
    revocation_bytes = [APPROVAL_BYTES] * (revocation_gas_units(plan) // APPROVAL_GAS)
    data_fee_wei = MAX_FEE_RISE * step.snapshot.max_fee_beyond_gas_wei(
        gas_units, *calldata_sizes(step, plan), *revocation_bytes
    )
    return gas_units * gas_price_wei + data_fee_wei


def calldata_sizes(step: StepInput, plan: Plan) -> tuple[int, ...]:
    """Return the largest calldata of each transaction of the plan, missing approvals included."""
    swap_bytes = [legs_bytes(plan.legs)] if plan.legs else []
    approvals_needed = approval_gas_units(step, plan) // APPROVAL_GAS
    return (*swap_bytes, *[ACTION_BYTES] * plan.action_count, *[APPROVAL_BYTES] * approvals_needed)


def legs_bytes(legs: Sequence[Leg]) -> int:
    """Return the largest calldata of a transaction of these legs."""
    return LEG_BYTES * (len(legs) + 1)


def with_data_fee(step: StepInput, plan: Plan, native_price: Fraction) -> Plan:
    """Return a plan with the expected data fee of its transactions added to its gas cost; unchanged
    on chains without one.
    """
    if step.snapshot.data_fee is None or not plan.gas_units:
        return plan
    gas_units = plan.gas_units + approval_gas_units(step, plan)
    calldata_bytes = calldata_sizes(step, plan)
    data_fee_value = (
        step.snapshot.expected_fee_beyond_gas_wei(gas_units, *calldata_bytes) * native_price
    )
    return replace(
        plan, cost=replace(plan.cost, gas=plan.cost.gas + data_fee_value, data_fee=data_fee_value)
    )


def _allowances(snapshot: Snapshot, spender: str) -> dict[str, int]:
    return {
        allowance.token: allowance.raw
        for allowance in snapshot.allowances
        if allowance.spender == spender
    }
