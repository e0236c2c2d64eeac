"""Something happens after all checks, just before a swap is sent."""

from __future__ import annotations

from collections.abc import Callable

from agent.app.agent import Agent
from agent.model import IntentKind

TARGETS = {"WETH": "50%", "USDC": "40%", "LINK": "10%"}
HELD = {"WETH": 50_000, "USDC": 50_000}
V3_ONLY = {"venues.uniswap_v2": None}


def at_swap(agent: Agent, happens: Callable[[], object]) -> Callable[[str], None]:
    """Something happens after all checks, just before the swap is sent."""

    def progress(event: str) -> None:
        if event == "before:send" and agent.context.store.journal.open_intents()[-1].kind is IntentKind.SWAP:
            happens()

    return progress
