"""Amounts of a new config: its ceiling, and the imaginary cash that paper trading begins with."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.app.start.amounts import ceiling_of, paper_capital, require_ceiling, with_amounts
from agent.errors import ConfigError
from agent.units import parse_raw


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
    assert paper_capital(use_cash, ceiling) == capital


@pytest.mark.parametrize("ceiling", ["20", "50", "100", "125", "140", "149", "1000"])
def test_paper_capital__is_an_amount_of_the_numeraire(ceiling: str) -> None:
    assert 0 < parse_raw(paper_capital(None, ceiling), 6, "cash") < int(ceiling) * 10**6


def test_ceiling__of_eight_decimal_coins_is_an_amount_of_them() -> None:
    assert ceiling_of("1.23456789", Fraction(60_000)) == "1.851852"


@pytest.mark.parametrize(("use_cash", "ceiling"), [("500", "750"), ("3000", "4500"), ("1.5", "2.25")])
def test_ceiling__below_the_cash_is_refused_with_room_for_gains(use_cash: str, ceiling: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        require_ceiling(use_cash, "1")
    assert refusal.value.remedy == f"write {ceiling}, or use less cash"


@pytest.mark.parametrize("line", ['max_live_value = "1000" #', 'payout_per_day = "1000" #', '# use_cash = "1000" #'])
def test_amounts__are_written_or_the_config_is_refused(line: str) -> None:
    lines = ['max_live_value = "1000" #', 'payout_per_day = "1000" #', '# use_cash = "1000" #']
    assert with_amounts("\n".join(lines), "40", "50").count('"50"') == 2
    lines[lines.index(line)] = line.replace(' "', ' 9 "')
    with pytest.raises(ConfigError, match=line.removeprefix("# ").split()[0]):
        with_amounts("\n".join(lines), "40", "50")
