"""Strategies of a run that controls edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.layers.strategies.state import StrategyHealth, StrategyState
from agent.layers.strategies.store import StrategyStore
from agent.localchain import LocalChain
from tests.support import agents
from tests.support.agents import fund, reopened_agent, trusted_config
from tests.support.commands.strategies import with_idle
from tests.support.on_chain.controls import ControlledRun
from tests.support.on_chain.strategies import TWO, strategies

VALUED = {"lp": {"volatility": "60%", "horizon": "30d"}, **agents.ROOMY}


def paused_run(chain: LocalChain, folder: Path, more: dict[str, Any] | None = None) -> ControlledRun:
    """A paused run whose books are open, before the config got a third strategy."""
    fund(chain, {"WETH": 20_000, "USDC": 20_000})
    loaded = trusted_config(chain, folder, strategies("60%", "40%"), TWO)
    with reopened_agent(chain, loaded) as agent:
        agent.rebalance(send=True, confirm=agents.yes)
        strategy_store = agent.context.store.layer_repository(StrategyStore)
        strategy_store.record_states([StrategyState("old", StrategyHealth.ACTIVE, 1)], {}, strategy_store.ledger().record_version)
    return ControlledRun(chain, agents.agent_config(chain, folder, with_idle(), TWO) if more is None else loaded, agent)
