"""What an edit prints before it is confirmed."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from agent.cli.profiles import show_editing
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.planning.proposals import propose_rebalance
from tests.support.decisions.tracking import balance_changes, tracking_step
from tests.support.text import mentions

SHOWN_EDIT: dict[str, Any] = {
    **dict.fromkeys(("earlier_edits", "changes", "token_notes", "contracts", "warnings", "commands"), ()),
    "state": "planned",
    "rebalance_count": 1,
    "transition": {"reason": "1 swap", "numeraire": "USDC", "pools": {}, "legs": [1], "turnover": "450.86", "cost": {"total": "0.25"}},
}


@pytest.mark.parametrize("is_due", [True, False], ids=["trades", "holds"])
def test_edit__says_what_is_the_whole_way_and_what_a_cycle_trades(monkeypatch: pytest.MonkeyPatch, *, is_due: bool) -> None:
    """A range is left for its edge, not for its target, and often not left at all."""
    monkeypatch.setattr("agent.cli.profiles.show_sent", lambda *_: None)
    monkeypatch.setattr("agent.cli.profiles._show_state", lambda *_: None)
    step = tracking_step(balance_changes(WETH=9_000 if is_due else 500))
    proposal = propose_rebalance(step)
    kind = OutcomeKind.PLANNED if is_due else OutcomeKind.HOLD
    next_cycle = StepOutcome("1", kind, proposal.decision_result.decision.reason, step, proposal.decision_result, proposal.plan)
    console = Console(width=400, record=True, file=io.StringIO())
    show_editing(console, SHOWN_EDIT, None, next_cycle=next_cycle)
    text = console.export_text()
    assert mentions(
        text, "The whole way to the targets: 450.86 USDC of turnover for 0.25 USDC", f"A cycle now, with this edit: {kind.value}:"
    )
    assert ("It trades 6,906.20 USDC for 21.30 USDC" in text) is is_due
    assert ("weights after it: WETH 29." in text) is is_due
