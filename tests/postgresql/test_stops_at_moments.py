"""A worker that stands still exactly at a write or a send: another takes over, it goes on late, and nothing is sent twice."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from tests.postgresql.test_workers import ACCOUNTS, TOO_MUCH_WETH, folder_of, intents
from tests.support.fleets import wallet_of
from tests.support.stopping import is_stopped
from tests.support.workers import has_swapped, until, worker

LATE_S = 6.0
"""Time for the late worker to act, if it would."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["inside:write that a transaction is sent#1", "before:send#1", "after:send#1"])
def test_a_worker_stopped_at_a_moment_is_replaced_and_sends_nothing_twice(
    anvil_chain: LocalChain, tmp_path: Path, url: str, moment: str
) -> None:
    """What it was about to send, or has sent without hearing so, is its successor's."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    addresses = {name: wallet_of(account, anvil_chain) for name, account in ACCOUNTS.items()}
    former = {name: anvil_chain.w3.eth.get_transaction_count(address) for name, address in addresses.items()}  # type: ignore[arg-type]
    with worker(folder, tmp_path / "first.log", prefix=(sys.executable, "-m", "tests.support.stopping", moment)) as first:
        until(lambda: is_stopped(first.pid), 90)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: all(map(has_swapped, intents(folder))), 120)
            first.send_signal(signal.SIGCONT)
            time.sleep(LATE_S)
    for (name, address), wallet_intents in zip(addresses.items(), intents(folder), strict=True):
        mined = [intent for intent in wallet_intents if intent.state is IntentState.FINAL]
        assert anvil_chain.w3.eth.get_transaction_count(address) - former[name] == len(mined), name  # type: ignore[arg-type]
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name
