"""A new store is made of one file of statements, which says what the migrations make, and nothing else."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from agent.store import open_store
from agent.store.files.backup import inspect_store_file
from agent.store.opening import HEAD_SCHEMA, REVISIONS, run_migrations
from scripts.store_schema import migrated
from tests.support.transactions import CHAIN_ID, WALLET


def by_migrations(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection, connection.begin():
        run_migrations(connection)
    engine.dispose()


def schema(path: Path) -> dict[tuple[str, str], object]:
    """Tables with their columns, keys and foreign keys, indexes with theirs, triggers, and the text of each without white space."""
    with closing(sqlite3.connect(path)) as file:
        found: dict[tuple[str, str], object] = {}
        for kind, name, table, sql in file.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall():
            asked = ("table_xinfo", "foreign_key_list", "index_list") if kind == "table" else ("index_xinfo",) if kind == "index" else ()
            told = [file.execute(f"PRAGMA {one}({name})").fetchall() for one in asked]
            found[kind, name] = (table, None if sql is None else "".join(sql.split()), told)
        return found


def test_a_new_store_is_what_the_migrations_make(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/new.db", CHAIN_ID, WALLET).close()
    by_migrations(tmp_path / "migrated.db")
    new, old = schema(tmp_path / "new.db"), schema(tmp_path / "migrated.db")
    assert new == old and len(new) > 60
    assert inspect_store_file(tmp_path / "new.db").version == inspect_store_file(tmp_path / "migrated.db").version == REVISIONS[-1]


def test_the_file_of_statements_is_that_of_the_newest_migration() -> None:
    assert HEAD_SCHEMA.read_text() == migrated(), "run scripts/store_schema.py"


def test_a_new_store_needs_no_migrations(tmp_path: Path) -> None:
    made = f"""
import sys
from agent.store import open_store
open_store("sqlite:///{tmp_path}/new.db", {CHAIN_ID}, {WALLET!r}).close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", made], check=True)
    assert inspect_store_file(tmp_path / "new.db").version == REVISIONS[-1]
