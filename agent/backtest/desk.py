"""Puts a simulated step together: the engine, its journal and its booking are those of a live one."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.backtest.chain import SimulatedChain
from agent.backtest.keyless import KeylessSigner
from agent.backtest.memory import quick_store
from agent.backtest.replay import ReplayReader, SimulatedEvidence
from agent.backtest.taxes import TaxBooks
from agent.backtest.wanted import ROUTER, WALLET, Wanted
from agent.backtest.world import CHAIN_ID, World
from agent.chain.rules import SigningRules
from agent.engine import step
from agent.execution.executor import Executor
from agent.execution.fresh import Eyes
from agent.execution.nonces import signable
from agent.execution.outcome import Hands, Outcome
from agent.execution.remembered import remembered
from agent.execution.settings import Settings as Patience
from agent.model import Finding, History, OwnStrategy, ScreenedToken, Snapshot, StepInput
from agent.policy.lookback import needed_s
from agent.policy.quarantine import quarantine
from agent.store import Store
from agent.venues.composer import RouterComposer

MEMORY = Path("/dev/shm")  # noqa: S108  a folder in memory, where the system has one; the store's file in it is the owner's alone


@dataclass(frozen=True, slots=True)
class Desk:
    """What looking and acting needs, over a world instead of a chain."""

    world: World
    store: Store
    eyes: Eyes
    hands: Hands

    def step(self) -> Outcome:
        """One step at the world's bar. Raises EndOfTable when it waits beyond the last."""
        return step(self.eyes, OwnStrategy(), self.store, self.hands)


@contextmanager
def open_desk(world: World) -> Iterator[Desk]:
    """A desk with a store of its own, which is gone afterwards. The world stands at a bar."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        store = quick_store(Path(folder), CHAIN_ID, WALLET, world.wanted.portfolio.wrapped_native, _looks_back(world.wanted))
        try:
            store.tell_day((), 0)  # a wallet that was never used
            yield _desk(world, store)
        finally:
            store.close()


def _looks_back(wanted: Wanted) -> bool:
    """Whether anything in this policy asks for recorded prices."""
    chosen = wanted.portfolio.weights is not None or any(one.allocator for one in (wanted.split.strategies if wanted.split else ()))
    return chosen or needed_s(wanted.portfolio, wanted.policy, wanted.split) > 0


def _desk(world: World, store: Store) -> Desk:
    wanted = world.wanted
    reach_s = (world.settings.latency_bars + 1) * world.table.interval_s if world.settings.latency_bars else 0
    execution = replace(wanted.execution, deadline_s=wanted.execution.deadline_s + reach_s)

    taxes = TaxBooks(store, wanted.portfolio, wanted.tax)

    def assemble(snapshot: Snapshot, history: History) -> StepInput:
        if world.flowed and any(flow.is_open for flow in history.flows):  # the owner says at once what he did
            store.tell_flow(None, None, snapshot.now_s)
            history = store.history(snapshot.head.timestamp_s)
        bare = StepInput(snapshot, wanted.portfolio, wanted.policy, wanted.reference, wanted.limits, execution, history, split=wanted.split)
        left = [ScreenedToken(token, Finding.PAUSED, "it has no price any more") for token in sorted(world.gone)]
        return quarantine(remembered(bare, store, taxes.standing), left)

    chain = SimulatedChain(world)
    chance = random.Random(world.settings.seed).random
    tokens = tuple(token.address for token in world.tokens)
    weth, ceiling_wei = wanted.portfolio.wrapped_native, wanted.limits.gas_price_wei
    rules = SigningRules(CHAIN_ID, WALLET, (ROUTER,), tokens, execution.deadline_s, ceiling_wei, wrapped_native=weth)
    patience = Patience(
        confirmations=1,
        poll_s=1.0,
        mined_timeout_s=math.inf,
        final_timeout_s=math.inf,
        max_fee_wei=ceiling_wei,
        gas_per_day_wei=wanted.limits.gas_per_day_wei,
    )
    executor = Executor(store, KeylessSigner(rules, partial(signable, store)), chain, world, patience, lambda: False)
    eyes = Eyes(ReplayReader(world), assemble, store.history, SimulatedEvidence(world), world, chance)
    return Desk(world, store, eyes, Hands(executor, RouterComposer(chain, WALLET, world), lambda _: True))
