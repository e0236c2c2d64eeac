"""A purchase as a plan: whole where the pools take it, else the same part of every asset, so that no part is one-sided."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import Campaign, Draw, Funding, Goal, Hold, Plan, Purchase, Rebalance, Round, StepInput
from agent.planning import daily, planner, taxed
from agent.policy import purchase
from agent.policy.campaign import partial, targets
from agent.policy.decide import Decided
from agent.policy.drift import corrections
from agent.policy.flows import DAY_S
from agent.policy.pacing import MILLION
from agent.units import NATIVE, Value, ceil_int

TRIES = 8
"""Plans in search of the part that all assets reach."""
WHOLE = Fraction(97, 100)
"""Of what an asset lacks: what counts as reached, since fees and impact take their share."""
USEFUL = Fraction(1, 4)
"""Of limits.daily_loss: with less of it left a part waits for the next day, unless it is the last."""
EVEN = Draw(MILLION // 2, MILLION // 2)
Found = tuple[Decided, Plan | None]


def planned(step: StepInput, decided: Decided, decision: Rebalance, kind: Purchase) -> Found:
    """The purchase in one plan, or its next part; `begins` where it is the first of several. Raises Refused like the planner.

    No plan, and a hold, while what limits.daily_loss has left is too little for a part that follows.
    """
    wish = _moves(decided, decision.goal)
    whole = taxed.plan(step, decision)
    plan, part = proportional(step, decided, decision, whole)
    under = purchase.under_way(step)
    follows = under is not None and not step.history.invested
    if follows and not daily.fits(step, plan):
        held = Hold(f"{decision.reason}; {daily.waits(step)}", kept_by=daily.DAILY_LOSS)
        return replace(decided, decision=held, round=None), None
    if follows and under is not None:
        named = replace(decision, reason=f"{decision.reason}{_told(step, decision, whole)}")
        return replace(decided, decision=named, round=Round(under.done + 1, part, wish)), replace(plan, decision=named)
    if part == 1 and kind is Purchase.FIRST:
        return decided, plan
    if under is not None:
        kind = under.campaign.purchase or kind
    campaign = _campaign(step, decided, decision.goal, kind, wish, ceil_int(1 / part))
    told = decision.reason if part == 1 else f"{decision.reason}; {purchase.words(campaign, 0)}{_told(step, decision, whole)}"
    named = replace(decision, reason=told)
    round_ = Round(1, part, wish)
    return replace(decided, decision=named, begins=campaign, round=round_), replace(plan, decision=named)


def proportional(step: StepInput, decided: Decided, decision: Rebalance, whole: Plan) -> tuple[Plan, Fraction]:
    """The plan, and which part of the goal it reaches: 1 where it is `whole`, or where an asset cannot move at all.

    One that does not fit in what limits.daily_loss has left, where none does.
    """
    lacks = {token: value for token, value in corrections(decided.drifts, decision.goal).items() if abs(value) >= _least(step)}
    reached, fits = min(_reached(step, decided, whole, lacks).values(), default=Fraction(1)), _part_that_fits(step, whole)
    if fits == 1 and reached >= WHOLE:
        return whole, Fraction(1)
    if fits < 1 and not _useful(step):
        return whole, Fraction(1)
    part, found = Fraction(1), whole
    for _ in range(TRIES if lacks else 0):
        part *= min(fits, max(reached * Fraction(99, 100), Fraction(1, 2)) if reached < WHOLE else 1)
        part = part.limit_denominator(1_000)
        if part * min(abs(value) for value in lacks.values()) < _least(step):
            break
        wanted = {token: value * part for token, value in lacks.items()}
        try:
            found = taxed.plan(step, replace(decision, goal=partial(decided.drifts, decision.goal, part)))
        except planner.NothingPlanned:
            break
        reached, fits = min(_reached(step, decided, found, wanted).values(), default=Fraction(1)), _part_that_fits(step, found)
        if fits == 1 and reached >= WHOLE:
            return replace(found, decision=decision), part
    if daily.fits(step, whole):
        return whole, Fraction(1)  # what cannot move is named in the plan, and holds up nothing else
    found = replace(daily.plan(step, decision, whole), decision=decision)
    return found, min(Fraction(1), found.turnover / whole.turnover) if whole.turnover else Fraction(1)


def _part_that_fits(step: StepInput, plan: Plan) -> Fraction:
    """How much of a plan like this one fits in what limits.daily_loss has left: its gas whole, the rest in proportion."""
    if daily.fits(step, plan):
        return Fraction(1)
    if plan.exits:
        room, gas, loses = daily.left_to_exits(step) or Fraction(0), plan.cost.gas + plan.cost.approvals, plan.cost.total
    else:
        room, gas, loses = daily.left(step) or Fraction(0), daily.gas_at_worst(step, plan), daily.at_worst(step, plan)
    return (room - gas) / (loses - gas) * daily.MARGIN if room > gas else Fraction(0)


def _useful(step: StepInput) -> bool:
    """Whether enough is left of limits.daily_loss for a part."""
    whole = daily.left(replace(step, history=replace(step.history, loss_24h=Fraction(0))))
    return whole is None or (daily.left(step) or Fraction(0)) >= whole * USEFUL


def _told(step: StepInput, decision: Rebalance, whole: Plan) -> str:
    """That limits.daily_loss is why a part goes now; empty where it is not. What this step has approved is no reason."""
    if daily.left(step) is None:
        return ""
    whole = daily.unapproved(step, decision, whole)
    return "" if daily.fits(step, whole) else f"; {daily.words(step, daily.at_worst(step, whole))}"


def _reached(step: StepInput, decided: Decided, plan: Plan, lacks: dict[str, Value]) -> dict[str, Fraction]:
    """By token what part of what it lacks, or has too much, the plan moves; the numeraire pays the costs and is left aside."""
    prices = {one.token: one.price for one in decided.drifts}
    moved = dict.fromkeys(prices, Fraction(0))
    for leg in plan.legs:
        for token, raw, outside in (
            (leg.token_in, -leg.amount_in_raw, leg.source is Funding.WALLET),
            (leg.token_out, leg.amount_out_raw, leg.sink is Funding.WALLET),
        ):
            known = step.portfolio.wrapped_native if token == NATIVE else token
            if outside and known in moved:
                moved[known] += raw * prices[known]
    home = step.portfolio.numeraire.address
    return {token: max(Fraction(0), moved[token] / value) for token, value in lacks.items() if token != home}


def _campaign(step: StepInput, decided: Decided, goal: Goal, kind: Purchase, wish: Value, parts: int) -> Campaign:
    now_s, lacks = step.snapshot.head.timestamp_s, corrections(decided.drifts, goal)
    over_s = now_s + max(purchase.LASTS_S, (parts + 1) * DAY_S)
    return Campaign(
        pace=purchase.pace(step, parts),
        targets_bps=targets(step),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(sorted((token, found.price) for token, found in decided.references.prices.items())),
        sides=tuple((token, 1 if lack > 0 else -1) for token, lack in lacks.items() if lack),
        wish=purchase.allowed(step) if step.history.invested else wish,
        rounds=parts,
        budget=None,
        began_s=now_s,
        ends_s=over_s,
        expires_s=over_s,
        first=EVEN,
        only=step.policy.only,
        purchase=kind,
        came=tuple(sorted(purchase.came_left(step).items())) if kind is Purchase.TOP_UP else (),
    )


def _moves(decided: Decided, goal: Goal) -> Value:
    lacks = corrections(decided.drifts, goal).values()
    return max(sum((lack for lack in lacks if lack > 0), Fraction(0)), -sum((lack for lack in lacks if lack < 0), Fraction(0)))


def _least(step: StepInput) -> Value:
    return max(step.limits.min_trade or Fraction(0), Fraction(1))
