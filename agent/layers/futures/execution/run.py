"""What a running step has done with futures, and what it leaves out after a refusal: a deposit, an
order or a hedge that was refused just before sending, while other markets and spot continue.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.evaluation import ExitRefused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_run import LayerRun, StepRun
from agent.layers.futures.planning.plans import HEDGE_MARGIN
from agent.layers.futures.policy.plans import MARGIN
from agent.layers.futures.state import (
    FuturesProgress,
    futures_progress,
    margin_account,
    planned_futures,
)
from agent.model import (
    AdjustFutures,
    FuturesPlan,
    HedgeChoices,
    HedgeComparison,
    LayerPart,
    PerpOrder,
    Plan,
    StepInput,
    part_of,
    with_part,
)
from agent.policy import failures

MAX_ORDERS = 12
"""Maximum futures actions of a step, each with a plan of its own."""
FEWER, MOST_PARTS = 4, 64
"""Each refused simulation multiplies the divisor of an order by FEWER, up to MOST_PARTS in a
step.
"""
FUTURES_SIGNER_RULES = frozenset(
    f"signer.{rule}"
    for rule in (
        "action",
        "amount",
        "approval",
        "approval_amount",
        "bound",
        "contract",
        "emergency",
        "index_age",
        "market",
        "reduce_only",
        "size",
        "spender",
        "tokens",
        "trader",
    )
)
"""Signer rules that judge the futures action itself, as opposed to nonce, fees, chain, time or
kind.
"""


@dataclass(frozen=True, slots=True)
class FuturesOutcome(LayerPart):
    """What a whole step did with futures."""

    hedged: tuple[HedgeComparison, ...] = ()
    """For each opened hedge, the comparison of its cost with that of a sale."""


@dataclass(slots=True)
class FuturesRun(LayerRun):
    """What a running step has done with futures, and has found impossible there."""

    orders: int = 0
    """Actions sent."""
    reduced: bool = False
    """True after a deposit or a reduction: the rest of the step opens nothing, so freed margin is
    neither used nor withdrawn at once.
    """
    reduced_markets: tuple[str, ...] = ()
    """Markets of sent reductions."""
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Sizes at which a reduction to a limit ends, by market."""
    order_parts: dict[str, int] = field(default_factory=dict)
    """Divisors of reductions that the venue refused, by market."""
    hedged: list[HedgeComparison] = field(default_factory=list)
    """For each opened hedge, the comparison of its cost with that of a sale; the rebalance
    continues after them.
    """
    refused_markets: dict[str, int] = field(default_factory=dict)
    """Chain time per market whose reduction or hedge was refused before sending, or whose reduction
    reverted; a refused deposit has the key failures.MARGIN.
    """
    refused_orders: list[StepOutcome] = field(default_factory=list)
    """Outcomes of these."""
    ended_orders: dict[str, str] = field(default_factory=dict)
    """Note on each resting order that this step cancelled, or tried to, by client order id."""
    held: str = ""
    """Reason why the rest of the step sends no action, if the agent's key may not trade."""

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with what was reduced and refused."""
        step = failures.with_refused_markets(step, self.refused_markets)
        held = self.held or futures_progress(step).held
        parts = tuple(self.order_parts.items())
        return step.with_progress(
            FuturesProgress(
                self.reduced_markets, self.reduction_goals, parts, held, bool(self.hedged)
            )
        )

    def leaves(self, plan: Plan) -> bool:
        """True if the plan opens positions after a reduction or a deposit."""
        futures = planned_futures(plan)
        return self.reduced and futures is not None and not futures.is_reducing

    def is_done_before(self, plan: Plan | None) -> bool:
        """True for any futures plan after a reduction or a deposit."""
        return self.reduced and planned_futures(plan) is not None

    def notes(self) -> list[str]:
        """Return a note on the actions done."""
        if not self.orders:
            return []
        return [
            "1 futures action done" if self.orders == 1 else f"{self.orders} futures actions done"
        ]

    def completed(self, outcome: StepOutcome) -> StepOutcome:
        """Return the outcome with ended orders and opened hedges, and with deposits and orders that
        were refused before sending, or reverted. A step that did nothing else is refused; a step
        with a reverted order has failed.
        """
        reason = "; ".join([*self.ended_orders.values(), outcome.reason])
        layers = with_part(outcome.layers, FuturesOutcome(tuple(self.hedged)))
        outcome = replace(outcome, layers=layers, reason=reason)
        if not self.refused_orders:
            return outcome
        refusals = dict.fromkeys(order.reason for order in self.refused_orders)
        reason = "; ".join([outcome.reason, *refusals])
        failed = any(
            refused_order.kind is OutcomeKind.FAILED for refused_order in self.refused_orders
        )
        if failed and outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.DONE):
            return replace(outcome, kind=OutcomeKind.FAILED, reason=reason)
        if outcome.kind is OutcomeKind.HOLD:
            verdicts = self.refused_orders[-1].verdicts
            return replace(outcome, kind=OutcomeKind.REFUSED, reason=reason, verdicts=verdicts)
        return replace(outcome, reason=reason)


def concerns_futures(why: Refused) -> bool:
    """True if the simulation, the token or a signer rule refused the futures action itself."""
    guards = {verdict.guard for verdict in why.verdicts if not verdict.passed}
    return isinstance(why, UnsendableTransaction | ExitRefused) or (
        bool(guards) and guards <= FUTURES_SIGNER_RULES
    )


def skip_refused_action(run: StepRun, outcome: StepOutcome, refusal: Refused) -> bool:
    """For the rest of the step, skip a deposit, order or hedge that simulation, token or signer
    refused, after smaller parts of an order; other markets and spot continue. If the agent's key may not trade, skip all futures.
    Return False for any other refusal, and for the owner's requests.
    """
    own = run.layer(FuturesRun)
    plan, decision = outcome.plan, outcome.decision
    if plan is None or (futures := planned_futures(plan)) is None:
        return False
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    if refusal.code is ErrorCode.AGENT_KEY and not by_owner and not own.held:
        own.held = f"futures: {refusal}"
        _refuse_order(run, outcome, refusal)
        return True
    name = failures.exit_name(plan)
    if futures.trigger == HEDGE_MARGIN:
        name = MARGIN
    elif futures.orders and not futures.account_actions:
        name = futures.orders[0].market
    if by_owner or not name or name in own.refused_markets or not concerns_futures(refusal):
        return False
    if (parts := _next_parts(run, outcome, refusal)) > 1:
        is_first, own.order_parts[name] = name not in own.order_parts, parts
        if is_first and not futures.is_reducing:
            _refuse_order(run, outcome, refusal)  # a part of an opening may not be worth its cost
            return True
        run.close(replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal)))
        run.begin_plan()
        return True
    own.refused_markets[name] = outcome.step_input.snapshot.head.timestamp_s
    _refuse_order(run, outcome, refusal)
    return True


def _refuse_order(run: StepRun, outcome: StepOutcome, refusal: Refused) -> None:
    """Record the refusal of a futures action, and begin the next plan."""
    own = run.layer(FuturesRun)
    refused = replace(
        outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), verdicts=refusal.verdicts
    )
    own.refused_orders.append(run.close(refused))
    run.begin_plan()


def _next_parts(run: StepRun, outcome: StepOutcome, refusal: Refused) -> int:
    """Return the next divisor of an order whose simulation reverted, because a thin pool may
    fill a smaller order; zero for any other refusal, and after the largest divisor. An off-chain
    venue makes partial fills itself.
    """
    own = run.layer(FuturesRun)
    futures = futures_plan(outcome)
    account = margin_account(outcome.step_input.snapshot)
    if futures is None or account is None or not account.is_on_chain:
        return 0
    first = futures.actions[0]
    if not isinstance(refusal, UnsendableTransaction) or not isinstance(first, PerpOrder):
        return 0
    parts = own.order_parts.get(first.market, 1) * FEWER
    return parts if parts <= MOST_PARTS else 0


def leave_failed_market(run: StepRun, outcome: StepOutcome, plan: Plan) -> bool:
    """Skip the market of a reverted reduction for the rest of the step, so that an attacker who
    makes one order revert cannot delay the others. Return False for any other order, for the
    owner's requests, and while the order is not settled.
    """
    own = run.layer(FuturesRun)
    decision, newest = outcome.decision, run.sent[-1]
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    name = failures.exit_name(plan)
    if newest.receipt is None or by_owner or name in ("", MARGIN):
        return False
    if own.orders >= MAX_ORDERS or name in own.refused_markets:
        return False
    own.refused_orders.append(outcome)
    own.refused_markets[name] = outcome.step_input.snapshot.head.timestamp_s
    run.begin_plan()
    return True


def comparisons(outcome: StepOutcome) -> tuple[HedgeComparison, ...]:
    """Return the comparisons of sale and hedge: first those of opened hedges, then the plan's for
    other assets.
    """
    hedged = part_of(outcome.layers, FuturesOutcome).hedged
    opened = {comparison.token for comparison in hedged}
    planned = () if outcome.plan is None else outcome.plan.layer(HedgeChoices).comparisons
    return (*hedged, *(comparison for comparison in planned if comparison.token not in opened))


def futures_plan(outcome: StepOutcome) -> FuturesPlan | None:
    """Return the plan's actions on futures; None without any."""
    return None if outcome.plan is None else planned_futures(outcome.plan)
