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
from tests.faults.scene import Scene, Staged, scene
from tests.faults.suite import Case, Folders, Only, Result
from tests.faults.suite_chain import once
from tests.support.agents import again

NAME = "store"
MOMENTS = 56
SECOND = "second"
"""Folder of the other machine."""


# two machines
def second(made: Scene) -> Scene:
    """The other machine: the same config, a store file of its own."""
    folder = made.folder / SECOND
    folder.mkdir(exist_ok=True)
    shutil.copy(made.folder / "trimtab.toml", folder)
    return replace(made, folder=folder, loaded=load_config(folder / "trimtab.toml"))


def copied_by_hand(made: Scene, other: Scene) -> None:
    """Somebody copies the files as they lie there."""
    for end in ("", "-wal"):
        path = made.store_file.with_name(made.store_file.name + end)
        if path.exists():
            shutil.copy(path, other.store_file.with_name(other.store_file.name + end))


def backed_up(made: Scene, other: Scene) -> None:
    """By the commands for it."""
    copy = made.folder / "backup.db"
    backup_store(made.folder / "trimtab.toml", copy, force=True)
    restore_store(other.folder / "trimtab.toml", copy, force=True)


def two_machines(copying: Callable[[Scene, Scene], None]) -> Callable[[Scene, int, random.Random], tuple[dict[str, int], list[str]]]:
    """A copy is made at some moment of a step; the step goes on or dies; then the machines act in any order, or at once."""

    def fault(made: Scene, at: int, draw: random.Random) -> tuple[dict[str, int], list[str]]:
        other = second(made)

        def happens() -> None:
            copying(made, other)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)

        dies = draw.random() < 0.5
        process(made, once(at, happens))
        if not other.store_file.exists():  # the step was over before that moment
            copying(made, other)
        order = draw.choice(("first", "second", "at once"))
        made.heal()
        told: list[str] = []
        if order == "at once":
            both = [started(one) for one in (made, other)]
            told = [wrong for one in both for wrong in finished(*one).wrong]
        turns = [made, other] if order == "first" else [other, made]
        for one in turns * 2:
            _turn(one, draw)
        return {f"two machines, {order}": 1, "SIGKILL": int(dies)}, told

    return fault


def _turn(made: Scene, draw: random.Random) -> None:
    """One machine steps; where it wants the owner's word it sometimes gets it, and steps again."""
    if made.restart().startswith("OperatorNeeded") and draw.random() < 0.5:
        with suppress(TrimtabError), again(made.chain, made.loaded, made.honest()) as one:
            one.resync_nonce()
        made.restart()


def of_both(made: Scene) -> list[str]:
    """What holds over two journals together: one swap on the chain, every transaction known to one of them, policy and value."""
    sent = invariants.transactions(made)
    other = second(made)
    journal: dict[str | None, Intent] = {}
    told = []
    for one in (made, other):
        store = open_store(one.loaded.store_url, one.chain.chain_id, one.chain.wallet.address)
        try:
            for intent in store.journal.intents(limit=1_000):
                if intent.tx_hash not in journal or intent.receipt is not None:
                    journal[intent.tx_hash] = intent
            told += invariants.nonces(store)
        finally:
            store.close()
        told += invariants.secrets(one, sent)
    told += [f"{one['hash']} is in no journal" for one in sent if one["hash"] not in journal]
    swaps = [one for one in sent if made.chain.w3.to_checksum_address(one["to"]) == made.router and _succeeded(made, one["hash"])]
    if len(swaps) != made.swaps:
        told.append(f"{len(swaps)} swaps on the chain")
    if made.futures is not None:
        told += futures_invariants.violations(made.futures, tuple(journal.values()), sent)
    return told + invariants.policy(made, sent) + invariants.value(made) + invariants.near(made)


def _succeeded(made: Scene, tx_hash: str) -> bool:
    receipt: Any = made.rpc("eth_getTransactionReceipt", tx_hash)
    return int(receipt["status"], 16) == 1


FAULTS: dict[str, Callable[[Scene, int, random.Random], tuple[dict[str, int], list[str]]]] = {
    "copy by hand": two_machines(copied_by_hand),
    "restored backup": two_machines(backed_up),
}


def run(chain: LocalChain, folders: Folders, seed: int, wanted: Only, staged: Staged = scene) -> Iterator[Result]:
    """Every fault at a few moments of this seed's step."""
    for fault, strike in FAULTS.items():
        draw = random.Random(f"store {seed} {fault}")
        for at in sorted(draw.sample(range(MOMENTS), 3)):
            if not wanted(fault, str(at)):
                continue
            with staged(chain, folders(), seed) as made:
                injected, told = strike(made, at, random.Random(f"store {seed} {fault} {at}"))
                told += of_both(made)
            yield Result(Case(NAME, seed, fault, str(at)), injected, told)
