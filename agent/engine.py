"""One step of the agent: read, decide, plan, judge, journal, send, settle; the same code for live,
paper, fork and replay.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agent import codec, guards
from agent.errors import (
    OperatorNeeded,
    Refused,
    Retryable,
    TrimtabError,
    UnsendableTransaction,
)
from agent.execution import approvals, exits
from agent.execution import step_memory as step_records
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.settlement import review_time_s, settle_mined
from agent.execution.step_context import (
    REVIEW_DONE_KINDS,
    CaughtUpReader,
    ExitInterrupted,
    OutcomeKind,
    StepActors,
    StepOutcome,
    StepReaders,
    TickExtender,
    confirm_prices,
    propose_screened,
    record_anomalies,
    record_order_stages,
)
from agent.execution.step_memory import book_internal_netting, record_strategies
from agent.execution.submitter import gas_spent_wei
from agent.model import (
    AdjustFutures,
    BlockedExit,
    Decision,
    Halt,
    History,
    Intent,
    IntentKind,
    MoveMargin,
    Plan,
    PlanRequest,
    Rebalance,
    StepInput,
    SubmissionRefusal,
)
from agent.model.futures import FuturesPlan, HedgeComparison, PerpOrder
from agent.planning.futures_step import CLOSE_HEDGE
from agent.planning.hedge import HEDGE, HEDGE_MARGIN
from agent.planning.proposals import Proposer
from agent.planning.requests import proposer
from agent.policy import failures
from agent.policy.decide import DecisionResult, decide
from agent.policy.exits import (
    RETRY_REMEDY,
    add_submission_refusal,
    exclude_blocked_exits,
    may_go_directly,
)
from agent.policy.futures.decide import reduction_goals
from agent.ports import Approval, EvidenceSource, PreparedTransaction, StepStorage

MAX_APPROVAL_ROUNDS = 4
"""Maximum evaluations per plan: each round of approvals needs a new one."""
MILLION = 1_000_000
REPLAN_REMEDY = "run it again and confirm the new plan"
MAX_ACTIONS = 8
"""Maximum liquidity actions of a step, each by a separate plan; the rest waits for the next step.
"""
MAX_ORDERS = 12
"""Maximum futures actions of a step, each by a separate plan."""
FEWER, MOST_PARTS = 4, 64
"""Divisor of a reduction after each refused simulation, and the largest that is tried in a step."""

# --- Evaluation: read, decide, plan and judge; nothing is written or sent.


def evaluate(readers: StepReaders, propose: Proposer) -> StepOutcome:
    """Evaluate a new snapshot. A refusal is an outcome with verdicts."""
    step_input = confirm_prices(readers, readers.step_input_at(readers.reader.snapshot()))
    return evaluate_input(
        step_input, propose, readers.evidence, further=TickExtender(readers.reader)
    )


def evaluate_input(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input. Without an evidence source the verdicts stay empty. `further` reads
    more ticks.

    If guards of its market refuse an exit, the next exit or the remaining work is planned and
    judged. If a limit of the wallet refuses it, only a plan that reduces risk may follow. If guards
    refuse a reduction of futures, a hedge, or a rebalance beside futures, the other part is planned.
    """
    outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    over_budget: StepOutcome | None = None
    while (blocked := exits.own_refusal(outcome)) is not None:
        if may_go_directly(outcome.step_input, outcome.plan, blocked.token):
            direct = (*outcome.step_input.direct, blocked.token)
            step_input = replace(outcome.step_input, direct=direct)
            outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
            continue
        if over_budget is None and exits.concerns_budget(outcome.verdicts):
            over_budget = outcome
        step_input = exclude_blocked_exits(outcome.step_input, [blocked])
        outcome = evaluate_input_once(step_input, propose, evidence, step_id, further)
    if over_budget is not None and not _reduces_risk(outcome):
        return over_budget
    if (held := _without_refused_part(outcome)) is None:
        return outcome
    other = evaluate_input_once(held, propose, evidence, step_id, further)
    return other if other.kind is OutcomeKind.PLANNED else outcome


def _without_refused_part(refused: StepOutcome) -> StepInput | None:
    """Return the step without the part, futures or spot, whose plan is refused; None if nothing is
    refused, or nothing of the other part could follow.

    The guards judge the other part by itself: a limit of the whole wallet refuses it too. The
    owner's requests have one part, and openings of futures follow the spot portfolio anyway.
    """
    step, decision = refused.step_input, refused.decision
    if refused.kind is not OutcomeKind.REFUSED or step.futures is None:
        return None
    match decision:
        case AdjustFutures(by_owner=False) if not step.futures_held and (
            decision.is_reducing or decision.closes or _opens_hedge(refused.plan)
        ):
            return replace(step, futures_held=f"futures: {refused.reason}")
        case Rebalance() if decision.by_trigger and not step.spot_held:
            return replace(step, spot_held=f"spot: {refused.reason}")
        case _:
            return None


def _opens_hedge(plan: Plan | None) -> bool:
    """True if a plan opens a hedge, or deposits its margin; without it the asset is sold."""
    triggers = (HEDGE, HEDGE_MARGIN)
    return plan is not None and plan.futures is not None and plan.futures.trigger in triggers


def _reduces_risk(outcome: StepOutcome) -> bool:
    """True if the outcome is a plan for an exit, a withdrawal of liquidity, or gas money."""
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    return plan is not None and failures.exit_name(plan) != ""


def evaluate_input_once(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input once, without skipping refused exits."""
    step_input, proposal, gathered = propose_screened(step_input, propose, evidence, further)
    if isinstance(proposal, Refused):
        return _refused(step_id, step_input, decide(step_input), None, proposal)
    if (plan := proposal.plan) is None:
        kind = OutcomeKind.HALT if isinstance(proposal.decided.decision, Halt) else OutcomeKind.HOLD
        return StepOutcome(
            step_id, kind, proposal.decided.decision.reason, step_input, proposal.decided, None
        )
    if gathered is not None:
        plan = replace(plan, verdicts=guards.judge(step_input, plan, gathered))
        try:
            guards.require(plan, plan.verdicts)
        except Refused as refusal:
            return _refused(step_id, step_input, proposal.decided, plan, refusal)
    return StepOutcome(
        step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, proposal.decided, plan
    )


# --- One step: evaluate, confirm, approve, send, settle. The journal stores every outcome.


@dataclass(slots=True)
class StepRun:
    """State of a running step: its sources, and its confirmed, sent and skipped items.

    `sent` are all transactions of the step; those of the current plan begin at `first_of_plan`.
    `spend_caps` are the approved base units by token, an upper bound for legs. `history_before` is
    the history before the first liquidity action. `exits` are the outcomes of sent exits, `skipped`
    the exits that the rest of the step ignores. `orders` counts sent futures actions, `reduced` is
    true after a deposit or a reduction, whose margin the rest of the step does not use,
    `reduced_markets` are the markets of sent reductions, `reduction_goals` the sizes that a limit's
    reduction ends at, `order_parts` the divisors of reductions that the venue refused.
    `hedged` are the comparisons of opened hedges, beside which the rebalance goes
    on. `refused_markets` are, by chain time, futures markets whose reduction or hedge was refused
    before it was sent (failures.MARGIN: a deposit), or whose reduction reverted,
    `refused_orders` the outcomes. `doubtful` are, by token, the stored refusals of
    exits before simulation or signer refused them in this step. `interrupted` are exits that could
    not be sent because an endpoint failed, with the error; `held` are exits that the owner
    declined, or whose gas was refused. After an interrupted, held or failed exit only plans that
    reduce risk are sent. `direct` are tokens whose exits failed on a route through another token
    and are planned again without it. `left_pools` are pools whose withdrawal was refused or failed,
    `unwithdrawn` its outcomes: other pools follow.
    """

    readers: StepReaders
    asked: PlanRequest
    store: StepStorage
    sent: list[Intent] = field(default_factory=list)
    first_of_plan: int = 0
    spend_caps: dict[str, int] = field(default_factory=dict)
    approval_rounds: int = 0
    actions: int = 0
    orders: int = 0
    reduced: bool = False
    reduced_markets: tuple[str, ...] = ()
    hedged: list[HedgeComparison] = field(default_factory=list)
    reduction_goals: tuple[tuple[str, int], ...] = ()
    order_parts: dict[str, int] = field(default_factory=dict)
    refused_markets: dict[str, int] = field(default_factory=dict)
    refused_orders: list[StepOutcome] = field(default_factory=list)
    history_before: History | None = None
    confirmed: StepOutcome | None = None
    swapped: StepOutcome | None = None
    exits: list[StepOutcome] = field(default_factory=list)
    skipped: tuple[BlockedExit, ...] = ()
    doubtful: dict[str, SubmissionRefusal | None] = field(default_factory=dict)
    interrupted: list[tuple[str, Retryable]] = field(default_factory=list)
    held: list[StepOutcome] = field(default_factory=list)
    direct: tuple[str, ...] = ()
    left_pools: tuple[str, ...] = ()
    unwithdrawn: list[StepOutcome] = field(default_factory=list)

    @property
    def propose(self) -> Proposer:
        """Proposer for the request of the step."""
        return proposer(self.asked)

    @property
    def tried(self) -> tuple[str, ...]:
        """Tokens of the exits that this step has sent or skipped."""
        sent = [outcome.decided.exit_token for outcome in self.exits]
        return tuple(dict.fromkeys([*sent, *(blocked.token for blocked in self.skipped)]))

    def exits_with(self, kind: OutcomeKind) -> list[StepOutcome]:
        """Return the sent exits with this kind of outcome."""
        return [outcome for outcome in self.exits if outcome.kind is kind]

    @property
    def is_risk_reducing_only(self) -> bool:
        """True after an exit that was not sold: purchases wait for the next cycle."""
        failed = self.exits_with(OutcomeKind.FAILED) or self.unwithdrawn
        return bool(failed or self.interrupted or self.held)

    def with_progress(self, step_input: StepInput) -> StepInput:
        """Return the step input with caps and gas of the current plan. Liquidity actions of this
        step do not start cooldowns.
        """
        gas_wei = gas_spent_wei(self.sent[self.first_of_plan :])
        step_input = failures.with_refused_markets(step_input, self.refused_markets)
        step_input = replace(
            step_input,
            spend_caps=tuple(self.spend_caps.items()),
            spent_gas_wei=gas_wei,
            direct=self.direct,
            left_pools=self.left_pools,
            reduced_markets=self.reduced_markets,
            after_hedge=bool(self.hedged),
            reduction_goals=self.reduction_goals,
            order_parts=tuple(self.order_parts.items()),
        )
        if (before := self.history_before) is None:
            return step_input
        history = replace(
            step_input.history,
            last_rebalance_s=before.last_rebalance_s,
            last_liquidity_s=before.last_liquidity_s,
        )
        return replace(step_input, history=history, acted=True)

    def begin_plan(self) -> None:
        """Reset the counters for the next plan of this step."""
        self.approval_rounds, self.spend_caps, self.first_of_plan = 0, {}, len(self.sent)

    def pool_to_leave(self, plan: Plan | None) -> str:
        """Return the pool of a plan that only withdraws; empty for other plans and after a swap."""
        if plan is None or not plan.actions or self.swapped is not None:
            return ""
        pool = failures.exit_name(plan)
        return "" if pool in self.left_pools else pool

    def leave_pool(self, pool: str, outcome: StepOutcome | None = None) -> None:
        """Begin the next plan after a withdrawal that did not succeed. The rest of the step leaves
        the pool alone.
        """
        self.left_pools += (pool,)
        if outcome is not None:
            self.unwithdrawn.append(outcome)
        self.leave_exit()

    def go_directly(self, token: str) -> None:
        """Begin a new plan of this exit, through no other token."""
        self.direct += (token,)
        self.leave_exit()

    def leave_exit(self, blocked: BlockedExit | None = None) -> None:
        """Begin the next plan after an exit. The rest of the step ignores a `blocked` exit."""
        if blocked is not None:
            self.skipped += (blocked,)
        self.confirmed = None
        self.begin_plan()


def run_step(
    readers: StepReaders, asked: PlanRequest, store: StepStorage, actors: StepActors | None
) -> StepOutcome:
    """Run one step from snapshot to settled receipt. Without actors only evaluate and record.

    Each exit is evaluated from a new snapshot, confirmed and sent separately; a refused exit is
    skipped. The remaining work follows, also confirmed separately.
    """
    if actors is None:
        return _close(store, record_evaluation(StepRun(readers, asked, store)))
    actors.executor.reconcile()
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    run = StepRun(readers, asked, store)
    outcome = _run_until_done(run, actors)
    if outcome.decided.reviewed and outcome.kind in REVIEW_DONE_KINDS:
        store.budgets.mark_review(
            review_time_s(outcome.step_input.snapshot),
            int(readers.chance() * MILLION),
            outcome.decided.reviews,
        )
    if actors.executor.ready():
        book_internal_netting(store.strategies, outcome)
    outcome = approvals.revoke_leftovers(readers, actors, store, outcome)
    if run.skipped:  # approvals of refused exits, and their revocations, are no failures
        store.budgets.mark_submission_refusals(readers.history(readers.clock.now_s()).late)
    return outcome


def _run_until_done(run: StepRun, actors: StepActors) -> StepOutcome:
    """Evaluate and carry out plans until the step ends; a new evaluation follows approvals, actions
    and exits.
    """
    while run.approval_rounds < MAX_APPROVAL_ROUNDS:
        try:
            evaluated = record_evaluation(run)
        except ExitInterrupted as error:
            if not _skip_interrupted_exit(run, actors, error.token, error, error.may_go_directly):
                raise
            continue
        try:
            ended = _carry_out(run, actors, evaluated)
        except Refused as refusal:
            ended = None
            if not _skip_refused_futures(run, evaluated, refusal):
                ended = _skip_refused_exit(run, evaluated, refusal)
        except TrimtabError as error:
            run.store.steps.end(
                evaluated.step_id,
                _word(evaluated.decision),
                str(error),
                _plan_json(evaluated.plan),
                "error",
            )
            token = evaluated.decided.exit_token
            directly = may_go_directly(evaluated.step_input, evaluated.plan, token)
            if not _skip_interrupted_exit(run, actors, token, error, directly):
                raise
            ended = None
        if ended is not None:
            ended = replace(ended, hedged=tuple(run.hedged))
            return _with_unsold_exits(run, _with_refused_orders(run, ended))
    raise OperatorNeeded(
        f"an approval is still missing after {MAX_APPROVAL_ROUNDS} attempts",
        "check the token's approve function; it may ignore approvals",
    )


def record_evaluation(run: StepRun) -> StepOutcome:
    """Evaluate a new snapshot, with the step input stored in the journal first."""
    step_id = uuid.uuid4().hex[:12]
    step_input = _read_input(run)
    _record_input(run, step_id, step_input)
    outcome = evaluate_input(
        step_input, run.propose, run.readers.evidence, step_id, TickExtender(run.readers.reader)
    )
    if outcome.step_input is not step_input:
        run.store.steps.begin(step_id, run.readers.clock.now_s(), codec.dumps(outcome.step_input))
    return replace(outcome, transactions=tuple(run.sent), exits_tried=run.tried)


def _read_input(run: StepRun) -> StepInput:
    """Read the step input at a new snapshot. The order matters: each call uses what earlier calls
    stored (settlements, draw, anomalies).
    """
    snapshot = run.readers.reader.snapshot()
    settle_mined(run.store, snapshot, lambda: run.readers.step_input_at(snapshot))
    step_input = run.with_progress(run.readers.step_input_at(snapshot))
    step_input = step_records.with_slice_draw(run.readers, step_input, run.store.executions)
    record_anomalies(run.store.budgets, run.store.balances, step_input)
    step_input = confirm_prices(run.readers, step_input)
    record_order_stages(run.store.orders, step_input)
    return exclude_blocked_exits(step_input, run.skipped)


def _record_input(run: StepRun, step_id: str, step_input: StepInput) -> None:
    """Record weights, ledger, strategies and prices of a step, and its input."""
    record_allocation(step_input, run.store.allocations)
    update_ledger(run.store, step_input)
    record_strategies(run.store.strategies, run.store.allocations, step_input)
    record_hourly_prices(run.readers, step_input, run.store.prices)
    run.store.steps.begin(
        step_id, run.readers.clock.now_s(), codec.dumps(step_input), codec.dumps(run.asked)
    )


def _carry_out(run: StepRun, actors: StepActors, outcome: StepOutcome) -> StepOutcome | None:
    """Confirm, approve and send the plan. None requests a new evaluation."""
    step_records.record_execution_changes(run.store.executions, outcome)
    if run.confirmed is not None and run.swapped is None:
        exits.require_exit_possible(run.confirmed, outcome, REPLAN_REMEDY)
    if (plan := _plan_to_send(run, outcome)) is None:
        return _finish(run, outcome)
    if _is_another_exit(run, outcome):
        _close(run.store, outcome)
        return None
    if run.confirmed is not None and _orders_futures(run.confirmed) != _orders_futures(outcome):
        run.confirmed = None
    if (confirmed := run.confirmed or _confirm(run, actors, outcome, plan)) is None:
        reason = f"not confirmed; {_sent_so_far(run.sent)} sent"
        declined = _close(run.store, replace(outcome, kind=OutcomeKind.DECLINED, reason=reason))
        if not outcome.decided.exit_token:
            return declined
        _hold_exit(run, declined, exits.DECLINED)
        return None
    _require_as_confirmed(confirmed, outcome, plan)
    if not plan.actions and plan.futures is None:
        step_records.begin_slice(run.readers, run.store.executions, outcome)
    last = run.approval_rounds + 1 == MAX_APPROVAL_ROUNDS
    if needed := exits.missing_approvals(actors.composer, outcome, plan, run.sent, last):
        return _approve(run, actors, outcome, needed)
    return _send(run, actors, outcome, plan)


def _is_another_exit(run: StepRun, outcome: StepOutcome) -> bool:
    """True if a new confirmation is needed: for an exit other than the confirmed one, or for the
    rest after an exit.
    """
    token = outcome.decided.exit_token
    if token and token in run.tried:
        run.leave_exit(BlockedExit(token, exits.SOLD_IN_PART, exits.NOTHING_TO_DO))
        return True
    if run.confirmed is None or run.confirmed.decided.exit_token == token:
        return False
    run.leave_exit()
    return True


def _orders_futures(outcome: StepOutcome) -> bool:
    """True if the plan of an outcome sends futures actions, which are confirmed apart from swaps."""
    return outcome.plan is not None and outcome.plan.futures is not None


def _plan_to_send(run: StepRun, outcome: StepOutcome) -> Plan | None:
    """Return the plan to send, if any. Only liquidity actions may follow a swap; only plans that
    reduce risk may follow an exit that was not sold; futures are opened in a later step than they
    are reduced or topped up, so that freed margin is neither used nor withdrawn at once.
    """
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    if plan is None or (run.swapped is not None and not plan.actions):
        return None
    if run.reduced and plan.futures is not None and not plan.futures.is_reducing:
        return None
    return None if run.is_risk_reducing_only and not _reduces_risk(outcome) else plan


def _finish(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that sends nothing more: of its swap, exits or actions, or of
    the evaluation.
    """
    if run.swapped is not None:
        _close(run.store, outcome)
        return replace(run.swapped, transactions=tuple(run.sent), after=outcome.step_input)
    acted = _actions_done(run)
    is_opening = run.reduced and _orders_futures(outcome)  # waits for the next step
    if run.exits or not acted or not (outcome.kind is OutcomeKind.HOLD or is_opening):
        return _after_exits(run, _close(run.store, outcome))
    reason = "; ".join([*acted, outcome.reason])
    return _close(
        run.store, replace(outcome, kind=OutcomeKind.DONE, reason=reason, after=outcome.step_input)
    )


def _actions_done(run: StepRun) -> list[str]:
    """Return notes on the liquidity and futures actions of the step."""
    notes = []
    if run.orders:
        notes.append(
            "1 futures action done" if run.orders == 1 else f"{run.orders} futures actions done"
        )
    if run.actions:
        count = "1 action" if run.actions == 1 else f"{run.actions} actions"
        notes.append(f"{count} with liquidity done")
    return notes


def _after_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that ends with `outcome`: that of its last failed exit, else of
    its last exit.
    """
    if not run.exits:
        return outcome
    shown = (run.exits_with(OutcomeKind.FAILED) or run.exits)[-1]
    sent = {exit_.decided.exit_token for exit_ in run.exits}
    blocked = tuple(item for item in outcome.decided.stuck if item.token not in sent)
    parts = [shown.reason]
    if len(sent) > 1:
        parts += _sold_exits(run)
    if blocked or outcome.kind is not OutcomeKind.HOLD:
        parts.append(f"then: {outcome.reason}")
    return replace(
        shown,
        reason="; ".join(parts),
        decided=replace(shown.decided, stuck=blocked),
        exits_tried=run.tried,
        transactions=tuple(run.sent),
        after=outcome.step_input,
    )


def _with_unsold_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome with the exits that the step could not sell, also if later plans
    succeeded. Raise the error of an endpoint if nothing was sent and no exit was held.
    """
    quiet = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.PLANNED)
    held = [*run.unwithdrawn, *run.held]
    if quiet and held:
        outcome = replace(held[-1], transactions=tuple(run.sent))
    elif quiet and run.interrupted and not run.sent:
        raise run.interrupted[0][1]
    failed = [*run.exits_with(OutcomeKind.FAILED), *run.unwithdrawn]
    token_at = outcome.step_input.portfolio.token
    unsold = [exit_.reason for exit_ in failed if exit_.reason not in outcome.reason]
    unsold += [
        f"{token_at(token).label} was not sold: {error}"
        for token, error in run.interrupted
        if error.message not in outcome.reason
    ]
    hidden = outcome.kind is OutcomeKind.DONE or (quiet and not held)
    if (failed or run.interrupted) and hidden:
        outcome = replace(outcome, kind=OutcomeKind.FAILED)
    return replace(outcome, reason="; ".join([outcome.reason, *unsold]))


def _with_refused_orders(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome with the deposits and reductions that were refused before they were sent, or
    reverted; a step that did nothing else is refused, one with a reverted order has failed.
    """
    if not run.refused_orders:
        return outcome
    reason = "; ".join([outcome.reason, *(one.reason for one in run.refused_orders)])
    failed = any(one.kind is OutcomeKind.FAILED for one in run.refused_orders)
    if failed and outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.DONE):
        return replace(outcome, kind=OutcomeKind.FAILED, reason=reason)
    if outcome.kind is OutcomeKind.HOLD:
        verdicts = run.refused_orders[-1].verdicts
        return replace(outcome, kind=OutcomeKind.REFUSED, reason=reason, verdicts=verdicts)
    return replace(outcome, reason=reason)


def _sold_exits(run: StepRun) -> list[str]:
    """Return a note on the sold exits; empty if there are none."""
    labels = [
        sold.step_input.portfolio.token(sold.decided.exit_token).label
        for sold in run.exits_with(OutcomeKind.DONE)
    ]
    return [f"exits sold, each in its own transaction: {', '.join(labels)}"] if labels else []


def _confirm(
    run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan
) -> StepOutcome | None:
    """Request a confirmation and return the outcome; None if declined.

    Raises Refused if the plan has expired meanwhile.
    """
    if not actors.confirm(outcome):
        return None
    actors.composer.require_fresh(outcome.step_input, plan)
    run.confirmed = outcome
    return outcome


def _require_as_confirmed(confirmed: StepOutcome, outcome: StepOutcome, plan: Plan) -> None:
    """Raise Refused if the plan is not of the confirmed kind: new exclusions, liquidity first, a
    different order.
    """
    exits.require_no_new_exclusions(confirmed, outcome, REPLAN_REMEDY)
    if plan.actions and confirmed.plan is not None and not confirmed.plan.actions:
        raise Refused("liquidity must be moved before the confirmed swaps", remedy=REPLAN_REMEDY)
    if outcome.decided.order != confirmed.decided.order:
        raise Refused(
            "a limit order was added or removed after the confirmation", remedy=REPLAN_REMEDY
        )


def _approve(
    run: StepRun, actors: StepActors, outcome: StepOutcome, needed: Sequence[Approval]
) -> StepOutcome | None:
    """Send the approvals. None requests a new evaluation that uses them; a failed approval ends the
    step.
    """
    approvals.approve(actors, outcome, needed, run.sent)
    run.spend_caps |= {approval.token: approval.raw for approval in needed}
    run.approval_rounds += 1
    outcome, newest = replace(outcome, transactions=tuple(run.sent)), run.sent[-1]
    if newest.succeeded:
        _close(run.store, outcome)
        return None
    if newest.receipt is not None and newest.tx.to == outcome.decided.exit_token:
        raise exits.ExitRefused(f"«{newest.note}» reverted")
    return _close(
        run.store,
        replace(outcome, kind=OutcomeKind.FAILED, reason=f"«{newest.note}» did not succeed"),
    )


def _send(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """Send the plan's transaction. None requests a new plan, after an exit or between liquidity
    actions.
    """
    if plan.futures is not None:
        return _send_futures(run, actors, outcome, plan.futures)
    if plan.actions:
        run.history_before = run.history_before or outcome.step_input.history
        prepared = actors.composer.liquidity(outcome.step_input, plan)
        name, otherwise = f"«{prepared.note}»", "no liquidity was moved"
        outcome = _close(run.store, _execute(run, actors, outcome, prepared, name, otherwise))
        if outcome.kind is OutcomeKind.FAILED and (pool := run.pool_to_leave(plan)):
            run.leave_pool(pool, outcome)
            return None
        run.actions += 1
    else:
        prepared = actors.composer.swap(outcome.step_input, plan)
        outcome = _close(
            run.store, _execute(run, actors, outcome, prepared, "the swap", "nothing was exchanged")
        )
        if token := outcome.decided.exit_token:
            run.exits.append(outcome)
            blocked = None
            if outcome.kind is OutcomeKind.FAILED:
                blocked = BlockedExit(token, exits.REVERTED, exits.NOTHING_TO_DO)
            run.leave_exit(blocked)
            return None
        run.swapped = outcome = replace(
            outcome, reason="; ".join([outcome.reason, *_sold_exits(run)])
        )
    if outcome.kind is OutcomeKind.FAILED or run.actions in (0, MAX_ACTIONS):
        return outcome
    run.begin_plan()
    return None


def _send_futures(
    run: StepRun, actors: StepActors, outcome: StepOutcome, futures: FuturesPlan
) -> StepOutcome | None:
    """Send the first futures action. None requests a new plan."""
    action, plan = futures.actions[0], outcome.plan
    frees = action.is_reduce_only if isinstance(action, PerpOrder) else futures.is_reducing
    if plan is None:
        raise ValueError("an outcome without a plan sends nothing")
    prepared = actors.composer.futures(outcome.step_input, plan)
    otherwise = "no position was changed" if futures.orders else "no margin was moved"
    name = f"«{prepared.note}»"
    outcome = _close(run.store, _execute(run, actors, outcome, prepared, name, otherwise))
    run.orders += 1
    run.reduced = run.reduced or frees
    if isinstance(action, PerpOrder) and frees:
        run.reduced_markets += (action.market,)
        run.reduction_goals = reduction_goals(outcome.step_input, futures)
    if outcome.kind is OutcomeKind.FAILED and _leave_failed_market(run, outcome, plan):
        return None
    if futures.trigger == HEDGE:
        run.hedged += [one for one in plan.comparisons if one.is_hedged]
    if outcome.kind is OutcomeKind.FAILED or run.orders == MAX_ORDERS:
        return outcome
    if isinstance(run.asked, MoveMargin):
        return outcome
    run.begin_plan()
    return None


def _leave_failed_market(run: StepRun, outcome: StepOutcome, plan: Plan) -> bool:
    """Let the market of a reduction that reverted wait for the rest of the step: whoever makes one
    order revert must not hold back the others. False for any other order, for the owner's requests,
    and while the order is not settled.
    """
    decision, newest = outcome.decision, run.sent[-1]
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    name = failures.exit_name(plan)
    if newest.receipt is None or by_owner or name in ("", failures.MARGIN):
        return False
    if run.orders >= MAX_ORDERS or name in run.refused_markets:
        return False
    run.refused_orders.append(outcome)
    run.refused_markets[name] = outcome.step_input.snapshot.head.timestamp_s
    run.begin_plan()
    return True


def _execute(
    run: StepRun,
    actors: StepActors,
    outcome: StepOutcome,
    prepared: PreparedTransaction,
    what: str,
    otherwise: str,
) -> StepOutcome:
    """Send one transaction, then book it at a new snapshot."""
    intent = approvals.execute_prepared(actors, outcome.step_id, prepared)
    run.sent.append(intent)
    outcome = replace(outcome, transactions=tuple(run.sent))
    if not intent.succeeded:
        state = "reverted" if intent.receipt is not None else intent.state.value
        return replace(
            outcome, kind=OutcomeKind.FAILED, reason=f"{what} ended {state}; {otherwise}"
        )
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    exits.clear_submission_refusals(run.store.budgets, outcome)
    try:
        snapshot = run.readers.reader.snapshot()
    except (Retryable, Refused):  # the transaction is mined; the next step books it
        return outcome
    settle_mined(
        run.store,
        snapshot,
        lambda: run.readers.step_input_at(snapshot),
        before=outcome.step_input.snapshot,
    )
    after = run.readers.step_input_at(snapshot)
    update_ledger(run.store, after)
    record_strategies(run.store.strategies, run.store.allocations, after)
    return replace(outcome, after=after)


def _skip_refused_futures(run: StepRun, outcome: StepOutcome, refusal: Refused) -> bool:
    """Let a deposit, a reduction or a hedge that simulation, token or signer refused wait for the
    rest of the step: other markets and spot go on. False for any other refusal, and for the owner's
    requests.
    """
    plan, decision = outcome.plan, outcome.decision
    if plan is None or (futures := plan.futures) is None:
        return False
    name = failures.exit_name(plan)
    if futures.trigger in (HEDGE, CLOSE_HEDGE):
        name = futures.orders[0].market
    elif futures.trigger == HEDGE_MARGIN:
        name = failures.MARGIN
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    if by_owner or not name or name in run.refused_markets or not exits.concerns_futures(refusal):
        return False
    if (parts := _next_parts(run, outcome, refusal)) > 1:
        run.order_parts[name] = parts
        _close(run.store, replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal)))
        run.begin_plan()
        return True
    refused = replace(
        outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), verdicts=refusal.verdicts
    )
    run.refused_orders.append(_close(run.store, refused))
    run.refused_markets[name] = outcome.step_input.snapshot.head.timestamp_s
    run.begin_plan()
    return True


def _next_parts(run: StepRun, outcome: StepOutcome, refusal: Refused) -> int:
    """Return the divisor that a reduction is planned with after its simulation reverted, as a thin
    pool fills a small order where it refuses a large one; zero for any other refusal, and after the
    largest.

    A venue beside the chain fills what its book has by itself.
    """
    futures = None if outcome.plan is None else outcome.plan.futures
    account = outcome.step_input.snapshot.futures
    if futures is None or account is None or not account.is_on_chain:
        return 0
    first = futures.actions[0]
    if not isinstance(refusal, UnsendableTransaction) or not isinstance(first, PerpOrder):
        return 0
    parts = run.order_parts.get(first.market, 1) * FEWER
    return parts if first.is_reduce_only and parts <= MOST_PARTS else 0


def _skip_refused_exit(run: StepRun, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Skip an exit refused by its token, the simulation or the signer; any other refusal ends the
    step. If no exit was sold and the rest is refused too, the refusal does not count against a
    token: router or endpoint may be at fault.
    """
    reason = str(refusal)
    if outcome.plan is None:
        reason += f"; {outcome.reason}"  # the reason of the decision
    stopped = replace(
        outcome,
        kind=OutcomeKind.REFUSED,
        reason=reason,
        transactions=tuple(run.sent),
        verdicts=refusal.verdicts,
    )
    _close(run.store, stopped)
    own = exits.concerns_trade(refusal) or exits.gas_refusal(refusal)
    token = outcome.decided.exit_token
    if (
        own
        and not isinstance(refusal, exits.ExitRefused)
        and may_go_directly(outcome.step_input, outcome.plan, token)
    ):
        run.go_directly(token)
        return None
    if own and (pool := run.pool_to_leave(outcome.plan)):
        run.leave_pool(pool, stopped)
        return None
    if not exits.concerns_trade(refusal):
        if own and token:
            _hold_exit(run, stopped, f"refused at submission: {refusal.message}")
            return None
        return _after_exits(run, stopped)
    refusals = {earlier.token: earlier for earlier in outcome.step_input.history.late}
    if run.confirmed is None or not (token := run.confirmed.decided.exit_token):
        if run.doubtful and not run.exits_with(OutcomeKind.DONE):
            run.store.budgets.mark_submission_refusals(
                exits.without_doubtful(tuple(refusals.values()), run.doubtful)
            )
        return _after_exits(run, stopped)
    if not isinstance(refusal, exits.ExitRefused):
        run.doubtful[token] = refusals.get(token)
    blocked = BlockedExit(token, f"refused at submission: {refusal.message}", RETRY_REMEDY)
    run.store.budgets.mark_submission_refusals(add_submission_refusal(outcome.step_input, blocked))
    run.leave_exit(blocked)
    return None


def _hold_exit(run: StepRun, outcome: StepOutcome, why: str) -> None:
    """Skip an exit that was declined, or whose gas was refused, without a refusal on record for its
    token.
    """
    run.held.append(outcome)
    run.leave_exit(BlockedExit(outcome.decided.exit_token, why, exits.NOTHING_TO_DO))


def _skip_interrupted_exit(
    run: StepRun, actors: StepActors, token: str, error: TrimtabError, directly: bool
) -> bool:
    """Skip an exit that was not sent because an endpoint failed, or plan it again through no other
    token. Return False for other errors, and if the next nonce is unknown: the swap was sent or a
    transaction is open.
    """
    if not isinstance(error, Retryable) or not token or token in run.tried:
        return False
    sent = [
        intent for intent in run.sent[run.first_of_plan :] if intent.kind is not IntentKind.APPROVE
    ]
    if sent or not actors.executor.ready():
        return False
    if directly:
        run.go_directly(token)
        return True
    run.interrupted.append((token, error))
    why = f"it could not be sent: {error.message}"
    run.leave_exit(BlockedExit(token, why, error.remedy or exits.NOTHING_TO_DO))
    return True


def _refused(
    step_id: str,
    step_input: StepInput,
    decided: DecisionResult,
    plan: Plan | None,
    refusal: Refused,
) -> StepOutcome:
    return StepOutcome(
        step_id,
        OutcomeKind.REFUSED,
        str(refusal),
        step_input,
        decided,
        plan,
        verdicts=refusal.verdicts,
    )


def _sent_so_far(sent: Sequence[Intent]) -> str:
    if any(intent.kind is not IntentKind.APPROVE for intent in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"


def _close(store: StepStorage, outcome: StepOutcome) -> StepOutcome:
    store.steps.end(
        outcome.step_id,
        _word(outcome.decision),
        outcome.reason,
        _plan_json(outcome.plan),
        outcome.kind.value,
    )
    return outcome


def _plan_json(plan: Plan | None) -> str | None:
    return None if plan is None else codec.dumps(plan)


def _word(decision: Decision) -> str:
    return type(decision).__name__.lower()
