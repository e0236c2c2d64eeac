"""Composes futures actions: transactions at a venue on the chain, signed messages at another."""

from __future__ import annotations

from dataclasses import replace

from agent.chain import tokens
from agent.errors import Refused, Retryable
from agent.layers.futures.notes import futures_action_note
from agent.layers.futures.planning.plans import action_gas
from agent.layers.futures.planning.requests import require_account
from agent.layers.futures.policy.needs import uses_reduction_budget
from agent.layers.futures.policy.plans import (
    emergency_gas_per_day_wei,
    emergency_gas_price_limit_wei,
)
from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.model import (
    UNREAD_ACCOUNT,
    DelegateChange,
    FuturesAction,
    FuturesGrant,
    FuturesPlan,
    Head,
    IntentKind,
    MarginAccount,
    MarginDeposit,
    PerpOrder,
    Plan,
    StepInput,
    UnsignedTx,
)
from agent.ports import Approval, Grant, PreparedTransaction
from agent.ports.perpetuals import OrderVenue, PerpActionDraft, PerpVenue
from agent.venues.allowances import build_approval
from agent.venues.drafts import EmergencyLimits, TxDraft
from agent.venues.perpetual_protocol import explain_revert


class FuturesComposer:
    """Implements LayerComposer for a futures `venue` (None: no futures)."""

    def __init__(self, venue: PerpVenue | None) -> None:
        self._venue = venue

    def composes(self, plan: Plan) -> bool:
        """See LayerComposer."""
        return planned_futures(plan) is not None

    def missing_approvals(self, step: StepInput, plan: Plan) -> list[Approval]:
        """See LayerComposer. Only deposits need one."""
        account = margin_account(step.snapshot)
        policy = futures_policy(step)
        action = plan.layer(FuturesPlan).actions[0]
        if account is None or policy is None or not isinstance(action, MarginDeposit):
            return []
        spend_raw_by_token = {policy.collateral: action.raw}
        layer_grant = FuturesGrant(action, account)
        return [
            replace(
                build_approval(step, token, policy.vault, approval_raw), layer_grant=layer_grant
            )
            for token, approval_raw in tokens.missing_approvals(
                spend_raw_by_token, step.snapshot, policy.vault
            )
        ]

    @staticmethod
    def _require_fill(venue: PerpVenue, account: MarginAccount, order: PerpOrder) -> None:
        """Raise Refused if the book has nothing for an order. A reduction goes without a book that
        cannot be read: its bound holds at the venue.
        """
        try:
            venue.quote(account, order)
        except Retryable:
            if not order.is_reduce_only:
                raise

    def compose(self, step: StepInput, plan: Plan, head: Head) -> TxDraft | PreparedTransaction:
        """See LayerComposer. An order for an off-chain venue is quoted first, and has no gas and
        the venue's nonce.
        """
        futures_plan = plan.layer(FuturesPlan)
        policy = futures_policy(step)
        account = margin_account(step.snapshot)
        action = futures_plan.actions[0]
        if isinstance(action, DelegateChange) and not action.is_allowed:
            account = account or UNREAD_ACCOUNT
        if self._venue is None:
            raise Refused("no futures venue is configured", remedy="see [futures]")
        if account is None:
            account = require_account(step.snapshot, policy)
        draft = self._venue.draft(account, action, head.timestamp_s)
        layer_grant = FuturesGrant(
            action,
            account,
            futures_plan.is_emergency,
            futures_plan.hedges,
            () if policy is None else policy.hedges,
            uses_reduction_budget(plan),
            futures_plan.set_goals,
        )
        note = futures_action_note(step, action)
        if draft.nonce is None:
            emergency_limits = None
            if policy is not None and futures_plan.is_emergency:
                emergency_limits = EmergencyLimits(
                    emergency_gas_price_limit_wei(policy.limits, step.limits),
                    emergency_gas_per_day_wei(policy.limits, step.limits),
                )
            return TxDraft(
                draft.to,
                draft.data,
                IntentKind.FUTURES,
                note,
                deadline_s=draft.deadline_s,
                layer_grant=layer_grant,
                min_gas_units=action_gas(action),
                emergency_limits=emergency_limits,
                explain_failure=explain_revert,
            )
        if isinstance(action, PerpOrder) and not action.kind.can_rest:
            self._require_fill(self._venue, account, action)
        return replace(
            _prepared_order(step, draft, layer_grant, head),
            companions=self._companions(step, futures_plan, account, draft, layer_grant, head),
        )

    def _companions(
        self,
        step: StepInput,
        plan: FuturesPlan,
        account: MarginAccount,
        first_draft: PerpActionDraft,
        layer_grant: FuturesGrant,
        head: Head,
    ) -> tuple[PreparedTransaction, ...]:
        """Return the further reductions of a plan, which one action sends together with the first,
        because the venue allows few requests a minute. One that is not possible now is left out.
        Beside hedges orders go one by one, each with what it leaves of them.
        """
        venue = self._venue
        if not isinstance(venue, OrderVenue):
            return ()
        if layer_grant.hedges or layer_grant.hedges_before:
            return ()
        if not all(_may_be_batched(action) for action in plan.actions):
            return ()
        companions: list[PreparedTransaction] = []
        for number, order in enumerate(plan.orders[1:], start=1):
            try:
                self._require_fill(venue, account, order)
                draft = venue.draft_companion(account, order, first_draft, number)
            except Refused:
                continue
            grant = replace(layer_grant, action=order)
            companions.append(_prepared_order(step, draft, grant, head))
        return tuple(companions)


def _may_be_batched(action: FuturesAction) -> bool:
    return isinstance(action, PerpOrder) and action.is_reduce_only and not action.kind.can_rest


def _prepared_order(
    step: StepInput, draft: PerpActionDraft, layer_grant: FuturesGrant, head: Head
) -> PreparedTransaction:
    """Return an order for an off-chain venue, which has no gas and the venue's nonce."""
    tx = UnsignedTx(
        chain_id=step.snapshot.head.chain_id,
        nonce=draft.nonce or 0,
        to=draft.to,
        value_wei=0,
        data=draft.data,
        gas=0,
        max_fee_wei=None,
        max_priority_fee_wei=None,
        gas_price_wei=None,
    )
    grant = Grant(
        IntentKind.FUTURES,
        now_s=head.timestamp_s,
        deadline_s=draft.deadline_s,
        max_gas_wei=0,
        layer_grant=layer_grant,
    )
    return PreparedTransaction(tx, grant, futures_action_note(step, layer_grant.action))
