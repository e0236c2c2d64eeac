"""Settings of the strategies in a step's input, from [[strategies]] and [split]."""

from __future__ import annotations

from agent.config.loaded import LoadedConfig
from agent.config.strategies import build_split, with_allocators
from agent.layers.strategies.state import CapitalSplit
from agent.model import Portfolio


def build_settings(loaded: LoadedConfig, portfolio: Portfolio) -> CapitalSplit:
    """Return the strategies with their allocators. Raises ConfigError."""
    split = build_split(loaded.config)
    return with_allocators(loaded.config, split, portfolio, loaded.path.parent) or CapitalSplit()
