"""Table [tax]: lot rule, reporting currency, and yearly limit of realised gains."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from agent.accounting.export import RateTable, parse_rates
from agent.config.fields import ConfigTable, DecimalOrOff
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config.load import LoadedConfig

TEMPLATE = """\
[tax]                              # tax lots of a sale, and the gain allowed per year (docs/ledger.md)
method = "fifo"                    # or "lifo", "hifo", "average"
year_limit = "off"                 # realised gain of a year in the numeraire: sales beyond it are reduced or deferred, except exits
# currency = "EUR"                 # to report in another currency: rates is a CSV file of time,rate, units per numeraire coin
# rates = "eur.csv"
"""


class TaxTable(ConfigTable):
    """Tax settings. `rates` is a CSV file of time,rate: units of `currency` per coin of the
    numeraire. `year_limit` is in that currency, else in the numeraire.
    """

    method: Literal["fifo", "lifo", "hifo", "average"]
    year_limit: DecimalOrOff
    currency: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,16}$")
    rates: str | None = None

    @model_validator(mode="after")
    def _together(self) -> TaxTable:
        if (self.currency is None) != (self.rates is None):
            raise ValueError(
                'currency and rates must be given together: write currency = "EUR" and rates = "eur.csv", or'
                " neither"
            )
        return self


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
