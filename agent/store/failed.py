"""Transactions that failed in a row: how many, since when, and whether there were ever too many since the owner resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

from sqlalchemy import Connection, bindparam, select

from agent.model import IntentKind, Receipt, UnsignedTx
from agent.policy import failures
from agent.store import meta
from agent.store.records import loaded
from agent.store.tables import BudgetRow, IntentRow
from agent.store.transitions import CONSUMED

FEW = 20
"""Transactions that are read at once from the newest on, where only the newest are wanted."""
RESUMED_AFTER = "resumed_after"
"""Key of the newest intent's number when the owner resumed last: failures up to it have been looked at."""
STOP = "failures_stop"
"""Key that says that too many failed in a row since the owner resumed; empty where not."""
_CONSUMED = tuple(state.value for state in CONSUMED)
_TRADES = (IntentKind.SWAP.value, IntentKind.LIQUIDITY.value)
"""What everything else, approvals above all, is for."""


@dataclass(frozen=True, slots=True)
class Row:
    """Reverts, and steps that approved or took back, since the last success. `newest_s` is chain time of the newest of them, None
    while there are not too many; `stops` says that there were too many since the owner resumed.
    """

    reverts: int
    approvals: int
    newest_s: int | None
    stops: bool


def row(db: Connection, facts: Mapping[str, str], late: Mapping[str, int], chain_now_s: int) -> Row:
    """How many failed in a row, by the facts STOP and RESUMED_AFTER. `late` are numbers of the newest intent by token, up to
    which its approvals count in no row.

    What is not booked yet counts as of now.
    """
    found = _since_success(db, facts, late)
    reverts, approvals = _counted(found)
    newest_s = None
    if failures.too_many(reverts, approvals):
        booked_s = db.scalar(select(BudgetRow.chain_s).where(BudgetRow.intent_id == found[0].id))
        newest_s = chain_now_s if booked_s is None else booked_s
    return Row(reverts, approvals, newest_s, bool(facts.get(STOP)))


def note(db: Connection, late: Mapping[str, int]) -> None:
    """Remembers too many in a row: exits go on, and one that succeeds must not let rebalances go on with them."""
    if failures.too_many(*_counted(_since_success(db, meta.read(db, RESUMED_AFTER), late))):
        meta.write(db, {STOP: 1})


def forget(db: Connection, newest_intent: int) -> None:
    """The owner has looked at everything up to that intent."""
    meta.write(db, {STOP: "", RESUMED_AFTER: newest_intent})


def _counted(found: list[IntentRow]) -> tuple[int, int]:
    """Reverts, and steps that approved something or took it back."""
    return sum(map(_reverted, found)), len({one.step_id for one in found if one.kind == IntentKind.APPROVE.value})


def _since_success(db: Connection, facts: Mapping[str, str], late: Mapping[str, int]) -> list[IntentRow]:
    """What was mined after the last swap or action on liquidity that succeeded, and after the owner resumed last, newest first.

    Only such a success ends a row of reverts. Cancels neither count nor interrupt, and neither do approvals that succeed: each new
    try may need one. Nor what was approved for exits that were refused late: how often those are tried is bounded by itself
    (agent/policy/stuck.py), and one that never goes must not stop the others.
    """
    found: list[IntentRow] = []
    # A few at a time, in the order in which they lie: the row ends soon, and before it are the transactions of years.
    newest_first = db.execute(_newest_first(), {"resumed": int(facts.get(RESUMED_AFTER) or 0)}).yield_per(FEW)
    for one in cast("Iterable[IntentRow]", newest_first):
        if one.state not in _CONSUMED or one.kind == IntentKind.CANCEL.value:
            continue
        if one.kind in _TRADES and not _reverted(one):
            break
        if not late or one.kind != IntentKind.APPROVE.value or one.seq > late.get(loaded(UnsignedTx, one.tx_json).to, 0):
            found.append(one)
    newest_first.close()
    return found


def _reverted(one: IntentRow) -> bool:
    return one.receipt_json is not None and loaded(Receipt, one.receipt_json).status != 1


_newest_first = cache(lambda: select(IntentRow).where(IntentRow.seq > bindparam("resumed")).order_by(IntentRow.seq.desc()))
