"""The present time of the chain, which neither a wrong clock of the machine nor a suspension delays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_NEWEST_AGE_S = 12
"""Age up to which a block is never old: the block interval of Ethereum."""
MAX_CLOCK_DRIFT = 0.001
"""Share by which a monotonic clock may gain: NTP slews by up to 500 ppm (adjtimex), a quartz by 100."""


@dataclass(frozen=True, slots=True)
class _AgreedTime:
    """The time of the chain when operators agreed: the earliest that it can be, the estimate, and
    what both clocks showed.
    """

    earliest_s: float
    chain_s: float
    clock_s: float
    monotonic_s: float


class ChainTime:
    """Estimate of the chain's present time, Unix seconds: the newest timestamp that operators agreed
    on, and the time since. Before the first agreement it is the machine's clock.

    The machine's clock may be set meanwhile, and a monotonic one stops while the machine is
    suspended; the time since is the longer of both, so that no old block passes as new (T42).
    """

    def __init__(self, clock_s: Callable[[], float], monotonic_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._monotonic_s = monotonic_s
        self._agreed_time: _AgreedTime | None = None

    def now_s(self) -> float:
        """Return the estimate."""
        agreed_time = self._agreed_time
        if agreed_time is None:
            return self._clock_s()
        elapsed_s = max(
            self._clock_s() - agreed_time.clock_s, self._monotonic_s() - agreed_time.monotonic_s
        )
        return agreed_time.chain_s + elapsed_s

    def record_agreed(self, timestamp_s: int) -> None:
        """Reckon from the newest block that operators agree on. It may be up to MAX_NEWEST_AGE_S
        old, so that within these the machine's clock counts; but the time is never earlier than an
        earlier block and the time since, by the clock that no one sets, less its drift: a clock that
        gains, or a block dated too late, must not call fresh blocks old for ever.
        """
        clock_s = self._clock_s()
        monotonic_s = self._monotonic_s()
        earliest_s = float(timestamp_s)
        if (agreed_time := self._agreed_time) is not None:
            elapsed_s = (monotonic_s - agreed_time.monotonic_s) * (1 - MAX_CLOCK_DRIFT)
            earliest_s = max(earliest_s, agreed_time.earliest_s + elapsed_s)
        latest_s = max(earliest_s, timestamp_s + MAX_NEWEST_AGE_S)
        chain_s = min(max(clock_s, earliest_s), latest_s)
        self._agreed_time = _AgreedTime(earliest_s, chain_s, clock_s, monotonic_s)
