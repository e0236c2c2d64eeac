"""One step of the agent: read, decide, plan, judge, journal, send, settle. Live, paper, fork and
replay run the same code.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from agent import codec
from agent.errors import OperatorNeeded, Refused, TrimtabError
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.evaluation import REPLAN_REMEDY, evaluate_input, reduces_risk
from agent.execution.execution_parts import begin_part, end_purchase
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
from agent.execution.step_run import (
    StepRun,
    finish,
    hold_exit,
    outcome_of_step,
    sent_so_far,
    skip_interrupted_exit,
    skip_refused_exit,
    sold_exits,
)
from agent.layers import execution as layers
from agent.layers import records
from agent.model import (
    BlockedExit,
    Plan,
    PlanRequest,
    StepInput,
)
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_go_directly
from agent.ports import Approval
from agent.store.store import Store

MAX_APPROVAL_ROUNDS = 4
"""Maximum rounds of approvals for one plan; a new evaluation follows each."""
MILLION = 1_000_000


def run_step(
    readers: StepReaders, asked: PlanRequest, store: Store, actors: StepActors | None
) -> StepOutcome:
    """Run one step from snapshot to settled receipt; without actors, only evaluate and record.

    Each exit is evaluated from a new snapshot, confirmed and sent separately; a refused exit is
    skipped. The remaining trades follow, also confirmed separately.
    """
    if actors is None:
        run = StepRun(readers, asked, store)
        return run.close(record_evaluation(run))
    actors.executor.reconcile()
    end_interrupted_steps(store)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    run = StepRun(readers, asked, store)
    outcome = _run_until_done(run, actors)
    _mark_review(run, outcome)
    if actors.executor.ready():
        for after_step in records.AFTER_STEP:
            after_step(store, outcome)
    outcome = approvals.revoke_leftovers(readers, actors, store, outcome)
    if run.skipped:  # approvals of refused exits and their revocations do not count as failures
        store.budgets.mark_submission_refusals(
            readers.history(readers.clock.now_s()).failures.submission_refusals
        )
    return outcome


def _mark_review(run: StepRun, outcome: StepOutcome) -> None:
    """Record that a schedule's review is done, with the random delay of the next."""
    if outcome.decided.reviewed and outcome.kind in REVIEW_DONE_KINDS:
        run.store.budgets.mark_review(
            review_time_s(outcome.step_input.snapshot),
            int(run.readers.chance() * MILLION),
            outcome.decided.reviews,
        )


def _run_until_done(run: StepRun, actors: StepActors) -> StepOutcome:
    """Evaluate and carry out plans until the step ends; a new evaluation follows approvals, actions
    and exits.
    """
    while run.approval_rounds < MAX_APPROVAL_ROUNDS:
        if (ended := _run_once(run, actors)) is not None:
            return outcome_of_step(run, ended)
    raise OperatorNeeded(
        f"an approval is still missing after {MAX_APPROVAL_ROUNDS} attempts",
        "check the token's approve function; it may ignore approvals",
    )


def _run_once(run: StepRun, actors: StepActors) -> StepOutcome | None:
    """Evaluate a new snapshot and carry out the plan. Return None if a new evaluation is needed,
    which includes a refusal or an error that concerns only one exit or a layer, and what a
    layer ends before the plan.
    """
    try:
        evaluated = record_evaluation(run)
    except ExitInterrupted as error:
        if not skip_interrupted_exit(run, actors, error.token, error, error.may_go_directly):
            raise
        return None
    if any(end(run, actors, evaluated) for end in layers.BEFORE_PLAN):
        return None
    try:
        return _carry_out(run, actors, evaluated)
    except Refused as refusal:
        return skip_refusal(run, evaluated, refusal)
    except TrimtabError as error:
        run.end(evaluated, str(error), "error")
        token = evaluated.decided.exit_token
        directly = may_go_directly(evaluated.step_input, evaluated.plan, token)
        if not skip_interrupted_exit(run, actors, token, error, directly):
            raise
        return None


def skip_refusal(run: StepRun, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Leave out what a layer was refused just before sending, or an exit, and return None: the rest
    is planned again. Any other refusal ends the step with the returned outcome.
    """
    if any(skip(run, outcome, refusal) for skip in layers.SKIPS):
        return None
    return skip_refused_exit(run, outcome, refusal)


def record_evaluation(run: StepRun) -> StepOutcome:
    """Store the step input of a new snapshot in the journal, then evaluate it."""
    step_id = uuid.uuid4().hex[:12]
    step_input, changed = _read_input(run)
    _record_input(run, step_id, step_input, changed)
    outcome = evaluate_input(
        step_input, run.propose, run.readers.evidence, step_id, TickExtender(run.readers.reader)
    )
    if outcome.step_input is not step_input:
        run.store.steps.begin(step_id, run.readers.clock.now_s(), codec.dumps(outcome.step_input))
    return replace(outcome, transactions=tuple(run.sent), exits_tried=run.tried)


def _read_input(run: StepRun) -> tuple[StepInput, frozenset[int]]:
    """Read the step input at a new snapshot, and the blocks in which balances changed. The order
    matters: each call uses what earlier calls stored (settlements, draw, anomalies).
    """
    readers, snapshot = run.own_readers, run.readers.reader.snapshot()
    changed = settle_mined(run.store, snapshot, lambda: run.readers.step_input_at(snapshot))
    step_input = readers.step_input_at(snapshot)
    for before_decision in records.BEFORE_DECISION:
        step_input = before_decision(readers, run.store, step_input)
    record_anomalies(run.store.budgets, run.store.balances, step_input)
    step_input = confirm_prices(readers, step_input)
    record_order_stages(run.store.orders, step_input)
    return exclude_blocked_exits(step_input, run.skipped), changed


def _record_input(
    run: StepRun, step_id: str, step_input: StepInput, changed: frozenset[int]
) -> None:
    """Record weights, ledger, layers and prices of a step, and its input."""
    record_cash(run.store.cash, step_input.history)
    record_allocation(step_input.history, run.store.allocations)
    update_ledger(run.store, run.readers.recorded(step_input), changed)
    for after_input in records.AFTER_INPUT:
        after_input(run.store, step_input)
    record_hourly_prices(run.readers, step_input, run.store.prices)
    run.store.steps.begin(
        step_id, run.readers.clock.now_s(), codec.dumps(step_input), codec.dumps(run.asked)
    )


def _carry_out(run: StepRun, actors: StepActors, outcome: StepOutcome) -> StepOutcome | None:
    """Confirm, approve and send the plan. Return None if a new evaluation is needed."""
    end_purchase(run.store, outcome)
    for after_decision in records.AFTER_DECISION:
        after_decision(run.store, outcome)
    if run.confirmed is not None and run.swapped is None:
        evaluation.require_exit_possible(run.confirmed, outcome, REPLAN_REMEDY)
    if (plan := _plan_to_send(run, outcome)) is None:
        return finish(run, outcome)
    if _is_another_exit(run, outcome):
        run.close(outcome)
        return None
    if run.confirmed is not None and _is_in_layer(run.confirmed) != _is_in_layer(outcome):
        run.confirmed = None
    if (confirmed := run.confirmed or _confirm(run, actors, outcome, plan)) is None:
        unsent = f"not confirmed; {sent_so_far(run.sent)} sent"
        reason = "; ".join(filter(None, (outcome.reason, unsent)))
        declined = run.close(replace(outcome, kind=OutcomeKind.DECLINED, reason=reason))
        if not outcome.decided.exit_token:
            return declined
        hold_exit(run, declined, evaluation.DECLINED)
        return None
    _require_as_confirmed(confirmed, outcome, plan)
    if not plan.actions and not plan.in_layer:
        begin_part(run.store, outcome)
        for before_swap in records.BEFORE_SWAP:
            before_swap(run.readers, run.store, outcome)
    last = run.approval_rounds + 1 == MAX_APPROVAL_ROUNDS
    if needed := evaluation.missing_approvals(actors.composer, outcome, plan, run.sent, last):
        return _approve(run, actors, outcome, needed)
    return _send(run, actors, outcome, plan)


def _is_in_layer(outcome: StepOutcome) -> bool:
    """True if the plan acts in a layer, which is confirmed separately from swaps."""
    return outcome.plan is not None and outcome.plan.in_layer


def _is_another_exit(run: StepRun, outcome: StepOutcome) -> bool:
    """True if a new confirmation is needed: for an exit other than the confirmed one, or for the
    rest after an exit.
    """
    token = outcome.decided.exit_token
    if token and token in run.tried:
        run.leave_exit(BlockedExit(token, evaluation.SOLD_IN_PART, evaluation.NOTHING_TO_DO))
        return True
    if run.confirmed is None or run.confirmed.decided.exit_token == token:
        return False
    run.leave_exit()
    return True


def _plan_to_send(run: StepRun, outcome: StepOutcome) -> Plan | None:
    """Return the plan to send, if any. Only liquidity actions may follow a swap, and only plans
    that reduce risk may follow an unsold exit. A layer may leave a plan to the next step.
    """
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    if plan is None or (run.swapped is not None and not plan.actions):
        return None
    if any(layer.leaves(plan) for layer in run.layers.values()):
        return None
    return None if run.is_risk_reducing_only and not reduces_risk(outcome) else plan


def _confirm(
    run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan
) -> StepOutcome | None:
    """Request a confirmation and return the confirmed outcome; None if declined. Raises Refused if
    the plan has expired meanwhile.
    """
    if not actors.confirm(outcome):
        return None
    actors.composer.require_fresh(outcome.step_input, plan)
    run.confirmed = outcome
    return outcome


def _require_as_confirmed(confirmed: StepOutcome, outcome: StepOutcome, plan: Plan) -> None:
    """Raise Refused if the plan differs in kind from the confirmed one: new exclusions, a layer
    first, or a different limit order.
    """
    evaluation.require_no_new_exclusions(confirmed, outcome, REPLAN_REMEDY)
    if confirmed.plan is not None:
        for require in layers.CONFIRMATIONS:
            require(confirmed.plan, plan)
    if outcome.decided.order != confirmed.decided.order:
        raise Refused(
            "a limit order was added or removed after the confirmation", remedy=REPLAN_REMEDY
        )


def _approve(
    run: StepRun, actors: StepActors, outcome: StepOutcome, needed: Sequence[Approval]
) -> StepOutcome | None:
    """Send the approvals. Return None if a new evaluation should use them; a failed approval ends
    the step.
    """
    approvals.approve(actors, outcome, needed, run.sent)
    run.spend_caps |= {approval.token: approval.raw for approval in needed}
    run.approval_rounds += 1
    outcome, newest = replace(outcome, transactions=tuple(run.sent)), run.sent[-1]
    if newest.succeeded:
        run.close(outcome)
        return None
    if newest.receipt is not None and newest.tx.to == outcome.decided.exit_token:
        raise evaluation.ExitRefused(f'"{newest.note}" reverted')
    return run.close(
        replace(outcome, kind=OutcomeKind.FAILED, reason=f'"{newest.note}" did not succeed'),
    )


def _send(run: StepRun, actors: StepActors, outcome: StepOutcome, plan: Plan) -> StepOutcome | None:
    """Send the plan's transaction. Return None if a new plan is needed: after an exit, or because a
    layer has more to do.
    """
    for sends, send in layers.SENDERS:
        if sends(plan):
            return send(run, actors, outcome, plan)
    prepared = actors.composer.swap(outcome.step_input, plan)
    outcome = run.close(
        execute(run, actors, outcome, prepared, "the swap", "nothing was exchanged")
    )
    if token := outcome.decided.exit_token:
        run.exits.append(outcome)
        blocked = None
        if outcome.kind is OutcomeKind.FAILED and not outcome.short:
            blocked = BlockedExit(token, evaluation.REVERTED, evaluation.NOTHING_TO_DO)
        run.leave_exit(blocked)
        return None
    run.swapped = outcome = replace(outcome, reason="; ".join([outcome.reason, *sold_exits(run)]))
    goes_on = any(layer.follows_swaps for layer in run.layers.values())
    if outcome.kind is OutcomeKind.FAILED or not goes_on:
        return outcome
    run.begin_plan()
    return None
