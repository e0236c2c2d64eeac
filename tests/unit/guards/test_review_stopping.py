"""Failures in a row as the store counts them for agent/guards/safety.py: what stops the agent, and what lets it go on (T6)."""

from __future__ import annotations

from pathlib import Path

from agent.model import IntentKind
from agent.store import Store
from agent.store.files.pause import KillSwitch
from tests.support.records.mined import add_mined_intent
from tests.support.stores import store_fixture
from tests.support.transactions import START_S

store = store_fixture()


def reverts_in_row(store: Store) -> int:
    return store.budgets.history(START_S).failures.reverts_in_row


def test_resume_restarts_the_count_of_reverts_and_pause_does_not(store: Store, tmp_path: Path) -> None:
    """Otherwise three reverts in a row would refuse every plan for good: nothing can succeed any more."""
    for nonce in range(3):
        add_mined_intent(store, nonce, status=0)
    assert reverts_in_row(store) == 3

    KillSwitch(tmp_path / "pause", store.pause_switch).resume("seen", START_S)
    assert reverts_in_row(store) == 0

    add_mined_intent(store, 3, status=0)
    assert reverts_in_row(store) == 1

    store.pause_switch.pause("again", START_S)
    assert reverts_in_row(store) == 1


def test_steps_of_approvals_count_until_a_swap_succeeds(store: Store) -> None:
    """A swap that fails in simulation for ever would burn the gas of its approvals day after day."""
    for nonce in range(5):
        add_mined_intent(store, nonce, IntentKind.APPROVE)
    add_mined_intent(store, 5, status=0)
    assert store.budgets.history(START_S).failures.approval_cycles_in_row == 5

    add_mined_intent(store, 6)
    assert store.budgets.history(START_S).failures.approval_cycles_in_row == 0
