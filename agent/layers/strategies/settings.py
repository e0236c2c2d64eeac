"""Settings of the strategies in a step's input, from [[strategies]] and [split]."""

from __future__ import annotations

from collections.abc import Iterator

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.config.strategies import build_split, with_allocators
from agent.layers.strategies.state import CapitalSplit
from agent.model import Portfolio


def build_settings(loaded_config: LoadedConfig, portfolio: Portfolio) -> CapitalSplit:
    """Return the strategies with their allocators. Raises ConfigError."""
    split = build_split(loaded_config.config)
    return (
        with_allocators(loaded_config.config, split, portfolio, loaded_config.path.parent)
        or CapitalSplit()
    )


def editable_keys(config: Config, _: Config) -> Iterator[str]:
    """Yield the keys of each strategy's share and weights."""
    for strategy in config.strategies:
        yield f"strategies.{strategy.name}.share"
        for symbol in strategy.weights or ():
            yield f"strategies.{strategy.name}.weights.{symbol}"
