"""Which symbol may be the unit of prices without being named by --numeraire."""

from __future__ import annotations

from agent.errors import ConfigError
from agent.weights.asset_classes import is_cash


def require_unit_of_prices(symbol: str, remedy: str) -> None:
    """Raise ConfigError for a numeraire without prices that is no cash: its price is unknown, not
    one.
    """
    if not is_cash(symbol):
        raise ConfigError(
            f"numeraire: the file has no prices of {symbol}, and {symbol} is no known currency or"
            " stablecoin",
            remedy,
        )
