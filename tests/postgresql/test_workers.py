"""Workers on several machines: each portfolio is served by one, a gone one is replaced, and nothing is sent twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url
from web3.types import RPCEndpoint

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.store.postgresql import fencing, session
from tests.support.fleets import add_portfolio, wallet_of
from tests.support.markets.workers import ACCOUNTS, TOO_MUCH_WETH, counts_of_accounts, folder_of, intents
from tests.support.postgresql import Server
from tests.support.workers import PROGRAM, bring_to_present, has_swapped, until, worker

BALANCED = {"WETH": 5_000, "USDC": 5_000}
TAKEN_OVER_S = 20.0


@pytest.mark.slow
def test_two_workers__share_portfolios_and_take_the_rest_over(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    folder = folder_of(anvil_chain, tmp_path, url, BALANCED)
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: list(counts_of_accounts(url).values()) == [4], 60)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
            first.send_signal(signal.SIGKILL)
            assert until(lambda: list(counts_of_accounts(url).values()) == [4], TAKEN_OVER_S) < TAKEN_OVER_S
            with worker(folder, tmp_path / "third.log") as third:
                until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
                third.terminate()
                until(lambda: list(counts_of_accounts(url).values()) == [4], TAKEN_OVER_S)


@pytest.mark.slow
def test_worker_that_stands_still__is_replaced_without_a_double(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """All four need a rebalance; the first worker stands still in the middle of it and goes on once the second has acted."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    nonces = {name: anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain)) for name, account in ACCOUNTS.items()}  # type: ignore[arg-type]
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: any(intents(folder)), 60)
        os.kill(first.pid, signal.SIGSTOP)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: list(counts_of_accounts(url).values()).count(4) == 1, 60)
            until(lambda: all(map(has_swapped, intents(folder))), 60)
            os.kill(first.pid, signal.SIGCONT)
            time.sleep(6)
            until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
    for (name, account), intent in zip(ACCOUNTS.items(), intents(folder), strict=True):
        after = anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain))  # type: ignore[arg-type]
        mined = [intent for intent in intent if intent.state is IntentState.FINAL]
        assert after - nonces[name] == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name


def states(folder: Path) -> set[IntentState]:
    return {intent.state for wallet_intents in intents(folder) for intent in wallet_intents}


@pytest.mark.slow
def test_worker_terminated_in_a_rebalance__ends_at_a_safe_point(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """What it has sent waits for its block while it ends; nothing is left that may or may not have been sent. Each wallet swaps once."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    nonces = {name: anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain)) for name, account in ACCOUNTS.items()}  # type: ignore[arg-type]
    anvil_chain.w3.provider.make_request(RPCEndpoint("evm_setAutomine"), [False])
    with worker(folder, tmp_path / "first.log") as first:
        until(lambda: IntentState.BROADCAST in states(folder), 180)
        first.terminate()
        assert first.wait(60) == 0
    assert IntentState.BROADCAST in states(folder)
    assert not states(folder) & {IntentState.PLANNED, IntentState.SIGNED}
    anvil_chain.w3.provider.make_request(RPCEndpoint("evm_setAutomine"), [True])
    bring_to_present(anvil_chain)
    with worker(folder, tmp_path / "second.log"):
        until(lambda: all(map(has_swapped, intents(folder))), 180)
    for (name, account), wallet_intents in zip(ACCOUNTS.items(), intents(folder), strict=True):
        after = anvil_chain.w3.eth.get_transaction_count(wallet_of(account, anvil_chain))  # type: ignore[arg-type]
        mined = [intent for intent in wallet_intents if intent.state is IntentState.FINAL]
        assert after - nonces[name] == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name


@pytest.mark.slow
def test_stopped_worker__is_replaced_and_left_portfolios_taken(anvil_chain: LocalChain, tmp_path: Path, url: str) -> None:
    """Within 20 s of a stop; and beside a worker of the group that serves nothing, some time after nobody has, until a third one asks."""
    folder = folder_of(anvil_chain, tmp_path, url, BALANCED)
    with worker(folder, tmp_path / "first.log") as first, worker(folder, tmp_path / "second.log") as second:
        until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
        os.kill(first.pid, signal.SIGSTOP)
        assert until(lambda: 4 in counts_of_accounts(url).values(), 60) < TAKEN_OVER_S
        os.kill(first.pid, signal.SIGKILL)
        idle = fencing.LockSession(session.server_engine(make_url(url)))
        idle.join("workers")
        until(lambda: list(counts_of_accounts(url).values()) == [2], 30)
        until(lambda: list(counts_of_accounts(url).values()) == [4], 60)
        with worker(folder, tmp_path / "third.log"):
            until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
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
        until(lambda: list(counts_of_accounts(url).values()) == [4], 60)
        server.control("restart", "-m", "fast")
        until(lambda: list(counts_of_accounts(url).values()) == [4], 60)
        assert first.poll() is None
