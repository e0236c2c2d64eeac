"""Config tables of the layers, and their text in a new config."""

from __future__ import annotations

from agent.config.tables.fields import ConfigTable
from agent.layers.holding.config import TEMPLATE as HOLDING_TEMPLATE
from agent.layers.holding.config import HoldingTable
from agent.layers.opinions.config import TEMPLATE as OPINIONS_TEMPLATE
from agent.layers.opinions.config import SecondOpinionsTable
from agent.layers.sweep.config import TEMPLATE as SWEEP_TEMPLATE
from agent.layers.sweep.config import SweepTable
from agent.layers.tax.config import TEMPLATE as TAX_TEMPLATE
from agent.layers.tax.config import TaxTable


class LayerTables(ConfigTable):
    """Tables of layers in a config; None: the layer is off."""

    tax: TaxTable | None = None
    """Taxes."""
    holding: HoldingTable | None = None
    """No quick sale after a purchase."""
    sweep: SweepTable | None = None
    """Profit that is paid to a cold address."""
    second_opinions: SecondOpinionsTable | None = None
    """Quotes of aggregators."""


TABLE_TEMPLATES: tuple[str, ...] = (
    TAX_TEMPLATE,
    HOLDING_TEMPLATE,
    SWEEP_TEMPLATE,
    OPINIONS_TEMPLATE,
)
"""Text of the tables in the config of `trimtab init`."""
