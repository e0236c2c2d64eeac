"""Payments of a withdrawal as the chain has them: settled, in which transactions, still possible."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from agent import wiring
from agent.app.cycles import Progress, never_confirm
from agent.app.money.repeated_withdrawals import paid_in_text
from agent.app.withdrawals.payment_states import is_paid_by, paid_hashes
from agent.errors import ErrorCode, Refused, Retryable
from agent.execution.executor import AwaitingExternalSignature, ProposingExecutor
from agent.execution.submission.proposal_words import WITHDRAWAL_ADVICE, execution_period
from agent.model import (
    Intent,
    IntentState,
    OwnerRequest,
    Payment,
    Payout,
    RequestState,
)
from agent.ports import Executor
from agent.store import Store
from agent.store.files.locks import LockHeld
from agent.wiring import AgentContext

UNMINED_STATES = (IntentState.PLANNED, IntentState.SIGNED, IntentState.BROADCAST)
"""States in which a payment may still be mined. A planned one may have been shown to an external
signer.
"""


def settle_payments(context: AgentContext, withdrawal_id: int, progress: Progress) -> None:
    """Settle the payments of a withdrawal that may be mined by now, and end it if all are final. Sends
    nothing. Raises AwaitingExternalSignature while one awaits its signature, else like
    Executor.reconcile.
    """
    payouts = context.store.requests.payouts(withdrawal_id)
    if any(intent.state in UNMINED_STATES for intent, _ in payouts):
        with wiring.open_transactor(context, never_confirm, progress, signs=False) as transactor:
            transactor.executor.reconcile(may_send=False)
    context.store.requests.end_paid_withdrawals(context.clock.now_s())


def is_final(context: AgentContext, withdrawal_id: int, progress: Progress) -> bool:
    """Return whether the payments of a withdrawal, which are all in a block, are final, and end it
    then. A process that holds the wallet's lock settles them itself.
    """
    with (
        suppress(LockHeld, AwaitingExternalSignature),
        wiring.open_transactor(context, never_confirm, progress, signs=False) as transactor,
    ):
        transactor.executor.reconcile(may_send=False)
    requests = context.store.requests
    requests.end_paid_withdrawals(context.clock.now_s())
    return withdrawal_id not in {request.id for request in requests.newest(1_000, open_only=True)}


def recorded_s(store: Store, payouts: Iterable[tuple[Intent, Payout]]) -> int | None:
    """Return when the newest successful payout was recorded in a block, Unix seconds; None without
    one.
    """
    return max(
        (
            transition.at_s
            for intent, _ in payouts
            for transition in store.journal.transitions(intent.id)
            if intent.succeeded and transition.new_state is IntentState.MINED
        ),
        default=None,
    )


def paid_of_released(
    store: Store, requests: Iterable[OwnerRequest], since_s: int
) -> dict[int, tuple[Payment, ...]]:
    """Return the payments of released withdrawals that are in a block since `since_s`, Unix seconds,
    by number of the withdrawal.
    """
    released_requests = {
        request.id: request for request in requests if request.state is RequestState.RELEASED
    }
    paid_by_id: dict[int, tuple[Payment, ...]] = {}
    for intent, payout in store.requests.payouts() if released_requests else ():
        request = released_requests.get(payout.request_id)
        if request is None or not intent.succeeded:
            continue
        if max(transition.at_s for transition in store.journal.transitions(intent.id)) >= since_s:
            payments = (payment for payment in request.payments if is_paid_by(payment, payout))
            paid_by_id[request.id] = (*paid_by_id.get(request.id, ()), *payments)
    return paid_by_id


def require_releasable(executor: Executor, store: Store, request: OwnerRequest) -> None:
    """Raise Refused for a withdrawal that is paid, Retryable while one of its payments may be mined."""
    payouts = store.requests.payouts(request.id)
    for intent, _ in payouts:
        if possible_text := _possible_text(executor, store, intent):
            remedy = "trimtab reconcile, then release the unpaid part"
            if isinstance(executor, ProposingExecutor):
                remedy = (
                    f"{WITHDRAWAL_ADVICE}; then, once a rejection is executed, trimtab withdraw"
                    f" --release {request.id}"
                )
            raise Retryable(
                f'"{intent.note}" {possible_text}', remedy, code=ErrorCode.OPEN_TRANSACTION
            )
    hashes = paid_hashes(request, payouts)
    if hashes and all(hashes):
        raise Refused(
            f"withdrawal {request.id} is paid{paid_in_text(hashes)}, and nothing of it can"
            " return to the portfolio",
            remedy="see trimtab withdraw",
            code=ErrorCode.NOT_OPEN,
        )


def _possible_text(executor: Executor, store: Store, intent: Intent) -> str:
    """Return why a payment may still be mined; "" if it cannot."""
    if intent.state in UNMINED_STATES:
        return "is pending"
    if not isinstance(executor, ProposingExecutor):
        return ""
    signatures_text = executor.executable_signatures(intent)
    if not signatures_text:
        return ""
    period_text = execution_period(intent, store.journal.grant(intent.id))
    return f"has {signatures_text}: whoever has them can execute it {period_text}"
