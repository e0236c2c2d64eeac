"""The store of one wallet on one chain: journal, budgets, movements, pins, pause switch; every write is on disk when its method returns."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from sqlalchemy import Engine, Select, bindparam, delete, select, update

from agent.errors import OperatorNeeded
from agent.model import History, Intent, IntentEvent, IntentKind, IntentState, Receipt, SubmissionRefusal, UnsignedTx
from agent.ports import Grant
from agent.store import budgets, database, gradual_execution, journal, records, requests
from agent.store.accounts import balances
from agent.store.accounts.balances import BalanceStore
from agent.store.accounts.ledger import LIVE, LedgerStore
from agent.store.alerts import AlertStore
from agent.store.config_versions import ConfigVersionStore
from agent.store.database import all_rows, first_row, insert_rows, upsert_rows
from agent.store.files.backup import BOOKS_KEY, COPY_KEY
from agent.store.gradual_execution import GradualExecutionStore
from agent.store.orders import OrderStore
from agent.store.paper import PaperStore
from agent.store.prices import AllocationStore, PriceStore
from agent.store.records import IntentTransition, Movement, Pause, Pin, StepRecord, StepSummary
from agent.store.requests import RequestStore
from agent.store.strategies import StrategyStore
from agent.store.tables import ImplementationRow, MovementRow, PauseRow, PinRow, StepRow

# --- Proposals for an external signer: the block each was proposed at, and the folder of their files.


PREFIX = "proposal:"


class ProposalStore(
    BalanceStore,
    AlertStore,
    AllocationStore,
    LedgerStore,
    GradualExecutionStore,
    PriceStore,
    RequestStore,
    StrategyStore,
    OrderStore,
    ConfigVersionStore,
):
    """Implements ports.ProposalJournal in the facts of the store."""

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Record the block since which an intent is proposed."""
        with self._write("write a proposal down") as db:
            database.write_facts(db, {PREFIX + intent_id: since_block})

    def proposed(self) -> dict[str, int]:
        """Block since which each intent was proposed, by its id; dropped ones too."""
        with self._read("read the proposals") as db:
            return {key.removeprefix(PREFIX): int(value) for key, value in database.facts_with_prefix(db, PREFIX)}


@dataclass(frozen=True, slots=True)
class FileOutbox:
    """ports.Outbox: one owner-only file for each proposal."""

    folder: Path

    def put(self, name: str, text: str) -> str:
        """See ports.Outbox; a complete existing file is kept."""
        path, draft = self._path(name), self.folder / f".{name}.{secrets.token_hex(6)}.draft"
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if path.exists() and path.read_bytes() == text.encode():
                return str(path)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise OperatorNeeded(
                f"the proposal {path} cannot be written ({error.strerror})", "make room there, then run it again"
            ) from None
        finally:
            with suppress(OSError):
                draft.unlink()
        return str(path)

    def remove_proposal(self, name: str) -> None:
        """See ports.Outbox."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


class Store(ProposalStore, PaperStore):
    """Implements ports.Journal. Every database or disk failure is OperatorNeeded, and then nothing of the call was written.

    `coin` is the wrapped native coin: only its Withdrawal events are native coin.
    """

    def __init__(self, engine: Engine, wallet: str, coin: str = "") -> None:
        """Open the store; `heard` is called with each finished step, and its errors are raised."""
        super().__init__(engine, wallet, coin)
        self.heard: Callable[[StepRecord], None] | None = None

    def bind_owner(self, chain_id: int) -> None:
        """Write wallet, chain and kind of data into a new store, compare them in an existing one."""
        owner = {"chain_id": str(chain_id), "wallet": self.wallet}
        with self._read("read its owner") as db:
            found = database.read_facts(db, *owner, BOOKS_KEY)
        books = found.pop(BOOKS_KEY, LIVE)
        if not found:
            marks = owner if self.book_kind == LIVE else {**owner, BOOKS_KEY: self.book_kind}
            with self._write("write its owner") as db:
                database.write_facts(db, marks)
        elif any(found.get(key, "").lower() != value.lower() for key, value in owner.items()):
            raise OperatorNeeded(
                f"store: belongs to wallet {found.get('wallet')} on chain {found.get('chain_id')}, "
                f"the config says {self.wallet} on chain {chain_id}",
                "give each wallet and chain a store of its own (store.url)",
            )
        elif books != self.book_kind:
            raise OperatorNeeded(
                f"store: holds {books} books, and this is about {self.book_kind} ones; nothing goes from the one to the other",
                "name the live store in store.url, and leave the paper store to trimtab paper and --paper",
            )

    # steps
    def begin_step(self, step_id: str, now_s: int, input_json: str, asked_json: str | None = None) -> None:
        """Record the input of a step and its request; again, when a token was excluded meanwhile."""
        with self._write("write the step") as db:
            text = records.compress_text(input_json)
            if db.execute(_decided(), {"of": step_id, "input_z": text}).rowcount == 0:
                insert_rows(db, StepRow, [{"id": step_id, "now_s": now_s, "input_z": text, "asked_json": asked_json}])

    def end_step(self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str) -> None:
        """Record the decision and result of a step. Raises KeyError for a step that was not begun."""
        with self._write("write the outcome of the step") as db:
            plan_z = None if plan_json is None else records.compress_text(plan_json)
            ended = {"of": step_id, "decision": decision, "reason": reason, "outcome": outcome, "plan_z": plan_z}
            if db.execute(_decided(), ended).rowcount == 0:
                raise KeyError(step_id)
        if self.heard is not None and (found := self.step(step_id)) is not None:
            self.heard(found)

    def steps(self, limit: int) -> tuple[StepSummary, ...]:
        """The newest steps, newest first."""
        with self._read("read the steps") as db:
            return tuple(records.step_summary(row) for row in db.execute(_lines(), {"limit": limit}))

    def step(self, step_id: str) -> StepRecord | None:
        """One step with its input and plan; None if the id is unknown."""
        with self._read("read the step") as db:
            row = first_row(db, _step(), StepRow, of=step_id)
            return None if row is None else records.step_record(row)

    def prune(self, keep: int) -> int:
        """Delete old steps without a transaction beyond the newest `keep` of all; return how many."""
        with self._write("remove old steps") as db:
            return journal.prune(db, keep)

    def step_input(self, step_id: str) -> str | None:
        """Input of a step as JSON; None for a step that was not begun."""
        record = self.step(step_id)
        return None if record is None else record.input_json

    # intents
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
        """Record a new intent in state PLANNED. Raises OperatorNeeded if its nonce is taken, unless it may replace that transaction."""
        with self._write("write the transaction down") as db:
            return journal.intend(db, step_id, kind, tx, grant, note, now_s, deadline_s, replaces)

    def grant(self, intent_id: str) -> Grant:
        """Return the grant an intent was recorded with."""
        with self._read("read the grant") as db:
            return journal.grant(db, intent_id)

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
        """Move an intent along the transition table, by `event` if named. Raises ValueError for what the table forbids."""
        with self._write(f"write that a transaction is {to.value}") as db:
            return journal.advance(db, self.wallet, intent_id, to, now_s, tx_hash, receipt, note, event)

    def open_intents(self) -> Sequence[Intent]:
        """Intents that have not ended, oldest first."""
        with self._read("read open transactions") as db:
            return journal.find(db, open_only=True)

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Every intent of that nonce, ended ones too, oldest first."""
        with self._read("read transactions") as db:
            return journal.find(db, nonce=nonce)

    def undecided_at(self, nonce: int) -> Sequence[Intent]:
        """Ended intents of that nonce that may still be mined, since the one that ended them lost its block."""
        with self._read("read transactions") as db:
            return journal.undecided_at(db, nonce)

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """The newest intents that ended final or reverted since the operator last adopted a nonce, newest first."""
        with self._read("read transactions") as db:
            return journal.ended_in_block(db, limit)

    def unbooked(self) -> Sequence[Intent]:
        """Intents with a receipt that are in no budget yet, oldest first."""
        with self._read("read transactions") as db:
            return journal.find(db, unbooked=True)

    def intents(self, step_id: str | None = None, limit: int = 100) -> Sequence[Intent]:
        """Intents of one step, oldest first; without one the newest `limit`, newest first."""
        with self._read("read transactions") as db:
            return journal.newest(db, limit) if step_id is None else journal.find(db, step_id=step_id)

    def transitions(self, intent_id: str) -> tuple[IntentTransition, ...]:
        """Every move of one intent, oldest first."""
        with self._read("read transitions") as db:
            return journal.moves(db, intent_id)

    def expected_nonce(self) -> int | None:
        """The chain's next nonce as far as this store knows; None before one was adopted."""
        with self._read("read the nonce") as db:
            return journal.expected_nonce(db)

    def set_expected_nonce(self, nonce: int, now_s: int) -> None:
        """Adopt `nonce` as the chain's next one from now on."""
        with self._write("adopt the nonce") as db:
            if database.find_fact(db, journal.ADOPTED_NONCE) is not None:
                requests.release_withdrawals(db, now_s)
            journal.adopt_nonce(db, nonce)
            if balances.forget_prior_day(db, nonce):
                balances.require_position_scan(db)
            database.write_facts(db, {"adopted_s": now_s})

    def adopt_copy(self) -> None:
        """Adopt this copy on the owner's word: it is the store that continues."""
        with self._write("adopt the copy") as db:
            database.delete_facts(db, COPY_KEY)

    # budgets and movements
    def history(self, chain_now_s: int) -> History:
        """Sums over the last 24 h of chain time."""
        with self._read("read the budgets") as db:
            return gradual_execution.with_gradual_execution(db, self.wallet, self.coin, budgets.history(db, chain_now_s), chain_now_s)

    def book(self, intent: Intent, turnover: Fraction, loss: Fraction, gas_wei: int, chain_s: int, outflow: Fraction = Fraction(0)) -> None:
        """Add a finished intent to budgets and movements; a second call for the same intent changes nothing."""
        with self._write("book a transaction") as db:
            budgets.book_intent(db, self.wallet, self.coin, intent, turnover, loss, gas_wei, chain_s, outflow)

    def movements(self, limit: int = 1000) -> tuple[Movement, ...]:
        """The newest known changes of balances, newest first."""
        with self._read("read movements") as db:
            rows = all_rows(db, select(MovementRow).order_by(MovementRow.seq.desc()).limit(limit), MovementRow)
            return tuple(Movement(r.token, int(r.delta_raw), r.kind, r.block_number, r.chain_s, r.tx_hash) for r in rows)

    def last_rebalance(self) -> int | None:
        """Chain time of the newest successful swap that a trigger of the policy asked for."""
        with self._read("read the last rebalance") as db:
            return budgets.last_rebalance(db)

    def mark_review(self, chain_s: int, delay_ppm: int = 0, reviews: Sequence[str] = ()) -> None:
        """Record the last review of the portfolio, its schedules, and the delay of the next review."""
        with self._write("write the review") as db:
            budgets.mark_review(db, chain_s, delay_ppm, reviews)

    def mark_depegged(self, tokens: Sequence[str]) -> None:
        """Record the dollar tokens that left their peg and have not returned."""
        with self._write("write who left the peg") as db:
            database.write_facts(db, {budgets.DEPEGGED: " ".join(tokens)})

    def mark_unread(self, since_s: Sequence[tuple[str, int]]) -> None:
        """Record the assets whose balance cannot be read, and since when."""
        with self._write("write which balances are unknown") as db:
            database.write_facts(db, {budgets.UNREADABLE_BALANCES: " ".join(f"{token}:{at_s}" for token, at_s in since_s)})

    def mark_submission_refusals(self, found: Sequence[SubmissionRefusal]) -> None:
        """Record exits refused before sending; kept until the owner resumes, or they are replaced."""
        with self._write("write what was refused late") as db:
            budgets.mark_submission_refusals(db, found)

    # trust, pause
    def pin(self, contracts: Mapping[str, str], now_s: int, implementations: Sequence[tuple[str, str, str]] = ()) -> None:
        """Trust contracts by address and code hash, and proxy implementations by token, address and code hash; all of them or none.

        Each replaces an earlier pin of the same address.
        """
        with self._write("pin contracts") as db:
            upsert_rows(db, PinRow, [{"address": address, "code_hash": found, "pinned_s": now_s} for address, found in contracts.items()])
            behind = [{"token": token, "address": address, "code_hash": found} for token, address, found in implementations]
            upsert_rows(db, ImplementationRow, [row | {"pinned_s": now_s} for row in behind])

    def unpin(self, address: str) -> bool:
        """Remove the trust in a contract; False if it was not pinned."""
        with self._write("unpin a contract") as db:
            return db.execute(delete(PinRow).where(PinRow.address == address)).rowcount > 0

    def pins(self) -> tuple[Pin, ...]:
        """Trusted contracts, by address."""
        with self._read("read the pins") as db:
            return tuple(Pin(row.address, row.code_hash, row.pinned_s) for row in all_rows(db, _pins(), PinRow))

    def implementations(self) -> dict[str, tuple[str, str]]:
        """(implementation, its code hash) of trusted proxy tokens, by token."""
        with self._read("read the pins") as db:
            return {row.token: (row.address, row.code_hash) for row in all_rows(db, _implementations(), ImplementationRow)}

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Turn the pause switch on; one at hard stays there until `resume`."""
        self._turn(True, reason, now_s, hard)

    def resume(self, reason: str, now_s: int) -> None:
        """Turn the pause switch off; consecutive reverts are counted from here on."""
        self._turn(False, reason, now_s, False)

    def _turn(self, paused: bool, reason: str, now_s: int, hard: bool) -> None:
        with self._write("turn the pause switch") as db:
            before = first_row(db, _turned(), PauseRow)
            stays = paused and before is not None and before.paused and before.hard
            insert_rows(db, PauseRow, [{"paused": paused, "hard": hard or stays, "reason": reason, "at_s": now_s}])
            if not paused:
                budgets.mark_resumed(db)

    def paused(self) -> Pause:
        """State of the pause switch. A copy that was not adopted is paused, and resuming does not change that (T8)."""
        with self._read("read the pause switch") as db:
            if (copy := database.find_fact(db, COPY_KEY)) is not None:
                return Pause(True, f"this store is a copy ({copy}); only one may send: trimtab db adopt", None)
            row = first_row(db, _turned(), PauseRow)
            return Pause(False, "", None) if row is None else Pause(row.paused, row.reason, row.at_s, row.hard)


_step = cache(lambda: select(StepRow).where(StepRow.id == bindparam("of")))
_decided = cache(lambda: update(StepRow).where(StepRow.id == bindparam("of")))
_pins = cache(lambda: select(PinRow).order_by(PinRow.address))
_implementations = cache(lambda: select(ImplementationRow))
_turned = cache(lambda: select(PauseRow).order_by(PauseRow.seq.desc()).limit(1))


@cache
def _lines() -> Select[str, int, str | None, str | None, str | None]:
    columns = select(StepRow.id, StepRow.now_s, StepRow.decision, StepRow.reason, StepRow.outcome)
    return columns.order_by(StepRow.seq.desc()).limit(bindparam("limit"))
