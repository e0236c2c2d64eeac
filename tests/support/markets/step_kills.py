"""A step that SIGKILL ends before a commit."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from sqlalchemy import event as database_event

from agent.app.agent import Agent
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.execution.step_context import OutcomeKind
from agent.localchain import LocalChain
from agent.model import IntentState
from tests.faults.rig import in_child
from tests.support.agents import WalletBalances, reopened_agent, yes

ENDS = {IntentState.FINAL, IntentState.CANCELLED}
UNREACHED = "write 99"


@dataclass(frozen=True)
class StepWorld:
    """A wallet that is off its targets, before anything was sent."""

    chain: LocalChain
    loaded: LoadedConfig
    before: WalletBalances

    def killed(self, die_at: str) -> bool:
        """Whether a process that does one step was killed at a named moment; else it came to the end of the step."""
        code = in_child(lambda: die_in_step(self.chain, self.loaded, die_at))
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def restarted(self) -> OutcomeKind:
        """How one step of a new agent ends. No process of its own: a fork would begin with this one's memory too."""
        return die_in_step(self.chain, self.loaded, UNREACHED)

    def copied(self, folder: Path) -> StepWorld:
        """The same wallet with a copy of its config and store."""
        copytree(self.loaded.path.parent, folder)
        return replace(self, loaded=load_config(folder / self.loaded.path.name))


def on_write(agent: Agent, happens: Callable[[str], object]) -> None:
    """Let something happen just before each commit that changes the store; it hears the first statement, as "INSERT steps"."""
    first = ""

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal first
        if change := re.match(r"(INSERT|UPDATE) (?:INTO )?\W?(\w+)", statement):
            first = first or f"{change[1]} {change[2]}"

    def committed(_connection: object) -> None:
        nonlocal first
        if first:
            happens(first)
        first = ""

    database_event.listen(agent.context.store.db.engine, "before_cursor_execute", executed)
    database_event.listen(agent.context.store.db.engine, "commit", committed)


def die_in_step(chain: LocalChain, loaded: LoadedConfig, die_at: str) -> OutcomeKind:
    """One whole step in this process; SIGKILL just before the n-th commit that changes the store, the n-th that begins with such a
    statement, or at the n-th such event.
    """
    counts: dict[str, int] = {}

    def passed(moment: str) -> None:
        counts[moment] = counts.get(moment, 0) + 1
        if f"{moment} {counts[moment]}" == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def written(statement: str) -> None:
        passed("write")
        passed(statement)

    chain.__dict__.pop("transport", None)  # a connection of its own
    with reopened_agent(chain, loaded) as agent:
        on_write(agent, written)
        outcome = agent.rebalance(send=True, confirm=yes, progress=passed)
        assert outcome.kind in (OutcomeKind.DONE, OutcomeKind.HOLD), outcome.reason
        return outcome.kind


def every_run(moments: Iterable[str], often: Collection[str]) -> list[Any]:
    """Parameters of moments: those that are not of every run are slow."""
    return [pytest.param(moment, marks=() if moment in often else pytest.mark.slow) for moment in moments]
