"""docs/zone.md is true: its config can be read, and its table is what the zone says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config.load import parse_config
from agent.config.tables.triggers import is_zone
from tests.test_docs import FENCE, rows
from tests.unit.test_config import text
from tests.unit.test_zone import standing, view

PAGE = (Path(__file__).parents[2] / "docs" / "zone.md").read_text(encoding="utf-8")
ROW = re.compile(r"(\d+) gwei")


def test_its_config_can_be_read() -> None:
    told, measured = [block for language, block in FENCE.findall(PAGE) if language == "toml"]
    begin, end = text().index("[policy]"), text().index("[limits]")
    config = parse_config(f"{text()[:begin]}{told}\n{text()[end:]}")
    assert is_zone(config.policy.trigger)
    assert config.policy.risk is not None
    assert config.policy.risk.correlations == {"WETH/USDC": 1_000}
    other = told[: told.index("[policy.risk]")] + measured.replace("\n# ", "\n")
    config = parse_config(f"{text()[:begin]}{other}\n{text()[end:]}")
    assert config.policy.risk is not None
    assert config.policy.risk.estimate is not None
    assert (config.policy.risk.estimate.window, config.policy.risk.volatilities) == (90 * 86_400, {"USDC": 50})


@pytest.mark.parametrize("row", [cells for cells in rows(PAGE) if ROW.match(cells[0])], ids=lambda cells: " ".join(cells[:3]))
def test_its_table_is_what_the_zone_says(row: list[str]) -> None:
    gwei, volatility, portfolio, back, beyond = row
    assert portfolio == "100,000"
    step = standing(gwei=gwei.removesuffix(" gwei"), risk={"volatilities": {"WETH": int(volatility.rstrip("%")) * 100}})
    found = view(step).intervals[0]
    assert f"{float(found.low):.2%}"[:-1] + f"-{float(found.high):.2%}"[:-1] + " %" == back
    assert f"{float(found.trigger_low):.2%}"[:-1] + f"-{float(found.trigger_high):.2%}"[:-1] + " %" == beyond
