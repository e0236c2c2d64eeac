"""Backtest every template on the packaged prices, for agent/backtest/sample/templates.json.

.venv/bin/python scripts/past_results.py            compares; exit code 1 if a result differs
.venv/bin/python scripts/past_results.py --write    rewrites the file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.app.research.past_results import computed_template_result
from agent.app.start.past_results import RESULTS_FILE
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES


def main() -> int:
    """Compare or write the results."""
    results = {
        name: computed_template_result(template) for name, template in PORTFOLIO_TEMPLATES.items()
    }
    text = json.dumps(results, indent=1) + "\n"
    if "--write" in sys.argv:
        RESULTS_FILE.write_text(text, encoding="utf-8")
        return 0
    return int(RESULTS_FILE.read_text(encoding="utf-8") != text)


if __name__ == "__main__":
    sys.exit(main())
