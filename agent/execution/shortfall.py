"""Tokens that a mined transaction brought less of than the plan's minimums, although it
succeeded.
"""

from __future__ import annotations

from dataclasses import replace

from agent import codec
from agent.execution.settlement import originating_step
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import WAITING_OUTCOME
from agent.model import (
    Intent,
    IntentKind,
    Plan,
    Portfolio,
    Receipt,
    Snapshot,
    decision_name,
    wallet_changes,
)
from agent.store.store import Store
from agent.units import NATIVE, decimal_text, format_time


def with_shortfall(
    outcome: StepOutcome, intent: Intent, snapshot_after: Snapshot | None
) -> StepOutcome:
    """Return a failed outcome that names the tokens that changed by less than the plan's minimums,
    although the transaction succeeded; the outcome itself if there are none.
    """
    plan = outcome.plan
    snapshot_before = outcome.step_input.snapshot
    if plan is None or intent.receipt is None or plan.acts_in_layer:
        return outcome
    if not (
        shortfalls := shortfalls_by_token(plan, intent.receipt, snapshot_before, snapshot_after)
    ):
        return outcome
    reason = _shortfall_reason(outcome.step_input.portfolio, shortfalls)
    return replace(
        outcome, kind=OutcomeKind.FAILED, reason=reason, shortfall_tokens=tuple(shortfalls)
    )


def end_interrupted_steps(store: Store) -> None:
    """Record the outcome of each step that a crash or an error interrupted, or that proposed, and whose
    transaction succeeded: failed if it brought less than the plan's minimums by the receipt's events, else
    done. Balances are not compared, because they may have changed since.
    """
    proposed_ids = store.proposals.proposal_blocks()
    for intent in store.journal.successful_trades("", "error", WAITING_OUTCOME):
        if (step := originating_step(store.steps, intent)) is None:
            continue
        outcome_kind = OutcomeKind.DONE
        reason = "the transaction was mined after the step was interrupted"
        if intent.id in proposed_ids:
            reason = execution_reason(store, intent)
        if shortfalls := shortfall_by_receipt(store, intent):
            outcome_kind = OutcomeKind.FAILED
            reason = _shortfall_reason(step.portfolio, shortfalls)
        plan = store.journal.grant(intent.id).plan
        plan_decision = "" if plan is None else decision_name(type(plan.decision))
        store.steps.end(intent.step_id, plan_decision, reason, plan, outcome_kind.value)


def proposed_plan(store: Store, intent: Intent) -> Plan | None:
    """Return the plan of a proposal, or that which an approval is for; None without a plan."""
    grant = store.journal.grant(intent.id)
    if grant.plan is not None or grant.approval_terms is None or not grant.approval_terms[2]:
        return grant.plan
    step = store.steps.get(intent.step_id)
    return None if step is None or step.plan_json is None else codec.loads(Plan, step.plan_json)


def proposal_reason(store: Store, intent: Intent) -> str:
    """Return why the plan of a proposal trades, or that which an approval is for; "" without a plan."""
    plan = proposed_plan(store, intent)
    return "" if plan is None else plan.decision.reason


def execution_reason(store: Store, proposal: Intent) -> str:
    """Return the reason of a step whose proposal its owners executed, also in place of its rejection."""
    receipt = proposal.receipt
    time_text = (
        f" at {format_time(receipt.block_time_s)}" if receipt and receipt.block_time_s else ""
    )
    rejection_ids = [
        peer.id
        for peer in store.journal.intents_at(proposal.tx.nonce)
        if peer.kind is IntentKind.CANCEL and peer.id != proposal.id
    ]
    rejected_text = (
        f", although its rejection {rejection_ids[-1]} was proposed" if rejection_ids else ""
    )
    return (
        f'executed in {proposal.tx_hash}{time_text}: the proposal {proposal.id} ("{proposal.note}")'
        f"{rejected_text}"
    )


def shortfall_by_receipt(store: Store, intent: Intent) -> dict[str, tuple[int, int]]:
    """Return `shortfalls_by_token` of a mined transaction of the journal, by its receipt's events;
    empty if its step is unreadable.
    """
    step = originating_step(store.steps, intent)
    grant = store.journal.grant(intent.id)
    if step is None or intent.receipt is None:
        return {}
    if grant.plan is not None:
        return shortfalls_by_token(grant.plan, intent.receipt, step.snapshot, None)
    least_raw_by_token = {} if grant.layer_action is None else grant.layer_action.min_received_raw
    return _changes_below_least(least_raw_by_token, intent.receipt, step.snapshot, None)


def _shortfall_reason(portfolio: Portfolio, shortfalls: dict[str, tuple[int, int]]) -> str:
    sentences = []
    for token, (change_raw, least_raw) in shortfalls.items():
        token_info = portfolio.token(token)
        change_text, least_text = (
            decimal_text(amount_raw, token_info.decimals) for amount_raw in (change_raw, least_raw)
        )
        sentences.append(
            f"the wallet's {token_info.label} changed by {change_text}, at least {least_text} was due"
        )
    return (
        f"{'; '.join(sentences)}: the token keeps a part of its transfers, or left the wallet"
        " meanwhile. The difference counts in daily_loss; the token is tested before its next trade"
    )


def shortfalls_by_token(
    plan: Plan, receipt: Receipt, snapshot_before: Snapshot, snapshot_after: Snapshot | None
) -> dict[str, tuple[int, int]]:
    """Return the tokens whose balance in the wallet changed by less than the plan's minimums allow,
    each with the change and the least change, in base units. The smaller change counts: by the
    receipt's events, or by the balances of both snapshots (None: not read). Fees and gas of native
    coin are not compared.

    A token can keep a part of the router's transfer to the wallet, which no minimum of SwapRouter02
    covers.
    """
    if plan.layer_actions:
        least_raw_by_token = plan.layer_actions[0].min_received_raw
    else:
        least_raw_by_token = wallet_changes(
            [replace(leg, amount_out_raw=leg.min_out_raw) for leg in plan.legs]
        )
        least_raw_by_token.pop(NATIVE, None)
    return _changes_below_least(least_raw_by_token, receipt, snapshot_before, snapshot_after)


def _changes_below_least(
    least_raw_by_token: dict[str, int],
    receipt: Receipt,
    snapshot_before: Snapshot,
    snapshot_after: Snapshot | None,
) -> dict[str, tuple[int, int]]:
    event_change_by_token = receipt.net_transfers(snapshot_before.owner)
    raw_before_by_token = {holding.token: holding.raw for holding in snapshot_before.holdings}
    raw_after_by_token = (
        {}
        if snapshot_after is None
        else {holding.token: holding.raw for holding in snapshot_after.holdings}
    )
    change_by_token = {token: event_change_by_token.get(token, 0) for token in least_raw_by_token}
    for token in least_raw_by_token.keys() & raw_before_by_token.keys() & raw_after_by_token.keys():
        change_by_token[token] = min(
            change_by_token[token], raw_after_by_token[token] - raw_before_by_token[token]
        )
    return {
        token: (change_by_token[token], least_raw)
        for token, least_raw in least_raw_by_token.items()
        if change_by_token[token] < least_raw
    }
