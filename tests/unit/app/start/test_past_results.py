"""What stored past results say of a template."""

from __future__ import annotations

import re

import pytest

from agent.app.start.past_results import past_falls_text
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES


@pytest.mark.parametrize(
    ("network", "template", "text"),
    [
        ("ethereum", "60/40", "Fell at worst by 34.90 % in 2021 and 46.52 % in 2022"),
        ("base", "60/40", "Fell at worst by 33.85 % in 2021 and 45.88 % in 2022"),
        ("base", "moderate", "Fell at worst by 41.49 % in 2021 and 53.02 % in 2022, with the tokens of Ethereum: those here lack prices"),
        (
            "chain.toml",
            "small",
            "Fell at worst by 36.42 % in 2021 and 41.84 % in 2022, with the tokens of Ethereum: those here lack prices",
        ),
        ("ethereum", "none", ""),
    ],
    ids=["own tokens", "a rollup", "without a result", "practice", "unknown"],
)
def test_past_falls__are_those_of_the_same_years(network: str, template: str, text: str) -> None:
    assert past_falls_text(network, template) == text


@pytest.mark.parametrize("template", PORTFOLIO_TEMPLATES)
def test_past_falls__are_of_the_same_years_on_each_card(template: str) -> None:
    for network in ("ethereum", "base", "chain.toml"):
        assert re.findall(" in ([0-9]{4})", past_falls_text(network, template)) == ["2021", "2022"]
