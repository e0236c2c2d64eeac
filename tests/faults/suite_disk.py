"""The store cannot be written: disk full, a write that fails half-way, another program's lock; at any durable write."""

from __future__ import annotations

import random
import resource
import sqlite3
import threading
from collections.abc import Callable, Iterator

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from agent.localchain import LocalChain
from agent.store import opening
from tests.faults.invariants import violations
from tests.faults.probe import Hear, process
from tests.faults.scene import Scene, SceneStager, scene
from tests.faults.suite import Case, Folders, Only, Result
from tests.faults.suite_power import size, wal

NAME = "disk"
PATIENCE_MS = 60
"""How long the store waits for a lock here, instead of seconds."""


def when(at: str, happens: Callable[[], None]) -> Hear:
    """Something happens at a moment."""

    def hear(moment: str) -> None:
        if moment == at:
            happens()

    return hear


def full(scene: Scene, at: str, draw: random.Random) -> tuple[Hear, Callable[[], None]]:
    """SQLite finds no more room: the database may have no page more than it has."""
    over = False

    def begin(connection: Connection) -> None:
        if over:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def happens() -> None:
        nonlocal over
        over = True

    return when(at, happens), lambda: event.listen(Engine, "begin", begin)


def failing(scene: Scene, at: str, draw: random.Random) -> tuple[Hear, Callable[[], None]]:
    """The write to the log fails after some bytes, by the limit on file sizes: what was written of it stays."""
    more = draw.randrange(1, 6_000)

    def happens() -> None:
        limit = size(wal(scene)) + more
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return when(at, happens), lambda: None


def locked(scene: Scene, at: str, draw: random.Random) -> tuple[Hear, Callable[[], None]]:
    """Another program holds the database and does not let go."""
    connections: list[sqlite3.Connection] = []

    def happens() -> None:
        connections.append(sqlite3.connect(scene.store_file, isolation_level=None))
        connections[-1].execute("BEGIN IMMEDIATE")

    return when(at, happens), impatient


def locked_a_while(scene: Scene, at: str, draw: random.Random) -> tuple[Hear, Callable[[], None]]:
    """Another program holds the database for a moment."""

    def happens() -> None:
        other = sqlite3.connect(scene.store_file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(PATIENCE_MS / 5_000, other.close).start()

    return when(at, happens), impatient


def impatient() -> None:
    """The store waits for milliseconds instead of seconds."""
    opening._BUSY_TIMEOUT_MS = PATIENCE_MS


FAULTS: dict[str, Callable[[Scene, str, random.Random], tuple[Hear, Callable[[], None]]]] = {
    "disk full": full,
    "write fails half-way": failing,
    "database locked": locked,
    "database locked for a moment": locked_a_while,
}


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Each durable write of this seed's step in turn meets one of the faults."""
    with staged(chain, folders(), seed) as staged_scene:
        writes = [
            moment for moment in process(staged_scene).moments if moment.startswith("before:") and not moment.startswith("before:send")
        ]
    names = sorted(FAULTS)
    for number, at in enumerate(writes):
        fault = names[(seed + number) % len(names)]
        if not is_selected(fault, at):
            continue
        draw = random.Random(f"disk {seed} {at}")
        with staged(chain, folders(), seed) as staged_scene:
            hear, prepare = FAULTS[fault](staged_scene, at, draw)
            step = process(staged_scene, hear, prepare=prepare)
            problems = step.wrong + staged_scene.recovered() + violations(staged_scene)
        yield Result(Case(NAME, seed, fault, at), {fault: int(at in step.moments)}, problems, [step.end])
