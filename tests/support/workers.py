"""Workers as processes on machines of their own, as far as they can tell, and what they have done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from agent import wiring
from agent.config.load import load_config
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, IntentState
from agent.store.postgresql import session
from agent.store.transitions import OPEN_STATES
from tests.support.transactions import CHAIN_ID

PROGRAM = str(Path(sys.executable).with_name("trimtab"))


@contextmanager
def worker(
    folder: Path, log: Path, every: str = "1s", variables: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process with a state folder and copies of the configs of its own; its command begins with a prefix."""
    machine = log.with_suffix("")
    shutil.copytree(folder, machine)
    command = [*prefix, PROGRAM, "worker", "--config", str(machine), "--every", every, "--send", "--yes", "--json"]
    environment = os.environ | {"XDG_STATE_HOME": str(log.parent / f"{log.stem}-state")} | dict(variables or {})
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=Path(__file__).parents[2])
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(60)


def bring_to_present(chain: LocalChain) -> None:
    """Mine a block at this machine's time, by which workers go: a chain that tests share rests while others run."""
    late_s = int(time.time()) - chain.now_s()
    if late_s > 0:
        chain.warp(late_s)


def served_counts(url: str, wallets: Sequence[str]) -> dict[int, int]:
    """The number of these wallets that each process serves, by its session."""
    names = [session.serving_lock_name(session.store_key(CHAIN_ID, wallet, "live")) for wallet in wallets]
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as db:
        rows = db.execute(
            "SELECT pid, count(*) FROM pg_locks, unnest(%s::text[]) AS name"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(name, 1) GROUP BY pid",
            (names,),
        ).fetchall()
    return dict(rows)


def until(is_met: Callable[[], object], within_s: float) -> float:
    """Wait until a condition holds; return how long it took."""
    began_s = time.monotonic()
    while not is_met():
        assert time.monotonic() - began_s < within_s, "too late"
        time.sleep(0.1)
    return time.monotonic() - began_s


def journals(folder: Path, names: Sequence[str]) -> list[Sequence[Intent]]:
    """The transactions of each portfolio."""
    intents_by_portfolio = []
    for name in names:
        with wiring.open_store_offline(load_config(folder / f"{name}.toml")) as (store, _):
            intents_by_portfolio.append(store.journal.intents())
    return intents_by_portfolio


def has_swapped(intents: Sequence[Intent]) -> bool:
    is_open = any(intent.state in OPEN_STATES for intent in intents)
    return not is_open and any(intent.kind is IntentKind.SWAP and intent.state is IntentState.FINAL for intent in intents)
