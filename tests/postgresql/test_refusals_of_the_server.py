"""What a server refuses, said with what mends it: rights, passwords, databases, connections."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, PassingFault, TrimtabError
from agent.store import Store, open_store
from tests.support.postgresql import ROLE, Opener, Server
from tests.support.transactions import CHAIN_ID, START_S

OTHER = "second"
OTHER_WALLET = "0x" + "22" * 20


@pytest.fixture(scope="module")
def other_role(server: Server) -> str:
    """A second role, such as that of another machine, with no rights of its own."""
    server.run(f"CREATE ROLE {OTHER} LOGIN")
    return OTHER


def opening(url: str, folder: Path) -> Store:
    return open_store(url, CHAIN_ID, OTHER_WALLET, secret_place=folder / "trimtab.store")


def test_missing_right__is_named_with_its_grant(opened: Opener, url: str, server: Server, other_role: str, tmp_path: Path) -> None:
    """Until the second role can do all that the first does; the log's rows stay as they are."""
    opened()
    database = url.partition("@/")[2].partition("?")[0]
    other_url = server.url(database, other_role)
    server.run("REVOKE ALL ON SCHEMA public FROM PUBLIC", database)
    granted: list[str] = []
    while len(granted) < 60:
        try:
            store = opening(other_url, tmp_path)
            store.pause_switch.pause("owner", START_S)
            store.steps.begin("step", START_S, "{}")
            with store.db.acting():
                pass
            store.close()
            break
        except OperatorNeeded as error:
            assert f'the role "{other_role}" lacks ' in error.message
            _, _, grant = error.remedy.partition("let its owner do: ")
            server.run(grant, database)
            assert grant not in granted
            granted.append(grant)
    else:
        pytest.fail(f"the role still lacks rights after {granted}")
    assert f'GRANT USAGE, CREATE ON SCHEMA public TO "{other_role}"' in granted
    assert f'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE meta TO "{other_role}"' in granted
    changed = server.run("SELECT table_name FROM information_schema.role_table_grants WHERE privilege_type = 'UPDATE'"
                         f" AND grantee = '{other_role}' AND table_name IN ('transitions', 'control_log')", database)  # fmt: skip
    assert changed == ""


def test_wrong_password_or_missing_database__needs_a_correction(server: Server, url: str, tmp_path: Path) -> None:
    access = server.folder / "data" / "pg_hba.conf"
    former = access.read_text()
    server.run("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    try:
        access.write_text(f"local all guarded scram-sha-256\n{former}")
        server.run("SELECT pg_reload_conf()")
        time.sleep(0.5)
        for address, words in (
            (url.replace(f"{ROLE}@", "guarded:wrong@"), "password authentication failed"),
            (server.url("nowhere"), 'database "nowhere" does not exist'),
        ):
            with pytest.raises(OperatorNeeded, match=words) as caught:
                opening(address, tmp_path)
            assert caught.value.remedy == "correct user, password and database in store.url"
            assert "wrong" not in caught.value.message
    finally:
        access.write_text(former)
        server.run("SELECT pg_reload_conf()")


def test_too_many_connections_pass_and_are_named(server: Server, url: str, other_role: str, tmp_path: Path) -> None:
    server.run(f"ALTER ROLE {other_role} CONNECTION LIMIT 0")
    with pytest.raises(PassingFault, match="too many connections") as caught:
        opening(url.replace(f"{ROLE}@", f"{other_role}@"), tmp_path)
    assert "max_connections" in caught.value.remedy
    server.run(f"ALTER ROLE {other_role} CONNECTION LIMIT -1")


def test_a_server_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PassingFault, match="connection to server") as caught:
        opening(f"postgresql+psycopg://trimtab@/store?host={tmp_path}", tmp_path)
    assert "start PostgreSQL" in caught.value.remedy


def test_tables_that_are_gone_are_named(opened: Opener, url: str, server: Server) -> None:
    store = opened()
    server.run("ALTER TABLE pauses RENAME TO elsewhere", url.partition("@/")[2].partition("?")[0])
    with pytest.raises(OperatorNeeded, match="does not exist") as caught:
        store.pause_switch.read()
    assert "restore" in caught.value.remedy


def test_tables_of_somebody_else_are_left_alone(url: str, server: Server, tmp_path: Path) -> None:
    server.run("CREATE TABLE accounts (id int)", url.partition("@/")[2].partition("?")[0])
    server.run(f"GRANT ALL ON accounts TO {ROLE}", url.partition("@/")[2].partition("?")[0])
    with pytest.raises(TrimtabError, match="not a trimtab store") as caught:
        opening(url, tmp_path)
    assert "database" in caught.value.remedy
