"""trimtab: a wallet-keyed agent that rebalances token portfolios on chain. The public surface is
`agent.app`, loaded on first use.
"""

from __future__ import annotations

import os
from typing import Any

# The planner solves tiny systems; BLAS threads cost more than they save and stall on a busy
# machine. Must precede numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["load_config", "open_agent", "plan", "quote", "snapshot", "step"]


def __getattr__(name: str) -> Any:
    """Names of `agent.app`, so that importing a pure module loads no web3."""
    if name in __all__:
        from agent import app as api

        return getattr(api, name)
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
