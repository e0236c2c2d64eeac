"""One step of the agent: read, decide, plan, judge, journal, send, settle. The same for live, paper, fork and replay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from agent import codec, guards
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution import approvals, exits, step_records
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.settlement import review_time_s, settle_mined
from agent.execution.step_context import (
    REVIEW_DONE_KINDS,
    CaughtUpReader,
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
from agent.execution.step_records import book_internal_netting, record_strategies
from agent.execution.submitter import gas_spent_wei
from agent.model import BlockedExit, Decision, Halt, History, Intent, IntentKind, Plan, PlanRequest, StepInput
from agent.planning.proposals import Proposer, proposer
from agent.policy.decide import DecisionResult, decide
from agent.policy.orders.exits import exclude_blocked_exits
from agent.ports import Approval, EvidenceSource, Journal, PreparedTransaction

MAX_APPROVAL_ROUNDS = 4
"""Evaluations of a step for one transaction: each round of approvals asks for another one."""
MILLION = 1_000_000
REPLAN_REMEDY = "look again, and confirm that"
MAX_ACTIONS = 8
"""Liquidity actions of one step, each on a plan of its own; the rest waits for the next step."""

# --- Evaluation: read, decide, plan and judge. Nothing is written or sent.


def evaluate(readers: StepReaders, propose: Proposer) -> StepOutcome:
    """Evaluate a new snapshot. A refusal is an outcome with its verdicts."""
    step_input = confirm_prices(readers, readers.step_input_at(readers.reader.snapshot()))
    return evaluate_input(step_input, propose, readers.evidence, further=TickExtender(readers.reader))


def evaluate_input(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input. Without an evidence source the verdicts stay empty. `further` reads more ticks.

    If the guards refuse an exit because of its market, the remaining work is planned and judged without it.
    """

    def judged(step: StepInput) -> StepOutcome:
        return evaluate_input_once(step, propose, evidence, step_id, further)

    return exits.without_refused_exits(judged(step_input), judged)


def evaluate_input_once(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """Evaluate a step input as it is, with every exit. The journal stores step inputs of this kind."""
    step_input, proposal, seen = propose_screened(step_input, propose, evidence, further)
    if isinstance(proposal, Refused):
        return _refused(step_id, step_input, decide(step_input), None, proposal)
    if (plan := proposal.plan) is None:
        kind = OutcomeKind.HALT if isinstance(proposal.decided.decision, Halt) else OutcomeKind.HOLD
        return StepOutcome(step_id, kind, proposal.decided.decision.reason, step_input, proposal.decided, None)
    if seen is not None:
        plan = replace(plan, verdicts=guards.judge(step_input, plan, seen))
        try:
            guards.require(plan, plan.verdicts)
        except Refused as refusal:
            return _refused(step_id, step_input, proposal.decided, plan, refusal)
    return StepOutcome(step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, proposal.decided, plan)


# --- One step: evaluate, confirm, approve, send, settle. Every end is written in the journal.


@dataclass(slots=True)
class StepRun:
    """A step under way: what it reads through, and what it has confirmed, sent and skipped so far.

    `sent` has every transaction of the step; those of the present plan begin at `first_of_plan`. `spend_caps` are the base units by
    token that were approved: its legs may take no more. `history_before` is what was remembered before the first liquidity action.
    `skipped` are exits that this step leaves out, `refused_exits` the tokens of those refused at submission.
    """

    readers: StepReaders
    asked: PlanRequest
    journal: Journal
    sent: list[Intent] = field(default_factory=list)
    first_of_plan: int = 0
    spend_caps: dict[str, int] = field(default_factory=dict)
    approval_rounds: int = 0
    actions: int = 0
    replans: int = 0
    history_before: History | None = None
    confirmed: StepOutcome | None = None
    swapped: StepOutcome | None = None
    skipped: tuple[BlockedExit, ...] = ()
    refused_exits: list[str] = field(default_factory=list)

    @property
    def propose(self) -> Proposer:
        """What proposes a plan for this request."""
        return proposer(self.asked)

    @property
    def confirmed_exits(self) -> tuple[str, ...]:
        """Tokens that the confirmed plan sells out."""
        return () if self.confirmed is None else self.confirmed.decided.leaves

    def with_progress(self, step_input: StepInput) -> StepInput:
        """The step input with the caps and gas of this plan. Cooldowns ignore the step's own actions, which must not stop the next."""
        gas_wei = gas_spent_wei(self.sent[self.first_of_plan :])
        step_input = replace(step_input, spend_caps=tuple(self.spend_caps.items()), spent_gas_wei=gas_wei)
        if (before := self.history_before) is None:
            return step_input
        history = replace(step_input.history, last_rebalance_s=before.last_rebalance_s, last_liquidity_s=before.last_liquidity_s)
        return replace(step_input, history=history, acted=True)

    def begin_plan(self) -> None:
        """Start counting for the next plan of this step."""
        self.approval_rounds, self.spend_caps, self.first_of_plan = 0, {}, len(self.sent)

    def skip(self, refused: Sequence[BlockedExit]) -> None:
        """Leave these exits out from now on. The next plan is confirmed anew."""
        self.skipped = (*(one for one in self.skipped if one.why != exits.REFUSED_TOGETHER_AT_SUBMISSION), *refused)
        self.refused_exits += [one.token for one in refused]
        self.replans += 1
        self.confirmed = None
        self.begin_plan()


def run_step(readers: StepReaders, asked: PlanRequest, journal: Journal, actors: StepActors | None) -> StepOutcome:
    """Run one step from snapshot to settled receipt; without actors only evaluate and write down.

    An exit that is refused at submission is skipped, and the remaining work is evaluated and confirmed anew.
    """
    if actors is None:
        return _close(journal, record_evaluation(StepRun(readers, asked, journal)))
    actors.executor.reconcile()
    readers = replace(readers, reader=CaughtUpReader(readers.reader, journal, readers.clock))
    outcome = _run_until_done(StepRun(readers, asked, journal), actors)
    if outcome.decided.reviewed and outcome.kind in REVIEW_DONE_KINDS:
        journal.mark_review(review_time_s(outcome.step_input.snapshot), int(readers.chance() * MILLION), outcome.decided.reviews)
    if actors.executor.ready():
        book_internal_netting(journal, outcome)
    outcome = approvals.revoke_leftovers(readers, actors, journal, outcome)
    if outcome.around:  # approvals for refused exits, and their revocations, count in no row of failures
        journal.mark_submission_refusals(readers.history(readers.clock.now_s()).late)
    return outcome


def _run_until_done(run: StepRun, actors: StepActors) -> StepOutcome:
    """Evaluate and carry out until the step ends. Approvals, liquidity actions and skipped exits each ask for another evaluation."""
    while run.approval_rounds < MAX_APPROVAL_ROUNDS:
        evaluated = record_evaluation(run)
        try:
            ended = _carry_out(run, actors, evaluated)
        except Refused as refusal:
            ended = _skip_refused_exits(run, actors, evaluated, refusal)
        except TrimtabError as error:
            run.journal.end_step(evaluated.step_id, _word(evaluated.decision), str(error), _plan_json(evaluated.plan), "error")
            raise
        if ended is not None:
            return ended
    raise OperatorNeeded(
        f"after {MAX_APPROVAL_ROUNDS} rounds an approval still lacks", "look at the token's approve function; it may ignore approvals"
    )


def record_evaluation(run: StepRun) -> StepOutcome:
    """Evaluate a new snapshot. The step input is in the journal before it is evaluated."""
    step_id = uuid.uuid4().hex[:12]
    step_input = _read_input(run)
    _record_input(run, step_id, step_input)
    outcome = evaluate_input(step_input, run.propose, run.readers.evidence, step_id, TickExtender(run.readers.reader))
    if outcome.step_input is not step_input:
        run.journal.begin_step(step_id, run.readers.clock.now_s(), codec.dumps(outcome.step_input))
    return replace(outcome, transactions=tuple(run.sent), around=tuple(run.refused_exits))


def _read_input(run: StepRun) -> StepInput:
    """The step input at a new snapshot. Each line rests on what the lines before it wrote: settlements, the draw, anomalies."""
    snapshot = run.readers.reader.snapshot()
    settle_mined(run.journal, snapshot, lambda: run.readers.step_input_at(snapshot))
    step_input = run.with_progress(run.readers.step_input_at(snapshot))
    step_input = step_records.with_slice_draw(run.readers, step_input, run.journal)
    record_anomalies(run.journal, step_input)
    step_input = confirm_prices(run.readers, step_input)
    record_order_stages(run.journal, step_input)
    return exclude_blocked_exits(step_input, run.skipped)


def _record_input(run: StepRun, step_id: str, step_input: StepInput) -> None:
    """Write down what the step input found: weights, balances, strategies, prices, and the input itself."""
    record_allocation(step_input, run.journal)
    update_ledger(run.journal, step_input)
    record_strategies(run.journal, step_input)
    record_hourly_prices(run.readers, step_input, run.journal)
    run.journal.begin_step(step_id, run.readers.clock.now_s(), codec.dumps(step_input), codec.dumps(run.asked))


def _carry_out(run: StepRun, actors: StepActors, outcome: StepOutcome) -> StepOutcome | None:
    """Confirm, approve and send what is planned. None asks for another evaluation."""
    step_records.record_execution_changes(run.journal, outcome)
    if run.confirmed is not None and run.swapped is None:
        exits.require_still_held(run.confirmed, outcome, REPLAN_REMEDY)
    if (plan := _plan_to_send(run, outcome)) is None:
        return _finish(run, outcome)
    if (confirmed := run.confirmed or _confirm(run, actors, outcome, plan)) is None:
        return _close(run.journal, replace(outcome, kind=OutcomeKind.DECLINED, reason=f"not confirmed; {_nothing(run.sent)} sent"))
    _require_as_confirmed(confirmed, outcome, plan)
    if not plan.actions:
        step_records.begin_slice(run.readers, run.journal, outcome)
    last = run.approval_rounds + 1 == MAX_APPROVAL_ROUNDS
    if needed := exits.missing_approvals(actors.composer, outcome, plan, run.sent, last):
        return _approve(run, actors, outcome, needed)
    return _send(run, actors, outcome, plan)


def _plan_to_send(run: StepRun, outcome: StepOutcome) -> Plan | None:
    """The plan, unless there is nothing to send. Only liquidity actions may follow a swap."""
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    return None if plan is None or (run.swapped is not None and not plan.actions) else plan


def _finish(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """The end of a step that has nothing more to send: its swap, its liquidity actions, or what was evaluated."""
    if run.swapped is not None:
        _close(run.journal, outcome)
        return replace(run.swapped, transactions=tuple(run.sent), after=outcome.step_input)
    if run.actions == 0 or outcome.kind is not OutcomeKind.HOLD:
        return _close(run.journal, outcome)
    did = "1 action" if run.actions == 1 else f"{run.actions} actions"
    reason = f"{did} with liquidity done; {outcome.reason}"
    return _close(run.journal, replace(outcome, kind=OutcomeKind.DONE, reason=reason, after=outcome.step_input))


def _confirm(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """The outcome, once confirmed while its plan is fresh; None where it is declined."""
    if not actors.confirm(outcome):
        return None
    actors.composer.require_fresh(outcome.step_input, plan)
    run.confirmed = outcome
    return outcome


def _require_as_confirmed(confirmed: StepOutcome, outcome: StepOutcome, plan: Plan) -> None:
    """Raise Refused for a plan of another kind than the confirmed one: new exclusions, liquidity first, another order."""
    exits.require_no_new_exclusions(confirmed, outcome, REPLAN_REMEDY)
    if plan.actions and confirmed.plan is not None and not confirmed.plan.actions:
        raise Refused("liquidity has to move before the swaps that were confirmed", remedy=REPLAN_REMEDY)
    if outcome.decided.order != confirmed.decided.order:
        raise Refused("an order at a price came or went, which is not what was confirmed", remedy=REPLAN_REMEDY)


def _approve(run: StepRun, actors: StepActors, outcome: StepOutcome, needed: Sequence[Approval]) -> StepOutcome | None:
    """Send the approvals. None asks for a plan that uses them; a failed one ends the step."""
    approvals.approve(actors, outcome, needed, run.sent)
    run.spend_caps |= {approval.token: approval.raw for approval in needed}
    run.approval_rounds += 1
    outcome, newest = replace(outcome, transactions=tuple(run.sent)), run.sent[-1]
    if newest.succeeded:
        _close(run.journal, outcome)
        return None
    exits.require_approval_succeeded(newest, run.confirmed_exits)
    return _close(run.journal, replace(outcome, kind=OutcomeKind.FAILED, reason=f"«{newest.note}» did not succeed"))


def _send(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """Send the plan's transaction. None asks for the next plan of a step that moves liquidity: another action, or its swap."""
    if plan.actions:
        run.history_before = run.history_before or outcome.step_input.history
        prepared = actors.composer.liquidity(outcome.step_input, plan)
        outcome = _close(run.journal, _execute(run, actors, outcome, prepared, f"«{prepared.note}»", "no liquidity was moved"))
        run.actions += 1
    else:
        prepared = actors.composer.swap(outcome.step_input, plan)
        outcome = _close(run.journal, _execute(run, actors, outcome, prepared, "the swap", "nothing was exchanged"))
        run.swapped = outcome
    if outcome.kind is OutcomeKind.FAILED or run.actions in (0, MAX_ACTIONS):
        return outcome
    run.begin_plan()
    return None


def _execute(
    run: StepRun, actors: StepActors, outcome: StepOutcome, prepared: PreparedTransaction, what: str, otherwise: str
) -> StepOutcome:
    """Send one transaction, then read again and book it."""
    intent = approvals.execute_prepared(actors, outcome.step_id, prepared)
    run.sent.append(intent)
    outcome = replace(outcome, transactions=tuple(run.sent))
    if not intent.succeeded:
        state = "reverted" if intent.receipt is not None else intent.state.value
        return replace(outcome, kind=OutcomeKind.FAILED, reason=f"{what} ended {state}; {otherwise}")
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    exits.clear_submission_refusals(run.journal, outcome)
    try:
        snapshot = run.readers.reader.snapshot()
    except (Retryable, Refused):  # the transaction is mined all the same; the next step books it
        return outcome
    settle_mined(run.journal, snapshot, lambda: run.readers.step_input_at(snapshot), before=outcome.step_input.snapshot)
    after = run.readers.step_input_at(snapshot)
    update_ledger(run.journal, after)
    record_strategies(run.journal, after)
    return replace(outcome, after=after)


def _skip_refused_exits(run: StepRun, actors: StepActors, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Skip the exits that signer, simulation or kill switch refused. None asks for a plan without them; another refusal ends the step."""
    reason = str(refusal) if outcome.plan is not None else f"{refusal}; {outcome.reason}"  # without a plan the reason says what was decided
    stopped = replace(outcome, kind=OutcomeKind.REFUSED, reason=reason, transactions=tuple(run.sent), verdicts=refusal.verdicts)
    _close(run.journal, stopped)
    if run.replans == exits.MAX_REPLANS:
        return stopped

    def judged(step: StepInput) -> StepOutcome:
        return evaluate_input(step, run.propose, run.readers.evidence)

    refused = exits.exits_to_skip(refusal, outcome, run.confirmed_exits, actors.composer, judged)
    if not refused:
        return stopped
    exits.record_submission_refusals(run.journal, outcome.step_input, refused)
    run.skip(refused)
    return None


def _refused(step_id: str, step_input: StepInput, decided: DecisionResult, plan: Plan | None, refusal: Refused) -> StepOutcome:
    return StepOutcome(step_id, OutcomeKind.REFUSED, str(refusal), step_input, decided, plan, verdicts=refusal.verdicts)


def _nothing(sent: Sequence[Intent]) -> str:
    if any(intent.kind is not IntentKind.APPROVE for intent in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"


def _close(journal: Journal, outcome: StepOutcome) -> StepOutcome:
    journal.end_step(outcome.step_id, _word(outcome.decision), outcome.reason, _plan_json(outcome.plan), outcome.kind.value)
    return outcome


def _plan_json(plan: Plan | None) -> str | None:
    return None if plan is None else codec.dumps(plan)


def _word(decision: Decision) -> str:
    return type(decision).__name__.lower()
