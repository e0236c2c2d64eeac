"""Trades that the owners of a Safe have rejected, to name one that is proposed again."""

from __future__ import annotations

from collections import Counter

from agent.model import IntentKind, UnsignedTx
from agent.ports import Grant
from agent.store.journal.intents import IntentStore
from agent.units import format_time

NEARLY_SAME = 10
"""Amounts that differ by at most a tenth of the larger one are nearly the same."""


def rejected_before(journal: IntentStore, tx: UnsignedTx, grant: Grant) -> str:
    """Return "like the one rejected at TIME (nonce N)" for the newest trade or call like it that the
    owners have rejected; "" if there is none, or if it was executed since.
    """
    for peer in journal.intents():
        if peer.kind is not grant.kind:
            continue
        if not _is_like(peer.tx, journal.grant(peer.id), tx, grant):
            continue
        if peer.succeeded:
            return ""
        for rejection in journal.intents_at(peer.tx.nonce):
            if rejection.kind is IntentKind.CANCEL and rejection.succeeded:
                receipt = rejection.receipt
                rejected_s = (receipt and receipt.block_time_s) or rejection.created_s
                return f"like the one rejected at {format_time(rejected_s)} (nonce {peer.tx.nonce})"
    return ""


def _is_like(peer_tx: UnsignedTx, peer_grant: Grant, tx: UnsignedTx, grant: Grant) -> bool:
    """Return whether owners take two calls for the same: equal subjects, and nearly the same amounts."""
    subject, raw_by_part = _subject_and_amounts(tx, grant)
    peer_subject, peer_raw_by_part = _subject_and_amounts(peer_tx, peer_grant)
    if peer_subject != subject or peer_raw_by_part.keys() != raw_by_part.keys():
        return False
    return all(
        abs(raw - peer_raw_by_part[part]) * NEARLY_SAME <= max(raw, peer_raw_by_part[part])
        for part, raw in raw_by_part.items()
    )


def _subject_and_amounts(tx: UnsignedTx, grant: Grant) -> tuple[object, Counter[object]]:
    """Return what is equal in calls that are alike, and the base units of each part: whether a plan is
    an exit, and what it sells by pair; an approval's amount by token and spender; else the call itself.
    """
    if grant.plan is not None:
        sold_raw_by_pair: Counter[object] = Counter()
        for leg in grant.plan.legs:
            sold_raw_by_pair[leg.token_in, leg.token_out] += leg.amount_in_raw
        return grant.plan.is_exit, sold_raw_by_pair
    if grant.approval_terms is not None:
        token, spender, raw = grant.approval_terms
        return "", Counter({(token, spender): raw})
    return (tx.to, tx.value_wei, tx.data), Counter()
