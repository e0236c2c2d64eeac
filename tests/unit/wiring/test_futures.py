"""Tests of agent/wiring/futures.py: a reading that waits for the venue, and no agent key on a fork."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from agent.config.load import load_config
from agent.model import Snapshot
from agent.model.futures import FuturesReading, MarginAccount
from agent.wiring.futures import OrderVenueReader, missing_agent_key_reason
from tests.support.configs.futures import HYPERLIQUID
from tests.support.configs.samples import config_text
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import FUTURES_POLICY, OVER, book, step_of

CALM = book(10_000, 10 * E18)
"""At its target of 2x."""


class FakeVenue:
    """A venue whose prompt reading has this account, and whose later one has none."""

    def __init__(self, account: MarginAccount, *, has_left_out_reads: bool) -> None:
        self.account = account
        self.has_left_out_reads = has_left_out_reads
        self.calls: list[str] = []

    def read_promptly(self, snapshot: Snapshot) -> Snapshot:
        self.calls.append("prompt")
        return snapshot.with_layer(FuturesReading(self.account))

    def wait_for_budget(self) -> None:
        self.calls.append("wait")

    def read(self, snapshot: Snapshot) -> Snapshot:
        self.calls.append("read")
        return snapshot


class FakeReader:
    def snapshot(self) -> Snapshot:
        return step_of(None).snapshot


@pytest.mark.parametrize(
    ("account", "has_left_out_reads", "is_exit_due", "waits"),
    [(CALM, False, False, False), (CALM, True, False, True), (CALM, True, True, False), (OVER, True, False, False)],
    ids=["all read", "parts left out", "exit due", "reduction due"],
)
def test_look__waits_for_the_venue_unless_something_is_due(
    account: MarginAccount, has_left_out_reads: bool, is_exit_due: bool, waits: bool
) -> None:
    venue = FakeVenue(account, has_left_out_reads=has_left_out_reads)
    OrderVenueReader(cast(Any, FakeReader()), cast(Any, venue), FUTURES_POLICY, lambda _snapshot: is_exit_due).snapshot()
    assert venue.calls == (["prompt", "wait", "read"] if waits else ["prompt"])


SOURCES = {
    "keystore": 'agent_keystore = "agent.json"',
    "variable": 'agent_key_env = "AGENT_KEY"',
    "keyring": 'agent_keyring = "trimtab/agent"',
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("is_fork", [True, False], ids=["fork", "live chain"])
def test_agent_key__is_not_loaded_on_a_fork(tmp_path: Path, source: str, is_fork: bool) -> None:
    chain_lines = f"[chain]\nfork = {str(is_fork).lower()}\n"
    path = tmp_path / "trimtab.toml"
    path.write_text(config_text(("[chain]\n", chain_lines)) + HYPERLIQUID.replace(SOURCES["keystore"], source))
    (tmp_path / "agent.json").touch()
    reason = missing_agent_key_reason(load_config(path))
    assert reason == ("the chain is a fork, and the venue's orders would be real" if is_fork else "")
