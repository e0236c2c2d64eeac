"""Exchange rates and yearly limit from [tax]."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from agent.accounting.export import RateTable, parse_rates
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError


def read_rates(loaded: LoadedConfig) -> RateTable | None:
    """Return the rate table beside the config file; None if taxes are reported in the numeraire.
    Raises ConfigError.
    """
    tax = loaded.config.tax
    if tax is None or tax.rates is None:
        return None
    path = loaded.path.parent / tax.rates
    try:
        with path.open(encoding="utf-8") as file:
            return parse_rates(f"tax.rates {path.name}", file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"tax.rates: {path} cannot be read ({type(error).__name__})",
            "name a CSV file with lines time,rate",
        ) from None


def year_limit(text: str | None, decimals: int) -> Fraction | None:
    """Return the yearly gain limit in base units of the reporting currency; None if it is off."""
    return None if text is None else Fraction(Decimal(text)) * 10**decimals
