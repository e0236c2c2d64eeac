"""Build hook of the wheel: takes the pages of docs/ along, which trimtab mcp serves, and Plotly's
bundle where contracts/node_modules has it, so that reports need no npm at run time.
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
        if version != "standard":
            return
        root, included = Path(self.root), build_data["force_include"]
        for page in root.glob("docs/*.md"):
            included[str(page)] = f"agent/_data/docs/{page.name}"
        if (root / BUNDLE).is_file():
            included[str(root / BUNDLE)] = "agent/_data/plotly-basic.min.js"
