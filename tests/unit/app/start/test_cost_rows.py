"""Costs of a new config as rows with one figure each: the figures are those of the lines that the terminal shows."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest

from agent.app.documents.status import coins_text
from agent.app.start.capital import draft_config
from agent.app.start.cost_rows import DOLLAR, too_little_lines
from agent.app.start.guide import InitAnswers, baskets
from agent.app.start.setup import find_preset
from agent.app.start.tracking_losses import first_purchase_lines
from agent.config.schema import Config
from agent.config.writing.portfolio_templates import find_template, template_targets
from tests.support.commands.init import WALLET

NUMBER = re.compile(r"[\d,]*\d(?:\.\d+)?")


def answers(network: str = "base", basket: str = "small", cash: str = "500") -> InitAnswers:
    with_wallet = InitAnswers().with_network(network).with_wallet(WALLET).with_endpoints("A=alpha B=beta")
    return with_wallet.with_basket(basket, baskets(network)).with_cash(cash)


def config_of(network: str, basket: str) -> Config:
    preset = find_preset(network)
    template = find_template(basket)
    return draft_config(template, preset, template_targets(template, preset))


def figures(rows: Any) -> dict[str, str]:
    return {row["name"]: row["figure"] for row in rows}


def test_rows__have_one_figure_each() -> None:
    costs = answers().costs()
    assert figures(costs["rows"]) == {
        "First purchase": "about 0.24 USDC",
        "A year at the gas price of quiet days": "about 0.10 USDC",
        "A year at the gas price of ordinary days": "about 0.11 USDC",
        "A year at the gas price of busy days": "not worth it",
        "A year of costs and drift": "about 0.19 USDC",
        "The same, in a year as wild as 2021": "about 0.1 % a year",
        "A year, measured": "1.33 USDC",
    }
    assert list(figures(costs["triggers"]))[:2] == ["tracking", "relative 10 %"]
    assert figures(costs["assumptions"])["Volatility of WETH"] == "65 %"
    for row in [*costs["rows"], *costs["triggers"], *costs["assumptions"]]:
        assert len(NUMBER.findall(row["figure"])) <= 1, row
    assert costs["alarms"] == []


def in_bps(text: str) -> str:
    """Return a text with its percent of a year in basis points, as the terminal has them."""
    return re.sub(r"([\d.]+) % a year", lambda match: f"{float(match[1]) * 100:,.4g} bps a year", text)


@pytest.mark.parametrize(
    ("network", "basket", "cash"),
    [
        pytest.param("base", "small", "500", id="small on base"),
        pytest.param("ethereum", "moderate", "3000", id="moderate on ethereum"),
        pytest.param("ethereum", "60/40", "all", id="60/40 on ethereum, all"),
    ],
)
def test_every_number_of_the_rows__is_in_the_lines_of_the_terminal(network: str, basket: str, cash: str) -> None:
    new_config = answers(network, basket, cash)
    lines = set(NUMBER.findall(" ".join(new_config.year_costs())))
    costs = new_config.costs()
    rows = [*costs["rows"], *costs["triggers"], *costs["assumptions"]]
    money_of_the_loss = {row["figure"] for row in rows if row["name"] == "A year of costs and drift"}  # 0.2 there, 0.18 here
    texts = [in_bps(text) for row in rows for text in (row["figure"], row["note"]) if text not in money_of_the_loss]
    assert set(NUMBER.findall(" ".join([*costs["alarms"], *texts]))) <= lines


def test_amount_below_the_minimum__is_an_alarm_with_what_to_change() -> None:
    costs = answers("ethereum", "moderate", "3000").costs()
    assert costs["alarms"] == ["With 3,000 USDC: not worth it here at 1 gwei and an assumed pool fee of 0.3 %, only from 19,380 USDC."]
    assert any(note.startswith("To make it worth it: ") for note in costs["notes"])
    assert figures(costs["rows"])["A year at the gas price of ordinary days"] == "not worth it"


@pytest.mark.parametrize(
    ("network", "basket", "least_usd"),
    [
        pytest.param("ethereum", "60/40", 8_000_000, id="60/40 on ethereum"),
        pytest.param("base", "market-cap", 5_000_000, id="market-cap on base"),
        pytest.param("base", "small", 8_000_000, id="small on base"),
    ],
)
def test_cash_too_large_for_the_pools__is_said(network: str, basket: str, least_usd: int) -> None:
    config = config_of(network, basket)
    (line,) = first_purchase_lines(config, DOLLAR, Fraction(least_usd))
    assert line == (
        f"With {least_usd:,} USDC the pools are too small: by estimate the first purchase, at once, would lose more than a"
        " tenth of it in them. Enter less cash."
    )
    assert first_purchase_lines(config, DOLLAR, Fraction(least_usd - 1_000_000))[0].startswith("The first purchase, from USDC alone")


@pytest.mark.parametrize(
    ("network", "basket", "least_cents"),
    [
        pytest.param("base", "small", 3_334, id="small on base"),
        pytest.param("ethereum", "60/40", 3_334, id="60/40 on ethereum"),
        pytest.param("base", "moderate", 5_000, id="moderate on base"),
    ],
)
def test_cash_too_little_to_trade__is_said(network: str, basket: str, least_cents: int) -> None:
    config = config_of(network, basket)
    (line,) = too_little_lines(config, Fraction(least_cents - 1, 100))
    assert line == (
        f"With {coins_text(Fraction(least_cents - 1, 100))} USDC nothing is traded: each target must be worth 10 USDC"
        " (limits.min_trade). Enter more cash: a config written with this amount does not trade."
    )
    assert too_little_lines(config, Fraction(least_cents, 100)) == []


@pytest.mark.parametrize(
    ("cash", "said"),
    [
        pytest.param("20", "With 20 USDC nothing is traded: ", id="too little"),
        pytest.param("1000000000", "With 1,000,000,000 USDC the pools are too small: ", id="too much"),
    ],
)
def test_cash_that_cannot_be_traded__is_an_alarm_and_a_line(cash: str, said: str) -> None:
    new_config = answers("base", "small", cash)
    costs = new_config.costs()
    assert costs["alarms"][0].startswith(said)
    assert costs["alarms"][0] in new_config.year_costs()
    assert "First purchase" not in figures(costs["rows"])


@pytest.mark.parametrize("network", [pytest.param("base", id="base"), pytest.param("ethereum", id="ethereum")])
def test_cash_too_little__has_the_figure_of_one_alarm(network: str) -> None:
    assert [alarm.partition(" USDC")[0] for alarm in answers(network, "small", "20").costs()["alarms"]] == ["With 20", "With 20"]
    assert [" from " in alarm for alarm in answers(network, "small", "20").costs()["alarms"]] == [False, True]


def test_cash_too_little__has_its_figure_without_plan_cost() -> None:
    config = config_of("base", "small")
    unbounded = config.model_copy(update={"limits": config.limits.model_copy(update={"plan_cost": None})})
    assert "33.34 USDC or more are needed" in too_little_lines(unbounded, Fraction(20))[0]


def test_large_figures__have_separators() -> None:
    rows = figures(answers("ethereum", "60/40", "3000000").costs()["rows"])
    assert [rows["First purchase"], rows["A year of costs and drift"]] == ["about 120,000 USDC", "about 1,300 USDC"]


def test_portfolio_that_trades_nothing__has_no_purchase_and_no_loss() -> None:
    costs = answers(basket="WETH=0% USDC=100%").costs()
    assert all(name.endswith(" days") for name in figures(costs["rows"]))
    assert (costs["triggers"], costs["assumptions"]) == ([], [])
