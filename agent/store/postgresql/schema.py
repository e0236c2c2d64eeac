"""The models' tables on PostgreSQL: one set for all wallets. Each row has the key of its store in the
column `wallet`, first in every key and index, and row security lets a transaction see and write only
the rows of the store that it names. So the queries are those of SQLite, and none can forget the
wallet.
"""

from __future__ import annotations

from functools import cache

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    create_mock_engine,
    text,
)
from sqlalchemy.engine.mock import MockConnection

from agent.store.migrations.schema import APPEND_ONLY_TABLES, OLDEST_READER, VERSION_TABLE
from agent.store.tables import Base
from agent.store.users import UserTables

WALLET_COLUMN = "wallet"
WALLET_SETTING = "trimtab.wallet"
"""Setting of a transaction: the key of the store whose rows it sees."""
_WALLET_KEY_LENGTH = 80
_CURRENT_WALLET = "trimtab_wallet()"
_CREATE_CURRENT_WALLET = f"""
CREATE FUNCTION trimtab_wallet() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  wallet text := current_setting('{WALLET_SETTING}', true);
BEGIN
  IF wallet IS NULL OR wallet = '' THEN
    RAISE EXCEPTION USING MESSAGE = 'the transaction names no wallet', ERRCODE = 'restrict_violation';
  END IF;
  RETURN wallet;
END $$
"""
"""A transaction that names no wallet fails, instead of finding no rows."""

_CREATE_PROCESSES = """
CREATE TABLE processes (
  backend integer PRIMARY KEY,
  name text NOT NULL,
  group_name text NOT NULL,
  beat timestamptz NOT NULL
)
"""
"""The processes that hold locks, by the session that holds them, with their last sign of life; those
of one group share its wallets.
"""
_CREATE_CALL_BUDGETS = """
CREATE TABLE call_budgets (
  operator text PRIMARY KEY,
  free timestamptz NOT NULL
)
"""
"""When the last turn that was taken of an operator's calls ends (store/postgresql/call_budgets.py)."""
_CREATE_READERS = (
    "CREATE TABLE readers (oldest text NOT NULL)",
    f"INSERT INTO readers VALUES ('{OLDEST_READER}')",  # noqa: S608  a constant
)
"""The oldest version whose programs may use the tables (store/postgresql/versions.py)."""
_REFUSE_CHANGE = """
CREATE FUNCTION trimtab_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'restrict_violation';
END $$
"""


@cache
def creating_statements() -> tuple[str, ...]:
    """Return the statements that create all tables with their indexes, triggers and policies."""
    statements: list[str] = []
    engine: MockConnection = create_mock_engine(
        "postgresql+psycopg://",
        lambda ddl, *_, **__: statements.append(str(ddl.compile(dialect=engine.dialect))),
    )
    VERSION_TABLE.metadata.create_all(engine, checkfirst=False)
    statements.append(_CREATE_CURRENT_WALLET)
    tables_by_wallet = metadata_by_wallet()
    tables_by_wallet.create_all(engine, checkfirst=False)
    statements.append(_CREATE_PROCESSES)
    statements.append(_CREATE_CALL_BUDGETS)
    statements += _CREATE_READERS
    statements.append(_REFUSE_CHANGE)
    for table_name in tables_by_wallet.tables:
        statements += _row_security(table_name)
    for table_name, message in APPEND_ONLY_TABLES.items():
        statements += _append_only(table_name, message)
    return tuple(statements)


def metadata_by_wallet() -> MetaData:
    """Return the models' tables with the column `wallet` in every key, index and reference."""
    by_wallet = MetaData()
    for table in (*Base.metadata.sorted_tables, *UserTables.metadata.sorted_tables):
        _add_table(by_wallet, table)
    return by_wallet


def _add_table(by_wallet: MetaData, table: Table) -> None:
    wallet_column = Column(
        WALLET_COLUMN,
        String(_WALLET_KEY_LENGTH),
        nullable=False,
        server_default=text(_CURRENT_WALLET),
    )
    columns = [
        Column(
            column.name,
            column.type,
            nullable=column.nullable,
            autoincrement=column is table.autoincrement_column,
            server_default=column.server_default,
        )
        for column in table.columns
    ]
    new_table = Table(table.name, by_wallet, wallet_column, *columns)
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint):
            # A key that SQLAlchemy derives from its columns begins with the row number.
            key_names = [WALLET_COLUMN, *(column.name for column in constraint.columns)]
            new_table.append_constraint(PrimaryKeyConstraint(*key_names))
        elif isinstance(constraint, UniqueConstraint):
            unique_names = [WALLET_COLUMN, *(column.name for column in constraint.columns)]
            new_table.append_constraint(UniqueConstraint(*unique_names, name=constraint.name))
        elif isinstance(constraint, ForeignKeyConstraint):
            [element] = constraint.elements
            target = element.column
            new_table.append_constraint(
                ForeignKeyConstraint(
                    [WALLET_COLUMN, *constraint.column_keys],
                    [f"{target.table.name}.{WALLET_COLUMN}", f"{target.table.name}.{target.name}"],
                )
            )
        else:
            raise TypeError(f"{table.name}: {constraint} has no form for many wallets")
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        index_columns = [new_table.columns[column.name] for column in index.columns]
        Index(
            index.name,
            new_table.columns[WALLET_COLUMN],
            *index_columns,
            unique=index.unique,
            postgresql_where=index.dialect_options["sqlite"]["where"],
        )


def _row_security(table_name: str) -> list[str]:
    """Return the statements that show a transaction the rows of its wallet alone in every query:
    only a superuser and a role with BYPASSRLS, both of which the opening refuses, are exempt.
    """
    return [
        f"ALTER TABLE {table_name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table_name} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY of_wallet ON {table_name} USING ({WALLET_COLUMN} = {_CURRENT_WALLET})",
    ]


def _append_only(table_name: str, message: str) -> list[str]:
    """Return the statements that refuse to change or remove a row, by triggers and by grants."""
    refusal = f"EXECUTE FUNCTION trimtab_refuse_change('{message}')"
    return [
        f"CREATE TRIGGER {table_name}_no_change BEFORE UPDATE OR DELETE ON {table_name}"
        f" FOR EACH ROW {refusal}",
        f"CREATE TRIGGER {table_name}_no_truncate BEFORE TRUNCATE ON {table_name}"
        f" FOR EACH STATEMENT {refusal}",
        f"REVOKE UPDATE, DELETE, TRUNCATE ON {table_name} FROM CURRENT_USER",
    ]
