"""One step of the agent: read, decide, plan, judge, journal, and send at most one transaction; and
the cycle that repeats steps until nothing more is due. Live, paper, fork and replay run the same
code.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from agent import codec
from agent.errors import OperatorNeeded, Refused, TrimtabError
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.confirmation import (
    confirmation_of,
    covering,
    require_as_confirmed,
    require_exit_possible,
)
from agent.execution.cycle_outcome import outcome_of_cycle, sent_so_far, with_actions
from agent.execution.evaluation import evaluate_input, reduces_risk
from agent.execution.execution_parts import begin_part, end_finished_purchase, end_purchase
from agent.execution.progress import (
    after_approval,
    hold_exit,
    readers_with_progress,
    skip_interrupted_exit,
    skip_refused_exit,
)
from agent.execution.resumption import (
    names_amount,
    new_cycle,
    recorded_outcome,
    resumed_cycle,
)
from agent.execution.senders import sender_of
from agent.execution.sending import execute
from agent.execution.settlement import review_time_s, settle_mined
from agent.execution.shortfall import end_interrupted_steps
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
    record_anomalies,
    record_order_stages,
)
from agent.execution.step_memory import record_cash
from agent.execution.step_result import StepPorts, StepResult, close_step, end_step
from agent.layers import execution as layers
from agent.layers import records
from agent.model import (
    BlockedExit,
    Cycle,
    CycleEnd,
    Plan,
    PlanRequest,
    StepInput,
)
from agent.planning.requests import proposer
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_go_directly
from agent.ports import Approval
from agent.store.store import Store

MAX_APPROVALS = 4
"""Maximum approvals of one token for one plan; a new evaluation follows each."""
MAX_STEPS = 256
"""Maximum steps of a cycle; more than any number of assets needs."""
MILLION = 1_000_000


def run_cycle(
    readers: StepReaders, request: PlanRequest, store: Store, actors: StepActors | None
) -> StepOutcome:
    """Repeat steps from new snapshots until the cycle ends, and return its outcome; without actors,
    only evaluate and record once.

    Each exit is evaluated, confirmed and sent separately; a refused exit is skipped. The remaining
    trades follow, also confirmed separately. An open cycle of an ended process goes on, unless it
    is too old or has another request. An error ends a cycle; a killed process leaves it open.
    """
    if actors is None:
        cycle = new_cycle(request, readers.clock.now_s())
        return close_step(store, record_evaluation(readers, store, cycle))
    actors.executor.reconcile()
    end_interrupted_steps(store)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    cycle, outcome = repeat_steps(StepPorts(readers, store, actors), request)
    _mark_review(readers, store, outcome)
    if outcome.after is not None:
        end_finished_purchase(store, outcome.after)
    if actors.executor.ready():
        for after_cycle in records.AFTER_CYCLE:
            after_cycle(store, outcome)
    outcome = approvals.revoke_leftovers(readers, actors, store, outcome)
    if cycle.skipped:  # approvals of refused exits and their revocations do not count as failures
        store.budgets.mark_submission_refusals(
            readers.history(readers.clock.now_s()).failures.submission_refusals
        )
    return outcome


def repeat_steps(ports: StepPorts, request: PlanRequest) -> tuple[Cycle, StepOutcome]:
    """Repeat steps until the cycle ends; return it, closed in the store, and its outcome with the
    transactions of this process.
    """
    store, now_s = ports.store, ports.readers.clock.now_s()
    resumed = resumed_cycle(ports, request)
    if resumed is not None and resumed.outcome is not None:
        reason = (
            f"carried out before, by the command that was interrupted; {resumed.outcome.reason}"
        )
        return resumed.cycle, replace(resumed.outcome, reason=reason)
    began = cycle = new_cycle(request, now_s) if resumed is None else resumed.cycle
    outcomes: dict[str, StepOutcome] = {}

    def outcome_of(step_id: str) -> StepOutcome:
        return outcomes.get(step_id) or recorded_outcome(store, cycle, step_id)

    last: StepOutcome | None = None
    try:
        for _ in range(MAX_STEPS):
            result = step(ports, cycle)
            cycle = result.cycle
            if (last := result.outcome or last) is not None:
                outcomes[last.step_id] = last
            if not cycle.is_open:
                break
            store.cycles.write(cycle)
        cycle = cycle.end(CycleEnd.BOUND) if cycle.is_open else cycle
        if last is None:
            raise OperatorNeeded(
                f"none of {MAX_STEPS} steps could be evaluated", "check the endpoints"
            )
        outcome = outcome_of_cycle(cycle, last, outcome_of)
    except (TrimtabError, KeyboardInterrupt, SystemExit) as error:  # nobody continues what they end
        if not (names_amount(request) and store.journal.open_intents()):  # else repeated by a retry
            store.cycles.close(str(error) or "interrupted")
        raise
    if cycle.restarts or cycle != began.end(cycle.ended):  # a cycle that did nothing has no row
        store.cycles.close(cycle.ended.value)
    sent = [intent for ended in outcomes.values() for intent in ended.transactions]
    return cycle, replace(outcome, transactions=tuple(sent))


def _mark_review(readers: StepReaders, store: Store, outcome: StepOutcome) -> None:
    """Record that a schedule's review is done, with the random delay of the next."""
    if outcome.decided.reviewed and outcome.kind in REVIEW_DONE_KINDS:
        store.budgets.mark_review(
            review_time_s(outcome.step_input.snapshot),
            int(readers.chance() * MILLION),
            outcome.decided.reviews,
        )


def step(ports: StepPorts, cycle: Cycle) -> StepResult:
    """Read one snapshot, decide, and send at most one transaction, or hold. The cycle of the result
    has ended if nothing more is due in it.
    """
    try:
        outcome = record_evaluation(ports.readers, ports.store, cycle)
    except ExitInterrupted as error:
        directly = error.may_go_directly
        return skip_interrupted_exit(ports, cycle, error.token, error, directly=directly)
    for end in layers.BEFORE_PLAN:
        if (ended := end(ports, cycle, outcome)) is not None:
            return ended
    confirmed = _guarded(ports, cycle, outcome, _confirm_plan)
    if (plan := confirmed.plan) is None:
        return confirmed
    return _guarded(ports, confirmed.cycle, outcome, partial(_act, plan=plan))


Act = Callable[[StepPorts, Cycle, StepOutcome], StepResult]


def _guarded(ports: StepPorts, cycle: Cycle, outcome: StepOutcome, act: Act) -> StepResult:
    """Carry out a part of the step; after a refusal or an error that concerns only one exit or a
    layer, return the cycle without it. Raise any other error.
    """
    try:
        return act(ports, cycle, outcome)
    except Refused as refusal:
        return skip_refusal(ports, cycle, outcome, refusal)
    except TrimtabError as error:
        end_step(ports.store, outcome, str(error), "error")
        token = outcome.decided.exit_token
        directly = may_go_directly(
            outcome.step_input.portfolio, outcome.step_input.progress.direct, outcome.plan, token
        )
        return skip_interrupted_exit(
            ports, cycle, token, error, directly=directly, step_id=outcome.step_id
        )


def skip_refusal(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, refusal: Refused
) -> StepResult:
    """Leave out what a layer was refused just before sending, or an exit. Any other refusal ends
    the cycle.
    """
    for skip in layers.SKIPS:
        if (result := skip(cycle, outcome, refusal)) is not None:
            if result.outcome is not None:
                close_step(ports.store, result.outcome)
            return result
    return skip_refused_exit(ports, cycle, outcome, refusal)


def record_evaluation(readers: StepReaders, store: Store, cycle: Cycle) -> StepOutcome:
    """Store the step input of a new snapshot in the journal, then evaluate it."""
    step_id = uuid.uuid4().hex[:12]
    step_input, changed = _read_input(readers, store, cycle)
    _record_input(readers, store, cycle, step_id, step_input, changed)
    propose, further = proposer(cycle.request), TickExtender(readers.reader)
    outcome = evaluate_input(step_input, propose, readers.evidence, step_id, further)
    if outcome.step_input is not step_input:
        store.steps.begin(step_id, readers.clock.now_s(), codec.dumps(outcome.step_input))
    return replace(outcome, exits_tried=cycle.tried)


def _read_input(
    readers: StepReaders, store: Store, cycle: Cycle
) -> tuple[StepInput, frozenset[int]]:
    """Read the step input at a new snapshot, and the blocks in which balances changed. The order
    matters: each call uses what earlier calls stored (settlements, draw, anomalies).
    """
    snapshot, own = readers.reader.snapshot(), readers_with_progress(readers, cycle)
    changed = settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
    step_input = own.step_input_at(snapshot)
    for before_decision in records.BEFORE_DECISION:
        step_input = before_decision(own, store, step_input)
    record_anomalies(store.budgets, store.balances, step_input)
    step_input = confirm_prices(own, step_input)
    record_order_stages(store.orders, step_input.portfolio, step_input.history)
    return exclude_blocked_exits(step_input, cycle.skipped), changed


def _record_input(
    readers: StepReaders,
    store: Store,
    cycle: Cycle,
    step_id: str,
    step_input: StepInput,
    changed: frozenset[int],
) -> None:
    """Record weights, ledger, layers and prices of a step, and its input."""
    record_cash(store.cash, step_input.history)
    record_allocation(step_input.history, store.allocations)
    update_ledger(store, readers.recorded(step_input), changed)
    for after_input in records.AFTER_INPUT:
        after_input(store, step_input)
    record_hourly_prices(readers, step_input, store.prices)
    recorded, request = codec.dumps(step_input), codec.dumps(cycle.request)
    store.steps.begin(step_id, readers.clock.now_s(), recorded, request, cycle.id)


def _confirm_plan(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult:
    """Record the decision, and have its plan confirmed; the result has the plan if it is to be
    sent.
    """
    end_purchase(ports.store, outcome)
    for after_decision in records.AFTER_DECISION:
        after_decision(ports.store, outcome)
    if (before := cycle.confirmed) and not before.is_of_ended_process and not cycle.swapped:
        require_exit_possible(before, outcome)
    if (plan := _plan_to_send(cycle, outcome)) is None:
        done = close_step(ports.store, with_actions(cycle, outcome))
        return StepResult(cycle.end(CycleEnd.NOTHING_DUE), done)
    if (other := _with_other_exit(cycle, outcome.decided.exit_token)) is not None:
        return StepResult(other, close_step(ports.store, outcome))
    confirmed = covering(cycle, plan)
    if confirmed is None:
        if not ports.actors.confirm(outcome):
            return _decline(ports, cycle, outcome)
        ports.actors.composer.require_fresh(outcome.step_input, plan)
        confirmed = confirmation_of(outcome, plan)
    require_as_confirmed(confirmed, outcome, plan)
    return StepResult(replace(cycle, confirmed=confirmed), outcome, plan)


def _plan_to_send(cycle: Cycle, outcome: StepOutcome) -> Plan | None:
    """Return the plan to send, if any. Only liquidity actions may follow a swap, and only plans
    that reduce risk may follow an unsold exit. A layer may leave a plan to the next cycle.
    """
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    if plan is None or (cycle.swapped and not plan.actions):
        return None
    if any(part.leaves(plan) for part in cycle.layers):
        return None
    return None if cycle.is_risk_reducing_only and not reduces_risk(outcome) else plan


def _with_other_exit(cycle: Cycle, token: str) -> Cycle | None:
    """Return the cycle before an exit other than the confirmed one, or before the rest after an
    exit, which are evaluated again and confirmed on their own; None if neither is due.
    """
    if token and token in cycle.tried:
        return cycle.leave_exit(
            BlockedExit(token, evaluation.SOLD_IN_PART, evaluation.NOTHING_TO_DO)
        )
    if cycle.confirmed is None or cycle.confirmed.exit_token == token:
        return None
    return cycle.leave_exit()


def _decline(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult:
    """Skip an exit that was not confirmed; any other plan ends the cycle."""
    unsent = f"not confirmed; {sent_so_far(cycle.sent)} sent"
    reason = "; ".join(filter(None, (outcome.reason, unsent)))
    declined = replace(outcome, kind=OutcomeKind.DECLINED, reason=reason)
    close_step(ports.store, declined)
    if outcome.decided.exit_token:
        return StepResult(hold_exit(cycle, declined, evaluation.DECLINED), declined)
    return StepResult(cycle.end(CycleEnd.DECLINED), declined)


def _act(ports: StepPorts, cycle: Cycle, outcome: StepOutcome, plan: Plan) -> StepResult:
    """Send the plan's next transaction: an approval that it lacks, else its own. The cycle is
    recorded before, so that a restart knows of it.
    """
    if not plan.actions and not plan.in_layer:
        begin_part(ports.store, outcome)
        for before_swap in records.BEFORE_SWAP:
            before_swap(ports.readers, ports.store, outcome)
    composer = ports.actors.composer
    token = outcome.decided.exit_token
    approved = dict(cycle.approved).get(token, 0)
    last = dict(cycle.attempts).get(token, 0) + 1 >= MAX_APPROVALS
    if needed := evaluation.missing_approvals(composer, outcome, plan, approved, last):
        caps = dict(cycle.spend_caps) | {approval.token: approval.raw for approval in needed}
        return _approve(ports, replace(cycle, spend_caps=tuple(caps.items())), outcome, needed[0])
    sender = sender_of(plan)
    draft = sender.draft(composer, outcome, plan)
    ports.store.cycles.write(replace(cycle, sending=outcome.step_id))
    outcome, intent = execute(ports, outcome, draft)
    close_step(ports.store, outcome)
    cycle = cycle.with_transaction(intent)
    return StepResult(sender.after_sent(cycle, outcome, plan, intent), outcome)


def _approve(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, approval: Approval
) -> StepResult:
    """Send one approval, for the use of the next step; a failed one skips its exit or ends the
    cycle.
    """
    if dict(cycle.attempts).get(approval.token, 0) >= MAX_APPROVALS:
        raise OperatorNeeded(
            f"an approval is still missing after {MAX_APPROVALS} attempts",
            "check the token's approve function; it may ignore approvals",
        )
    prepared = ports.actors.composer.approve(outcome.step_input, approval)
    ports.store.cycles.write(replace(cycle, sending=outcome.step_id))
    intent = approvals.execute_prepared(ports.actors, outcome.step_id, prepared)
    cycle, outcome = cycle.with_transaction(intent), replace(outcome, transactions=(intent,))
    return after_approval(ports, cycle, outcome, intent)
