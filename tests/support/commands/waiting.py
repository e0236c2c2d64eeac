"""Transactions that wait for a block."""

from __future__ import annotations

import signal
import time

from tests.cli.tools import Desk, forked
from tests.support.commands.sending import nonce


def something_waits(desk: Desk) -> int:
    """A rebalance whose first transaction is in no block, and which has ended; the wallet's nonce before it."""
    before = nonce(desk)
    desk.node.rpc("evm_setAutomine", False)
    child = forked(desk, "rebalance", "--send", "--yes")
    end = time.monotonic() + 60
    while int(desk.node.rpc("eth_getTransactionCount", desk.about["wallet"], "pending"), 16) == before:
        assert time.monotonic() < end, child.err.read_text()
        time.sleep(0.01)
    child.told(signal.SIGINT)
    child.ended()
    return before


def waiting_hashes(desk: Desk) -> set[str]:
    """Hashes of the wallet's transactions that wait for a block."""
    pools = desk.node.rpc("txpool_content")["pending"]
    return {item["hash"] for owner, items in pools.items() if owner.lower() == desk.about["wallet"].lower() for item in items.values()}
