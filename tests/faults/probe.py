"""A step in a process of its own that names every moment it passes, and can be made to die, or to meet a fault, at any of them.

A moment is around one durable write or one network send: `before:write that a transaction is signed#1` is just before the store
begins its first such write, `inside:` after its statements and before its commit, `after:` once it is on the disk; likewise
`before:send#1` and `after:send#1`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.rpc import RpcCall, Transport
from agent.errors import TrimtabError
from agent.localchain.contracts import ChainClock
from agent.localchain.nodes import AnvilNode, LocalNode
from agent.ports import Clock
from agent.store.database.connection import Database
from tests.faults.rig import FORK
from tests.faults.scene import Scene
from tests.support.agents import reopened_agent, yes

SEND = "eth_sendRawTransaction"
Hear = Callable[[str], None]
LONGEST_S = 120


def never(_moment: str) -> None:
    """Hears every moment and does nothing."""


@contextmanager
def heard(hear: Hear) -> Iterator[None]:
    """Every durable write and every send of this process is told to `hear` as it happens."""
    write = Database.write
    once = EndpointProvider._send_batch
    counts: Counter[str] = Counter()

    @contextmanager
    def told(store: Database, what: str, keeps_cache: bool = False, *, joins_queue: bool = False) -> Iterator[Connection]:
        counts[what] += 1
        name = f"{what}#{counts[what]}"
        hear(f"before:{name}")
        with write(store, what, keeps_cache, joins_queue=joins_queue) as db:
            yield db
            hear(f"inside:{name}")
        hear(f"after:{name}")

    def sent(transport: EndpointProvider, calls: Sequence[RpcCall]) -> list[Any]:
        if not any(method == SEND for method, _ in calls):
            return once(transport, calls)
        counts[SEND] += 1
        name = f"send#{counts[SEND]}"
        hear(f"before:{name}")
        answers = once(transport, calls)
        hear(f"after:{name}")
        return answers

    Database.write, EndpointProvider._send_batch = told, sent  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Database.write, EndpointProvider._send_batch = write, once  # type: ignore[method-assign]


@dataclass
class Run:
    """How a process ended: its exit code (negative: the signal), how its step ended, and the moments it passed."""

    code: int
    end: str = ""
    moments: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        """Whether it died as it was told to."""
        return self.code == -signal.SIGKILL

    @property
    def wrong(self) -> list[str]:
        """An end that no fault may lead to: an error that is none of ours tells the operator nothing."""
        return [] if self.killed or (self.code == 0 and self.end) else [f"the process ended with {self.code}: {self.end or 'no word'}"]


def process(
    scene: Scene,
    hear: Hear = never,
    *,
    lines: Callable[[], Sequence[Transport]] | None = None,
    clock: Callable[[LocalNode], Clock] = ChainClock,
    prepare: Callable[[], None] = lambda: None,
    timeout_s: float = LONGEST_S,
) -> Run:
    """One step of the agent in a forked process; `prepare` is called there first, `hear` hears its moments.

    It shares no connection with this process: what one reads there another would miss.
    """
    return finished(*started(scene, hear, lines=lines, clock=clock, prepare=prepare), timeout_s)


def started(
    scene: Scene,
    hear: Hear = never,
    *,
    lines: Callable[[], Sequence[Transport]] | None = None,
    clock: Callable[[LocalNode], Clock] = ChainClock,
    prepare: Callable[[], None] = lambda: None,
) -> tuple[ForkProcess, Path]:
    """The same under way: the process, and the file in which it will tell how it ended."""
    report = scene.folder / "report.json"
    report.unlink(missing_ok=True)
    child = FORK.Process(target=lambda: _step(scene, hear, lines, clock, prepare, report))
    child.start()
    return child, report


def finished(child: ForkProcess, report: Path, timeout_s: float = LONGEST_S) -> Run:
    """Waits for a process that was started; one that hangs is ended, and that is a wrong end."""
    child.join(timeout_s)
    if child.exitcode is None:
        child.kill()
        child.join()
        return Run(70, f"unexpected: it still ran after {timeout_s} s")
    return Run(child.exitcode, **json.loads(report.read_text())) if report.exists() else Run(child.exitcode)


def _step(
    scene: Scene,
    hear: Hear,
    lines: Callable[[], Sequence[Transport]] | None,
    clock: Callable[[LocalNode], Clock],
    prepare: Callable[[], None],
    report: Path,
) -> None:
    passed: list[str] = []

    def listen(moment: str) -> None:
        passed.append(moment)
        hear(moment)

    prepare()
    try:
        time = clock(AnvilNode(scene.chain.url or ""))
        with heard(listen), reopened_agent(scene.chain, scene.loaded, lines() if lines else scene.honest(), time) as agent:
            outcome = agent.rebalance(send=True, confirm=yes)
            end = f"{outcome.kind.value}: {outcome.reason}"
    except TrimtabError as error:
        end = f"{type(error).__name__}: {error.message}"
    except BaseException:
        sys.stderr.write(traceback.format_exc())
        _tell(report, f"unexpected: {traceback.format_exc(limit=-3)}", passed)
        os._exit(70)
    _tell(report, end, passed)


def _tell(report: Path, end: str, passed: list[str]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # some cases are about a disk that takes no more; this is not it
    unfinished = report.with_suffix(".unfinished")  # a process may be killed while it writes
    unfinished.write_text(json.dumps({"end": end, "moments": passed}))
    unfinished.replace(report)


def dying(at: str) -> Hear:
    """Ends its process for good at a moment."""

    def hear(moment: str) -> None:
        if moment == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


def dying_after(moments: int) -> Hear:
    """Ends its process at the n-th moment, whichever that is."""
    moments_left = moments

    def hear(_moment: str) -> None:
        nonlocal moments_left
        moments_left -= 1
        if moments_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return hear
