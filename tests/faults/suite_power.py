"""Power loss: the tail of SQLite's write-ahead log that was not yet synced is cut off, torn, zeroed or garbled.

With `synchronous=FULL` every commit ends with fdatasync of the log before it returns, and the agent acts only after it returned.
So the disk may lose what a commit in progress was writing, in any order and half, and nothing before it. A process is killed
right after a commit returned and before it acted; its log is then put back to what a disk may hold whose power failed during
that very commit. The shared-memory index is gone, as memory is.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

from agent.localchain import LocalChain
from tests.faults.invariants import violations
from tests.faults.probe import Hear, process
from tests.faults.scene import Scene, SceneStager, scene
from tests.faults.suite import Case, Folders, Only, Result

NAME = "power"
HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
LOSSES = ("cut between frames", "cut inside a frame", "zeros from a point on", "garbage from a point on", "one page never written")


def wal(scene: Scene) -> Path:
    """The write-ahead log."""
    return scene.store_file.with_name(scene.store_file.name + "-wal")


def size(path: Path) -> int:
    """Bytes of a file, 0 for none."""
    return path.stat().st_size if path.exists() else 0


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Power fails during each commit of this seed's step in turn, each time in another way."""
    with staged(chain, folders(), seed) as staged_scene:
        hour = staged_scene.hour
        writes = [
            moment.removeprefix("after:")
            for moment in process(staged_scene).moments
            if moment.startswith("after:") and not moment.startswith("after:send")
        ]
    for number, write in enumerate(writes):
        draw = random.Random(f"power {seed} {write}")
        fault = LOSSES[(seed + number) % len(LOSSES)]
        if not is_selected(fault, write):
            continue
        with staged(chain, folders(), seed) as staged_scene:
            sizes = staged_scene.folder / "sizes.json"
            died = process(staged_scene, _dying_after_commit(write, wal(staged_scene), sizes))
            if not died.killed and staged_scene.hour != hour:
                continue
            if not died.killed:
                yield Result(Case(NAME, seed, fault, write), {}, [f"never reached: {died.end}"])
                continue
            began, ended = json.loads(sizes.read_text())
            lost = lose(wal(staged_scene), began, ended, fault, draw)
            problems = staged_scene.recovered() + violations(staged_scene)
        yield Result(Case(NAME, seed, fault, write), {f"power loss, {fault}": int(lost)}, problems)


def _dying_after_commit(write: str, log: Path, sizes: Path) -> Hear:
    """Ends the process when the commit has returned; the log's size before and after is left in a file."""
    began = 0

    def hear(moment: str) -> None:
        nonlocal began
        if moment == f"before:{write}":
            began = size(log)
        if moment == f"after:{write}":
            sizes.write_text(json.dumps([began, size(log)]))
            os.kill(os.getpid(), signal.SIGKILL)

    return hear


def lose(log: Path, began: int, ended: int, fault: str, draw: random.Random) -> bool:
    """Puts the log back to what a disk may hold that lost power between its sizes `began` and `ended`; False where none grew."""
    log.with_name(log.name.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
    if ended <= began or size(log) != ended:  # a log that was begun anew, or is gone, has no tail to lose
        return False
    data = log.read_bytes()
    frame = FRAME_HEADER_BYTES + int.from_bytes(data[8:12], "big")
    start = max(began, HEADER_BYTES)
    edges = [began, *range(start, ended, frame)]
    cut = draw.choice(edges)
    inside = draw.randrange(began, ended)
    match fault:
        case "cut between frames":
            log.write_bytes(data[:cut])
        case "cut inside a frame":
            log.write_bytes(data[:inside])
        case "zeros from a point on":
            log.write_bytes(data[:inside] + bytes(ended - inside))
        case "garbage from a point on":
            log.write_bytes(data[:inside] + draw.randbytes(ended - inside))
        case _:
            page = draw.randrange(start, ended, 512)
            log.write_bytes(data[:page] + bytes(min(512, ended - page)) + data[page + 512 :])
    return True
