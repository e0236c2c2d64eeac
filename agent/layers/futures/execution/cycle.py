"""What a cycle has done with futures, and what it leaves out after a refusal: a deposit, an order
or a hedge that was refused just before sending, while other markets and spot continue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.errors import ErrorCode, Refused, UnsendableTransaction
from agent.execution.evaluation import ExitRefused
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepResult, note_of
from agent.layers.futures.notes import futures_action_note
from agent.layers.futures.planning.plans import HEDGE_MARGIN
from agent.layers.futures.state import FuturesCycle, margin_account, planned_futures
from agent.model import (
    MARGIN_PLACE,
    AdjustFutures,
    Cycle,
    FuturesPlan,
    HedgeChoices,
    HedgeComparison,
    Intent,
    LayerPart,
    PerpOrder,
    Plan,
    part_of,
    with_part,
)
from agent.policy import failures

MAX_ACTIONS = 12
"""Maximum futures actions of a cycle, each with a plan of its own."""
DIVISOR_STEP = 4
MAX_DIVISOR = 64
"""Each refused simulation multiplies the divisor of an order by DIVISOR_STEP, up to MAX_DIVISOR in
a cycle.
"""
FUTURES_SIGNER_RULES = frozenset(
    f"signer.{rule}"
    for rule in (
        "action",
        "amount",
        "approval",
        "approval_amount",
        "bound",
        "client_order_id",
        "contract",
        "emergency",
        "index_age",
        "leverage",
        "market",
        "order",
        "reduce_only",
        "size",
        "spender",
        "tokens",
        "trader",
        "trigger",
    )
)
"""Signer rules that judge the futures action itself, as opposed to nonce, fees, chain, time or
kind.
"""


@dataclass(frozen=True, slots=True)
class FuturesOutcome(LayerPart):
    """What a whole cycle did with futures."""

    hedge_comparisons: tuple[HedgeComparison, ...] = ()
    """For each opened hedge, the comparison of its cost with that of a sale."""


def completed_outcome(
    cycle: Cycle, outcome: StepOutcome, outcome_of: Callable[[str], StepOutcome]
) -> StepOutcome:
    """Return the outcome with ended orders and opened hedges, and with deposits and orders that
    were refused before sending, or reverted. A cycle that did nothing else is refused; a cycle with
    a reverted order has failed.
    """
    futures_cycle = cycle.layer(FuturesCycle)
    reason = "; ".join([*dict(futures_cycle.ended_order_notes).values(), outcome.reason])
    layers = with_part(outcome.layers, FuturesOutcome(futures_cycle.hedge_comparisons))
    outcome = replace(outcome, layers=layers, reason=reason)
    if not futures_cycle.refused_action_notes:
        return outcome
    refusal_reasons = dict.fromkeys(note.reason for note in futures_cycle.refused_action_notes)
    outcome = replace(outcome, reason="; ".join([outcome.reason, *refusal_reasons]))
    has_reverted = any(note.failed for note in futures_cycle.refused_action_notes)
    if has_reverted and outcome.kind in (OutcomeKind.HOLD, OutcomeKind.HALT, OutcomeKind.DONE):
        return replace(outcome, kind=OutcomeKind.FAILED)
    if outcome.kind is OutcomeKind.HOLD:
        verdicts = outcome_of(futures_cycle.refused_action_notes[-1].step_id).refusal_verdicts
        return replace(outcome, kind=OutcomeKind.REFUSED, refusal_verdicts=verdicts)
    return outcome


def concerns_futures(refusal: Refused) -> bool:
    """True if the simulation, the token or a signer rule refused the futures action itself."""
    return isinstance(refusal, UnsendableTransaction | ExitRefused) or (
        bool(refusal.guards) and {*refusal.guards} <= FUTURES_SIGNER_RULES
    )


def skip_refused_action(cycle: Cycle, outcome: StepOutcome, refusal: Refused) -> StepResult | None:
    """For the rest of the cycle, skip a deposit, order or hedge that simulation, token or signer
    refused, after smaller parts of an order; other markets and spot continue. If the agent's key
    may not trade, skip all futures. Return None for any other refusal, and for the owner's
    requests.
    """
    futures_cycle = cycle.layer(FuturesCycle)
    plan = outcome.plan
    decision = outcome.decision
    if plan is None or (layer_plan := planned_futures(plan)) is None:
        return None
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    if refusal.code is ErrorCode.AGENT_KEY and not by_owner and not futures_cycle.hold_reason:
        return _note_refusal(
            cycle, replace(futures_cycle, hold_reason=f"futures: {refusal}"), outcome, refusal
        )
    failure_key = failures.exit_name(plan)
    if layer_plan.trigger == HEDGE_MARGIN:
        failure_key = MARGIN_PLACE
    elif layer_plan.orders and not layer_plan.account_actions:
        failure_key = layer_plan.orders[0].market
    refused_s_by_key = dict(futures_cycle.refused_s_by_market)
    divisor_by_market = dict(futures_cycle.order_divisors)
    if (
        by_owner
        or not failure_key
        or failure_key in refused_s_by_key
        or not concerns_futures(refusal)
    ):
        return None
    if (divisor := _next_divisor(futures_cycle, outcome, refusal)) > 1:
        is_first_divisor = failure_key not in divisor_by_market
        futures_cycle = replace(
            futures_cycle,
            order_divisors=tuple((divisor_by_market | {failure_key: divisor}).items()),
        )
        if is_first_divisor and not layer_plan.is_reducing:
            # a part of an opening may not be worth its cost
            return _note_refusal(cycle, futures_cycle, outcome, refusal)
        refused_outcome = replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal))
        return StepResult(cycle.with_layer(futures_cycle).begin_plan(), refused_outcome)
    refused_s_by_key[failure_key] = outcome.step_input.snapshot.head.timestamp_s
    futures_cycle = replace(futures_cycle, refused_s_by_market=tuple(refused_s_by_key.items()))
    return _note_refusal(cycle, futures_cycle, outcome, refusal)


def _note_refusal(
    cycle: Cycle, futures_cycle: FuturesCycle, outcome: StepOutcome, refusal: Refused
) -> StepResult:
    """Note the refusal of a futures action, and begin the next plan."""
    refused_outcome = replace(
        outcome, kind=OutcomeKind.REFUSED, reason=str(refusal), refusal_verdicts=refusal.verdicts
    )
    futures_cycle = replace(
        futures_cycle,
        refused_action_notes=(*futures_cycle.refused_action_notes, note_of(refused_outcome)),
    )
    return StepResult(cycle.with_layer(futures_cycle).begin_plan(), refused_outcome)


def _next_divisor(futures_cycle: FuturesCycle, outcome: StepOutcome, refusal: Refused) -> int:
    """Return the next divisor of an order whose simulation reverted, because a thin pool may
    fill a smaller order; zero for any other refusal, and after the largest divisor. An off-chain
    venue makes partial fills itself.
    """
    layer_plan = futures_plan_of(outcome)
    account = margin_account(outcome.step_input.snapshot)
    if layer_plan is None or account is None or not account.is_on_chain:
        return 0
    action = layer_plan.actions[0]
    if not isinstance(refusal, UnsendableTransaction) or not isinstance(action, PerpOrder):
        return 0
    divisor = dict(futures_cycle.order_divisors).get(action.market, 1) * DIVISOR_STEP
    return divisor if divisor <= MAX_DIVISOR else 0


def skip_failed_market(
    futures_cycle: FuturesCycle, outcome: StepOutcome, plan: Plan, intent: Intent
) -> FuturesCycle | None:
    """Skip the market of a reverted reduction for the rest of the cycle, so that an attacker who
    makes one order revert cannot delay the others. Return None for any other order, for the
    owner's requests, and while the order is not settled.
    """
    decision = outcome.decision
    by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
    failure_key = failures.exit_name(plan)
    refused_s_by_key = dict(futures_cycle.refused_s_by_market)
    if intent.receipt is None or by_owner or failure_key in ("", MARGIN_PLACE):
        return None
    if futures_cycle.action_count >= MAX_ACTIONS or failure_key in refused_s_by_key:
        return None
    refused_s_by_key[failure_key] = outcome.step_input.snapshot.head.timestamp_s
    return replace(
        futures_cycle,
        refused_action_notes=(*futures_cycle.refused_action_notes, note_of(outcome, failed=True)),
        refused_s_by_market=tuple(refused_s_by_key.items()),
    )


def skip_failed_orders(
    futures_cycle: FuturesCycle, outcome: StepOutcome, failed_intents: Sequence[Intent]
) -> FuturesCycle:
    """Skip the markets of orders that failed in an action with others, for the rest of the
    cycle.
    """
    now_s = outcome.step_input.snapshot.head.timestamp_s
    refused_s_by_key = dict(futures_cycle.refused_s_by_market)
    notes = list(futures_cycle.refused_action_notes)
    for market in sent_markets(outcome, failed_intents):
        refused_s_by_key[market] = now_s
    for intent in failed_intents:
        failed_outcome = replace(outcome, reason=f'"{intent.note}" was not filled')
        notes.append(note_of(failed_outcome, failed=True))
    return replace(
        futures_cycle,
        refused_s_by_market=tuple(refused_s_by_key.items()),
        refused_action_notes=tuple(notes),
    )


def sent_markets(outcome: StepOutcome, intents: Sequence[Intent]) -> list[str]:
    """Return the markets of the plan's orders that these intents carry out. An order that was left
    out of their action has none.
    """
    sent_notes = {intent.note for intent in intents}
    layer_plan = futures_plan_of(outcome)
    return [
        order.market
        for order in (() if layer_plan is None else layer_plan.orders)
        if futures_action_note(outcome.step_input, order) in sent_notes
    ]


def hedge_comparisons_of(outcome: StepOutcome) -> tuple[HedgeComparison, ...]:
    """Return the comparisons of sale and hedge: first those of opened hedges, then the plan's for
    other assets.
    """
    hedge_comparisons = part_of(outcome.layers, FuturesOutcome).hedge_comparisons
    hedged_tokens = {comparison.token for comparison in hedge_comparisons}
    plan_comparisons = () if outcome.plan is None else outcome.plan.layer(HedgeChoices).comparisons
    return (
        *hedge_comparisons,
        *(comparison for comparison in plan_comparisons if comparison.token not in hedged_tokens),
    )


def futures_plan_of(outcome: StepOutcome) -> FuturesPlan | None:
    """Return the plan's actions on futures; None without any."""
    return None if outcome.plan is None else planned_futures(outcome.plan)
