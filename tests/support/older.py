"""Takes a store back to an earlier version, as an older program would have left it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

MIGRATIONS = Path(__file__).parents[2] / "agent" / "store" / "migrations"


def taken_back(path: Path, version: str) -> None:
    """The store at `path`, closed, as `version` would have written it; what newer ones added is lost."""
    newer = path.with_name(path.name + ".newer")
    path.rename(newer)
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()
    older = sqlite3.connect(path, isolation_level=None)
    older.execute("ATTACH ? AS newer", (str(newer),))
    tables = [name for (name,) in older.execute("SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]
    for table in tables:
        if table != "alembic_version":
            columns = ", ".join(f'"{row[1]}"' for row in older.execute(f"PRAGMA main.table_info({table})"))
            older.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM newer.{table}")
    older.close()
    newer.unlink()
