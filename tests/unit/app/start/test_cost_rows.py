"""Costs of a new config as rows with one figure each: the figures are those of the lines that the terminal shows."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agent.app.start.guide import InitAnswers, baskets
from tests.support.commands.init import WALLET

NUMBER = re.compile(r"[\d,]*\d(?:\.\d+)?")


def answers(network: str = "base", basket: str = "small", cash: str = "500") -> InitAnswers:
    with_wallet = InitAnswers().with_network(network).with_wallet(WALLET).with_endpoints("A=alpha B=beta")
    return with_wallet.with_basket(basket, baskets(network)).with_cash(cash)


def figures(rows: Any) -> dict[str, str]:
    return {row["name"]: row["figure"] for row in rows}


def test_rows__have_one_figure_each() -> None:
    costs = answers().costs()
    assert figures(costs["rows"]) == {
        "First purchase": "about 0.24 USDC",
        "A year of quiet days": "about 0.10 USDC",
        "A year of ordinary days": "about 0.11 USDC",
        "A year of busy days": "not worth it",
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
    assert costs["alarms"] == ["With 3,000 USDC: not worth it here at 1 gwei and a pool fee of 0.3 %, only from 19,380 USDC."]
    assert any(note.startswith("To make it worth it: ") for note in costs["notes"])
    assert figures(costs["rows"])["A year of ordinary days"] == "not worth it"


@pytest.mark.parametrize("cash", ["10000000", "100000000", "1000000000"])
def test_amount_above_what_pools_take__is_an_alarm_and_no_estimate(cash: str) -> None:
    new_config = answers("ethereum", "60/40", cash)
    costs = new_config.costs()
    assert costs["alarms"][0].startswith(f"With {int(cash):,} USDC the pools")
    assert "the pools are too small: the first purchase would lose more than a tenth of it in them." in costs["alarms"][0]
    assert "First purchase" not in figures(costs["rows"])
    assert any("the pools are too small" in line for line in new_config.year_costs())
    assert not any("in pools" in line for line in new_config.year_costs())


@pytest.mark.parametrize(("network", "basket"), [("base", "small"), ("ethereum", "60/40"), ("base", "moderate")])
def test_amount_that_is_never_traded__is_an_alarm_with_the_least(network: str, basket: str) -> None:
    alarms = answers(network, basket, "2").costs()["alarms"]
    least_text = re.findall(r"With 2 USDC nothing is traded: at least ([\d.,]+) USDC is needed", " ".join(alarms))[0]
    assert alarms[0].endswith("Enter more cash.")
    enough = answers(network, basket, least_text.replace(",", "")).costs()["alarms"]
    assert not any("nothing is traded" in alarm for alarm in enough)


def test_portfolio_that_trades_nothing__has_no_purchase_and_no_loss() -> None:
    costs = answers(basket="WETH=0% USDC=100%").costs()
    assert all(name.endswith(" days") for name in figures(costs["rows"]))
    assert (costs["triggers"], costs["assumptions"]) == ([], [])
