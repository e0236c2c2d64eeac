"""User-defined signals: the types that a signal imports. `agent/layers/signals/host.py` runs them."""

from __future__ import annotations

from agent.model import PriceBar, Signal, SignalTargets, SignalView

__all__ = ["PriceBar", "Signal", "SignalTargets", "SignalView"]
