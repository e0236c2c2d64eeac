"""What stops the agent after failures in a row, and what lets it go on (T6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.guards.table import REMEDIES
from agent.model import IntentKind
from agent.store import Store
from agent.store.files.pause import KillSwitch
from tests.support.builders import step_input, with_history
from tests.support.plans import sell_weth, verdict
from tests.support.records.mined import add_mined_intent
from tests.support.transactions import START_S, new_store


@pytest.fixture
def store(store_kind: str, tmp_path: Path) -> Store:
    return new_store(store_kind, tmp_path)


def test_resuming_starts_the_count_of_reverts_anew(store: Store, tmp_path: Path) -> None:
    """Otherwise three reverts in a row would refuse every plan for good: nothing can succeed any more."""
    for nonce in range(3):
        add_mined_intent(store, nonce, status=0)
    assert store.budgets.history(START_S).failures.reverts_in_row == 3
    KillSwitch(tmp_path / "pause", store.pause_switch).resume("seen", START_S)
    assert store.budgets.history(START_S).failures.reverts_in_row == 0
    add_mined_intent(store, 3, status=0)
    assert store.budgets.history(START_S).failures.reverts_in_row == 1
    store.pause_switch.pause("again", START_S)
    assert store.budgets.history(START_S).failures.reverts_in_row == 1


def test_the_remedy_names_the_command_that_does_it() -> None:
    assert "trimtab resume" in REMEDIES["reverts_in_row"]


def test_steps_that_only_approve_are_counted_until_a_swap_succeeds(store: Store) -> None:
    """A swap that fails in simulation for ever would burn the gas of its approvals day after day."""
    for nonce in range(5):
        add_mined_intent(store, nonce, IntentKind.APPROVE)
    add_mined_intent(store, 5, status=0)
    assert store.budgets.history(START_S).failures.approval_cycles_in_row == 5
    add_mined_intent(store, 6)
    assert store.budgets.history(START_S).failures.approval_cycles_in_row == 0


@pytest.mark.parametrize(("approvals", "passed"), [(7, True), (8, False)])
def test_too_many_steps_of_approvals_alone_are_refused(approvals: int, passed: bool) -> None:
    plain_step = step_input()
    step = with_history(plain_step, approval_cycles_in_row=approvals)
    assert verdict("reverts_in_row", step, sell_weth(step)).passed is passed
