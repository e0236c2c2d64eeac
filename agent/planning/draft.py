"""A plan in the making: legs in exact integers, their balance changes and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from agent.model import Leg, LegFunding, PlanCost, Pool, StepInput
from agent.planning.gas import gas_value, plan_gas_units, with_payment_legs
from agent.planning.problem import UNBOUNDED_BPS, Problem
from agent.policy import approvals
from agent.policy.minimum import APPROVAL_GAS
from agent.units import Value


@dataclass(slots=True)
class PlanDraft:
    """Legs so far with their effects. `barred` are the pools of legs below their fair floor, with
    the reason, and `unfair` the value not traded because of them.
    """

    legs: list[Leg] = field(default_factory=list)
    leg_gas: list[int] = field(default_factory=list)
    delta: dict[str, int] = field(default_factory=dict)
    sold: dict[str, int] = field(default_factory=dict)
    bought: dict[str, int] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)
    barred: dict[str, str] = field(default_factory=dict)
    unfair: dict[str, Value] = field(default_factory=dict)
    fees: Value = Fraction(0)
    impact: Value = Fraction(0)
    skew: Value = Fraction(0)
    gross: Value = Fraction(0)

    def gas_units(self, problem: Problem) -> int:
        """Gas of the transaction, payment in native coin included; none without legs."""
        return plan_gas_units(
            problem.gas, with_payment_legs(problem.coin, self.legs), sum(self.leg_gas)
        )

    def chains(self) -> list[list[int]]:
        """Return positions of the legs of each chain, in order: up to the leg that pays the
        wallet.
        """
        ends = [number + 1 for number, leg in enumerate(self.legs) if leg.sink is LegFunding.WALLET]
        return [list(range(a, b)) for a, b in zip([0, *ends], ends, strict=False)]

    def cost(self, problem: Problem) -> PlanCost:
        """Return the cost of all legs in numeraire base units, missing approvals included."""
        needed = approvals.count(
            approvals.swap_spend(with_payment_legs(problem.coin, self.legs)), problem.gas.allowances
        )
        swaps, before = (
            gas_value(units, 1, problem.gas_unit_value)
            for units in (self.gas_units(problem), APPROVAL_GAS * needed)
        )
        return PlanCost(self.fees, self.impact, self.skew, swaps, before)

    def turnover(self, problem: Problem) -> Value:
        """Half the sum of absolute changes of holdings in value."""
        return (
            sum((abs(raw) * problem.price(token) for token, raw in self.delta.items()), Fraction(0))
            / 2
        )


# --- Ends of the ticks read, beyond which a plan or a quote knows nothing of a pool.


FULL = Fraction(999, 1_000)
"""Fraction of the known ticks from which a leg counts as reaching their end: the solve stops
slightly before a bound.
"""


def plan_pools_out_of_ticks(step: StepInput, legs: Iterable[Leg]) -> tuple[str, ...]:
    """Return pools in which a plan's legs reach the end of the known ticks before
    limits.price_impact binds.
    """
    limit_bps = step.limits.price_impact_bps
    bound_bps = UNBOUNDED_BPS if limit_bps is None else min(limit_bps, UNBOUNDED_BPS)
    return pools_out_of_ticks({pool.address: pool for pool in step.snapshot.pools}, legs, bound_bps)


def pools_out_of_ticks(
    pools: Mapping[str, Pool], legs: Iterable[Leg], impact_bps: int
) -> tuple[str, ...]:
    """Return pools in which the legs reach the end of the known ticks before moving the price by
    `impact_bps`.
    """
    sold: Counter[tuple[str, str]] = Counter()
    for leg in legs:
        if leg.pool in pools:
            sold[leg.pool, leg.token_in] += leg.amount_in_raw
    return tuple(
        pool
        for (pool, token_in), raw in sorted(sold.items())
        if pools[pool].runs_out(token_in, impact_bps)
        and raw >= FULL * pools[pool].max_in(token_in, impact_bps)
    )
