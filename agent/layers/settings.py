"""Settings of the layers in a step's input, from the config, and their text for the owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.layers.holding import settings as holding
from agent.layers.liquidity import settings as liquidity
from agent.layers.strategies import settings as strategies
from agent.layers.sweep import settings as sweep
from agent.layers.tax import settings as tax
from agent.model import LayerConfig, Portfolio, active_layer_parts


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """What a layer makes of the config, and says of it to the owner."""

    build: Callable[[LoadedConfig, Portfolio], LayerConfig | None] = (
        lambda loaded_config, portfolio: None
    )
    """Settings of the layer in a step's input, by token address; None if it has none. Raises
    ConfigError.
    """
    check: Callable[[Config], None] = lambda config: None
    """Rules that span tables, after all others. Raises ValueError for an invalid config."""
    confirmed: Callable[[Config, Portfolio], Mapping[str, str]] = lambda config, portfolio: {}
    """Names and values of the settings that the owner confirms."""
    editable_keys: Callable[[Config, Config], Iterable[str]] = lambda before, after: ()
    """Keys of the layer's targets, within its limits, that a control may change from the first
    config to the second.
    """


LAYERS: tuple[LayerSettings, ...] = (
    LayerSettings(build=strategies.build_settings, editable_keys=strategies.editable_keys),
    LayerSettings(confirmed=liquidity.confirmed_settings, editable_keys=liquidity.editable_keys),
    LayerSettings(
        build=holding.build_settings,
        check=holding.require_holding_symbols,
        confirmed=holding.confirmed_settings,
    ),
    LayerSettings(check=sweep.require_payable_sweep, confirmed=sweep.confirmed_settings),
    LayerSettings(check=tax.require_rate_after_tax),
)
"""Each layer that reads the config, in the order in which the owner confirms settings."""


def build_layer_settings(
    loaded_config: LoadedConfig, portfolio: Portfolio
) -> tuple[LayerConfig, ...]:
    """Return the settings of the layers that are on. Raises ConfigError."""
    layer_configs = (layer.build(loaded_config, portfolio) for layer in LAYERS)
    return active_layer_parts(config for config in layer_configs if config is not None)


def editable_keys(config_before: Config, config_after: Config) -> set[str]:
    """Return the keys of the layers' targets that a control may change from one config to the
    other.
    """
    return {key for layer in LAYERS for key in layer.editable_keys(config_before, config_after)}
