"""Settings of the layers in a step's input, from the config, and their text for the owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.layers.holding import settings as holding
from agent.layers.liquidity import settings as liquidity
from agent.layers.strategies import settings as strategies
from agent.layers.sweep import settings as sweep
from agent.layers.tax import settings as tax
from agent.model import LayerConfig, Portfolio, active_layer_parts

SETTINGS_BUILDERS: tuple[Callable[[LoadedConfig, Portfolio], LayerConfig], ...] = (
    strategies.build_settings,
    holding.build_settings,
)
"""Settings of a layer, by token address. Raise ConfigError."""
CONFIG_CHECKS: tuple[Callable[[Config], None], ...] = (
    holding.require_holding_symbols,
    sweep.require_payable_sweep,
    tax.require_rate_after_tax,
)
"""Rules that span tables, after all others. Raise ValueError for an invalid config."""
CONFIRMED_SETTINGS: tuple[Callable[[Config, Portfolio], Mapping[str, str]], ...] = (
    liquidity.confirmed_settings,
    holding.confirmed_settings,
    sweep.confirmed_settings,
)
"""Names and values of the settings that the owner confirms."""
EDITABLE_KEYS: tuple[Callable[[Config, Config], Iterator[str]], ...] = (
    strategies.editable_keys,
    liquidity.editable_keys,
)
"""Keys of targets of a layer, within its limits, that a control may change from the first config to
the second.
"""


def build_layer_settings(
    loaded_config: LoadedConfig, portfolio: Portfolio
) -> tuple[LayerConfig, ...]:
    """Return the settings of the layers that are on. Raises ConfigError."""
    return active_layer_parts(
        build_settings(loaded_config, portfolio) for build_settings in SETTINGS_BUILDERS
    )
