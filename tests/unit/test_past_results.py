"""Past results of baskets: the stored ones are what a backtest on the packaged prices gives, and a basket without prices has none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from agent.app.research.backtests import sample_files
from agent.app.research.past_results import computed_template_result, past_result_or_reason
from agent.app.start.past_results import stored_results, template_result
from agent.config.load import load_config
from agent.config.networks.presets import PRESETS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES, template_targets
from agent.errors import ConfigError
from tests.support.agents import config
from tests.support.text import mentions


def test_every_template_has_a_stored_result_on_the_networks_whose_tokens_have_packaged_prices() -> None:
    results = stored_results()
    assert list(results) == list(PRESETS)
    assert list(results["base"]) == ["60/40", "stable-reserve", "small"], "the packaged prices lack AERO"
    assert all(list(of) == list(PORTFOLIO_TEMPLATES) for network, of in results.items() if network != "base")
    for found in (result for of in results.values() for result in of.values()):
        assert (found["from"], found["until"]) == ("2021-01-01", "2021-12-31")
        assert found["rebalances"] > 0
        assert float(found["costs"]) > 0
        drawdowns = [float(found["max_drawdown"]), float(found["max_drawdown_of_holding"])]
        assert -1 < min(drawdowns) <= max(drawdowns) < float(found["worst_month_return"]) + 0.001 < 0


@pytest.mark.parametrize("network", PRESETS)
def test_what_holding_a_basket_returned_follows_from_the_packaged_prices_alone(network: str) -> None:
    """An own calculation: shares of the first day at the prices of the last, and of the last days of two months."""
    days = list(csv.DictReader(sample_files()[0].open()))
    coins = {"WETH": "ETH", "WBTC": "BTC", "BTCB": "BTC"}
    for name, found in stored_results()[network].items():
        targets = [(coins.get(symbol, symbol), share) for symbol, share in template_targets(PORTFOLIO_TEMPLATES[name], PRESETS[network])]
        numeraire = [float(day["USDC"]) for day in days]
        values = [
            sum(float(share[:-1]) * float(day[coin]) / float(days[0][coin]) for coin, share in targets) / dollar
            for day, dollar in zip(days, numeraire, strict=True)
        ]
        assert f"{values[-1] / values[0] - 1:.6f}"[:-2] == found["return_of_holding"], name
        month = [number for number, day in enumerate(days) if day["time"].startswith(found["worst_month"])]
        assert f"{values[month[-1]] / values[month[0] - 1] - 1:.4f}" == found["worst_month_return_of_holding"], name


def test_a_basket_without_packaged_prices_says_which_are_missing(tmp_path: Path) -> None:
    found, why = past_result_or_reason(load_config(config(tmp_path, targets="WETH=50% DAI=20% USDC=30%")))
    assert found is None
    assert mentions(why, "DAI")


def test_a_stored_result_is_that_of_this_version() -> None:
    assert computed_template_result(PORTFOLIO_TEMPLATES["small"], PRESETS["base"]) == template_result("base", "small")


@pytest.mark.slow
@pytest.mark.parametrize("network", PRESETS)
@pytest.mark.parametrize("name", PORTFOLIO_TEMPLATES)
def test_the_stored_results_are_those_of_this_version(name: str, network: str) -> None:
    stored = template_result(network, name)
    if stored is None:
        with pytest.raises(ConfigError, match="lack AERO"):
            computed_template_result(PORTFOLIO_TEMPLATES[name], PRESETS[network])
    else:
        assert computed_template_result(PORTFOLIO_TEMPLATES[name], PRESETS[network]) == stored
