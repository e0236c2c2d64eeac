"""Steps whose weights or trigger a signal decides, and installed signals: distributions with entry points, without pip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model import AllocationMethod, AnsweredTrigger, SignalSettings, StepInput
from tests.support.builders import history, step_input
from tests.support.constants import DAY_S
from tests.support.planning_worlds import PLAIN, allocator, moves, recorded, weighed

SIGNAL = SignalSettings("mine", 2, (("fast", "5"),))
SIGNAL_ALLOCATOR = """kind = "signal"
signal = "mine"
every = "1d"
window = "30d"
step = "1d"
min_history = "10d"
max_age = "2d"
keep = "3d"
churn = "1%"
until_chosen = "wait"
"""
"""The table of an allocator whose weights a signal chooses."""


def signal_step(settings: SignalSettings = SIGNAL, **changes: object) -> StepInput:
    """Return a step of five assets whose weights, but for 20 % of USDC, a signal chooses; with 90 days of prices."""
    return weighed(replace(allocator(AllocationMethod.SIGNAL, **changes), signal=settings), recorded(moves()))  # type: ignore[arg-type]


def trigger_step(signal: SignalSettings) -> StepInput:
    """Return a step off its targets whose trigger is this function, with a window of 30 days."""
    step = step_input(targets_bps=PLAIN, past=history(prices=recorded(moves())))
    change_bps = {"WETH": 1_000, "USDC": -1_000}
    assets = tuple(replace(asset, target_bps=asset.target_bps + change_bps.get(asset.token.symbol, 0)) for asset in step.portfolio.assets)
    policy = replace(step.policy, trigger=AnsweredTrigger(30 * DAY_S, step_s=DAY_S, signal=signal))
    return replace(step, portfolio=replace(step.portfolio, assets=assets), policy=policy)


def pinned(file: str, source: str, options: tuple[tuple[str, str], ...] = SIGNAL.options) -> SignalSettings:
    """Return settings of a function in a file, as `name.py:function`, that is pinned with this source."""
    return SignalSettings("mine", 2, options, file=file, sha256=hashlib.sha256(source.encode()).hexdigest())


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, entries: Mapping[str, str], source: str = "", name: str = "own-signals") -> None:
    """Install a distribution with these entry points; `source` is its module own_signals."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{entry} = {target}\n" for entry, target in entries.items())
    (info / "entry_points.txt").write_text(f"[trimtab.signals]\n{lines}")
    if source:
        (folder / "own_signals.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
