"""trimtab: an agent with a wallet key that rebalances token portfolios on chain. `agent.app` is the
public interface, loaded on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.app import load_config as load_config
    from agent.app import plan as plan
    from agent.app import quote as quote
    from agent.app import snapshot as snapshot
    from agent.app import step as step
    from agent.library import open_agent as open_agent

# Must precede the import of numpy: BLAS threads slow down the planner's tiny linear systems.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["load_config", "open_agent", "plan", "quote", "snapshot", "step"]


def __dir__() -> list[str]:
    """Return all names for completion, those that are loaded on first use too."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that importing a pure module does not load web3."""
    if name == "open_agent":
        from agent import library

        return library.open_agent
    if name in __all__:
        from agent import app as api

        return getattr(api, name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
