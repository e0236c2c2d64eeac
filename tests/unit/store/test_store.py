"""The store: whose it is, what it keeps, what it refuses, and that it never keeps signed bytes."""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Dialect, event, inspect
from sqlalchemy.dialects import postgresql, sqlite

from agent.errors import ConfigError, OperatorNeeded
from agent.store import Store, open_store, opening
from agent.store.database.connection import LIVE, PAPER
from agent.store.database.statements import insert_new_statement, upsert_statement
from agent.store.postgresql.schema import creating_statements as server_statements
from agent.store.tables import Base, FactRow, PriceRow
from agent.store.users import UserTables
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, bench, grant, tx

HASH = "0x" + "ab" * 32


def store_in(folder: Path, chain_id: int = CHAIN_ID, wallet: str = WALLET) -> Store:
    return open_store(f"sqlite:///{folder}/trimtab.db", chain_id, wallet)


store = store_fixture("file", begins_step=True)


def test_files_are_readable_by_their_owner_only(tmp_path: Path, store: Store) -> None:
    files = sorted(path.name for path in tmp_path.iterdir())

    assert files == ["trimtab.db", "trimtab.db-shm", "trimtab.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_store_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    store_in(tmp_path).close()
    (tmp_path / "trimtab.db").chmod(0o644)

    store_in(tmp_path).close()

    assert stat.S_IMODE((tmp_path / "trimtab.db").stat().st_mode) == 0o600


def test_every_commit_is_on_disk_before_it_returns(store: Store) -> None:
    with store.db.engine.connect() as connection:
        pragma = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
        cache_size = connection.exec_driver_sql("PRAGMA cache_size").scalar()
        busy = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()

    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert busy >= 1000
    assert cache_size == -512, "each connection of each wallet may keep so many KiB of pages"


def test_new_store_has_the_schema_of_the_models(store: Store) -> None:
    with store.db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_the_code_knows_exactly_the_versions_it_ships() -> None:
    scripts = Path(opening.__file__).parent / "migrations" / "versions"

    assert tuple(sorted(path.name.split("_")[0] for path in scripts.glob("[0-9]*.py"))) == opening.REVISIONS


def test_the_models_can_be_built_on_postgresql() -> None:
    text = "".join(server_statements())

    assert "BIGSERIAL" in text
    assert "UNIQUE INDEX one_open_intent_per_nonce ON intents (wallet, nonce) WHERE replaces IS NULL AND state IN" in text
    assert text.count("CREATE POLICY") == len(Base.metadata.tables) + len(UserTables.metadata.tables)


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgresql"])
def test_upserts_write_over_or_leave_rows_on_both_databases(dialect: Dialect) -> None:
    over = str(upsert_statement(FactRow, frozenset(("key", "value")), dialect.name).compile(dialect=dialect))

    key = "key" if dialect.name == "sqlite" else "wallet, key"

    assert f"ON CONFLICT ({key}) DO UPDATE SET value = excluded.value" in over.replace('"', "")
    assert "ON CONFLICT DO NOTHING" in str(insert_new_statement(PriceRow, dialect.name).compile(dialect=dialect))


@pytest.mark.parametrize(("chain_id", "wallet"), [(1, WALLET), (CHAIN_ID, OTHER)])
def test_a_store_of_another_wallet_or_chain_is_not_opened(tmp_path: Path, chain_id: int, wallet: str) -> None:
    store_in(tmp_path).close()

    with raises_code(OperatorNeeded, "store_owner", WALLET, CHAIN_ID):
        store_in(tmp_path, chain_id, wallet)


@pytest.mark.parametrize(
    ("chain_id", "wallet", "kind", "code"),
    [
        pytest.param(1, WALLET, LIVE, "store_owner", id="chain"),
        pytest.param(CHAIN_ID, OTHER, LIVE, "store_owner", id="wallet"),
        pytest.param(CHAIN_ID, WALLET, PAPER, "paper", id="kind of data"),
    ],
)
def test_new_store_that_two_processes_begin__is_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain_id: int, wallet: str, kind: str, code: str
) -> None:
    bind_owner = Store.bind_owner
    with monkeypatch.context() as patch:
        patch.setattr(Store, "bind_owner", lambda *_: None)
        first = store_in(tmp_path)
        second = open_store(f"sqlite:///{tmp_path}/trimtab.db", chain_id, wallet, store_kind=kind)
    write = second.db.write

    @contextmanager
    def write_as_the_second(action: str) -> Iterator[Connection]:
        bind_owner(first, CHAIN_ID)
        with write(action) as db:
            yield db

    monkeypatch.setattr(second.db, "write", write_as_the_second)
    with raises_code(OperatorNeeded, code):
        bind_owner(second, chain_id)
    first.close()
    second.close()
    store_in(tmp_path).close()


@pytest.mark.parametrize("version", ["9999", "0000", ""])
def test_store_of_an_unknown_version_is_left_as_it_is(tmp_path: Path, version: str) -> None:
    store_in(tmp_path).close()
    with sqlite3.connect(tmp_path / "trimtab.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()
    before = (tmp_path / "trimtab.db").read_bytes()

    with raises_code(OperatorNeeded, "store_version", f"version {version}") as caught:
        store_in(tmp_path)
    assert "the trimtab that wrote the store" in caught.value.remedy
    assert (tmp_path / "trimtab.db").read_bytes() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "trimtab.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    with raises_code(OperatorNeeded, "not_a_store"):
        store_in(tmp_path)


def test_a_file_that_is_no_database_asks_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "trimtab.db").write_bytes(b"not a database, but long enough to have a header of its own" * 100)

    with raises_code(OperatorNeeded, "store", "not a database"):
        store_in(tmp_path)


def test_a_damaged_page_asks_for_the_operator(tmp_path: Path) -> None:
    first = store_in(tmp_path)
    for number in range(200):
        first.steps.begin(str(number), START_S, "{}" * number)
    first.close()
    path = tmp_path / "trimtab.db"
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)

    with raises_code(OperatorNeeded, "store", "database disk image is malformed"):
        store_in(tmp_path)


def test_an_interrupted_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = opening._migrate

    def interrupted(engine) -> None:
        def fail(_connection, _cursor, statement, *_rest) -> None:
            if "CREATE TABLE budgets" in statement:
                raise KeyboardInterrupt

        event.listen(engine, "before_cursor_execute", fail)
        original(engine)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_migrate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store_in(tmp_path)
    with sqlite3.connect(tmp_path / "trimtab.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    store_in(tmp_path).close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "sqlite:////nowhere/at/all/trimtab.db", "foo://x"])
def test_an_address_that_cannot_hold_a_journal_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.url"):
        open_store(url, CHAIN_ID, WALLET)


def test_a_database_password_is_not_repeated_in_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store("postgresql+nodriver://user:hunter2@host/db", CHAIN_ID, WALLET)
    assert "hunter2" not in str(caught.value)


def test_no_file_of_the_store_holds_signed_bytes(tmp_path: Path) -> None:
    setup = bench(tmp_path)
    setup.run(0)
    setup.run(1)

    signed = [s.signed_bytes for s in setup.signer.signed]

    assert len(signed) == 2
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        for raw in signed:
            assert raw not in data
            assert raw.hex().encode() not in data.lower()
    with setup.store.db.read("search") as connection:
        cells = [
            cell
            for table in inspect(connection).get_table_names()
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
            for cell in row
        ]
    texts = [zlib.decompress(cell) if isinstance(cell, bytes) else str(cell).encode() for cell in cells]
    assert any(setup.signer.signed[0].hash.encode() in text for text in texts)
    assert not any(raw in text or raw.hex().encode() in text for text in texts for raw in signed)


def test_pins_are_replaced(store: Store) -> None:
    store.trust.pin({OTHER: "0x01"}, START_S)

    store.trust.pin({OTHER: "0x02"}, START_S + 1)

    assert store.trust.pins() == {OTHER: "0x02"}


def test_all_that_is_trusted_at_once_is_pinned_or_none_of_it(store: Store) -> None:
    with raises_code(OperatorNeeded, "store", "cannot pin"):
        store.trust.pin({OTHER: "0x01"}, START_S, [(OTHER, WALLET, None)])  # type: ignore[list-item]
    assert store.trust.pins() == {}
    assert store.trust.implementations() == {}


def test_the_confirmed_config_is_the_last_one(store: Store) -> None:
    assert store.configs.confirmed_digest() is None
    store.configs.record("aa", START_S)
    store.configs.record("bb", START_S)
    assert store.configs.confirmed_digest() == "bb"


def test_a_full_disk_loses_nothing_and_asks_for_the_operator(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.steps.begin("s", START_S, "{}")
    intent = store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)
    with store.db.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    event.listen(store.db.engine, "checkout", lambda raw, *_: raw.execute(f"PRAGMA max_page_count = {pages}"))

    with raises_code(OperatorNeeded, "store", "full") as caught:
        for number in range(100):
            store.steps.begin(f"n{number}", START_S, os.urandom(20_000).hex())
    assert "free space" in caught.value.remedy
    store.close()
    again = store_in(tmp_path)
    assert again.journal.open_intents() == (intent,)
    again.steps.begin("after", START_S, "{}")
    again.close()
