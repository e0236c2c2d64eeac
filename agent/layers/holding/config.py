"""Table [holding]: how long an asset is held after a purchase."""

from __future__ import annotations

from pydantic import Field

from agent.config.tables.fields import ConfigTable, Duration

TEMPLATE = """\
# [holding]                        # rebalances do not sell what the agent has just bought (docs/holding.md)
# hours = "24h"                    # since the last purchase of an asset; exits and the owner's own sales do not wait
# assets = ["WETH"]                # default: all assets but the numeraire
"""


class HoldingTable(ConfigTable):
    """No quick sale after a purchase (docs/holding.md)."""

    hours: Duration = Field(gt=0)
    """Shortest time from an asset's last purchase to its sale by a rebalance, such as "24h"; parsed
    to seconds.
    """
    assets: list[str] | None = Field(default=None, min_length=1)
    """Symbols of assets that wait; default: all but the numeraire."""
