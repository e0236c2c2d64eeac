"""Health of a run by its report and the time: the same function for the run, the server and the command."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent import codec
from agent.app.records import run_report
from agent.app.records.run_report import RunRecorder
from agent.errors import OperatorNeeded
from agent.model import RunFigures, RunReport, sum_counts
from agent.observe import health
from agent.observe.health import CLOCK_TOLERANCE_S, MAX_MISSED_CYCLES, health_document, is_alive, judge_health, process_identity
from agent.store.store import Store
from tests.support.fakes.clock import FakeClock
from tests.support.stores import store_fixture
from tests.support.text import mentions

START_S = 1_800_000_000
EVERY_S = 600
LATE_S = MAX_MISSED_CYCLES * EVERY_S + 60
NEW = RunReport("a", "", True, EVERY_S, START_S, START_S)
GOOD = replace(NEW, cycles=3, last_good_cycle_at_s=START_S, last_cycle_s=START_S)
WALLET = "0x" + "11" * 20


def test_a_run_that_never_was_is_told_from_a_new_one() -> None:
    never = judge_health(None, START_S)
    assert (never.state, never.reasons) == ("none", ("no continuous run (trimtab run --every) reports here",))
    assert not never.is_ready
    new = judge_health(NEW, START_S)
    assert (new.state, new.is_healthy, new.obstacles) == ("running", True, ("no successful cycle yet",))


def test_a_report_turns_red_when_its_time_is_over_and_not_before() -> None:
    assert judge_health(GOOD, START_S + LATE_S).is_healthy
    assert judge_health(GOOD, START_S + LATE_S).is_ready
    late = judge_health(GOOD, START_S + LATE_S + 1)
    assert mentions(late.reasons[0], "31 min 1 s", "longer than 31 min")
    assert not late.is_ready
    assert judge_health(NEW, START_S + LATE_S + 1).reasons == judge_health(NEW, START_S + LATE_S + 1).obstacles[:1]


def test_trouble_hang_and_pause_are_named_and_a_pause_is_healthy() -> None:
    assert judge_health(replace(GOOD, trouble="endpoint 'a' is away"), START_S).reasons == ("endpoint 'a' is away",)
    assert mentions(judge_health(replace(GOOD, hang_text="the disk"), START_S).reasons[0], "hangs", "disk")
    paused = judge_health(replace(GOOD, pause_reason="lunch"), START_S)
    assert paused.is_healthy
    assert paused.obstacles == ("paused: lunch",)


@pytest.mark.parametrize(
    ("report", "late_s", "next_cycle"),
    [
        (GOOD, EVERY_S - 1, "2027-01-15T08:10:00Z"), (GOOD, EVERY_S, None), (NEW, 0, None), (None, 0, None),
        (replace(GOOD, trouble="it is retried sooner"), 0, None), (replace(GOOD, ended_s=START_S), 0, None),
    ],
    ids=["waits", "has begun", "first", "no run", "retried", "ended"],
)  # fmt: skip
def test_next_cycle__is_known_while_a_good_run_waits(report: RunReport | None, late_s: int, next_cycle: str | None) -> None:
    now_s = START_S + late_s
    assert health_document(report, judge_health(report, now_s), (), now_s)["next_cycle"] == next_cycle


def test_stopped_run__differs_from_a_failed_and_a_dead_one() -> None:
    stopped = judge_health(replace(GOOD, ended_s=START_S), START_S, is_process_alive=False)
    assert (stopped.state, stopped.reasons) == ("stopped", ("stopped at 2027-01-15 08:00:00 UTC",))
    assert not stopped.is_ready
    failed = judge_health(replace(GOOD, ended_s=START_S, end_error="store: disk is full"), START_S)
    assert failed.state == "failed"
    assert mentions(failed.reasons[0], "2027-01-15 08:00:00", "disk is full")
    died = judge_health(GOOD, START_S, is_process_alive=False)
    assert died.state == "gone"
    assert mentions(died.reasons[0], "without a last report", "2027-01-15 08:00:00")
    hung = judge_health(replace(GOOD, hang_text="the disk"), START_S, is_process_alive=False)
    assert hung.state == "gone"
    assert len(hung.reasons) == 2


def test_a_clock_that_goes_back_makes_no_dead_run_healthy() -> None:
    behind_s = CLOCK_TOLERANCE_S + 1
    assert judge_health(GOOD, START_S - behind_s + 1).is_healthy, "clocks of two machines differ a little"
    assert mentions(judge_health(GOOD, START_S - behind_s).reasons[0], "1 min 1 s behind")
    back_s = START_S + 1
    assert judge_health(GOOD, back_s, known_for_s=LATE_S).is_healthy
    assert not judge_health(GOOD, back_s, known_for_s=LATE_S + 1).is_healthy, "who saw the report grow old is not deceived"
    assert not judge_health(GOOD, back_s, is_process_alive=False).is_healthy


def test_the_document_has_the_reasons_and_no_age_below_zero() -> None:
    document = health_document(GOOD, judge_health(GOOD, START_S), (), START_S - 5)
    assert document == {
        "ok": True, "state": "running", "reasons": [], "cycles": 3, "last_good_cycle_s": 0, "next_cycle": "2027-01-15T08:10:00Z",
        "paused": False, "sends": True,
    }  # fmt: skip
    assert health_document(None, judge_health(None, 0), ("x",), 0)["last_good_cycle_s"] is None


def test_a_dry_run_is_named_and_never_ready() -> None:
    dry = replace(GOOD, sends=False)
    run_health = judge_health(dry, START_S)
    assert run_health.is_healthy
    assert mentions(run_health.obstacles[0], "a dry run: it sends nothing", "--send")
    sends = [health_document(report, run_health, (), START_S)["sends"] for report in (GOOD, dry, None)]
    assert sends == [True, False, None]


# the process
def test_process__is_alive_until_it_dies_whatever_its_number() -> None:
    ours = process_identity()
    assert is_alive(ours) is True
    place, _, started = ours.rpartition("/")
    assert is_alive(f"{place}/{started}1") is False, "another process has its number now"
    text = "import sys; from agent.observe.health import process_identity; print(process_identity(), flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs = child.stdout.readline().strip()
    assert is_alive(theirs) is True
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(theirs) is False, "dead, though its parent has not collected it"
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert is_alive(theirs) is False


def test_process__of_another_user_is_compared_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_pid: int, _signal: int) -> None:
        raise PermissionError

    ours = process_identity()
    monkeypatch.setattr(health.os, "kill", deny)
    assert is_alive(ours) is True
    assert is_alive(f"{ours}1") is False
    monkeypatch.setattr(health, "_start_of", lambda _: None)
    assert is_alive(ours) is None


def test_process__of_before_a_restart_of_the_machine_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number and the ticks since the start are the same again."""
    before = process_identity()
    monkeypatch.setattr(health, "_boot_id", lambda: "another start")
    assert is_alive(process_identity()) is True
    assert is_alive(before) is False


@pytest.mark.parametrize("process", ["", "other/pid:[1]/1/1", f"{os.uname().nodename}/pid:[1]/1/1", "x", "a/b/c/d"])
def test_of_a_process_elsewhere_nothing_is_known(process: str) -> None:
    assert is_alive(process) is None


# the store
store = store_fixture("file", wallet=WALLET, chain_id=1)


def always(_: RunReport) -> bool:
    return True


def test_report__comes_back_as_written_and_replaces_the_last(store: Store) -> None:
    assert store.run_reports.newest() is None
    figures = RunFigures(1_500, 1, "1000.500000", (("USDC", 30), ("WETH", -30)), START_S, 10**20, "-1.5", "50", (("a", 500_000),))
    full = replace(GOOD, figures=figures, outcomes=(("done", 1),), transactions=(("swap final", 2),), trouble="«ä»\n")
    for report in (NEW, full):
        assert store.run_reports.write(report, always)
        assert store.run_reports.newest() == report
    with store.db.read("count") as db:
        assert db.exec_driver_sql("SELECT count(*) FROM run_report").scalar() == 1


def test_a_damaged_report_is_told_and_the_next_cycle_replaces_it(store: Store, tmp_path: Path) -> None:
    store.run_reports.write(GOOD, always)
    with sqlite3.connect(tmp_path / "trimtab.db") as db:
        db.execute('UPDATE run_report SET report_json = \'{"cycles": "x"}\'')
    with pytest.raises(OperatorNeeded, match="report of the run is damaged"):
        store.run_reports.newest()
    assert store.run_reports.write(GOOD, lambda _: False)
    assert store.run_reports.newest() == GOOD


# the recorder
def recorder(store: Store | None, clock: FakeClock, *, sends: bool = True, redact: Callable[[str], str] = str) -> RunRecorder:
    return RunRecorder(None if store is None else store.run_reports, EVERY_S, sends=sends, redact=redact, now_s=clock)


def test_a_run_reports_its_start_each_cycle_and_its_end(store: Store) -> None:
    clock = FakeClock(START_S)
    run = recorder(store, clock, redact=lambda text: text.replace("secret", "[hidden]"))
    run.write()
    assert store.run_reports.newest() == run.report
    assert run.report.process_identity == process_identity()
    clock.advance(5)
    run.on_cycle("done", "", "", (("swap final", 1),))
    clock.advance(1)
    run.on_cycle("error", "the secret is out", "by secret", (("swap final", 1), ("approval final", 1)))
    run.on_figures(RunFigures(value="2"))
    run.on_failed_heartbeat()
    clock.advance(1)
    run.write()
    run_report = store.run_reports.newest()
    assert run_report == run.report
    assert (run_report.cycles, run_report.last_good_cycle_at_s, run_report.last_cycle_s, run_report.written_s) == (
        2,
        START_S + 5,
        START_S + 6,
        START_S + 7,
    )
    assert run_report.outcomes == (("done", 1), ("error", 1))
    assert run_report.transactions == (("approval final", 1), ("swap final", 2))
    assert (run_report.trouble, run_report.pause_reason, run_report.failed_heartbeats, run_report.figures.value) == (
        "the [hidden] is out",
        "by [hidden]",
        1,
        "2",
    )
    run.on_end("secret")
    run.write()
    run_report = store.run_reports.newest()
    assert (run_report.ended_s, run_report.end_error) == (START_S + 7, "[hidden]")
    assert run.health().state == "failed"


def test_hang__is_written_and_a_failing_store_delays_it_no_more(store: Store) -> None:
    run = recorder(store, FakeClock(START_S))
    run.on_hang("the disk")
    run_report = store.run_reports.newest()
    assert run_report.hang_text == "the disk"
    store.close()
    store.db.engine.dispose()
    with sqlite3.connect(store.db.engine.url.database or "") as holder:
        holder.isolation_level = None
        holder.execute("BEGIN EXCLUSIVE")
        run.on_hang("again")
        holder.execute("ROLLBACK")


def test_dry_run__leaves_a_sender_s_report_until_it_is_dead(store: Store) -> None:
    clock = FakeClock(START_S)
    live = recorder(store, clock)
    dry = recorder(store, clock, sends=False)
    dry.write()
    live.write()
    assert store.run_reports.newest() == live.report, "one that sends takes the place"
    dry.write()
    assert store.run_reports.newest() == live.report
    clock.advance(LATE_S + 1)
    dry.write()
    assert store.run_reports.newest() == live.report, "it died beside the dry run, which must not hide that"
    later = recorder(store, clock, sends=False)
    later.write()
    assert store.run_reports.newest() == later.report, "begun after its death"
    live = recorder(store, clock)
    live.write()
    later.write()
    live.on_end("the disk is full")
    live.write()
    later.write()
    assert store.run_reports.newest() == live.report, "ended by an error"
    live = recorder(store, clock)
    live.write()
    later.write()
    live.on_end()
    live.write()
    later.write()
    assert store.run_reports.newest() == later.report, "stopped"


def test_second_sending_run__gives_way_to_the_live_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(START_S)
    first = recorder(store, clock)
    second = recorder(store, clock)
    first.write()
    second.write()
    second.on_end("another process uses the wallet")
    second.write()
    assert store.run_reports.newest() == first.report
    assert second.defers_to_other_run
    assert not first.defers_to_other_run
    for alive in (False, None):
        monkeypatch.setattr(run_report, "is_alive", lambda _, alive=alive: alive)
        first, second = second, recorder(store, clock)
        second.write()
        assert store.run_reports.newest() == second.report
        assert not second.defers_to_other_run, "one that is dead, or elsewhere, holds no place"


def test_a_dry_run_is_healthy_and_never_ready(store: Store) -> None:
    run = recorder(store, FakeClock(START_S), sends=False)
    run.on_cycle("planned", "", "", ())
    assert run.health().is_healthy
    assert mentions(run.health().obstacles[0], "dry run")


def test_a_run_without_a_store_judges_itself_all_the_same() -> None:
    clock = FakeClock(START_S)
    run = recorder(None, clock)
    run.write()
    assert run.health().is_healthy
    assert not run.silence_text()
    clock.advance(LATE_S + 1)
    assert mentions(run.silence_text(), "31 min 1 s")
    run.on_cycle("hold", "", "", ())
    assert run.health().is_ready


def test_counts_are_added_by_name() -> None:
    assert sum_counts((("b", 1),), (("a", 2), ("b", 3))) == (("a", 2), ("b", 4))
    assert codec.loads(RunReport, codec.dumps(GOOD)) == GOOD
