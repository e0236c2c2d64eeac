"""Backups: consistent while in use, the owner's alone, whole or not there, and never sent from before somebody adopts them (T8)."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent.errors import ConfigError, OperatorNeeded
from agent.store import Store, open_store
from agent.store.files.backup import backup, inspect_store_file, restore
from agent.store.files.pause import KillSwitch, pause_file
from agent.store.migrations.schema import REVISIONS
from tests.support.stores import install_later_version
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, OTHER, START_S, WALLET, bench, grant, tx


def store_at(path: Path) -> Store:
    return open_store(f"sqlite:///{path}", CHAIN_ID, WALLET)


def store_with_steps(path: Path, steps: int = 3) -> Store:
    store = store_at(path)
    for number in range(steps):
        store.steps.begin(f"s{number}", START_S, "{}")
    return store


def put_back(source: Path, target: Path, force: bool = False) -> Path | None:
    return restore(source, target, WALLET, CHAIN_ID, REVISIONS, force)


def test_backup_holds_all_that_was_committed(tmp_path: Path) -> None:
    store = store_with_steps(tmp_path / "a.db")

    assert (tmp_path / "a.db-wal").stat().st_size > 0
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    store.steps.begin("later", START_S, "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db-shm", "a.db-wal", "copy.db"]
    copy = store_at(tmp_path / "copy.db")
    assert [line.id for line in copy.steps.newest(9)] == ["s2", "s1", "s0"]
    assert store.pause_switch.read().paused is False
    copy.close()
    store.close()


def test_backup_beside_a_writer_is_one_moment_of_the_store(tmp_path: Path) -> None:
    """Rows of two tables are written in one transaction each time: a copy from in between would tell."""
    store = store_with_steps(tmp_path / "a.db", 0)
    end = threading.Event()

    def write() -> None:
        number = 0
        while not end.is_set():
            number += 1
            with store.db.write("test") as db:  # both in one transaction
                db.exec_driver_sql("INSERT INTO configs (config_hash, at_s, origin) VALUES (?, ?, 'confirmed')", (f"h{number}", number))
                db.exec_driver_sql("INSERT INTO pauses (paused, reason, at_s) VALUES (0, 'x', ?)", (number,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup(tmp_path / "a.db", tmp_path / f"copy{number}.db")
    finally:
        end.set()
        writer.join()
    for number in range(5):
        with sqlite3.connect(tmp_path / f"copy{number}.db") as copy:
            (configs,) = copy.execute("SELECT COUNT(*) FROM configs").fetchone()
            (pauses,) = copy.execute("SELECT COUNT(*) FROM pauses").fetchone()
        copy.close()
        assert configs == pauses
    store.close()


def test_a_backup_is_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    store_with_steps(tmp_path / "a.db").close()
    before = os.umask(0)
    try:
        backup(tmp_path / "a.db", tmp_path / "copy.db")
        old_path = put_back(tmp_path / "copy.db", tmp_path / "a.db", force=True)
    finally:
        os.umask(before)

    assert old_path is not None
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "copy.db", tmp_path / "a.db", old_path)} == {0o600}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    store_with_steps(tmp_path / "a.db").close()
    (tmp_path / "mine.txt").write_text("mine")

    with raises_code(ConfigError, "exists"):
        backup(tmp_path / "a.db", tmp_path / "mine.txt")
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    with raises_code(ConfigError, "exists"):
        put_back(tmp_path / "copy.db", tmp_path / "a.db")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert store_at(tmp_path / "a.db").pause_switch.read().paused is False


def test_a_store_is_never_its_own_backup_nor_put_over_one_in_use(tmp_path: Path) -> None:
    store = store_with_steps(tmp_path / "a.db")
    other = store_with_steps(tmp_path / "b.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    for path in (tmp_path / "a.db", tmp_path / "link.db"):
        with raises_code(ConfigError, "same_file"):
            backup(tmp_path / "a.db", path, force=True)
        with raises_code(ConfigError, "same_file"):
            put_back(path, tmp_path / "a.db", force=True)

    with raises_code(ConfigError, "in_use"):
        backup(tmp_path / "a.db", tmp_path / "b.db", force=True)
    assert store.pause_switch.read().paused is other.pause_switch.read().paused is False
    store.close()
    other.close()


def test_restore_replaces_a_newer_store_and_keeps_it_aside(tmp_path: Path) -> None:
    store = store_with_steps(tmp_path / "a.db")
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    store.steps.begin("later", START_S, "{}")  # in the log beside the file, and still open
    old_path = put_back(tmp_path / "copy.db", tmp_path / "a.db", force=True)

    store.close()

    assert old_path is not None
    assert [line.id for line in store_at(tmp_path / "a.db").steps.newest(9)] == ["s2", "s1", "s0"]
    assert [line.id for line in store_at(old_path).steps.newest(9)] == ["later", "s2", "s1", "s0"]


def test_no_store_is_put_beside_the_log_of_one_that_was_moved_away(tmp_path: Path) -> None:
    """SQLite would apply that log to a restored store, and delete it for an empty one."""
    store = store_with_steps(tmp_path / "a.db")
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    store.steps.begin("later", START_S, "{}")
    shutil.copy(tmp_path / "a.db", tmp_path / "moved.db")
    shutil.copy(tmp_path / "a.db-wal", tmp_path / "mine.db-wal")
    store.close()

    for put_there in (
        lambda: put_back(tmp_path / "copy.db", tmp_path / "mine.db"),
        lambda: put_back(tmp_path / "copy.db", tmp_path / "mine.db", force=True),
        lambda: store_at(tmp_path / "mine.db"),
    ):
        with raises_code(ConfigError, "in_use", "mine.db-wal"):
            put_there()
    assert not (tmp_path / "mine.db").exists()
    (tmp_path / "mine.db-wal").rename(tmp_path / "moved.db-wal")
    assert put_back(tmp_path / "copy.db", tmp_path / "mine.db") is None
    assert len(store_at(tmp_path / "mine.db").steps.newest(9)) == 3
    assert store_at(tmp_path / "moved.db").steps.newest(9)[0].id == "later"


def test_restores_of_one_second_each_keep_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_with_steps(tmp_path / "a.db").close()
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    monkeypatch.setattr("agent.store.files.backup._utc_now_text", lambda: "2026-01-01T00:00:00Z")

    old_paths = [put_back(tmp_path / "copy.db", tmp_path / "a.db", force=True) for _ in range(3)]

    assert len(set(old_paths)) == 3
    assert all(path is not None and path.exists() for path in old_paths)


def denied(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def too_many_links(*_: object) -> None:
    raise OSError(errno.EMLINK, "Too many links")


def refuse_rename(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Let no file be renamed to a name, or from a name, that ends so."""
    replace = Path.replace

    def replace_others(path: Path, target: Path) -> Path:
        if suffix in (path.name[-len(suffix) :], target.name[-len(suffix) :]):
            denied()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_others)


FAULTS_OF_A_RESTORE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "link denied": lambda monkeypatch: monkeypatch.setattr(os, "link", denied),
    "too many links": lambda monkeypatch: monkeypatch.setattr(os, "link", too_many_links),
    "log not renamed": lambda monkeypatch: refuse_rename(monkeypatch, "-wal"),
    "index of the log not renamed": lambda monkeypatch: refuse_rename(monkeypatch, "-shm"),
    "store not replaced": lambda monkeypatch: refuse_rename(monkeypatch, "live.db"),
}


@pytest.mark.parametrize("fault", FAULTS_OF_A_RESTORE.values(), ids=FAULTS_OF_A_RESTORE.keys())
def test_restore_that_fails__leaves_the_store_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with closing(store_with_steps(tmp_path / "other.db", 1)):
        backup(tmp_path / "other.db", tmp_path / "copy.db")
    store = store_with_steps(tmp_path / "live.db")
    names_before = sorted(path.name for path in tmp_path.iterdir())
    with monkeypatch.context() as patch:
        fault(patch)
        with raises_code(OperatorNeeded, "store"):
            put_back(tmp_path / "copy.db", tmp_path / "live.db", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == names_before
    store.steps.begin("later", START_S, "{}")
    store.close()
    with closing(store_at(tmp_path / "live.db")) as after:
        assert {line.id for line in after.steps.newest(9)} == {"s0", "s1", "s2", "later"}


def test_copy_is_paused_until_adopted_and_not_by_resume(tmp_path: Path) -> None:
    store_with_steps(tmp_path / "a.db").close()
    backup(tmp_path / "a.db", tmp_path / "copy.db")
    for path in (tmp_path / "copy.db", tmp_path / "elsewhere.db"):
        if not path.exists():
            put_back(tmp_path / "copy.db", path)
        store = store_at(path)
        switch = KillSwitch(pause_file(path), store.pause_switch)
        switch.resume("go on", START_S)
        assert switch.is_paused() is True
        assert "trimtab adopt" in switch.read().reason
        store.adopt_copy()
        assert switch.is_paused() is False
        store.close()


@pytest.mark.parametrize(("wallet", "chain_id"), [(OTHER, CHAIN_ID), (WALLET, 1)])
def test_a_backup_of_another_wallet_or_chain_is_not_restored(tmp_path: Path, wallet: str, chain_id: int) -> None:
    open_store(f"sqlite:///{tmp_path}/a.db", chain_id, wallet).close()
    backup(tmp_path / "a.db", tmp_path / "copy.db")

    with raises_code(OperatorNeeded, "store_owner"):
        put_back(tmp_path / "copy.db", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_damaged_or_foreign_file_is_neither_restored_nor_copied(tmp_path: Path) -> None:
    store = store_with_steps(tmp_path / "a.db", 50)
    intent = store.journal.add_intent("s0", tx(0), grant(), "swap", START_S, None)
    store.close()
    backup(tmp_path / "a.db", tmp_path / "good.db")
    torn = (tmp_path / "good.db").read_bytes()
    (tmp_path / "torn.db").write_bytes(torn[: len(torn) // 2])
    (tmp_path / "text.db").write_text("not a database at all, and long enough to be looked at as if it were one " * 40)
    with sqlite3.connect(tmp_path / "foreign.db") as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    for name, code in (("torn.db", "damaged"), ("text.db", "damaged"), ("foreign.db", "not_a_store")):
        with raises_code(OperatorNeeded, code, name):
            put_back(tmp_path / name, tmp_path / "new.db")
        assert not (tmp_path / "new.db").exists()
    with sqlite3.connect(tmp_path / "a.db") as odd:
        odd.execute("UPDATE intents SET state = 'final'")
    odd.close()

    with raises_code(OperatorNeeded, "damaged", str(intent.id), "final", "planned"):
        inspect_store_file(tmp_path / "a.db")
    with raises_code(OperatorNeeded, "damaged", f"{tmp_path / 'a.db'} is damaged"):
        backup(tmp_path / "a.db", tmp_path / "bad.db")
    assert not (tmp_path / "bad.db").exists()


def test_a_backup_by_a_newer_program_is_not_restored(tmp_path: Path) -> None:
    store_with_steps(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.close()

    with raises_code(OperatorNeeded, "store_version"):
        put_back(tmp_path / "a.db", tmp_path / "new.db")


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "UPDATE alembic_version SET version_num = ''"])
def test_a_file_without_its_version_is_damaged(tmp_path: Path, statement: str) -> None:
    store_with_steps(tmp_path / "a.db").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as file, file:
        file.execute(statement)

    with raises_code(OperatorNeeded, "damaged", "version"):
        inspect_store_file(tmp_path / "a.db")
    with raises_code(OperatorNeeded, "damaged", f"{tmp_path / 'a.db'} is damaged"):
        backup(tmp_path / "a.db", tmp_path / "bad.db")


def test_an_older_store_is_copied_before_it_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    older = REVISIONS[-1]
    store_with_steps(path).close()
    later = install_later_version(monkeypatch, tmp_path)
    store_at(path).close()

    old_path = tmp_path / f"a.db.before-{later}"

    assert (inspect_store_file(path).version, inspect_store_file(old_path).version) == (later, older)
    assert len(store_at(path).steps.newest(9)) == 3
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT name FROM later ORDER BY name").fetchall() == [("s0",), ("s1",), ("s2",)]
    old_path.unlink()
    store_at(path).close()
    assert not old_path.exists()


def test_no_copy_holds_signed_bytes_or_a_part_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store, log, backup, what a restore kept aside and what an upgrade did: bytes that anyone could send are in none (T8)."""
    setup = bench(tmp_path)
    setup.run(0)
    backup(setup.path, tmp_path / "while in use.db")
    setup.run(1)
    setup.store.close()
    later = install_later_version(monkeypatch, tmp_path)
    store_at(setup.path).close()
    put_back(tmp_path / "while in use.db", setup.path, force=True)

    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    assert {"trimtab.db", "while in use.db", f"trimtab.db.before-{later}"} <= set(files)
    assert any(name.startswith("trimtab.db.before-restore-") for name in files)
    assert len(setup.signer.signed) == 2
    for name, data in files.items():
        for signed in setup.signer.signed:
            for part in (signed.signed_bytes[:24], signed.signed_bytes[-24:]):  # any page border leaves one of them whole
                assert part not in data, name
                assert part.hex().encode() not in data.lower(), name
