"""Types of the layers' states and settings, by which the codec reads a recorded step."""

from __future__ import annotations

from collections.abc import Mapping

from agent.layers.gradual.state import GradualState
from agent.layers.signals.state import SignalState
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.layers.tax.state import TaxState
from agent.model import LayerConfig, LayerState

STATES: tuple[type[LayerState], ...] = (GradualState, StrategiesState, TaxState, SignalState)
CONFIGS: tuple[type[LayerConfig], ...] = (CapitalSplit,)
MOVED: Mapping[str, Mapping[str, str]] = {
    "GradualState": {
        "campaign": "progress",
        "campaign_ended_s": "ended_s",
        "draw": "draw",
        "spent": "carried",
    },
    "StrategiesState": {"sleeves": "books"},
    "TaxState": {"tax": "inputs"},
    "SignalState": {"signals": "answers"},
}
"""Fields of History in steps recorded before a layer had its own state, by the state's type."""
MOVED_CONFIGS: Mapping[str, str] = {"split": "CapitalSplit"}
"""The same for the fields of a step's input: each has become the settings of this type."""
