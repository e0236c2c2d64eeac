"""Worlds of cycles whose process can end at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from agent import engine
from agent.execution.step_context import StepOutcome
from agent.model import (
    AgentCycle,
    Intent,
    PlanRequest,
    StepInput,
    Swap,
    UnsignedTx,
)
from agent.ports import Grant
from agent.store import open_store
from agent.store.tables import CycleRow
from tests.support.builders import OWNER
from tests.support.decisions.exits import LINK, MARKET, SOUND, USDC, step_with_stops
from tests.support.refusal_worlds import World
from tests.support.transactions import CHAIN_ID, Killed

ALL = (*MARKET, SOUND)
NO_STOP = step_with_stops(pools=ALL)
SWAP = Swap(LINK.address, USDC.address, 100 * 10**18)
"""A request that trades its amount whenever it is carried out."""
LINK_SALE = [{LINK.address}]


@dataclass
class Fate:
    """Counts the moments at which a process can end: before each answer, before and after each transaction."""

    dies_at: int = -1
    moments: int = 0

    def pass_moment(self) -> None:
        """End the process if its moment has come."""
        self.moments += 1
        if self.moments - 1 == self.dies_at:
            raise Killed


class MortalWorld(World):
    """A world whose process can end."""

    fate = Fate()

    def run(self, step_id: str, unsigned: UnsignedTx, granted: Grant, note: str) -> Intent:
        self.fate.pass_moment()
        intent = super().run(step_id, unsigned, granted, note)
        self.fate.pass_moment()
        return intent

    def begin(self, request: PlanRequest | None = None, answer: Callable[[StepOutcome], bool] = lambda _: True) -> StepOutcome:
        """Run a cycle of a new process."""

        def confirm(outcome: StepOutcome) -> bool:
            self.fate.pass_moment()
            self.asked.append(outcome)
            return answer(outcome)

        transactor = replace(self.transactor(), confirm=confirm)
        return engine.repeat_steps(replace(self.ports(), transactor=transactor), request or AgentCycle())[1]

    def rows(self) -> list[tuple[str, str | None]]:
        """State and reason of each stored cycle."""
        with self.store.db.read("read") as db:
            return [(row.state, row.reason) for row in db.execute(select(CycleRow).order_by(CycleRow.seq))]


Worlds = Callable[..., MortalWorld]


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Worlds]:
    """Worlds, each with a store of its own; no simulation reverts by default."""
    with ExitStack() as stores:
        numbers = count()

        def world_of(step: StepInput, reverts: Callable[[set[str]], bool] = lambda _: False, lacks: Sequence[str] = ()) -> MortalWorld:
            store = open_store(f"sqlite:///{tmp_path / f'{next(numbers)}.db'}", CHAIN_ID, OWNER, step.portfolio.wrapped_native)
            stores.callback(store.close)
            world = MortalWorld(store, step, reverts, lacks)
            world.fate = Fate()
            return world

        yield world_of


def kill_at(world: MortalWorld, moment: int, request: PlanRequest | None = None) -> None:
    """Run a cycle whose process ends at this moment; the next process lives."""
    world.fate = Fate(moment)
    with pytest.raises(Killed):
        world.begin(request)
    world.fate = Fate()
