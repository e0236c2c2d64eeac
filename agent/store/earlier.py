"""What the wallet did before this store was made, or while it was another's: told by the chain, kept with the books."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select, update

from agent.errors import OperatorNeeded
from agent.model import Earlier, OwnChange
from agent.store import meta
from agent.store.statements import add, every, values
from agent.store.tables import EarlierRow, IntentRow, OpeningRow

DAY_S = 86_400
ASKED = "day_asked_s"
"""Chain time when it was first asked what the wallet did before: what comes after it, the store knows by itself."""
KNOWN = "day_known"


def is_known(db: Connection, chain_now_s: int) -> bool:
    """Whether all of the last 24 h is known: the chain has told it, or they have passed since it was first asked.

    Not where it was told before payouts were written down with it (store version 0015): then the chain is asked once more.
    """
    if db.scalar(_young(), {"since": chain_now_s - DAY_S}) is not None:
        return False
    known = meta.read(db, KNOWN, ASKED)
    return KNOWN in known or (ASKED in known and chain_now_s >= int(known[ASKED]) + DAY_S)


def asked(db: Connection, chain_now_s: int) -> None:
    """Remembers when it was first asked."""
    if meta.known(db, ASKED) is None:
        meta.write(db, {ASKED: chain_now_s})


def remember(db: Connection, found: Sequence[Earlier], nonce: int) -> None:
    """Writes down what the chain told up to the wallet's next `nonce`; what this store sent itself it knows already.

    Balances were taken as they are, or compared, up to the block of the openings: only what came after explains anything.
    """
    counted = db.scalar(select(func.max(OpeningRow.block_number)))
    paid_out = {one.tx_hash: str(one.outflow) for one in found}
    for untold in values(db, select(EarlierRow.tx_hash).where(EarlierRow.outflow.is_(None))):
        db.execute(update(EarlierRow).where(EarlierRow.tx_hash == untold).values(outflow=paid_out.get(untold, "0")))
    known = {*values(db, select(EarlierRow.tx_hash))}
    rows = []
    for one in found:
        ours = db.scalar(select(IntentRow.id).where(IntentRow.tx_hash == one.tx_hash).limit(1)) is not None
        if not ours and one.tx_hash not in known:
            known.add(one.tx_hash)
            fresh = counted is not None and one.block > counted
            rows.append(
                {
                    "tx_hash": one.tx_hash,
                    "chain_s": one.chain_s,
                    "turnover": str(one.turnover),
                    "loss": str(one.loss),
                    "gas_wei": str(one.gas_wei),
                    "block_number": one.block,
                    "changes_json": json.dumps({token: str(raw) for token, raw in one.changes if fresh}),
                    "outflow": str(one.outflow),
                }
            )
    add(db, EarlierRow, rows)
    meta.write(db, {KNOWN: nonce})


def forget(db: Connection, nonce: int) -> bool:
    """Something else used the wallet: the chain has to be asked anew, unless what it told went up to this next `nonce`."""
    if meta.known(db, KNOWN) == str(nonce):
        return False
    meta.drop(db, KNOWN, ASKED)
    return True


def changes(db: Connection) -> tuple[OwnChange, ...]:
    """What these transactions did to balances, as far as openings do not contain it."""
    rows = every(db, _changes(), EarlierRow)
    return tuple(OwnChange(token, raw, row.block_number) for row in rows for token, raw in moved(row))


def moved(row: EarlierRow) -> tuple[tuple[str, int], ...]:
    """The same of one transaction: base units with sign by token."""
    try:
        return tuple(sorted((token, int(raw)) for token, raw in json.loads(row.changes_json).items()))
    except (ValueError, AttributeError) as error:
        raise OperatorNeeded(f"store: an entry is damaged: {error}", "restore a backup, compare it with the chain") from None


_changes = cache(lambda: select(EarlierRow).order_by(EarlierRow.block_number))


@cache
def _young() -> Select[Any]:
    """One of the last 24 h whose payouts nobody has told."""
    young = EarlierRow.chain_s > bindparam("since"), EarlierRow.outflow.is_(None)
    return select(EarlierRow.tx_hash).where(*young).limit(1)
