"""Build hook of the wheel: takes Plotly's bundle along where contracts/node_modules has it, so that
reports need no npm at run time.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLE = "contracts/node_modules/plotly.js-basic-dist-min/plotly-basic.min.js"


class WheelData(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's configs are not ours
    """Without the bundle the wheel is whole too: reports then take that of the package plotly,
    which is larger.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it packs; an editable install reads the checkout itself."""
        if version == "standard" and (path := Path(self.root) / BUNDLE).is_file():
            build_data["force_include"][str(path)] = "agent/_data/plotly-basic.min.js"
