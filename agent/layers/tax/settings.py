"""Exchange rates and yearly limit from [tax], and the rate that a trigger may need."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from agent.accounting.export import RateTable, parse_rates
from agent.config.loaded import LoadedConfig
from agent.config.schema import Config
from agent.errors import ConfigError
from agent.foreign_text import failure_words


def read_rates(loaded_config: LoadedConfig) -> RateTable | None:
    """Return the rate table beside the config file; None if taxes are reported in the numeraire.
    Raises ConfigError.
    """
    tax_table = loaded_config.config.tax
    if tax_table is None or tax_table.rates is None:
        return None
    rates_path = loaded_config.path.parent / tax_table.rates
    try:
        with rates_path.open(encoding="utf-8") as rates_file:
            return parse_rates(f"tax.rates {rates_path.name}", rates_file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"tax.rates: {rates_path} cannot be read: {failure_words(error)}",
            "name a CSV file with lines time,rate",
        ) from None


def require_rate_after_tax(config: Config) -> None:
    """Raise ValueError if the trigger counts a tax without a rate."""
    if getattr(config.policy.trigger, "after_tax", None) and (
        config.tax is None or config.tax.rate is None
    ):
        raise ValueError(
            'policy.trigger.after_tax: true, but tax.rate is missing; write rate = "25%" in [tax], or'
            " remove after_tax"
        )


def year_limit(limit_text: str | None, decimals: int) -> Fraction | None:
    """Return the yearly gain limit in base units of the reporting currency; None if it is off."""
    return None if limit_text is None else Fraction(Decimal(limit_text)) * 10**decimals
