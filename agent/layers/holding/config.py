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
    """Shortest time from an asset's last purchase to its sale (`hours`, in seconds once parsed),
    and the symbols of `assets` (default: all but the numeraire).
    """

    hours: Duration = Field(gt=0)
    assets: list[str] | None = Field(default=None, min_length=1)
