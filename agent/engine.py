"""One step of the agent: read, decide, plan, judge, write down, send, settle. The same for live, paper, fork and replay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent import codec, guards
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution import approvals, assemble_input, exits
from agent.execution import exits as late
from agent.execution.assemble_input import book_internal_netting, record_strategies
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.carrier import gas_spent_wei
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
)
from agent.model import BlockedExit, Decision, Halt, History, Intent, IntentKind, Plan, PlanRequest, StepInput
from agent.planning.proposals import Proposer, proposer
from agent.policy.decide import DecisionResult, decide
from agent.policy.orders import exits as stuck
from agent.ports import EvidenceSource, Journal, PreparedTransaction

MAX_APPROVAL_ROUNDS = 4
"""Plans made anew for one transaction: each round of approvals asks for a fresh one."""
MILLION = 1_000_000
REPLAN_REMEDY = "look again, and confirm that"
MAX_ACTIONS = 8
"""Actions with liquidity in one step, each on a plan of its own; what is left waits for the next."""


def evaluate(  # noqa: PLR0913
    readers: StepReaders,
    propose: Proposer,
    step_id: str = "",
    journal: Journal | None = None,
    caps: Mapping[str, int] | None = None,
    spent_gas_wei: int = 0,
    began: History | None = None,
    left: Sequence[BlockedExit] = (),
    asked: PlanRequest | None = None,
) -> StepOutcome:
    """Reads, decides, plans and judges; sends nothing. Refusals come back as an outcome with their verdicts.

    `caps` are base units by token that legs may take at most, since this step has approved just so much; `spent_gas_wei` is
    what its approvals cost. `began` is what was remembered when a step began that has moved liquidity since: its cooldown is
    judged by that, since its own actions are no reason not to end them. `left` are exits that this step leaves alone, and `asked` is
    written down as what asked for it.
    """
    snapshot = readers.reader.snapshot()
    if journal is not None:
        settle_mined(journal, snapshot, lambda: readers.step_input_at(snapshot))
    step_input = replace(readers.step_input_at(snapshot), spend_caps=tuple((caps or {}).items()), spent_gas_wei=spent_gas_wei)
    if began is not None:
        history = replace(step_input.history, last_rebalance_s=began.last_rebalance_s, last_liquidity_s=began.last_liquidity_s)
        step_input = replace(step_input, history=history, acted=True)
    if journal is not None:
        step_input = assemble_input.with_slice_draw(readers, step_input, journal)
    step_input = stuck.exclude_blocked_exits(confirm_prices(readers, step_input, journal), left)
    if journal is not None:
        record_allocation(step_input, journal)
        update_ledger(journal, step_input)
        record_strategies(journal, step_input)
        record_hourly_prices(readers, step_input, journal)
        journal.begin_step(step_id, readers.clock.now_s(), codec.dumps(step_input), None if asked is None else codec.dumps(asked))
    outcome = evaluate_input(step_input, propose, readers.evidence, step_id, TickExtender(readers.reader))
    if journal is not None and outcome.step_input is not step_input:
        journal.begin_step(step_id, readers.clock.now_s(), codec.dumps(outcome.step_input))
    return outcome


def evaluate_input(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> StepOutcome:
    """The same from a given StepInput; without an evidence source the verdicts stay empty. `further` reads more ticks.

    Where the guards refuse an exit for its market, it is judged what else there is to do.
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
    """The same of this step as it is: no exit is left alone for what guards say. A step that was written down is one of these."""
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


def run_step(readers: StepReaders, asked: PlanRequest, journal: Journal, actors: StepActors | None) -> StepOutcome:
    """The whole agent: one step from snapshot to settled receipt. Every way out is written in the journal, with what asked for it.

    An exit that is refused only when it is about to be sent is left alone, and what else there is to do is looked at, planned,
    judged and confirmed anew.
    """
    if actors is None:
        return _run_until_done(readers, asked, journal, None)
    actors.executor.reconcile()
    readers = replace(readers, reader=CaughtUpReader(readers.reader, journal, readers.clock))
    outcome = _run_until_done(readers, asked, journal, actors)
    if outcome.decided.reviewed and outcome.kind in REVIEW_DONE_KINDS:
        journal.mark_review(review_time_s(outcome.step_input.snapshot), int(readers.chance() * MILLION), outcome.decided.reviews)
    if actors.executor.ready():
        book_internal_netting(journal, outcome)
    outcome = approvals.revoke_leftovers(readers, actors, journal, outcome)
    if outcome.around:
        journal.mark_submission_refusals(
            readers.history(readers.clock.now_s()).late
        )  # what was approved for them, and taken back, counts in no row
    return outcome


def _run_until_done(readers: StepReaders, asked: PlanRequest, journal: Journal, actors: StepActors | None) -> StepOutcome:  # noqa: C901, PLR0915
    propose = proposer(asked)

    def judged(step: StepInput) -> StepOutcome:
        return evaluate_input(step, propose, readers.evidence)

    sent: list[Intent] = []
    caps: dict[str, int] = {}
    rounds = acted = since = anew = 0
    began: History | None = None
    swapped: StepOutcome | None = None
    said: StepOutcome | None = None  # what was confirmed
    left: tuple[BlockedExit, ...] = ()
    around: list[str] = []
    while rounds < MAX_APPROVAL_ROUNDS:
        step_id = uuid.uuid4().hex[:12]
        outcome = evaluate(readers, propose, step_id, journal, caps, gas_spent_wei(sent[since:]), began, left, asked)
        outcome = replace(outcome, transactions=tuple(sent), around=tuple(around))
        try:
            plan = outcome.plan
            if actors is not None:
                assemble_input.record_execution_changes(journal, outcome)
            if said is not None and swapped is None:
                late.require_still_held(said, outcome, REPLAN_REMEDY)
            if swapped is not None and (plan is None or outcome.kind is not OutcomeKind.PLANNED or not plan.actions):
                _close(journal, outcome)
                return replace(swapped, transactions=tuple(sent), after=outcome.step_input)
            if actors is None or plan is None or outcome.kind is not OutcomeKind.PLANNED:
                return _close(journal, _after_actions(outcome, acted))
            if said is None:
                if not actors.confirm(outcome):
                    return _close(journal, replace(outcome, kind=OutcomeKind.DECLINED, reason=f"not confirmed; {_nothing(sent)} sent"))
                actors.composer.require_fresh(outcome.step_input, plan)
                said = outcome
            late.require_no_new_exclusions(said, outcome, REPLAN_REMEDY)
            if plan.actions and said.plan is not None and not said.plan.actions:
                raise Refused("liquidity has to move before the swaps that were confirmed", remedy=REPLAN_REMEDY)
            if outcome.decided.order != said.decided.order:
                raise Refused("an order at a price came or went, which is not what was confirmed", remedy=REPLAN_REMEDY)
            if not plan.actions:
                assemble_input.begin_slice(readers, journal, outcome)
            needed = late.missing_approvals(actors.composer, outcome, plan, sent, last=rounds + 1 == MAX_APPROVAL_ROUNDS)
            if needed:
                approvals.approve(actors, outcome, needed, sent)
                caps |= {approval.token: approval.raw for approval in needed}
                rounds += 1
                outcome = replace(outcome, transactions=tuple(sent))
                if not sent[-1].succeeded:
                    late.require_approval_succeeded(sent[-1], said.decided.leaves)
                    return _close(journal, replace(outcome, kind=OutcomeKind.FAILED, reason=f"«{sent[-1].note}» did not succeed"))
                _close(journal, outcome)
                continue
            if plan.actions:
                began = began or outcome.step_input.history
                outcome = _close(journal, _act(readers, actors, journal, outcome, plan, sent))
                acted += 1
            else:  # after actions what was swapped for may follow: a new range for what was taken out
                outcome = swapped = _close(journal, _swap(readers, actors, journal, outcome, plan, sent))
            if outcome.kind is OutcomeKind.FAILED or acted in (0, MAX_ACTIONS):
                return outcome
            rounds, caps, since = 0, {}, len(sent)
        except Refused as refusal:
            # What the signer, the simulation or the kill switch stopped; approvals before it were sent and are told.
            told = str(refusal) if outcome.plan is not None else f"{refusal}; {outcome.reason}"  # where no plan says what was decided
            stopped = replace(outcome, kind=OutcomeKind.REFUSED, reason=told, transactions=tuple(sent), verdicts=refusal.verdicts)
            _close(journal, stopped)
            goes = () if said is None else said.decided.leaves
            alone = (
                () if actors is None or anew == late.MAX_REPLANS else late.exits_to_skip(refusal, outcome, goes, actors.composer, judged)
            )
            if not alone:
                return stopped
            late.record_submission_refusals(journal, outcome.step_input, alone)
            left = (*(one for one in left if one.why != late.REFUSED_TOGETHER_AT_SUBMISSION), *alone)
            around += [one.token for one in alone]
            anew += 1
            rounds, caps, since, said = 0, {}, len(sent), None
        except TrimtabError as error:
            journal.end_step(step_id, _word(outcome.decision), str(error), _plan_json(outcome.plan), "error")
            raise
    raise OperatorNeeded(
        f"after {MAX_APPROVAL_ROUNDS} rounds an approval still lacks", "look at the token's approve function; it may ignore approvals"
    )


def _after_actions(outcome: StepOutcome, acted: int) -> StepOutcome:
    """A step that acted and then found nothing more to do is done."""
    if acted == 0 or outcome.kind is not OutcomeKind.HOLD:
        return outcome
    did = "1 action" if acted == 1 else f"{acted} actions"
    return replace(outcome, kind=OutcomeKind.DONE, reason=f"{did} with liquidity done; {outcome.reason}", after=outcome.step_input)


def _swap(readers: StepReaders, actors: StepActors, journal: Journal, outcome: StepOutcome, plan: Plan, sent: list[Intent]) -> StepOutcome:
    prepared = actors.composer.swap(outcome.step_input, plan)
    return _carry_out(readers, actors, journal, outcome, prepared, sent, "the swap", "nothing was exchanged")


def _act(readers: StepReaders, actors: StepActors, journal: Journal, outcome: StepOutcome, plan: Plan, sent: list[Intent]) -> StepOutcome:
    prepared = actors.composer.liquidity(outcome.step_input, plan)
    return _carry_out(readers, actors, journal, outcome, prepared, sent, f"«{prepared.note}»", "no liquidity was moved")


def _carry_out(  # noqa: PLR0913
    readers: StepReaders,
    actors: StepActors,
    journal: Journal,
    outcome: StepOutcome,
    prepared: PreparedTransaction,
    sent: list[Intent],
    what: str,
    otherwise: str,
) -> StepOutcome:
    """Sends what was planned, then reads again and books it."""
    intent = approvals.execute_prepared(actors, outcome.step_id, prepared)
    sent.append(intent)
    outcome = replace(outcome, transactions=tuple(sent))
    if not intent.succeeded:
        state = "reverted" if intent.receipt is not None else intent.state.value
        return replace(outcome, kind=OutcomeKind.FAILED, reason=f"{what} ended {state}; {otherwise}")
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    late.clear_submission_refusals(journal, outcome)
    try:
        snapshot = readers.reader.snapshot()
    except (Retryable, Refused):  # it is done all the same, and the next look books it
        return outcome
    settle_mined(journal, snapshot, lambda: readers.step_input_at(snapshot), before=outcome.step_input.snapshot)
    after = readers.step_input_at(snapshot)
    update_ledger(journal, after)
    record_strategies(journal, after)
    return replace(outcome, after=after)


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
