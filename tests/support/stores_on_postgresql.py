"""A pytest plugin: each store that a test opens in a file lies on PostgreSQL instead, in one database, under a key of that file.

.venv/bin/python -m pytest -p tests.support.stores_on_postgresql tests/unit/store
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, NullPool, create_engine

from agent.store import opening
from agent.store.postgresql import session
from agent.store.store import Store
from tests.support.postgresql import Server, running_server

STORE_TESTS = Path(__file__).parents[1] / "unit" / "store"
OF_FILES = {
    STORE_TESTS / f"{name}.py"
    for name in ("files/test_backup", "files/test_file_outbox", "files/test_locks", "files/test_private_files",
                 "migrations/test_interrupted_upgrade", "migrations/test_schema", "postgresql/test_copying",
                 "test_damage", "test_opened_twice", "test_seals", "test_transitions", "test_without_room")
}  # fmt: skip
"""Modules that copy, damage, lock or fill the file itself, write past its seals, or keep the store in memory."""
OF_A_FILE = {
    "test_a_damaged_page_asks_for_the_operator",
    "test_a_database_of_another_program_is_left_alone",
    "test_a_file_that_is_no_database_asks_for_the_operator",
    "test_a_full_disk_loses_nothing_and_asks_for_the_operator",
    "test_a_pause_works_on_a_full_disk",
    "test_a_queue_outlives_a_locked_store",
    "test_store_of_an_unknown_version_is_left_as_it_is",
    "test_a_store_that_others_could_read_is_closed_to_them",
    "test_new_store_has_the_schema_of_the_models",
    "test_an_address_that_cannot_hold_a_journal_is_a_config_error",
    "test_an_interrupted_migration_leaves_nothing_behind",
    "test_close__queue_cannot_be_written__lets_go_of_the_file",
    "test_every_commit_is_on_disk_before_it_returns",
    "test_files_are_readable_by_their_owner_only",
    "test_it_is_kept_over_a_restart_and_in_a_copy_of_the_file",
    "test_file_stops_growing_once_steps_are_pruned",
    "test_positions_survive_a_restart_and_a_backup",
}
"""Tests of other modules that do so, or of what a file alone does."""

_open_in_file = opening.open_store
_resources = ExitStack()
_server: list[Server] = []
_engine_by_process: dict[int, Engine] = {}


@contextmanager
def server_of_stores() -> Iterator[None]:
    """Run the server of the stores of this process and of those that it forks. Each process has one engine, as an agent has: the
    session of its locks stays open.
    """
    with running_server() as server:
        server.new_database("store")
        _server.append(server)
        _engine_by_process[os.getpid()] = _new_engine()
        yield
        _server.clear()


def _new_engine() -> Engine:
    return create_engine(_server[0].url(), connect_args=session.CONNECT_ARGUMENTS, poolclass=NullPool)


def _engine() -> Engine:
    if not _engine_by_process:
        return _new_engine()  # tests listen to theirs
    return _engine_by_process.setdefault(os.getpid(), _new_engine())


def _open_on_server(url: str, chain_id: int, wallet: str, wrapped_native: str = "", store_kind: str = "live", **options: object) -> Store:
    if not url.startswith("sqlite:///") or ":memory:" in url:
        return _open_in_file(url, chain_id, wallet, wrapped_native, store_kind, **options)
    if not _server:
        _server.append(_resources.enter_context(running_server()))
        _server[0].new_database("store")
    path = Path(url.removeprefix("sqlite:///")).resolve()
    key = hashlib.sha256(str(path).encode()).hexdigest()[:40]
    options = {"secret_place": path, **options}
    engine = _engine()
    with patch.object(session, "store_key", lambda *_: key), patch.object(session, "server_engine", lambda _: engine):
        return _open_in_file(_server[0].url(), chain_id, wallet, wrapped_native, store_kind, **options)


opening.open_store = _open_on_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path in OF_FILES or getattr(item, "originalname", "") in OF_A_FILE:
            item.add_marker(pytest.mark.skip(reason="of the file itself"))


def pytest_unconfigure(config: pytest.Config) -> None:
    _resources.close()
