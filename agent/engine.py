"""One step of the agent: read, decide, plan, judge, journal, send, settle. Live, paper, fork and
replay run the same code.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from agent import codec
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import record_allocation, record_hourly_prices, update_ledger
from agent.execution.evaluation import evaluate_input, reduces_risk
from agent.execution.execution_parts import begin_part, end_purchase
from agent.execution.resting_orders import end_resting_orders
from agent.execution.settlement import review_time_s, settle_mined
from agent.execution.shortfall import end_interrupted_steps, with_shortfall
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
    MAX_ORDERS,
    StepRun,
    finish,
    hold_exit,
    leave_failed_market,
    orders_futures,
    outcome_of_step,
    sent_so_far,
    skip_interrupted_exit,
    skip_refusal,
    sold_exits,
)
from agent.layers import records
from agent.layers.futures.planning.hedges import HEDGE
from agent.layers.futures.policy.needs import reduction_goals
from agent.model import (
    BlockedExit,
    FuturesPlan,
    MoveMargin,
    PerpOrder,
    Plan,
    PlanRequest,
    StepInput,
)
from agent.policy.orders.blocked_exits import exclude_blocked_exits, may_go_directly
from agent.ports import Approval, PreparedTransaction
from agent.store.store import Store

MAX_APPROVAL_ROUNDS = 4
"""Maximum rounds of approvals for one plan; a new evaluation follows each."""
MILLION = 1_000_000
REPLAN_REMEDY = "run it again and confirm the new plan"
MAX_ACTIONS = 8
"""Maximum liquidity actions of a step, each with its own plan; the next step does the rest."""


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
    which includes a refusal or an error that concerns only one exit or order, and the end of
    resting orders.
    """
    try:
        evaluated = record_evaluation(run)
    except ExitInterrupted as error:
        if not skip_interrupted_exit(run, actors, error.token, error, error.may_go_directly):
            raise
        return None
    if end_resting_orders(run, actors, evaluated):
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


def record_evaluation(run: StepRun) -> StepOutcome:
    """Store the step input of a new snapshot in the journal, then evaluate it."""
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
    readers, snapshot = run.own_readers, run.readers.reader.snapshot()
    settle_mined(run.store, snapshot, lambda: run.readers.step_input_at(snapshot))
    step_input = readers.step_input_at(snapshot)
    for before_decision in records.BEFORE_DECISION:
        step_input = before_decision(readers, run.store, step_input)
    record_anomalies(run.store.budgets, run.store.balances, step_input)
    step_input = confirm_prices(readers, step_input)
    record_order_stages(run.store.orders, step_input)
    return exclude_blocked_exits(step_input, run.skipped)


def _record_input(run: StepRun, step_id: str, step_input: StepInput) -> None:
    """Record weights, ledger, layers and prices of a step, and its input."""
    record_cash(run.store.cash, step_input)
    record_allocation(step_input, run.store.allocations)
    update_ledger(run.store, run.readers.recorded(step_input))
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
    if run.confirmed is not None and orders_futures(run.confirmed) != orders_futures(outcome):
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
    if not plan.actions and plan.futures is None:
        begin_part(run.store, outcome)
        for before_swap in records.BEFORE_SWAP:
            before_swap(run.readers, run.store, outcome)
    last = run.approval_rounds + 1 == MAX_APPROVAL_ROUNDS
    if needed := evaluation.missing_approvals(actors.composer, outcome, plan, run.sent, last):
        return _approve(run, actors, outcome, needed)
    return _send(run, actors, outcome, plan)


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
    that reduce risk may follow an unsold exit. No step opens futures after it reduced a position or
    deposited margin, so freed margin is neither used nor withdrawn at once.
    """
    plan = outcome.plan if outcome.kind is OutcomeKind.PLANNED else None
    if plan is None or (run.swapped is not None and not plan.actions):
        return None
    if run.reduced and plan.futures is not None and not plan.futures.is_reducing:
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
    """Raise Refused if the plan differs in kind from the confirmed one: new exclusions, liquidity
    first, or a different limit order.
    """
    evaluation.require_no_new_exclusions(confirmed, outcome, REPLAN_REMEDY)
    if plan.actions and confirmed.plan is not None and not confirmed.plan.actions:
        raise Refused("liquidity must be moved before the confirmed swaps", remedy=REPLAN_REMEDY)
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
    """Send the plan's transaction. Return None if a new plan is needed: after an exit or between
    liquidity actions.
    """
    if plan.futures is not None:
        return _send_futures(run, actors, outcome, plan.futures)
    if plan.actions:
        run.history_before = run.history_before or outcome.step_input.history
        prepared = actors.composer.liquidity(outcome.step_input, plan)
        name, otherwise = f'"{prepared.note}"', "no liquidity was moved"
        outcome = run.close(_execute(run, actors, outcome, prepared, name, otherwise))
        if outcome.kind is OutcomeKind.FAILED and (pool := run.pool_to_leave(plan)):
            run.leave_pool(pool, outcome)
            return None
        run.actions += 1
    else:
        prepared = actors.composer.swap(outcome.step_input, plan)
        outcome = run.close(
            _execute(run, actors, outcome, prepared, "the swap", "nothing was exchanged")
        )
        if token := outcome.decided.exit_token:
            run.exits.append(outcome)
            blocked = None
            if outcome.kind is OutcomeKind.FAILED and not outcome.short:
                blocked = BlockedExit(token, evaluation.REVERTED, evaluation.NOTHING_TO_DO)
            run.leave_exit(blocked)
            return None
        run.swapped = outcome = replace(
            outcome, reason="; ".join([outcome.reason, *sold_exits(run)])
        )
    if outcome.kind is OutcomeKind.FAILED or run.actions in (0, MAX_ACTIONS):
        return outcome
    run.begin_plan()
    return None


def _send_futures(
    run: StepRun, actors: StepActors, outcome: StepOutcome, futures: FuturesPlan
) -> StepOutcome | None:
    """Send the first futures action. Return None if a new plan is needed."""
    action, plan = futures.actions[0], outcome.plan
    frees = action.is_reduce_only if isinstance(action, PerpOrder) else futures.is_reducing
    frees = frees and not futures.resting
    if plan is None:
        raise ValueError("an outcome without a plan sends nothing")
    prepared = actors.composer.futures(outcome.step_input, plan)
    otherwise = "no position was changed" if futures.orders else "no margin was moved"
    name = f'"{prepared.note}"'
    outcome = run.close(_execute(run, actors, outcome, prepared, name, otherwise))
    run.orders += 1
    run.reduced = run.reduced or frees
    if isinstance(action, PerpOrder) and frees:
        run.reduced_markets += (action.market,)
        run.reduction_goals = reduction_goals(outcome.step_input, futures)
    if outcome.kind is OutcomeKind.FAILED and leave_failed_market(run, outcome, plan):
        return None
    if futures.trigger == HEDGE:
        run.hedged += [comparison for comparison in plan.comparisons if comparison.is_hedged]
    if outcome.kind is OutcomeKind.FAILED or run.orders == MAX_ORDERS:
        return outcome
    if isinstance(run.asked, MoveMargin):
        return outcome
    run.begin_plan()
    return None


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
    evaluation.clear_submission_refusals(run.store.budgets, outcome)
    try:
        snapshot = run.readers.reader.snapshot()
    except (Retryable, Refused):  # the transaction is mined; the next step books it
        return with_shortfall(outcome, intent, None)
    settle_mined(
        run.store,
        snapshot,
        lambda: run.readers.step_input_at(snapshot),
        before=outcome.step_input.snapshot,
    )
    after = run.readers.step_input_at(snapshot)
    update_ledger(run.store, run.readers.recorded(after))
    for after_input in records.AFTER_INPUT:
        after_input(run.store, after)
    return with_shortfall(replace(outcome, after=after), intent, snapshot)
