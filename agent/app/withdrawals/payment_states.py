"""How far the payments of a withdrawal are, as the journal has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.model import Intent, IntentKind, IntentState, OwnerRequest, Payment, Payout
from agent.store import Store
from agent.store.journal.intents import IntentStore
from agent.units import NATIVE


def paid_hashes(request: OwnerRequest, payouts: Iterable[tuple[Intent, Payout]]) -> tuple[str, ...]:
    """Return, for each payment of a withdrawal, the transaction of `payouts` that paid it; "" for an
    unpaid one.
    """
    paid_payouts = [
        (payout, str(intent.tx_hash))
        for intent, payout in payouts
        if intent.succeeded and payout.request_id == request.id
    ]
    return tuple(
        next((tx_hash for payout, tx_hash in paid_payouts if is_paid_by(payment, payout)), "")
        for payment in request.payments
    )


END_TEXTS = {
    "rejected": "was rejected by the owners",
    "expired": "has expired",
    "replaced": "was replaced",
    "cancelled": "was cancelled",
    "failed": "has failed",
}
"""What became of a payment that will not be made, by its state."""


RELEASE_CONDITION = ", after trimtab cancel --send if enough owners of a Safe have signed it"
"""What a release needs while an unpaid payment could be executed."""


def given_up_text(store: Store, request: OwnerRequest) -> str:
    """Return what became of the payments of an open withdrawal that will not be made; "" for none."""
    states = payment_states(store, request, store.requests.payouts(request.id))
    end_texts = [END_TEXTS[state] for state in dict.fromkeys(states) if state in END_TEXTS]
    if not end_texts:
        return ""
    return (
        f"the earlier payment {' or '.join(end_texts)}; trimtab withdraw --release {request.id}"
        f" returns it to the portfolio{RELEASE_CONDITION}"
    )


def payment_states(
    store: Store, request: OwnerRequest, payouts: Sequence[tuple[Intent, Payout]]
) -> tuple[str, ...]:
    """Return the state of each payment of a withdrawal, as in RequestedPaymentDocument."""
    states = []
    for payment, tx_hash in zip(request.payments, paid_hashes(request, payouts), strict=True):
        intents = [
            intent
            for intent, payout in payouts
            if payout.request_id == request.id and is_paid_by(payment, payout)
        ]
        unpaid_state = _unpaid_state(store, intents[-1]) if intents else "unpaid"
        states.append("paid" if tx_hash else unpaid_state)
    return tuple(states)


def _unpaid_state(store: Store, intent: Intent) -> str:
    """Return how far the newest transaction of an unpaid payment is."""
    is_proposed = intent.id in store.proposals.proposal_blocks()
    match intent.state:
        case IntentState.PLANNED if is_proposed:
            return "proposed"
        case IntentState.REVERTED:
            return "failed"
        case IntentState.REPLACED:
            return "replaced"
        case IntentState.CANCELLED if is_proposed:
            return _end_of_proposal(store.journal, intent)
        case IntentState.CANCELLED:
            return "cancelled"
    return "pending"


def _end_of_proposal(journal: IntentStore, intent: Intent) -> str:
    peers = journal.intents_at(intent.tx.nonce)
    if any(peer.kind is IntentKind.CANCEL and peer.succeeded for peer in peers):
        return "rejected"
    if (journal.expected_nonce() or 0) > intent.tx.nonce:
        return "replaced"
    ended_s = max(transition.at_s for transition in journal.transitions(intent.id))
    is_expired = intent.deadline_s is not None and ended_s >= intent.deadline_s
    return "expired" if is_expired else "cancelled"


def is_paid_by(payment: Payment, payout: Payout) -> bool:
    """Return whether a payout is of this payment's token and amount."""
    token = NATIVE if payment.native else payment.token
    return (token, payment.raw) == (payout.token, payout.raw)
