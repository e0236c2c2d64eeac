"""Build hook of the wheel: includes the pages of docs/, which `trimtab mcp` serves, their site if `make
docs` has built it, which `trimtab docs` serves, and Plotly's bundle if contracts/node_modules has it, so
that reports need no npm at run time.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SITE = "build/site"
BUNDLE = "contracts/node_modules/plotly.js-basic-dist-min/plotly-basic.min.js"


class WheelData(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's configs are not ours
    """Adds the files to the wheel. Without Plotly's bundle the wheel is complete too: reports then use
    the larger one of the package plotly.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; hatchling calls this before packing. An editable install reads the checkout."""
        if version != "standard":
            return
        root = Path(self.root)
        included_files = build_data["force_include"]
        for page in root.glob("docs/*.md"):
            included_files[str(page)] = f"agent/_data/docs/{page.name}"
        if (root / SITE / "index.html").is_file():
            included_files[str(root / SITE)] = "agent/_data/site"
        if (root / BUNDLE).is_file():
            included_files[str(root / BUNDLE)] = "agent/_data/plotly-basic.min.js"
