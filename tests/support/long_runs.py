"""A year of a wallet on a real node: recorded prices move every pool, deposits and withdrawals occur, and an independent count checks the
agent.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from agent import wiring
from agent.app.agent import Agent
from agent.app.service import RunEventHandler, report_run
from agent.chain.providers.endpoint import EndpointProvider
from agent.config.loaded import LoadedConfig
from agent.errors import TrimtabError
from agent.localchain import LocalChain
from agent.observe.metrics import metrics_text
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config, yes
from tests.support.endpoints import Served
from tests.support.fakes.clock import chain_clock
from tests.support.fakes.transport import RecordingTransport
from tests.support.stores import store_lock

# --- Thousands of cycles of one agent in one process, with trades among them: growth of memory and store (R8.9).


SOAK_TARGETS = {"WETH": "50%", "USDC": "50%"}
HELD = {"WETH": 50_000, "USDC": 50_000}
PRICES = (Fraction(2, 3), Fraction(3, 2))
"""Factors of WETH's price, in turn: from any edge of the trigger of init, each moves the portfolio beyond the other side's trigger."""
PAUSED_PART = 4
"""For a fourth of the cycles after each move the kill switch is on: plans are made and refused, which takes most memory."""
KEEP_STEPS = 40
FAULT_KINDS = ("endpoint", "store", "clock")
FAULT_SHARE = Fraction(1, 12)
"""Share of the looks without a fault before which one begins."""
FAULT_LOOKS = 2
"""A calm look writes after it, so that a locked store shows at the second one."""
MOST_OFF_S = 20
"""Seconds that the clock is off at most."""


class Faults:
    """Faults of endpoint, store and clock, each for FAULT_LOOKS looks, at looks drawn from a seed."""

    def __init__(self, chain: LocalChain, store_file: Path, seed: int, sick_server: Served) -> None:
        self.clock = chain_clock(chain)
        self.endpoint = RecordingTransport(chain.transport, chain.transport.operator)
        self.looks_by_kind: Counter[str] = Counter()
        self._healthy_line = chain.transport
        self._store_file = store_file
        self._random = Random(seed)
        self._sick_server = sick_server
        self._sick_line = EndpointProvider(sick_server.url, self.endpoint.operator, 10, attempts=1)
        self._kind = ""
        self._looks_left = 0
        self._lock = ExitStack()

    @property
    def is_present(self) -> bool:
        """Return whether something is out of order."""
        return bool(self._kind)

    def before_look(self) -> None:
        """End a fault whose time is over, and draw whether one begins, and which."""
        if self._looks_left == 0:
            self.end()
            if self._random.random() < FAULT_SHARE:
                self._begin(self._random.choice(FAULT_KINDS))
        if self._looks_left:
            self._looks_left -= 1
            self.looks_by_kind[self._kind] += 1

    def _begin(self, kind: str) -> None:
        self._kind = kind
        self._looks_left = FAULT_LOOKS
        if kind == "endpoint":
            self.endpoint.line = self._sick_line
        elif kind == "store":
            self._lock.enter_context(store_lock(self._store_file))
        else:
            self.clock.time_s = self._random.choice((-1, 1)) * self._random.randint(1, MOST_OFF_S)

    def end(self) -> None:
        """Bring endpoint, store and clock in order; keep nothing of what was asked meanwhile."""
        self._kind = ""
        self._looks_left = 0
        self._lock.close()
        self.endpoint.line = self._healthy_line
        self.clock.time_s = 0
        self._sick_server.seen.clear()
        self._sick_server.headers.clear()


@dataclass(frozen=True)
class ProcessFigures:
    """Figures of the process after so many cycles: heap (0 if not traced), resident memory and store in bytes; living objects."""

    looks: int
    heap: int
    resident: int
    objects: int
    store: int
    steps: int


@dataclass(frozen=True)
class SoakReport:
    """A soak: marks in order, and the number of cycles by outcome."""

    marks: tuple[ProcessFigures, ...]
    outcomes: dict[str, int]

    def growth(self, name: str, after: int) -> float:
        """Return the growth of a figure per cycle (least squares), from the first mark at or after `after` cycles to the last."""
        later_marks = [mark for mark in self.marks if mark.looks >= after]
        mean_x = sum(mark.looks for mark in later_marks) / len(later_marks)
        mean_y = sum(getattr(mark, name) for mark in later_marks) / len(later_marks)
        return sum((m.looks - mean_x) * (getattr(m, name) - mean_y) for m in later_marks) / sum(
            (m.looks - mean_x) ** 2 for m in later_marks
        )

    def document(self, after: int) -> dict[str, Any]:
        """Return the document of the soak."""
        per_look = {name: round(self.growth(name, after), 2) for name in ("heap", "resident", "objects", "store")}
        return {"outcomes": self.outcomes, "bytes_per_look_after": after, "per_look": per_look, "marks": [asdict(m) for m in self.marks]}


def soak_config(chain: LocalChain, folder: Path) -> LoadedConfig:
    """Fund the wallet, and load a config whose limits leave every trade to the market."""
    fund(chain, HELD)
    changes = ROOMY | {
        "portfolio.max_live_value": "off",
        "limits.daily_loss": "off",
        "limits.gas_per_day": "off",
        "service": {"keep_steps": KEEP_STEPS},
    }
    return trusted_config(chain, folder, changes, SOAK_TARGETS)


def soak(
    chain: LocalChain,
    loaded: LoadedConfig,
    looks: int,
    *,
    every: int,
    trade_every: int,
    look_s: int = 0,
    traced: bool = True,
    faults: Faults | None = None,
    on_mark: Callable[[ProcessFigures], object] = lambda mark: None,
) -> SoakReport:
    """Run `looks` cycles of one run with its service, at least `look_s` of the chain's time apart; the market moves every `trade_every`
    cycles, a mark is made every `every` unless a fault lasts.
    """
    marks: list[ProcessFigures] = []
    outcomes: Counter[str] = Counter()
    with running(chain, loaded, traced, faults) as (agent, service):
        rounds = agent.run(send=True, confirm=yes, every="1s", progress=service.on_stage)
        for number in range(1, looks + 1):
            if faults is not None and number % trade_every in (0, trade_every // PAUSED_PART):
                faults.end()  # else a locked store would refuse the owner
            if number % trade_every == 0:
                agent.context.kill_switch.pause("soaking", chain.now_s())
                chain.move_market({"WETH": chain.deployed_world.prices_usd["WETH"] * PRICES[number // trade_every % 2]})
            elif number % trade_every == trade_every // PAUSED_PART:
                agent.context.kill_switch.resume("soaked", chain.now_s())
            if faults is not None and number > 1:
                faults.before_look()
            outcome = next(rounds)
            service.on_cycle(outcome)
            metrics_text(service.recorder.report, service.recorder.health(), chain.now_s())
            outcomes["error" if isinstance(outcome, TrimtabError) else outcome.kind.value] += 1
            if look_s:
                chain.warp(look_s)
            if number % every == 0 and (faults is None or not faults.is_present):
                marks.append(mark(number, wiring.store_file(loaded), agent))
                on_mark(marks[-1])
        if faults is not None:
            faults.end()
        rounds.close()
    return SoakReport(tuple(marks), dict(outcomes))


@contextmanager
def running(chain: LocalChain, loaded: LoadedConfig, traced: bool, faults: Faults | None = None) -> Iterator[tuple[Agent, RunEventHandler]]:
    """Open an agent with the whole service except its port. Tracing the heap doubles the time."""
    clock = faults.clock if faults is not None else chain_clock(chain)
    transports = None if faults is None else [faults.endpoint]
    if traced:
        tracemalloc.start(1)
    try:
        with reopened_agent(chain, loaded, transports, clock) as agent, report_run(agent, clock, "1s") as service:  # type: ignore[arg-type]  # a clock that ticks by blocks
            yield agent, service
    finally:
        tracemalloc.stop()


def mark(looks: int, store: Path, agent: Agent) -> ProcessFigures:
    """Return the figures of the process after garbage collection."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    byte_count = sum(path.stat().st_size for path in store.parent.glob(store.name + "*") if path.is_file())
    return ProcessFigures(
        looks,
        tracemalloc.get_traced_memory()[0],
        resident,
        len(gc.get_objects()),
        byte_count,
        len(agent.context.store.steps.newest(1_000_000)),
    )
