"""Refusals and endpoint errors within a step: one exit or order is skipped, and the step
continues.
"""

from __future__ import annotations

from dataclasses import replace

from agent.errors import ErrorCode, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution import exits
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.execution.step_run import StepRun, after_exits
from agent.model import AdjustFutures, BlockedExit, IntentKind, Plan
from agent.model.futures import PerpOrder
from agent.planning.futures_step import CLOSE_HEDGE
from agent.planning.hedge import HEDGE, HEDGE_MARGIN
from agent.policy import failures
from agent.policy.orders.blocked_exits import RETRY_REMEDY, add_submission_refusal, may_go_directly

MAX_ORDERS = 12
"""Maximum futures actions of a step, each with a plan of its own."""
FEWER, MOST_PARTS = 4, 64
"""Each refused simulation multiplies the divisor of a reduction by FEWER, up to MOST_PARTS in a
step.
"""


def skip_refusal(run: StepRun, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Skip a futures action or exit that was refused just before sending, and return None: the rest
    is planned again. Any other refusal ends the step with the returned outcome.
    """
    if _skip_refused_futures(run, outcome, refusal):
        return None
    return _skip_refused_exit(run, outcome, refusal)


def _skip_refused_futures(run: StepRun, outcome: StepOutcome, refusal: Refused) -> bool:
    """Skip a deposit, reduction or hedge that simulation, token or signer refused for the rest of
    the step; other markets and spot continue. If the agent's key may not trade, skip all futures.
    Return False for any other refusal, and for the owner's requests.
    """
    plan, decision = outcome.plan, outcome.decision
    if plan is None or (futures := plan.futures) is None:
        return False
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    if refusal.code is ErrorCode.AGENT_KEY and not by_owner and not run.futures_held:
        run.futures_held = f"futures: {refusal}"
        _refuse_order(run, outcome, refusal)
        return True
    name = failures.exit_name(plan)
    if futures.trigger in (HEDGE, CLOSE_HEDGE):
        name = futures.orders[0].market
    elif futures.trigger == HEDGE_MARGIN:
        name = failures.MARGIN
    if by_owner or not name or name in run.refused_markets or not exits.concerns_futures(refusal):
        return False
    if (parts := _next_parts(run, outcome, refusal)) > 1:
        run.order_parts[name] = parts
        run.close(replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal)))
        run.begin_plan()
        return True
    run.refused_markets[name] = outcome.step_input.snapshot.head.timestamp_s
    _refuse_order(run, outcome, refusal)
    return True


def _refuse_order(run: StepRun, outcome: StepOutcome, refusal: Refused) -> None:
    """Record the refusal of a futures action, and begin the next plan."""
    refused = replace(
        outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), verdicts=refusal.verdicts
    )
    run.refused_orders.append(run.close(refused))
    run.begin_plan()


def _next_parts(run: StepRun, outcome: StepOutcome, refusal: Refused) -> int:
    """Return the next divisor of a reduction whose simulation reverted, because a thin pool may
    fill a smaller order; zero for any other refusal, and after the largest divisor. An off-chain
    venue fills partly by itself.
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


def leave_failed_market(run: StepRun, outcome: StepOutcome, plan: Plan) -> bool:
    """Skip the market of a reverted reduction for the rest of the step, so that an attacker who
    makes one order revert cannot delay the others. Return False for any other order, for the
    owner's requests, and while the order is not settled.
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


def _skip_refused_exit(run: StepRun, outcome: StepOutcome, refusal: Refused) -> StepOutcome | None:
    """Skip an exit refused by its token, the simulation or the signer; any other refusal ends the
    step. If no exit was sold and the remaining plan is refused too, the refusal does not count
    against the token: router or endpoint may be at fault.
    """
    reason = str(refusal)
    if outcome.plan is None:
        reason += f"; {outcome.reason}"  # include the decision's reason
    stopped = replace(
        outcome,
        kind=OutcomeKind.REFUSED,
        reason=reason,
        transactions=tuple(run.sent),
        verdicts=refusal.verdicts,
    )
    run.close(stopped)
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
            hold_exit(run, stopped, f"refused at submission: {refusal.message}")
            return None
        return after_exits(run, stopped)
    refusals = {earlier.token: earlier for earlier in outcome.step_input.history.late}
    if run.confirmed is None or not (token := run.confirmed.decided.exit_token):
        if run.doubtful and not run.exits_with(OutcomeKind.DONE):
            run.store.budgets.mark_submission_refusals(
                exits.without_doubtful(tuple(refusals.values()), run.doubtful)
            )
        return after_exits(run, stopped)
    if not isinstance(refusal, exits.ExitRefused):
        run.doubtful[token] = refusals.get(token)
    blocked = BlockedExit(token, f"refused at submission: {refusal.message}", RETRY_REMEDY)
    run.store.budgets.mark_submission_refusals(add_submission_refusal(outcome.step_input, blocked))
    run.leave_exit(blocked)
    return None


def hold_exit(run: StepRun, outcome: StepOutcome, why: str) -> None:
    """Skip an exit that was declined or whose gas was refused, without recording a refusal of its
    token.
    """
    run.held.append(outcome)
    run.leave_exit(BlockedExit(outcome.decided.exit_token, why, exits.NOTHING_TO_DO))


def skip_interrupted_exit(
    run: StepRun, actors: StepActors, token: str, error: TrimtabError, directly: bool
) -> bool:
    """Skip an exit that was not sent because an endpoint failed, or plan it again without a route
    through another token. Return False for other errors, and if the next nonce is unknown: the swap
    was sent or a transaction is open.
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
