"""trimtab: an agent with a wallet key that rebalances token portfolios on chain. `open_agent` and
`agent.research` are the public interface, loaded on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.library import open_agent as open_agent

# Must precede the import of numpy: BLAS threads slow down the planner's tiny linear systems.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["open_agent"]


def __dir__() -> list[str]:
    """Return the names that are there, and the public one, for completion."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Load the public name on first use, so that importing a pure module does not load web3."""
    if name == "open_agent":
        from agent import library

        return library.open_agent
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
