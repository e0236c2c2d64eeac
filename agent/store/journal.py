"""Intents in the database: written down, moved along the transition table, found again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from agent import codec
from agent.errors import OperatorNeeded
from agent.lp import own
from agent.model import Intent, IntentKind, IntentState, LpMove, Receipt, UnsignedTx
from agent.ports import Grant
from agent.store import records
from agent.store.tables import BudgetRow, IntentRow, LiquidityRow, Meta, TransitionRow
from agent.store.transitions import CONSUMED, OPEN, allowed

ADOPTED_NONCE = "adopted_nonce"
ADOPTED_AFTER = "adopted_after"
_OPEN = tuple(state.value for state in OPEN)
_CONSUMED = tuple(state.value for state in CONSUMED)


def intend(
    session: Session, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str, now_s: int, deadline_s: int | None
) -> Intent:
    """A new intent, PLANNED; a CANCEL is linked to the open intent whose nonce it takes."""
    rivals = session.scalars(select(IntentRow).where(IntentRow.nonce == tx.nonce, IntentRow.state.in_(_OPEN))).all()
    originals = [row for row in rivals if row.kind != IntentKind.CANCEL.value]
    if len(rivals) > (len(originals) if kind is IntentKind.CANCEL else 0) or len(originals) > 1:
        raise OperatorNeeded(
            f"nonce {tx.nonce} already carries an open transaction: {', '.join(f'{row.note} ({row.tx_hash})' for row in rivals)}",
            "run the command again: it resolves open transactions first",
        )
    row = IntentRow(
        id=uuid.uuid4().hex[:16],
        step_id=step_id,
        kind=kind.value,
        state=IntentState.PLANNED.value,
        nonce=tx.nonce,
        tx_json=codec.dumps(tx),
        grant_z=records.packed(codec.dumps(grant)),
        note=note,
        created_s=now_s,
        deadline_s=deadline_s,
        replaces=originals[0].id if originals else None,
    )
    session.add(row)
    session.flush()
    session.add(TransitionRow(intent_id=row.id, before=None, after=row.state, at_s=now_s, tx_hash=None, note=note))
    return records.intent(row)


def advance(
    session: Session, wallet: str, intent_id: str, to: IntentState, now_s: int, tx_hash: str | None, receipt: Receipt | None, note: str
) -> Intent:
    """Moves an intent. ValueError for what the table forbids, a second hash, or a state that lacks its hash or receipt.

    With the receipt of an action on liquidity comes what it did to the position, in the same transaction: at no moment is
    one known without the other.
    """
    row = _row(session, intent_id)
    before = IntentState(row.state)
    if not allowed(before, to):
        raise ValueError(f"intent {intent_id} cannot go from {before.value} to {to.value}")
    if tx_hash is not None and row.tx_hash not in (None, tx_hash):
        raise ValueError(f"intent {intent_id} already has hash {row.tx_hash}, not {tx_hash}")
    known_hash = tx_hash or row.tx_hash
    if to not in (IntentState.PLANNED, IntentState.CANCELLED) and known_hash is None:
        raise ValueError(f"intent {intent_id} cannot be {to.value} without a hash")
    kept = row.receipt_json if receipt is None else codec.dumps(receipt)
    if to in CONSUMED and kept is None:
        raise ValueError(f"intent {intent_id} cannot be {to.value} without a receipt")
    if to not in CONSUMED:  # a reorganisation takes the receipt with it
        kept = None
    if row.kind == IntentKind.LIQUIDITY.value:
        _remember_position(session, row, wallet, None if kept is None else records.loaded(Receipt, kept))
    row.state, row.tx_hash, row.receipt_json = to.value, known_hash, kept
    session.add(TransitionRow(intent_id=intent_id, before=before.value, after=to.value, at_s=now_s, tx_hash=known_hash, note=note))
    session.flush()
    return records.intent(row)


def _remember_position(session: Session, row: IntentRow, wallet: str, receipt: Receipt | None) -> None:
    action = records.loaded(Grant, records.unpacked(row.grant_z)).action
    done = None if receipt is None or action is None else own.move(action, receipt, wallet)
    if done is not None:
        session.merge(LiquidityRow(intent_id=row.id, move_json=codec.dumps(done)))
    elif (old := session.get(LiquidityRow, row.id)) is not None:
        session.delete(old)


def liquidity_moves(session: Session) -> tuple[LpMove, ...]:
    """What mined intents did to liquidity positions, oldest first."""
    query = select(LiquidityRow).join(IntentRow, IntentRow.id == LiquidityRow.intent_id).order_by(IntentRow.seq)
    return tuple(records.loaded(LpMove, row.move_json) for row in session.scalars(query))


def grant(session: Session, intent_id: str) -> Grant:
    """The grant an intent was written down with."""
    return records.loaded(Grant, records.unpacked(_row(session, intent_id).grant_z))


def find(
    session: Session, *, open_only: bool = False, unbooked: bool = False, nonce: int | None = None, step_id: str | None = None
) -> Sequence[Intent]:
    """Intents that fit all that is asked, oldest first."""
    query = select(IntentRow).order_by(IntentRow.seq)
    if open_only:
        query = query.where(IntentRow.state.in_(_OPEN))
    if unbooked:
        query = query.where(IntentRow.state.in_(_CONSUMED), IntentRow.id.not_in(select(BudgetRow.intent_id)))
    if nonce is not None:
        query = query.where(IntentRow.nonce == nonce)
    if step_id is not None:
        query = query.where(IntentRow.step_id == step_id)
    return tuple(records.intent(row) for row in session.scalars(query))


def newest(session: Session, limit: int) -> Sequence[Intent]:
    """The newest intents, newest first."""
    return tuple(records.intent(row) for row in session.scalars(select(IntentRow).order_by(IntentRow.seq.desc()).limit(limit)))


def moves(session: Session, intent_id: str) -> tuple[records.Moved, ...]:
    """Every transition of one intent, oldest first."""
    query = select(TransitionRow).where(TransitionRow.intent_id == intent_id).order_by(TransitionRow.seq)
    return tuple(
        records.Moved(
            row.intent_id, IntentState(row.before) if row.before else None, IntentState(row.after), row.at_s, row.tx_hash, row.note
        )
        for row in session.scalars(query)
    )


def expected_nonce(session: Session) -> int | None:
    """Adopted nonce, or one more than the highest that an intent since then has used up on the chain."""
    adopted, after = session.get(Meta, ADOPTED_NONCE), session.get(Meta, ADOPTED_AFTER)
    if adopted is None or after is None:
        return None
    used = session.scalar(select(func.max(IntentRow.nonce)).where(IntentRow.state.in_(_CONSUMED), IntentRow.seq > int(after.value)))
    return max(int(adopted.value), -1 if used is None else used + 1)


def adopt_nonce(session: Session, nonce: int) -> None:
    """From here on the chain's next nonce is `nonce`, whatever earlier intents used."""
    newest_seq = session.scalar(select(func.max(IntentRow.seq))) or 0
    session.merge(Meta(key=ADOPTED_NONCE, value=str(nonce)))
    session.merge(Meta(key=ADOPTED_AFTER, value=str(newest_seq)))


def _row(session: Session, intent_id: str) -> IntentRow:
    row = session.scalar(select(IntentRow).where(IntentRow.id == intent_id).with_for_update())
    if row is None:
        raise KeyError(intent_id)
    return row
