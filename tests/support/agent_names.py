"""Methods of a live agent from Python by the commands of whose name they are."""

from __future__ import annotations

METHODS_BY_COMMAND = {
    name: name
    for name in ("status", "quote", "plan", "rebalance", "swap", "run", "history", "explain", "pnl", "doctor", "pause", "resume", "weights")
} | {"proposal": "proposals"}
