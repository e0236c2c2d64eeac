"""Steps with tax lots, and the taxable gain of plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.accounting.tax_lots import planned_gains
from agent.layers.tax.state import TaxState
from agent.model import LotMethod, OpenLot, Plan, StepInput, TaxInputs
from agent.planning.proposals import propose_rebalance
from agent.reference import reference_prices
from agent.units import Value
from tests.support.builders import step_input
from tests.support.constants import ETHER, USD
from tests.support.tokens import WETH


def tax_inputs(step: StepInput) -> TaxInputs:
    """Return the tax inputs of a step, which has some."""
    inputs = step.layer(TaxState).inputs
    assert inputs is not None
    return inputs


def with_tax(step: StepInput, **changes: object) -> StepInput:
    """Return the step with changed tax inputs."""
    return step.with_layer(TaxState(replace(tax_inputs(step), **changes)))  # type: ignore[arg-type]  # field names, checked by replace


def with_lots(
    step: StepInput,
    lots: Sequence[OpenLot],
    *,
    method: LotMethod = LotMethod.FIFO,
    rate_bps: int = 0,
    realised: Value | int = 0,
    year_limit: Value | None = None,
) -> StepInput:
    """Return the step with these lots, taxed in the numeraire."""
    return step.with_layer(TaxState(TaxInputs(method, "", Fraction(1), tuple(lots), Fraction(realised), year_limit, rate_bps)))


def overweight_step(limit_usd: int | None, realised_usd: int = 0, cost_usd: int = 1_000, method: LotMethod = LotMethod.FIFO) -> StepInput:
    """Return a step with 3.5 WETH at 2,000, bought at `cost_usd`, and 3,000 USDC, half of each wanted: one WETH has to go."""
    lots = [OpenLot(WETH.address, ETHER // 2, Fraction(cost_usd * USD, 2), number) for number in range(7)]
    limit = None if limit_usd is None else Fraction(limit_usd * USD)
    return with_lots(step_input(values={"WETH": 7_000, "USDC": 3_000}), lots, method=method, realised=realised_usd * USD, year_limit=limit)


def rebalance_plan(step: StepInput) -> Plan:
    """Return the plan of the step's rebalance, which has one."""
    plan = propose_rebalance(step).plan
    assert plan is not None
    return plan


def plan_gain(step: StepInput, plan: Plan) -> Value:
    """Return the taxable gain of a plan in numeraire base units."""
    portfolio = step.portfolio
    prices = reference_prices(step).price_by_token
    now_s = step.snapshot.head.timestamp_s
    gains = planned_gains(plan, tax_inputs(step), prices, portfolio.numeraire.address, portfolio.wrapped_native, now_s)
    return sum((gain.gain for gain in gains), Fraction(0))
