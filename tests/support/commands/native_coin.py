"""Native coin that comes and goes without the agent."""

from __future__ import annotations

from tests.cli.tools import Desk

ETHER = 10**18


def change_native_coin(desk: Desk, change: int) -> None:
    """Native coin comes or goes without the agent."""
    wallet = desk.about["wallet"]
    balance_wei = int(desk.node.rpc("eth_getBalance", wallet, "latest"), 16)
    desk.node.rpc("anvil_setBalance", wallet, hex(balance_wei + change))
