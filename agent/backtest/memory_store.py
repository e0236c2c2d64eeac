"""In-memory store of a simulation, with answers cached until a write changes them.

A simulation is its only writer, so one connection serves all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select

from agent.model import Allocation, ExpectedBalances, ExternalTransfer, History, Intent, LedgerBalance, Snapshot, Valuation
from agent.store import open_store
from agent.store.accounts.ledger import Place
from agent.store.database import WRITE, database_errors
from agent.store.store import Store
from agent.store.tables import BudgetRow
from agent.units import Token

Answer = TypeVar("Answer")
DAY_S = 86_400
CACHE_SAFE_WRITES = ("write the step", "write the outcome of the step", "write prices down")
"""Writes that change none of the answers that are kept."""


class InMemoryStore(Store):
    """A store with a single writer. Valuations are not recorded, since the simulation calculates them anyway.

    Without `keeps_prices` prices are not recorded either: for triggers and allocators without history.
    """

    def __init__(self, engine: Engine, wallet: str, coin: str, keeps_prices: bool) -> None:
        super().__init__(engine, wallet, coin)
        self._keeps_prices = keeps_prices
        self._known: dict[Hashable, Any] = {}
        self._noted: Mapping[str, int] | None = None
        self._db = engine.connect()
        self._db.info[WRITE] = True

    def close(self) -> None:
        """See Store."""
        self._db.close()
        super().close()

    @contextmanager
    def _read(self, what: str) -> Iterator[Connection]:
        with database_errors(what), self._db.begin():
            yield self._db

    @contextmanager
    def _write(self, what: str) -> Iterator[Connection]:
        with database_errors(what), self._db.begin():
            yield self._db
        if what not in CACHE_SAFE_WRITES:
            self._known.clear()
            self._noted = None

    def _once(self, key: Hashable, ask: Callable[[], Answer]) -> Answer:
        if key not in self._known:
            self._known[key] = ask()
        found: Answer = self._known[key]
        return found

    def books(self) -> ExpectedBalances:
        """See Store."""
        return self._once("books", super().books)

    def ledger_balances(self, head_block: int) -> tuple[LedgerBalance, ...]:
        """See Store: no entry is of a block that the head has not reached."""
        return self._once("stands", lambda: super(InMemoryStore, self).ledger_balances(head_block))

    def open_intents(self) -> Sequence[Intent]:
        """See Store."""
        return self._once("open", super().open_intents)

    def unbooked(self) -> Sequence[Intent]:
        """See Store."""
        return self._once("unbooked", super().unbooked)

    def intents_without_entry(self) -> tuple[Intent, ...]:
        """See Store."""
        return self._once("unentered", super().intents_without_entry)

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """See Store: only the newest, since simulated blocks are never reorganised."""
        return self._once("ended", lambda: super(InMemoryStore, self).ended_in_block(min(limit, 1)))

    def expected_nonce(self) -> int | None:
        """See Store."""
        return self._once("nonce", super().expected_nonce)

    def allocation(self, owner: str = "") -> Allocation | None:
        """See Store."""
        return self._once(("allocation", owner), lambda: super(InMemoryStore, self).allocation(owner))

    def has_places(self, places: Iterable[Place]) -> bool:
        """See Store."""
        wanted = frozenset(places)
        return self._once(("places", wanted), lambda: super(InMemoryStore, self).has_places(wanted))

    def history(self, chain_now_s: int) -> History:
        """See Store: without a write its daily sums change only when the oldest entry becomes a day old."""
        known: tuple[History, int | None] | None = self._known.get("history")
        if known is not None and (known[1] is None or chain_now_s < known[1]):
            return known[0]
        found = super().history(chain_now_s)
        if found.started_s is not None and found.campaign is None and found.spent is None and not found.flows:
            with self._read("read the budgets") as db:
                oldest = db.scalar(select(func.min(BudgetRow.chain_s)).where(BudgetRow.chain_s > chain_now_s - DAY_S))
            self._known["history"] = (found, None if oldest is None else oldest + DAY_S)
        return found

    def record_token_names(self, tokens: Sequence[Token], numeraire: Token, coin: str) -> None:
        """See Store."""
        key = ("names", tuple(tokens), numeraire, coin)
        if key not in self._known:
            super().record_token_names(tokens, numeraire, coin)
            self._known[key] = True

    def record_balances(self, snapshot: Snapshot, found: Mapping[str, int], flows: Sequence[ExternalTransfer], turn: int) -> bool:
        """See Store: unchanged balances need no new opening."""
        if not flows and self._noted == found:
            return True
        done = super().record_balances(snapshot, found, flows, turn)
        self._noted = dict(found) if done else None
        return done

    def has_prices(self, numeraire: str, at_s: int) -> bool:
        """See Store."""
        return super().has_prices(numeraire, at_s) if self._keeps_prices else True

    def value(self, found: Valuation, forced: bool) -> bool:
        """See Store: nothing is written."""
        return False

    def last_valuation_block(self) -> int:
        """See Store."""
        return -1


def open_memory_store(folder: Path, chain_id: int, wallet: str, coin: str, keeps_prices: bool) -> InMemoryStore:
    """Open a new store in `folder`."""
    path = folder / "backtest.db"
    path.write_bytes(_empty(chain_id, wallet, coin))
    store = open_store(f"sqlite:///{path}", chain_id, wallet, coin)
    return InMemoryStore(store.engine, wallet, coin, keeps_prices)


@lru_cache(maxsize=4)
def _empty(chain_id: int, wallet: str, coin: str) -> bytes:
    """File of a new store: a search creates thousands, and a copy takes a fifth of the time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        open_store(f"sqlite:///{path}", chain_id, wallet, coin).close()
        return path.read_bytes()
