"""The run of several portfolios: who looks when, what a hung look costs, and when the process ends."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from agent import wiring
from agent.app.service import StoppableClock
from agent.errors import ConfigError, Retryable
from agent.fleet import chains as fleet_chains
from agent.fleet import members as fleet_members
from agent.fleet import run as fleet_run
from agent.fleet.chains import FleetChain, SharedConnections
from agent.fleet.members import FleetMember, FleetOptions, MemberState
from agent.fleet.run import FleetRun, run_fleet
from agent.observe.logs import Redactor
from agent.wiring import SystemClock
from tests.support.fakes.clock import FakeClock

WAIT_S = 20


class FakeMember:
    """A portfolio whose look does what a test says."""

    agent = None
    chain = None
    is_urgent = False
    is_served = True

    def __init__(self, name: str, look: Callable[[], object] = lambda: None, *, fails_to_close: bool = False) -> None:
        self.name = name
        self.state = MemberState.WAITING
        self.due_s = 0.0
        self.is_hung = False
        self.closed = False
        self.stop_requests = 0
        self.look_count = 0
        self._look = look
        self._fails_to_close = fails_to_close

    @property
    def has_looked(self) -> bool:
        return self.look_count > 0

    def is_due(self, now_s: float, *, checks_files: bool) -> bool:
        del now_s, checks_files
        return self.state is MemberState.WAITING and self.look_count == 0

    def queue(self) -> None:
        self.state = MemberState.QUEUED

    def look(self) -> None:
        if self.state is not MemberState.QUEUED:
            return
        self.state = MemberState.LOOKING
        self.look_count += 1
        self._look()
        self.state = MemberState.WAITING

    def give_up_hung_look(self) -> bool:
        if not self.is_hung or self.state is not MemberState.LOOKING:
            return False
        self.state = MemberState.HUNG
        return True

    def request_stop(self) -> None:
        self.stop_requests += 1

    def close(self) -> None:
        if self._fails_to_close:
            raise OSError("the disk is gone")
        self.closed = True


class ProcessExited(Exception):
    """Raised in place of the end of the process."""


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise ProcessExited

    monkeypatch.setattr(fleet_run.os, "_exit", end)
    monkeypatch.setattr(fleet_run, "TICK_S", 0.01)
    return codes


def run_until(members: list[FakeMember], is_met: Callable[[], bool]) -> None:
    """Run the members until the condition holds, then stop."""
    clock = StoppableClock()
    fleet = FleetRun(members, clock)  # type: ignore[arg-type]  # fakes
    thread = threading.Thread(target=fleet.run)
    thread.start()
    deadline_s = time.monotonic() + WAIT_S
    while not is_met():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    clock.request_stop()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def hung(count: int, released: threading.Event) -> list[FakeMember]:
    members = [FakeMember(f"hung{number}", lambda: released.wait(WAIT_S)) for number in range(count)]
    for member in members:
        member.is_hung = True
    return members


def test_two_hung_looks_are_given_up_and_the_others_go_on(exit_codes: list[int]) -> None:
    released = threading.Event()
    members = [*hung(2, released), FakeMember("good")]
    run_until(members, lambda: members[2].look_count == 1 and [member.state for member in members[:2]] == [MemberState.HUNG] * 2)
    assert exit_codes == []
    assert [member.closed for member in members] == [False, False, True], "what hangs still holds its store and its wallet's lock"
    released.set()


def test_third_hung_look__ends_the_process_for_its_manager(exit_codes: list[int]) -> None:
    released = threading.Event()
    members = hung(3, released)
    with pytest.raises(ProcessExited):
        FleetRun(members, StoppableClock()).run()  # type: ignore[arg-type]  # fakes
    assert exit_codes[0] == 13
    released.set()


def test_a_stop_waits_for_the_looks_under_way_and_closes_all(exit_codes: list[int]) -> None:
    begun = threading.Event()

    def slow_look() -> None:
        begun.set()
        time.sleep(0.3)

    members = [FakeMember("slow", slow_look), FakeMember("idle")]
    run_until(members, begun.is_set)
    assert [member.closed for member in members] == [True, True]
    assert [member.stop_requests for member in members] == [1, 1]
    assert members[0].state is MemberState.WAITING, "its look came to its end"


def test_the_process_ends_once_every_owner_has_stopped(exit_codes: list[int]) -> None:
    members = [FakeMember("a"), FakeMember("b")]
    for member in members:
        member.state = MemberState.STOPPED
    FleetRun(members, StoppableClock()).run()  # type: ignore[arg-type]  # fakes
    assert [member.closed for member in members] == [True, True]


def test_no_look_waits_for_another(exit_codes: list[int]) -> None:
    released = threading.Event()
    waiting = [FakeMember(f"p{number}", lambda: released.wait(WAIT_S)) for number in range(40)]
    last = FakeMember("last", released.set)
    run_until([*waiting, last], lambda: all(member.look_count == 1 for member in waiting))
    assert last.look_count == 1


def test_one_that_cannot_be_closed_leaves_no_other_open(exit_codes: list[int]) -> None:
    members = [FakeMember("broken", fails_to_close=True), FakeMember("sound")]
    run_until(members, lambda: all(member.has_looked for member in members))
    assert members[1].closed


def test_one_whose_closing_hangs__holds_up_no_end(exit_codes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_run, "LONGEST_CLOSE_S", 0.2)
    released = threading.Event()
    members = [FakeMember("hanging"), FakeMember("sound")]
    monkeypatch.setattr(members[0], "close", lambda: released.wait(3 * WAIT_S))
    run_until(members, lambda: all(member.has_looked for member in members))
    assert members[1].closed
    assert not released.is_set()
    released.set()


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "alone"])
def test_hung_portfolio__does_not_count_as_running(is_shared: bool) -> None:
    states = [MemberState.HUNG, MemberState.WAITING]
    members = [FakeMember(state.value) for state in states]
    for member, state in zip(members, states, strict=True):
        member.state = state
    fleet = FleetRun(members, StoppableClock(), Mock() if is_shared else None)  # type: ignore[arg-type]  # fakes
    fleet._report_status()
    assert fleet._shown_status == "1 of 2 portfolios run; hung: hung"


class FakeChain(FleetChain):
    """A chain whose shared read takes as long as a test says; `reads` are the wallets of each read, those that looks make included."""

    def __init__(self, read: Callable[[], object]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wiring, "open_block_reader", lambda *_: None)
            super().__init__(None, (), SystemClock())  # type: ignore[arg-type]  # no config
        self.reads: list[int] = []
        self.offers: set[int] = set()
        self._read = read

    def read_ahead(self, contexts: Sequence[object]) -> None:
        self.read(len(contexts))
        self.offers |= set(map(id, contexts))

    def read(self, wallet_count: int) -> None:
        self.reads.append(wallet_count)
        self._read()


class OpenedMember(FakeMember):
    """A portfolio that is open, so that it shares reads."""

    def __init__(self, name: str, chain: FakeChain, *, is_urgent: bool = False) -> None:
        super().__init__(name)
        self.chain = chain  # type: ignore[assignment]  # a fake
        self.agent = type("Opened", (), {"context": None})()
        self.is_urgent = is_urgent


def test_looks_do_not_wait_for_a_shared_read_that_does_not_end(exit_codes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_run, "READ_PATIENCE_S", 0.2)
    released = threading.Event()
    chain = FakeChain(lambda: released.wait(WAIT_S))
    members: list[FakeMember] = [OpenedMember(f"p{number}", chain) for number in range(3)]
    run_until(members, lambda: all(member.has_looked for member in members))
    released.set()
    assert [member.look_count for member in members] == [1, 1, 1]


def test_look_due_in_a_shared_read__waits_unless_urgent(exit_codes: list[int]) -> None:
    released = threading.Event()
    chain = FakeChain(lambda: released.wait(WAIT_S))
    assert chain.begin_read()
    usual = [OpenedMember(f"usual{number}", chain) for number in range(3)]
    urgent = OpenedMember("urgent", chain, is_urgent=True)

    def has_only_the_urgent_looked() -> bool:
        return urgent.has_looked and not any(member.has_looked for member in usual)

    def end_read_once_it_has() -> bool:
        if not released.is_set() and has_only_the_urgent_looked():
            released.set()
            chain.end_read()
        return all(member.has_looked for member in usual)

    run_until([*usual, urgent], end_read_once_it_has)
    assert chain.reads == [3], "together, in the read after"


class FakeThread:
    """A thread that does its work when it is started."""

    def __init__(self, target: Callable[..., object], args: Sequence[object], **_: object) -> None:
        self._work = partial(target, *args)

    def start(self) -> None:
        self._work()


class SharingMember(FleetMember):
    """A portfolio that looks by the schedule, and reads by itself what was not read for it."""

    def __init__(self, path: Path, chain: FakeChain, cycle: Callable[[], object]) -> None:
        super().__init__(path.stem, path, FleetOptions("1m"), SharedConnections(SystemClock()), Redactor(), lambda *_: None)
        self._opened_chain = chain
        self._cycle = cycle

    def _open(self) -> None:
        chain = self._opened_chain
        context = object()

        def cycle() -> object:
            if id(context) in chain.offers:
                chain.offers.discard(id(context))
            else:
                chain.read(1)
            return self._cycle()

        self.chain = chain
        self._read_times = chain.read_times
        self.agent = SimpleNamespace(context=context)  # type: ignore[assignment]  # a fake
        self._service = Mock()
        self._run = Mock(cycle=cycle, urgent_pause_s=None, ends_wait=lambda: False)


def test_fifty_wallets__stay_read_together_and_starts_are_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred and fifty that look each minute, for a quarter of an hour; looks last up to five seconds."""
    clock = FakeClock(1_000)
    for module in (fleet_run, fleet_members, fleet_chains):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(fleet_run, "threading", SimpleNamespace(Thread=FakeThread))
    monkeypatch.setattr(fleet_run, "FILE_CHECK_S", 1e9)
    looks: list[Callable[[], None]] = []
    monkeypatch.setattr(fleet_run, "_in_thread", looks.append)

    def cycle() -> object:
        clock.advance(random.uniform(0.1, 5))
        return Retryable("as a result: the look was made")

    chain = FakeChain(lambda: None)
    members = [SharingMember(tmp_path / f"p{number}.toml", chain, cycle) for number in range(150)]
    fleet_run.spread_starts(members, 60)
    assert [members[number].due_s for number in (0, 49, 50, 149)] == [1_000, 1_000, 1_020, 1_040]
    fleet = FleetRun(members, StoppableClock())
    fleet._files_checked_s = clock.time_s
    for second in range(900):
        clock.time_s = 1_000.0 + second
        fleet._begin_due_looks()
        while looks:
            looks.pop()()
            clock.time_s = 1_000.0 + second
    late_reads = chain.reads[len(chain.reads) // 2 :]
    assert sum(chain.reads) >= 150 * 13
    assert sum(late_reads) / len(late_reads) >= 45, late_reads


def test_few_who_look_together_join_more_before_their_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(1_000)
    monkeypatch.setattr(fleet_chains, "time", SimpleNamespace(monotonic=clock))
    times = fleet_chains.SharedReadTimes()
    times_of_few = {times.join(1_000, 1_002) for _ in range(3)}
    clock.time_s = 1_005
    times_of_more = {times.join(1_010, 1_012) for _ in range(10)}
    few_s = times_of_few.pop()
    more_s = times_of_more.pop()
    assert not times_of_few | times_of_more, "each group has one time"
    assert {times.join(1_060, 1_066, few_s) for _ in range(3)} == {more_s}
    clock.time_s = 1_020
    times_after = {times.join(1_070, 1_077, more_s) for _ in range(13)}
    assert len(times_after) == 1
    assert 1_070 <= times_after.pop() <= 1_077


def test_more_do_not_join_few_before_their_time_nor_a_full_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(1_000)
    monkeypatch.setattr(fleet_chains, "time", SimpleNamespace(monotonic=clock))
    times = fleet_chains.SharedReadTimes()
    full_s = {times.join(1_010, 1_012) for _ in range(50)}.pop()
    few_s = times.join(1_020, 1_022)
    clock.time_s = 1_005
    assert times.join(1_060, 1_066) == few_s, "not the full one"
    assert times.join(1_060, 1_066, full_s) >= 1_060
    assert times.join(1_010, 1_012) == full_s, "the place of who left it"
    clock.time_s = 1_013
    assert 1_070 <= times.join(1_070, 1_077, full_s) <= 1_077


def test_worker__without_its_queue_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agent.fleet.wake_ups", raising=False)
    monkeypatch.setitem(sys.modules, "procrastinate", None)
    options = FleetOptions("1m", share=Mock(engine=None))
    with pytest.raises(ConfigError) as raised:
        run_fleet([], options, Redactor(), lambda *_: None, StoppableClock())
    assert "procrastinate" in raised.value.message
    assert "trimtab[fleet]" in raised.value.remedy


def test_several_portfolios_without_workers_load_no_queue() -> None:
    program = "import sys, agent.cli.run, agent.fleet.run, agent.fleet.sharing; assert 'procrastinate' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
