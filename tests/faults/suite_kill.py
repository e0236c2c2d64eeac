"""SIGKILL around every durable write and every send of whole steps, and again during the recovery, in worlds that went on meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from agent.localchain import LocalChain
from tests.faults.invariants import violations
from tests.faults.probe import dying, dying_after, process
from tests.faults.scene import Scene, SceneStager, scene
from tests.faults.suite import Case, Folders, Only, Result

NAME = "kill"
LATE_S = 300


def nothing(_scene: Scene, _draw: random.Random) -> dict[str, int]:
    """The next process starts at once."""
    return {}


def late(scene: Scene, _draw: random.Random) -> dict[str, int]:
    """It starts once every deadline is over."""
    scene.chain.node.mine_at(scene.chain.now_s() + LATE_S)
    return {"late restart": 1}


def forgotten(staged_scene: Scene, _draw: random.Random) -> dict[str, int]:
    """The mempool lost what it held."""
    staged_scene.rpc("anvil_dropAllTransactions")
    return {"mempool lost": 1}


def again_killed(scene: Scene, draw: random.Random) -> dict[str, int]:
    """The recovery is killed too, at any of its moments."""
    run = process(scene, dying_after(draw.randrange(25)))
    return {"SIGKILL in recovery": 1} if run.killed else {}


def dear(staged_scene: Scene, _draw: random.Random) -> dict[str, int]:
    """Gas costs more than the limit when the next process starts."""
    staged_scene.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * 10**9))
    process(staged_scene)
    return {"gas above the limit at restart": 1}


MEANWHILE: tuple[Callable[[Scene, random.Random], dict[str, int]], ...] = (nothing, nothing, late, forgotten, again_killed, dear)
"""What may happen between a death and the next start."""


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Kills the step of this seed at each of its moments in turn."""
    with staged(chain, folders(), seed) as staged_scene:
        hour = staged_scene.hour
        moments = process(staged_scene).moments
    for moment in moments:
        if not is_selected("SIGKILL", moment):
            continue
        draw = random.Random(f"kill {seed} {moment}")
        with staged(chain, folders(), seed) as staged_scene:
            died = process(staged_scene, dying(moment))
            if not died.killed and staged_scene.hour != hour:
                continue
            injected = {"SIGKILL": 1}
            signals = list(died.wrong)
            if not died.killed:
                signals.append(f"never reached: {died.end}")
            injected |= draw.choice(MEANWHILE)(staged_scene, draw)
            signals += staged_scene.recovered()
            signals += violations(staged_scene)
        yield Result(Case(NAME, seed, "SIGKILL", moment), injected, signals)
