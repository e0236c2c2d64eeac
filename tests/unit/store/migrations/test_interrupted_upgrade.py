"""A process that dies by SIGKILL in the middle of an upgrade leaves the store of before or of after, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from agent.errors import OperatorNeeded
from agent.model import IntentState
from agent.store import Store, open_store, opening
from agent.store.files.backup import inspect_store_file
from agent.store.migrations.schema import REVISIONS
from tests.support.stores import install_later_version
from tests.support.transactions import CHAIN_ID, START_S, WALLET, grant, receipt, record_sent, tx

OLDER = REVISIONS[-1]
"""Version of the stores before `later` is installed."""


@pytest.fixture
def later(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version of a later program, which runs from now on."""
    return install_later_version(monkeypatch, tmp_path_factory.mktemp("later"))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A store of this version with a transaction in it."""
    path = tmp_path / "older.db"
    store = store_at(path)
    store.steps.begin("s", START_S, "{}")
    intent = store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)
    record_sent(store.journal, intent, "0xaa", receipt=receipt("0xaa", 1, "0x01"))
    store.close()
    return path


def store_at(path: Path) -> Store:
    return open_store(f"sqlite:///{path}", CHAIN_ID, WALLET)


def dies_while_upgrading(path: Path, statement: int) -> bool:
    """Upgrades in a process of its own that is killed before its SQL statement of that number; whether it was."""
    child = os.fork()
    if child == 0:
        statement_count = 0

        def count(*_: object) -> None:
            nonlocal statement_count
            statement_count += 1
            if statement_count == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        try:
            store_at(path)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_upgrade_leaves_the_store_of_before_or_after(tmp_path: Path, older: Path, later: str) -> None:
    versions = set()
    is_killed = True
    statement = 0
    while is_killed:
        statement += 1
        path = tmp_path / f"{statement}.db"
        shutil.copy(older, path)
        is_killed = dies_while_upgrading(path, statement)
        version = inspect_store_file(path).version
        assert version in (OLDER, later)
        versions.add(version)
        store = store_at(path)  # the next command finishes it
        assert [intent.state for intent in store.journal.intents()] == [IntentState.MINED]
        assert store.budgets.history(START_S).budgets.loss_24h == 0
        store.close()
        assert inspect_store_file(path).version == later

    assert statement > 10
    assert versions == {OLDER, later}


@pytest.mark.parametrize("old_text", ["", "torn"])
def test_a_backup_that_an_upgrade_left_half_done_is_made_anew(older: Path, later: str, old_text: str) -> None:
    backup_path = older.with_name(f"{older.name}.before-{later}")
    backup_path.write_text(old_text)

    store_at(older).close()

    assert inspect_store_file(backup_path).version == OLDER


def test_upgrade__by_two_at_once__keeps_the_store_of_before(older: Path, later: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process upgrades the store after this one has read its version."""
    readings: list[str | None] = []
    read_version = opening._read_version

    def read_version_slowly(connection: Connection) -> str | None:
        version = read_version(connection)
        readings.append(version)
        if len(readings) == 2:  # the first is the check at opening
            store_at(older).close()
        return version

    monkeypatch.setattr(opening, "_read_version", read_version_slowly)

    store_at(older).close()

    assert readings[:2] == [OLDER, OLDER]
    assert readings[-1] == inspect_store_file(older).version == later
    assert inspect_store_file(older.with_name(f"{older.name}.before-{later}")).version == OLDER


def test_reading_leaves_a_store_of_another_version_unchanged(older: Path, later: str) -> None:
    with pytest.raises(OperatorNeeded, match="is older"):
        open_store(f"sqlite:///{older}", CHAIN_ID, WALLET, checks_and_migrates=False)
    assert inspect_store_file(older).version == OLDER
    assert not list(older.parent.glob("*.before-*"))
    store_at(older).close()
    assert inspect_store_file(older).version == later
    open_store(f"sqlite:///{older}", CHAIN_ID, WALLET, checks_and_migrates=False).close()
