"""trimtab: a wallet-keyed agent that rebalances token portfolios on chain. The public surface is `agent.api`, loaded on first use."""

from __future__ import annotations

from typing import Any

__all__ = ["load_config", "open_agent", "plan", "quote", "snapshot", "step"]


def __getattr__(name: str) -> Any:
    """Names of `agent.api`, so that importing a pure module loads no web3."""
    if name in __all__:
        from agent import api

        return getattr(api, name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
