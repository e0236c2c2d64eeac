"""Tests of agent/store/postgresql/copying.py: of a store and its copy at most one sends, however the copying ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OperatorNeeded, PassingFault, Refused
from agent.store import Store
from agent.store.database.facts import find_fact
from agent.store.files.backup import COPY_KEY
from agent.store.postgresql import copying
from tests.support.transactions import START_S, Killed, new_store

PASSING = PassingFault("store: the database does not answer")
Stores = tuple[Store, Store]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """A store with a step, and a new one of the same wallet."""
    (tmp_path / "target").mkdir()
    source = new_store("file", tmp_path)
    target = new_store("file", tmp_path / "target")
    source.steps.begin("s", START_S, "{}")
    yield source, target
    source.close()
    target.close()


def is_marked(store: Store) -> bool:
    with store.db.read("look") as db:
        return find_fact(db, COPY_KEY) is not None


def fails_in_write(monkeypatch: pytest.MonkeyPatch, store: Store, error: BaseException, *, is_committed: bool, writes: int = 1) -> None:
    """Let the next writes of a store raise, the first perhaps after its commit."""
    database: Any = type(store.db)
    write = database.write
    left = [writes]

    @contextmanager
    def failing(self: object, what: str) -> Iterator[object]:
        if self is not store.db or left[0] == 0:
            with write(self, what) as db:
                yield db
            return
        left[0] -= 1
        if is_committed and left[0] == writes - 1:
            with write(self, what) as db:
                yield db
        raise error

    monkeypatch.setattr(database, "write", failing)


def test_copy__has_the_rows_and_marks_the_source(stores: Stores) -> None:
    source, target = stores
    assert copying.copy_rows(source.db, target.db, START_S)["steps"] == 1
    assert (is_marked(source), is_marked(target)) == (True, False)


@pytest.mark.parametrize("error", [Killed(), PASSING], ids=["interrupt", "lost session"])
def test_error_after_the_commit__leaves_the_source_marked(monkeypatch: pytest.MonkeyPatch, stores: Stores, error: BaseException) -> None:
    source, target = stores
    fails_in_write(monkeypatch, target, error, is_committed=True)
    with pytest.raises(OperatorNeeded, match="may have the whole copy"):
        copying.copy_rows(source.db, target.db, START_S)
    assert is_marked(source)
    assert target.steps.get("s") is not None


def test_target_that_cannot_be_read_then__leaves_the_source_marked(monkeypatch: pytest.MonkeyPatch, stores: Stores) -> None:
    source, target = stores
    fails_in_write(monkeypatch, target, PASSING, is_committed=True, writes=2)
    with pytest.raises(OperatorNeeded, match="may have the whole copy"):
        copying.copy_rows(source.db, target.db, START_S)
    assert is_marked(source)


@pytest.mark.parametrize("error", [Killed(), PASSING, OperatorNeeded("differs")], ids=["interrupt", "lost session", "other rows"])
def test_error_before_the_commit__leaves_the_source_as_it_was(
    monkeypatch: pytest.MonkeyPatch, stores: Stores, error: BaseException
) -> None:
    source, target = stores

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(copying, "_require_same_rows", fail)
    with pytest.raises(type(error)) as caught:
        copying.copy_rows(source.db, target.db, START_S)
    assert caught.value is error
    assert not is_marked(source)


def test_target_with_rows__is_refused_and_leaves_the_source_as_it_was(stores: Stores) -> None:
    source, target = stores
    target.steps.begin("other", START_S, "{}")
    with pytest.raises(Refused, match="has a store of this wallet already"):
        copying.copy_rows(source.db, target.db, START_S)
    assert not is_marked(source)
