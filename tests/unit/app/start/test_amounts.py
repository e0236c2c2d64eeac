"""Amounts of a new config: its ceiling, and the imaginary cash that paper trading begins with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.settings.new_portfolios import next_commands
from agent.app.start.amounts import ceiling_of, paper_capital, parse_amount, require_ceiling, with_amounts
from agent.app.start.guide import InitAnswers, baskets
from agent.app.start.templates import templates
from agent.errors import ConfigError
from agent.fleet.paper_run import begin_on_paper
from agent.model.limits import ABOVE_CEILING_TEXT
from agent.units import parse_raw
from tests.support import agents
from tests.support.constants import WALLET
from tests.support.text import mentions, raises_field


@pytest.mark.parametrize("typed", ["500", "$500", "$ 500", "500 USDC", "500usdc", "500$", "500 $"])
def test_amount__is_taken_with_its_unit(typed: str) -> None:
    assert parse_amount(typed, "cash", "") == "500"
    assert parse_amount(typed.replace("500", "1,500.25"), "cash", "") == "1500.25"


@pytest.mark.parametrize(("largest", "beyond"), [("0.000001", "0.0000009"), ("1000000000", "1000000000.000001"), ("1.000001", "1.0000001")])
def test_amount__is_whole_in_the_smallest_part_and_tradable(largest: str, beyond: str) -> None:
    assert parse_amount(largest, "cash", "") == largest
    with raises_field("cash", repr(beyond)):
        parse_amount(beyond, "cash", "write 1000, or all")


@pytest.mark.parametrize(
    "typed", ["500 ETH", "€500", "$", "USDC", "$0", "5 00", "-500", "$-500", "1,5", "0,500", "500 USDC USDC", "５００"]
)
def test_amount__of_another_unit_is_refused(typed: str) -> None:
    with raises_field("cash", repr(typed)):
        parse_amount(typed, "cash", "write 1000, or all")


@pytest.mark.parametrize(
    ("typed", "remedy"), [("5.000", "write 5000 or 5"), ("$12.500", "write 12500 or 12.5"), ("1.234 USDC", "write 1234 or 1.234")]
)
def test_amount__with_a_point_between_thousands_is_refused(typed: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match="may have a point between thousands") as refusal:
        parse_amount(typed, "cash", "write 1000, or all")
    assert refusal.value.remedy == remedy


@pytest.mark.parametrize("typed", ["5,000.50", "5,000.500", "0.500", "1234.567", "5.00"])
def test_amount__with_a_decimal_point_is_taken(typed: str) -> None:
    assert parse_amount(typed, "cash", "") == typed.replace(",", "")
    assert parse_amount("1.500", "--use-cash", "", "WETH") == "1.500", "of a coin that is no money"


@pytest.mark.parametrize(
    "field", ["cash", "ceiling", "--use-cash", "--ceiling", "--value"], ids=["cash", "ceiling", "cash-option", "ceiling-option", "value"]
)
def test_amount__beyond_the_pools_is_refused_in_each_field(tmp_path: Path, field: str) -> None:
    answers = InitAnswers(wallet=WALLET, endpoints=(("A", "a"), ("B", "b")), template="moderate")
    ways: dict[str, Callable[[str], object]] = {
        "cash": answers.with_cash,
        "ceiling": answers.with_ceiling,
        "--use-cash": lambda text: replace(answers, use_cash=text).write(tmp_path / "new.toml"),
        "--ceiling": lambda text: replace(answers, max_live_value=text).write(tmp_path / "new.toml"),
        "--value": lambda text: templates("base", text),
    }
    with raises_field(field, "'100000000000' is more than"):
        ways[field]("100000000000")
    with raises_field(field, "'5.000' may have a point between thousands"):
        ways[field]("5.000")


def test_ceiling__of_the_most_cash_can_be_typed() -> None:
    answers = InitAnswers().with_network("base").with_cash("1,000,000,000")
    assert answers.with_ceiling(answers.ceiling).ceiling == "1500000000"


@pytest.mark.parametrize(("ceiling", "warns"), [("500", True), ("599", True), ("600", False), ("", False)])
def test_ceiling__with_little_room_above_the_cash_is_warned_of(ceiling: str, warns: bool) -> None:
    answers = InitAnswers().with_network("base").with_basket("moderate", baskets("base")).with_cash("500").with_ceiling(ceiling)
    assert any("750 would leave half as much more" in note for note in answers.costs()["notes"]) is warns


@pytest.mark.parametrize(
    ("use_cash", "ceiling", "capital"),
    [
        pytest.param("400", "1000", "400", id="cash of the config"),
        pytest.param(None, "1000", "666", id="two thirds of the ceiling"),
        pytest.param(None, "30", "20", id="small ceiling"),
        pytest.param(None, "75.3", "50.2", id="cents"),
        pytest.param(None, None, "666", id="no ceiling"),
        pytest.param(None, "149", "99.333333", id="below 100 coins"),
        pytest.param(None, "150", "100", id="from 100 coins on"),
        pytest.param(None, "0.05", "0.033333", id="coins worth more than a dollar"),
    ],
)
def test_paper_capital__leaves_room_below_the_ceiling(use_cash: str | None, ceiling: str | None, capital: str) -> None:
    assert paper_capital(use_cash, ceiling, "USDC") == capital


@pytest.mark.parametrize(
    ("use_cash", "ceiling", "cash_text"),
    [
        pytest.param("", "", "all USDC; on paper 666 USDC, two thirds of the ceiling", id="default ceiling"),
        pytest.param("", "30", "all USDC; on paper 20 USDC, two thirds of the ceiling", id="small ceiling"),
        pytest.param("400", "", "400 USDC", id="cash of the config"),
    ],
)
def test_answered_cash__names_that_of_paper(use_cash: str, ceiling: str, cash_text: str) -> None:
    assert InitAnswers().with_network("base").with_cash(use_cash).with_ceiling(ceiling).texts["cash"] == cash_text


@pytest.mark.parametrize(
    ("numeraire", "use_cash", "ceiling", "capital"),
    [
        pytest.param("WETH", None, None, "", id="ether"),
        pytest.param("WBTC", None, None, "", id="bitcoin"),
        pytest.param("EURC", None, None, "", id="euros"),
        pytest.param("WETH", None, "3", "2", id="ether with a ceiling"),
        pytest.param("WETH", "2", None, "2", id="ether with cash"),
        pytest.param("DAI", None, None, "666", id="another dollar"),
    ],
)
def test_paper_capital__is_unknown_without_amounts_of_a_coin(
    numeraire: str, use_cash: str | None, ceiling: str | None, capital: str
) -> None:
    """The default ceiling is one of dollars."""
    assert paper_capital(use_cash, ceiling, numeraire) == capital


def coins_without_ceiling(folder: Path) -> str:
    """Return a config that counts WETH and has neither cash nor ceiling."""
    path = agents.config(folder, numeraire="WETH")
    path.write_text(re.sub('^max_live_value = "[^"]*"', 'max_live_value = "off"', path.read_text(), flags=re.M))
    return str(path)


def test_portfolio_without_amounts__begins_no_paper_trading_by_itself(tmp_path: Path) -> None:
    config = coins_without_ceiling(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        begin_on_paper(config)
    assert mentions(refusal.value.message, "portfolio.use_cash", "WETH")
    assert any(line.endswith("--value AMOUNT") for line in next_commands(config)["next"])


@pytest.mark.parametrize("ceiling", ["20", "50", "100", "125", "140", "149", "1000"])
def test_paper_capital__is_an_amount_of_the_numeraire(ceiling: str) -> None:
    assert 0 < parse_raw(paper_capital(None, ceiling, "USDC"), 6, "cash") < int(ceiling) * 10**6


def test_ceiling__of_eight_decimal_coins_is_an_amount_of_them() -> None:
    assert ceiling_of("1.23456789", Fraction(60_000)) == "1.851852"


@pytest.mark.parametrize(("use_cash", "ceiling"), [("500", None), ("500.01", "751")])
def test_ceiling__is_written_only_beyond_the_default(use_cash: str, ceiling: str | None) -> None:
    assert ceiling_of(use_cash, Fraction(4, 3)) == ceiling


@pytest.mark.parametrize(("use_cash", "ceiling"), [("500", "750"), ("3000", "4500"), ("1.5", "2.25")])
def test_ceiling__below_the_cash_is_refused_with_room_for_gains(use_cash: str, ceiling: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        require_ceiling(use_cash, "1")
    assert refusal.value.remedy == f"write {ceiling}, or use less cash"


@pytest.mark.parametrize("text", ["2000", "two", "0", "1,5"])
def test_guided_ceiling__is_refused_under_the_name_of_its_question(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        InitAnswers(use_cash="3000").with_ceiling(text)
    assert refusal.value.message.startswith("ceiling: ")


@pytest.mark.parametrize("line", ['max_live_value = "1000" #', 'payout_per_day = "1000" #', '# use_cash = "1000" #'])
def test_amounts__are_written_or_the_config_is_refused(line: str) -> None:
    lines = ['max_live_value = "1000" #', 'payout_per_day = "1000" #', '# use_cash = "1000" #']
    assert with_amounts("\n".join(lines), "40", "50").count('"50"') == 2
    lines[lines.index(line)] = line.replace(' "', ' 9 "')
    with pytest.raises(ConfigError, match=line.removeprefix("# ").split()[0]):
        with_amounts("\n".join(lines), "40", "50")


@pytest.mark.parametrize(("use_cash", "is_warned"), [("", True), ("500", False)], ids=["all", "a part"])
def test_ceiling__beside_all_cash_is_named_with_what_it_does(use_cash: str, is_warned: bool) -> None:
    answers = InitAnswers(wallet=WALLET, endpoints=(("A", "a"), ("B", "b")), template="60/40", use_cash=use_cash)
    notes = " ".join(answers.costs()["notes"])
    assert (f"1,000 is the ceiling: above it {ABOVE_CEILING_TEXT}." in notes) is is_warned
