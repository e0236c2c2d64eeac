"""What the wallet did before this store was made, or while it was another's: told by the chain, kept with the books."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agent.errors import OperatorNeeded
from agent.model import Earlier, OwnChange
from agent.store.tables import EarlierRow, IntentRow, Meta, OpeningRow

DAY_S = 86_400
ASKED = "day_asked_s"
"""Chain time when it was first asked what the wallet did before: what comes after it, the store knows by itself."""
KNOWN = "day_known"


def is_known(session: Session, chain_now_s: int) -> bool:
    """Whether all of the last 24 h is known: the chain has told it, or they have passed since it was first asked.

    Not where it was told before payouts were written down with it (store version 0015): then the chain is asked once more.
    """
    young = select(EarlierRow.tx_hash).where(EarlierRow.chain_s > chain_now_s - DAY_S, EarlierRow.outflow.is_(None))
    if session.scalar(young.limit(1)) is not None:
        return False
    if session.get(Meta, KNOWN) is not None:
        return True
    asked = session.get(Meta, ASKED)
    return asked is not None and chain_now_s >= int(asked.value) + DAY_S


def asked(session: Session, chain_now_s: int) -> None:
    """Remembers when it was first asked."""
    if session.get(Meta, ASKED) is None:
        session.add(Meta(key=ASKED, value=str(chain_now_s)))


def remember(session: Session, found: Sequence[Earlier], nonce: int) -> None:
    """Writes down what the chain told up to the wallet's next `nonce`; what this store sent itself it knows already.

    Balances were taken as they are, or compared, up to the block of the openings: only what came after explains anything.
    """
    counted = session.scalar(select(func.max(OpeningRow.block_number)))
    for row in session.scalars(select(EarlierRow).where(EarlierRow.outflow.is_(None))):
        row.outflow = next((str(one.outflow) for one in found if one.tx_hash == row.tx_hash), "0")
    for one in found:
        ours = session.scalar(select(IntentRow.id).where(IntentRow.tx_hash == one.tx_hash).limit(1)) is not None
        if not ours and session.get(EarlierRow, one.tx_hash) is None:
            fresh = counted is not None and one.block > counted
            session.add(
                EarlierRow(
                    tx_hash=one.tx_hash,
                    chain_s=one.chain_s,
                    turnover=str(one.turnover),
                    loss=str(one.loss),
                    gas_wei=str(one.gas_wei),
                    block_number=one.block,
                    changes_json=json.dumps({token: str(raw) for token, raw in one.changes if fresh}),
                    outflow=str(one.outflow),
                )
            )
    session.merge(Meta(key=KNOWN, value=str(nonce)))


def forget(session: Session, nonce: int) -> bool:
    """Something else used the wallet: the chain has to be asked anew, unless what it told went up to this next `nonce`."""
    known = session.get(Meta, KNOWN)
    if known is not None and known.value == str(nonce):
        return False
    for key in (KNOWN, ASKED):
        if (row := session.get(Meta, key)) is not None:
            session.delete(row)
    return True


def changes(session: Session) -> tuple[OwnChange, ...]:
    """What these transactions did to balances, as far as openings do not contain it."""
    rows = session.scalars(select(EarlierRow).order_by(EarlierRow.block_number))
    return tuple(OwnChange(token, raw, row.block_number) for row in rows for token, raw in moved(row))


def moved(row: EarlierRow) -> tuple[tuple[str, int], ...]:
    """The same of one transaction: base units with sign by token."""
    try:
        return tuple(sorted((token, int(raw)) for token, raw in json.loads(row.changes_json).items()))
    except (ValueError, AttributeError) as error:
        raise OperatorNeeded(f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain") from None
