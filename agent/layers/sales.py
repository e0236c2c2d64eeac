"""What the layers say of a plan's sales: how much may be sold, and what a sale costs besides."""

from __future__ import annotations

from collections.abc import Callable

from agent.layers.holding import planning as holding
from agent.layers.tax import planning as tax
from agent.model import Plan, Rebalance, StepInput
from agent.planning import planner
from agent.units import Value

SALE_LIMITS: tuple[Callable[[StepInput, Rebalance, Plan, tuple[Value, str] | None], Plan], ...] = (
    holding.without_held_sales,
    tax.within_year_limit,
)
"""Return the plan, or one that sells less, within a layer's limit and the bound on turnover. Raise
NothingPlanned if the limit allows no plan. Each gets the decision of the plan before it, whose goal
says what an earlier limit leaves.
"""
TAXED_GAINS: tuple[Callable[[StepInput, Plan], Value], ...] = (tax.taxed_gain,)
"""Gains of a plan on which tax is due."""
PLAN_TAXES: tuple[Callable[[StepInput, Plan], Value], ...] = (tax.plan_tax,)
"""Tax on a plan's sales that counts as its cost, in numeraire base units."""


def plan_sales(
    step: StepInput, decision: Rebalance, turnover_cap: tuple[Value, str] | None = None
) -> Plan:
    """Return the planner's plan within the limits of the layers. `turnover_cap` bounds its
    turnover, with the name of that limit. Raises Refused as the planner does.
    """
    plan = planner.plan(step, decision, turnover_cap=turnover_cap)
    for limit_sales in SALE_LIMITS:
        if isinstance(plan.decision, Rebalance):
            plan = limit_sales(step, plan.decision, plan, turnover_cap)
    return plan
