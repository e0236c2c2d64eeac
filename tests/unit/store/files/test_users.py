"""Tests of agent/store/files/users.py: readers create nothing and wait for no writer; damage and what passes have their own remedies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, PassingFault
from agent.store.files import users
from agent.store.files.users import open_user_file


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a user."""
    monkeypatch.setattr(users, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "trimtab.db.users"
    open_user_file(path).add("ann", "hash", "secret", False, 1)
    return path


def test_read__file_is_empty__creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.db.users"
    path.touch(0o600)
    assert open_user_file(path).users() == ()
    assert path.read_bytes() == b""


def test_read__no_file__creates_none(tmp_path: Path) -> None:
    assert open_user_file(tmp_path / "trimtab.db.users").users() == ()
    assert list(tmp_path.iterdir()) == []


def test_read__tables_are_missing__creates_none(user_file: Path) -> None:
    with closing(sqlite3.connect(user_file)) as db:
        db.execute("DROP TABLE user_events")
    assert [user.name for user in open_user_file(user_file).users()] == ["ann"]
    with closing(sqlite3.connect(user_file)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'user_events'").fetchall() == []


def test_read__another_process_writes__does_not_wait(user_file: Path) -> None:
    with closing(sqlite3.connect(user_file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert [user.name for user in open_user_file(user_file).users()] == ["ann"]


@pytest.mark.parametrize("is_write", [False, True], ids=["read", "write"])
def test_locked_file__is_a_fault_that_passes(user_file: Path, is_write: bool) -> None:
    store = open_user_file(user_file)
    with closing(sqlite3.connect(user_file, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(PassingFault, match="locked") as fault:
            store.count_attempt("ann", "address", 2) if is_write else store.users()
    assert "try again" in fault.value.remedy
    assert "remove" not in fault.value.remedy


@pytest.mark.parametrize("damage", [b"no database" * 1_000, None], ids=["not a database", "malformed"])
def test_damaged_file__is_to_be_removed(user_file: Path, damage: bytes | None) -> None:
    user_file.write_bytes(damage or user_file.read_bytes()[:4_096] + b"\xff" * 8_192)
    with pytest.raises(OperatorNeeded) as fault:
        open_user_file(user_file).users()
    assert not isinstance(fault.value, PassingFault)
    assert "remove the file and add the users again" in fault.value.remedy


@pytest.mark.parametrize("is_write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize(("owner", "name"), [(Path, "exists"), (users, "require_trusted_writers")], ids=["file", "folders"])
def test_closed_folder__is_a_fault_that_passes(
    user_file: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, is_write: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(owner, name, refuse)
    store = open_user_file(user_file)
    with pytest.raises(PassingFault, match=r"users: cannot .*Permission denied"):
        store.count_attempt("ann", "address", 2) if is_write else store.users()


def test_users__are_listed_by_name_with_their_role(user_file: Path) -> None:
    store = open_user_file(user_file)
    store.add("adam", "hash", "secret", True, 2)
    assert [(user.name, user.read_only, user.created_s) for user in store.users()] == [("adam", True, 2), ("ann", False, 1)]
