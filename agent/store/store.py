"""The store of one wallet on one chain: a repository for each subject over one database. A write is
on disk when its method returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam, delete, inspect, select

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused
from agent.model import PaperWallet, Verdict
from agent.store.accounts.balances import BalanceStore
from agent.store.accounts.budgets import BudgetStore
from agent.store.accounts.day_counts import DayCountStore
from agent.store.accounts.ledger import LedgerStore
from agent.store.accounts.ledger_sums import ValuationStore
from agent.store.accounts.positions import CashStore, PositionStore
from agent.store.alerts import AlertStore
from agent.store.controls import ControlStore, TelegramBotStore
from agent.store.cycles import CycleStore
from agent.store.database.connection import LIVE, Database
from agent.store.database.errors import database_errors
from agent.store.database.facts import (
    delete_facts,
    fact_number,
    facts_with_prefix,
    find_fact,
    read_facts,
    write_facts,
)
from agent.store.database.rows import compress_text, decode_json, decode_optional, decompress_text
from agent.store.database.statements import all_rows, insert_rows, upsert_rows
from agent.store.executions import ExecutionStore
from agent.store.files.backup import COPY_KEY, STORE_KIND_KEY, open_read_only
from agent.store.files.pause import PauseSwitch
from agent.store.journal.intents import IntentStore
from agent.store.journal.proposals import ProposalStore
from agent.store.journal.steps import StepStore
from agent.store.orders import OrderStore
from agent.store.prices import IMPORT_SOURCE, AllocationStore, PriceStore
from agent.store.requests import RequestStore
from agent.store.runs import RunReportStore
from agent.store.seals import SEALED_TABLES, SealReport, seal_report
from agent.store.tables import (
    Base,
    ConfigRow,
    FactRow,
    ImplementationRow,
    PinRow,
    PriceRow,
)

S = TypeVar("S")


class Store:
    """Repositories of one wallet. A method that fails has written nothing: it raises PassingFault if
    disk, lock or network may recover by themselves, OperatorNeeded if the database is damaged.
    """

    def __init__(self, db: Database) -> None:
        self.db = db
        self.steps = StepStore(db)
        self.journal = IntentStore(db)
        self.cycles = CycleStore(db)
        self.proposals = ProposalStore(db)
        self.budgets = BudgetStore(db)
        self.balances = BalanceStore(db)
        self.cash = CashStore(db)
        self.positions = PositionStore(db)
        self.ledger = LedgerStore(db)
        self.valuations = ValuationStore(db)
        self.orders = OrderStore(db)
        self.executions = ExecutionStore(db)
        self.allocations = AllocationStore(db)
        self.prices = PriceStore(db)
        self.requests = RequestStore(db)
        self.trust = TrustStore(db)
        self.pause_switch = PauseSwitch(db)
        self.configs = ConfigVersionStore(db)
        self.alerts = AlertStore(db)
        self.day_counts = DayCountStore(db)
        self.telegram_bot = TelegramBotStore(db)
        self.controls = ControlStore(db)
        self.paper = PaperStore(db)
        self.run_reports = RunReportStore(db)

    def layer_repository(self, build_repository: Callable[[Database], S]) -> S:
        """Return the repository of a layer."""
        return build_repository(self.db)

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def bind_owner(self, chain_id: int) -> None:
        """Write wallet, chain and kind of data to a new store; compare them in an existing one."""
        owner_facts = {"chain_id": str(chain_id), "wallet": self.db.wallet}
        with self.db.read("read its owner") as db:
            stored_facts = read_facts(db, *owner_facts, STORE_KIND_KEY)
        if not stored_facts:
            with self.db.write("write its owner") as db:
                # another process may have been first
                stored_facts = read_facts(db, *owner_facts, STORE_KIND_KEY)
                if not stored_facts:
                    kind_fact = {STORE_KIND_KEY: self.db.store_kind}
                    is_live = self.db.store_kind == LIVE
                    write_facts(db, owner_facts if is_live else owner_facts | kind_fact)
                    return
        stored_kind = stored_facts.pop(STORE_KIND_KEY, LIVE)
        if any(
            stored_facts.get(fact_key, "").lower() != expected_value.lower()
            for fact_key, expected_value in owner_facts.items()
        ):
            raise OperatorNeeded(
                f"store: belongs to wallet {stored_facts.get('wallet')} on chain {stored_facts.get('chain_id')}, "
                f"the config says {self.db.wallet} on chain {chain_id}",
                "use a separate store for each wallet and chain (store.url)",
                code=ErrorCode.STORE_OWNER,
            )
        if stored_kind != self.db.store_kind:
            raise OperatorNeeded(
                f"store: holds {stored_kind} data, but the command needs {self.db.store_kind} data",
                "set store.url to the live store; only trimtab paper "
                "and --paper use the paper store",
                code=ErrorCode.PAPER,
            )

    def adopt_copy(self) -> None:
        """Adopt this copy after the owner has confirmed that it is the store to continue with."""
        with self.db.write("adopt the copy") as db:
            delete_facts(db, COPY_KEY)

    def seal_reports(self) -> tuple[SealReport, ...]:
        """Check every row of the sealed tables."""
        with self.db.read("check the seals") as db:
            return tuple(seal_report(self.db, db, model) for model in SEALED_TABLES)


AGENT_EXPIRY_KEY_PREFIX = "agent:"
"""Prefix of the key of the expiry of an agent's approval, Unix milliseconds."""
MARKETS_KEY_PREFIX = "markets:"
"""Prefix of the key of the pinned market numbers of a network of the off-chain futures venue."""
APPROVAL_NONCE_KEY = "agent approval nonce"
"""Key of the newest nonce for approving an agent key."""
ACCOUNT_MODE_KEY_PREFIX = "mode:"
"""Prefix of the key of the mode of an account at the off-chain futures venue."""
ADDRESS_DIGITS = 32
"""Number of hex digits of an address in a key of the facts table; keys have at most 40
characters.
"""


def _address_key(prefix: str, address: str) -> str:
    return prefix + address.lower()[2 : 2 + ADDRESS_DIGITS]


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Trusted contracts and approved agent keys; each method is a transaction of its own."""

    db: Database

    def pin(
        self,
        code_hash_by_address: Mapping[str, str],
        now_s: int,
        implementations: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        """Pin contracts by address and code hash, and proxy implementations by token, address and
        code hash, in one transaction. A pin replaces an earlier pin of the same address.
        """
        with self.db.write("pin contracts") as db:
            upsert_rows(
                db,
                PinRow,
                [
                    {"address": address, "code_hash": code_hash, "pinned_s": now_s}
                    for address, code_hash in code_hash_by_address.items()
                ],
            )
            implementation_rows = [
                {"token": token, "address": address, "code_hash": code_hash}
                for token, address, code_hash in implementations
            ]
            upsert_rows(
                db, ImplementationRow, [row | {"pinned_s": now_s} for row in implementation_rows]
            )

    def pins(self) -> dict[str, str]:
        """Return the code hashes of the trusted contracts by address, ordered by address."""
        with self.db.read("read the pins") as db:
            return dict(db.execute(_select_pins()).all())

    def record_agent_expiry(self, address: str, until_ms: int) -> int:
        """Record when the approval of a futures venue's agent key expires, unless already recorded;
        return the recorded time.
        """
        fact_key = _address_key(AGENT_EXPIRY_KEY_PREFIX, address)
        with self.db.write("write the agent's approval") as db:
            if (recorded_ms := fact_number(db, fact_key)) == 0:
                write_facts(db, {fact_key: until_ms})
            return recorded_ms or until_ms

    def account_mode(self, account: str) -> tuple[str, int]:
        """Return the newest recorded mode of an account at the futures venue, and its time in Unix
        seconds; ("", 0) without one.
        """
        with self.db.read("read the account's mode") as db:
            mode_text = find_fact(db, _address_key(ACCOUNT_MODE_KEY_PREFIX, account)) or ""
        mode, _, time_text = mode_text.rpartition("@")
        return (mode, int(time_text)) if mode and time_text.isdecimal() else ("", 0)

    def record_account_mode(self, account: str, mode: str, at_s: int) -> None:
        """Record the mode of an account at the futures venue, as read at `at_s`."""
        with self.db.write("write the account's mode") as db:
            write_facts(db, {_address_key(ACCOUNT_MODE_KEY_PREFIX, account): f"{mode}@{at_s}"})

    def take_approval_nonce(self, now_ms: int) -> int:
        """Record and return the nonce for approving an agent key: the current time, or one after
        the newest recorded nonce.
        """
        with self.db.write("write the approval's nonce") as db:
            nonce = max(now_ms, fact_number(db, APPROVAL_NONCE_KEY) + 1)
            write_facts(db, {APPROVAL_NONCE_KEY: nonce})
            return nonce

    def agent_expiry_ms(self, address: str) -> int:
        """Return the recorded expiry of an agent's approval; zero without one."""
        fact_key = _address_key(AGENT_EXPIRY_KEY_PREFIX, address)
        with self.db.read("read the agent's approval") as db:
            return fact_number(db, fact_key)

    def pin_markets(self, network: str, number_by_market: Mapping[str, int]) -> None:
        """Pin the numbers of an off-chain venue's markets by name, in place of earlier ones."""
        with self.db.write("pin market numbers") as db:
            write_facts(db, {MARKETS_KEY_PREFIX + network: json.dumps(dict(number_by_market))})

    def market_numbers(self, network: str) -> dict[str, int]:
        """Return the pinned numbers of an off-chain venue's markets by name; empty without pins.
        Raises OperatorNeeded if they are damaged.
        """
        fact_key = MARKETS_KEY_PREFIX + network
        with self.db.read("read the market numbers") as db:
            numbers_json = find_fact(db, fact_key)
        try:
            return dict(decode_json(dict[str, int], numbers_json or "{}"))
        except OperatorNeeded:
            raise OperatorNeeded(
                f"store: {fact_key} is damaged", "trimtab trust", code=ErrorCode.DAMAGED
            ) from None

    def implementations(self) -> dict[str, tuple[str, str]]:
        """Return (implementation, code hash) of trusted proxy tokens, by token."""
        with self.db.read("read the pins") as db:
            return {
                row.token: (row.address, row.code_hash)
                for row in all_rows(db, _select_implementations(), ImplementationRow)
            }


_select_pins = cache(lambda: select(PinRow.address, PinRow.code_hash).order_by(PinRow.address))
_select_implementations = cache(lambda: select(ImplementationRow))


UNCONFIRMED = "noticed"
"""Origin of a version that was edited by hand and not confirmed."""


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version. `text` is the config in canonical form, without comments and secrets; None if
    only the hash was stored.
    """

    number: int
    digest: str
    at_s: int
    origin: str
    text: str | None


class ConfigChanged(Refused):
    """Raised when a process uses a config that the owner has replaced."""


@dataclass(frozen=True, slots=True)
class ConfigVersionStore:
    """Config versions; each method is a transaction of its own."""

    db: Database

    def record(
        self,
        config_hash: str,
        now_s: int,
        config_text: str | None = None,
        origin: str = "confirmed",
    ) -> None:
        """Record a config file that the owner has confirmed or, with `origin` UNCONFIRMED, has
        not.
        """
        with self.db.write("write the config's hash") as db:
            compressed_config = None if config_text is None else compress_text(config_text)
            insert_rows(
                db,
                ConfigRow,
                [
                    {
                        "config_hash": config_hash,
                        "at_s": now_s,
                        "text_z": compressed_config,
                        "origin": origin,
                    }
                ],
            )

    def confirmed_digest(self) -> str | None:
        """Return the hash of the config file that was confirmed last."""
        with self.db.read("read the config's hash") as db:
            digest: str | None = db.scalar(_select_confirmed_digest())
            return digest

    def require_current(self, digest: str, digest_at_start: str | None) -> None:
        """Raise ConfigChanged if the owner has confirmed a version other than `digest` and
        `digest_at_start`.

        `digest` is the version that the process uses, `digest_at_start` the confirmed version at
        its start.
        """
        confirmed_digest = self.confirmed_digest()
        if confirmed_digest not in (digest_at_start, digest):
            verdict = Verdict("config", digest[:16], str(confirmed_digest)[:16], False)
            raise ConfigChanged(
                "the config was changed after this process had read it",
                (verdict,),
                "start it again",
            )

    def newest(self, limit: int = 100) -> tuple[ConfigVersion, ...]:
        """Return the newest versions, newest first."""
        with self.db.read("read the configs") as db:
            config_rows = all_rows(db, _select_newest_configs(), ConfigRow, limit=limit)
            return tuple(
                ConfigVersion(
                    row.seq,
                    row.config_hash,
                    row.at_s,
                    row.origin,
                    None if row.text_z is None else decompress_text(row.text_z),
                )
                for row in config_rows
            )


_select_newest_configs = cache(
    lambda: select(ConfigRow).order_by(ConfigRow.seq.desc()).limit(bindparam("limit"))
)


@cache
def _select_confirmed_digest() -> Select[Any]:
    newest_digest_query = select(ConfigRow.config_hash).order_by(ConfigRow.seq.desc()).limit(1)
    return newest_digest_query.where(ConfigRow.origin != UNCONFIRMED)


RowReader = Callable[[type[Base]], list[dict[str, object]]]
"""Function that returns the rows of a table of another store; empty without that store."""
PAPER_WALLET_KEY = "paper"
"""Key of the paper wallet as JSON."""


@dataclass(frozen=True, slots=True)
class PaperStore:
    """The paper wallet; each method is a transaction of its own."""

    db: Database

    def wallet(self) -> PaperWallet | None:
        """Return the paper wallet; None before `begin`."""
        with self.db.read("read the paper wallet") as db:
            wallet_json = find_fact(db, PAPER_WALLET_KEY)
            return decode_optional(PaperWallet, wallet_json)

    def begun_wallet(self) -> PaperWallet:
        """Return the paper wallet. Raises OperatorNeeded before `begin`."""
        wallet = self.wallet()
        if wallet is None:
            raise OperatorNeeded("there is no paper wallet yet", "run trimtab paper to create one")
        return wallet

    def begin(self, wallet: PaperWallet) -> None:
        """Record the initial paper wallet. Raises ConfigError if there is one."""
        with self.db.write("begin the paper wallet") as db:
            if find_fact(db, PAPER_WALLET_KEY) is not None:
                raise ConfigError(
                    "paper trading has already started",
                    "omit --value, --start and --margin; to start over, begin a new paper store",
                    code=ErrorCode.PAPER_STARTED,
                )
            write_facts(db, {PAPER_WALLET_KEY: codec.dumps(wallet)})

    def save(self, wallet: PaperWallet) -> None:
        """Save the paper wallet. Raises OperatorNeeded if there is none."""
        with self.db.write("write the paper wallet") as db:
            if find_fact(db, PAPER_WALLET_KEY) is None:
                raise OperatorNeeded(
                    "the paper wallet has not started", "run trimtab paper to create one"
                )
            write_facts(db, {PAPER_WALLET_KEY: codec.dumps(wallet)})

    def copy_pins(self, live_rows_of: RowReader) -> None:
        """Replace the pins with those of the live store; without that store remove them."""
        models_and_rows = [(model, live_rows_of(model)) for model in (PinRow, ImplementationRow)]
        market_facts = {
            str(row["key"]): row["value"]
            for row in live_rows_of(FactRow)
            if str(row["key"]).startswith(MARKETS_KEY_PREFIX)
        }
        with self.db.write("copy the pins") as db:
            stored_keys = {key for key, _ in facts_with_prefix(db, MARKETS_KEY_PREFIX)}
            if dropped_keys := stored_keys - market_facts.keys():
                delete_facts(db, *dropped_keys)
            write_facts(db, market_facts)
            for model, pin_rows in models_and_rows:
                db.execute(delete(model))
                insert_rows(db, model, pin_rows)

    def copy_prices(self, live_rows_of: RowReader) -> None:
        """Copy the live store's prices of hours that have none, and remove imported prices that it
        no longer has.
        """
        live_rows = {_price_key(row): row for row in live_rows_of(PriceRow)}
        with self.db.write("copy prices") as db:
            paper_rows = {
                _price_key(row): dict(row)
                for row in db.execute(select(PriceRow.__table__)).mappings()
            }
            for key, row in list(paper_rows.items()):
                if row["source"] == IMPORT_SOURCE and live_rows.get(key) != row:
                    del paper_rows[key]
                    is_row = (
                        column == row[column.name] for column in inspect(PriceRow).primary_key
                    )
                    db.execute(delete(PriceRow).where(*is_row))
            new_rows = [row for key, row in live_rows.items() if key not in paper_rows]
            insert_rows(db, PriceRow, new_rows)


def _price_key(row: Mapping[Any, Any]) -> tuple[object, ...]:
    return row["numeraire"], row["token"], row["hour"]


def rows_of_file(store_path: Path, model: type[Base]) -> list[dict[str, object]]:
    """Return the rows of a table of another store's file; empty if the file or the table does not
    exist.
    """
    if not store_path.is_file():
        return []
    table_name = model.__tablename__
    column_names = [column.name for column in model.__table__.columns]
    with database_errors(f"read {store_path}"), closing(open_read_only(store_path)) as live_db:
        exists_query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if live_db.execute(exists_query, (table_name,)).fetchone() is None:
            return []
        table_rows = live_db.execute(f"SELECT {', '.join(column_names)} FROM {table_name}")  # noqa: S608  names of our own models
        return [dict(zip(column_names, row, strict=True)) for row in table_rows]
