"""trimtab: an agent with a wallet key that rebalances token portfolios on chain. `agent.app` is the
public interface, loaded on first use.
"""

from __future__ import annotations

import os
from typing import Any

# Must precede the import of numpy: the planner's systems are tiny, and BLAS threads make them
# slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["load_config", "open_agent", "plan", "quote", "snapshot", "step"]


def __getattr__(name: str) -> Any:
    """Return a name of `agent.app`, so that importing a pure module loads no web3."""
    if name in __all__:
        from agent import app as api

        return getattr(api, name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
