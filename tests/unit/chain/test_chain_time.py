"""The present time of the chain, under machine clocks that are wrong, are set, or stop (T42)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app import StoppableClock
from agent.chain.chain_time import MAX_NEWEST_AGE_S, ChainTime
from agent.chain.endpoints import EndpointPool
from agent.chain.quorum import check_heights
from agent.ports import MonotonicClock
from agent.wiring import SystemClock
from tests.support.chain_reads.headers import HEADER
from tests.support.endpoints import forged_header
from tests.support.fakes.transport import ScriptedTransport

START_S = 1_700_000_000
INTERVAL_S = 2
HEIGHT = 1_000


@dataclass
class Machine:
    """A machine whose clock is `skew_s` ahead. Its monotonic clock lost the time of its suspensions, and gains by `drift`."""

    true_s: float = START_S
    skew_s: float = 0
    lost_s: float = 0
    drift: float = 0

    def clock_s(self) -> float:
        return self.true_s + self.skew_s

    def monotonic_s(self) -> float:
        return (self.true_s - START_S - self.lost_s) * (1 + self.drift)

    def time(self) -> ChainTime:
        return ChainTime(self.clock_s, self.monotonic_s)

    def pass_s(self, seconds: float, *, is_suspended: bool = False) -> None:
        self.true_s += seconds
        self.lost_s += seconds if is_suspended else 0


def test_chain_time__nothing_agreed__is_the_machines_clock() -> None:
    assert Machine(skew_s=-9).time().now_s() == START_S - 9


def agreed(block_age_s: float = 0, **machine: float) -> tuple[Machine, ChainTime]:
    """Return a machine and its time after an agreed block of that age."""
    of_machine = Machine(**machine)
    chain_time = of_machine.time()
    chain_time.record_agreed(int(START_S - block_age_s))
    return of_machine, chain_time


def pass_minutes(machine: Machine, chain_time: ChainTime, count: int) -> None:
    """Let minutes pass, with an agreed block at the end of each."""
    for _ in range(count):
        machine.pass_s(60)
        chain_time.record_agreed(int(machine.true_s))


@pytest.mark.parametrize(
    ("skew_s", "block_age_s", "slow_s"),
    [
        pytest.param(-600, 0, 0, id="ten minutes slow"),
        pytest.param(-30, 0, 0, id="thirty seconds slow"),
        pytest.param(-9, 0, 0, id="nine seconds slow"),
        pytest.param(-1, 0, 0, id="one second slow"),
        pytest.param(0, 0, 0, id="clock right"),
        pytest.param(0, 11, 0, id="block 11 s old"),
        pytest.param(0, 12, 0, id="block 12 s old"),
        pytest.param(0, 13, 1, id="block 13 s old"),
        pytest.param(0, 40, 28, id="block 40 s old"),
    ],
)
def test_chain_time__no_fast_clock__holds_unless_block_is_old(skew_s: int, block_age_s: int, slow_s: int) -> None:
    machine, chain_time = agreed(block_age_s, skew_s=skew_s)
    machine.pass_s(25)
    assert chain_time.now_s() == START_S + 25 - slow_s


@pytest.mark.parametrize(("skew_s", "fast_s"), [(9, 9), (12, 12), (13, 12), (30, 12), (600, 12)])
def test_chain_time__fast_clock__is_fast_by_a_blocks_age_at_most(skew_s: int, fast_s: int) -> None:
    machine, chain_time = agreed(skew_s=skew_s)
    pass_minutes(machine, chain_time, 5)
    assert chain_time.now_s() == machine.true_s + fast_s


@pytest.mark.parametrize("step_s", [-3_600, -600, -30, -9])
def test_chain_time__clock_set_back__counts_on(step_s: int) -> None:
    machine, chain_time = agreed()
    machine.pass_s(25)
    machine.skew_s = step_s
    assert chain_time.now_s() == START_S + 25


@pytest.mark.parametrize("step_s", [9, 30, 600])
def test_chain_time__clock_set_forward__counts_until_next_block(step_s: int) -> None:
    machine, chain_time = agreed()
    machine.skew_s = step_s
    assert chain_time.now_s() == START_S + step_s, "the cautious side: it may have been suspended"
    machine.pass_s(12)
    chain_time.record_agreed(START_S + 12)
    assert chain_time.now_s() == START_S + 12 + min(step_s, MAX_NEWEST_AGE_S)


@pytest.mark.parametrize("skew_s", [-9, 0, 9])
def test_chain_time__machine_suspended__counts_the_lost_time(skew_s: int) -> None:
    machine, chain_time = agreed(skew_s=skew_s)
    machine.pass_s(7_200, is_suspended=True)
    assert chain_time.now_s() == START_S + 7_200 + max(0, skew_s)


@pytest.mark.parametrize(("skew_s", "timestamp_s"), [(-600, 8), (-600, 5), (600, 8), (600, 5)])
def test_chain_time__agreed_block_is_older__keeps_the_time(skew_s: int, timestamp_s: int) -> None:
    machine, chain_time = agreed()
    machine.pass_s(20)
    machine.skew_s = skew_s
    chain_time.record_agreed(START_S + timestamp_s)
    assert chain_time.now_s() == pytest.approx(START_S + 20, abs=0.1)


def test_chain_time__fast_clock_put_right__is_right_next_block() -> None:
    machine, chain_time = agreed(skew_s=9)
    machine.skew_s = 0
    pass_minutes(machine, chain_time, 1)
    assert chain_time.now_s() == START_S + 60


def test_chain_time__late_dated_block__is_forgotten_in_a_day() -> None:
    machine, chain_time = agreed(-60)
    assert chain_time.now_s() == START_S + 60
    pass_minutes(machine, chain_time, 24 * 60)
    assert chain_time.now_s() == machine.true_s


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 12), st.sampled_from([-600, -9, 0, 9, 600])), max_size=30))
def test_chain_time__any_clock__is_at_most_a_block_s_age_slow(looks: list[tuple[float, float, int]]) -> None:
    machine = Machine()
    chain_time = machine.time()
    slowest_s = 0.0
    for pause_s, block_age_s, skew_s in looks:
        machine.pass_s(pause_s)
        chain_time.record_agreed(int(machine.true_s - block_age_s))
        slowest_s = max(slowest_s, block_age_s + 1)
        machine.skew_s = skew_s
        assert chain_time.now_s() >= machine.true_s - slowest_s - 1e-3


def three_nodes(machine: Machine) -> EndpointPool:
    """Operators that show any header, of a chain with a block every two seconds."""

    def block(params: list[object]) -> dict[str, object]:
        number = int(str(params[0]), 16)
        timestamp_s = START_S + (number - HEIGHT) * INTERVAL_S
        return forged_header({**HEADER, "timestamp": hex(timestamp_s), "number": hex(number)}, 0)

    nodes = [ScriptedTransport(name, eth_getBlockByNumber=block) for name in "abc"]
    return EndpointPool(nodes, 2, max_lag_blocks=3, now_s=machine.clock_s, monotonic_s=machine.monotonic_s)


def why_not(pool: EndpointPool, *, ahead: int, height: int = HEIGHT, timestamp_s: int = START_S) -> str:
    """Return why the height cannot be trusted if the first node is so many blocks ahead of the others."""
    heights = dict(zip(pool.endpoints, (height + ahead, height, height), strict=True))
    return check_heights(pool, heights, height, timestamp_s)


@pytest.mark.parametrize(("skew_s", "lost_s"), [(-600, 0), (-30, 0), (-9, 0), (0, 0), (9, 0), (0, 120), (30, 0)])
def test_check_heights__one_newer_header_stops_an_old_majority(skew_s: int, lost_s: int) -> None:
    """Seven blocks of two seconds behind, at 14 s: 5 s by a clock that is 9 s slow, and a block of 12 s is never old."""
    machine = Machine(skew_s=skew_s)
    pool = three_nodes(machine)
    assert why_not(pool, ahead=0) == ""
    machine.pass_s(14 + lost_s, is_suspended=bool(lost_s))
    assert "a is at block 1007" in why_not(pool, ahead=7)


@pytest.mark.parametrize("skew_s", [-600, -9, 0])
def test_check_heights__forged_header_stops_an_old_block(skew_s: int) -> None:
    machine = Machine(skew_s=skew_s)
    pool = three_nodes(machine)
    assert why_not(pool, ahead=0) == ""
    machine.pass_s(12)
    assert why_not(pool, ahead=7) == ""
    machine.pass_s(1)
    assert why_not(pool, ahead=7) != ""


@pytest.mark.parametrize("skew_s", [9, 30, 600])
def test_check_heights__forged_header_stops_no_fresh_block(skew_s: int) -> None:
    pool = three_nodes(Machine(skew_s=skew_s))
    assert why_not(pool, ahead=0) == ""
    assert why_not(pool, ahead=7) == ""


@pytest.mark.parametrize("drift", [0, 100e-6, 600e-6], ids=["none", "quartz", "quartz and NTP"])
def test_check_heights__gained_clock__forged_header_stops_nothing(drift: float) -> None:
    machine = Machine(drift=drift)
    pool = three_nodes(machine)
    pass_minutes(machine, pool.chain_time, 14 * 24 * 60)
    height = HEIGHT + (int(machine.true_s) - START_S) // INTERVAL_S
    assert why_not(pool, ahead=7, height=height, timestamp_s=int(machine.true_s)) == ""


def test_clocks_of_a_live_agent__count_seconds_that_no_one_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now_s", lambda _: 0)
    monkeypatch.setattr(SystemClock, "monotonic_s", lambda _: 7.5)
    for clock in (SystemClock(), StoppableClock()):
        assert isinstance(clock, MonotonicClock)
        assert clock.monotonic_s() == 7.5
