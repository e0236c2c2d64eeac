"""A new store is created from the models, whole or not at all, and without Alembic."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

import agent.store
from agent.store import open_memory_store, open_store
from agent.store.database.connection import Database
from agent.store.files.backup import inspect_store_file
from agent.store.migrations.schema import REVISIONS
from agent.store.store import Store
from tests.support.transactions import CHAIN_ID, WALLET

SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
GROWING = {f"{table}_no_{change}" for table in ("control_log", "transitions") for change in ("update", "delete", "replace")}


def schema(database: Database) -> list[tuple[str, str, str, str | None]]:
    with database.read("read the schema") as db:
        return [tuple(row) for row in db.exec_driver_sql(SCHEMA)]


def test_file_and_memory_stores_have_one_schema(tmp_path: Path) -> None:
    file = open_store(f"sqlite:///{tmp_path}/new.db", CHAIN_ID, WALLET)
    memory = open_memory_store(CHAIN_ID, WALLET)

    file_schema = schema(file.db)

    assert file_schema == schema(memory.db)
    assert len(file_schema) > 60
    assert {name for kind, name, *_ in file_schema if kind == "trigger"} == GROWING
    file.close()
    memory.close()


def test_a_new_store_needs_no_migrations(tmp_path: Path) -> None:
    script = f"""
import sys
from agent.store import open_store
open_store("sqlite:///{tmp_path}/new.db", {CHAIN_ID}, {WALLET!r}).close()
assert "alembic" not in sys.modules
"""

    subprocess.run([sys.executable, "-c", script], check=True)

    assert inspect_store_file(tmp_path / "new.db").version == REVISIONS[-1]


def killed_before(path: Path, statement: int) -> bool:
    """Create a store in a process of its own that is killed before its SQL statement or commit of that number; return whether it was."""
    child = os.fork()
    if child == 0:
        countdown = statement

        def count(*_: object) -> None:
            nonlocal countdown
            countdown -= 1
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        try:
            open_store(f"sqlite:///{path}", CHAIN_ID, WALLET).close()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_creation_leaves_an_empty_or_whole_store(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/whole.db", CHAIN_ID, WALLET).close()
    with closing(sqlite3.connect(tmp_path / "whole.db")) as file:
        whole = file.execute(SCHEMA).fetchall()
    sizes = set()
    is_killed = True
    statement = 0
    while is_killed:
        statement += 1
        path = tmp_path / f"{statement}.db"
        is_killed = killed_before(path, statement)
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute(SCHEMA).fetchall()
        assert rows in ([], whole)
        sizes.add(len(rows))
        store = open_store(f"sqlite:///{path}", CHAIN_ID, WALLET)
        store.steps.begin("s", 1, "{}")
        store.close()
        assert inspect_store_file(path).version == REVISIONS[-1]
        with closing(sqlite3.connect(path)) as file:
            assert file.execute(SCHEMA).fetchall() == whole

    assert statement > len(whole) // 2
    assert sizes == {0, len(whole)}


def test_package_loads_the_store_on_its_first_use() -> None:
    assert agent.store.Store is Store
    with pytest.raises(AttributeError, match="open_strore"):
        agent.store.open_strore  # noqa: B018


def test_query_until_keeps_answers_until_a_write_or_expiry() -> None:
    """An answer that began later is not one for an earlier time."""
    database = open_memory_store(CHAIN_ID, WALLET).db
    queries_s: list[int] = []

    def ten_seconds_long(_db: Connection, time_s: int) -> tuple[int, float]:
        queries_s.append(time_s)
        return time_s, time_s + 10

    def answers(*times_s: int) -> list[int]:
        return [database.query_until("ask", ten_seconds_long, time_s) for time_s in times_s]

    assert answers(20, 29, 30, 29) == [20, 20, 30, 29]
    with database.write("keep", keeps_cache=True):
        pass
    assert answers(30) == [29]
    with database.write("forget"):
        pass
    assert answers(30) == [30]
    assert queries_s == [20, 30, 29, 30]
    database.close()
