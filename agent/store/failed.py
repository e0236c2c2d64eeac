"""Transactions that failed in a row: how many, since when, and whether there were ever too many since the owner resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from agent.model import IntentKind, Receipt, UnsignedTx
from agent.policy import failures
from agent.store.records import loaded
from agent.store.tables import BudgetRow, IntentRow, Meta
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


def row(session: Session, late: Mapping[str, int], chain_now_s: int) -> Row:
    """How many failed in a row. `late` are numbers of the newest intent by token, up to which its approvals count in no row.

    What is not booked yet counts as of now.
    """
    found = _since_success(session, late)
    reverts, approvals = _counted(found)
    newest_s = None
    if failures.too_many(reverts, approvals):
        booked = session.get(BudgetRow, found[0].id)
        newest_s = chain_now_s if booked is None else booked.chain_s
    stop = session.get(Meta, STOP)
    return Row(reverts, approvals, newest_s, stop is not None and bool(stop.value))


def note(session: Session, late: Mapping[str, int]) -> None:
    """Remembers too many in a row: exits go on, and one that succeeds must not let rebalances go on with them."""
    if failures.too_many(*_counted(_since_success(session, late))):
        session.merge(Meta(key=STOP, value="1"))


def forget(session: Session, newest_intent: int) -> None:
    """The owner has looked at everything up to that intent."""
    session.merge(Meta(key=STOP, value=""))
    session.merge(Meta(key=RESUMED_AFTER, value=str(newest_intent)))


def _counted(found: list[IntentRow]) -> tuple[int, int]:
    """Reverts, and steps that approved something or took it back."""
    return sum(map(_reverted, found)), len({one.step_id for one in found if one.kind == IntentKind.APPROVE.value})


def _since_success(session: Session, late: Mapping[str, int]) -> list[IntentRow]:
    """What was mined after the last swap or action on liquidity that succeeded, and after the owner resumed last, newest first.

    Only such a success ends a row of reverts. Cancels neither count nor interrupt, and neither do approvals that succeed: each new
    try may need one. Nor what was approved for exits that were refused late: how often those are tried is bounded by itself
    (agent/policy/stuck.py), and one that never goes must not stop the others.
    """
    resumed = session.get(Meta, RESUMED_AFTER)
    later = select(IntentRow).where(IntentRow.seq > (0 if resumed is None else int(resumed.value))).order_by(IntentRow.seq.desc())
    found = []
    # A few at a time, in the order in which they lie: the row ends soon, and before it are the transactions of years.
    newest_first = session.scalars(later.execution_options(yield_per=FEW))
    for one in newest_first:
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
