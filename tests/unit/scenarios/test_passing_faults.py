"""Which errors may pass while a run waits, and which need a person: a row of docs/endpoints.md each, as their code raises them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agent.errors import OperatorNeeded, PassingFault
from agent.execution.submission.reorgs import REORG_WATCH_BLOCKS
from agent.store import open_store
from agent.store.database.errors import database_errors
from agent.store.files.locks import WalletLocks, wallet_lock
from agent.store.files.pause import KillSwitch, PauseSwitch
from agent.store.files.recorder import FileOutbox
from agent.store.files.secret import ensure_secret, secret_path
from tests.support.pages_of_docs import ROOT
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET, grant, tx


def lock_in_a_file(folder: Path) -> None:
    (folder / "file").touch()
    with wallet_lock(WalletLocks(folder / "file" / "wallet.lock", CHAIN_ID, WALLET)):
        pass


def proposal_in_a_file(folder: Path) -> None:
    (folder / "file").touch()
    FileOutbox(folder / "file").write_proposal("name", "{}")


def secret_in_a_file(folder: Path) -> None:
    (folder / "file").touch()
    ensure_secret(folder / "file" / "trimtab.db")


def secret_that_is_a_folder(folder: Path) -> None:
    secret_path(folder / "trimtab.db").mkdir(mode=0o700)
    ensure_secret(folder / "trimtab.db")


def store_in_a_missing_folder(folder: Path) -> None:
    with database_errors("read"):
        sqlite3.connect(folder / "missing" / "trimtab.db")


class FullStore:
    """A pause switch whose store cannot be written."""

    def pause(self, _reason: str, _now_s: int, _hard: bool = False) -> None:
        raise PassingFault("store: cannot pause: database or disk is full")

    def resume(self, _reason: str, _now_s: int) -> None:
        """The store's switch is off already."""


def switch(file: Path) -> KillSwitch:
    return KillSwitch(file, cast(PauseSwitch, FullStore()))


def pause_in_a_file(folder: Path) -> None:
    (folder / "file").touch()
    switch(folder / "file" / "paused").pause("owner", START_S)


def hard_pause_on_a_full_disk(folder: Path) -> None:
    switch(folder / "paused").pause("owner", START_S, hard=True)


def resume_in_a_file(folder: Path) -> None:
    (folder / "file").touch()
    switch(folder / "file" / "paused").resume("owner", START_S)


def nonce_with_an_open_transaction(folder: Path) -> None:
    store = open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)
    store.steps.begin("s", START_S, "{}")
    try:
        for _ in range(2):
            store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None)
    finally:
        store.close()


CODE_BY_FAULT = {
    lock_in_a_file: "lock",
    proposal_in_a_file: "file",
    pause_in_a_file: "pause",
    hard_pause_on_a_full_disk: "hard_pause",
    resume_in_a_file: "pause",
    secret_in_a_file: "file",
    secret_that_is_a_folder: "file",
    store_in_a_missing_folder: "store",
    nonce_with_an_open_transaction: "open_transaction",
}


@pytest.mark.parametrize("fails", CODE_BY_FAULT, ids=[fails.__name__ for fails in CODE_BY_FAULT])
def test_fault__outside_this_process__may_pass(tmp_path: Path, fails: Callable[[Path], None]) -> None:
    with raises_code(PassingFault, CODE_BY_FAULT[fails]):
        fails(tmp_path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_secret__damaged__needs_a_person(tmp_path: Path, text: str) -> None:
    path = secret_path(tmp_path / "trimtab.db")
    path.touch(mode=0o600)
    path.write_text(text)
    with raises_code(OperatorNeeded, "file", str(path)) as caught:
        ensure_secret(tmp_path / "trimtab.db")
    assert not isinstance(caught.value, PassingFault)


@pytest.mark.parametrize("code", ["BUSY", "CANTOPEN", "FULL", "IOERR_WRITE", "LOCKED", "NOMEM", "PERM", "PROTOCOL", "READONLY_ROLLBACK"])
def test_store__database_error_of_disk_or_lock__may_pass(code: str) -> None:
    error = sqlite3.OperationalError(code)
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    with raises_code(PassingFault, "store"), database_errors("write"):
        raise error


@pytest.mark.parametrize("code", ["CORRUPT", "NOTADB", "ERROR", "CONSTRAINT_UNIQUE", "SCHEMA", "MISMATCH"])
def test_store__database_error_of_damage__needs_a_person(code: str) -> None:
    error = sqlite3.DatabaseError(code)
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    with pytest.raises(OperatorNeeded) as caught, database_errors("write"):
        raise error
    assert not isinstance(caught.value, PassingFault)


def test_store__no_connection_in_time__may_pass() -> None:
    with raises_code(PassingFault, "store"), database_errors("write"):
        raise PoolTimeout("QueuePool limit of size 5 overflow 10 reached")


@pytest.mark.parametrize(
    "message",
    [
        "UNIQUE constraint failed: cycles.state",
        "UNIQUE constraint failed: intents.nonce",
        "UNIQUE constraint failed: intents.replaces",
        'duplicate key value violates unique constraint "one_open_cycle"',
        'duplicate key value violates unique constraint "one_open_intent_per_nonce"',
        'duplicate key value violates unique constraint "one_open_cancel_per_intent"',
    ],
)
def test_store__place_of_another_process__is_a_matter_of_locks(message: str) -> None:
    with raises_code(OperatorNeeded, "lock", "another process serves this wallet"), database_errors("write"):
        raise sqlite3.IntegrityError(message)


def test_store__file_is_no_database__needs_a_person(tmp_path: Path) -> None:
    (tmp_path / "trimtab.db").write_bytes(b"x" * 8_192)
    with pytest.raises(OperatorNeeded) as caught, database_errors("read"):
        sqlite3.connect(tmp_path / "trimtab.db").execute("SELECT * FROM intents")
    assert not isinstance(caught.value, PassingFault)


def test_page_of_faults__names_the_depth_that_needs_a_person() -> None:
    assert f"reorg deeper than {REORG_WATCH_BLOCKS} blocks" in (ROOT / "docs" / "endpoints.md").read_text()
