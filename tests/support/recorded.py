"""Steps written into a store whose recorder writes them into files, decided as the engine decides them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import codec
from agent.app.offline import plan_from
from agent.model import StepInput
from agent.store import open_store
from agent.store.recorder import RecorderLimits, StepRecorder
from tests.support import builders

DIGEST = "ab" * 32
ROOMY = RecorderLimits(1_000, 10**9)
DRIFTED = {"WETH": 7_000, "USDC": 3_000}
STEPS = (builders.step_input(), builders.step_input(values=DRIFTED), builders.without_feed(builders.step_input(values=DRIFTED), "WETH"))
"""A hold, a rebalance, a halt."""


def recorded(folder: Path, steps: Sequence[StepInput] = STEPS, bounds: RecorderLimits = ROOMY) -> Path:
    """The folder of files that these steps left, each under an id of its own; told again it goes on there."""
    store = open_store(f"sqlite:///{folder}/trimtab.db", 31_337, builders.OWNER)
    place = folder / "steps"
    store.heard = StepRecorder(place, DIGEST, "live", bounds).write_step
    known = len(store.steps(1_000))
    for number, step in enumerate(steps, known):
        name, found = f"{number:012x}", plan_from(step)
        store.begin_step(name, step.snapshot.now_s, codec.dumps(step))
        plan = None if found.plan is None else codec.dumps(found.plan)
        store.end_step(name, type(found.decision).__name__.lower(), found.reason, plan, found.kind.value)
    store.close()
    return place


def files(folder: Path) -> list[Path]:
    """Recorded steps, oldest first."""
    return sorted(folder.glob("step-*.json"))


def changed(path: Path, **fields: Any) -> None:
    """Writes a file anew with other values under some keys; "a.b" is b in a. A value of None takes the key away."""
    document = json.loads(path.read_text())
    for place, value in fields.items():
        *way, key = place.split("__")
        at = document
        for part in way:
            at = at[part]
        at.pop(key, None)
        if value is not None:
            at[key] = value
    path.write_text(json.dumps(document))
