"""Faults of the server at every statement: each passes by itself, and what was to be written is there once, or not at all."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, PoolProxiedConnection, event, text

from agent.errors import OperatorNeeded, PassingFault
from agent.model import RunReport
from agent.store import Store, open_store
from agent.store.database.errors import may_server_fault_pass
from agent.store.database.facts import fact_number, find_fact, write_facts
from agent.store.postgresql import session
from tests.support.postgresql import Opener, Server, running_server, standby_of
from tests.support.transactions import CHAIN_ID, START_S, WALLET, grant, tx


def before_statement(store: Store, number: int, happens: Callable[[], object]) -> None:
    """Let something happen once, before the statement of that number from now on."""
    statement_numbers = count()

    def check(*_: object) -> None:
        if next(statement_numbers) == number:
            happens()

    event.listen(store.db.engine, "before_cursor_execute", check)


def add(store: Store, note: str = "i", nonce: int = 7) -> None:
    store.journal.add_intent("s", tx(nonce), grant(), note, START_S, None)


@pytest.mark.parametrize("number", range(6))
def test_session_ended_before_a_statement__leaves_nothing_half(opened: Opener, server: Server, number: int) -> None:
    store = opened()
    store.steps.begin("s", START_S, "{}")
    before_statement(store, number, server.end_sessions)
    try:
        add(store)
    except PassingFault as fault:
        assert not store.journal.intents(), fault
        add(store)
    [intent] = store.journal.intents()
    assert [change.new_state for change in store.journal.transitions(intent.id)] == [intent.state]


def lost_answer(store: Store, monkeypatch: pytest.MonkeyPatch, *, is_made: bool, then: Callable[[], object] = lambda: None) -> None:
    """The connection breaks at the next commit, after the server has made it or before."""
    commit = store.db.engine.dialect.do_commit

    def broken(connection: PoolProxiedConnection) -> None:
        monkeypatch.setattr(store.db.engine.dialect, "do_commit", commit)
        if is_made:
            commit(connection)
        connection.dbapi_connection.close()
        then()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(store.db.engine.dialect, "do_commit", broken)


def test_commit_of_a_lost_answer__counts_if_the_server_says_so(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    store.steps.begin("s", START_S, "{}")
    lost_answer(store, monkeypatch, is_made=True)
    add(store)
    assert len(store.journal.intents()) == 1


def test_a_commit_that_was_never_made_is_a_fault_that_passes(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    store.steps.begin("s", START_S, "{}")
    lost_answer(store, monkeypatch, is_made=False)
    with pytest.raises(PassingFault):
        add(store)
    assert not store.journal.intents()


@pytest.mark.parametrize("is_made", [True, False])
def test_a_queue_whose_commit_nobody_answers_is_written_once(
    opened: Opener, server: Server, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    """The server is away when the answer is lost; once it is back it says what was made, and the rest is written."""
    store = opened()
    monkeypatch.setattr(session, "SETTLING_S", 0.5)
    with store.db.queueing():
        store.steps.begin("s", START_S, "{}")
        store.steps.end("s", "hold", "first", None, "hold")
    lost_answer(store, monkeypatch, is_made=is_made, then=lambda: server.control("stop", "-m", "immediate"))
    with pytest.raises(PassingFault):
        store.db.flush()
    with pytest.raises(PassingFault):
        store.steps.newest(9)
    server.control("start")
    store.pause_switch.pause("a write of another kind", START_S)
    assert [(summary.id, summary.reason) for summary in store.steps.newest(9)] == [("s", "first")]
    assert store.pause_switch.read().paused


WRITES_OF_ANOTHER_THREAD: dict[str, Callable[[Store], object]] = {
    "a report": lambda store: store.run_reports.write(RunReport("r", "p", True, 60, START_S, START_S), lambda _: True),
    "a pause": lambda store: store.pause_switch.pause("owner", START_S),
    "a pin": lambda store: store.trust.pin({"0xaa": "0xbb"}, START_S),
}


@pytest.mark.parametrize("write", WRITES_OF_ANOTHER_THREAD.values(), ids=WRITES_OF_ANOTHER_THREAD.keys())
def test_queue_in_doubt_while_another_thread_writes__is_written_once(
    opened: Opener, server: Server, monkeypatch: pytest.MonkeyPatch, write: Callable[[Store], object]
) -> None:
    """The report of a run comes from a thread of its own, while the look's commit is under way."""
    store = opened()
    monkeypatch.setattr(session, "SETTLING_S", 0.5)
    monkeypatch.setattr(type(store.db), "write_patience_s", 0.0)

    def count(db: Connection) -> None:
        write_facts(db, {"count": fact_number(db, "count") + 1})

    with store.db.queueing():
        store.db.write_later("count", count)
    ends: list[Callable[[], list[PassingFault]]] = []

    def write_and_stop() -> None:
        ends.append(pass_later(lambda: write(store)))
        time.sleep(0.5)
        server.control("stop", "-m", "immediate")

    lost_answer(store, monkeypatch, is_made=True, then=write_and_stop)
    with pytest.raises(PassingFault):
        store.db.flush()
    [end] = ends
    end()
    server.control("start")
    store.db.flush()
    with store.db.read("read the count") as db:
        assert fact_number(db, "count") == 1


def test_a_restart_of_the_server_passes(opened: Opener, server: Server) -> None:
    store = opened()
    store.steps.begin("s", START_S, "{}")
    server.control("restart", "-m", "fast")
    add(store)
    assert len(store.journal.intents()) == 1


def test_a_server_that_is_away_passes_and_is_named(opened: Opener, server: Server) -> None:
    store = opened()
    server.control("stop", "-m", "fast")
    try:
        with pytest.raises(PassingFault, match="store: cannot read"):
            store.pause_switch.read()
    finally:
        server.control("start")
    assert not store.pause_switch.read().paused


def test_a_standby_by_mistake_is_named_and_passes(opened: Opener, server: Server, url: str) -> None:
    """After a fail-over the name of the primary may lead to a standby for a while."""
    store = opened()
    name = re.findall(r"/(store\d+)", url)[0]
    server.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    server.end_sessions()
    with pytest.raises(PassingFault, match="read-only") as fault:
        store.steps.begin("s", START_S, "{}")
    assert "standby" in fault.value.remedy
    server.run(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    server.end_sessions()
    store.steps.begin("s", START_S, "{}")


@contextmanager
def busy_writer(store: Store):
    """Another process writes to the wallet's store, and does not end."""
    with store.db.write_transaction() as db:
        yield db


def test_writers_of_a_wallet__wait_for_one_another_alone(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened()
    second = opened()
    third = opened("0x" + "11" * 20)

    def hurry(db: Connection, *_: object) -> None:
        db.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")

    event.listen(first.db.engine, "begin", hurry)
    with busy_writer(first):
        third.pause_switch.pause("of another wallet", START_S)
        with pytest.raises(PassingFault, match="lock timeout") as fault:
            second.trust.pin({"0xaa": "0xbb"}, START_S)
    assert "another program has locked the store" in fault.value.remedy
    second.trust.pin({"0xaa": "0xcc"}, START_S)
    assert first.trust.pins() == {"0xaa": "0xcc"}


def pass_later(write: Callable[[], object]) -> Callable[[], list[PassingFault]]:
    """Write in a thread; return what waits for its end, and returns the fault that passed, if any."""
    faults: list[PassingFault] = []

    def run() -> None:
        try:
            write()
        except PassingFault as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> list[PassingFault]:
        thread.join(30)
        assert not thread.is_alive()
        return faults

    return end


def wait_for_lock_requests(server: Server, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while int(server.run("SELECT count(*) FROM pg_locks WHERE NOT granted")) < count:
        assert time.monotonic() < deadline_s


def write_fact(store: Store, value: str) -> None:
    with store.db.write("write a fact") as db:
        write_facts(db, {"fact": value})


def test_a_conflict_of_two_transactions_passes(opened: Opener, server: Server, url: str) -> None:
    """40001: the operator has made the database serialisable, and the state that a writer sees is older than the lock it waited for."""
    first = opened()
    second = opened()
    write_fact(first, "before")
    server.run(f"ALTER DATABASE {re.findall(r'/(store[0-9]+)', url)[0]} SET default_transaction_isolation = serializable")
    server.end_sessions()
    with first.db.write("change the fact") as db:
        write_facts(db, {"fact": "first"})
        end_second = pass_later(lambda: write_fact(second, "second"))
        wait_for_lock_requests(server, 1)
    [fault] = end_second()
    assert "could not serialize access" in fault.message
    write_fact(second, "again")
    with first.db.read("read the fact") as db:
        assert find_fact(db, "fact") == "again"


def test_one_of_two_transactions_in_a_deadlock_passes(opened: Opener, server: Server) -> None:
    """40P01, of the stores of two wallets."""
    stores = [opened(), opened("0x" + "11" * 20)]
    both_have_one = threading.Barrier(2)

    def lock_both(number: int) -> None:
        with stores[number].db.write("lock") as db:
            write_facts(db, {"fact": "kept"})
            for place in (number, 1 - number):
                db.execute(text("SELECT pg_advisory_xact_lock(:place)"), {"place": place})
                if place == number:
                    both_have_one.wait(20)

    ends = [pass_later(partial(lock_both, number)) for number in range(2)]
    faults = [end() for end in ends]
    assert sorted(map(len, faults)) == [0, 1], "the other goes on"
    assert "deadlock detected" in next(fault for fault, *_ in filter(None, faults)).message
    for store, fault in zip(stores, faults, strict=True):
        with store.db.read("read the fact") as db:
            assert find_fact(db, "fact") == (None if fault else "kept")


def test_reads_of_one_transaction_see_one_state(opened: Opener) -> None:
    store = opened()
    other = opened()
    with store.db.read("read twice") as db:
        before = db.execute(text("SELECT count(*) FROM pauses")).scalar()
        other.pause_switch.pause("meanwhile", START_S)
        assert db.execute(text("SELECT count(*) FROM pauses")).scalar() == before
        with pytest.raises(Exception, match="read-only"):
            db.execute(text("DELETE FROM pins"))


@pytest.mark.parametrize(
    ("sqlstate", "words", "passes"),
    [
        *(
            (state, "", True)
            for state in ("08006", "53100", "53300", "57P01", "57P03", "57014", "58030", "25P03", "25006", "40001", "40P01", "55P03")
        ),
        *((state, "", False) for state in ("28P01", "3D000", "42501", "42P01", "22P02", "23505", "XX001", "57P04")),
        pytest.param(None, "connection refused", True, id="refused"),
        pytest.param(None, "server closed the connection unexpectedly", True, id="closed"),
        pytest.param(None, 'FATAL: password authentication failed for user "trimtab"', False, id="wrong password"),
        pytest.param(None, 'FATAL: unsupported startup parameter in options: "lock_timeout"', False, id="unsupported option"),
    ],
)
def test_what_passes_is_told_by_sqlstate(sqlstate: str | None, words: str, passes: bool) -> None:
    assert may_server_fault_pass(sqlstate, words) is passes


def test_a_damaged_table_is_the_operators(opened: Opener) -> None:
    store = opened()
    with store.db.write("drop") as db:
        db.execute(text("ALTER TABLE pins RENAME TO lost"))
    with pytest.raises(OperatorNeeded) as fault:
        store.trust.pins()
    assert not isinstance(fault.value, PassingFault)


def test_url_of_a_standby__is_named_at_every_write_and_passes(tmp_path: Path) -> None:
    """A real one, which refuses what leaves marks of processes and locks too; once it is promoted all goes on."""
    with running_server() as primary:
        primary.new_database("store")
        place = tmp_path / "trimtab.store"
        with standby_of(primary) as standby:
            open_store(primary.url(), CHAIN_ID, WALLET, secret_place=place).close()
            standby.await_replay_of(primary)
            with closing(open_store(standby.url(), CHAIN_ID, WALLET, secret_place=place)) as store:
                assert not store.pause_switch.read().paused
                attempts = (store.db.serving().__enter__, store.db.acting().__enter__, lambda: store.steps.begin("s", START_S, "{}"))
                for attempt in attempts:
                    with pytest.raises(PassingFault, match="read-only") as fault:
                        attempt()
                    assert "standby" in fault.value.remedy
                standby.control("promote")
                with store.db.serving(), store.db.acting():
                    store.steps.begin("s", START_S, "{}")
                assert [summary.id for summary in store.steps.newest(9)] == ["s"]


@pytest.mark.slow
def test_a_fail_over_to_a_standby_loses_nothing(tmp_path: Path) -> None:
    """The URL names both; the primary is gone in the middle of a write, and its standby is promoted."""
    with running_server() as primary:
        primary.new_database("store")
        with standby_of(primary) as standby:
            url = f"{primary.url()}&host={standby.folder}&target_session_attrs=read-write"
            store = open_store(url, CHAIN_ID, WALLET, secret_place=tmp_path / "trimtab.store")
            store.steps.begin("s", START_S, "{}")
            before_statement(store, 4, lambda: primary.control("stop", "-m", "immediate"))
            with pytest.raises(PassingFault):
                add(store)
            with pytest.raises(PassingFault):
                store.pause_switch.read()
            standby.control("promote")
            assert [summary.id for summary in store.steps.newest(9)] == ["s"]
            with store.db.serving(), store.db.acting():
                add(store)
            assert len(store.journal.intents()) == 1
            store.close()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of its own, of 128 MB."""
    with tempfile.TemporaryDirectory(prefix="disk", dir="/tmp") as name:
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m,mode=0777", "tmpfs", name], capture_output=True, check=False)
        if mount.returncode != 0:
            pytest.skip("a disk of its own needs the right to mount one")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def test_full_server_disk__passes_and_keeps_what_was_written(small_disk: Path, tmp_path: Path) -> None:
    with running_server(small_disk) as server:
        url = server.new_database("small")
        with closing(open_store(url, CHAIN_ID, WALLET, secret_place=tmp_path / "trimtab.store")) as store:
            written = 0
            filler = small_disk / "filler"
            fill(filler)
            with pytest.raises(PassingFault):
                for number in range(20_000):
                    store.steps.begin(f"s{number}", START_S, json.dumps(secrets.token_hex(20_000)))
                    written = number + 1
            filler.unlink()
            start_again(server)
            store.steps.begin("afterwards", START_S, "{}")
            newest = [summary.id for summary in store.steps.newest(written + 5)]
            assert newest == ["afterwards", *(f"s{number}" for number in reversed(range(written)))]


def start_again(server: Server) -> None:
    """Start the server if the full disk has ended it."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1")
            return
        except subprocess.CalledProcessError:
            assert time.monotonic() < deadline_s
            with suppress(subprocess.CalledProcessError):
                server.control("start")


def fill(file: Path) -> None:
    """Write into a file until its disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as full:
        while True:
            full.write(b"x" * 65_536)
