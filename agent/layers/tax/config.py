"""Table [tax]: lot rule, reporting currency, and yearly limit of realised gains."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from agent.config.tables.fields import ConfigTable, DecimalOrOff, Share
from agent.units import BPS, format_bps

TEMPLATE = """\
[tax]                              # tax lots of a sale, and the gain allowed per year (docs/ledger.md)
method = "fifo"                    # or "lifo", "hifo", "average"
year_limit = "off"                 # realised gain of a year in the numeraire: sales beyond it are reduced or deferred, except exits
# rate = "25%"                     # tax on realised gains, which a no-trade zone and trimtab tune then count as a cost
# currency = "EUR"                 # to report in another currency: rates is a CSV file of time,rate, units per numeraire coin
# rates = "eur.csv"
"""


class TaxTable(ConfigTable):
    """Taxes (docs/ledger.md)."""

    method: Literal["fifo", "lifo", "hifo", "average"]
    """Which lots a sale uses: oldest, newest, or most expensive first, or their average; default:
    without [tax] fifo.
    """
    year_limit: DecimalOrOff
    """Largest realised gain of a calendar year, in `currency`, else in the numeraire; "off": no
    limit.
    """
    rate: Share | None = None
    """Tax on realised gains, which counts as a cost in a no-trade zone and in `trimtab tune`;
    default: none.
    """
    currency: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,16}$")
    """Currency of the tax report; default: the numeraire."""
    rates: str | None = None
    """CSV file of time,rate: units of `currency` per coin of the numeraire."""

    @model_validator(mode="after")
    def _check_rates(self) -> TaxTable:
        if self.rate is not None and not 0 < self.rate <= BPS:
            raise ValueError(f"rate: {format_bps(self.rate)}; write above 0 % and at most 100 %")
        if (self.currency is None) != (self.rates is None):
            raise ValueError(
                'currency and rates must be given together: write currency = "EUR" and rates = "eur.csv", or'
                " neither"
            )
        return self
