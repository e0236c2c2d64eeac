"""What a hard pause says that could not take the wallet."""

from __future__ import annotations

from typing import Any

import pytest

from agent.app.agent import PendingAndAllowances
from agent.app.money.hard_pause import HardPauseReport, hard_pause_document
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import UnreadableItem
from agent.policy.decide import hard_pause_result
from agent.ports import Approval
from tests.support import builders
from tests.support.text import mentions

STEP = builders.step_input({"WETH": 5_000, "USDC": 5_000})
OPEN_ALLOWANCE = Approval(builders.address("token"), builders.address("router"), 0, "WETH", "router")


def test_nobody_is_said_to_take_back_what_only_a_run_would() -> None:
    """Whoever has the wallet may be a command at its question, and then nothing is taken back by itself."""
    hard_pause_report = HardPauseReport(
        "stolen laptop", True, PendingAndAllowances(STEP, (), (OPEN_ALLOWANCE,)), lock_holder="another trimtab (process 7) already acts"
    )
    document = hard_pause_document(hard_pause_report, send=True)
    assert document["outcome"] == "handed over"
    assert document["revoke"][0]["symbol"] == "WETH"
    assert mentions(document["message"], "process 7", "without a run")


SIGNED = "signatures of the proposal 7: 2; whoever has them can execute it"


@pytest.mark.parametrize(
    ("fields", "send", "outcome"),
    [
        ({"lock_holder": "process 1"}, True, "handed over"),
        ({}, True, "declined"),
        ({}, False, "planned"),
        ({"outcome": OutcomeKind.HALT}, True, "done"),
        ({"outcome": OutcomeKind.DONE}, True, "done"),
        ({"outcome": OutcomeKind.FAILED}, True, "failed"),
    ],
    ids=["lock held", "declined", "planned", "nothing else to do", "done", "failed"],
)
def test_signed_proposal__is_not_clear(fields: dict[str, Any], send: bool, outcome: str) -> None:
    """It can be executed whatever else is open, and a dropped one is no pending transaction."""
    if kind := fields.get("outcome"):
        decided = hard_pause_result(STEP, "nothing open")
        fields = {"outcome": StepOutcome("step", kind, "nothing open", STEP, decided, None)}
    report = HardPauseReport("stop", True, PendingAndAllowances(STEP, (), ()), signed_texts=(SIGNED,), **fields)
    document = hard_pause_document(report, send)
    assert (document["outcome"], SIGNED in document["message"]) == (outcome, True)


UNREAD = UnreadableItem("allowance of WETH to 0x1", "0x1", "timeout")
UNREAD_STEP = builders.with_snapshot(STEP, unreadable_items=(UNREAD,))


@pytest.mark.parametrize("approvals", [(), (OPEN_ALLOWANCE,)], ids=["none open", "one open"])
@pytest.mark.parametrize(
    ("fields", "send"),
    [({}, False), ({}, True), ({"lock_holder": "process 1"}, True), ({"rejection_text": "sign it"}, True)],
    ids=["planned", "declined", "lock held", "unfinished"],
)
def test_hard_pause__names_what_is_unread_and_signed(fields: dict[str, Any], send: bool, approvals: tuple[Approval, ...]) -> None:
    open_items = PendingAndAllowances(UNREAD_STEP, (), approvals)
    report = HardPauseReport("stop", True, open_items, signed_texts=(SIGNED,), **fields)
    lines = hard_pause_document(report, send)["message"].splitlines()
    assert {"the allowance of WETH to 0x1 cannot be read: timeout", SIGNED} <= set(lines)


def test_unreadable_allowance__leaves_a_hard_pause_unknown() -> None:
    open_items = PendingAndAllowances(UNREAD_STEP, (), ())
    document = hard_pause_document(HardPauseReport("stop", True, open_items), send=False)
    assert document["outcome"] == "unknown"
    assert "the allowance of WETH to 0x1 cannot be read: timeout" in document["message"]
    with_holder = HardPauseReport("stop", True, open_items, lock_holder="process 1")
    assert hard_pause_document(with_holder, send=True)["outcome"] == "handed over"
    clear = HardPauseReport("stop", True, PendingAndAllowances(STEP, (), ()))
    assert hard_pause_document(clear, send=True)["outcome"] == "clear"
