"""Journal in the database: steps, intents that move along the transition table, proposals to
external signers.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select, update

from agent import codec
from agent.errors import ErrorCode, OperatorNeeded
from agent.model import (
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Plan,
    Rebalance,
    Receipt,
    UnsignedTx,
)
from agent.ports import Grant
from agent.store import budgets, database, records, requests
from agent.store.accounts import balances, ledger_sums, positions
from agent.store.database import Database, all_rows, first_row, insert_rows, max_value
from agent.store.records import IntentTransition, StepRecord, StepSummary
from agent.store.tables import BudgetRow, IntentRow, StepRow, TransitionRow
from agent.store.transitions import (
    CONSUMED,
    ENDED_IN_BLOCK,
    OPEN,
    RULE_BY_EVENT,
    TransitionFacts,
    find_rule,
)

ADOPTED_NONCE = "adopted_nonce"
ADOPTED_AFTER = "adopted_after"
PROPOSAL = "proposal:"
MOST_AT_ONCE = 500
"""Most steps that one call removes, so that an old store delays no cycle."""
_OPEN = tuple(state.value for state in OPEN)
_CONSUMED = tuple(state.value for state in CONSUMED)
_ENDED = tuple(state.value for state in ENDED_IN_BLOCK)


@dataclass(slots=True)
class StepStore:
    """Steps with their input and result; each method is a transaction of its own.

    `on_step_recorded` is called with each finished step, and its errors are raised.
    """

    db: Database
    on_step_recorded: Callable[[StepRecord], None] | None = None

    def begin(
        self, step_id: str, now_s: int, input_json: str, asked_json: str | None = None
    ) -> None:
        """Record the input of a step and its request; again, when a token was excluded
        meanwhile.
        """
        with self.db.write("write the step", keeps_answers=True) as db:
            text = records.compress_text(input_json)
            if db.execute(_decided(), {"of": step_id, "input_z": text}).rowcount == 0:
                insert_rows(
                    db,
                    StepRow,
                    [{"id": step_id, "now_s": now_s, "input_z": text, "asked_json": asked_json}],
                )

    def end(
        self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str
    ) -> None:
        """Record the decision and result of a step. Raises KeyError for a step that was not
        begun.
        """
        with self.db.write("write the outcome of the step", keeps_answers=True) as db:
            plan_z = None if plan_json is None else records.compress_text(plan_json)
            ended = {
                "of": step_id,
                "decision": decision,
                "reason": reason,
                "outcome": outcome,
                "plan_z": plan_z,
            }
            if db.execute(_decided(), ended).rowcount == 0:
                raise KeyError(step_id)
        if self.on_step_recorded is not None and (found := self.get(step_id)) is not None:
            self.on_step_recorded(found)

    def newest(self, limit: int) -> tuple[StepSummary, ...]:
        """The newest steps, newest first."""
        with self.db.read("read the steps") as db:
            return tuple(
                records.step_summary(row) for row in db.execute(_lines(), {"limit": limit})
            )

    def get(self, step_id: str) -> StepRecord | None:
        """One step with its input and plan; None if the id is unknown."""
        with self.db.read("read the step") as db:
            row = first_row(db, _step(), StepRow, of=step_id)
            return None if row is None else records.step_record(row)

    def input_json(self, step_id: str) -> str | None:
        """Input of a step as JSON; None for a step that was not begun."""
        record = self.get(step_id)
        return None if record is None else record.input_json

    def by_hand(self, intent_id: str) -> bool:
        """True if the plan of that intent's step was requested by hand; false if the step recorded
        no plan.
        """
        with self.db.read("read the step") as db:
            found = db.scalar(_plan(), {"of": intent_id})
            plan = (
                None if found is None else records.decode_json(Plan, records.decompress_text(found))
            )
            return (
                plan is not None and isinstance(plan.decision, Rebalance) and plan.decision.by_hand
            )

    def prune(self, keep: int) -> int:
        """Delete steps without a transaction beyond the newest `keep` of all steps, few at a time;
        return how many.

        The very first one stays: schedules count from it.
        """
        with self.db.write("remove old steps") as db:
            newest, first = db.execute(select(func.max(StepRow.seq), func.min(StepRow.seq))).one()
            if newest is None or newest - keep <= first:
                return 0
            idle = ~exists().where(IntentRow.step_id == StepRow.id)
            old = (
                select(StepRow.seq)
                .where(StepRow.seq > first, StepRow.seq <= newest - keep, idle)
                .order_by(StepRow.seq)
                .limit(MOST_AT_ONCE)
            )
            found = db.scalars(old).all()
            if found:
                db.execute(delete(StepRow).where(StepRow.seq.in_(found)))
            return len(found)


@dataclass(frozen=True, slots=True)
class IntentStore:
    """Implements ports.Journal: intents and their transitions; each method is a transaction of its
    own.
    """

    db: Database

    def intend(  # noqa: PLR0913
        self,
        step_id: str,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        now_s: int,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """Record a new intent, PLANNED. Raises OperatorNeeded if its nonce is taken, unless it may
        replace that transaction.

        With `replaces` it takes the nonce of that one, the newest open at it whose bytes were sent;
        a CANCEL without it takes the one open there.
        """
        with self.db.write("write the transaction down") as db:
            rivals = all_rows(db, _rivals(), IntentRow, nonce=tx.nonce)
            place = _place(rivals, kind, replaces)
            if rivals and place is None:
                raise OperatorNeeded(
                    f"nonce {tx.nonce} already carries an open transaction:"
                    f" {', '.join(f'{row.note} ({row.tx_hash})' for row in rivals)}",
                    "run the command again: it resolves open transactions first",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
            if replaces is not None and place is None:
                raise ValueError(
                    f"nothing open at nonce {tx.nonce} can be replaced by a {kind.value}"
                )
            made = Intent(
                uuid.uuid4().hex[:16],
                step_id,
                kind,
                IntentState.PLANNED,
                tx,
                note,
                now_s,
                deadline_s,
                None,
                None,
                place,
            )
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

    def grant(self, intent_id: str) -> Grant:
        """Return the grant an intent was recorded with."""
        with self.db.read("read the grant") as db:
            return records.decode_json(Grant, records.decompress_text(_row(db, intent_id).grant_z))

    def advance(
        self,
        intent_id: str,
        to: IntentState,
        now_s: int,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        note: str = "",
        event: IntentEvent | None = None,
    ) -> Intent:
        """Move an intent. Raises ValueError if the table forbids it, by pair, guard or `event`, and
        for a second hash.

        The effects of a receipt are written in the same transaction: with the receipt of a
        liquidity action its position change, and with a receipt that a reorg takes its entry in the
        budgets. Neither is ever stored without the other.
        """
        with self.db.write(f"write that a transaction is {to.value}") as db:
            found = _row(db, intent_id)
            before = IntentState(found.state)
            if tx_hash is not None and found.tx_hash not in (None, tx_hash):
                raise ValueError(
                    f"intent {intent_id} already has hash {found.tx_hash}, not {tx_hash}"
                )
            _require(db, found, to if event is None else event, to, tx_hash, receipt)
            known_hash = tx_hash or found.tx_hash
            kept = found.receipt_json if receipt is None else codec.dumps(receipt)
            if to not in CONSUMED:  # a reorg removes the receipt too
                kept = None
            if found.receipt_json is not None and kept != found.receipt_json:
                budgets.unbook_intent(db, records.intent_from_row(found))
            if found.kind == IntentKind.LIQUIDITY.value:
                positions.record_change(
                    db,
                    found,
                    self.db.wallet,
                    None if kept is None else records.decode_json(Receipt, kept),
                )
            ledger_sums.reopen_settled(db, found.seq)
            db.execute(
                _move(),
                {"of": found.seq, "state": to.value, "tx_hash": known_hash, "receipt_json": kept},
            )
            _moved(db, intent_id, before, to, now_s, known_hash, note)
            known = None if kept is None else records.decode_json(Receipt, kept)
            return replace(
                records.intent_from_row(found), state=to, tx_hash=known_hash, receipt=known
            )

    def open_intents(self) -> Sequence[Intent]:
        """Intents that have not ended, oldest first."""
        return self.db.query("read open transactions", _intents, _opened)

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Every intent of that nonce, ended ones too, oldest first."""
        with self.db.read("read transactions") as db:
            return _at_nonce(db, nonce)

    def undecided_at(self, nonce: int) -> Sequence[Intent]:
        """Ended intents of that nonce that may still be mined: an open one shares it with them, and
        none ended in a block.
        """
        with self.db.read("read transactions") as db:
            at_nonce = _at_nonce(db, nonce)
            found = []
            for intent in at_nonce:
                reopening = RULE_BY_EVENT.get((intent.state, IntentEvent.REOPEN))
                alive = any(peer.state in OPEN for peer in family(at_nonce, intent.id))
                if (
                    reopening is not None
                    and alive
                    and reopening.guard(_facts(db, _row(db, intent.id), None, None)) is None
                ):
                    found.append(intent)
            return tuple(found)

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """The newest intents that ended final or reverted since the operator last adopted a nonce,
        newest first.
        """
        return self.db.query("read transactions", _ended_in_block, limit)

    def unbooked(self) -> Sequence[Intent]:
        """Intents with a receipt that are in no budget yet, oldest first."""
        return self.db.query("read transactions", _unbooked)

    def intents(self, step_id: str | None = None, limit: int = 100) -> Sequence[Intent]:
        """Intents of one step, oldest first; without one the newest `limit`, newest first."""
        with self.db.read("read transactions") as db:
            return (
                _intents(db, _newest, limit=limit)
                if step_id is None
                else _intents(db, _of_step, step_id=step_id)
            )

    def transitions(self, intent_id: str) -> tuple[IntentTransition, ...]:
        """Every transition of one intent, oldest first."""
        with self.db.read("read transitions") as db:
            return tuple(
                IntentTransition(
                    row.intent_id,
                    IntentState(row.before) if row.before else None,
                    IntentState(row.after),
                    row.at_s,
                    row.tx_hash,
                    row.note,
                )
                for row in all_rows(db, _moves(), TransitionRow, of=intent_id)
            )

    def expected_nonce(self) -> int | None:
        """The chain's next nonce as far as this store knows; None before one was adopted."""
        return self.db.query("read the nonce", _expected_nonce)

    def set_expected_nonce(self, nonce: int, now_s: int) -> None:
        """Adopt `nonce` as the chain's next one from now on, whatever earlier intents used."""
        with self.db.write("adopt the nonce") as db:
            if database.find_fact(db, ADOPTED_NONCE) is not None:
                requests.release_withdrawals(db, now_s)
            database.write_facts(
                db, {ADOPTED_NONCE: nonce, ADOPTED_AFTER: max_value(db, IntentRow.seq)}
            )
            if balances.forget_prior_day(db, nonce):
                positions.require_position_scan(db)
            database.write_facts(db, {"adopted_s": now_s})


@dataclass(frozen=True, slots=True)
class ProposalStore:
    """Implements ports.ProposalJournal: the block each intent was proposed at to an external
    signer.
    """

    db: Database

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Record the block since which an intent is proposed."""
        with self.db.write("write a proposal down") as db:
            database.write_facts(db, {PROPOSAL + intent_id: since_block})

    def proposed(self) -> dict[str, int]:
        """Block since which each intent was proposed, by its id; dropped ones too."""
        with self.db.read("read the proposals") as db:
            return {
                key.removeprefix(PROPOSAL): int(value)
                for key, value in database.facts_with_prefix(db, PROPOSAL)
            }


def _place(rivals: Sequence[IntentRow], kind: IntentKind, replaces: str | None) -> str | None:
    """Id of the open rival whose nonce a new intent may take; None if it may take none.

    Each is replaced by one at most, by the same kind for a higher fee or by a cancel; a cancel only
    by a cancel.
    """
    cancel = IntentKind.CANCEL.value
    if replaces is None:
        alone = len(rivals) == 1 and kind is IntentKind.CANCEL and rivals[0].kind != cancel
        return rivals[0].id if alone else None
    taken = {row.replaces for row in rivals}
    for row in rivals:
        if (
            row.id == replaces
            and row.id not in taken
            and row.state == IntentState.BROADCAST.value
            and kind.value in (row.kind, cancel)
        ):
            return row.id
    return None


def _moved(
    db: Connection,
    intent_id: str,
    before: IntentState | None,
    after: IntentState,
    at_s: int,
    tx_hash: str | None,
    note: str,
) -> None:
    was = None if before is None else before.value
    insert_rows(
        db,
        TransitionRow,
        [
            {
                "intent_id": intent_id,
                "before": was,
                "after": after.value,
                "at_s": at_s,
                "tx_hash": tx_hash,
                "note": note,
            }
        ],
    )


def _require(
    db: Connection,
    found: IntentRow,
    move: IntentState | IntentEvent,
    to: IntentState,
    tx_hash: str | None,
    receipt: Receipt | None,
) -> None:
    """Raise ValueError unless the table has this move, it leads to `to`, and its guard agrees."""
    try:
        move_by = find_rule(IntentState(found.state), move)
    except ValueError as error:
        raise ValueError(f"intent {found.id} {error}") from None
    if move_by.after is not to:
        raise ValueError(
            f"intent {found.id} goes to {move_by.after.value} by {move_by.event.value}, not to"
            f" {to.value}"
        )
    if (why := move_by.guard(_facts(db, found, tx_hash, receipt))) is not None:
        raise ValueError(
            f"intent {found.id} cannot go from {move_by.before.value} to {to.value} {why}"
        )


def _facts(
    db: Connection, found: IntentRow, tx_hash: str | None, receipt: Receipt | None
) -> TransitionFacts:
    """Facts that the guards of the table read."""
    peers = family(_at_nonce(db, found.nonce), found.id)
    ended = next(
        (peer for peer in peers if peer.id != found.id and peer.state in ENDED_IN_BLOCK), None
    )
    adoption = _adoption(db)
    return TransitionFacts(
        tx_hash=tx_hash or found.tx_hash,
        left=db.scalar(_left(), {"of": found.id}) is not None,
        winner=None if ended is None else ended.kind,
        adopted=adoption is not None and found.seq <= adoption[1],
        known=(
            None if found.receipt_json is None else records.decode_json(Receipt, found.receipt_json)
        ),
        receipt=receipt,
    )


def family(at_nonce: Sequence[Intent], intent_id: str) -> tuple[Intent, ...]:
    """All of `at_nonce`, oldest first, that share their nonce with an intent by replacement, itself
    included.

    Transactions that a reorg removed long ago have the same nonce and do not count.
    """
    place = {intent.id: intent.replaces for intent in at_nonce}

    def root(of: str) -> str:
        while (older := place.get(of)) is not None:
            of = older
        return of

    return tuple(intent for intent in at_nonce if root(intent.id) == root(intent_id))


def _adoption(db: Connection) -> tuple[int, int] | None:
    """The nonce adopted last, and the newest intent by then; None before the first adoption."""
    found = database.read_facts(db, ADOPTED_NONCE, ADOPTED_AFTER)
    return (int(found[ADOPTED_NONCE]), int(found[ADOPTED_AFTER])) if len(found) == 2 else None


def _row(db: Connection, intent_id: str) -> IntentRow:
    row = first_row(db, _by_id(), IntentRow, of=intent_id)
    if row is None:
        raise KeyError(intent_id)
    return row


def _intents(
    db: Connection, query: Callable[[], Select[Any]], **given: object
) -> tuple[Intent, ...]:
    return tuple(map(records.intent_from_row, all_rows(db, query(), IntentRow, **given)))


def _at_nonce(db: Connection, nonce: int) -> tuple[Intent, ...]:
    return _intents(db, _of_nonce, nonce=nonce)


def _unbooked(db: Connection) -> tuple[Intent, ...]:
    return _intents(db, _without_budget, settled=ledger_sums.settled_to(db))


def _ended_in_block(db: Connection, limit: int) -> tuple[Intent, ...]:
    return _intents(db, _ended, after=database.fact_number(db, ADOPTED_AFTER), limit=limit)


def _expected_nonce(db: Connection) -> int | None:
    """Adopted nonce, or one more than the highest that an intent since then has used on the
    chain.
    """
    adoption = _adoption(db)
    if adoption is None:
        return None
    resynced, after = adoption
    used = db.scalar(_used(), {"after": after})
    return max(resynced, -1 if used is None else used + 1)


_by_id = cache(lambda: select(IntentRow).where(IntentRow.id == bindparam("of")).with_for_update())
_rivals = cache(
    lambda: select(IntentRow).where(
        IntentRow.nonce == bindparam("nonce"), IntentRow.state.in_(_OPEN)
    )
)
_in_order = cache(lambda: select(IntentRow).order_by(IntentRow.seq))
_opened = cache(lambda: _in_order().where(IntentRow.state.in_(_OPEN)))
_of_nonce = cache(lambda: _in_order().where(IntentRow.nonce == bindparam("nonce")))
_of_step = cache(lambda: _in_order().where(IntentRow.step_id == bindparam("step_id")))
_newest = cache(lambda: select(IntentRow).order_by(IntentRow.seq.desc()).limit(bindparam("limit")))
_ended = cache(
    lambda: _newest().where(IntentRow.state.in_(_ENDED), IntentRow.seq > bindparam("after"))
)
_moves = cache(
    lambda: (
        select(TransitionRow)
        .where(TransitionRow.intent_id == bindparam("of"))
        .order_by(TransitionRow.seq)
    )
)
_left = cache(lambda: _moves().where(TransitionRow.after == IntentState.BROADCAST.value).limit(1))
_move = cache(lambda: update(IntentRow).where(IntentRow.seq == bindparam("of")))
_step = cache(lambda: select(StepRow).where(StepRow.id == bindparam("of")))
_decided = cache(lambda: update(StepRow).where(StepRow.id == bindparam("of")))
_plan = cache(
    lambda: (
        select(StepRow.plan_z)
        .join(IntentRow, IntentRow.step_id == StepRow.id)
        .where(IntentRow.id == bindparam("of"))
    )
)


@cache
def _used() -> Select[Any]:
    """Select from the highest nonce down to the first match, so that SQLite does not collect and
    sort all rows.
    """
    fits = func.coalesce(IntentRow.state, "").in_(_CONSUMED), IntentRow.seq + 0 > bindparam("after")
    return select(IntentRow.nonce).where(*fits).order_by(IntentRow.nonce.desc()).limit(1)


@cache
def _lines() -> Select[str, int, str | None, str | None, str | None]:
    columns = select(StepRow.id, StepRow.now_s, StepRow.decision, StepRow.reason, StepRow.outcome)
    return columns.order_by(StepRow.seq.desc()).limit(bindparam("limit"))


@cache
def _without_budget() -> Select[Any]:
    """Select consumed intents without a budget beyond the settled ones, oldest first."""
    lacking = IntentRow.state.in_(_CONSUMED), ~exists().where(BudgetRow.intent_id == IntentRow.id)
    return _in_order().where(IntentRow.seq > bindparam("settled"), *lacking)
