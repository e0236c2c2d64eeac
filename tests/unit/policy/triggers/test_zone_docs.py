"""docs/zone.md is true: its configs can be read, and its table is what the tracking rule says."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import parse_config
from agent.config.tables.triggers import is_zone
from tests.support.configs.samples import config_text
from tests.support.decisions.tracking_rules import one_coin_rule
from tests.support.pages_of_docs import FENCE, rows

PAGE = (Path(__file__).parents[4] / "docs" / "zone.md").read_text(encoding="utf-8")
TRACKING, RISK, ZONE = (block for language, block in FENCE.findall(PAGE) if language == "toml")


def with_policy(policy: str) -> str:
    """A config with this in place of its [policy]."""
    begin = config_text().index("[policy]")
    end = config_text().index("[limits]")
    return f"{config_text()[:begin]}{policy}\n{config_text()[end:]}"


@pytest.mark.parametrize("policy", [TRACKING, ZONE + 'cooldown = "1h"\nconfirm_blocks = 3\n'], ids=["tracking", "zone"])
def test_page__policies__can_be_read(policy: str) -> None:
    assert is_zone(parse_config(with_policy(policy)).policy.trigger)


@pytest.mark.parametrize("left_out", ["correlation =", "estimate ="])
def test_page__risk_table__can_be_read(left_out: str) -> None:
    """All but one of the two that do not go together, for the assets of the config."""
    lines = [line for line in RISK.splitlines() if not line.startswith((left_out, "correlations"))]
    risk = parse_config(with_policy(f"{TRACKING}\n" + "\n".join(lines))).policy.risk
    assert risk.volatilities == {"WETH": 8_000, "USDC": 50}
    assert (risk.estimate is None) == (left_out == "estimate =")


@pytest.mark.parametrize("row", [row for row in rows(PAGE) if row[0].endswith(" %") and row[3].startswith("±")], ids=" ".join)
def test_page_table_is_what_the_rule_says(row: list[str]) -> None:
    target, fee, gas_and_portfolio, edge, trigger = row
    gas = 0.0
    if gas_and_portfolio != "none":
        swap_gas, portfolio = gas_and_portfolio.replace(",", "").split(" of ")
        gas = float(swap_gas) / float(portfolio)
    rule = one_coin_rule(float(target.rstrip(" %")) / 100, float(fee.rstrip(" %")) * 100, gas)
    assert f"±{rule.edge * 100:.2f}" == edge
    assert f"±{rule.trigger * 100:.2f}" == trigger
