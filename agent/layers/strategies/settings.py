"""Settings of the strategies in a step's input, from [[strategies]] and [split]."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.config.strategies import build_split, with_allocators
from agent.layers.strategies.state import CapitalSplit
from agent.model import Portfolio


def build_settings(loaded: LoadedConfig, portfolio: Portfolio) -> CapitalSplit:
    """Return the strategies with their allocators. Raises ConfigError."""
    split = build_split(loaded.config)
    return with_allocators(loaded.config, split, portfolio, loaded.path.parent) or CapitalSplit()


def editable_keys(before: Config, _: Config) -> Iterator[str]:
    """Yield the keys of each strategy's share and weights."""
    for strategy in before.strategies:
        yield f"strategies.{strategy.name}.share"
        for symbol in strategy.weights or ():
            yield f"strategies.{strategy.name}.weights.{symbol}"
