"""Workers on several machines: each portfolio is served by one, a gone one is replaced, and nothing is sent twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from agent import wiring
from agent.config.load import load_config
from agent.localchain import LocalChain
from agent.model import Intent, IntentKind, IntentState
from agent.signing.keys import TestAccountKey, load_key
from agent.store.postgresql import fencing, session
from agent.store.transitions import OPEN_STATES
from tests.support.fleets import add_portfolio, wallet_of
from tests.support.postgresql import Server
from tests.support.transactions import CHAIN_ID

ACCOUNTS = {"one": 4, "two": 5, "three": 6, "four": 7}
BALANCED = {"WETH": 5_000, "USDC": 5_000}
TOO_MUCH_WETH = {"WETH": 8_000, "USDC": 2_000}
TAKEN_OVER_S = 20.0
PROGRAM = str(Path(sys.executable).with_name("trimtab"))


def folder_of(chain: LocalChain, tmp_path: Path, url: str, usd: Mapping[str, int]) -> Path:
    """The configs of four portfolios in one folder, whose stores are in one database."""
    folder = tmp_path / "clients"
    folder.mkdir()
    for name, account in ACCOUNTS.items():
        path = add_portfolio(chain, tmp_path, name, account, usd, {"store.url": url})
        path.rename(folder / path.name)
        (path.with_name("trimtab.store.secret")).rename(folder / f"{name}.store.secret")
    return folder


@contextmanager
def worker(folder: Path, log: Path, every: str = "1s") -> Iterator[subprocess.Popen[bytes]]:
    """A worker on another machine, as far as it can tell: a process with a state folder and copies of the configs of its own."""
    machine = log.with_suffix("")
    shutil.copytree(folder, machine)
    command = [PROGRAM, "worker", "--config", str(machine), "--every", every, "--send", "--yes", "--json"]
    environment = os.environ | {"XDG_STATE_HOME": str(log.parent / f"{log.stem}-state")}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=Path(__file__).parents[2])
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(60)


def served(url: str) -> dict[int, int]:
    """The number of wallets that each process serves, by its session."""
    wallets = [load_key(TestAccountKey(account), CHAIN_ID, ask=None).address for account in ACCOUNTS.values()]
    names = [session.serving_lock_name(session.store_key(CHAIN_ID, wallet, "live")) for wallet in wallets]
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as db:
        rows = db.execute(
            "SELECT pid, count(*) FROM pg_locks, unnest(%s::text[]) AS name"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND ((classid::bigint << 32) | objid::bigint) = hashtextextended(name, 1) GROUP BY pid",
            (names,),
        ).fetchall()
    return dict(rows)


def until(is_met: object, within_s: float) -> float:
    """Wait until a condition holds; return how long it took."""
    began_s = time.monotonic()
    while not is_met():  # type: ignore[operator]
        assert time.monotonic() - began_s < within_s, "too late"
        time.sleep(0.1)
    return time.monotonic() - began_s


def intents(folder: Path) -> Sequence[Sequence[Intent]]:
    """The transactions of each portfolio."""
    found = []
    for name in ACCOUNTS:
        with wiring.open_store_offline(load_config(folder / f"{name}.toml")) as (store, _):
            found.append(store.journal.intents())
    return found


def has_swapped(found: Sequence[Intent]) -> bool:
    is_open = any(intent.state in OPEN_STATES for intent in found)
    return not is_open and any(intent.kind is IntentKind.SWAP and intent.state is IntentState.FINAL for intent in found)


@pytest.mark.slow
def test_two_workers_share_the_portfolios_and_the_rest_is_taken_over(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    folder = folder_of(anvil_chain, tmp_path, url, BALANCED)
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: list(served(url).values()) == [4], 60)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: sorted(served(url).values()) == [2, 2], 60)
            first.send_signal(signal.SIGKILL)
            assert until(lambda: list(served(url).values()) == [4], TAKEN_OVER_S) < TAKEN_OVER_S
            with worker(folder, tmp_path / "third.log") as third:
                until(lambda: sorted(served(url).values()) == [2, 2], 60)
                third.terminate()
                until(lambda: list(served(url).values()) == [4], TAKEN_OVER_S)


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced_and_sends_nothing_twice(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """All four need a rebalance; the first worker stands still in the middle of it and goes on once the second has acted."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    nonces = {name: anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain)) for name, account in ACCOUNTS.items()}  # type: ignore[arg-type]
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: any(intents(folder)), 60)
        os.kill(first.pid, signal.SIGSTOP)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: list(served(url).values()).count(4) == 1, 60)
            until(lambda: all(map(has_swapped, intents(folder))), 60)
            os.kill(first.pid, signal.SIGCONT)
            time.sleep(6)
            until(lambda: sorted(served(url).values()) == [2, 2], 60)
    for (name, account), found in zip(ACCOUNTS.items(), intents(folder), strict=True):
        after = anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain))  # type: ignore[arg-type]
        mined = [intent for intent in found if intent.state is IntentState.FINAL]
        assert after - nonces[name] == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name


@pytest.mark.slow
def test_a_stopped_worker_is_replaced_and_portfolios_that_a_living_one_leaves_are_taken(
    anvil_chain: LocalChain, tmp_path: Path, url: str
) -> None:
    """Within 20 s of a stop; and beside a worker of the group that serves nothing, some time after nobody has."""
    folder = folder_of(anvil_chain, tmp_path, url, BALANCED)
    with worker(folder, tmp_path / "first.log") as first, worker(folder, tmp_path / "second.log") as second:
        until(lambda: sorted(served(url).values()) == [2, 2], 60)
        os.kill(first.pid, signal.SIGSTOP)
        assert until(lambda: 4 in served(url).values(), 60) < TAKEN_OVER_S
        os.kill(first.pid, signal.SIGKILL)
        idle = fencing.LockSession(session.server_engine(make_url(url)))
        idle.join("workers")
        until(lambda: list(served(url).values()) == [2], 30)
        until(lambda: list(served(url).values()) == [4], 60)
        idle.close()
        assert second.poll() is None


def test_stores_in_files_are_no_stores_of_workers(anvil_chain: LocalChain, tmp_path: Path) -> None:
    add_portfolio(anvil_chain, tmp_path, "one", 5, BALANCED)
    command = [PROGRAM, "worker", "--config", str(tmp_path / "one")]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert refused.returncode == 2
    assert "trimtab db copy" in refused.stderr


def test_a_run_outlives_a_restart_of_the_database(anvil_chain: LocalChain, tmp_path: Path, url: str, server: Server) -> None:
    folder = folder_of(anvil_chain, tmp_path, url, BALANCED)
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: list(served(url).values()) == [4], 60)
        server.control("restart", "-m", "fast")
        until(lambda: list(served(url).values()) == [4], 60)
        assert first.poll() is None
