"""Types of the layers' states, by which the codec reads a recorded step."""

from __future__ import annotations

from collections.abc import Mapping

from agent.layers.gradual.state import GradualState
from agent.model import LayerState

STATES: tuple[type[LayerState], ...] = (GradualState,)
MOVED: Mapping[str, Mapping[str, str]] = {
    "GradualState": {
        "campaign": "progress",
        "campaign_ended_s": "ended_s",
        "draw": "draw",
        "spent": "carried",
    }
}
"""Fields of History in steps recorded before a layer had its own state, by the state's type."""
