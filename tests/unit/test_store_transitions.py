"""The transition table: every pair of states, in the table and in a real store."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from agent.model import IntentKind, IntentState
from agent.store import open_store
from agent.store.transitions import OPEN, TRANSITIONS, allowed
from tests.scripted import CHAIN_ID, START_S, WALLET, grant, receipt, tx

S = IntentState
ALLOWED = {
    (S.PLANNED, S.SIGNED), (S.PLANNED, S.CANCELLED),
    (S.SIGNED, S.BROADCAST), (S.SIGNED, S.CANCELLED),
    (S.BROADCAST, S.BROADCAST), (S.BROADCAST, S.MINED), (S.BROADCAST, S.REPLACED), (S.BROADCAST, S.CANCELLED),
    (S.MINED, S.MINED), (S.MINED, S.BROADCAST), (S.MINED, S.FINAL), (S.MINED, S.REVERTED),
}  # fmt: skip
WAY = {
    S.PLANNED: (),
    S.SIGNED: (S.SIGNED,),
    S.BROADCAST: (S.SIGNED, S.BROADCAST),
    S.MINED: (S.SIGNED, S.BROADCAST, S.MINED),
    S.FINAL: (S.SIGNED, S.BROADCAST, S.MINED, S.FINAL),
    S.REVERTED: (S.SIGNED, S.BROADCAST, S.MINED, S.REVERTED),
    S.REPLACED: (S.SIGNED, S.BROADCAST, S.REPLACED),
    S.CANCELLED: (S.CANCELLED,),
}
HASH = "0x" + "ab" * 32


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TRANSITIONS) == set(IntentState)
    assert {S.PLANNED, S.SIGNED, S.BROADCAST, S.MINED} == OPEN


@pytest.mark.parametrize(("before", "after"), product(S, S), ids=lambda s: s.value)
def test_every_pair_of_states_is_allowed_or_refused_as_written(tmp_path: Path, before: S, after: S) -> None:
    assert allowed(before, after) == ((before, after) in ALLOWED)
    store = open_store(f"sqlite:///{tmp_path}/t.db", CHAIN_ID, WALLET)
    store.begin_step("s", START_S, "{}")
    intent = store.intend("s", IntentKind.SWAP, tx(0), grant(), "swap", START_S, None)
    for state in WAY[before]:
        intent = store.advance(intent.id, state, START_S, tx_hash=HASH, receipt=receipt(HASH, 1, "0x01"))
    assert intent.state is before
    moves_before = store.transitions(intent.id)
    if (before, after) in ALLOWED:
        assert store.advance(intent.id, after, START_S, tx_hash=HASH, receipt=receipt(HASH, 1, "0x01")).state is after
        last = store.transitions(intent.id)[-1]
        assert (last.before, last.after) == (before, after)
    else:
        with pytest.raises(ValueError, match=f"cannot go from {before.value} to {after.value}"):
            store.advance(intent.id, after, START_S, tx_hash=HASH, receipt=receipt(HASH, 1, "0x01"))
        assert store.transitions(intent.id) == moves_before
    store.close()
