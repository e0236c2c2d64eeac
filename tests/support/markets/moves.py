"""Something happens just before a swap leaves."""

from __future__ import annotations

from collections.abc import Callable

from agent.app.agent import Agent
from agent.model import IntentKind


def before_a_swap(agent: Agent, happens: Callable[[], object]) -> Callable[[str], None]:
    """Something happens just before the bytes of a swap leave; approvals go through."""

    def progress(event: str) -> None:
        if event == "before:send" and agent.context.store.journal.open_intents()[-1].kind is IntentKind.SWAP:
            happens()

    return progress
