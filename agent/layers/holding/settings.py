"""Settings of the layer from [holding]."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.layers.holding.state import HoldingConfig
from agent.model import Portfolio
from agent.units import format_duration


def require_holding_symbols(config: Config) -> None:
    """Raise ValueError for a symbol that is no asset of the portfolio, or is the numeraire."""
    if config.holding is None:
        return
    numeraire = config.portfolio.numeraire
    allowed_symbols = [
        asset.symbol for asset in config.portfolio.assets if asset.symbol != numeraire
    ]
    for symbol in config.holding.assets or ():
        if symbol not in allowed_symbols:
            why = "the numeraire" if symbol == numeraire else "no asset of the portfolio"
            raise ValueError(
                f"holding.assets: {symbol} is {why}; choose from {', '.join(allowed_symbols)}"
            )


def build_settings(loaded_config: LoadedConfig, portfolio: Portfolio) -> HoldingConfig:
    """Return the tokens that are held after a purchase, by address, and for how many seconds."""
    table = loaded_config.config.holding
    if table is None:
        return HoldingConfig()
    held_symbols = {asset.symbol for asset in loaded_config.config.portfolio.assets}
    held_symbols &= set(held_symbols if table.assets is None else table.assets)
    held_tokens = (asset.token for asset in portfolio.assets if asset.token.symbol in held_symbols)
    numeraire = portfolio.numeraire.address
    return HoldingConfig(
        tuple(token.address for token in held_tokens if token.address != numeraire), table.hours
    )


def confirmed_settings(config: Config, portfolio: Portfolio) -> Mapping[str, str]:
    """Return the settings as the owner confirms them."""
    del portfolio
    if (table := config.holding) is None:
        return {}
    assets_text = (
        "all assets but the numeraire" if table.assets is None else ", ".join(table.assets)
    )
    return {"holding": f"{assets_text}: {format_duration(table.hours)} after a purchase"}
