"""Config tables of the layers, the checks that span tables, and their text in a new config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.config.fields import ConfigTable
from agent.layers.tax.config import TEMPLATE as TAX_TEMPLATE
from agent.layers.tax.config import TaxTable

if TYPE_CHECKING:
    from agent.config.schema import Config


class LayerTables(ConfigTable):
    """Tables of layers in a config; None: the layer is off."""

    tax: TaxTable | None = None


CHECKS: tuple[Callable[[Config], None], ...] = ()
"""Rules that span tables, after all others. Raise ValueError for an invalid config."""
TEMPLATES: tuple[str, ...] = (TAX_TEMPLATE,)
"""Text of the tables in the config of `trimtab init`."""
