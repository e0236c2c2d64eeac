"""Table [sweep]: which profit leaves the portfolio, where to, and when."""

from __future__ import annotations

from agent.config.tables.fields import Address, ConfigTable, Duration, PlainDecimal

TEMPLATE = """\
# [sweep]                          # profit beyond an amount goes to a cold address on a schedule (docs/sweep.md)
# to = "0x…"                       # one of wallet.payout_addresses
# above = "500"                    # profit that stays in the portfolio, in coins of the numeraire
# least = "50"                     # smallest payment
# every = "28d"                    # or cron = "0 9 1 * *" with timezone = "Europe/Berlin"
"""


class SweepTable(ConfigTable):
    """Profit that is paid to a cold address (docs/sweep.md)."""

    to: Address
    """Recipient; one of wallet.payout_addresses."""
    above: PlainDecimal
    """Profit that stays in the portfolio, coins of the numeraire."""
    least: PlainDecimal
    """Smallest payment, coins of the numeraire."""
    every: Duration | None = None
    """Time from one sweep to the next, 30m to 28d; or `cron`."""
    cron: str | None = None
    """Five-field cron time of a sweep, in place of `every`."""
    timezone: str | None = None
    """Zone of cron times, such as Europe/Berlin."""
