"""From a goal to a plan: which swaps, through which pools, in which order, at what cost, with which floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.amm.pools import fee_pips
from agent.errors import Refused
from agent.model import Goal, Plan, Rebalance, Skipped, StepInput, Verdict
from agent.planning import one_side
from agent.planning.aims import Aim, aim_at, for_exit, leaving, turnover_left
from agent.planning.assemble import MIN_TRADE, PLAN_COST, assemble, left_undone
from agent.planning.certificate import gap_bps
from agent.planning.choice import OVER_COST
from agent.planning.draft import Draft
from agent.planning.market import Market, open_market
from agent.planning.overshoot import best_paying, beyond
from agent.planning.problem import Problem, build_problem
from agent.planning.refill import plan_top_up
from agent.planning.saving import saving
from agent.planning.settle import DUST, Settled, settle
from agent.planning.swaps import Quote, plan_swap, quote
from agent.planning.whole import sold_whole
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.reference import References, reference_prices
from agent.units import BPS, PIPS, Value, value_text

__all__ = ["NothingPlanned", "Quote", "plan", "plan_swap", "plan_top_up", "quote"]


TIGHTER = 6
"""Times that a zone's bound on what a swap's unit costs is tightened."""
SHRINK = Fraction(19, 20)
"""Least by how much."""
NEARLY = Fraction(5, 4)
"""What impact adds to gas where a move is so small that both come to limits.plan_cost."""


class NothingPlanned(Refused):
    """No move is worth its cost within the limits, or possible at all.

    `kept_by` names the limit of cost or size where nothing else stands in the way: then it is no refusal. Empty otherwise.
    `drift` is the value that would have to move, numeraire base units.
    """

    def __init__(
        self, message: str, verdicts: Sequence[Verdict] = (), remedy: str = "", kept_by: str = "", drift: Value = Fraction(0)
    ) -> None:
        super().__init__(message, verdicts, remedy)
        self.kept_by, self.drift = kept_by, drift


def plan(step: StepInput, decision: Rebalance, references: References | None = None, *, most: tuple[Value, str] | None = None) -> Plan:
    """The swaps that restore the decision's goal within all bounds; what does not fit is left and named in `skipped`.

    A zone's plan comes with what it saves and costs; whether that is worth it, the caller says. `references` are other prices than
    those of the step's own pools, for a step that is only imagined. `most` bounds the plan's turnover, with the limit that says so.
    Raises Refused with verdicts when nothing sensible can be planned: a price or balance is missing, nothing is left of the day's
    turnover, every move would be dust, dearer than plan_cost, or without a route.
    """
    problem = build_problem(step, references or reference_prices(step))
    if problem.total <= 0:
        raise Refused("there is nothing to invest: every balance is zero or reserved", remedy="fund the wallet or lower the reserves")
    aim = aim_at(problem, decision.goal)
    problem = replace(problem, leaving=leaving(problem, decision.goal))
    into = problem.position[step.portfolio.numeraire.address]
    if decision.exit:
        aim = for_exit(aim, into)
    budget, turnover_limit = (None, "") if decision.exit else turnover_left(step, problem.total, decision.apart)
    asks = budget is not None and not step.spend_caps  # what is approved was sized by that limit
    if most is not None and (budget is None or most[0] < budget):
        budget, turnover_limit, asks = *most, False
    at_rest = _at_rest(step, problem, aim) if decision.exit else one_side.untouched(problem, decision.goal)
    market, settled = _affordable(problem, aim, decision.goal, budget, step.limits.min_trade, at_rest)
    if decision.exit:
        settled = sold_whole(market, settled, into, step.limits.min_trade)
    free = None
    if asks and (settled.bounded or not settled.draft.legs or DUST in settled.still.values()):
        free = _affordable(problem, aim, decision.goal, None, step.limits.min_trade, at_rest)
    skipped = left_undone(step, market, aim, settled, turnover_limit, free)
    if not settled.draft.legs:
        bound = (turnover_limit, budget) if budget is not None and free is not None and free[1].draft.legs else None
        raise _nothing(step, problem, aim.off, skipped, bound)
    if decision.exit and not {one.what for one in skipped} & {
        node.label for node in problem.assets if node.address != step.portfolio.numeraire.address
    }:
        skipped = [one for one in skipped if one.what != step.portfolio.numeraire.label]  # it lacks only what the exit has cost
    found = assemble(step, problem, decision, settled.draft, skipped, gap_bps(market, aim, settled, budget))
    risk = decision.goal.risk
    return found if risk is None else replace(found, saving=saving(problem, decision.goal, risk, found, settled.draft.delta))


def _at_rest(step: StepInput, problem: Problem, aim: Aim) -> dict[int, str]:
    """What an exit leaves as it is, by position: all that is where it should be, but the numeraire, for which it sells."""
    total, numeraire = float(problem.total), step.portfolio.numeraire.address
    within = (aim.low * total <= aim.held) & (aim.held <= aim.high * total)
    return {
        position: "an exit trades nothing else"
        for position, node in enumerate(problem.nodes)
        if node.is_asset and node.address != numeraire and within[position]
    }


def _affordable(
    problem: Problem, aim: Aim, goal: Goal, budget: Fraction | None, min_trade: Fraction | None, still: Mapping[int, str]
) -> tuple[Market, Settled]:
    """Settles; while the plan with its gas costs more than plan_cost per unit moved, the dearest chain's pool is done without.

    So is the best paying pool while the plan would go beyond the drift. In a zone no swap's unit is dearer than plan_cost. Chains of
    several may be, for which that bound is first tightened. Tokens of `still` stay as they are, by position, with the reason.
    """
    scale, limit_bps = max(aim.off, float(problem.total) / BPS), problem.plan_cost_bps
    dearest = None if aim.risk is None or limit_bps is None else Fraction(limit_bps, BPS)
    market, tighter = open_market(problem, scale, dearest), 0
    dropped: dict[str, str] = {}
    while True:
        settled = settle(market, aim, budget, min_trade, dropped, still)
        wrong = one_side.crossed(problem, goal, settled.draft)
        if wrong.keys() - still.keys():
            still = {**still, **wrong}
            continue
        too_far = beyond(problem, aim, settled.draft)
        if too_far:
            pool, why = best_paying(problem, settled.draft, too_far)
            dropped[pool] = why
            continue
        cost, moved = settled.draft.cost(problem), settled.draft.turnover(problem)
        if limit_bps is None or cost.total * BPS <= limit_bps * moved:
            return market, settled
        gas = cost.gas + cost.approvals
        left, swaps = Fraction(limit_bps, BPS) * moved - gas, cost.total - gas
        if dearest is not None and tighter < TIGHTER and 0 < left < swaps:
            dearest, tighter = (dearest * min(left / swaps, SHRINK)).limit_denominator(10**9), tighter + 1
            market = open_market(problem, scale, dearest)
        else:
            dropped[_dearest(problem, settled.draft)] = f"{OVER_COST} of {limit_bps} bps"


def _dearest(problem: Problem, draft: Draft) -> str:
    """The pool of the chain that costs most per unit moved, gas included; of its pools the one that carries the least besides."""

    def per_unit(chain: list[int]) -> Fraction:
        first, last = draft.legs[chain[0]], draft.legs[chain[-1]]
        given = first.amount_in_raw * problem.price(first.token_in)
        got = last.amount_out_raw * problem.price(last.token_out)
        return (given - got + sum(draft.leg_gas[leg] for leg in chain) * problem.gas_unit_value) / given

    uses = Counter(leg.pool for leg in draft.legs)
    worst = max(draft.chains(), key=per_unit)
    return min((draft.legs[leg].pool for leg in worst), key=lambda pool: uses[pool])


def _nothing(step: StepInput, problem: Problem, drift: float, skipped: list[Skipped], bound: tuple[str, Value] | None) -> NothingPlanned:
    """Why there is no leg at all, with the limits in question; `bound` is the limit of turnover and what it leaves, where that is it."""
    numeraire, limits = step.portfolio.numeraire, step.limits
    amount = f"{value_text(Fraction(round(drift)), numeraire.decimals, 2)} {numeraire.label}"
    verdicts = []
    if limits.min_trade is not None:
        least = f"{value_text(limits.min_trade, numeraire.decimals, 2)} {numeraire.label}"
        verdicts.append(Verdict("min_trade", f"{amount} to move", least, Fraction(drift) >= limits.min_trade))
    if problem.plan_cost_bps is not None:
        verdicts.append(Verdict("plan_cost", "no route that is cheaper", f"{problem.plan_cost_bps} bps", False))
    reasons = "; ".join(f"{item.what}: {item.why}" for item in skipped) or "holdings are where they should be"
    if bound is not None:
        left = f"{value_text(bound[1], numeraire.decimals, 2)} {numeraire.label}"
        return NothingPlanned(
            f"nothing to trade of a drift of {amount}: {bound[0]} leaves {left}, too little to be worth a trade; {reasons}",
            (Verdict(bound[0].removeprefix("limits."), f"{amount} to move", left, False),),
            f"raise {bound[0]}, or wait until the trades of the last day are older than 24 hours",
            drift=Fraction(round(drift)),
        )
    return NothingPlanned(
        f"nothing to trade of a drift of {amount}: {reasons}",
        verdicts,
        "see the reasons; status shows the drift of each asset",
        _kept_by(problem, skipped, drift),
        Fraction(round(drift)),
    )


def _kept_by(problem: Problem, skipped: Sequence[Skipped], drift: float) -> str:
    """The limit of cost or size that alone keeps back every asset that is off; empty where anything else does."""
    kept = {item.what: item.kept_by for item in skipped}
    found = {node: kept[node.label] for node in problem.assets if node.label in kept}
    large = [node.address for node, why in found.items() if why != MIN_TRADE]
    if large and _too_dear(problem, large, Fraction(round(drift))):
        return PLAN_COST
    if not found or not all(found.values()):
        return ""
    return PLAN_COST if PLAN_COST in found.values() else MIN_TRADE


def _too_dear(problem: Problem, off: Sequence[str], drift: Value) -> bool:
    """Whether gas and the pools' fees alone, or nearly alone, exceed limits.plan_cost: then no market would make it worth its cost."""
    if problem.plan_cost_bps is None:
        return False
    fees = [min((fee_pips(pool) for pool in problem.pools.values() if one in (pool.token0, pool.token1)), default=0) for one in off]
    room = drift * (Fraction(problem.plan_cost_bps, BPS) - Fraction(max(fees), PIPS))
    return room < NEARLY * (max(1, len(off) - 1) * LEG_GAS + APPROVAL_GAS) * problem.gas_unit_value
