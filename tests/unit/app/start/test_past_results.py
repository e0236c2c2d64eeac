"""What stored past results say of a template."""

from __future__ import annotations

import pytest

from agent.app.start.past_results import past_falls_text
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES


@pytest.mark.parametrize(
    ("network", "template", "text"),
    [
        ("ethereum", "60/40", "Fell at worst by 66.76 % in 2018 and 46.52 % in 2022"),
        ("base", "60/40", "Fell at worst by 67.16 % in 2018 and 45.88 % in 2022"),
        ("base", "moderate", "Fell at worst by 53.02 % in 2022 and 41.49 % in 2021, with the tokens of Ethereum"),
        ("chain.toml", "small", "Fell at worst by 69.57 % in 2018 and 41.84 % in 2022, with the tokens of Ethereum"),
        ("ethereum", "none", ""),
    ],
    ids=["own tokens", "a rollup", "without a result", "practice", "unknown"],
)
def test_past_falls__are_the_two_largest_of_a_year(network: str, template: str, text: str) -> None:
    assert past_falls_text(network, template) == text


@pytest.mark.parametrize("template", PORTFOLIO_TEMPLATES)
def test_past_falls__are_known_of_each_template_in_one_year(template: str) -> None:
    assert " in 2022" in past_falls_text("chain.toml", template)
