"""Journal of intents in the database: record, move along the transition table, query."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select, update

from agent import codec
from agent.amm.lp import positions
from agent.errors import OperatorNeeded
from agent.model import Intent, IntentEvent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.ports import Grant
from agent.store import budgets, database, records
from agent.store.accounts import ledger_sums
from agent.store.database import all_rows, first_row, insert_rows, max_value, upsert_rows
from agent.store.tables import BudgetRow, IntentRow, LiquidityRow, StepRow, TransitionRow
from agent.store.transitions import CONSUMED, ENDED_IN_BLOCK, OPEN, RULE_BY_EVENT, TransitionFacts, find_rule

ADOPTED_NONCE = "adopted_nonce"
ADOPTED_AFTER = "adopted_after"
_OPEN = tuple(state.value for state in OPEN)
_CONSUMED = tuple(state.value for state in CONSUMED)
_ENDED = tuple(state.value for state in ENDED_IN_BLOCK)


def intend(  # noqa: PLR0913
    db: Connection,
    step_id: str,
    kind: IntentKind,
    tx: UnsignedTx,
    grant: Grant,
    note: str,
    now_s: int,
    deadline_s: int | None,
    replaces: str | None = None,
) -> Intent:
    """Record a new intent, PLANNED.

    With `replaces` it takes the nonce of that one, the newest open at it whose bytes were sent; a CANCEL without it takes the one open
    there.
    """
    rivals = all_rows(db, _rivals(), IntentRow, nonce=tx.nonce)
    place = _place(rivals, kind, replaces)
    if rivals and place is None:
        raise OperatorNeeded(
            f"nonce {tx.nonce} already carries an open transaction: {', '.join(f'{row.note} ({row.tx_hash})' for row in rivals)}",
            "run the command again: it resolves open transactions first",
        )
    if replaces is not None and place is None:
        raise ValueError(f"nothing open at nonce {tx.nonce} can be replaced by a {kind.value}")
    made = Intent(uuid.uuid4().hex[:16], step_id, kind, IntentState.PLANNED, tx, note, now_s, deadline_s, None, None, place)
    row = {
        "id": made.id,
        "step_id": step_id,
        "kind": kind.value,
        "state": made.state.value,
        "nonce": tx.nonce,
        "tx_json": codec.dumps(tx),
        "grant_z": records.compress_text(codec.dumps(grant)),
        "note": note,
        "created_s": now_s,
        "deadline_s": deadline_s,
        "replaces": place,
    }
    insert_rows(db, IntentRow, [row])
    _moved(db, made.id, None, made.state, now_s, None, note)
    return made


def _place(rivals: Sequence[IntentRow], kind: IntentKind, replaces: str | None) -> str | None:
    """Id of the open rival whose nonce a new intent may take; None if it may take none.

    Each is replaced by one at most, by the same kind for a higher fee or by a cancel; a cancel only by a cancel.
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


def advance(  # noqa: PLR0913
    db: Connection,
    wallet: str,
    intent_id: str,
    to: IntentState,
    now_s: int,
    tx_hash: str | None,
    receipt: Receipt | None,
    note: str,
    event: IntentEvent | None = None,
) -> Intent:
    """Move an intent. Raises ValueError if the table forbids it, by pair, guard or `event`, and for a second hash.

    The effects of a receipt are written in the same transaction: with the receipt of a liquidity action its position change, and with a
    receipt that a reorg takes its entry in the budgets. Neither is ever stored without the other.
    """
    found = _row(db, intent_id)
    before = IntentState(found.state)
    if tx_hash is not None and found.tx_hash not in (None, tx_hash):
        raise ValueError(f"intent {intent_id} already has hash {found.tx_hash}, not {tx_hash}")
    _require(db, found, to if event is None else event, to, tx_hash, receipt)
    known_hash = tx_hash or found.tx_hash
    kept = found.receipt_json if receipt is None else codec.dumps(receipt)
    if to not in CONSUMED:  # a reorg removes the receipt too
        kept = None
    if found.receipt_json is not None and kept != found.receipt_json:
        budgets.unbook_intent(db, records.intent_from_row(found))
    if found.kind == IntentKind.LIQUIDITY.value:
        _remember_position(db, found, wallet, None if kept is None else records.decode_json(Receipt, kept))
    ledger_sums.reopen_settled(db, found.seq)
    db.execute(_move(), {"of": found.seq, "state": to.value, "tx_hash": known_hash, "receipt_json": kept})
    _moved(db, intent_id, before, to, now_s, known_hash, note)
    known = None if kept is None else records.decode_json(Receipt, kept)
    return replace(records.intent_from_row(found), state=to, tx_hash=known_hash, receipt=known)


def _moved(
    db: Connection, intent_id: str, before: IntentState | None, after: IntentState, at_s: int, tx_hash: str | None, note: str
) -> None:
    was = None if before is None else before.value
    insert_rows(
        db, TransitionRow, [{"intent_id": intent_id, "before": was, "after": after.value, "at_s": at_s, "tx_hash": tx_hash, "note": note}]
    )


def _require(
    db: Connection, found: IntentRow, move: IntentState | IntentEvent, to: IntentState, tx_hash: str | None, receipt: Receipt | None
) -> None:
    """Raise ValueError unless the table has this move, it leads to `to`, and its guard agrees."""
    try:
        move_by = find_rule(IntentState(found.state), move)
    except ValueError as error:
        raise ValueError(f"intent {found.id} {error}") from None
    if move_by.after is not to:
        raise ValueError(f"intent {found.id} goes to {move_by.after.value} by {move_by.event.value}, not to {to.value}")
    if (why := move_by.guard(_facts(db, found, tx_hash, receipt))) is not None:
        raise ValueError(f"intent {found.id} cannot go from {move_by.before.value} to {to.value} {why}")


def _facts(db: Connection, found: IntentRow, tx_hash: str | None, receipt: Receipt | None) -> TransitionFacts:
    """Facts that the guards of the table read."""
    peers = family(find(db, nonce=found.nonce), found.id)
    ended = next((peer for peer in peers if peer.id != found.id and peer.state in ENDED_IN_BLOCK), None)
    adoption = _adoption(db)
    return TransitionFacts(
        tx_hash=tx_hash or found.tx_hash,
        left=db.scalar(_left(), {"of": found.id}) is not None,
        winner=None if ended is None else ended.kind,
        adopted=adoption is not None and found.seq <= adoption[1],
        known=None if found.receipt_json is None else records.decode_json(Receipt, found.receipt_json),
        receipt=receipt,
    )


def family(at_nonce: Sequence[Intent], intent_id: str) -> tuple[Intent, ...]:
    """All of `at_nonce`, oldest first, that share their nonce with an intent by replacement, itself included.

    Transactions that a reorg removed long ago have the same nonce and do not count.
    """
    place = {intent.id: intent.replaces for intent in at_nonce}

    def root(of: str) -> str:
        while (older := place.get(of)) is not None:
            of = older
        return of

    return tuple(intent for intent in at_nonce if root(intent.id) == root(intent_id))


def _remember_position(db: Connection, row: IntentRow, wallet: str, receipt: Receipt | None) -> None:
    action = records.decode_json(Grant, records.decompress_text(row.grant_z)).action
    done = None if receipt is None or action is None else positions.position_change(action, receipt, wallet)
    if done is not None:
        upsert_rows(db, LiquidityRow, [{"intent_id": row.id, "move_json": codec.dumps(done)}])
    else:
        db.execute(_without_position(), {"of": row.id})


def grant(db: Connection, intent_id: str) -> Grant:
    """Return the grant an intent was recorded with."""
    return records.decode_json(Grant, records.decompress_text(_row(db, intent_id).grant_z))


def find(
    db: Connection, *, open_only: bool = False, unbooked: bool = False, nonce: int | None = None, step_id: str | None = None
) -> Sequence[Intent]:
    """Intents that match all given filters, oldest first."""
    given = {"nonce": nonce, "step_id": step_id, "settled": ledger_sums.settled_to(db) if unbooked else None}
    asked = {name: value for name, value in given.items() if value is not None}
    return _intents(db, _found(open_only, frozenset(asked)), **asked)


def ended_in_block(db: Connection, limit: int) -> Sequence[Intent]:
    """The newest intents that ended in a block since the last adoption, newest first."""
    return _intents(db, _ended(), after=database.fact_number(db, ADOPTED_AFTER), limit=limit)


def undecided_at(db: Connection, nonce: int) -> Sequence[Intent]:
    """Ended intents of that nonce that may still be mined: an open one shares it with them, and none ended in a block."""
    at_nonce = find(db, nonce=nonce)
    found = []
    for intent in at_nonce:
        reopening = RULE_BY_EVENT.get((intent.state, IntentEvent.REOPEN))
        alive = any(peer.state in OPEN for peer in family(at_nonce, intent.id))
        if reopening is not None and alive and reopening.guard(_facts(db, _row(db, intent.id), None, None)) is None:
            found.append(intent)
    return tuple(found)


def newest(db: Connection, limit: int) -> Sequence[Intent]:
    """The newest intents, newest first."""
    return _intents(db, _newest(), limit=limit)


def moves(db: Connection, intent_id: str) -> tuple[records.IntentTransition, ...]:
    """Every transition of one intent, oldest first."""
    return tuple(
        records.IntentTransition(
            row.intent_id, IntentState(row.before) if row.before else None, IntentState(row.after), row.at_s, row.tx_hash, row.note
        )
        for row in all_rows(db, _moves(), TransitionRow, of=intent_id)
    )


def expected_nonce(db: Connection) -> int | None:
    """Adopted nonce, or one more than the highest that an intent since then has used on the chain."""
    adoption = _adoption(db)
    if adoption is None:
        return None
    resynced, after = adoption
    used = db.scalar(_used(), {"after": after})
    return max(resynced, -1 if used is None else used + 1)


def adopt_nonce(db: Connection, nonce: int) -> None:
    """Adopt `nonce` as the chain's next one, whatever earlier intents used."""
    database.write_facts(db, {ADOPTED_NONCE: nonce, ADOPTED_AFTER: max_value(db, IntentRow.seq)})


def _adoption(db: Connection) -> tuple[int, int] | None:
    """The nonce adopted last, and the newest intent by then; None before the first adoption."""
    found = database.read_facts(db, ADOPTED_NONCE, ADOPTED_AFTER)
    return (int(found[ADOPTED_NONCE]), int(found[ADOPTED_AFTER])) if len(found) == 2 else None


def _row(db: Connection, intent_id: str) -> IntentRow:
    row = first_row(db, _by_id(), IntentRow, of=intent_id)
    if row is None:
        raise KeyError(intent_id)
    return row


def _intents(db: Connection, query: Select[Any], **given: object) -> tuple[Intent, ...]:
    return tuple(map(records.intent_from_row, all_rows(db, query, IntentRow, **given)))


_by_id = cache(lambda: select(IntentRow).where(IntentRow.id == bindparam("of")).with_for_update())
_rivals = cache(lambda: select(IntentRow).where(IntentRow.nonce == bindparam("nonce"), IntentRow.state.in_(_OPEN)))
_newest = cache(lambda: select(IntentRow).order_by(IntentRow.seq.desc()).limit(bindparam("limit")))
_ended = cache(lambda: _newest().where(IntentRow.state.in_(_ENDED), IntentRow.seq > bindparam("after")))
_moves = cache(lambda: select(TransitionRow).where(TransitionRow.intent_id == bindparam("of")).order_by(TransitionRow.seq))
_left = cache(lambda: _moves().where(TransitionRow.after == IntentState.BROADCAST.value).limit(1))
_move = cache(lambda: update(IntentRow).where(IntentRow.seq == bindparam("of")))
_without_position = cache(lambda: delete(LiquidityRow).where(LiquidityRow.intent_id == bindparam("of")))


@cache
def _found(open_only: bool, asked: frozenset[str]) -> Select[Any]:
    """Select intents, oldest first: by nonce, by step, or consumed without a budget beyond the settled ones."""
    query = select(IntentRow).order_by(IntentRow.seq)
    if open_only:
        query = query.where(IntentRow.state.in_(_OPEN))
    if "settled" in asked:
        lacking = ~exists().where(BudgetRow.intent_id == IntentRow.id)
        query = query.where(IntentRow.seq > bindparam("settled"), IntentRow.state.in_(_CONSUMED), lacking)
    if "nonce" in asked:
        query = query.where(IntentRow.nonce == bindparam("nonce"))
    return query.where(IntentRow.step_id == bindparam("step_id")) if "step_id" in asked else query


@cache
def _used() -> Select[Any]:
    """Select from the highest nonce down to the first match, so that SQLite does not collect and sort all rows."""
    fits = func.coalesce(IntentRow.state, "").in_(_CONSUMED), IntentRow.seq + 0 > bindparam("after")
    return select(IntentRow.nonce).where(*fits).order_by(IntentRow.nonce.desc()).limit(1)


# --- Retention of steps: those with a transaction for ever, of all others the newest.


MOST_AT_ONCE = 500
"""Most rows that one call removes, so that an old store delays no cycle."""


def prune(db: Connection, keep: int) -> int:
    """Delete steps without a transaction beyond the newest `keep` of all steps; return how many.

    The very first one stays: schedules count from it.
    """
    newest, first = db.execute(select(func.max(StepRow.seq), func.min(StepRow.seq))).one()
    if newest is None or newest - keep <= first:
        return 0
    idle = ~exists().where(IntentRow.step_id == StepRow.id)
    old = select(StepRow.seq).where(StepRow.seq > first, StepRow.seq <= newest - keep, idle).order_by(StepRow.seq).limit(MOST_AT_ONCE)
    found = db.scalars(old).all()
    if found:
        db.execute(delete(StepRow).where(StepRow.seq.in_(found)))
    return len(found)
