"""What a hard pause says that could not take the wallet."""

from __future__ import annotations

from typing import Any

from agent.app.agent import PendingAndAllowances
from agent.app.money.hard_pause import HardPauseReport, hard_pause_document
from agent.ports import Approval
from tests.support import builders
from tests.support.text import mentions

STEP: Any = None


def test_nobody_is_said_to_take_back_what_only_a_run_would() -> None:
    """Whoever has the wallet may be a command at its question, and then nothing is taken back by itself."""
    allowed = Approval(builders.address("token"), builders.address("router"), 0, "WETH", "router")
    held = HardPauseReport(
        "stolen laptop", True, PendingAndAllowances(STEP, (), (allowed,)), lock_holder="another trimtab (process 7) already acts"
    )
    told = hard_pause_document(held, send=True)
    assert told["outcome"] == "handed over"
    assert told["revoke"][0]["symbol"] == "WETH"
    assert mentions(told["message"], "process 7", "without a run")
