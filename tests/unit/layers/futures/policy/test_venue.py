"""Tests of agent/layers/futures/policy/venue.py: trust in the contracts of a futures venue."""

from __future__ import annotations

import pytest

from agent.layers.futures.policy.venue import distrust_changed_venue
from agent.layers.futures.state import margin_account
from agent.model import MARGIN_ACCOUNT_ITEM, CodeHash
from agent.model.futures import FuturesReading
from tests.support.builders import OWNER, address, with_snapshot
from tests.support.perpetuals.steps import EMPTY, step_of

VAULT = address("vault")
EXCHANGE = address("exchange")
NAMES = {VAULT: "vault", EXCHANGE: "exchange"}
PINS = {VAULT: "0x01", EXCHANGE: "0x02"}


@pytest.mark.parametrize(
    ("hash_by_address", "distrusted_names"),
    [
        pytest.param(PINS, [], id="as pinned"),
        pytest.param(PINS | {VAULT: "0x03"}, ["vault"], id="one contract changed"),
        pytest.param({VAULT: "0x03", EXCHANGE: "0x04"}, ["vault", "exchange"], id="both changed"),
    ],
)
def test_changed_venue_leaves_no_margin_account(hash_by_address: dict[str, str], distrusted_names: list[str]) -> None:
    codes = tuple(CodeHash(contract, code_hash) for contract, code_hash in hash_by_address.items())
    snapshot = with_snapshot(step_of(EMPTY), code_hashes=codes).snapshot

    snapshot_after = distrust_changed_venue(snapshot, OWNER, NAMES, PINS, {})

    reason = snapshot_after.layer(FuturesReading).unknown_reason
    assert (margin_account(snapshot_after) is None) is bool(distrusted_names)
    assert all(f"{name} at" in reason for name in distrusted_names)
    assert reason.endswith("trimtab trust") is bool(distrusted_names)
    assert [item.subject for item in snapshot_after.unreadable_items] == [MARGIN_ACCOUNT_ITEM] * bool(distrusted_names)
    assert (snapshot_after is snapshot) is not bool(distrusted_names)
