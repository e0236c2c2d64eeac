"""The clock of tests: it stands, is moved by the test, or follows a chain."""

from __future__ import annotations

from collections.abc import Callable

from agent.localchain import LocalChain
from agent.observe.watch import Watchdog

START_S = 1_700_000_000


def forbid_sleep(seconds: float) -> None:
    """Fail the test: what is tested never sleeps."""
    raise AssertionError(f"it slept {seconds} s")


class FakeClock:
    """ports.Clock, and a function of the time. It stands at `time_s` until `advance` or a sleep moves it.

    With a `source` it is `time_s` ahead of that, and a sleep does only what `wait` does with its seconds. After each sleep `on_sleep` is
    called; `sleeps` has their seconds. It is a ports.MonotonicClock only with `monotonic_s`.
    """

    def __init__(
        self,
        time_s: float = START_S,
        *,
        source: Callable[[], float] | None = None,
        wait: Callable[[float], object] | None = None,
        on_sleep: Callable[[], object] = lambda: None,
        monotonic_s: Callable[[], float] | None = None,
    ) -> None:
        self.time_s = time_s
        self.on_sleep = on_sleep
        self.sleeps: list[float] = []
        self._source = source
        self._wait = wait
        self._watchdog: Watchdog | None = None
        if monotonic_s is not None:
            self.monotonic_s = monotonic_s

    def __call__(self) -> float:
        return self.time_s + (0 if self._source is None else self._source())

    def now_s(self) -> int:
        return int(self())

    def advance(self, seconds: float) -> None:
        self.time_s += seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if self._watchdog is not None:
            self._watchdog.beat("waiting")
        if self._wait is not None:
            self._wait(seconds)
        elif self._source is None:
            self.advance(seconds)
        self.on_sleep()

    def set_watchdog(self, watchdog: Watchdog) -> None:
        """Report each sleep to the watchdog, as the clock of a service does."""
        self._watchdog = watchdog


def chain_clock(
    chain: LocalChain,
    offset_s: float = 0,
    on_sleep: Callable[[], object] = lambda: None,
    monotonic_s: Callable[[], float] | None = None,
) -> FakeClock:
    """Return the chain's clock, wrong by `offset_s`: each sleep mines a block."""
    return FakeClock(offset_s, source=chain.now_s, wait=chain.clock.sleep, on_sleep=on_sleep, monotonic_s=monotonic_s)


def waiting_clock(chain: LocalChain, on_sleep: Callable[[], object] = lambda: None) -> FakeClock:
    """Return the chain's clock whose sleeps mine nothing."""
    return FakeClock(0, source=chain.now_s, on_sleep=on_sleep)
