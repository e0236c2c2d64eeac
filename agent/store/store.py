"""The store of one wallet on one chain: a repository for each subject over one database; every
write is on disk when its method returns.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import delete, select

from agent.errors import OperatorNeeded
from agent.store import budgets, database
from agent.store.accounts.balances import BalanceStore, PositionStore
from agent.store.accounts.ledger import LedgerStore, ValuationStore
from agent.store.alerts import AlertStore
from agent.store.budgets import BudgetStore
from agent.store.config_versions import ConfigVersionStore
from agent.store.database import LIVE, Database, all_rows, first_row, insert_rows, upsert_rows
from agent.store.files.backup import BOOKS_KEY, COPY_KEY
from agent.store.gradual_execution import GradualExecutionStore
from agent.store.journal import IntentStore, ProposalStore, StepStore
from agent.store.orders import OrderStore
from agent.store.paper import PaperStore
from agent.store.prices import AllocationStore, PriceStore
from agent.store.records import Pause, Pin
from agent.store.requests import RequestStore
from agent.store.strategies import StrategyStore
from agent.store.tables import ImplementationRow, PauseRow, PinRow


class Store:
    """Repositories of one wallet. Every database or disk failure is OperatorNeeded, and then
    nothing of the call was written.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self.steps = StepStore(db)
        self.journal = IntentStore(db)
        self.proposals = ProposalStore(db)
        self.budgets = BudgetStore(db)
        self.balances = BalanceStore(db)
        self.positions = PositionStore(db)
        self.ledger = LedgerStore(db)
        self.valuations = ValuationStore(db)
        self.orders = OrderStore(db)
        self.executions = GradualExecutionStore(db)
        self.strategies = StrategyStore(db)
        self.allocations = AllocationStore(db)
        self.prices = PriceStore(db)
        self.requests = RequestStore(db)
        self.trust = TrustStore(db)
        self.pause_switch = PauseSwitch(db)
        self.configs = ConfigVersionStore(db)
        self.alerts = AlertStore(db)
        self.paper = PaperStore(db)

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def bind_owner(self, chain_id: int) -> None:
        """Write wallet, chain and kind of data into a new store, compare them in an existing
        one.
        """
        owner = {"chain_id": str(chain_id), "wallet": self.db.wallet}
        with self.db.read("read its owner") as db:
            found = database.read_facts(db, *owner, BOOKS_KEY)
        books = found.pop(BOOKS_KEY, LIVE)
        if not found:
            marks = owner if self.db.book_kind == LIVE else {**owner, BOOKS_KEY: self.db.book_kind}
            with self.db.write("write its owner") as db:
                database.write_facts(db, marks)
        elif any(found.get(key, "").lower() != value.lower() for key, value in owner.items()):
            raise OperatorNeeded(
                f"store: belongs to wallet {found.get('wallet')} on chain {found.get('chain_id')}, "
                f"the config says {self.db.wallet} on chain {chain_id}",
                "give each wallet and chain a store of its own (store.url)",
            )
        elif books != self.db.book_kind:
            raise OperatorNeeded(
                f"store: holds {books} books, and this is about {self.db.book_kind} ones; nothing"
                " goes from the one to the other",
                "name the live store in store.url, and leave the paper store to trimtab paper and"
                " --paper",
            )

    def adopt_copy(self) -> None:
        """Adopt this copy on the owner's word: it is the store that continues."""
        with self.db.write("adopt the copy") as db:
            database.delete_facts(db, COPY_KEY)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Trusted contracts; each method is a transaction of its own."""

    db: Database

    def pin(
        self,
        contracts: Mapping[str, str],
        now_s: int,
        implementations: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        """Trust contracts by address and code hash, and proxy implementations by token, address and
        code hash; all of them or none.

        Each replaces an earlier pin of the same address.
        """
        with self.db.write("pin contracts") as db:
            upsert_rows(
                db,
                PinRow,
                [
                    {"address": address, "code_hash": found, "pinned_s": now_s}
                    for address, found in contracts.items()
                ],
            )
            behind = [
                {"token": token, "address": address, "code_hash": found}
                for token, address, found in implementations
            ]
            upsert_rows(db, ImplementationRow, [row | {"pinned_s": now_s} for row in behind])

    def unpin(self, address: str) -> bool:
        """Remove the trust in a contract; False if it was not pinned."""
        with self.db.write("unpin a contract") as db:
            return db.execute(delete(PinRow).where(PinRow.address == address)).rowcount > 0

    def pins(self) -> tuple[Pin, ...]:
        """Trusted contracts, by address."""
        with self.db.read("read the pins") as db:
            return tuple(
                Pin(row.address, row.code_hash, row.pinned_s)
                for row in all_rows(db, _pins(), PinRow)
            )

    def implementations(self) -> dict[str, tuple[str, str]]:
        """(implementation, its code hash) of trusted proxy tokens, by token."""
        with self.db.read("read the pins") as db:
            return {
                row.token: (row.address, row.code_hash)
                for row in all_rows(db, _implementations(), ImplementationRow)
            }


@dataclass(frozen=True, slots=True)
class PauseSwitch:
    """The pause switch in the store; each method is a transaction of its own."""

    db: Database

    def pause(self, reason: str, now_s: int, hard: bool = False) -> None:
        """Turn the pause switch on; one at hard stays there until `resume`."""
        self._turn(True, reason, now_s, hard)

    def resume(self, reason: str, now_s: int) -> None:
        """Turn the pause switch off; consecutive reverts are counted from here on."""
        self._turn(False, reason, now_s, False)

    def _turn(self, paused: bool, reason: str, now_s: int, hard: bool) -> None:
        with self.db.write("turn the pause switch") as db:
            before = first_row(db, _turned(), PauseRow)
            stays = paused and before is not None and before.paused and before.hard
            insert_rows(
                db,
                PauseRow,
                [{"paused": paused, "hard": hard or stays, "reason": reason, "at_s": now_s}],
            )
            if not paused:
                budgets.mark_resumed(db)

    def paused(self) -> Pause:
        """State of the pause switch. A copy that was not adopted is paused, and resuming does not
        change that (T8).
        """
        with self.db.read("read the pause switch") as db:
            if (copy := database.find_fact(db, COPY_KEY)) is not None:
                return Pause(
                    True,
                    f"this store is a copy ({copy}); only one may send: trimtab db adopt",
                    None,
                )
            row = first_row(db, _turned(), PauseRow)
            return (
                Pause(False, "", None)
                if row is None
                else Pause(row.paused, row.reason, row.at_s, row.hard)
            )


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
                f"the proposal {path} cannot be written ({error.strerror})",
                "make room there, then run it again",
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


_pins = cache(lambda: select(PinRow).order_by(PinRow.address))
_implementations = cache(lambda: select(ImplementationRow))
_turned = cache(lambda: select(PauseRow).order_by(PauseRow.seq.desc()).limit(1))
