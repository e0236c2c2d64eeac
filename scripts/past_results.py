"""Backtest every template on every network on the packaged prices, for agent/backtest/sample/baskets.json.

.venv/bin/python scripts/past_results.py            compares; exit code 1 if a result differs
.venv/bin/python scripts/past_results.py --write    rewrites the file
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.app.research.past_results import computed_template_result
from agent.app.start.past_results import BASKETS_FILE
from agent.config.networks.presets import PRESETS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.app.documents.owner import PastResultDocument


def result_or_none(network_and_template: tuple[str, str]) -> PastResultDocument | None:
    """Return the result of a template on a network; None if the packaged prices lack a token."""
    network, template = network_and_template
    try:
        return computed_template_result(PORTFOLIO_TEMPLATES[template], PRESETS[network])
    except ConfigError:
        return None


def computed_results() -> dict[str, dict[str, PastResultDocument]]:
    """Return the results by network and template."""
    pairs = [(network, template) for network in PRESETS for template in PORTFOLIO_TEMPLATES]
    results: dict[str, dict[str, PastResultDocument]] = {network: {} for network in PRESETS}
    with ProcessPoolExecutor() as pool:
        computed: Iterator[PastResultDocument | None] = pool.map(result_or_none, pairs)
        for (network, template), result in zip(pairs, computed, strict=True):
            if result is not None:
                results[network][template] = result
    return results


def main() -> int:
    """Compare or write the results."""
    text = json.dumps(computed_results(), indent=1) + "\n"
    if "--write" in sys.argv:
        BASKETS_FILE.write_text(text, encoding="utf-8")
        return 0
    return int(BASKETS_FILE.read_text(encoding="utf-8") != text)


if __name__ == "__main__":
    sys.exit(main())
