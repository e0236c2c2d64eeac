"""Thousands of looks of one agent in one process, with trades among them: what grows, and by how much (R8.9)."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from agent.app.agent import Agent
from agent.app.service import Service, serve
from agent.errors import TrimtabError
from agent.localchain import LocalChain
from agent.observe.health import Watchdog
from tests.support.agents import ROOMY, again, fund, trusted, yes

TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 50_000, "USDC": 50_000}
PRICES = (Fraction(10, 13), Fraction(13, 10))
"""By what WETH's price is multiplied, in turn: each takes the portfolio beyond its bands."""
PAUSED_PART = 4
"""For a fourth of the looks after each move the kill switch is on: plans are made and refused, which takes most memory."""
KEEP_STEPS = 40


class Ticking:
    """ports.Clock of the chain: each rest is one block. A run's service hangs its watch on it."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain = chain
        self._watch: Watchdog | None = None

    def now_s(self) -> int:
        return self._chain.now_s()

    def sleep(self, seconds: float) -> None:
        if self._watch is not None:
            self._watch.beat("waiting")
        self._chain.clock.sleep(seconds)

    def watched(self, watch: Watchdog) -> None:
        self._watch = watch


@dataclass(frozen=True)
class Mark:
    """What the process holds after so many looks: heap (0 where not traced), resident memory and store in bytes; living objects."""

    looks: int
    heap: int
    resident: int
    objects: int
    store: int
    steps: int


@dataclass(frozen=True)
class Soaked:
    """A soak: marks in order, and how its looks ended."""

    marks: tuple[Mark, ...]
    outcomes: dict[str, int]

    def growth(self, name: str, after: int) -> float:
        """Growth per look of a figure from the first mark at or after so many looks to the last, least squares."""
        found = [mark for mark in self.marks if mark.looks >= after]
        mean_x = sum(mark.looks for mark in found) / len(found)
        mean_y = sum(getattr(mark, name) for mark in found) / len(found)
        return sum((m.looks - mean_x) * (getattr(m, name) - mean_y) for m in found) / sum((m.looks - mean_x) ** 2 for m in found)

    def document(self, after: int) -> dict[str, Any]:
        """For a figure's page."""
        per_look = {name: round(self.growth(name, after), 2) for name in ("heap", "resident", "objects", "store")}
        return {"outcomes": self.outcomes, "bytes_per_look_after": after, "per_look": per_look, "marks": [asdict(m) for m in self.marks]}


def soak(
    chain: LocalChain,
    folder: Path,
    looks: int,
    *,
    every: int,
    trade_every: int,
    traced: bool = True,
    told: Callable[[Mark], object] = lambda mark: None,
) -> Soaked:
    """So many looks of one run with its service; the market moves every `trade_every` looks, a mark is made every `every`."""
    marks: list[Mark] = []
    outcomes: Counter[str] = Counter()
    with running(chain, folder, traced) as (agent, service):
        rounds = agent.run(send=True, confirm=yes, every="1s", progress=service.heard)
        for number in range(1, looks + 1):
            if number % trade_every == 0:
                agent.desk.switch.pause("soaking", chain.now_s())
                chain.move_market({"WETH": chain.books.prices_usd["WETH"] * PRICES[number // trade_every % 2]})
            elif number % trade_every == trade_every // PAUSED_PART:
                agent.desk.switch.resume("soaked", chain.now_s())
            found = next(rounds)
            service.looked(found)
            service.metrics.text()
            outcomes["error" if isinstance(found, TrimtabError) else found.kind.value] += 1
            if number % every == 0:
                marks.append(mark(number, folder / "trimtab.db", agent))
                told(marks[-1])
        rounds.close()
    return Soaked(tuple(marks), dict(outcomes))


@contextmanager
def running(chain: LocalChain, folder: Path, traced: bool) -> Iterator[tuple[Agent, Service]]:
    """An agent with the whole service but its port. To trace the heap takes twice the time."""
    fund(chain, HELD)
    changes = ROOMY | {
        "portfolio.max_live_value": "off",
        "limits.daily_loss": "off",
        "limits.gas_per_day": "off",
        "service": {"keep_steps": KEEP_STEPS},
    }
    clock = Ticking(chain)
    if traced:
        tracemalloc.start(1)
    try:
        with again(chain, trusted(chain, folder, changes, TARGETS), clock=clock) as agent, serve(agent, clock, "1s") as service:  # type: ignore[arg-type]  # a clock that ticks by blocks
            yield agent, service
    finally:
        tracemalloc.stop()


def mark(looks: int, store: Path, agent: Agent) -> Mark:
    """The process as it stands, garbage collected."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    held = sum(path.stat().st_size for path in store.parent.glob(store.name + "*") if path.is_file())
    return Mark(looks, tracemalloc.get_traced_memory()[0], resident, len(gc.get_objects()), held, len(agent.desk.store.steps(1_000_000)))
