"""What a look that sends nothing leaves is queued, and written in one commit before anything else is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import OperatorNeeded, PassingFault
from agent.model import RunReport
from agent.store import Store, open_store, opening
from tests.support.stores import store_fixture
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET, grant, tx

store = store_fixture("file")


def store_in(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder}/trimtab.db", CHAIN_ID, WALLET)


def stored_steps(tmp_path: Path) -> set[str]:
    """Ids of the steps that another process finds in the store."""
    with closing(store_in(tmp_path)) as other:
        return {step.id for step in other.steps.newest(9)}


ENDINGS_OF_A_QUEUE: dict[str, Callable[[Store], object]] = {
    "a transaction is journaled": lambda store: store.journal.add_intent("s", tx(0), grant(), "swap", START_S, None),
    "a pause is written": lambda store: store.pause_switch.pause("owner", START_S),
    "the report of the run": lambda store: store.run_reports.write(RunReport("r", "p", True, 60, START_S, START_S), lambda _: True),
    "a step is read": lambda store: store.steps.get("s"),
    "the steps are listed": lambda store: store.steps.newest(1),
    "the store is closed": lambda store: store.close(),
    "the wait begins": lambda store: store.db.flush(),
}


@pytest.mark.parametrize("ending", ENDINGS_OF_A_QUEUE.values(), ids=ENDINGS_OF_A_QUEUE.keys())
def test_what_is_queued_is_on_disk_after(store: Store, tmp_path: Path, ending: Callable[[Store], object]) -> None:
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")
        store.steps.end("s", "hold", "in band", None, "hold")

    before = stored_steps(tmp_path)

    ending(store)

    assert (before, stored_steps(tmp_path)) == (set(), {"s"})


def test_outside_a_look_nothing_is_queued(store: Store, tmp_path: Path) -> None:
    with store.db.queueing():
        pass

    store.steps.begin("s", START_S, "{}")

    assert stored_steps(tmp_path) == {"s"}


def test_report_that_fails_leaves_the_look_to_the_next_write(store: Store, tmp_path: Path) -> None:
    report = RunReport("r", "p", True, 60, START_S, START_S)
    store.run_reports.write(report, lambda _: True)
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")

    with pytest.raises(ZeroDivisionError):
        store.run_reports.write(replace(report, run_id="another"), lambda _: bool(1 // 0))

    assert stored_steps(tmp_path) == set()
    store.db.flush()
    assert stored_steps(tmp_path) == {"s"}


def test_a_queue_outlives_a_locked_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is queued after the fault, which builds on what was queued before."""
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_MS", 60)
    store = store_in(tmp_path)
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")
        with closing(sqlite3.connect(tmp_path / "trimtab.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(PassingFault, match="what a look left: database is locked"):
                store.pause_switch.pause("owner", START_S)
            store.steps.end("s", "hold", "in band", None, "hold")
            with pytest.raises(PassingFault, match="what a look left: database is locked"):
                store.db.flush()

    assert stored_steps(tmp_path) == set()
    assert not store.pause_switch.read().paused
    store.db.flush()
    assert [(step.id, step.outcome) for step in store.steps.newest(9)] == [("s", "hold")]
    store.close()


def test_a_queue_outlives_an_interrupt(store: Store, tmp_path: Path) -> None:
    """The end of the run writes it."""
    interrupts = [KeyboardInterrupt()]

    def interrupt_once(_db: object) -> None:
        if interrupts:
            raise interrupts.pop()

    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")
        store.db.write_later("be interrupted", interrupt_once)

    with pytest.raises(KeyboardInterrupt):
        store.db.flush()
    store.close()

    assert stored_steps(tmp_path) == {"s"}


def test_queue_that_stays_comes_before_later_writes(store: Store) -> None:
    interrupts = [KeyboardInterrupt()]
    written: list[str] = []

    def write_first(_db: object) -> None:
        if interrupts:
            store.db.write_later("write", lambda _db: written.append("second"))
            raise interrupts.pop()
        written.append("first")

    with store.db.queueing():
        store.db.write_later("write", write_first)
        with pytest.raises(KeyboardInterrupt):
            store.db.flush()

    store.close()

    assert written == ["first", "second"]


def test_queue_that_cannot_be_written_raises_once(store: Store, tmp_path: Path) -> None:
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")
        store.db.write_later("fail", lambda db: db.exec_driver_sql("INSERT INTO nowhere VALUES (1)"))

    with raises_code(OperatorNeeded, "store", "what a look left", "nowhere"):
        store.pause_switch.pause("owner", START_S)

    assert stored_steps(tmp_path) == set()
    store.pause_switch.pause("owner", START_S)
    assert store.pause_switch.read().paused


def test_write_that_takes_the_queue_along_comes_after_it(store: Store) -> None:
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")

    with store.db.write("count", joins_queue=True) as db:
        step_ids = db.exec_driver_sql("SELECT id FROM steps").scalars().all()

    assert step_ids == ["s"]


def test_look_that_raises_queues_nothing_afterwards(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError), store.db.queueing():
        raise KeyError

    store.steps.begin("s", START_S, "{}")

    assert stored_steps(tmp_path) == {"s"}


def test_close__queue_cannot_be_written__lets_go_of_the_file(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    pool = store.db.engine.pool
    with store.db.queueing():
        store.db.write_later("fail", lambda db: db.exec_driver_sql("INSERT INTO nowhere VALUES (1)"))

    with raises_code(OperatorNeeded, "store", "what a look left"):
        store.close()

    assert store.db.engine.pool is not pool
