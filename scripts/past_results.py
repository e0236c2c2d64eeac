"""Backtest every template on the packaged prices, for agent/backtest/sample/templates.json, and 500
dollars in the template for small money on each rollup with ether, for small_money.json beside it.

.venv/bin/python scripts/past_results.py            compares; exit code 1 if a result differs
.venv/bin/python scripts/past_results.py --write    rewrites the files
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.app.research.past_results import computed_small_result, computed_template_result
from agent.app.start.past_results import RESULTS_FILE, SMALL_MONEY_FILE
from agent.config.networks import NETWORKS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.model import DataFee


def main() -> int:
    """Compare or write the results."""
    templates = {
        name: computed_template_result(template) for name, template in PORTFOLIO_TEMPLATES.items()
    }
    rollups = {
        network.name: computed_small_result(network)
        for network in NETWORKS
        if network.data_fee is not DataFee.PLAIN
    }
    texts = {
        file: json.dumps(results, indent=1) + "\n"
        for file, results in ((RESULTS_FILE, templates), (SMALL_MONEY_FILE, rollups))
    }
    if "--write" in sys.argv:
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
        return 0
    return int(any(file.read_text(encoding="utf-8") != text for file, text in texts.items()))


if __name__ == "__main__":
    sys.exit(main())
