"""A running step: its sent, confirmed and skipped items, and the outcome that results. A refusal or
an endpoint error skips one exit or order, and the step continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agent import codec
from agent.errors import ErrorCode, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome, StepReaders
from agent.layers.futures.planning.hedges import HEDGE_MARGIN
from agent.model import (
    AdjustFutures,
    BlockedExit,
    HedgeComparison,
    History,
    Intent,
    IntentKind,
    PerpOrder,
    Plan,
    PlanRequest,
    StepInput,
    SubmissionRefusal,
)
from agent.planning.proposals import Proposer
from agent.planning.requests import proposer
from agent.policy import failures
from agent.policy.orders.blocked_exits import RETRY_REMEDY, add_submission_refusal, may_go_directly
from agent.store.store import Store


@dataclass(slots=True)
class StepRun:
    """State of a running step: its sources, and its confirmed, sent and skipped items.

    `sent` has all transactions of the step; those of the current plan begin at `first_of_plan`.
    `spend_caps` are the approved base units by token, an upper bound for legs. `history_before` is
    the history before the first liquidity action. `exits` are the outcomes of sent exits, `skipped`
    the exits that the rest of the step ignores. `orders` counts sent futures actions. `reduced` is
    true after a deposit or a reduction: the rest of the step does not use the margin that it freed.
    `reduced_markets` are the markets of sent reductions, `reduction_goals` the sizes at which a
    reduction to a limit ends, `order_parts` the divisors of reductions that the venue refused.
    `hedged` has, for each opened hedge, the comparison of its cost with that of a sale; the
    rebalance continues after them.
    `refused_markets` has the chain time per futures market whose reduction or hedge was refused
    before sending, or whose reduction reverted; a refused deposit has the key failures.MARGIN.
    `refused_orders` are the outcomes. `ended_orders` has a note on each resting order that this
    step cancelled, or tried to, by client order id. `futures_held` is the reason why the rest of the step sends
    no futures action, if the agent's key may not trade. `doubtful` has, per exit that simulation or
    signer refused in this step, the refusal stored before. `interrupted` are exits that could not
    be sent because an endpoint failed, with the error. `held` are exits that the owner declined or
    whose gas was refused. After an interrupted, held or failed exit only plans that reduce risk are
    sent. `direct` are tokens whose exits failed on a route through another token and are planned
    again without it. `left_pools` are pools whose withdrawal was refused or failed, and
    `unwithdrawn` the outcomes; other pools are still withdrawn from.
    """

    readers: StepReaders
    asked: PlanRequest
    store: Store
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
    ended_orders: dict[str, str] = field(default_factory=dict)
    futures_held: str = ""
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

    def close(self, outcome: StepOutcome) -> StepOutcome:
        """Record the outcome of an evaluation in the journal, and return it."""
        self.end(outcome, outcome.reason, outcome.kind.value)
        return outcome

    def end(self, outcome: StepOutcome, reason: str, kind: str) -> None:
        """Record an evaluation whose reason or kind differs from those of its outcome."""
        plan = None if outcome.plan is None else codec.dumps(outcome.plan)
        decision = type(outcome.decision).__name__.lower()
        self.store.steps.end(outcome.step_id, decision, reason, plan, kind)

    def exits_with(self, kind: OutcomeKind) -> list[StepOutcome]:
        """Return the sent exits with this kind of outcome."""
        return [outcome for outcome in self.exits if outcome.kind is kind]

    @property
    def is_risk_reducing_only(self) -> bool:
        """True after an unsold exit or a failed withdrawal: purchases wait for the next cycle."""
        failed = self.exits_with(OutcomeKind.FAILED) or self.unwithdrawn
        return bool(failed or self.interrupted or self.held)

    @property
    def own_readers(self) -> StepReaders:
        """Readers whose step inputs include the progress of this step."""
        assemble = self.readers.assemble
        return replace(
            self.readers,
            assemble=lambda snapshot, history: self._with_progress(assemble(snapshot, history)),
        )

    def _with_progress(self, step_input: StepInput) -> StepInput:
        """Return the step input with caps and gas of the current plan. Liquidity actions of this
        step do not start cooldowns.
        """
        receipts = [intent.receipt for intent in self.sent[self.first_of_plan :]]
        gas_wei = sum(receipt.gas_cost_wei for receipt in receipts if receipt is not None)
        step_input = failures.with_refused_markets(step_input, self.refused_markets)
        step_input = replace(
            step_input,
            progress=replace(
                step_input.progress,
                spend_caps=tuple(self.spend_caps.items()),
                spent_gas_wei=gas_wei,
                direct=self.direct,
                left_pools=self.left_pools,
                reduced_markets=self.reduced_markets,
                after_hedge=bool(self.hedged),
                reduction_goals=self.reduction_goals,
                order_parts=tuple(self.order_parts.items()),
                futures_held=self.futures_held or step_input.progress.futures_held,
            ),
        )
        if (before := self.history_before) is None:
            return step_input
        history = replace(
            step_input.history,
            reviews=replace(
                step_input.history.reviews, last_rebalance_s=before.reviews.last_rebalance_s
            ),
            last_liquidity_s=before.last_liquidity_s,
        )
        return replace(
            step_input, history=history, progress=replace(step_input.progress, acted=True)
        )

    def begin_plan(self) -> None:
        """Reset the counters for the next plan of this step."""
        self.approval_rounds, self.spend_caps, self.first_of_plan = 0, {}, len(self.sent)

    def pool_to_leave(self, plan: Plan | None) -> str:
        """Return the pool of a plan that only withdraws liquidity; empty for other plans and after
        a swap.
        """
        if plan is None or not plan.actions or self.swapped is not None:
            return ""
        pool = failures.exit_name(plan)
        return "" if pool in self.left_pools else pool

    def leave_pool(self, pool: str, outcome: StepOutcome | None = None) -> None:
        """Begin the next plan after a failed withdrawal. The rest of the step skips the pool."""
        self.left_pools += (pool,)
        if outcome is not None:
            self.unwithdrawn.append(outcome)
        self.leave_exit()

    def go_directly(self, token: str) -> None:
        """Plan this exit again, without a route through another token."""
        self.direct += (token,)
        self.leave_exit()

    def leave_exit(self, blocked: BlockedExit | None = None) -> None:
        """Begin the next plan after an exit. The rest of the step ignores a `blocked` exit."""
        if blocked is not None:
            self.skipped += (blocked,)
        self.confirmed = None
        self.begin_plan()


# --- The outcome of a whole step.


def orders_futures(outcome: StepOutcome) -> bool:
    """True if the plan sends futures actions, which are confirmed separately from swaps."""
    return outcome.plan is not None and outcome.plan.futures is not None


def finish(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that sends nothing more: that of its swap, exits or actions,
    else of the evaluation.
    """
    if run.swapped is not None:
        run.close(outcome)
        return replace(run.swapped, transactions=tuple(run.sent), after=outcome.step_input)
    acted = _actions_done(run)
    is_opening = run.reduced and orders_futures(outcome)  # left to the next step
    if run.exits or not acted or not (outcome.kind is OutcomeKind.HOLD or is_opening):
        return after_exits(run, run.close(outcome))
    reason = "; ".join([*acted, outcome.reason])
    return run.close(
        replace(outcome, kind=OutcomeKind.DONE, reason=reason, after=outcome.step_input)
    )


def _actions_done(run: StepRun) -> list[str]:
    """Return notes on the liquidity and futures actions of the step."""
    notes = []
    if run.orders:
        notes.append(
            "1 futures action done" if run.orders == 1 else f"{run.orders} futures actions done"
        )
    if run.actions:
        count = "1 liquidity action" if run.actions == 1 else f"{run.actions} liquidity actions"
        notes.append(f"{count} done")
    return notes


def after_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Return the final outcome of a step that ends with `outcome`: that of its last failed exit,
    else of its last exit.
    """
    if not run.exits:
        return outcome
    step_outcome = (run.exits_with(OutcomeKind.FAILED) or run.exits)[-1]
    sent = {exit_.decided.exit_token for exit_ in run.exits}
    blocked = tuple(item for item in outcome.decided.stuck if item.token not in sent)
    parts = [step_outcome.reason]
    if len(sent) > 1:
        parts += sold_exits(run)
    if blocked or outcome.kind is not OutcomeKind.HOLD:
        parts.append(f"then: {outcome.reason}")
    return replace(
        step_outcome,
        reason="; ".join(parts),
        decided=replace(step_outcome.decided, stuck=blocked),
        exits_tried=run.tried,
        transactions=tuple(run.sent),
        after=outcome.step_input,
    )


def outcome_of_step(run: StepRun, ended: StepOutcome) -> StepOutcome:
    """Return the outcome of a step that ends with `ended`, including opened hedges and everything
    that could not be sent. Raise the endpoint's error if nothing was sent.
    """
    reason = "; ".join([*run.ended_orders.values(), ended.reason])
    outcome = replace(ended, hedged=tuple(run.hedged), reason=reason)
    return _with_unsold_exits(run, _with_refused_orders(run, outcome))


def _with_unsold_exits(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Add the exits that the step could not sell to the outcome, even if later plans succeeded.
    Raise the endpoint's error if nothing was sent and no exit was held.
    """
    quiet = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.PLANNED)
    outcomes = [*run.unwithdrawn, *run.held]
    if quiet and outcomes:
        outcome = replace(outcomes[-1], transactions=tuple(run.sent))
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
    hidden = outcome.kind is OutcomeKind.DONE or (quiet and not outcomes)
    if (failed or run.interrupted) and hidden:
        outcome = replace(outcome, kind=OutcomeKind.FAILED)
    return replace(outcome, reason="; ".join([outcome.reason, *unsold]))


def _with_refused_orders(run: StepRun, outcome: StepOutcome) -> StepOutcome:
    """Add deposits and orders that were refused before sending, or reverted, to the outcome. A
    step that did nothing else is refused; a step with a reverted order has failed.
    """
    if not run.refused_orders:
        return outcome
    refusals = dict.fromkeys(order.reason for order in run.refused_orders)
    reason = "; ".join([outcome.reason, *refusals])
    failed = any(refused_order.kind is OutcomeKind.FAILED for refused_order in run.refused_orders)
    if failed and outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.DONE):
        return replace(outcome, kind=OutcomeKind.FAILED, reason=reason)
    if outcome.kind is OutcomeKind.HOLD:
        verdicts = run.refused_orders[-1].verdicts
        return replace(outcome, kind=OutcomeKind.REFUSED, reason=reason, verdicts=verdicts)
    return replace(outcome, reason=reason)


def sold_exits(run: StepRun) -> list[str]:
    """Return a note on the sold exits; empty if there are none."""
    labels = [
        sold.step_input.portfolio.token(sold.decided.exit_token).label
        for sold in run.exits_with(OutcomeKind.DONE)
    ]
    return [f"exits sold, each in its own transaction: {', '.join(labels)}"] if labels else []


def sent_so_far(sent: Sequence[Intent]) -> str:
    """Return the words before "sent" in the note on a declined plan, such as "nothing more was" if
    other actions were sent.
    """
    if any(intent.kind is not IntentKind.APPROVE for intent in sent):
        return "nothing more was"
    return "only approvals were" if sent else "nothing was"


MAX_ORDERS = 12
"""Maximum futures actions of a step, each with a plan of its own."""
FEWER, MOST_PARTS = 4, 64
"""Each refused simulation multiplies the divisor of an order by FEWER, up to MOST_PARTS in a
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
    """For the rest of the step, skip a deposit, order or hedge that simulation, token or signer
    refused, after smaller parts of an order; other markets and spot continue. If the agent's key may not trade, skip all futures.
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
    if futures.trigger == HEDGE_MARGIN:
        name = failures.MARGIN
    elif futures.orders and not futures.account_actions:
        name = futures.orders[0].market
    if (
        by_owner
        or not name
        or name in run.refused_markets
        or not evaluation.concerns_futures(refusal)
    ):
        return False
    if (parts := _next_parts(run, outcome, refusal)) > 1:
        is_first, run.order_parts[name] = name not in run.order_parts, parts
        if is_first and not futures.is_reducing:
            _refuse_order(run, outcome, refusal)  # a part of an opening may not be worth its cost
            return True
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
    """Return the next divisor of an order whose simulation reverted, because a thin pool may
    fill a smaller order; zero for any other refusal, and after the largest divisor. An off-chain
    venue makes partial fills itself.
    """
    futures = outcome.futures_plan
    account = outcome.step_input.snapshot.futures
    if futures is None or account is None or not account.is_on_chain:
        return 0
    first = futures.actions[0]
    if not isinstance(refusal, UnsendableTransaction) or not isinstance(first, PerpOrder):
        return 0
    parts = run.order_parts.get(first.market, 1) * FEWER
    return parts if parts <= MOST_PARTS else 0


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
    own = evaluation.concerns_trade(refusal) or evaluation.gas_refusal(refusal)
    token = outcome.decided.exit_token
    if (
        own
        and not isinstance(refusal, evaluation.ExitRefused)
        and may_go_directly(outcome.step_input, outcome.plan, token)
    ):
        run.go_directly(token)
        return None
    if own and (pool := run.pool_to_leave(outcome.plan)):
        run.leave_pool(pool, stopped)
        return None
    if not evaluation.concerns_trade(refusal):
        if own and token:
            hold_exit(run, stopped, f"refused at submission: {refusal.message}")
            return None
        return after_exits(run, stopped)
    refusals = {
        earlier.token: earlier
        for earlier in outcome.step_input.history.failures.submission_refusals
    }
    if run.confirmed is None or not (token := run.confirmed.decided.exit_token):
        if run.doubtful and not run.exits_with(OutcomeKind.DONE):
            run.store.budgets.mark_submission_refusals(
                evaluation.without_doubtful(tuple(refusals.values()), run.doubtful)
            )
        return after_exits(run, stopped)
    if not isinstance(refusal, evaluation.ExitRefused):
        run.doubtful[token] = refusals.get(token)
    blocked = BlockedExit(token, f"refused at submission: {refusal.message}", RETRY_REMEDY)
    run.store.budgets.mark_submission_refusals(add_submission_refusal(outcome.step_input, blocked))
    run.leave_exit(blocked)
    return None


def hold_exit(run: StepRun, outcome: StepOutcome, why: str) -> None:
    """Skip an exit that was declined or whose gas was refused, without recording a refusal by its
    token.
    """
    run.held.append(outcome)
    run.leave_exit(BlockedExit(outcome.decided.exit_token, why, evaluation.NOTHING_TO_DO))


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
    run.leave_exit(BlockedExit(token, why, error.remedy or evaluation.NOTHING_TO_DO))
    return True
