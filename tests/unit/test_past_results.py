"""Past results of baskets: the stored ones are what a backtest on the packaged prices gives, and a basket without prices has none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from agent.app.research.past_results import computed_small_result, computed_template_result, past_result_or_reason
from agent.app.start.past_results import SMALL_MONEY_FILE, template_result
from agent.config.load import load_config
from agent.config.networks import BASE
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from tests.support.agents import config
from tests.support.text import mentions


def test_every_template_has_a_stored_result() -> None:
    for name in PORTFOLIO_TEMPLATES:
        found = template_result(name)
        assert found is not None
        assert (found["from"], found["until"]) == ("2021-01-01", "2021-12-31")
        assert found["rebalances"] > 0
        assert float(found["costs"]) > 0
        ratios = [float(found[key]) for key in ("return", "return_of_holding", "max_drawdown", "max_drawdown_of_holding")]  # type: ignore[literal-required]
        assert all(map(math.isfinite, ratios))
        assert ratios[2] < 0
        assert ratios[3] < 0


def test_a_basket_without_packaged_prices_says_which_are_missing(tmp_path: Path) -> None:
    found, why = past_result_or_reason(load_config(config(tmp_path, targets="WETH=50% DAI=20% USDC=30%")))
    assert found is None
    assert mentions(why, "DAI")


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTFOLIO_TEMPLATES)
def test_the_stored_results_are_those_of_this_version(name: str) -> None:
    assert computed_template_result(PORTFOLIO_TEMPLATES[name]) == template_result(name)


@pytest.mark.slow
def test_the_stored_year_of_small_money_on_base_is_that_of_this_version() -> None:
    assert computed_small_result(BASE) == json.loads(SMALL_MONEY_FILE.read_text(encoding="utf-8"))["base"]
