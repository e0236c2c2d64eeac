"""What becomes of a plan in time: sent at once, begun as a campaign of rounds, or kept until its price is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.amm.errors import TicksEnd
from agent.errors import Refused
from agent.model import Campaign, Draw, Funding, Goal, GoalWeight, Hold, Plan, Rebalance, StepInput, Style, Underway, Verdict
from agent.planning import daily, planner, rounds
from agent.planning.daily import at_worst, exchanges, gives, with_native
from agent.planning.payments import NATIVE_VENUE
from agent.planning.reach import ticks_end
from agent.policy import aside, words
from agent.policy.campaign import budget_left, budget_words, course, spent_before, targets
from agent.policy.decide import Decided
from agent.policy.drift import corrections
from agent.policy.pacing import MILLION, times
from agent.units import BPS, NATIVE, Price, Value, ceil_int, price_text, value_text

EVEN = Draw(MILLION // 2, MILLION // 2)
"""What is shown while nothing was drawn: a fair share."""
Found = tuple[Decided, Plan | None]


def paced(step: StepInput, decided: Decided, decision: Rebalance, whole: Plan) -> Found:
    """The decision and its plan by execution.style. What goes out of the market at once, an exit, or what the step has approved
    already, is never spread; the latter keeps to its price, and to a budget that others have begun to spend.
    """
    pace = step.execution.pace
    if decided.round is not None:
        return _round(step, decided, whole)
    if pace.style is Style.MARKET or decision.exit or decision.by_hand or step.split is not None:
        return decided, whole
    goal = _reached(decision.goal, whole)
    if pace.style is Style.LIMIT:
        campaign = _campaign(step, decided, goal, 1)
        return _at_price(step, replace(decided, begins=campaign), whole, campaign)
    pacing, count = None, 1
    if pace.style is Style.ROUNDS and not step.spend_caps:
        pacing = rounds.compare(step, decision, goal, whole, decided.references)
        count = pacing.chosen
    elif not step.spend_caps:
        count = rounds.most_rounds(step, rounds.to_move(step, goal, _prices(decided)))
    if count == 1 and (pace.budget_bps is None or spent_before(step) is None):
        return decided, replace(whole, pacing=pacing)
    return _begun(step, decided, decision, replace(whole, pacing=pacing), _campaign(step, decided, goal, count))


def limit_reached(plan: Plan, prices: Mapping[str, Price], least: Value) -> bool:
    """Whether the plan's exact outputs are worth at least `least` at these prices."""
    return _brings(plan, prices) >= least


def at_least(plan: Plan, prices: Mapping[str, Price], least: Value) -> Plan:
    """The plan with minimums raised so that together they are worth `least` at these prices: the chain holds it to the limit too.

    Each minimum rises to the same part of what its leg is planned to bring, never above that and never below where it was. What is
    paid out as native coin keeps its minimum.
    """
    brings = _brings(plan, prices)
    if brings <= 0:
        return plan
    legs = tuple(
        replace(leg, min_out_raw=max(leg.min_out_raw, min(leg.amount_out_raw, ceil_int(leg.amount_out_raw * least / brings))))
        if leg.sink is Funding.WALLET and leg.venue != NATIVE_VENUE
        else leg
        for leg in plan.legs
    )
    return replace(plan, legs=legs)


def _begun(step: StepInput, decided: Decided, decision: Rebalance, whole: Plan, campaign: Campaign) -> Found:
    """The campaign's first round, decided as each later one will be."""
    under = Underway("", campaign, 0, Fraction(0), Fraction(0), campaign.began_s, campaign.first)
    begun = replace(step, history=replace(step.history, campaign=under))
    found = course(begun, decided.drifts, _prices(decided))
    if found is None or found.round is None or not isinstance(found.decision, Rebalance):
        why = decision.reason if found is None else f"{decision.reason}; {found.decision.reason}"
        return replace(decided, decision=Hold(why), reviewed=False), None  # what may not begin in rounds is not sent all at once instead
    first = replace(decision, reason=f"{decision.reason}; {found.decision.reason}", goal=found.decision.goal)
    plan = daily.plan(step, first)
    return _round(begun, replace(decided, decision=first, round=found.round, begins=campaign), replace(plan, pacing=whole.pacing))


def _round(step: StepInput, decided: Decided, plan: Plan) -> Found:
    """A round within the budget; else the campaign ends with it."""
    under = step.history.campaign
    if under is None:
        return decided, plan
    begun = under.campaign
    if begun.pace.style is Style.LIMIT:
        return _at_price(step, decided, plan, begun)
    worst = at_worst(step, plan, dict(begun.arrival))
    if begun.budget is None or under.spent + worst <= begun.budget:
        return decided, plan
    why = (
        f"round {under.done + 1} may cost {_money(step, worst)} at worst; {_money(step, under.spent)} of its budget of "
        f"{budget_words(step, begun)} are spent"
    )
    return replace(decided, decision=Hold(aside.beside(step, f"the correction is over: {why}")), round=None, ended=why, begins=None), None


def _at_price(step: StepInput, decided: Decided, plan: Plan, campaign: Campaign) -> Found:
    """The plan where it brings enough at the prices of the start; else it waits."""
    prices = with_native(step, dict(campaign.arrival))
    least = gives(plan, prices) * Fraction(BPS - campaign.pace.limit_bps, BPS)
    if limit_reached(plan, prices, least):
        return decided, at_least(plan, prices, least)
    why = (
        f"{decided.decision.reason}; waits for its price: it would bring {_money(step, _brings(plan, prices))} and wants "
        f"{_money(step, least)}, at the prices of {words.moment(campaign.began_s)}, until {words.moment(campaign.expires_s)}"
    )
    return replace(decided, decision=Hold(why), round=None), None


def _campaign(step: StepInput, decided: Decided, goal: Goal, count: int) -> Campaign:
    pace, prices, now_s = step.execution.pace, _prices(decided), step.snapshot.head.timestamp_s
    wish, before = rounds.to_move(step, goal, prices), spent_before(step)
    ends_s, expires_s = times(pace, count, now_s)
    arrival = prices | ({} if before is None else {token: price for token, price in before.arrival if token in prices})
    lacks = corrections(decided.drifts, goal)
    return Campaign(
        pace=pace,
        targets_bps=targets(step),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(sorted(arrival.items())),
        sides=tuple((token, 1 if lack > 0 else -1) for token, lack in lacks.items() if lack),
        wish=wish,
        rounds=count,
        budget=budget_left(pace, wish, before),
        began_s=now_s,
        ends_s=ends_s,
        expires_s=expires_s,
        first=step.history.draw or EVEN,
        only=step.policy.only,
        before=before,
    )


def _reached(goal: Goal, whole: Plan) -> Goal:
    """Where a campaign goes: the goal; of a zone what its plan leads to, since going further does not pay."""
    if goal.risk is None:
        return goal
    return Goal(tuple(GoalWeight(token, Fraction(bps, BPS), Fraction(bps, BPS)) for token, bps in whole.weights_after_bps))


def _brings(plan: Plan, prices: Mapping[str, Price]) -> Value:
    return sum(
        (leg.amount_out_raw * prices.get(leg.token_out, Fraction(0)) for leg in exchanges(plan) if leg.sink is Funding.WALLET), Fraction(0)
    )


def _prices(decided: Decided) -> dict[str, Price]:
    return {token: found.price for token, found in decided.references.prices.items()}


def _money(step: StepInput, value: Value) -> str:
    numeraire = step.portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"


def limit_swap(step: StepInput, token_in: str, token_out: str, amount_in_raw: int, price: Fraction) -> tuple[Plan | None, str]:
    """A swap by hand whose exact outcome, fee and impact included, is `price` or better, with minimums to match; else why it waits.

    `price` is base units of `token_out` per base unit of `token_in`. Raises TicksEnd where more ticks of its pools might give it.
    """
    try:
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
    except TicksEnd as end:
        raise TicksEnd(f"it cannot be planned now: {end.message}", end.verdicts[0], end.remedy, end.pools) from None
    except Refused as refusal:
        return None, f"it cannot be planned now: {refusal.message}"
    units = {token_out: Fraction(1), **({NATIVE: Fraction(1)} if token_out == step.portfolio.wrapped_native else {})}
    least = amount_in_raw * price
    if limit_reached(plan, units, least):
        return at_least(plan, units, least), ""
    why = f"its price is {_shown(_brings(plan, units) / amount_in_raw, step, token_in, token_out)} now"
    if pools := ticks_end(step, plan.legs):
        raise TicksEnd(why, Verdict("known_ticks", "all that were read", "more of them", False), "", pools)
    return None, why


def _shown(price: Fraction, step: StepInput, token_in: str, token_out: str) -> str:
    from_, to = step.portfolio.token(token_in), step.portfolio.token(token_out)
    return f"{price_text(price, from_.decimals, to.decimals)} {to.label} per {from_.label}"
