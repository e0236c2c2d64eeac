"""What a hard pause says that could not take the wallet."""

from __future__ import annotations

from agent.app.agent import PendingAndAllowances
from agent.app.money.hard_pause import HardPauseReport, hard_pause_document
from agent.model import UnreadableItem
from agent.ports import Approval
from tests.support import builders
from tests.support.text import mentions

STEP = builders.step_input({"WETH": 5_000, "USDC": 5_000})


def test_nobody_is_said_to_take_back_what_only_a_run_would() -> None:
    """Whoever has the wallet may be a command at its question, and then nothing is taken back by itself."""
    allowed = Approval(builders.address("token"), builders.address("router"), 0, "WETH", "router")
    hard_pause_report = HardPauseReport(
        "stolen laptop", True, PendingAndAllowances(STEP, (), (allowed,)), lock_holder="another trimtab (process 7) already acts"
    )
    document = hard_pause_document(hard_pause_report, send=True)
    assert document["outcome"] == "handed over"
    assert document["revoke"][0]["symbol"] == "WETH"
    assert mentions(document["message"], "process 7", "without a run")


def test_unreadable_allowance__leaves_a_hard_pause_unknown() -> None:
    unread = UnreadableItem("allowance of WETH to 0x1", "0x1", "timeout")
    open_items = PendingAndAllowances(builders.with_snapshot(STEP, unreadable_items=(unread,)), (), ())
    document = hard_pause_document(HardPauseReport("stop", True, open_items), send=False)
    assert document["outcome"] == "unknown"
    assert "the allowance of WETH to 0x1 cannot be read: timeout" in document["message"]
    with_holder = HardPauseReport("stop", True, open_items, lock_holder="process 1")
    assert hard_pause_document(with_holder, send=True)["outcome"] == "handed over"
    clear = HardPauseReport("stop", True, PendingAndAllowances(STEP, (), ()))
    assert hard_pause_document(clear, send=True)["outcome"] == "clear"
