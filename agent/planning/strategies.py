"""What is wanted of one snapshot: a decision, and the plan that carries it out; pure, so that any step can be proposed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.amm.errors import TicksEnd
from agent.errors import Refused
from agent.model import PORTFOLIO, AdjustLiquidity, Funding, Halt, Hold, LimitOrder, Plan, Purchase, Rebalance, StepInput, StuckExit, TopUp
from agent.planning import daily, planner, purchase, taxed
from agent.planning.assemble import MIN_TRADE, PLAN_COST
from agent.planning.liquidity import plan_liquidity
from agent.planning.paced import limit_swap, paced
from agent.planning.reach import ticks_end
from agent.policy import aside, flows, minimum, order_levels, order_moves, outflow, stuck, words
from agent.policy.decide import Decided, decide, or_liquidity
from agent.policy.expiry import late
from agent.policy.zone import not_worth_it, nothing_pays
from agent.units import NATIVE


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants of one snapshot: the decision with its drifts, and a plan when it wants to trade.

    `step` is what it was decided from where that is another than was given: with exits that are stuck, with or without what is left
    alone. `ticks_end` says that something waits for a price that more ticks might give.
    """

    decided: Decided
    plan: Plan | None
    step: StepInput | None = None
    ticks_end: bool = False


class RefusedBesides(Refused):
    """What goes on besides exits that are stuck is refused, too; `step` is what it was decided from."""

    def __init__(self, step: StepInput, why: Refused) -> None:
        super().__init__("; ".join(said for said in (why.message, stuck.named(step), step.aside) if said), why.verdicts, why.remedy)
        self.step = step


WORTH = (PLAN_COST, MIN_TRADE)
"""What holds a rebalance that is not worth it."""
Proposer = Callable[[StepInput], Proposal]


def rebalance(step_input: StepInput) -> Proposal:
    """The agent's own strategy: trade when a trigger fires, in a zone when the plan also saves more risk than it costs.

    An exit goes before; one that the market does not take within the limits is left as it is, and the rest goes on. So is a rise that
    nobody explains, where with it the portfolio is worth more than portfolio.max_live_value.
    """
    return _rebalanced(step_input, _exits_first(step_input))


def _rebalanced(step_input: StepInput, first: Proposal) -> Proposal:
    """The same once exits were tried."""
    if first.plan is not None:
        return first
    step = first.step or step_input
    try:
        return replace(_carried_out(step, first.decided), step=first.step)
    except Refused as why:
        if first.step is not None or step.aside:
            raise RefusedBesides(step, why) from None
        raise


def _carried_out(step: StepInput, decided: Decided) -> Proposal:
    match decided.decision:
        case Rebalance() as decision:
            return _planned(step, decided, decision)
        case AdjustLiquidity() as decision:
            return Proposal(decided, plan_liquidity(step, decision))
        case TopUp() as decision:
            return Proposal(decided, planner.plan_top_up(step, decision))
        case Hold() | Halt():
            return Proposal(decided, None)


def _exits_first(step_input: StepInput) -> Proposal:
    """The exit that can be done now, with its plan; else what is decided without those that cannot, or rest.

    An exit takes what is left alone above portfolio.max_live_value too; nothing else does.
    """
    whole = step = aside.given_back(step_input)
    decided = decide(step)
    plan: Plan | None = None
    if resting := stuck.resting(step, decided.leaves):
        step = stuck.left_alone(step, resting)
        decided = decide(step)
    while decided.leaves and plan is None and isinstance(decision := decided.decision, Rebalance):
        try:
            plan = taxed.plan(step, decision)
            whys = _unsold(step, decided, plan)
        except planner.NothingPlanned as nothing:
            whys = dict.fromkeys(decided.leaves, nothing.message)
        if whys:
            step = stuck.left_alone(step, [StuckExit(token, why, stuck.REMEDY) for token, why in whys.items()])
            decided, plan = decide(step), None
    if plan is None and (left := aside.set_aside(step_input if step is whole else step)) is not step:
        step, decided = left, decide(left)
    return Proposal(decided, plan, None if step is step_input else step)


def _unsold(step: StepInput, decided: Decided, plan: Plan) -> dict[str, str]:
    """What of an exit its plan leaves wholly where it is, with the reason."""
    coin = step.portfolio.wrapped_native
    sold = {coin if leg.token_in == NATIVE else leg.token_in for leg in plan.legs if leg.source is Funding.WALLET}
    whys = {item.what: item.why for item in plan.skipped}
    left = [token for token in decided.leaves if token not in sold]
    return {token: whys.get(step.portfolio.token(token).label, "the market takes none of it within the limits") for token in left}


def decision_at(step_input: StepInput) -> Decided:
    """What is decided, a zone's plan weighed, exits tried, and a hold where nothing is worth its cost; a plan that is refused leaves the
    decision as it was.
    """
    step_input = aside.set_aside(step_input)
    decided = decide(step_input)
    tried = decided.zone is not None or bool(decided.leaves) or bool(step_input.aside and decide(aside.given_back(step_input)).leaves)
    if not tried and not isinstance(decided.decision, Rebalance):
        return decided
    try:
        found = rebalance(step_input).decided if tried else _worth_it(step_input, decided)
    except Refused:
        return decided
    held = isinstance(found.decision, Hold) and found.decision.kept_by in WORTH
    return found if held or tried else decided


def _worth_it(step: StepInput, decided: Decided) -> Decided:
    """The decision, or a hold where nothing is worth its cost. The plan of the whole says so: no parts are planned.

    Raises Refused where the plan is refused for anything else.
    """
    if isinstance(decision := decided.decision, Rebalance) and decided.zone is None:
        try:
            taxed.plan(step, decision)
        except planner.NothingPlanned as nothing:
            if not nothing.kept_by:
                raise
            return _not_worth_it(step, decided, decision, nothing).decided
    return decided


def _planned(step_input: StepInput, decided: Decided, decision: Rebalance) -> Proposal:
    """The plan; in a zone nothing instead where it would not save more than it costs, or where no move pays."""
    zone = decided.zone
    try:
        if decision.apart and zone is None:
            return Proposal(*purchase.planned(step_input, decided, decision, Purchase.FIRST))
        plan = daily.plan(step_input, decision)
    except planner.NothingPlanned as nothing:
        if zone is None:
            if not nothing.kept_by:
                raise
            return _not_worth_it(step_input, decided, decision, nothing)
        return _left_alone(step_input, decided, nothing_pays(decision.reason, nothing.message, zone, step_input))
    if isinstance(plan.decision, Rebalance):
        decision = plan.decision
        decided = replace(decided, decision=decision)
    if zone is None or plan.saving is None:
        return _in_time(step_input, decided, decision, plan)
    weighed = replace(decided, zone=replace(zone, saving=plan.saving))
    if plan.saving.worth_it:
        return _in_time(step_input, weighed, decision, plan)
    return _left_alone(step_input, weighed, not_worth_it(decision.reason, plan.saving, step_input, zone.horizon_s))


def _in_time(step: StepInput, decided: Decided, decision: Rebalance, plan: Plan) -> Proposal:
    decided, found = paced(step, decided, decision, plan)
    return Proposal(decided, found, ticks_end=found is None and bool(ticks_end(step, plan.legs)))


def _not_worth_it(step: StepInput, decided: Decided, decision: Rebalance, nothing: planner.NothingPlanned) -> Proposal:
    """What costs more than limits.plan_cost, or is less than a trade, is a hold with the reason; the review is done."""
    again = "" if decided.next_s is None else f"; next review {words.moment(decided.next_s)}"
    held = Hold(f"{decision.reason}; {minimum.not_worth(step, decided.references, nothing.drift)}{again}", decided.next_s, nothing.kept_by)
    return Proposal(replace(decided, decision=held, round=None, begins=None, crosses=False), None)


def _left_alone(step_input: StepInput, decided: Decided, why: str) -> Proposal:
    """No swap is worth it in a zone: then liquidity gets what its targets ask for, as while no trigger fires."""
    prices = {token: found.price for token, found in decided.references.prices.items()}
    instead = or_liquidity(step_input, prices, Hold(why))
    plan = plan_liquidity(step_input, instead) if isinstance(instead, AdjustLiquidity) else None
    return Proposal(replace(decided, decision=instead), plan)


def manual_swap(token_in: str, token_out: str, amount_in_raw: int) -> Proposer:
    """A strategy for one swap by hand; triggers are not asked, guards are."""

    def propose(step_input: StepInput) -> Proposal:
        step = aside.set_aside(step_input)
        plan = planner.plan_swap(step, token_in, token_out, amount_in_raw)
        found = decide(step)  # a round of a correction that was due stays due, and an exit that fired is none of this
        return Proposal(replace(found, decision=plan.decision, reviewed=False, round=None, ended="", crosses=False, leaves=()), plan, step)

    return propose


def waiting_orders(orders: Sequence[LimitOrder]) -> Proposer:
    """A strategy that fills the first of `orders` whose price is there, and else rebalances.

    Where anything is unknown, stale or contradictory no order is filled either. What an exit can sell now goes first, and what is
    out of the market is bought by none.
    """

    def propose(step_input: StepInput) -> Proposal:
        first = _exits_first(step_input)
        filled, ended = None, False
        if not isinstance(first.decided.decision, Halt) and first.plan is None:
            filled, _, ended = _filled(step_input, first.decided, orders)
        if filled is not None:
            return filled
        found = _rebalanced(step_input, first)
        return replace(found, ticks_end=found.ticks_end or ended)

    return propose


def _filled(step_input: StepInput, decided: Decided, orders: Sequence[LimitOrder]) -> tuple[Proposal | None, str, bool]:
    """The first order whose price is there; where it is for none, why the last one waits, and whether more ticks might give one."""
    why, ended, step_input = "", False, aside.set_aside(step_input)
    for order in orders:
        if why := late(step_input, order) or _out(step_input, order) or flows.halting(step_input) or outflow.unfinished(step_input):
            continue
        try:
            plan, why = limit_swap(step_input, order.token_in, order.token_out, order.amount_in_raw, order.price)
        except TicksEnd as end:
            why, ended = end.message, True
            continue
        if plan is not None:
            filled = replace(decided, decision=plan.decision, reviewed=False, round=None, order=order.id)
            return Proposal(filled, plan, step_input, ended), "", ended
    return None, why, ended


def _out(step_input: StepInput, order: LimitOrder) -> str:
    """Why what the order buys may not be bought: a standing order keeps it out, and would sell it again. Empty where it may."""
    known, portfolio = step_input.history.orders, step_input.portfolio
    if order.token_out == portfolio.numeraire.address:
        return ""
    by = order_moves.out_of(known, PORTFOLIO) or order_moves.out_of(known, order.token_out)
    return "" if by is None else f"waits: {portfolio.token(order.token_out).label} is out by {order_levels.name(portfolio, by)}"


def one_order(order: LimitOrder) -> Proposer:
    """The same for a single order: until its price is there it holds and says what is lacking."""

    def propose(step_input: StepInput) -> Proposal:
        first = _exits_first(step_input)
        decided = first.decided
        if isinstance(decided.decision, Halt):
            return Proposal(replace(decided, reviewed=False), None)
        why, ended = f"waits: {decided.decision.reason}", False
        if first.plan is None:
            filled, why, ended = _filled(step_input, decided, (order,))
            if filled is not None:
                return filled
        return Proposal(replace(decided, decision=Hold(why), reviewed=False, round=None, ended=""), None, ticks_end=ended)

    return propose
