"""Intents with their transitions: the write-ahead journal."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    exists,
    func,
    select,
    update,
)

from agent import codec
from agent.errors import ErrorCode, PassingFault
from agent.layers import stores
from agent.model import (
    FIRST_VENUE_NONCE,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Receipt,
    UnsignedTx,
)
from agent.ports import Grant
from agent.store import requests, seals
from agent.store.accounts import balances, budgets, ledger_sums, positions
from agent.store.accounts.intent_plans import grant_of_intent, intent_row
from agent.store.accounts.nonces import ADOPTED_NONCE_KEY, expected_nonce, is_on_chain
from agent.store.database.connection import Database
from agent.store.database.facts import (
    ADOPTION_SEQ_KEY,
    fact_number_expression,
    find_fact,
    parse_fact_number,
    read_facts,
    write_facts,
)
from agent.store.database.rows import (
    IntentTransition,
    compress_text,
    decode_optional,
    intent_from_row,
)
from agent.store.database.statements import all_rows, insert_rows, is_one_of, max_value
from agent.store.files.pause import PauseCheck, read_pause
from agent.store.tables import BudgetUseRow, IntentRow, StepRow, TransitionRow
from agent.store.transitions import (
    ENDED_IN_BLOCK_STATE_NAMES,
    ENDED_IN_BLOCK_STATES,
    NONCE_USED_STATE_NAMES,
    NONCE_USED_STATES,
    OPEN_STATE_NAMES,
    OPEN_STATES,
    RULE_BY_EVENT,
    PastFacts,
    TransitionFacts,
    find_rule,
)

MOVE_KEYS = (ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY, ledger_sums.LAST_SETTLED_INTENT)
"""Keys of the facts that a move of an intent reads."""


@dataclass(frozen=True, slots=True)
class _Move:
    """A change of an intent's state, by its `event` where the state alone does not say which, and
    what is learned with it.
    """

    new_state: IntentState
    now_s: int
    tx_hash: str | None = None
    receipt: Receipt | None = None
    note: str = ""
    event: IntentEvent | None = None


@dataclass(frozen=True, slots=True)
class IntentStore:
    """The write-ahead journal: intents and their transitions; each method is a transaction of its
    own.
    """

    db: Database

    def add_intent(
        self,
        step_id: str,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        now_s: int,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """Record a new intent, PLANNED, with the grant that a restart needs to sign it again.
        Raises PassingFault if an open intent has its nonce, unless it may replace that intent.

        `deadline_s` is the chain time after which the transaction must not be sent (None: never
        expires). `replaces` is the id of the newest open intent at the nonce, whose bytes were
        sent. A CANCEL without it replaces the only open intent there.
        """
        with self.db.write("write the transaction") as db:
            open_rows = all_rows(db, _select_open_at_nonce(), IntentRow, nonce=tx.nonce)
            replaced_id = _replaceable_id(open_rows, grant.kind, replaces)
            if open_rows and replaced_id is None:
                raise PassingFault(
                    f"nonce {tx.nonce} already has an open transaction:"
                    f" {', '.join(f'{row.note} ({row.tx_hash})' for row in open_rows)}",
                    "run the command again: it resolves open transactions first",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
            if replaces is not None and replaced_id is None:
                raise ValueError(
                    f"no open transaction at nonce {tx.nonce} can be replaced by a {grant.kind.value}"
                )
            intent = Intent(
                uuid.uuid4().hex[:16],
                step_id,
                grant.kind,
                IntentState.PLANNED,
                tx,
                note,
                now_s,
                deadline_s,
                None,
                None,
                replaced_id,
            )
            row = {
                "id": intent.id,
                "step_id": step_id,
                "kind": grant.kind.value,
                "state": intent.state.value,
                "nonce": tx.nonce,
                "tx_json": codec.dumps(tx),
                "grant_z": compress_text(codec.dumps(grant)),
                "note": note,
                "created_s": now_s,
                "deadline_s": deadline_s,
                "replaces": replaced_id,
            }
            insert_rows(db, IntentRow, [row])
            transition = IntentTransition(intent.id, None, intent.state, now_s, None, note)
            _record_transition(self.db, db, transition)
            return intent

    def grant(self, intent_id: str) -> Grant:
        """Return the grant of an intent."""
        with self.db.read("read the grant") as db:
            return grant_of_intent(db, intent_id)

    def advance(
        self,
        intent_id: str,
        new_state: IntentState,
        now_s: int,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        note: str = "",
        event: IntentEvent | None = None,
    ) -> Intent:
        """Move an intent to another state. Raises ValueError if the table or a guard forbids the
        move, and for a second hash.

        The effects of a receipt are written in the same transaction: what the layers record of it,
        and the budget entry is deleted if a reorg removes the receipt.
        """
        move = _Move(new_state, now_s, tx_hash, receipt, note, event)
        with self.db.write(f"write that a transaction is {new_state.value}") as db:
            return self._advance(db, intent_id, move)

    def record_sending(
        self, intent_ids: Sequence[str], now_s: int, note: str, require_running: PauseCheck
    ) -> list[Intent]:
        """Move intents to BROADCAST by IntentEvent.SEND, all or none: not if `require_running`
        raises. Raises as `advance`.
        """
        with self.db.write("write that a transaction is sent") as db:
            require_running(read_pause(db))
            move = _Move(IntentState.BROADCAST, now_s, note=note, event=IntentEvent.SEND)
            return [self._advance(db, intent_id, move) for intent_id in intent_ids]

    def _advance(self, db: Connection, intent_id: str, move: _Move) -> Intent:
        row = intent_row(db, intent_id)
        old_state = IntentState(row.state)
        if move.tx_hash is not None and row.tx_hash not in (None, move.tx_hash):
            raise ValueError(
                f"intent {intent_id} already has hash {row.tx_hash}, not {move.tx_hash}"
            )
        facts = read_facts(db, *MOVE_KEYS)
        _require_allowed_transition(db, facts, row, move)
        tx_hash = move.tx_hash or row.tx_hash
        receipt_json = row.receipt_json if move.receipt is None else codec.dumps(move.receipt)
        if move.new_state not in NONCE_USED_STATES:  # also true if a reorg removes the receipt
            receipt_json = None
        if row.receipt_json is not None and receipt_json != row.receipt_json:
            budgets.unbook_intent(db, intent_from_row(row))
        stored_receipt = decode_optional(Receipt, receipt_json)
        for layer in stores.LAYERS:
            layer.record_receipt(db, row, self.db.wallet, stored_receipt)
        ledger_sums.reopen_settled_intents(db, facts, row.seq)
        db.execute(
            _update_intent(),
            {
                "row_seq": row.seq,
                "state": move.new_state.value,
                "tx_hash": tx_hash,
                "receipt_json": receipt_json,
            },
        )
        transition = IntentTransition(
            intent_id, old_state, move.new_state, move.now_s, tx_hash, move.note
        )
        _record_transition(self.db, db, transition)
        intent = intent_from_row(row)
        return replace(intent, state=move.new_state, tx_hash=tx_hash, receipt=stored_receipt)

    def open_intents(self) -> Sequence[Intent]:
        """Return intents that have not ended, oldest first."""
        return self.db.query("read open transactions", _intents, _select_open)

    def stored_intent(self, intent: Intent) -> Intent:
        """Return an intent as it is stored now."""
        return next(stored for stored in self.intents_at(intent.tx.nonce) if stored.id == intent.id)

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Return every intent with this nonce, ended ones included, oldest first."""
        with self.db.read("read transactions") as db:
            return _intents_at_nonce(db, nonce)

    def reopenable_intents_at(self, nonce: int) -> Sequence[Intent]:
        """Return ended intents with this nonce that may still be mined, because none of them ended
        in a block and an open intent shares the nonce.
        """
        with self.db.read("read transactions") as db:
            intents = _intents_at_nonce(db, nonce)
            facts = read_facts(db, *MOVE_KEYS)
            reopenable_intents = []
            for intent in intents:
                rule = RULE_BY_EVENT.get((intent.state, IntentEvent.REOPEN))
                if rule is None:
                    continue
                if not any(
                    peer.state in OPEN_STATES for peer in replacement_family(intents, intent.id)
                ):
                    continue
                if rule.guard(_transition_facts(db, facts, intent_row(db, intent.id))) is None:
                    reopenable_intents.append(intent)
            return tuple(reopenable_intents)

    def intents_ended_in_block(self, limit: int) -> Sequence[Intent]:
        """Return the newest intents that ended in a block since the operator last adopted a nonce,
        newest first.
        """
        return self.db.query("read transactions", _intents_ended_in_block, limit)

    def unbooked_intents(self) -> Sequence[Intent]:
        """Return intents with a receipt that are not in the budgets yet, oldest first."""
        return self.db.query("read transactions", _unbooked_intents)

    def successful_trades(self, *outcomes: str) -> Sequence[Intent]:
        """Return the successful swaps and liquidity actions of steps with one of these outcomes,
        oldest first; "" stands for a step without an outcome.
        """
        with self.db.read("read transactions") as db:
            return _intents(db, _select_succeeded, outcomes=outcomes)

    def intents(self, step_id: str | None = None, limit: int = 100) -> Sequence[Intent]:
        """Return the intents of a step, oldest first; without a step the newest `limit`, newest
        first.
        """
        with self.db.read("read transactions") as db:
            if step_id is None:
                return _intents(db, _select_newest, limit=limit)
            return _intents(db, _select_of_step, step_id=step_id)

    def transitions(self, intent_id: str) -> tuple[IntentTransition, ...]:
        """Return every transition of an intent, oldest first. Rows without a valid seal are
        omitted.
        """
        with self.db.read("read transitions") as db:
            return tuple(
                IntentTransition(
                    row.intent_id,
                    IntentState(row.old_state) if row.old_state else None,
                    IntentState(row.new_state),
                    row.at_s,
                    row.tx_hash,
                    row.note,
                )
                for row in seals.sealed_rows(
                    self.db, db, _select_transitions(), TransitionRow, intent_id=intent_id
                )
            )

    def newest_transition_s(self) -> int:
        """Return the time of the newest transition with a valid seal; 0 without one."""
        with self.db.read("read transitions") as db:
            newest_transition = next(
                seals.sealed_rows(self.db, db, _select_newest_transition(), TransitionRow), None
            )
            return 0 if newest_transition is None else newest_transition.at_s

    def expected_nonce(self) -> int | None:
        """Return the next nonce according to this store; None before a nonce was adopted."""
        return self.db.query("read the nonce", expected_nonce)

    def newest_venue_nonce(self) -> int:
        """Return the highest nonce of an order at an off-chain venue; 0 before the first."""
        with self.db.read("read the nonce") as db:
            select_highest = select(func.max(IntentRow.nonce))
            return db.scalar(select_highest.where(IntentRow.nonce >= FIRST_VENUE_NONCE)) or 0

    def adopt_nonce(self, nonce: int, now_s: int) -> None:
        """Adopt `nonce` as the chain's next nonce, regardless of earlier intents."""
        with self.db.write("adopt the nonce") as db:
            if find_fact(db, ADOPTED_NONCE_KEY) is not None:
                requests.release_withdrawals(db, now_s)
            write_facts(
                db, {ADOPTED_NONCE_KEY: nonce, ADOPTION_SEQ_KEY: max_value(db, IntentRow.seq)}
            )
            if balances.forget_prior_day(db, nonce):
                positions.request_position_scan(db)


def _replaceable_id(
    open_rows: Sequence[IntentRow], kind: IntentKind, replaces: str | None
) -> str | None:
    """Return the id of the open intent that a new one may replace; None if there is none.

    An intent is replaced at most once, by the same kind with higher fees or by a cancel; a cancel
    only by a cancel.
    """
    cancel_kind = IntentKind.CANCEL.value
    if replaces is None:
        may_cancel = (
            len(open_rows) == 1 and kind is IntentKind.CANCEL and open_rows[0].kind != cancel_kind
        )
        return open_rows[0].id if may_cancel else None
    replaced_ids = {row.replaces for row in open_rows}
    for row in open_rows:
        if (
            row.id == replaces
            and row.id not in replaced_ids
            and row.state == IntentState.BROADCAST.value
            and kind.value in (row.kind, cancel_kind)
        ):
            return row.id
    return None


def _record_transition(
    store_database: Database, db: Connection, transition: IntentTransition
) -> None:
    old_state = transition.old_state
    row = asdict(transition) | {
        "old_state": None if old_state is None else old_state.value,
        "new_state": transition.new_state.value,
    }
    seals.append_rows(store_database, db, TransitionRow, [row])


def _require_allowed_transition(
    db: Connection, facts: Mapping[str, str], row: IntentRow, move: _Move
) -> None:
    """Raise ValueError unless the table has this move, it leads to its new state, and its guard
    allows it.
    """
    new_state = move.new_state
    try:
        rule = find_rule(IntentState(row.state), move.event or new_state)
    except ValueError as error:
        raise ValueError(f"intent {row.id} {error}") from None
    if rule.state_after is not new_state:
        raise ValueError(
            f"intent {row.id} goes to {rule.state_after.value} by {rule.event.value}, not to {new_state.value}"
        )
    if (
        guard_refusal := rule.guard(_transition_facts(db, facts, row, move.tx_hash, move.receipt))
    ) is not None:
        raise ValueError(
            f"intent {row.id} cannot go from {rule.state_before.value} to {new_state.value} {guard_refusal}"
        )


def _transition_facts(
    db: Connection,
    facts: Mapping[str, str],
    row: IntentRow,
    tx_hash: str | None = None,
    receipt: Receipt | None = None,
) -> TransitionFacts:
    """Return what the guards of the table need, from the stored `facts` of MOVE_KEYS, of a move
    that brings these.
    """

    def read_past() -> PastFacts:
        peers = replacement_family(_intents_at_nonce(db, row.nonce), row.id)
        ended_kinds = (
            peer.kind for peer in peers if peer.id != row.id and peer.state in ENDED_IN_BLOCK_STATES
        )
        return PastFacts(
            db.scalar(_select_broadcast(), {"intent_id": row.id}) is not None,
            next(ended_kinds, None),
        )

    adopted_nonce_and_seq = _adopted_nonce_and_seq(facts)
    return TransitionFacts(
        tx_hash or row.tx_hash,
        adopted_nonce_and_seq is not None and row.seq <= adopted_nonce_and_seq[1],
        decode_optional(Receipt, row.receipt_json),
        receipt,
        read_past,
    )


def replacement_family(intents: Sequence[Intent], intent_id: str) -> tuple[Intent, ...]:
    """Return the intents of `intents`, oldest first, that share the nonce with an intent by
    replacement, including the intent itself.

    Transactions that a reorg removed long ago have the same nonce and do not count.
    """
    replaces_by_id = {intent.id: intent.replaced_intent_id for intent in intents}

    def root_id(member_id: str) -> str:
        while (older_id := replaces_by_id.get(member_id)) is not None:
            member_id = older_id
        return member_id

    return tuple(intent for intent in intents if root_id(intent.id) == root_id(intent_id))


def _adopted_nonce_and_seq(facts: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the last adopted nonce, and the newest intent at that time; None before an
    adoption.
    """
    if not facts.keys() >= {ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY}:
        return None
    nonce, seq = (
        parse_fact_number(key, facts[key]) for key in (ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY)
    )
    return nonce, seq


def _intents(
    db: Connection, build_query: Callable[[], Select[Any]], **binds: object
) -> tuple[Intent, ...]:
    return tuple(map(intent_from_row, all_rows(db, build_query(), IntentRow, **binds)))


def _intents_at_nonce(db: Connection, nonce: int) -> tuple[Intent, ...]:
    return _intents(db, _select_at_nonce, nonce=nonce)


def _unbooked_intents(db: Connection) -> tuple[Intent, ...]:
    return _intents(db, _select_unbooked)


def _intents_ended_in_block(db: Connection, limit: int) -> tuple[Intent, ...]:
    return _intents(db, _select_ended_in_block, limit=limit)


_select_intents = cache(lambda: select(IntentRow).order_by(IntentRow.seq))
_select_open = cache(lambda: _select_intents().where(is_one_of(IntentRow.state, OPEN_STATE_NAMES)))
_select_at_nonce = cache(lambda: _select_intents().where(IntentRow.nonce == bindparam("nonce")))
_select_open_at_nonce = cache(
    lambda: _select_at_nonce().where(is_one_of(IntentRow.state, OPEN_STATE_NAMES))
)
_select_of_step = cache(lambda: _select_intents().where(IntentRow.step_id == bindparam("step_id")))
_select_succeeded = cache(
    lambda: (
        _select_intents()
        .join(StepRow, StepRow.id == IntentRow.step_id)
        .where(
            IntentRow.kind.in_((IntentKind.SWAP.value, IntentKind.LIQUIDITY.value)),
            IntentRow.state.in_((IntentState.MINED.value, IntentState.FINAL.value)),
            func.coalesce(StepRow.outcome, "").in_(bindparam("outcomes", expanding=True)),
        )
    )
)
_select_newest = cache(
    lambda: select(IntentRow).order_by(IntentRow.seq.desc()).limit(bindparam("limit"))
)
_select_ended_in_block = cache(
    lambda: _select_newest().where(
        is_one_of(IntentRow.state, ENDED_IN_BLOCK_STATE_NAMES),
        IntentRow.seq > fact_number_expression(ADOPTION_SEQ_KEY),
        is_on_chain(),
    )
)
_select_transitions = cache(
    lambda: (
        select(TransitionRow)
        .where(TransitionRow.intent_id == bindparam("intent_id"))
        .order_by(TransitionRow.seq)
    )
)
_select_newest_transition = cache(lambda: select(TransitionRow).order_by(TransitionRow.seq.desc()))
# of any program: bytes that may have left count as sent
_select_broadcast = cache(
    lambda: (
        _select_transitions().where(TransitionRow.new_state == IntentState.BROADCAST.value).limit(1)
    )
)
_update_intent = cache(lambda: update(IntentRow).where(IntentRow.seq == bindparam("row_seq")))


@cache
def _select_unbooked() -> Select[Any]:
    """Select intents that used their nonce, have no budget and are newer than the settled ones,
    oldest first.
    """
    conditions = (
        is_one_of(IntentRow.state, NONCE_USED_STATE_NAMES),
        ~exists().where(BudgetUseRow.intent_id == IntentRow.id),
    )
    return _select_intents().where(
        IntentRow.seq > ledger_sums.settled_seq_expression(), *conditions
    )
