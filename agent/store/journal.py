"""Intents in the database: written down, moved along the transition table, found again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from agent import codec
from agent.errors import OperatorNeeded
from agent.lp import own
from agent.model import Intent, IntentEvent, IntentKind, IntentState, LpMove, Receipt, UnsignedTx
from agent.ports import Grant
from agent.store import ledger, records, running
from agent.store.tables import BudgetRow, IntentRow, LiquidityRow, Meta, TransitionRow
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK, OPEN, ROWS, Facts, line

ADOPTED_NONCE = "adopted_nonce"
ADOPTED_AFTER = "adopted_after"
_OPEN = tuple(state.value for state in OPEN)
_CONSUMED = tuple(state.value for state in CONSUMED)


def intend(
    session: Session,
    step_id: str,
    kind: IntentKind,
    tx: UnsignedTx,
    grant: Grant,
    note: str,
    now_s: int,
    deadline_s: int | None,
    replaces: str | None = None,
) -> Intent:
    """A new intent, PLANNED. With `replaces` it takes the nonce of that one, the newest open at it whose bytes are out; a CANCEL
    without it takes the one open there is.
    """
    rivals = session.scalars(select(IntentRow).where(IntentRow.nonce == tx.nonce, IntentRow.state.in_(_OPEN))).all()
    place = _place(rivals, kind, replaces)
    if rivals and place is None:
        raise OperatorNeeded(
            f"nonce {tx.nonce} already carries an open transaction: {', '.join(f'{row.note} ({row.tx_hash})' for row in rivals)}",
            "run the command again: it resolves open transactions first",
        )
    if replaces is not None and place is None:
        raise ValueError(f"nothing open at nonce {tx.nonce} can be replaced by a {kind.value}")
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
        replaces=place,
    )
    session.add(row)
    session.flush()
    session.add(TransitionRow(intent_id=row.id, before=None, after=row.state, at_s=now_s, tx_hash=None, note=note))
    return records.intent(row)


def _place(rivals: Sequence[IntentRow], kind: IntentKind, replaces: str | None) -> str | None:
    """Id of the one among open rivals whose nonce a new intent may take; None when it may take none.

    Each is replaced by one at most, by the same kind for more or by a cancel; a cancel only by a cancel.
    """
    cancel = IntentKind.CANCEL.value
    if replaces is None:
        alone = len(rivals) == 1 and kind is IntentKind.CANCEL and rivals[0].kind != cancel
        return rivals[0].id if alone else None
    taken = {row.replaces for row in rivals}
    for row in rivals:
        if row.id == replaces and row.id not in taken and row.state == IntentState.BROADCAST.value and kind.value in (row.kind, cancel):
            return row.id
    return None


def advance(
    session: Session,
    wallet: str,
    intent_id: str,
    to: IntentState,
    now_s: int,
    tx_hash: str | None,
    receipt: Receipt | None,
    note: str,
    event: IntentEvent | None = None,
) -> Intent:
    """Moves an intent. ValueError for what the table forbids, by pair, guard or `event`, and for a second hash.

    What its receipt means to the books comes and goes in the same transaction: with the receipt of an action on liquidity what
    it did to the position, and with a receipt that a reorganisation takes its entry in the budgets. At no moment is one known
    without the other.
    """
    found = _row(session, intent_id)
    before = IntentState(found.state)
    if tx_hash is not None and found.tx_hash not in (None, tx_hash):
        raise ValueError(f"intent {intent_id} already has hash {found.tx_hash}, not {tx_hash}")
    _require(session, found, to if event is None else event, to, tx_hash, receipt)
    known_hash = tx_hash or found.tx_hash
    kept = found.receipt_json if receipt is None else codec.dumps(receipt)
    if to not in CONSUMED:  # a reorganisation takes the receipt with it
        kept = None
    if found.receipt_json is not None and kept != found.receipt_json:
        ledger.unbook(session, records.intent(found))
    if found.kind == IntentKind.LIQUIDITY.value:
        _remember_position(session, found, wallet, None if kept is None else records.loaded(Receipt, kept))
    running.unsettle(session, found.seq)
    found.state, found.tx_hash, found.receipt_json = to.value, known_hash, kept
    session.add(TransitionRow(intent_id=intent_id, before=before.value, after=to.value, at_s=now_s, tx_hash=known_hash, note=note))
    session.flush()
    return records.intent(found)


def _require(
    session: Session, found: IntentRow, move: IntentState | IntentEvent, to: IntentState, tx_hash: str | None, receipt: Receipt | None
) -> None:
    """Raises ValueError unless the table has this move, it leads to `to`, and its guard agrees."""
    try:
        move_by = line(IntentState(found.state), move)
    except ValueError as error:
        raise ValueError(f"intent {found.id} {error}") from None
    if move_by.after is not to:
        raise ValueError(f"intent {found.id} goes to {move_by.after.value} by {move_by.event.value}, not to {to.value}")
    if (why := move_by.guard(_facts(session, found, tx_hash, receipt))) is not None:
        raise ValueError(f"intent {found.id} cannot go from {move_by.before.value} to {to.value} {why}")


def _facts(session: Session, found: IntentRow, tx_hash: str | None, receipt: Receipt | None) -> Facts:
    """What the guards go by."""
    left = select(TransitionRow.seq).where(TransitionRow.intent_id == found.id, TransitionRow.after == IntentState.BROADCAST.value)
    peers = family(find(session, nonce=found.nonce), found.id)
    ended = next((peer for peer in peers if peer.id != found.id and peer.state in ENDED_IN_BLOCK), None)
    nonce, after = session.get(Meta, ADOPTED_NONCE), session.get(Meta, ADOPTED_AFTER)
    adopted = nonce is not None and after is not None and found.seq <= int(after.value)
    return Facts(
        tx_hash=tx_hash or found.tx_hash,
        left=session.scalar(left.limit(1)) is not None,
        winner=None if ended is None else ended.kind,
        adopted=adopted,
        known=None if found.receipt_json is None else records.loaded(Receipt, found.receipt_json),
        receipt=receipt,
    )


def family(at_nonce: Sequence[Intent], intent_id: str) -> tuple[Intent, ...]:
    """All of `at_nonce`, oldest first, that share their nonce with an intent by replacing one another, itself among them.

    What a chain took back long ago has the same nonce and decides nothing.
    """
    place = {intent.id: intent.replaces for intent in at_nonce}

    def root(of: str) -> str:
        while (older := place.get(of)) is not None:
            of = older
        return of

    return tuple(intent for intent in at_nonce if root(intent.id) == root(intent_id))


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
        lacking = ~exists().where(BudgetRow.intent_id == IntentRow.id)
        query = query.where(IntentRow.seq > running.settled_to(session), IntentRow.state.in_(_CONSUMED), lacking)
    if nonce is not None:
        query = query.where(IntentRow.nonce == nonce)
    if step_id is not None:
        query = query.where(IntentRow.step_id == step_id)
    return tuple(records.intent(found) for found in session.scalars(query))


def ended_in_block(session: Session, limit: int) -> Sequence[Intent]:
    """The newest intents that a block ended and that no adoption has left behind, newest first."""
    after = session.get(Meta, ADOPTED_AFTER)
    query = select(IntentRow).where(
        IntentRow.state.in_([state.value for state in ENDED_IN_BLOCK]), IntentRow.seq > (0 if after is None else int(after.value))
    )
    return tuple(records.intent(found) for found in session.scalars(query.order_by(IntentRow.seq.desc()).limit(limit)))


def undecided_at(session: Session, nonce: int) -> Sequence[Intent]:
    """Ended intents of that nonce that may be mined after all: something open shares it with them, and nothing ended in a block."""
    at_nonce = find(session, nonce=nonce)
    found = []
    for intent in at_nonce:
        reopening = ROWS.get((intent.state, IntentEvent.REOPEN))
        alive = any(peer.state in OPEN for peer in family(at_nonce, intent.id))
        if reopening is not None and alive and reopening.guard(_facts(session, _row(session, intent.id), None, None)) is None:
            found.append(intent)
    return tuple(found)


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
    # From the highest nonce down to the first that fits; said so that SQLite does not gather all by state or number, and sort.
    fits = func.coalesce(IntentRow.state, "").in_(_CONSUMED), IntentRow.seq + 0 > int(after.value)
    used = session.scalar(select(IntentRow.nonce).where(*fits).order_by(IntentRow.nonce.desc()).limit(1))
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
