"""Top-up of gas money: wrapped coin unwrapped by the wallet itself, without router or approval."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    Holding,
    Plan,
    PlanCost,
    StepInput,
    TopUp,
    wallet_changes,
)
from agent.planning.approval_gas import with_data_fee
from agent.planning.gas import build_unwrap_leg, gas_value
from agent.policy import native_coin
from agent.policy.drift import compute_drifts
from agent.reference import reference_prices
from agent.units import NATIVE


def plan_top_up(step: StepInput, decision: TopUp) -> Plan:
    """Return a plan of one leg that unwraps the decision's amount. Raises Refused if a price or
    balance is missing.
    """
    token = step.portfolio.wrapped_native
    prices = reference_prices(step).price_by_token
    if token not in prices:
        raise Refused("the wrapped native coin has no reference price", remedy="give it a feed")
    legs = (build_unwrap_leg(token, decision.raw),)
    balance_changes_raw = wallet_changes(legs)
    snapshot = step.snapshot
    holdings = tuple(
        Holding(holding.token, holding.raw + balance_changes_raw.get(holding.token, 0))
        for holding in snapshot.holdings
    )
    native_wei = snapshot.native_wei + balance_changes_raw[NATIVE]
    drifts_after = compute_drifts(
        replace(step, snapshot=replace(snapshot, holdings=holdings, native_wei=native_wei)), prices
    )
    raw_after_by_token = {holding.token: holding.raw for holding in holdings}
    zero_value = Fraction(0)
    plan = Plan(
        block=snapshot.head.number,
        decision=decision,
        legs=legs,
        holdings_after=tuple(
            (drift.token, raw_after_by_token[drift.token]) for drift in drifts_after
        ),
        weights_after_bps=tuple((drift.token, drift.weight_bps) for drift in drifts_after),
        cost=PlanCost(
            zero_value,
            zero_value,
            zero_value,
            gas_value(native_coin.UNWRAP_GAS, snapshot.current_gas_price_wei, prices[token]),
        ),
        turnover=zero_value,
        gross_volume=zero_value,
        gas_units=native_coin.UNWRAP_GAS,
        gap=None,
        verdicts=(),
        skipped=(),
        expires_block=snapshot.head.number + step.execution.expire_blocks,
        native_after_wei=native_wei,
    )
    return with_data_fee(step, plan, prices[token])
