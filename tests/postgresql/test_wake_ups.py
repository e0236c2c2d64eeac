"""Looks of a worker are jobs of a queue in the database, and what becomes of a job harms none."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from sqlalchemy import Engine, make_url

from agent.errors import OperatorNeeded, Retryable
from agent.fleet import members as fleet_members
from agent.fleet import wake_ups
from agent.fleet.members import FleetMember, MemberState
from agent.store.opening import open_server
from tests.postgresql.queued_members import WAIT_S, QueuedMember, key_of, served
from tests.support.postgresql import Server

TAKEN_OVER_S = 20.0


@pytest.fixture
def engine(url: str) -> Engine:
    return open_server(make_url(url), migrates=True)


@contextmanager
def queue_of(engine: Engine) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A session whose tables are those of the queue."""
    schema_name = wake_ups.create_queue(engine)
    _, parameters = engine.dialect.create_connect_args(engine.url)
    with psycopg.connect(**parameters, options=f"-c search_path={schema_name}", autocommit=True, row_factory=dict_row) as db:
        yield db


def jobs(db: psycopg.Connection[dict[str, Any]], member: FleetMember) -> list[dict[str, Any]]:
    return db.execute(
        "SELECT *, extract(epoch FROM scheduled_at - now())::float AS due_in_s FROM procrastinate_jobs WHERE lock = %s", (key_of(member),)
    ).fetchall()


def insert_job(db: psycopg.Connection[dict[str, Any]], queue: str, portfolio: str, lock: str | None = None) -> None:
    """Write a job that is due now."""
    db.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, scheduled_at) VALUES (%s, 'look', %s, %s, now())",
        (queue, lock, Jsonb({"portfolio": portfolio})),
    )


def until(is_met: Callable[[], object], within_s: float = WAIT_S) -> float:
    began_s = time.monotonic()
    while not is_met():
        assert time.monotonic() - began_s < within_s, "too late"
        time.sleep(0.02)
    return time.monotonic() - began_s


def statuses(db: psycopg.Connection[dict[str, Any]], member: FleetMember) -> list[str]:
    return [job["status"] for job in jobs(db, member)]


def gaps(times_s: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times_s)]


@pytest.fixture
def no_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a job of its own, which comes half a second before it."""
    monkeypatch.setattr(wake_ups, "SLICE_S", 0.0)
    monkeypatch.setattr(wake_ups, "POLL_S", 0.1)
    monkeypatch.setattr(wake_ups, "LEAD_S", 0.5)
    monkeypatch.setattr(wake_ups, "EARLY_S", 0.6)


@pytest.mark.usefixtures("no_slices")
def test_look__is_a_job_whose_successor_waits_for_the_interval(engine: Engine) -> None:
    released = threading.Event()
    member = QueuedMember("one", lambda: released.wait(WAIT_S), "4s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: member.looks_s and statuses(db, member) == ["doing"])
        released.set()
        until(lambda: statuses(db, member) == ["todo"])
        (job,) = jobs(db, member)
        assert job["args"] == {"portfolio": key_of(member)}
        assert job["queueing_lock"] == key_of(member)
        assert abs(job["due_in_s"] - (member.due_s - wake_ups.LEAD_S - time.monotonic())) < 0.2
        until(lambda: len(member.looks_s) == 3)
        assert all(3.5 < gap_s < 6 for gap_s in gaps(member.looks_s)), member.looks_s
        until(lambda: statuses(db, member) == ["todo"])
        assert db.execute("SELECT count(*) FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')").fetchone() == {"count": 0}
        assert jobs(db, member)[0]["id"] == job["id"], "what waits again is the same job"
        assert db.execute("SELECT count(*) FROM procrastinate_events").fetchone() == {"count": 0}


def test_looks_within_a_slice__share_a_job(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "SLICE_S", 4.0)
    member = QueuedMember("one", every="1s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: statuses(db, member) == ["doing"])
        attempts = jobs(db, member)[0]["attempts"]
        look_count = len(member.looks_s)
        until(lambda: jobs(db, member)[0]["attempts"] == attempts + 2)
        looks_s = member.looks_s[look_count:]
    assert len(looks_s) >= 6, "three or more of each job"
    assert max(gaps(looks_s)) < 2, "no look waits for the next job"


@pytest.mark.usefixtures("no_slices")
def test_job_of_a_look__comes_when_the_database_says(engine: Engine) -> None:
    """What begins a look is the job: without it the portfolio waits for JOB_PATIENCE_S more."""
    member = QueuedMember("one", every="5s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: len(member.looks_s) == 1 and jobs(db, member) and member.awaits_job)
        due_s = member.due_s
        db.execute("DELETE FROM procrastinate_jobs")
        until(lambda: len(member.looks_s) == 2)
        assert fleet_members.JOB_PATIENCE_S <= member.looks_s[1] - due_s < fleet_members.JOB_PATIENCE_S + 1
        until(lambda: jobs(db, member) and member.awaits_job)
        due_s = member.due_s
        until(lambda: len(member.looks_s) == 3)
        assert member.looks_s[2] - due_s < 2, "the next one has a job again"


@pytest.mark.usefixtures("no_slices")
def test_doubled_job_and_one_of_another_portfolio_change_nothing(engine: Engine) -> None:
    released = threading.Event()
    member = QueuedMember("one", lambda: released.wait(WAIT_S), "5s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: statuses(db, member) == ["doing"] and member.looks_s)
        queue = jobs(db, member)[0]["queue_name"]
        insert_job(db, queue, key_of(member))
        insert_job(db, queue, key_of(member), key_of(member))
        insert_job(db, queue, "31337:nobody", "31337:nobody")
        db.execute("INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES (%s, 'unknown')", (queue,))
        until(lambda: db.execute("SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %s", (queue,)).fetchone() == {"count": 2})
        assert sorted(statuses(db, member)) == ["doing", "todo"], "the lock keeps the second one waiting"
        released.set()
        until(lambda: statuses(db, member) == ["todo", "todo"] and member.awaits_job)
        assert len(member.looks_s) == 1, "none of them was a reason for a look"
        until(lambda: len(member.looks_s) == 3)
        assert all(4 < gap_s < 7 for gap_s in gaps(member.looks_s)), member.looks_s


@pytest.mark.usefixtures("no_slices")
def test_job_written_twice_during_a_look__delays_the_next_one_alone(engine: Engine) -> None:
    """With the wallet's queueing lock it keeps the worker's own job from waiting again."""
    released = threading.Event()
    member = QueuedMember("one", lambda: released.wait(WAIT_S), "2s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: statuses(db, member) == ["doing"] and member.looks_s)
        db.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args, scheduled_at)"
            " SELECT queue_name, task_name, lock, queueing_lock, args, now() FROM procrastinate_jobs WHERE lock = %s",
            (key_of(member),),
        )
        released.set()
        until(lambda: len(member.looks_s) == 2, fleet_members.JOB_PATIENCE_S + 4)
        until(lambda: statuses(db, member) == ["todo"])
        due_s = member.due_s
        until(lambda: len(member.looks_s) == 3)
        assert member.looks_s[2] - due_s < 1


@pytest.mark.usefixtures("no_slices")
def test_places__filled_by_hung_looks_leave_one_for_an_exit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "LOOK_PLACES", 2)
    monkeypatch.setattr(wake_ups, "EXIT_PLACES", 1)
    monkeypatch.setattr(fleet_members, "JOB_PATIENCE_S", 60.0)
    released = threading.Event()
    released.set()
    slow = [QueuedMember(f"slow{number}", lambda: released.wait(WAIT_S), "1s") for number in range(2)]
    usual = QueuedMember("usual", every="1s")
    urgent = QueuedMember("urgent", every="1h", is_exit=True)
    with queue_of(engine) as db, served(engine, [*slow, usual, urgent]):
        until(lambda: usual.looks_s and urgent.looks_s and all(member.looks_s for member in slow))
        released.clear()
        until(lambda: all(member.state is MemberState.LOOKING and statuses(db, member) == ["doing"] for member in slow))
        until(lambda: statuses(db, usual) == ["todo"])
        usual_count = len(usual.looks_s)
        attempts = jobs(db, urgent)[0]["attempts"]
        until(lambda: jobs(db, urgent)[0]["attempts"] >= attempts + 3)
        assert len(usual.looks_s) == usual_count, "no place"
        assert jobs(db, urgent)[0]["queue_name"].startswith("exits of")
        released.set()
        until(lambda: len(usual.looks_s) > usual_count)


@pytest.mark.usefixtures("no_slices")
def test_due_exit__waits_for_no_place(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "EXIT_PLACES", 1)
    monkeypatch.setattr(wake_ups, "LEAD_S", 0.1)
    monkeypatch.setattr(fleet_members, "JOB_PATIENCE_S", 60.0)
    released = threading.Event()
    slow = QueuedMember("slow", lambda: released.wait(WAIT_S), is_exit=True)
    urgent = QueuedMember("urgent", every="1h", is_exit=True)
    with queue_of(engine) as db, served(engine, [slow, urgent]):
        until(lambda: statuses(db, slow) == ["doing"] and slow.looks_s)
        until(lambda: statuses(db, urgent) == ["todo"])
        urgent_count = len(urgent.looks_s)
        until(lambda: len(urgent.looks_s) >= urgent_count + 3)
        assert statuses(db, urgent) == ["todo"], "no place"
        released.set()


def test_due_exit__leaves_the_slice_for_its_own_queue(engine: Engine) -> None:
    member = QueuedMember("one", every="1s")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: statuses(db, member) == ["doing"] and jobs(db, member)[0]["queue_name"].startswith("looks of"))
        member.let_exit_be_due(is_due=True)
        until(lambda: jobs(db, member)[0]["queue_name"].startswith("exits of"), 5)
        until(lambda: statuses(db, member) == ["doing"])
        member.let_exit_be_due(is_due=False)
        until(lambda: jobs(db, member)[0]["queue_name"].startswith("looks of"), 5)
    assert max(gaps(member.looks_s)) < 2.5, member.looks_s


def test_failure_while_a_job_is_awaited__is_followed_by_a_look_at_its_time(engine: Engine) -> None:
    def fail() -> None:
        raise Retryable("no answer")

    member = QueuedMember("one", every="1h")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: member.looks_s and member.awaits_job)
        member.look_now(fail)
        until(lambda: member.state is MemberState.BACKING_OFF)
        until(lambda: not member.awaits_job, 2)
        due_s = member.due_s
        until(lambda: len(member.looks_s) == 3)
        assert member.looks_s[2] - due_s < 3
        until(lambda: statuses(db, member) == ["todo"])


@pytest.mark.usefixtures("no_slices")
def test_restarted_database__looks_go_on_and_the_queue_is_filled(engine: Engine, server: Server) -> None:
    member = QueuedMember("one", every="3s")
    with served(engine, [member]):
        until(lambda: len(member.looks_s) > 1 and member.awaits_job)
        server.control("stop", "-m", "fast")
        look_count = len(member.looks_s)
        until(lambda: len(member.looks_s) > look_count + 2)
        server.control("start")
        until(lambda: member.awaits_job)
        with queue_of(engine) as db:
            until(lambda: statuses(db, member) == ["todo"])


KILLED_PROGRAM = """
import sys, threading
from sqlalchemy import make_url
from agent.store.opening import open_server
from tests.postgresql.queued_members import QueuedMember, served

names = sys.argv[2:]
members = [QueuedMember(name, threading.Event().wait, "1h") for name in names]
with served(open_server(make_url(sys.argv[1]), migrates=True), members):
    threading.Event().wait()
"""


@contextmanager
def program_of(url: str, *names: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves these portfolios, whose looks never end."""
    process = subprocess.Popen([sys.executable, "-c", KILLED_PROGRAM, url, *names])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_jobs_of_a_killed_worker__are_taken_over_or_freed(engine: Engine, url: str) -> None:
    """The successor's own wallet looks again at once; the job of one that nobody serves waits for who will."""
    with queue_of(engine) as db, program_of(url, "one", "two") as killed:
        first = QueuedMember("one", every="1h")
        second = QueuedMember("two", every="1h")
        until(lambda: [job["status"] for member in (first, second) for job in jobs(db, member)] == ["doing", "doing"])
        old_queue = jobs(db, first)[0]["queue_name"]
        killed.kill()
        killed.wait()
        killed_s = time.monotonic()
        with served(engine, [first]):
            until(lambda: first.looks_s, TAKEN_OVER_S)
            until(lambda: [job["status"] for job in jobs(db, first)] == ["todo"])
            assert jobs(db, first)[0]["queue_name"] != old_queue
            until(lambda: jobs(db, second)[0]["status"] == "todo", TAKEN_OVER_S - (time.monotonic() - killed_s))
            assert jobs(db, second)[0]["queue_name"] == old_queue
        with served(engine, [second]):
            until(lambda: second.looks_s)
            until(lambda: [job["queue_name"] == old_queue for job in jobs(db, second)] == [False])


@pytest.mark.slow
def test_stalled_job__of_a_served_wallet_comes_into_its_queue(engine: Engine) -> None:
    member = QueuedMember("one", every="1h")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: member.looks_s and jobs(db, member) and member.awaits_job)
        own_queue = jobs(db, member)[0]["queue_name"]
        db.execute("DELETE FROM procrastinate_jobs")
        insert_job(db, "looks of another", key_of(member), key_of(member))
        db.execute("UPDATE procrastinate_jobs SET status = 'doing'")
        until(lambda: [job["queue_name"] for job in jobs(db, member)] == [own_queue], TAKEN_OVER_S)
        until(lambda: [job["due_in_s"] > 3_000 for job in jobs(db, member)] == [True])
        assert len(member.looks_s) == 1, "old, it is no reason for a look"


def test_jobs_that_are_due_or_stalled_are_counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "MEASURE_S", 0.1)
    monkeypatch.setattr(wake_ups, "UPKEEP_CRON", "0 0 1 1 *")
    member = QueuedMember("one", every="1h")
    with queue_of(engine) as db, served(engine, [member]) as queue:
        until(lambda: queue.job_counts == {"due": 0, "stalled": 0})
        insert_job(db, "looks of another", "31337:other", "31337:other")
        until(lambda: queue.job_counts == {"due": 1, "stalled": 0})
        db.execute("UPDATE procrastinate_jobs SET status = 'doing' WHERE lock = '31337:other'")
        until(lambda: queue.job_counts == {"due": 0, "stalled": 1})
    assert queue.job_counts == {}


def test_hung_look__leaves_its_place_and_its_lock(engine: Engine) -> None:
    released = threading.Event()
    member = QueuedMember("one", lambda: released.wait(WAIT_S))
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: statuses(db, member) == ["doing"])
        member._watchdog.max_silence_s = 0
        until(lambda: member.state is MemberState.HUNG)
        until(lambda: not jobs(db, member))
        member._watchdog.max_silence_s = 600
        released.set()
        until(lambda: len(member.looks_s) > 1)


def test_queue__is_refused_with_the_right_that_the_role_lacks(engine: Engine, server: Server) -> None:
    database = engine.url.database
    server.run(f"ALTER DATABASE {database} OWNER TO operator")
    with pytest.raises(OperatorNeeded) as raised:
        wake_ups.create_queue(engine)
    assert f'GRANT CREATE ON DATABASE {database} TO "trimtab"' in raised.value.remedy
    server.run(f"GRANT CREATE ON DATABASE {database} TO trimtab")
    assert wake_ups.create_queue(engine) == wake_ups.create_queue(engine)


def test_queue__that_lacks_a_table_is_created_anew(engine: Engine) -> None:
    member = QueuedMember("one")
    with queue_of(engine) as db:
        db.execute("DROP TABLE procrastinate_jobs CASCADE")
    with queue_of(engine) as db, served(engine, [member]):
        until(lambda: jobs(db, member))


def test_queue__of_another_version_stands_beside(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    own_name = wake_ups.create_queue(engine)
    statements = wake_ups.SchemaManager.get_schema() + "\nCREATE TABLE newer (id integer);"
    monkeypatch.setattr(wake_ups.SchemaManager, "get_schema", staticmethod(lambda: statements))
    assert wake_ups.create_queue(engine) != own_name
