"""One step of the agent: read, decide, plan, judge, write down, send, settle. The same for live, paper, fork and replay."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Protocol

from agent import codec, guards
from agent.errors import OperatorNeeded, Refused, TrimtabError
from agent.execution.settle import book
from agent.model import (
    Decision,
    Halt,
    History,
    Hold,
    Intent,
    IntentKind,
    IntentState,
    Plan,
    Rebalance,
    Snapshot,
    StepInput,
    UnsignedTx,
    Verdict,
)
from agent.planning import planner
from agent.policy.decide import Decided, decide
from agent.ports import Clock, Composer, EvidenceSource, Grant, Journal, Prepared, Reader
from agent.reference import reference_prices

MAX_ROUNDS = 4
"""Plans made anew within one step: each round of approvals asks for a fresh one."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a strategy wants of one snapshot: the decision with its drifts, and a plan when it wants to trade."""

    decided: Decided
    plan: Plan | None


Proposer = Callable[[StepInput], Proposal]


def rebalance(step_input: StepInput) -> Proposal:
    """The agent's own strategy: trade when a trigger fires."""
    decided = decide(step_input)
    match decided.decision:
        case Rebalance() as decision:
            return Proposal(decided, planner.plan(step_input, decision))
        case Hold() | Halt():
            return Proposal(decided, None)


def manual_swap(token_in: str, token_out: str, amount_in_raw: int) -> Proposer:
    """A strategy for one swap by hand; triggers are not asked, guards are."""

    def propose(step_input: StepInput) -> Proposal:
        plan = planner.plan_swap(step_input, token_in, token_out, amount_in_raw)
        return Proposal(replace(decide(step_input), decision=plan.decision), plan)

    return propose


class OutcomeKind(Enum):
    """How a step ended."""

    HOLD = "hold"
    HALT = "halt"
    PLANNED = "planned"
    REFUSED = "refused"
    DECLINED = "declined"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a step saw, decided and did. `after` is the snapshot read once the swap was mined.

    `verdicts` are those of a refusal that came before or after the guards of a plan: its own are in the plan.
    """

    step_id: str
    kind: OutcomeKind
    reason: str
    step_input: StepInput
    decided: Decided
    plan: Plan | None
    transactions: tuple[Intent, ...] = ()
    after: StepInput | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.decided.decision


@dataclass(frozen=True, slots=True)
class Eyes:
    """What a step reads through: chain, memory, evidence. `assemble` adds the owner's wishes to a snapshot."""

    reader: Reader
    assemble: Callable[[Snapshot, History], StepInput]
    history: Callable[[int], History]
    evidence: EvidenceSource
    clock: Clock


class Executor(Protocol):
    """Sends transactions through the journal."""

    def reconcile(self) -> Sequence[Intent]:
        """Resolves every open intent."""
        ...

    def run(self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Carries one transaction from PLANNED to its end."""
        ...


@dataclass(frozen=True, slots=True)
class Hands:
    """What a step acts with; without hands it only looks. `confirm` is asked once per step, before anything is sent."""

    executor: Executor
    composer: Composer
    confirm: Callable[[Outcome], bool]


def look(
    eyes: Eyes, propose: Proposer, step_id: str = "", journal: Journal | None = None, caps: Mapping[str, int] | None = None
) -> Outcome:
    """Reads, decides, plans and judges; sends nothing. Refusals come back as an outcome with their verdicts.

    `caps` are base units by token that legs may take at most, since this step has approved just so much.
    """
    snapshot = eyes.reader.snapshot()
    if journal is not None:
        settle(journal, snapshot)
    step_input = eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))
    step_input = replace(step_input, spend_caps=tuple((caps or {}).items()))
    if journal is not None:
        journal.begin_step(step_id, eyes.clock.now_s(), codec.dumps(step_input))
    return judge(step_input, propose, eyes.evidence, step_id)


def judge(step_input: StepInput, propose: Proposer, evidence: EvidenceSource | None, step_id: str = "") -> Outcome:
    """The same from a given StepInput; without an evidence source the verdicts stay empty."""
    try:
        proposal = propose(step_input)
    except Refused as refusal:
        return _refused(step_id, step_input, decide(step_input), None, refusal)
    decided, plan = proposal.decided, proposal.plan
    if plan is None:
        kind = OutcomeKind.HALT if isinstance(decided.decision, Halt) else OutcomeKind.HOLD
        return Outcome(step_id, kind, decided.decision.reason, step_input, decided, None)
    if evidence is None:
        return Outcome(step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, decided, plan)
    verdicts = guards.judge(step_input, plan, evidence.gather(step_input, plan))
    plan = replace(plan, verdicts=verdicts)
    try:
        guards.require(plan, verdicts)
    except Refused as refusal:
        return _refused(step_id, step_input, decided, plan, refusal)
    return Outcome(step_id, OutcomeKind.PLANNED, plan.decision.reason, step_input, decided, plan)


def step(eyes: Eyes, propose: Proposer, journal: Journal, hands: Hands | None) -> Outcome:
    """The whole agent: one step from snapshot to settled receipt. Every way out is written in the journal."""
    if hands is not None:
        hands.executor.reconcile()
    sent: list[Intent] = []
    caps: dict[str, int] = {}
    for round_number in range(MAX_ROUNDS):
        step_id = uuid.uuid4().hex[:12]
        outcome = replace(look(eyes, propose, step_id, journal, caps), transactions=tuple(sent))
        try:
            plan = outcome.plan
            if hands is not None and outcome.decided.reviewed:
                journal.mark_review(outcome.step_input.snapshot.head.timestamp_s)
            if hands is None or plan is None or outcome.kind is not OutcomeKind.PLANNED:
                return _close(journal, outcome)
            if round_number == 0 and not hands.confirm(outcome):
                return _close(journal, replace(outcome, kind=OutcomeKind.DECLINED, reason="not confirmed; nothing was sent"))
            approved = _approve(hands, outcome, plan, sent)
            if approved:
                caps |= approved
                outcome = replace(outcome, transactions=tuple(sent))
                if sent[-1].state is IntentState.REVERTED:
                    return _close(journal, replace(outcome, kind=OutcomeKind.FAILED, reason=f"{sent[-1].note} reverted"))
                _close(journal, outcome)
                continue
            return _close(journal, _swap(eyes, hands, journal, outcome, plan, sent))
        except Refused as refusal:
            # What the signer, the simulation or the kill switch stopped; approvals before it were sent and are told.
            stopped = replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), transactions=tuple(sent), verdicts=refusal.verdicts)
            return _close(journal, stopped)
        except TrimtabError as error:
            journal.end_step(step_id, _word(outcome.decision), str(error), _plan_json(outcome.plan), "error")
            raise
    raise OperatorNeeded(
        f"after {MAX_ROUNDS} rounds the router still lacks an approval", "look at the token's approve function; it may ignore approvals"
    )


def _approve(hands: Hands, outcome: Outcome, plan: Plan, sent: list[Intent]) -> dict[str, int]:
    """Sends the approvals that the plan lacks; what was approved by token. Any at all means that the plan is made anew."""
    needed = hands.composer.approvals(outcome.step_input, plan)
    for token, raw in needed:
        intent = _run(hands, outcome.step_id, hands.composer.approve(outcome.step_input, token, raw))
        sent.append(intent)
        if intent.state is IntentState.REVERTED:
            break
    return dict(needed)


def _swap(eyes: Eyes, hands: Hands, journal: Journal, outcome: Outcome, plan: Plan, sent: list[Intent]) -> Outcome:
    intent = _run(hands, outcome.step_id, hands.composer.swap(outcome.step_input, plan))
    sent.append(intent)
    outcome = replace(outcome, transactions=tuple(sent))
    if intent.state not in (IntentState.MINED, IntentState.FINAL):
        return replace(outcome, kind=OutcomeKind.FAILED, reason=f"the swap ended {intent.state.value}; nothing was exchanged")
    snapshot = eyes.reader.snapshot()
    settle(journal, snapshot, before=outcome.step_input.snapshot)
    after = eyes.assemble(snapshot, eyes.history(snapshot.head.timestamp_s))
    return replace(outcome, kind=OutcomeKind.DONE, after=after)


def settle(journal: Journal, snapshot: Snapshot, before: Snapshot | None = None) -> None:
    """Books every mined transaction that no budget knows yet, at the reference prices of its own step.

    With the snapshot `before` the last trade its loss is the worse of what balances and what events say.
    """
    for intent in journal.unbooked():
        text = journal.step_input(intent.step_id)
        if text is None:
            raise OperatorNeeded(f"transaction {intent.tx_hash} belongs to step {intent.step_id}, which the store does not have")
        step_input = codec.loads(StepInput, text)
        found = reference_prices(step_input).prices
        prices = {token: item.price for token, item in found.items()}
        native = prices.get(step_input.portfolio.wrapped_native, Fraction(0))
        trade = before is not None and intent.kind is IntentKind.SWAP
        balances = (_held(before), _held(snapshot)) if trade and before is not None else None
        book(journal, intent, snapshot.owner, prices, native, snapshot.head.timestamp_s, balances)


def _held(snapshot: Snapshot) -> dict[str, int]:
    return {holding.token: holding.raw for holding in snapshot.holdings}


def _run(hands: Hands, step_id: str, prepared: Prepared) -> Intent:
    return hands.executor.run(step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note)


def _refused(step_id: str, step_input: StepInput, decided: Decided, plan: Plan | None, refusal: Refused) -> Outcome:
    return Outcome(step_id, OutcomeKind.REFUSED, str(refusal), step_input, decided, plan, verdicts=refusal.verdicts)


def _close(journal: Journal, outcome: Outcome) -> Outcome:
    journal.end_step(outcome.step_id, _word(outcome.decision), outcome.reason, _plan_json(outcome.plan), outcome.kind.value)
    return outcome


def _plan_json(plan: Plan | None) -> str | None:
    return None if plan is None else codec.dumps(plan)


def _word(decision: Decision) -> str:
    return type(decision).__name__.lower()
