"""Stores of many wallets in one database: each sees its own rows alone, and logs only grow."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, text
from sqlalchemy.exc import DBAPIError

from agent.errors import ConfigError, OperatorNeeded
from agent.model import AgentCycle, Control, ControlKind, ControlOrigin, Cycle
from agent.store import Store, open_store
from agent.store.postgresql import session
from agent.store.tables import Base, CycleRow, IntentRow
from agent.store.users import UserTables
from tests.support.postgresql import OPERATOR, Opener, Server
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, grant, tx


def test_two_wallets__share_ids_and_see_nothing_of_each_other(opened: Opener) -> None:
    first = opened()
    second = opened(OTHER)
    for store, reason in ((first, "mine"), (second, "yours")):
        store.steps.begin("s", START_S, f'"{reason}"')
        store.steps.end("s", "hold", reason, None, "hold")
        store.journal.add_intent("s", tx(7), grant(), "i", START_S, None)
    second.pause_switch.pause("only yours", START_S)
    assert [summary.reason for summary in first.steps.newest(9)] == ["mine"]
    assert [summary.reason for summary in second.steps.newest(9)] == ["yours"]
    assert [len(store.journal.intents()) for store in (first, second)] == [1, 1]
    assert [store.pause_switch.read().paused for store in (first, second)] == [False, True]
    assert [store.trust.market_numbers("x") for store in (first, second)] == [{}, {}]


def test_paper_books_lie_beside_the_live_ones_of_a_wallet(opened: Opener) -> None:
    live = opened()
    paper = opened(kind="paper")
    live.steps.begin("s", START_S, "{}")
    assert len(live.steps.newest(9)) == 1
    assert paper.steps.newest(9) == ()


@pytest.mark.parametrize("statement", ["SELECT count(*) FROM steps", "DELETE FROM pins", "INSERT INTO pins VALUES ('w', 'a', 'c', 1)"])
def test_transaction_without_a_wallet__fails_and_finds_nothing(opened: Opener, statement: str) -> None:
    store = opened()
    store.trust.pin({"0xaa": "0xbb"}, START_S)
    with store.db.engine.connect() as db, pytest.raises(DBAPIError, match=r"names no wallet|row-level security"):
        db.execute(text(statement))
    assert store.trust.pins() == {"0xaa": "0xbb"}


def test_no_wallet_writes_a_row_of_another(opened: Opener) -> None:
    store = opened()
    key = session.store_key(CHAIN_ID, OTHER, "live")
    with pytest.raises(OperatorNeeded, match="row-level security"), store.db.write("steal") as db:
        db.execute(text("INSERT INTO pins (wallet, address, code_hash, pinned_s) VALUES (:key, 'a', 'c', 1)"), {"key": key})
    with store.db.write("take") as db:
        assert db.execute(text("UPDATE meta SET value = 'x' WHERE wallet = :key"), {"key": key}).rowcount == 0


def test_table__is_kept_by_wallet_and_a_superuser_is_refused(opened: Opener, server: Server, url: str, tmp_path: Path) -> None:
    opened()
    database = url.partition("/store")[2].partition("?")[0]
    forced = server.run("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relrowsecurity AND relforcerowsecurity", f"store{database}")
    assert int(forced) == len(Base.metadata.tables) + len(UserTables.metadata.tables)
    indexes = server.run(
        "SELECT tablename, split_part(indexdef, '(', 2) FROM pg_indexes JOIN pg_class ON relname = tablename WHERE relrowsecurity",
        f"store{database}",
    ).splitlines()
    assert len(indexes) > int(forced)
    assert [index for index in indexes if not index.partition("|")[2].startswith("wallet,")] == []
    with raises_code(OperatorNeeded, "store", "superuser", OPERATOR):
        open_store(url.replace("trimtab@", f"{OPERATOR}@"), CHAIN_ID, WALLET, secret_place=tmp_path / "x.store")


@pytest.mark.parametrize(
    "statement",
    [
        *("UPDATE transitions SET note = ''", "DELETE FROM transitions", "TRUNCATE transitions"),
        *("UPDATE control_log SET reason = ''", "DELETE FROM control_log", "TRUNCATE control_log"),
    ],
)
@pytest.mark.parametrize("is_granted", [False, True], ids=["as it is", "with the rights"])
def test_a_log_only_grows(opened: Opener, statement: str, is_granted: bool) -> None:
    """By grants, and where somebody grants them, by triggers."""
    store = opened()
    store.steps.begin("s", START_S, "{}")
    store.journal.add_intent("s", tx(7), grant(), "i", START_S, None)
    store.controls.queue(Control("c0", ControlKind.RESUME, (), "", "owner", ControlOrigin.API, START_S, START_S + 300))
    if is_granted:
        with store.db.write("grant") as db:
            db.execute(text("GRANT UPDATE, DELETE, TRUNCATE ON transitions, control_log TO trimtab"))
    refusal = r"only ever added|only grows" if is_granted else "permission denied"
    with pytest.raises(OperatorNeeded, match=refusal), store.db.write("forge") as db:
        db.execute(text(statement))
    assert [control_event.state for control_event in store.controls.events()] == ["queued"]
    assert [change.intent_id for change in store.journal.transitions(store.journal.intents()[0].id)] == [store.journal.intents()[0].id]


def first_row_of(store: Store, table: str) -> dict[str, object]:
    with store.db.read("look") as db:
        return dict(db.execute(text(f"SELECT * FROM {table}")).mappings().one())


def test_a_second_process_is_told_that_another_serves_the_wallet(opened: Opener) -> None:
    """Two open transactions on one nonce are two processes, not a damaged store."""
    first = opened()
    second = opened()
    first.steps.begin("s", START_S, "{}")
    first.journal.add_intent("s", tx(7), grant(), "i", START_S, None)
    row = {**dict(first_row_of(first, "intents")), "id": "j"}
    with raises_code(OperatorNeeded, "lock", "another process serves this wallet"), second.db.write("race") as db:
        db.execute(insert(IntentRow), [{name: cell for name, cell in row.items() if name not in ("seq", "wallet")}])
    assert [intent.note for intent in second.journal.intents()] == ["i"]


def test_second_open_cycle__is_refused_as_another_process_s(opened: Opener) -> None:
    store = opened()
    store.cycles.write(Cycle("first", AgentCycle(), START_S))
    row = {**dict(first_row_of(store, "cycles")), "id": "other"}
    with raises_code(OperatorNeeded, "lock", "another process serves this wallet"), store.db.write("race") as db:
        db.execute(insert(CycleRow), [{name: cell for name, cell in row.items() if name not in ("seq", "wallet")}])


def test_each_machine_needs_the_secret_of_the_first(opened: Opener, tmp_path: Path) -> None:
    opened()
    second = tmp_path / "second"
    second.mkdir()
    with raises_code(OperatorNeeded, "file", "secret", "missing"):
        opened(machine=second)
    assert not list(second.iterdir()), "nothing is made up"
    (second / "trimtab.store.secret").write_text("ab" * 32)
    (second / "trimtab.store.secret").chmod(0o600)
    with raises_code(OperatorNeeded, "file", "secret", "another store"):
        opened(machine=second)
    shutil.copy(tmp_path / "trimtab.store.secret", second)
    assert opened(machine=second).seal_reports()


def test_tables_are_created_once_by_whoever_comes_first(opened: Opener) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda number: opened(f"0x{number:040x}"), range(4)))
    assert [store.steps.newest(1) for store in stores] == [()] * 4


def test_a_pooler_that_loses_the_session_is_refused_by_name(url: str) -> None:
    """As PgBouncer in transaction mode, where the settings of a start are not those of the session."""
    with raises_code(OperatorNeeded, "store", "PgBouncer"):
        session.require_fit_server(create_engine(url))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql+psycopg2://a:hunter2@h/d", "psycopg2"),
        ("mysql://a:hunter2@h/d", "mysql"),
        ("postgresql+psycopg://nobody:hunter2@/store?host=FOLDER", "user, password and database"),
        ("postgresql+psycopg://trimtab:hunter2@/missing?host=FOLDER", "user, password and database"),
    ],
)
def test_unusable_address__is_refused_without_its_password(server: Server, tmp_path: Path, address: str, words: str) -> None:
    with pytest.raises((ConfigError, OperatorNeeded)) as refused:
        open_store(address.replace("FOLDER", str(server.folder)), CHAIN_ID, WALLET, secret_place=tmp_path / "x.store")
    text = f"{refused.value.message} {refused.value.remedy}"
    assert words in text
    assert "hunter2" not in text


def test_compose_file_s_database__is_one_that_stores_may_use(server: Server, tmp_path: Path) -> None:
    script = Path(__file__).parent.parent.parent / "deploy" / "database.sh"
    variables = {
        "PATH": f"{server.programs}:{os.environ['PATH']}",
        "PGHOST": str(server.folder),
        "POSTGRES_USER": OPERATOR,
        "AGENT_PASSWORD": "it's a secret",
    }
    subprocess.run(["sh", str(script)], env=variables, check=True)
    with closing(open_store(server.url("books", "agent"), CHAIN_ID, WALLET, secret_place=tmp_path / "trimtab.store")) as store:
        assert store.cycles.find_open_cycle() is None
    assert server.run("SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = 'agent'") == "t"
