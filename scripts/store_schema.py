"""Write agent/store/migrations/head.sql: the schema that the migrations create in an empty SQLite
file, one statement per line.

    .venv/bin/python scripts/store_schema.py

Run it after every new migration; otherwise tests/unit/test_new_stores.py fails.
"""

from __future__ import annotations

from sqlalchemy import Connection, create_engine

from agent.store.opening import HEAD_SCHEMA, run_migrations

_STAMP = (
    "SELECT 'INSERT INTO alembic_version (version_num) VALUES (''' || version_num || ''')' FROM"
    " alembic_version"
)


def migrated() -> str:
    """Return the text of the file."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection, connection.begin():
        run_migrations(connection)
        (stamp,) = connection.exec_driver_sql(_STAMP).one()
        return "\n".join((*statements(connection), stamp, ""))


def statements(connection: Connection) -> list[str]:
    """Return the statements that created tables, indexes and triggers of a file, oldest first, each in
    one line.
    """
    made = (
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' ORDER BY"
        " rowid"
    )
    return [" ".join(sql.split()) for (sql,) in connection.exec_driver_sql(made)]


if __name__ == "__main__":
    HEAD_SCHEMA.write_text(migrated())
