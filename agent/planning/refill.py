"""The plan that only refills gas money: wrapped coin unwrapped by the wallet itself, without router or approval."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import Cost, Holding, Plan, StepInput, TopUp
from agent.planning.gas import gas_price_wei, gas_value
from agent.planning.payments import changes, unwrap
from agent.policy import coin
from agent.policy.drift import drift
from agent.reference import reference_prices
from agent.units import NATIVE


def plan_top_up(step: StepInput, decision: TopUp) -> Plan:
    """One leg that unwraps what the decision says. Raises Refused when a price or balance is missing."""
    token = step.portfolio.wrapped_native
    prices = {address: found.price for address, found in reference_prices(step).prices.items()}
    if token not in prices:
        raise Refused("the wrapped native coin has no reference price", remedy="give it a feed")
    legs = (unwrap(token, decision.raw),)
    moved = changes(legs)
    snapshot = step.snapshot
    holdings = tuple(Holding(held.token, held.raw + moved.get(held.token, 0)) for held in snapshot.holdings)
    native_wei = snapshot.native_wei + moved[NATIVE]
    drifts = drift(replace(step, snapshot=replace(snapshot, holdings=holdings, native_wei=native_wei)), prices)
    raw = {held.token: held.raw for held in holdings}
    nothing = Fraction(0)
    return Plan(
        block=snapshot.head.number,
        decision=decision,
        legs=legs,
        holdings_after=tuple((one.token, raw[one.token]) for one in drifts),
        weights_after_bps=tuple((one.token, one.weight_bps) for one in drifts),
        cost=Cost(nothing, nothing, nothing, gas_value(coin.UNWRAP_GAS, gas_price_wei(snapshot), prices[token])),
        turnover=nothing,
        gross_volume=nothing,
        gas_units=coin.UNWRAP_GAS,
        gap_bps=None,
        verdicts=(),
        skipped=(),
        expires_block=snapshot.head.number + step.execution.expire_blocks,
        native_after_wei=native_wei,
    )
