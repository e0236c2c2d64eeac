"""Trades that the owners of a Safe have rejected, to name one that is proposed again."""

from __future__ import annotations

from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.store.journal.intents import IntentStore
from agent.units import format_time


def rejected_before(journal: IntentStore, tx: UnsignedTx, grant: Grant) -> str:
    """Return "like the one rejected at TIME (nonce N)" for the newest same trade or call that the
    owners have rejected; "" if there is none, or if it was executed since.
    """
    for peer in journal.intents():
        if peer.kind is not grant.kind:
            continue
        if _subject(peer.tx, journal.grant(peer.id)) != _subject(tx, grant):
            continue
        if peer.succeeded:
            return ""
        for rejection in journal.intents_at(peer.tx.nonce):
            if rejection.kind is IntentKind.CANCEL and rejection.succeeded:
                receipt = rejection.receipt
                rejected_s = (receipt and receipt.block_time_s) or rejection.created_s
                return f"like the one rejected at {format_time(rejected_s)} (nonce {peer.tx.nonce})"
    return ""


def _subject(tx: UnsignedTx, grant: Grant) -> object:
    """Return by what owners take two calls for the same: the pairs that a plan swaps, token and
    spender of an approval, else the call itself. Amounts follow the prices.
    """
    if grant.plan is not None:
        return {(leg.token_in, leg.token_out) for leg in grant.plan.legs}
    if grant.approval_terms is not None:
        return grant.approval_terms[:2]
    return tx.to, tx.value_wei, tx.data
