"""A worker that stands still exactly at a write or a send, or whose clock is wrong: nothing is sent twice."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.localchain import LocalChain
from agent.model import IntentKind, IntentState
from agent.store.postgresql import fencing
from tests.support.fleets import wallet_of
from tests.support.markets.workers import ACCOUNTS, TOO_MUCH_WETH, counts_of_accounts, folder_of, intents
from tests.support.stopping import is_stopped
from tests.support.workers import has_swapped, until, worker

LATE_S = 6.0
"""Time for the late worker to act, if it would."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["inside:write that a transaction is sent#1", "before:send#1", "after:send#1"])
def test_worker_stopped_at_a_moment__sends_nothing_twice(anvil_chain: LocalChain, tmp_path: Path, url: str, moment: str) -> None:
    """What it was about to send, or has sent without hearing so, is its successor's."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    former = sent_counts(anvil_chain)
    with worker(folder, tmp_path / "first.log", prefix=(sys.executable, "-m", "tests.support.stopping", moment)) as first:
        until(lambda: is_stopped(first.pid), 90)
        with worker(folder, tmp_path / "second.log"):
            until(lambda: all(map(has_swapped, intents(folder))), 120)
            first.send_signal(signal.SIGCONT)
            time.sleep(LATE_S)
    assert_swapped_once(anvil_chain, folder, former)


@pytest.mark.slow
@pytest.mark.parametrize("offset_s", [3_600, -3_600])
def test_worker_of_a_wrong_clock__sends_nothing_twice(anvil_chain: LocalChain, tmp_path: Path, url: str, offset_s: int) -> None:
    """Leases go by the clock of the database: neither worker counts the other as gone, until one is."""
    folder = folder_of(anvil_chain, tmp_path, url, TOO_MUCH_WETH)
    former = sent_counts(anvil_chain)
    with worker(folder, tmp_path / "wrong.log", prefix=(sys.executable, "-m", "tests.postgresql.skewed", str(offset_s))) as wrong:
        until(lambda: list(counts_of_accounts(url).values()) == [4], 60)
        with worker(folder, tmp_path / "right.log"):
            until(lambda: sorted(counts_of_accounts(url).values()) == [2, 2], 60)
            time.sleep(fencing.LEASE_S + LATE_S)
            assert sorted(counts_of_accounts(url).values()) == [2, 2]
            wrong.kill()
            until(lambda: all(map(has_swapped, intents(folder))), 120)
    assert_swapped_once(anvil_chain, folder, former)


def sent_counts(chain: LocalChain) -> dict[str, int]:
    """The number of transactions of each wallet on the chain."""
    return {name: chain.w3.eth.get_transaction_count(wallet_of(account, chain)) for name, account in ACCOUNTS.items()}  # type: ignore[arg-type]


def assert_swapped_once(chain: LocalChain, folder: Path, former: Mapping[str, int]) -> None:
    """Chain and journal say the same of each wallet since then, and that it has swapped once."""
    for (name, count), wallet_intents in zip(sent_counts(chain).items(), intents(folder), strict=True):
        mined = [intent for intent in wallet_intents if intent.state is IntentState.FINAL]
        assert count - former[name] == len(mined), name
        assert sum(intent.kind is IntentKind.SWAP for intent in mined) == 1, name
