"""What the layers say of a plan's sales: how much may be sold, and what a sale costs besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.holding import planning as holding
from agent.layers.tax import planning as tax
from agent.model import Goal, Plan, Rebalance, StepInput
from agent.planning import planner
from agent.units import Value


@dataclass(frozen=True, slots=True)
class SaleRules:
    """A layer's rules of a plan's sales."""

    limit_sales: Callable[[StepInput, Rebalance, Plan, tuple[Value, str] | None], Plan]
    """Returns the plan, or one that sells less, within the layer's limit and the bound on turnover.
    Raises NothingPlanned if the limit allows no plan. It gets the decision of the plan before it,
    whose goal says what an earlier limit leaves.
    """
    sale_caps: Callable[[StepInput, Plan], Mapping[str, int]] = lambda *_: {}
    """Base units by token that slices with the sales of this plan may sell together; a token
    without a limit, or with one in the goal, has none.
    """
    taxed_gain: Callable[[StepInput, Plan], Value] = lambda *_: Fraction(0)
    """Gain of the plan on which tax is due, in numeraire base units. Raises NothingPlanned if it is
    unknown.
    """
    plan_tax: Callable[[StepInput, Plan], Value] = lambda *_: Fraction(0)
    """Tax on the plan's sales that counts as its cost, in numeraire base units."""


SALE_RULES: tuple[SaleRules, ...] = (
    SaleRules(holding.without_held_sales),
    SaleRules(tax.within_year_limit, tax.sale_caps, tax.taxed_gain, tax.plan_tax),
)


def plan_sales(
    step: StepInput, decision: Rebalance, turnover_cap: tuple[Value, str] | None = None
) -> Plan:
    """Return the planner's plan within the limits of the layers. `turnover_cap` bounds its
    turnover, with the name of that limit. Raises Refused as the planner does.
    """
    plan = planner.plan(step, decision, turnover_cap=turnover_cap)
    for rules in SALE_RULES:
        if isinstance(plan.decision, Rebalance):
            plan = rules.limit_sales(step, plan.decision, plan, turnover_cap)
    return plan


def sale_caps(step: StepInput, plan: Plan) -> dict[str, int]:
    """Return the base units by token that slices with the sales of this plan may sell together; a
    token without a cap is left out.
    """
    goal = Goal(())
    for rules in SALE_RULES:
        goal = goal.with_sale_caps(rules.sale_caps(step, plan))
    return dict(goal.max_sold_raw_by_token)


def taxed_gain(step: StepInput, plan: Plan) -> Value:
    """Return the gain of a plan on which tax is due, in numeraire base units. Raises NothingPlanned
    if it is unknown.
    """
    return sum((rules.taxed_gain(step, plan) for rules in SALE_RULES), Fraction(0))


def plan_tax(step: StepInput, plan: Plan) -> Value:
    """Return the tax on a plan's sales that counts as its cost, in numeraire base units."""
    return sum((rules.plan_tax(step, plan) for rules in SALE_RULES), Fraction(0))
