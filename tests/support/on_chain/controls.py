"""A run on a local chain that follows controls."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.app.agent import Agent
from agent.app.controls import queue
from agent.app.controls.runner import ControlRunner
from agent.app.controls.shown_plans import preview_control
from agent.app.documents.controls import ShownPlanDocument
from agent.config.loaded import LoadedConfig
from agent.errors import TrimtabError
from agent.execution.step_context import StepOutcome
from agent.localchain import LocalChain
from agent.model import Control, ControlKind, ControlOrigin, ControlRecord, ControlSubmission
from agent.store.store import Store
from tests.cli.documents import misfits
from tests.faults.probe import heard
from tests.support.agents import ROOMY, fund, reopened_agent, trusted_config, yes
from tests.support.on_chain.withdrawing import HOME

TARGETS = {"WETH": "50%", "WBTC": "20%", "USDC": "30%"}
DRIFTED = {"WETH": 6_500, "WBTC": 1_500, "USDC": 2_000}
CHANGES = {**ROOMY, "wallet.payout_addresses": [HOME]}


@dataclass
class ControlledRun:
    """A run's process: the agent, its controls, and the time of the chain."""

    chain: LocalChain
    loaded: LoadedConfig
    agent: Agent
    offers: bool = False
    runner: ControlRunner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = ControlRunner(self.agent, transports=[self.chain.transport])

    @property
    def store(self) -> Store:
        return self.agent.context.store

    def shown(self, kind: str, *arguments: tuple[str, str]) -> ShownPlanDocument:
        preview = preview_control(self.loaded.path, ControlKind(kind), arguments, transports=[self.chain.transport], clock=self.chain.clock)
        assert misfits(ShownPlanDocument, preview) == []
        return preview

    def ask(self, kind: str, *arguments: tuple[str, str], plan: str | None = None) -> Control:
        """Queue a control, for the plan that is shown now unless another is named."""
        if plan is None:
            plan = "" if kind in ("pause", "resume", "device") else self.shown(kind, *arguments)["plan_hash"]
        request = ControlSubmission(ControlKind(kind), arguments, "owner", ControlOrigin.DASHBOARD, plan)
        return queue.submit_control(self.loaded.path, request, now=self.chain.now_s)

    def look(self, once: bool = False) -> StepOutcome | TrimtabError | None:
        """One cycle of a run, controls first."""
        confirm = self.runner.offer_and_decline if self.offers else yes
        with closing(self.agent.run(send=True, confirm=confirm, once=once, controls=self.runner)) as cycles:
            return next(cycles, None)

    def ended(self, control: Control) -> ControlRecord:
        """A cycle, and what became of the control."""
        self.look()
        record = self.store.controls.find(control.id)
        assert record is not None
        return record


@contextmanager
def controlled_run(
    chain: LocalChain, folder: Path, holdings: dict[str, int] = DRIFTED, offers: bool = False, **changes: object
) -> Iterator[ControlledRun]:
    fund(chain, holdings)
    named = {name.replace("__", "."): value for name, value in changes.items()}
    loaded = trusted_config(chain, folder, {**CHANGES, **named}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        yield ControlledRun(chain, loaded, agent, offers)


def result(record: ControlRecord, name: str) -> list[str]:
    return [value for key, value in record.result_pairs if key == name]


def die_in_cycle(chain: LocalChain, loaded: LoadedConfig, moment: str) -> None:
    """A cycle in a process that a SIGKILL ends at that moment."""
    chain.__dict__.pop("transport", None)  # a connection of its own

    def hear(passed: str) -> None:
        if passed.startswith(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    with reopened_agent(chain, loaded) as agent, heard(hear):
        ControlledRun(chain, loaded, agent).look()
