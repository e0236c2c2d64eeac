"""What an owner asks for beside the strategy, as proposals: money raised or invested, everything sold, an edit carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    AdjustLiquidity,
    Decision,
    Destination,
    Funding,
    Goal,
    GoalWeight,
    Halt,
    Hold,
    Plan,
    Purchase,
    Rebalance,
    StepInput,
    TopUp,
    Verdict,
)
from agent.planning import daily, planner, purchase, taxed
from agent.planning.liquidity import plan_liquidity
from agent.planning.strategies import Proposal, Proposer
from agent.policy import aside, coin, outflow, raising
from agent.policy import purchase as bought
from agent.policy.decide import decide
from agent.policy.drift import total
from agent.policy.goal import goal
from agent.policy.order_targets import exit_goal
from agent.units import NATIVE, ceil_int, decimal_text


def raise_money(token: str) -> Proposer:
    """Sells what is lacking of `token` for what is set aside: all of it, or as much of each asset as the limits of its market allow, where
    limits.first_purchase lets parts follow; where limits.daily_loss allows less, the same part of each. Else that is refused.
    """

    def propose(step: StepInput) -> Proposal:
        label = step.portfolio.token(token).label
        aim = raising.goal_to_raise(step, token)
        wanted = Rebalance(f"{label} is raised for a withdrawal", aim, exit=True, apart=raising.gross(step, token))
        plan = planner.plan(step, wanted)
        done = outflow.parts_done(step, token)
        short = still_short(step, plan, token) > 0
        if step.limits.first_purchase_s is not None and (short or not daily.fits(step, plan)):
            decided = replace(decide(step), decision=wanted)
            part = plan if daily.fits(step, plan) else purchase.proportional(step, decided, wanted, plan)[0]
            lacks, left = outflow.lacking(step, token), still_short(step, part, token)
            if left < lacks and (short or left > 0):
                wanted = replace(
                    wanted, reason=f"{wanted.reason}, part {done + 1} of about {done + ceil_int(Fraction(lacks, lacks - left))}"
                )
                return _by_owner(step, wanted, replace(part, decision=wanted))
        _require_raised(step, plan, token)
        if done:
            plan = replace(plan, decision=replace(wanted, reason=f"{wanted.reason}, part {done + 1} of {done + 1}"))
        return _by_owner(step, plan.decision, plan)

    return propose


def invest(came: Mapping[str, int], before: str = "") -> Proposer:
    """Spreads what came over what is below its target; holds where that is less than a trade.

    Together with what is left of the purchase `before` (its id), if one is under way; any other under way is this one by now.
    """

    def propose(step: StepInput) -> Proposal:
        if step.limits.first_purchase_s is None:
            wanted = Rebalance(aside.beside(step, "what came is invested"), raising.goal_to_invest(step, came), by_owner=True)
            try:
                plan = daily.plan(step, wanted)
            except planner.NothingPlanned as nothing:
                return _by_owner(step, Hold(aside.beside(step, f"what came stays as it is for now: {nothing.message}")), None)
            return _by_owner(step, plan.decision, plan)
        under = bought.under_way(step)
        if under is None or under.id == before:
            step = replace(step, history=replace(step.history, invested=tuple(sorted(came.items()))))
        decided = _by_owner(step, Hold(""), None).decided
        told = aside.beside(step, "what came is invested")
        wanted = Rebalance(told, bought.goal_of(step, decided.drifts), by_owner=True, apart=bought.allowed(step))
        decided = replace(decided, decision=wanted)
        try:
            decided, made = purchase.planned(step, decided, wanted, Purchase.TOP_UP)
        except planner.NothingPlanned as nothing:
            return _by_owner(step, Hold(aside.beside(step, f"what came stays as it is for now: {nothing.message}")), None)
        return Proposal(decided, made, step)

    return propose


def sell_everything(step: StepInput) -> Proposal:
    """Everything into the numeraire, liquidity first; holds once nothing more can be sold within the limits.

    What came or went unexplained holds it back no more than any exit, and is sold too.
    """
    return replace(_everything_sold(given := aside.given_back(step)), step=given)


def _everything_sold(step: StepInput) -> Proposal:
    if step.portfolio.positions:
        none_wanted = replace(
            step,
            limits=replace(step.limits, lp_max_weight_bps=0),
            portfolio=replace(step.portfolio, lp_targets=()),
            history=replace(step.history, stopped="", flows=()),
        )
        out = decide(none_wanted).decision
        if isinstance(out, Halt):
            return _by_owner(step, out, None)
        if isinstance(out, AdjustLiquidity):
            plan = plan_liquidity(none_wanted, out)
            if plan is not None and plan.actions:
                return _by_owner(step, plan.decision, plan)
    if (drifts := decide(step).drifts) and total(drifts) == 0:
        return _by_owner(step, Hold("there is nothing to sell: all balances are zero or set aside"), None)
    home = step.portfolio.numeraire.address
    shares = ((asset.token.address, Fraction(int(asset.token.address == home))) for asset in step.portfolio.assets)
    wanted = Goal(tuple(GoalWeight(token, share, share) for token, share in shares))
    try:
        plan = planner.plan(step, Rebalance("everything is sold for the numeraire", wanted, exit=True))
    except planner.NothingPlanned as nothing:
        return _by_owner(step, Hold(f"nothing more is sold: {nothing.message}"), None)
    return replace(proposal := _by_owner(step, plan.decision, plan), decided=replace(proposal.decided, leaves=_sold(step, plan)))


def sell_out(token: str) -> Proposer:
    """Sells all of one token for the numeraire, to the last base unit, and trades nothing else; holds once nothing of it is left."""

    def sold_out(step: StepInput) -> Proposal:
        label, decided = step.portfolio.token(token).label, decide(step)
        drifts = decided.drifts
        if isinstance(decided.decision, Halt) and not drifts:
            return _by_owner(step, decided.decision, None)
        if not any(one.token == token and one.investable_raw for one in drifts):
            return _by_owner(step, Hold(f"nothing of {label} is left to sell"), None)
        wanted = Rebalance(f"{label} is sold out", exit_goal(step.portfolio, drifts, {token}), exit=True)
        try:
            plan = planner.plan(step, wanted)
        except planner.NothingPlanned as nothing:
            return _by_owner(step, Hold(f"nothing more of {label} is sold: {nothing.message}"), None)
        return replace(proposal := _by_owner(step, plan.decision, plan), decided=replace(proposal.decided, leaves=_sold(step, plan)))

    return lambda step: replace(sold_out(given := aside.given_back(step)), step=given)


def to_targets(step: StepInput) -> Proposal:
    """Onto the targets whatever trigger and cooldown say: what an edit leads to, or a part of it that limits.daily_loss has room for."""
    return _to_targets(step, daily.plan)


def wholly_to_targets(step: StepInput) -> Proposal:
    """The same whatever limits.daily_loss says: the guards judge it."""
    return _to_targets(step, taxed.plan)


def _to_targets(step: StepInput, planned: Callable[[StepInput, Rebalance], Plan]) -> Proposal:
    decided = decide(step)
    if isinstance(decided.decision, Halt):
        return Proposal(decided, None)
    if why := outflow.unfinished(step):
        return Proposal(replace(decided, decision=Halt(why)), None)
    try:
        wanted = Rebalance(aside.beside(step, "the transition to these targets"), goal(decided.drifts, Destination.TARGET), by_owner=True)
        plan = planned(step, wanted)
    except planner.NothingPlanned as nothing:
        return _by_owner(step, Hold(nothing.message), None)
    return _by_owner(step, plan.decision, plan)


def unwrap(raw: int) -> Proposer:
    """Turns so much of the wrapped native coin into native coin, to be paid out."""

    def propose(step: StepInput) -> Proposal:
        token = step.portfolio.token(step.portfolio.wrapped_native)
        decision = TopUp(f"{decimal_text(raw, token.decimals)} {token.label} is unwrapped to be paid out", raw)
        return _by_owner(step, decision, planner.plan_top_up(step, decision))

    return propose


def _sold(step: StepInput, plan: Plan) -> tuple[str, ...]:
    """What legs take from the wallet beside the numeraire, in the portfolio's order."""
    portfolio = step.portfolio
    taken = {portfolio.wrapped_native if leg.token_in == NATIVE else leg.token_in for leg in plan.legs if leg.source is Funding.WALLET}
    return tuple(one.token.address for one in portfolio.assets if one.token.address in taken - {portfolio.numeraire.address})


def _by_owner(step: StepInput, decision: Decision, plan: Plan | None) -> Proposal:
    """What is by hand neither does nor ends a round that was due, and nothing that prices asked for is done with it."""
    found = decide(step)
    return Proposal(replace(found, decision=decision, reviewed=False, zone=None, round=None, ended="", crosses=False, leaves=()), plan)


def still_short(step: StepInput, plan: Plan, token: str) -> int:
    """Base units of what is set aside of `token` that lack by the plan's prediction; zero or less where it fills them."""
    asset = next(one for one in step.portfolio.assets if one.token.address == token)
    after = dict(plan.holdings_after)[token]
    if asset.native:
        after += step.snapshot.native_wei if plan.native_after_wei is None else plan.native_after_wei
    return coin.kept_raw(step, asset) - after


def _require_raised(step: StepInput, plan: Plan, token: str) -> None:
    """Raises Refused unless the plan's prediction fills what is set aside."""
    asset = next(one for one in step.portfolio.assets if one.token.address == token)
    if (short := still_short(step, plan, token)) > 0:
        amount = f"{decimal_text(short, asset.token.decimals)} {asset.token.label}"
        left = "; ".join(f"{item.what}: {item.why}" for item in plan.skipped) or "the limits leave no more"
        raise Refused(
            f"{amount} less than asked for can be raised now: {left}",
            (Verdict("withdrawal", f"{amount} short", "all of it in one plan", False),),
            "ask for less, or set limits.first_purchase, which lets parts follow each other",
        )
