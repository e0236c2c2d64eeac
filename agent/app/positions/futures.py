"""`trimtab positions`, `margin`, `funding`: the futures layer at the present block, read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.app.documents.futures import FuturesReport, report_of
from agent.errors import ConfigError
from agent.policy.decide import current_drifts

if TYPE_CHECKING:
    from agent.app.agent import Agent


def futures_layer(agent: Agent) -> FuturesReport:
    """Read the futures layer. Raises ConfigError without [futures]."""
    if agent.context.futures is None:
        raise ConfigError(
            "futures: the config has no [futures]", "add it as docs/futures.md describes"
        )
    step = agent.step_input()
    return report_of(step, agent.context.futures, current_drifts(step))
