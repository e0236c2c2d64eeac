"""The journal: steps, and intents with their transitions and their proposals to external
signers.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
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
    Plan,
    ProposalExecution,
    Rebalance,
    Receipt,
    StepInput,
    UnsignedTx,
)
from agent.ports import Grant
from agent.store import requests, seals
from agent.store.accounts import balances, budgets, day_counts, ledger_sums, positions
from agent.store.accounts.day_counts import CountedEvent
from agent.store.database.connection import Database
from agent.store.database.errors import damaged_row_error
from agent.store.database.facts import (
    ADOPTION_SEQ_KEY,
    fact_expression,
    fact_number_expression,
    fact_text,
    facts_with_prefix,
    find_fact,
    parse_fact_number,
    read_facts,
    write_facts,
)
from agent.store.database.rows import (
    IntentTransition,
    StepRecord,
    StepSummary,
    compress_text,
    decode_json,
    decode_optional,
    decompress_text,
    intent_from_row,
    step_record,
    step_summary,
)
from agent.store.database.statements import all_rows, first_row, insert_rows, max_value, upsert_rows
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
    TransitionFacts,
    find_rule,
)

ADOPTED_NONCE_KEY = "adopted_nonce"
"""Key of the nonce that the operator last adopted."""
MAX_PRUNED = 500
"""Maximum number of steps that one call deletes, so that a large store does not delay a cycle."""
REFUSED_OUTCOME = "refused"
"""Outcome of a step whose plan was refused."""
MAX_SEQ = 2**63 - 1
"""The largest SQLite integer; no row has it as number."""
PROPOSAL_KEY_PREFIX = "proposal:"
"""Prefix of the key of a proposed intent in the facts table."""
SIGNATURES_KEY_PREFIX = "signatures:"
"""Prefix of the key of the signatures of a proposed intent, as JSON by owner."""
EXECUTION_KEY_PREFIX = "execution:"
"""Prefix of the key of the newest transaction that executes a proposed intent."""


@dataclass(slots=True)
class StepStore:
    """Steps with their input and result; each method is a transaction of its own, but in a look
    that sends nothing all share one (Database.queueing).

    `on_step_recorded` is called with each finished step; its errors propagate.
    """

    db: Database
    on_step_recorded: Callable[[StepRecord], None] | None = None

    def begin(
        self,
        step_id: str,
        now_s: int,
        input_json: str,
        request_json: str | None = None,
        cycle_id: str | None = None,
    ) -> None:
        """Record the input of a step with its request and cycle; replace the input if the step has
        one.
        """
        row = {"id": step_id, "now_s": now_s, "input_z": compress_text(input_json)}
        if request_json is not None:
            row |= {"request_json": request_json, "cycle_id": cycle_id}
        self.db.write_later(
            "write the step",
            lambda db: upsert_rows(db, StepRow, [row], key_column="id"),
            keeps_cache=True,
        )

    def end(
        self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str
    ) -> None:
        """Record the decision and result of a step. Raises KeyError for a step that was not
        begun; in a look that sends nothing its next flush does, and drops all that it queued.
        """
        outcome_values = {
            "row_id": step_id,
            "decision": decision,
            "reason": reason,
            "outcome": outcome,
            "plan_z": None if plan_json is None else compress_text(plan_json),
        }

        def write_end(db: Connection) -> None:
            if outcome == REFUSED_OUTCOME:
                _count_refusal(db, step_id)
            if db.execute(_update_step(), outcome_values).rowcount == 0:
                raise KeyError(step_id)

        self.db.write_later("write the outcome of the step", write_end, keeps_cache=True)
        if self.on_step_recorded is not None and (record := self.get(step_id)) is not None:
            self.on_step_recorded(record)

    def newest(self, limit: int, before_step_id: str | None = None) -> tuple[StepSummary, ...]:
        """Return the newest steps, or the newest before the step `before_step_id`, newest first."""
        self.db.flush()
        with self.db.read("read the steps") as db:
            bind_values = {"limit": limit, "before": before_step_id}
            return tuple(step_summary(row) for row in db.execute(_select_summaries(), bind_values))

    def get(self, step_id: str) -> StepRecord | None:
        """Return a step with its input and plan; None if the id is unknown."""
        self.db.flush()
        with self.db.read("read the step") as db:
            row = first_row(db, select(StepRow).where(StepRow.id == step_id), StepRow)
            return None if row is None else step_record(row)

    def cycle_id(self, step_id: str) -> str | None:
        """Return the id of a step's cycle; None if it has none, or the step is unknown."""
        self.db.flush()
        with self.db.read("read the cycle of a step") as db:
            return db.scalar(select(StepRow.cycle_id).where(StepRow.id == step_id))

    def newest_input(self) -> StepInput | None:
        """Return the input of the newest step; None without steps."""
        for summary in self.newest(1):
            record = self.get(summary.id)
            return None if record is None else decode_json(StepInput, record.input_json)
        return None

    def input_json(self, step_id: str) -> str | None:
        """Return the input of a step as JSON; None if the id is unknown."""
        record = self.get(step_id)
        return None if record is None else record.input_json

    def is_by_hand(self, intent_id: str) -> bool:
        """True if the plan of the intent's step was a manual request; False without a plan."""
        with self.db.read("read the step") as db:
            plan_z = db.scalar(
                select(StepRow.plan_z)
                .join(IntentRow, IntentRow.step_id == StepRow.id)
                .where(IntentRow.id == intent_id)
            )
        if plan_z is None:
            return False
        decision = decode_json(Plan, decompress_text(plan_z)).decision
        return isinstance(decision, Rebalance) and decision.by_hand

    def prune_later(self, kept_count: int) -> None:
        """Delete old steps as `delete_old_steps` does, with the next write."""
        self.db.write_later("remove old steps", partial(delete_old_steps, kept_count=kept_count))


def _count_refusal(db: Connection, step_id: str) -> None:
    """Count a step as refused, unless it was before."""
    step = db.execute(select(StepRow.now_s, StepRow.outcome).where(StepRow.id == step_id)).first()
    if step is not None and step.outcome != REFUSED_OUTCOME:
        day_counts.add_events(db, CountedEvent.REFUSAL, step.now_s)


def delete_old_steps(db: Connection, kept_count: int) -> int:
    """Delete steps without a transaction that are not among the newest `kept_count` steps, up to
    MAX_PRUNED; return their number. The first step stays, because schedules count from it.
    """
    # counts rows: on PostgreSQL the steps of all wallets share one sequence
    newest_first = select(StepRow.seq).order_by(StepRow.seq.desc())
    newest_old_seq = db.scalar(newest_first.offset(kept_count).limit(1))
    if newest_old_seq is None:
        return 0
    first_seq = db.scalar(select(func.min(StepRow.seq)))
    has_no_intent = ~exists().where(IntentRow.step_id == StepRow.id)
    select_old_seqs = (
        select(StepRow.seq)
        .where(StepRow.seq > first_seq, StepRow.seq <= newest_old_seq, has_no_intent)
        .order_by(StepRow.seq)
        .limit(MAX_PRUNED)
    )
    old_seqs = db.scalars(select_old_seqs).all()
    if old_seqs:
        db.execute(delete(StepRow).where(StepRow.seq.in_(old_seqs)))
    return len(old_seqs)


@dataclass(frozen=True, slots=True)
class ProposalStore:
    """The block at which each intent was proposed to an external signer, the signatures of a Safe's
    owners, and the transaction that executes its call. A signature is public once it is executed.
    """

    db: Database

    def mark_proposed(self, intent_id: str, proposal_block: int) -> None:
        """Record the block at which an intent was proposed."""
        with self.db.write("record a proposal") as db:
            write_facts(db, {PROPOSAL_KEY_PREFIX + intent_id: proposal_block})

    def proposal_blocks(self) -> dict[str, int]:
        """Return the block of each proposal by intent id, dropped intents included."""
        with self.db.read("read the proposals") as db:
            return {
                fact_key.removeprefix(PROPOSAL_KEY_PREFIX): parse_fact_number(fact_key, block_text)
                for fact_key, block_text in facts_with_prefix(db, PROPOSAL_KEY_PREFIX)
            }

    def add_signatures(self, intent_id: str, signature_by_owner: Mapping[str, bytes]) -> None:
        """Record owners' signatures of a proposal, beside those of other owners."""
        with self.db.write("record signatures") as db:
            signatures_json = _signatures_json(db, intent_id)
            for owner, signature in signature_by_owner.items():
                signatures_json[owner] = signature.hex()
            fact_key = SIGNATURES_KEY_PREFIX + intent_id
            write_facts(db, {fact_key: json.dumps(signatures_json)})

    def signatures(self, intent_id: str) -> dict[str, bytes]:
        """Return the signatures of a proposal by owner."""
        with self.db.read("read signatures") as db:
            signatures_json = _signatures_json(db, intent_id)
        try:
            return {
                owner: bytes.fromhex(signature_hex)
                for owner, signature_hex in signatures_json.items()
            }
        except ValueError as error:
            raise damaged_row_error(str(error)) from None

    def record_execution(
        self, intent_id: str, execution: ProposalExecution, require_running: PauseCheck
    ) -> None:
        """Record the transaction that executes a proposal, before it is sent; not if
        `require_running` raises.
        """
        with self.db.write("record an execution") as db:
            require_running(read_pause(db))
            fact_key = EXECUTION_KEY_PREFIX + intent_id
            write_facts(db, {fact_key: codec.dumps(execution)})

    def execution(self, intent_id: str) -> ProposalExecution | None:
        """Return the newest transaction that executes a proposal; None if there is none."""
        with self.db.read("read an execution") as db:
            return decode_optional(
                ProposalExecution, find_fact(db, EXECUTION_KEY_PREFIX + intent_id)
            )


def _signatures_json(db: Connection, intent_id: str) -> dict[str, str]:
    signatures_json = fact_text(db, SIGNATURES_KEY_PREFIX + intent_id) or "{}"
    return dict(decode_json(dict[str, str], signatures_json))


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
            open_rows = all_rows(
                db,
                select(IntentRow).where(
                    IntentRow.nonce == tx.nonce, IntentRow.state.in_(OPEN_STATE_NAMES)
                ),
                IntentRow,
            )
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
            return decode_json(Grant, decompress_text(_intent_row(db, intent_id).grant_z))

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
        row = _intent_row(db, intent_id)
        old_state = IntentState(row.state)
        if move.tx_hash is not None and row.tx_hash not in (None, move.tx_hash):
            raise ValueError(
                f"intent {intent_id} already has hash {row.tx_hash}, not {move.tx_hash}"
            )
        _require_allowed_transition(db, row, move)
        tx_hash = move.tx_hash or row.tx_hash
        receipt_json = row.receipt_json if move.receipt is None else codec.dumps(move.receipt)
        if move.new_state not in NONCE_USED_STATES:  # also true if a reorg removes the receipt
            receipt_json = None
        if row.receipt_json is not None and receipt_json != row.receipt_json:
            budgets.unbook_intent(db, intent_from_row(row))
        stored_receipt = None
        if receipt_json is not None:
            stored_receipt = decode_json(Receipt, receipt_json)
        for layer in stores.LAYERS:
            layer.record_receipt(db, row, self.db.wallet, stored_receipt)
        ledger_sums.reopen_settled_intents(db, row.seq)
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
            reopenable_intents = []
            for intent in intents:
                rule = RULE_BY_EVENT.get((intent.state, IntentEvent.REOPEN))
                if rule is None:
                    continue
                if not any(
                    peer.state in OPEN_STATES for peer in replacement_family(intents, intent.id)
                ):
                    continue
                if rule.guard(_transition_facts(db, _intent_row(db, intent.id))) is None:
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
        return self.db.query("read the nonce", _expected_nonce)

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


def _require_allowed_transition(db: Connection, row: IntentRow, move: _Move) -> None:
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
        guard_refusal := rule.guard(_transition_facts(db, row, move.tx_hash, move.receipt))
    ) is not None:
        raise ValueError(
            f"intent {row.id} cannot go from {rule.state_before.value} to {new_state.value} {guard_refusal}"
        )


def _transition_facts(
    db: Connection, row: IntentRow, tx_hash: str | None = None, receipt: Receipt | None = None
) -> TransitionFacts:
    """Return the facts that the guards of the table need, of a move that brings these."""
    peers = replacement_family(_intents_at_nonce(db, row.nonce), row.id)
    ended_kinds = (
        peer.kind for peer in peers if peer.id != row.id and peer.state in ENDED_IN_BLOCK_STATES
    )
    adopted_nonce_and_seq = _adopted_nonce_and_seq(db)
    stored_receipt = None
    if row.receipt_json is not None:
        stored_receipt = decode_json(Receipt, row.receipt_json)
    return TransitionFacts(
        tx_hash=tx_hash or row.tx_hash,
        may_have_been_sent=db.scalar(_select_broadcast(), {"intent_id": row.id}) is not None,
        final_peer_kind=next(ended_kinds, None),
        is_nonce_adopted=adopted_nonce_and_seq is not None and row.seq <= adopted_nonce_and_seq[1],
        stored_receipt=stored_receipt,
        receipt=receipt,
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


def _adopted_nonce_and_seq(db: Connection) -> tuple[int, int] | None:
    """Return the last adopted nonce, and the newest intent at that time; None before an
    adoption.
    """
    adoption_facts = read_facts(db, ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY)
    if len(adoption_facts) < 2:
        return None
    nonce, seq = (
        parse_fact_number(key, adoption_facts[key]) for key in (ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY)
    )
    return nonce, seq


def _intent_row(db: Connection, intent_id: str) -> IntentRow:
    row = first_row(db, select(IntentRow).where(IntentRow.id == intent_id), IntentRow)
    if row is None:
        raise KeyError(intent_id)
    return row


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


def _expected_nonce(db: Connection) -> int | None:
    """Return the adopted nonce, or one more than the highest nonce used on the chain since then."""
    adopted_nonce, adoption_seq, highest_used_nonce = db.execute(_select_nonces()).one()
    if adopted_nonce is None or adoption_seq is None:
        return None
    return max(
        parse_fact_number(ADOPTED_NONCE_KEY, adopted_nonce),
        -1 if highest_used_nonce is None else highest_used_nonce + 1,
    )


_select_intents = cache(lambda: select(IntentRow).order_by(IntentRow.seq))
_select_open = cache(lambda: _select_intents().where(IntentRow.state.in_(OPEN_STATE_NAMES)))
_select_at_nonce = cache(lambda: _select_intents().where(IntentRow.nonce == bindparam("nonce")))
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
        IntentRow.state.in_(ENDED_IN_BLOCK_STATE_NAMES),
        IntentRow.seq > fact_number_expression(ADOPTION_SEQ_KEY),
        _is_on_chain(),
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
_update_step = cache(lambda: update(StepRow).where(StepRow.id == bindparam("row_id")))


@cache
def _select_nonces() -> Select[*tuple[Any, ...]]:
    """Select the adopted nonce, the newest intent at that time, and the highest nonce used since.
    SQLite walks the index down to the first match instead of sorting all rows.
    """
    is_later = IntentRow.seq + 0 > fact_number_expression(ADOPTION_SEQ_KEY)
    conditions = (
        func.coalesce(IntentRow.state, "").in_(NONCE_USED_STATE_NAMES),
        is_later,
        _is_on_chain(),
    )
    last_used_nonce = (
        select(IntentRow.nonce).where(*conditions).order_by(IntentRow.nonce.desc()).limit(1)
    )
    adopted_facts = (fact_expression(key) for key in (ADOPTED_NONCE_KEY, ADOPTION_SEQ_KEY))
    return select(*adopted_facts, last_used_nonce.scalar_subquery())


def _is_on_chain() -> ColumnElement[bool]:
    """Return the condition that an intent is not an order of an off-chain venue."""
    return IntentRow.nonce < FIRST_VENUE_NONCE


@cache
def _select_summaries() -> Select[str, int, str | None, str | None, str | None]:
    select_steps = select(
        StepRow.id, StepRow.now_s, StepRow.decision, StepRow.reason, StepRow.outcome
    )
    before_seq = select(StepRow.seq).where(StepRow.id == bindparam("before")).scalar_subquery()
    older_steps = select_steps.where(StepRow.seq < func.coalesce(before_seq, MAX_SEQ))
    return older_steps.order_by(StepRow.seq.desc()).limit(bindparam("limit"))


@cache
def _select_unbooked() -> Select[Any]:
    """Select intents that used their nonce, have no budget and are newer than the settled ones,
    oldest first.
    """
    conditions = (
        IntentRow.state.in_(NONCE_USED_STATE_NAMES),
        ~exists().where(BudgetUseRow.intent_id == IntentRow.id),
    )
    return _select_intents().where(
        IntentRow.seq > ledger_sums.settled_seq_expression(), *conditions
    )
