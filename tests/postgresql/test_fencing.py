"""One process acts for a wallet, on whatever machine: others wait, a gone one is replaced, and a late one writes and sends nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from agent.errors import OperatorNeeded, PassingFault, Refused, TrimtabError
from agent.execution.submission.checks import stored_pause_check
from agent.fleet.chains import SharedConnections
from agent.fleet.members import FleetMember, FleetOptions
from agent.model import Head, IntentState, ProposalExecution
from agent.observe.logs import Redactor
from agent.store import Store
from agent.store.database.facts import facts_with_prefix, find_fact, write_facts
from agent.store.files.locks import LockHeld
from agent.store.files.pause import KillSwitch
from agent.store.postgresql import fencing, session
from agent.wiring import SystemClock
from tests.support.postgresql import Opener, Server
from tests.support.text import raises_code
from tests.support.transactions import CHAIN_ID, START_S, WALLET, bench, grant, tx

OTHER_MACHINE = """
import sys, time
from pathlib import Path
from agent.store import open_store
from agent.store.postgresql import fencing
fencing.BEAT_S = 0.2
url, chain, wallet, place = sys.argv[1:]
store = open_store(url, int(chain), wallet, secret_place=Path(place))
with store.db.serving(), store.db.acting():
    print("acting", flush=True)
    for line in sys.stdin:
        try:
            store.db.require_held()
            store.pause_switch.pause(line.strip(), 1_700_000_000)
            print("written", flush=True)
        except Exception as error:
            print(type(error).__name__, str(error)[:60], flush=True)
"""


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signs of life and leases are a tenth of their usual length; sessions end with the test."""
    monkeypatch.setattr(fencing, "BEAT_S", 0.2)
    monkeypatch.setattr(fencing, "LEASE_S", 1.5)
    yield
    for lock_session in fencing._sessions.values():
        lock_session.close()
    fencing._sessions.clear()


@contextmanager
def other_machine(url: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that acts for the wallet."""
    command = [sys.executable, "-c", OTHER_MACHINE, url, str(CHAIN_ID), WALLET, str(tmp_path / "trimtab.store")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert next_line(process) == "acting"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer_to(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return next_line(process)


def acting_soon(store: Store, wait_s: float) -> float:
    """Take the wallet's lock as soon as it is free; return how long that took."""
    began_s = time.monotonic()
    while True:
        try:
            with store.db.acting():
                return time.monotonic() - began_s
        except LockHeld:
            assert time.monotonic() - began_s < wait_s
            time.sleep(0.1)


def test_a_wallet_that_another_machine_serves_is_left_to_it(opened: Opener, url: str, tmp_path: Path) -> None:
    store = opened()
    with other_machine(url, tmp_path) as process:
        for lock in (store.db.serving, store.db.acting):
            with raises_code(LockHeld, "lock", f"process {process.pid}", "has the lock"), lock():
                pass
        time.sleep(3)
        with pytest.raises(LockHeld), store.db.acting():
            pass
        with opened("0x" + "11" * 20).db.acting():
            pass
        assert answer_to(process, "alive") == "written"


def test_a_killed_process_is_replaced_at_once(opened: Opener, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session ends with it, so that no lease has to run out."""
    monkeypatch.setattr(fencing, "LEASE_S", 3_600)
    store = opened()
    with other_machine(url, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        acting_soon(store, 5)


@pytest.mark.parametrize("wakes_after_s", [0, 3])
def test_stopped_process__is_replaced_and_writes_nothing_awake(opened: Opener, url: str, tmp_path: Path, wakes_after_s: float) -> None:
    store = opened()
    with other_machine(url, tmp_path) as process:
        assert answer_to(process, "before") == "written"
        os.kill(process.pid, signal.SIGSTOP)
        assert 1 < acting_soon(store, 10) < 10
        time.sleep(wakes_after_s)
        os.kill(process.pid, signal.SIGCONT)
        assert answer_to(process, "late").startswith("LockHeld")
        assert store.pause_switch.read().reason == "before"


def test_a_process_that_lost_its_lock_neither_sends_nor_writes(opened: Opener, server: Server, tmp_path: Path) -> None:
    """Its session was ended; another has taken over before it notices."""
    first = opened()
    second = opened()
    first.steps.begin("s", START_S, "{}")
    switch = KillSwitch(tmp_path / "paused", first.pause_switch)
    with first.db.acting():
        assert switch.is_paused() is False
        server.end_sessions()
        own = fencing._sessions.pop(id(first.db.engine))
        with second.db.acting():
            fencing._sessions[id(first.db.engine)] = own
            assert switch.is_paused() is None, "what counts as paused: nothing is sent"
            assert "taken over" in switch.read().reason
            with pytest.raises((LockHeld, PassingFault)):
                first.journal.add_intent("s", tx(7), grant(), "late", START_S, None)
            with pytest.raises(LockHeld, match="taken over"):
                first.journal.add_intent("s", tx(7), grant(), "late", START_S, None)
            second.journal.add_intent("s", tx(7), grant(), "mine", START_S, None)
    assert [intent.note for intent in second.journal.intents()] == ["mine"]


@pytest.mark.parametrize("moment", ["head", "before:broadcast"])
def test_pause_elsewhere__is_seen_until_the_last_write(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It is confirmed while the head is read, or between the look at the switch and the write that precedes the send."""
    store = opened()
    other = opened()
    setup = bench(tmp_path)
    setup.store.close()
    setup.store = store
    read_head = setup.chain.head

    def pause_at(reached: str) -> None:
        if reached == moment and setup.signer.signed:
            other.pause_switch.pause("on another machine", START_S)

    def head() -> Head:
        pause_at("head")
        return read_head()

    monkeypatch.setattr(setup.chain, "head", head)
    setup.on_event = lambda event: pause_at(event.name)
    executor = setup.executor()
    executor._submitter.is_paused = KillSwitch(tmp_path / "paused", store.pause_switch).is_paused
    store.steps.begin("s", START_S, "{}")
    with store.db.acting(), pytest.raises(Refused, match="kill switch"):
        executor.run("s", tx(0), grant(), "swap")
    assert [intent.state for intent in store.journal.intents()] == [IntentState.CANCELLED]
    assert setup.chain.sent == []


def test_pause_elsewhere__is_seen_in_an_execution_s_write(opened: Opener) -> None:
    """Of a Safe's proposal, which another account sends."""
    store = opened()
    other = opened()
    execution = ProposalExecution(WALLET, tx(0), "0x" + "ab" * 32)
    other.pause_switch.pause("on another machine", START_S)
    with pytest.raises(Refused, match="kill switch"):
        store.proposals.record_execution("proposal", execution, stored_pause_check(grant()))
    assert store.proposals.execution("proposal") is None
    other.pause_switch.resume("", START_S)
    store.proposals.record_execution("proposal", execution, stored_pause_check(grant()))
    assert store.proposals.execution("proposal") == execution


def test_a_process_that_acts_again_writes_no_epoch_anew(opened: Opener) -> None:
    """So a look that holds costs no further commit."""
    store = opened()
    with store.db.acting():
        pass
    commits: list[int] = []
    event.listen(store.db.engine, "commit", lambda _: commits.append(1))
    before = len(commits)
    with store.db.acting():
        pass
    assert len(commits) - before <= 1, "that of a read"


def test_what_a_replaced_run_has_queued_is_not_written(opened: Opener, server: Server) -> None:
    """It served, was cut off, and another has served since: its queue holds what it saw before."""
    first = opened()
    second = opened()
    with first.db.serving():
        with first.db.queueing():
            first.steps.begin("s", START_S, "{}")
            first.steps.end("s", "hold", "old news", None, "hold")
        server.end_sessions()
        own = fencing._sessions.pop(id(first.db.engine))
        with second.db.serving():
            fencing._sessions[id(first.db.engine)] = own
            with pytest.raises(LockHeld):
                first.db.require_held()
            with pytest.raises(LockHeld, match="taken over"):
                first.db.flush()
        first.db.close()
    assert second.steps.newest(9) == ()


def test_a_run_whose_lock_fell_takes_it_again_if_nobody_else_did(opened: Opener, server: Server) -> None:
    store = opened()
    with store.db.serving():
        server.end_sessions()
        store.db.require_held()
        store.pause_switch.pause("goes on", START_S)
        assert store.db.is_served()


def test_run_that_another_replaced__leaves_its_lock_to_the_next(opened: Opener, server: Server, url: str, tmp_path: Path) -> None:
    """It takes the lock again after the other is gone; the store refuses it, and whoever comes next can serve."""
    first = opened()
    second = opened()
    with first.db.serving():
        server.end_sessions()
        with other_machine(url, tmp_path):
            pass
        acting_soon(second, 5)
        with pytest.raises(LockHeld, match="taken over"):
            first.db.require_held()
        with other_machine(url, tmp_path) as process:
            assert answer_to(process, "by the other") == "written"
        acting_soon(second, 5)
    with first.db.serving():
        assert first.db.is_served()


@pytest.mark.parametrize("fault", [PassingFault("lock timeout", "wait"), KeyboardInterrupt(), OperatorNeeded("full", "free it")], ids=repr)
def test_run_that_could_not_say_that_it_goes_on__takes_its_lock_again(
    opened: Opener, server: Server, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    store = opened()
    with store.db.serving():
        server.end_sessions()
        with monkeypatch.context() as patch:
            patch.setattr(store.db, "write", Mock(side_effect=fault))
            with pytest.raises(type(fault)):
                store.db.require_held()
        store.db.require_held()
        store.pause_switch.pause("goes on", START_S)
    with store.db.serving():
        assert store.db.is_served()


def test_run_that_was_not_answered_that_it_goes_on__goes_on(opened: Opener, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    write = store.db.write

    @contextmanager
    def unanswered(action: str) -> Iterator[Connection]:
        with write(action) as db:
            yield db
        raise PassingFault("unknown", "wait")

    with store.db.serving():
        server.end_sessions()
        with monkeypatch.context() as patch:
            patch.setattr(store.db, "write", unanswered)
            with pytest.raises(PassingFault):
                store.db.require_held()
        store.db.require_held()
        store.pause_switch.pause("goes on", START_S)


@pytest.mark.parametrize("lock_name", ["serve w", "act w", "look at w"])
def test_own_session_cut_off__is_ended_alone(opened: Opener, lock_name: str) -> None:
    """The server has not noticed that it is cut off; the process has opened another, and more for its writes."""
    store = opened()
    locks = fencing.lock_session(store.db.engine)
    locks.take(lock_name)
    cut_off_session = locks._connection
    locks._connection = None
    locks._held.clear()
    time.sleep(2)
    with store.db.write("write meanwhile") as db:
        write_facts(db, {"fact": "written"})
        mark = locks.take(lock_name)
    assert locks.holds(mark)
    assert cut_off_session is not None
    with pytest.raises(DBAPIError):
        cut_off_session.execute(text("SELECT 1"))
    with store.db.read("read the fact") as db:
        assert find_fact(db, "fact") == "written"


def writer_keys(store: Store) -> set[str]:
    with store.db.read("read the marks") as db:
        return {key for key, _ in facts_with_prefix(db, session.WRITER_KEY_PREFIX)}


def test_marks_of_killed_processes__go_a_week_later(opened: Opener, url: str, tmp_path: Path) -> None:
    """A process may ask for the mark of its last write for as long as the server does not answer."""
    store = opened()
    for _ in range(2):
        with other_machine(url, tmp_path) as process:
            assert answer_to(process, "killed later") == "written"
        acting_soon(store, 5)
    own_key = store.db._writer_key  # type: ignore[attr-defined]  # of ServerDatabase
    of_killed = writer_keys(store) - {own_key}
    assert len(of_killed) == 2
    older, newer = sorted(of_killed)
    week_ago_s = int(time.time()) - session.MARK_LIFE_S
    with store.db.write("age the marks") as db:
        write_facts(db, {older: f"{'0' * 16}@{week_ago_s - 1}", newer: f"{'0' * 16}@{week_ago_s + 60}", "writer:other": "x"})
    with other_machine(url, tmp_path):
        pass
    assert older not in writer_keys(store)
    assert {own_key, newer, "writer:other"} <= writer_keys(store)


def test_two_parts_of_a_process_do_not_act_at_once(opened: Opener) -> None:
    first = opened()
    second = opened()
    with first.db.acting(), pytest.raises(LockHeld, match="another part of this process"), second.db.acting():
        pass
    with second.db.acting():
        pass


def test_hung_look__leaves_its_wallet_and_writes_nothing_later(
    opened: Opener, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    is_acting = threading.Event()
    released = threading.Event()
    late_faults: list[TrimtabError] = []

    def cycle() -> None:
        with store.db.serving(), store.db.acting():
            is_acting.set()
            released.wait(60)
            for act in (store.db.require_held, lambda: store.steps.begin("late", START_S, "{}")):
                with pytest.raises(LockHeld, match="taken over") as fault:
                    act()
                late_faults.append(fault.value)

    def open_member(member: FleetMember) -> None:
        member._run = Mock(cycle=cycle)
        member._service = Mock()
        member.agent = Mock()
        member.agent.context.store = store

    monkeypatch.setattr(FleetMember, "_open", open_member)
    connections = SharedConnections(SystemClock())
    member = FleetMember("p", tmp_path / "p.toml", FleetOptions("1h"), connections, Redactor(), lambda *_: None)
    member.queue()
    look = threading.Thread(target=member.look)
    look.start()
    member._watchdog.max_silence_s = 0.1
    deadline_s = time.monotonic() + 30
    while not (is_acting.is_set() and member.give_up_hung_look()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    with other_machine(url, tmp_path) as process:
        assert answer_to(process, "by the other") == "written"
        released.set()
        look.join(30)
        assert len(late_faults) == 2
        assert answer_to(process, "still by the other") == "written"
    assert store.pause_switch.read().reason == "still by the other"


def test_a_pause_waits_for_a_writer_that_stands_still(opened: Opener, tmp_path: Path) -> None:
    """The server ends such a session; the pause is in the database then, not in a file of this machine alone."""
    first = opened()
    second = opened()
    switch = KillSwitch(tmp_path / "paused", second.pause_switch)
    with pytest.raises(PassingFault, match="idle-in-transaction"), first.db.write("stand still") as db:
        db.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '6s'")
        switch.pause("at once", START_S)
        db.exec_driver_sql("SELECT 1")
    assert first.pause_switch.read().reason == "at once"
