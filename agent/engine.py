"""One step of the agent: read, decide, plan, judge, journal, and send at most one transaction
(before a plan, cancels of orders that rest at a venue); and the cycle that repeats steps until
nothing more is due. Live, paper, fork and replay run the same code.

StepReaders hold a ChainReader (chain/snapshot.py), the assembly of the step input (AgentContext in
wiring/context.py) and EvidenceGatherer (chain/second_quote.py). A StepTransactor holds a
JournaledExecutor (execution/executor.py; execution/submission resolves open transactions) and a
RouterComposer (venues/composer.py). wiring/context.py and wiring/transactor.py build both.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from agent import codec
from agent.errors import PassingFault, Refused, TrimtabError, UnsendableTransaction
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.confirmation import (
    confirmation_of,
    covering_confirmation,
    require_as_confirmed,
    require_exit_possible,
)
from agent.execution.cycle_outcome import outcome_of_cycle, unsent_phrase, with_layer_notes
from agent.execution.ended_orders import ended_order_fault
from agent.execution.evaluation import evaluate_input, reduces_risk
from agent.execution.execution_parts import end_finished_purchase, end_purchase, record_part_begin
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.progress import (
    after_approval,
    leave_out_ignoring_token,
    readers_with_progress,
    skip_declined_exit,
    skip_interrupted_exit,
    skip_refused_exit,
)
from agent.execution.resumption import (
    close_cycle,
    new_cycle,
    recorded_outcome,
    resume_cycle,
)
from agent.execution.senders import sender_of
from agent.execution.sending import execute
from agent.execution.settlement import settle_mined
from agent.execution.shortfall import end_interrupted_steps
from agent.execution.step_context import (
    REVIEW_DONE_KINDS,
    CaughtUpReader,
    ExitInterrupted,
    OutcomeKind,
    StepOutcome,
    StepReaders,
    StepTransactor,
    TickExtender,
    add_past_prices,
    record_anomalies,
    record_order_stages,
)
from agent.execution.step_memory import record_cash
from agent.execution.step_result import (
    WAITING_OUTCOME,
    StepPorts,
    StepResult,
    close_step,
    end_step,
    interruption_outcome,
)
from agent.execution.submission.held_up_exits import held_up_text
from agent.layers import execution as layer_execution
from agent.layers import records
from agent.model import (
    AgentCycle,
    BlockedExit,
    Cycle,
    CycleEnd,
    IntentKind,
    Plan,
    PlanRequest,
    StepInput,
    names_amount,
)
from agent.planning.requests import proposer
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_take_direct_route
from agent.ports import Approval
from agent.store.store import Store

MAX_STEPS = 256
"""Maximum steps of a cycle; more than any number of assets needs."""
MILLION = 1_000_000


def run_cycle(
    readers: StepReaders, request: PlanRequest, store: Store, transactor: StepTransactor | None
) -> StepOutcome:
    """Repeat steps from new snapshots until the cycle ends, and return its outcome; without a
    transactor, only evaluate and record once.

    Each exit is evaluated, confirmed and sent separately; a refused exit is skipped. The remaining
    trades follow, also confirmed separately. An open cycle of an ended process goes on, unless it
    is too old or has another request. A TrimtabError or an interrupt ends a cycle; a killed
    process, or a bug, leaves it open.
    """
    if transactor is None:
        cycle = new_cycle(request, readers.clock.now_s())
        return close_step(store, record_and_evaluate(readers, store, cycle))
    settle(readers, store, transactor)
    if isinstance(request, AgentCycle) and request.orders:  # one may have been filled
        open_orders = store.executions.open_limit_orders()
        request = AgentCycle(tuple(order for order in request.orders if order in open_orders))
    end_interrupted_steps(store)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    ports = StepPorts(readers, store, transactor)
    return repeat_steps(ports, request, partial(_finish_cycle, ports))[1]


def settle(readers: StepReaders, store: Store, transactor: StepTransactor) -> None:
    """Settle open transactions, like Executor.reconcile. An AwaitingExternalSignature says whether
    the minimums of its plan have a fault at the prices now, and which fired orders it holds up;
    the stages of orders are recorded while it waits too.
    """
    try:
        transactor.executor.reconcile()
    except AwaitingExternalSignature as waiting:
        grant = store.journal.grant(waiting.proposal["id"])
        waiting_intents = [
            intent for intent in store.journal.open_intents() if intent.id == waiting.proposal["id"]
        ]
        fault = next((ended_order_fault(store, intent) for intent in waiting_intents), None)
        if fault is None and not waiting.reverts:
            fault = evaluation.minimums_fault(readers, grant.plan)
        waiting.mark_fault(fault)
        with suppress(TrimtabError):  # what waits is reported all the same
            cycle = new_cycle(AgentCycle(), readers.clock.now_s())
            step_input, _ = _settle_and_read(readers, store, cycle)
            waiting.mark_held_up(held_up_text(step_input, grant))
        raise


def _finish_cycle(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepOutcome:
    """Record what a cycle leaves to later ones, and set its leftover allowances to zero."""
    readers = ports.readers
    store = ports.store
    _mark_review(readers, store, outcome)
    if outcome.input_after is not None:
        end_finished_purchase(store, outcome.input_after)
    if ports.transactor.executor.may_send():
        for layer in records.LAYERS:
            layer.record_cycle(store, outcome)
    try:
        outcome = approvals.revoke_leftovers(readers, ports.transactor, store, outcome)
    except BaseException:
        with suppress(TrimtabError):  # the first error counts
            _excuse_approvals(store, cycle)
        raise
    _excuse_approvals(store, cycle)
    return outcome


def _excuse_approvals(store: Store, cycle: Cycle) -> None:
    """Record that approvals of refused exits, ignored ones, and their revocations do not count as
    failures.
    """
    if not cycle.skipped_exits and IntentKind.APPROVE not in cycle.sent_kinds:
        return
    submission_refusals, ignored_approvals = store.budgets.refusals()
    if cycle.skipped_exits:
        store.budgets.mark_submission_refusals(submission_refusals)
    if ignored_approvals:
        store.budgets.mark_ignored_approvals(ignored_approvals)


def _mark_review(readers: StepReaders, store: Store, outcome: StepOutcome) -> None:
    """Record that a schedule's review is done, with the random delay of the next."""
    if outcome.decision_result.is_reviewed and outcome.kind in REVIEW_DONE_KINDS:
        store.budgets.mark_review(
            outcome.step_input.snapshot.trusted_time_s,
            int(readers.chance() * MILLION),
            outcome.decision_result.due_schedules,
        )


def repeat_steps(
    ports: StepPorts,
    request: PlanRequest,
    finish: Callable[[Cycle, StepOutcome], StepOutcome] = lambda _, outcome: outcome,
) -> tuple[Cycle, StepOutcome]:
    """Repeat steps until the cycle ends; return it, closed in the store, and its outcome with the
    transactions of this process, as `finish` returns it. A cycle that has traded an amount is
    closed after `finish`: until then the repeated command reports it.
    """
    cycle, outcome = _repeat_until_end(ports, request)
    outcome = finish(cycle, outcome)
    if names_amount(request):
        close_cycle(ports.store, request, cycle.end_state.value, is_reported=True)
    return cycle, outcome


def _repeat_until_end(ports: StepPorts, request: PlanRequest) -> tuple[Cycle, StepOutcome]:
    """Repeat steps until the cycle ends; return it and its outcome. It is closed in the store, unless
    it has traded an amount.
    """
    store = ports.store
    now_s = ports.readers.clock.now_s()
    resumption = resume_cycle(ports, request)
    if resumption is not None and resumption.outcome is not None:
        reason = (
            f"carried out before, by the command that was interrupted; {resumption.outcome.reason}"
        )
        return resumption.cycle, replace(resumption.outcome, reason=reason)
    initial_cycle = cycle = new_cycle(request, now_s) if resumption is None else resumption.cycle
    outcome_by_step_id: dict[str, StepOutcome] = {}

    def outcome_of(step_id: str) -> StepOutcome:
        return outcome_by_step_id.get(step_id) or recorded_outcome(store, cycle, step_id)

    last_outcome: StepOutcome | None = None
    try:
        for _ in range(MAX_STEPS):
            step_result = run_step(ports, cycle)
            cycle = step_result.cycle
            if (last_outcome := step_result.outcome or last_outcome) is not None:
                outcome_by_step_id[last_outcome.step_id] = last_outcome
            if not cycle.is_open:
                break
            store.cycles.write(cycle)
        cycle = cycle.end(CycleEnd.STEP_LIMIT) if cycle.is_open else cycle
        if last_outcome is None:
            raise PassingFault(
                f"none of {MAX_STEPS} steps could be evaluated", "check the endpoints"
            )
        outcome = outcome_of_cycle(cycle, last_outcome, outcome_of)
    except (TrimtabError, KeyboardInterrupt, SystemExit) as error:
        close_cycle(store, request, str(error) or "interrupted")
        raise
    did_nothing = cycle == initial_cycle.end(cycle.end_state)
    if cycle.restarts or not did_nothing:  # a cycle that did nothing has no row
        close_cycle(store, request, cycle.end_state.value)
    sent_intents = [
        intent
        for past_outcome in outcome_by_step_id.values()
        for intent in past_outcome.transactions
    ]
    return cycle, replace(outcome, transactions=tuple(sent_intents))


def run_step(ports: StepPorts, cycle: Cycle) -> StepResult:
    """Read one snapshot, decide, and send at most one transaction, or hold. The cycle of the result
    has ended if nothing more is due in it.
    """
    try:
        outcome = record_and_evaluate(ports.readers, ports.store, cycle)
    except ExitInterrupted as error:
        may_retry_on_direct_route = error.may_take_direct_route
        return skip_interrupted_exit(
            ports, cycle, error.token, error, may_retry_on_direct_route=may_retry_on_direct_route
        )
    for layer in layer_execution.LAYERS:
        if (layer_result := layer.before_confirmation(ports, cycle, outcome)) is not None:
            return layer_result
    confirmed_result = _act_or_skip(ports, cycle, outcome, _record_and_confirm)
    if (plan := confirmed_result.plan) is None:
        return confirmed_result
    return _act_or_skip(
        ports, confirmed_result.cycle, outcome, partial(_send_next_transaction, plan=plan)
    )


StepAction = Callable[[StepPorts, Cycle, StepOutcome], StepResult]


def _act_or_skip(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, action: StepAction
) -> StepResult:
    """Carry out a part of the step; after a refusal or an error that concerns only one exit or a
    layer, return the cycle without it. Raise any other error.
    """
    try:
        return action(ports, cycle, outcome)
    except evaluation.ApprovalIgnored as refusal:
        return leave_out_ignoring_token(ports, cycle, outcome, refusal)
    except Refused as refusal:
        return skip_refusal(ports, cycle, outcome, refusal)
    except TrimtabError as error:
        end_step(ports.store, outcome, str(error), interruption_outcome(error))
        token = outcome.decision_result.exit_token
        may_retry_on_direct_route = may_take_direct_route(
            outcome.step_input.portfolio,
            outcome.step_input.progress.direct_route_tokens,
            outcome.plan,
            token,
        )
        return skip_interrupted_exit(
            ports,
            cycle,
            token,
            error,
            may_retry_on_direct_route=may_retry_on_direct_route,
            step_id=outcome.step_id,
        )


def skip_refusal(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, refusal: Refused
) -> StepResult:
    """Return the cycle without the exit, or the layer's action, that was refused just before
    sending. Any other refusal ends the cycle.
    """
    for layer in layer_execution.LAYERS:
        if (skip_result := layer.skip_refusal(cycle, outcome, refusal)) is not None:
            if skip_result.outcome is not None:
                close_step(ports.store, skip_result.outcome)
            return skip_result
    return skip_refused_exit(ports, cycle, outcome, refusal)


def record_and_evaluate(readers: StepReaders, store: Store, cycle: Cycle) -> StepOutcome:
    """Store the step input of a new snapshot in the journal, then evaluate it."""
    step_id = uuid.uuid4().hex[:12]
    step_input, changed_blocks = _settle_and_read(readers, store, cycle)
    _record_step(readers, store, cycle, step_id, step_input, changed_blocks)
    propose = proposer(cycle.request)
    tick_extender = TickExtender(readers.reader)
    outcome = evaluate_input(step_input, propose, readers.evidence_source, step_id, tick_extender)
    # without a refused exit, on a direct route, or with more ticks: the input that was decided
    if outcome.step_input is not step_input:
        store.steps.begin(step_id, readers.clock.now_s(), codec.dumps(outcome.step_input))
    return replace(outcome, exits_tried=cycle.tried_exit_tokens)


def _settle_and_read(
    readers: StepReaders, store: Store, cycle: Cycle
) -> tuple[StepInput, frozenset[int]]:
    """Read the step input at a new snapshot, and the blocks in which balances changed. The order
    matters: each call uses what earlier calls stored (settlements, anomalies).
    """
    snapshot = readers.reader.snapshot()
    cycle_readers = readers_with_progress(readers, cycle)
    changed_blocks = settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
    step_input = cycle_readers.step_input_at(snapshot)
    for layer in records.LAYERS:
        step_input = layer.prepare_decision(cycle_readers, store, step_input)
    record_anomalies(store.budgets, store.balances, step_input)
    step_input = add_past_prices(cycle_readers, step_input)
    record_order_stages(store.orders, step_input.history)
    return exclude_blocked_exits(step_input, cycle.skipped_exits), changed_blocks


def _record_step(
    readers: StepReaders,
    store: Store,
    cycle: Cycle,
    step_id: str,
    step_input: StepInput,
    changed_blocks: frozenset[int],
) -> None:
    """Record weights, ledger, layers and prices of a step, and its input."""
    record_cash(store.cash, step_input.history)
    record_allocation(step_input.history, store.allocations)
    update_ledger(store, readers.ledger_step_input(step_input), changed_blocks)
    for layer in records.LAYERS:
        layer.record_input(store, step_input)
    record_hourly_prices(readers, step_input, store.prices)
    input_json = codec.dumps(step_input)
    request_json = codec.dumps(cycle.request)
    store.steps.begin(step_id, readers.clock.now_s(), input_json, request_json, cycle.id)


def _record_and_confirm(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult:
    """Record the decision. Then end the cycle if nothing is to be sent, else return the plan,
    confirmed now or by an earlier confirmation that covers it.
    """
    end_purchase(ports.store, outcome)
    for layer in records.LAYERS:
        layer.record_decision(ports.store, outcome)
    if (
        (earlier_confirmation := cycle.confirmation)
        and not earlier_confirmation.is_of_ended_process
        and not cycle.swap_step_id
    ):
        require_exit_possible(earlier_confirmation, outcome)
    if (plan := _plan_to_send(cycle, outcome)) is None:
        closed_outcome = close_step(ports.store, with_layer_notes(cycle, outcome))
        return StepResult(cycle.end(CycleEnd.NOTHING_DUE), closed_outcome)
    if (next_cycle := _cycle_to_reconfirm(cycle, outcome.decision_result.exit_token)) is not None:
        return StepResult(next_cycle, close_step(ports.store, outcome))
    confirmation = covering_confirmation(cycle, plan)
    if confirmation is None:
        if not ports.transactor.confirm(outcome):
            return _decline(ports, cycle, outcome)
        ports.transactor.composer.require_unexpired(outcome.step_input, plan)
        confirmation = confirmation_of(outcome, plan)
    require_as_confirmed(confirmation, outcome, plan)
    return StepResult(replace(cycle, confirmation=confirmation), outcome, plan)


def _plan_to_send(cycle: Cycle, outcome: StepOutcome) -> Plan | None:
    """Return the plan to send, if any. Only liquidity actions may follow a swap, and only plans
    that reduce risk may follow an unsold exit. A layer may leave a plan to the next cycle.
    """
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    if plan is None or (cycle.swap_step_id and not plan.layer_actions):
        return None
    if any(layer_part.postpones(plan) for layer_part in cycle.layers):
        return None
    return None if cycle.is_risk_reducing_only and not reduces_risk(outcome) else plan


def _cycle_to_reconfirm(cycle: Cycle, exit_token: str) -> Cycle | None:
    """Return the cycle without the confirmation, to be evaluated and confirmed again: if the exit
    of this plan was already tried (it is then skipped), or is not the confirmed one. None if the
    plan may go on.
    """
    if exit_token and exit_token in cycle.tried_exit_tokens:
        return cycle.after_exit(
            BlockedExit(exit_token, evaluation.SOLD_IN_PART_REASON, evaluation.NO_ACTION_REMEDY)
        )
    if cycle.confirmation is None or cycle.confirmation.exit_token == exit_token:
        return None
    return cycle.after_exit()


def _decline(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> StepResult:
    """Skip an exit that was not confirmed; any other plan ends the cycle. In the journal a plan that
    is offered for confirmation by a control waits, since nobody declined it.
    """
    unsent_text = f"not confirmed; {unsent_phrase(cycle.sent_kinds)} sent"
    reason = "; ".join(filter(None, (outcome.reason, unsent_text)))
    declined_outcome = replace(outcome, kind=OutcomeKind.DECLINED, reason=reason)
    waits_for_control = ports.store.controls.offered_plan() is not None
    outcome_name = WAITING_OUTCOME if waits_for_control else declined_outcome.kind.value
    end_step(ports.store, declined_outcome, reason, outcome_name)
    if outcome.decision_result.exit_token:
        return StepResult(
            skip_declined_exit(cycle, declined_outcome, evaluation.DECLINED_REASON),
            declined_outcome,
        )
    return StepResult(cycle.end(CycleEnd.DECLINED), declined_outcome)


def _send_next_transaction(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, plan: Plan
) -> StepResult:
    """Send the plan's next transaction: a missing approval if there is one, else that of the plan
    itself. The cycle is written before it is sent, so that a restart knows of it.
    """
    if plan.is_swap:
        record_part_begin(ports.store, outcome)
        for layer in records.LAYERS:
            layer.record_swap(ports.readers, ports.store, outcome)
    composer = ports.transactor.composer
    attempts_by_token = dict(cycle.approval_attempts)
    missing_approvals = evaluation.missing_approvals(
        composer,
        outcome,
        plan,
        lambda approval: max(
            attempts_by_token.get(approval.token, 0),
            approvals.ineffective_approvals(ports.store.journal, outcome.step_input, approval),
        ),
        is_by_owner=not isinstance(cycle.request, AgentCycle),
    )
    if missing_approvals and not composer.joins_approvals(plan, missing_approvals):
        return _approve(ports, cycle, outcome, missing_approvals)
    plan_sender = sender_of(plan)
    try:
        draft = plan_sender.draft_transaction(composer, outcome, plan)
    except UnsendableTransaction:
        if not missing_approvals:
            raise
        # By itself an approval that its token refuses or ignores is known as that token's.
        return _approve(ports, cycle, outcome, missing_approvals)
    ports.store.cycles.write(replace(cycle, sending_step_id=outcome.step_id))
    outcome, intent = execute(ports, outcome, draft)
    close_step(ports.store, outcome)
    for sent_intent in outcome.transactions:
        cycle = cycle.with_transaction(sent_intent)
    return StepResult(plan_sender.after_sent(cycle, outcome, plan, intent), outcome)


def _approve(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, missing_approvals: Sequence[Approval]
) -> StepResult:
    """Send the first of these approvals, for the use of the next step; a failed one skips its exit
    or ends the cycle.
    """
    cap_by_token = dict(cycle.spend_caps) | {
        approval.token: approval.raw for approval in missing_approvals
    }
    cycle = replace(cycle, spend_caps=tuple(cap_by_token.items()))
    prepared_tx = approvals.prepare_approval(
        ports.transactor.composer, outcome.step_input, missing_approvals
    )
    ports.store.cycles.write(replace(cycle, sending_step_id=outcome.step_id))
    intent = approvals.execute_prepared(ports.transactor, outcome.step_id, prepared_tx)
    cycle = cycle.with_transaction(intent)
    outcome = replace(outcome, transactions=(intent,))
    return after_approval(ports, cycle, outcome, intent)
