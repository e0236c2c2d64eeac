"""Commands that are interrupted, and what must hold afterwards."""

from __future__ import annotations

import time

from tests.cli.tools import Desk, ForkedCommand
from tests.support.commands.sending import nonce


def pending(desk: Desk) -> int:
    """Transactions of the wallet that wait for a block."""
    return int(desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "pending"), 16) - nonce(desk)


def until_something_waits(desk: Desk, child: ForkedCommand) -> None:
    end = time.monotonic() + 60
    while not pending(desk):
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.01)


def require_sound(desk: Desk, before: int) -> None:
    """One more rebalance ends well, and the chain knows exactly the transactions of the journal, each nonce once."""
    desk.node.rpc("evm_setAutomine", True)
    desk.node.mine(1)
    assert desk.ask("rebalance", "--send", "--yes")["outcome"] in ("done", "hold")
    assert desk.ask("status")["decision"]["kind"] == "hold"
    sent = [item for step in desk.ask("history", "--limit", "100")["steps"] for item in step["transactions"]]
    final = sorted(item["nonce"] for item in sent if item["status"] == "final")
    assert final == list(range(before, nonce(desk)))
    assert {item["status"] for item in sent} <= {"final", "cancelled"}
    for item in sent:
        if item["status"] == "final":
            assert desk.node.rpc("eth_getTransactionReceipt", item["hash"])["status"] == "0x1"
