"""Stores that come back: a copy made by hand, a backup restored, two machines at work at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from agent.app.records.maintenance import backup_store, restore_store
from agent.config.load import load_config
from agent.errors import TrimtabError
from agent.localchain import LocalChain
from agent.model import Intent
from agent.store import open_store
from tests.faults import futures_invariants, invariants
from tests.faults.probe import finished, process, started
from tests.faults.scene import Scene, SceneStager, scene
from tests.faults.suite import Case, Folders, Only, Result
from tests.faults.suite_chain import once
from tests.support.agents import reopened_agent

NAME = "store"
MOMENTS = 56
SECOND = "second"
"""Folder of the other machine."""


# two machines
def second(scene: Scene) -> Scene:
    """The other machine: the same config, a store file of its own."""
    folder = scene.folder / SECOND
    folder.mkdir(exist_ok=True)
    shutil.copy(scene.folder / "trimtab.toml", folder)
    return replace(scene, folder=folder, loaded=load_config(folder / "trimtab.toml"))


def copied_by_hand(scene: Scene, other: Scene) -> None:
    """Somebody copies the files as they lie there."""
    for end in ("", "-wal"):
        path = scene.store_file.with_name(scene.store_file.name + end)
        if path.exists():
            shutil.copy(path, other.store_file.with_name(other.store_file.name + end))


def backed_up(scene: Scene, other: Scene) -> None:
    """By the commands for it."""
    copy = scene.folder / "backup.db"
    backup_store(scene.folder / "trimtab.toml", copy, force=True)
    restore_store(other.folder / "trimtab.toml", copy, force=True)


def two_machines(copying: Callable[[Scene, Scene], None]) -> Callable[[Scene, int, random.Random], tuple[dict[str, int], list[str]]]:
    """A copy is made at some moment of a step; the step goes on or dies; then the machines act in any order, or at once."""

    def fault(staged_scene: Scene, at: int, draw: random.Random) -> tuple[dict[str, int], list[str]]:
        other = second(staged_scene)

        def happens() -> None:
            copying(staged_scene, other)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)

        dies = draw.random() < 0.5
        process(staged_scene, once(at, happens))
        if not other.store_file.exists():  # the step was over before that moment
            copying(staged_scene, other)
        order = draw.choice(("first", "second", "at once"))
        staged_scene.heal()
        problems: list[str] = []
        if order == "at once":
            both = [started(machine) for machine in (staged_scene, other)]
            problems = [wrong for machine in both for wrong in finished(*machine).wrong]
        turns = [staged_scene, other] if order == "first" else [other, staged_scene]
        for turn in turns * 2:
            _turn(turn, draw)
        return {f"two machines, {order}": 1, "SIGKILL": int(dies)}, problems

    return fault


def _turn(staged_scene: Scene, draw: random.Random) -> None:
    """One machine steps; where it wants the owner's word it sometimes gets it, and steps again."""
    if staged_scene.restart().startswith("OperatorNeeded") and draw.random() < 0.5:
        with suppress(TrimtabError), reopened_agent(staged_scene.chain, staged_scene.loaded, staged_scene.honest()) as agent:
            agent.resync_nonce()
        staged_scene.restart()


def of_both(scene: Scene) -> list[str]:
    """What holds over two journals together: one swap on the chain, every transaction known to one of them, policy and value."""
    sent = invariants.transactions(scene)
    other = second(scene)
    journal: dict[str | None, Intent] = {}
    problems = []
    for machine_scene in (scene, other):
        store = open_store(machine_scene.loaded.store_url, machine_scene.chain.chain_id, machine_scene.chain.wallet.address)
        try:
            for intent in store.journal.intents(limit=1_000):
                if intent.tx_hash not in journal or intent.receipt is not None:
                    journal[intent.tx_hash] = intent
            problems += invariants.nonces(store)
        finally:
            store.close()
        problems += invariants.secrets(machine_scene, sent)
    problems += [f"{transaction['hash']} is in no journal" for transaction in sent if transaction["hash"] not in journal]
    swaps = [
        transaction
        for transaction in sent
        if scene.chain.w3.to_checksum_address(transaction["to"]) == scene.router and _succeeded(scene, transaction["hash"])
    ]
    if len(swaps) != scene.swaps:
        problems.append(f"{len(swaps)} swaps on the chain")
    if scene.futures is not None:
        problems += futures_invariants.violations(scene.futures, tuple(journal.values()), sent)
    return problems + invariants.policy(scene, sent) + invariants.value(scene) + invariants.near(scene)


def _succeeded(staged_scene: Scene, tx_hash: str) -> bool:
    receipt: Any = staged_scene.rpc("eth_getTransactionReceipt", tx_hash)
    return int(receipt["status"], 16) == 1


FAULTS: dict[str, Callable[[Scene, int, random.Random], tuple[dict[str, int], list[str]]]] = {
    "copy by hand": two_machines(copied_by_hand),
    "restored backup": two_machines(backed_up),
}


def run(chain: LocalChain, folders: Folders, seed: int, is_selected: Only, staged: SceneStager = scene) -> Iterator[Result]:
    """Every fault at a few moments of this seed's step."""
    for fault, strike in FAULTS.items():
        draw = random.Random(f"store {seed} {fault}")
        for at in sorted(draw.sample(range(MOMENTS), 3)):
            if not is_selected(fault, str(at)):
                continue
            with staged(chain, folders(), seed) as scene:
                injected, problems = strike(scene, at, random.Random(f"store {seed} {fault} {at}"))
                problems += of_both(scene)
            yield Result(Case(NAME, seed, fault, str(at)), injected, problems)
