"""One step of the agent: read, decide, plan, judge, write down, send, settle. The same for live, paper, fork and replay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from agent import codec, guards
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution import approvals as approving
from agent.execution import assemble_input as campaigns
from agent.execution import exits
from agent.execution import exits as late
from agent.execution.assemble_input import cross_inside, keep_sleeves
from agent.execution.bookkeeping import keep, keep_choice, record
from agent.execution.carrier import gas_wei
from agent.execution.settlement import reviewed_s, settle
from agent.execution.step_context import REVIEWED, CaughtUp, Eyes, Further, Hands, Outcome, OutcomeKind, observed, propose_screened
from agent.model import Decision, Halt, History, Intent, IntentKind, Plan, Proposed, StepInput, StuckExit
from agent.planning.proposals import Proposer, proposer
from agent.policy.decide import Decided, decide
from agent.policy.orders import exits as stuck
from agent.ports import EvidenceSource, Journal, Prepared

MAX_ROUNDS = 4
"""Plans made anew for one transaction: each round of approvals asks for a fresh one."""
MILLION = 1_000_000
AGAIN = "look again, and confirm that"
MAX_ACTIONS = 8
"""Actions with liquidity in one step, each on a plan of its own; what is left waits for the next."""


def look(  # noqa: PLR0913
    eyes: Eyes,
    propose: Proposer,
    step_id: str = "",
    journal: Journal | None = None,
    caps: Mapping[str, int] | None = None,
    spent_gas_wei: int = 0,
    began: History | None = None,
    left: Sequence[StuckExit] = (),
    asked: Proposed | None = None,
) -> Outcome:
    """Reads, decides, plans and judges; sends nothing. Refusals come back as an outcome with their verdicts.

    `caps` are base units by token that legs may take at most, since this step has approved just so much; `spent_gas_wei` is
    what its approvals cost. `began` is what was remembered when a step began that has moved liquidity since: its cooldown is
    judged by that, since its own actions are no reason not to end them. `left` are exits that this step leaves alone, and `asked` is
    written down as what asked for it.
    """
    snapshot = eyes.reader.snapshot()
    if journal is not None:
        settle(journal, snapshot, lambda: eyes.assembled(snapshot))
    step_input = replace(eyes.assembled(snapshot), spend_caps=tuple((caps or {}).items()), spent_gas_wei=spent_gas_wei)
    if began is not None:
        history = replace(step_input.history, last_rebalance_s=began.last_rebalance_s, last_liquidity_s=began.last_liquidity_s)
        step_input = replace(step_input, history=history, acted=True)
    if journal is not None:
        step_input = campaigns.drawn_ahead(eyes, step_input, journal)
    step_input = stuck.left_alone(observed(eyes, step_input, journal), left)
    if journal is not None:
        keep_choice(step_input, journal)
        keep(journal, step_input)
        keep_sleeves(journal, step_input)
        record(eyes, step_input, journal)
        journal.begin_step(step_id, eyes.clock.now_s(), codec.dumps(step_input), None if asked is None else codec.dumps(asked))
    outcome = judge(step_input, propose, eyes.evidence, step_id, Further(eyes.reader))
    if journal is not None and outcome.step_input is not step_input:
        journal.begin_step(step_id, eyes.clock.now_s(), codec.dumps(outcome.step_input))
    return outcome


def judge(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> Outcome:
    """The same from a given StepInput; without an evidence source the verdicts stay empty. `further` reads more ticks.

    Where the guards refuse an exit for its market, it is judged what else there is to do.
    """

    def judged(step: StepInput) -> Outcome:
        return judged_once(step, propose, evidence, step_id, further)

    return exits.around(judged(step_input), judged)


def judged_once(
    step_input: StepInput,
    propose: Proposer,
    evidence: EvidenceSource | None,
    step_id: str = "",
    further: Callable[[StepInput], StepInput | None] | None = None,
) -> Outcome:
    """The same of this step as it is: no exit is left alone for what guards say. A step that was written down is one of these."""
    step_input, proposal, seen = propose_screened(step_input, propose, evidence, further)
    if isinstance(proposal, Refused):
        return _refused(step_id, step_input, decide(step_input), None, proposal)
    if (plan := proposal.plan) is None:
        kind = OutcomeKind.HALT if isinstance(proposal.decided.decision, Halt) else OutcomeKind.HOLD
        return Outcome(step_id, kind, proposal.decided.decision.reason, step_input, proposal.decided, None)
    if seen is not None:
        plan = replace(plan, verdicts=guards.judge(step_input, plan, seen))
        try:
            guards.require(plan, plan.verdicts)
        except Refused as refusal:
            return _refused(step_id, step_input, proposal.decided, plan, refusal)
    return Outcome(step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, proposal.decided, plan)


def step(eyes: Eyes, asked: Proposed, journal: Journal, hands: Hands | None) -> Outcome:
    """The whole agent: one step from snapshot to settled receipt. Every way out is written in the journal, with what asked for it.

    An exit that is refused only when it is about to be sent is left alone, and what else there is to do is looked at, planned,
    judged and confirmed anew.
    """
    if hands is None:
        return _rounds(eyes, asked, journal, None)
    hands.executor.reconcile()
    eyes = replace(eyes, reader=CaughtUp(eyes.reader, journal, eyes.clock))
    outcome = _rounds(eyes, asked, journal, hands)
    if outcome.decided.reviewed and outcome.kind in REVIEWED:
        journal.mark_review(reviewed_s(outcome.step_input.snapshot), int(eyes.chance() * MILLION), outcome.decided.reviews)
    if hands.executor.ready():
        cross_inside(journal, outcome)
    outcome = approving.tidy(eyes, hands, journal, outcome)
    if outcome.around:
        journal.mark_late(eyes.history(eyes.clock.now_s()).late)  # what was approved for them, and taken back, counts in no row
    return outcome


def _rounds(eyes: Eyes, asked: Proposed, journal: Journal, hands: Hands | None) -> Outcome:  # noqa: C901, PLR0915
    propose = proposer(asked)

    def judged(step: StepInput) -> Outcome:
        return judge(step, propose, eyes.evidence)

    sent: list[Intent] = []
    caps: dict[str, int] = {}
    rounds = acted = since = anew = 0
    began: History | None = None
    swapped: Outcome | None = None
    said: Outcome | None = None  # what was confirmed
    left: tuple[StuckExit, ...] = ()
    around: list[str] = []
    while rounds < MAX_ROUNDS:
        step_id = uuid.uuid4().hex[:12]
        outcome = look(eyes, propose, step_id, journal, caps, gas_wei(sent[since:]), began, left, asked)
        outcome = replace(outcome, transactions=tuple(sent), around=tuple(around))
        try:
            plan = outcome.plan
            if hands is not None:
                campaigns.looked(journal, outcome)
            if said is not None and swapped is None:
                late.require_there(said, outcome, AGAIN)
            if swapped is not None and (plan is None or outcome.kind is not OutcomeKind.PLANNED or not plan.actions):
                _close(journal, outcome)
                return replace(swapped, transactions=tuple(sent), after=outcome.step_input)
            if hands is None or plan is None or outcome.kind is not OutcomeKind.PLANNED:
                return _close(journal, _after_actions(outcome, acted))
            if said is None:
                if not hands.confirm(outcome):
                    return _close(journal, replace(outcome, kind=OutcomeKind.DECLINED, reason=f"not confirmed; {_nothing(sent)} sent"))
                hands.composer.require_fresh(outcome.step_input, plan)
                said = outcome
            late.require_known(said, outcome, AGAIN)
            if plan.actions and said.plan is not None and not said.plan.actions:
                raise Refused("liquidity has to move before the swaps that were confirmed", remedy=AGAIN)
            if outcome.decided.order != said.decided.order:
                raise Refused("an order at a price came or went, which is not what was confirmed", remedy=AGAIN)
            if not plan.actions:
                campaigns.begun(eyes, journal, outcome)
            needed = late.needed(hands.composer, outcome, plan, sent, last=rounds + 1 == MAX_ROUNDS)
            if needed:
                approving.approve(hands, outcome, needed, sent)
                caps |= {approval.token: approval.raw for approval in needed}
                rounds += 1
                outcome = replace(outcome, transactions=tuple(sent))
                if not sent[-1].succeeded:
                    late.require_done(sent[-1], said.decided.leaves)
                    return _close(journal, replace(outcome, kind=OutcomeKind.FAILED, reason=f"«{sent[-1].note}» did not succeed"))
                _close(journal, outcome)
                continue
            if plan.actions:
                began = began or outcome.step_input.history
                outcome = _close(journal, _act(eyes, hands, journal, outcome, plan, sent))
                acted += 1
            else:  # after actions what was swapped for may follow: a new range for what was taken out
                outcome = swapped = _close(journal, _swap(eyes, hands, journal, outcome, plan, sent))
            if outcome.kind is OutcomeKind.FAILED or acted in (0, MAX_ACTIONS):
                return outcome
            rounds, caps, since = 0, {}, len(sent)
        except Refused as refusal:
            # What the signer, the simulation or the kill switch stopped; approvals before it were sent and are told.
            told = str(refusal) if outcome.plan is not None else f"{refusal}; {outcome.reason}"  # where no plan says what was decided
            stopped = replace(outcome, kind=OutcomeKind.REFUSED, reason=told, transactions=tuple(sent), verdicts=refusal.verdicts)
            _close(journal, stopped)
            goes = () if said is None else said.decided.leaves
            alone = () if hands is None or anew == late.MOST else late.found(refusal, outcome, goes, hands.composer, judged)
            if not alone:
                return stopped
            late.remember(journal, outcome.step_input, alone)
            left = (*(one for one in left if one.why != late.LATE_TOGETHER), *alone)
            around += [one.token for one in alone]
            anew += 1
            rounds, caps, since, said = 0, {}, len(sent), None
        except TrimtabError as error:
            journal.end_step(step_id, _word(outcome.decision), str(error), _plan_json(outcome.plan), "error")
            raise
    raise OperatorNeeded(
        f"after {MAX_ROUNDS} rounds an approval still lacks", "look at the token's approve function; it may ignore approvals"
    )


def _after_actions(outcome: Outcome, acted: int) -> Outcome:
    """A step that acted and then found nothing more to do is done."""
    if acted == 0 or outcome.kind is not OutcomeKind.HOLD:
        return outcome
    did = "1 action" if acted == 1 else f"{acted} actions"
    return replace(outcome, kind=OutcomeKind.DONE, reason=f"{did} with liquidity done; {outcome.reason}", after=outcome.step_input)


def _swap(eyes: Eyes, hands: Hands, journal: Journal, outcome: Outcome, plan: Plan, sent: list[Intent]) -> Outcome:
    prepared = hands.composer.swap(outcome.step_input, plan)
    return _carry_out(eyes, hands, journal, outcome, prepared, sent, "the swap", "nothing was exchanged")


def _act(eyes: Eyes, hands: Hands, journal: Journal, outcome: Outcome, plan: Plan, sent: list[Intent]) -> Outcome:
    prepared = hands.composer.liquidity(outcome.step_input, plan)
    return _carry_out(eyes, hands, journal, outcome, prepared, sent, f"«{prepared.note}»", "no liquidity was moved")


def _carry_out(  # noqa: PLR0913
    eyes: Eyes, hands: Hands, journal: Journal, outcome: Outcome, prepared: Prepared, sent: list[Intent], what: str, otherwise: str
) -> Outcome:
    """Sends what was planned, then reads again and books it."""
    intent = approving.carry(hands, outcome.step_id, prepared)
    sent.append(intent)
    outcome = replace(outcome, transactions=tuple(sent))
    if not intent.succeeded:
        state = "reverted" if intent.receipt is not None else intent.state.value
        return replace(outcome, kind=OutcomeKind.FAILED, reason=f"{what} ended {state}; {otherwise}")
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    late.forget(journal, outcome)
    try:
        snapshot = eyes.reader.snapshot()
    except (Retryable, Refused):  # it is done all the same, and the next look books it
        return outcome
    settle(journal, snapshot, lambda: eyes.assembled(snapshot), before=outcome.step_input.snapshot)
    after = eyes.assembled(snapshot)
    keep(journal, after)
    keep_sleeves(journal, after)
    return replace(outcome, after=after)


def _refused(step_id: str, step_input: StepInput, decided: Decided, plan: Plan | None, refusal: Refused) -> Outcome:
    return Outcome(step_id, OutcomeKind.REFUSED, str(refusal), step_input, decided, plan, verdicts=refusal.verdicts)


def _nothing(sent: Sequence[Intent]) -> str:
    if any(intent.kind is not IntentKind.APPROVE for intent in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"


def _close(journal: Journal, outcome: Outcome) -> Outcome:
    journal.end_step(outcome.step_id, _word(outcome.decision), outcome.reason, _plan_json(outcome.plan), outcome.kind.value)
    return outcome


def _plan_json(plan: Plan | None) -> str | None:
    return None if plan is None else codec.dumps(plan)


def _word(decision: Decision) -> str:
    return type(decision).__name__.lower()
