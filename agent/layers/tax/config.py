"""Table [tax]: lot rule, reporting currency, and yearly limit of realised gains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.tables.fields import ConfigTable, DecimalOrOff

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
    def _require_both(self) -> TaxTable:
        if (self.currency is None) != (self.rates is None):
            raise ValueError(
                'currency and rates must be given together: write currency = "EUR" and rates = "eur.csv", or'
                " neither"
            )
        return self
