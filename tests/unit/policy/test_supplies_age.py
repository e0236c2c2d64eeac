"""Supplies from a file have a day: weights by market cap hold when it is too old, and say how old it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.model import AllocationMethod, TokenSupply
from agent.units import pluralize
from tests.support.builders import NOW_S, token
from tests.support.configs.weights import CAPS, allocator_config
from tests.support.decisions.chosen_weights import SUPPLIES, chosen_of, hold_reason
from tests.support.planning_worlds import DAY_S, allocator, moves, recorded, weighed
from tests.support.text import mentions

START_OF_DAY_S = NOW_S // DAY_S * DAY_S


def step_with_supply_age(days: int, max_age_days: int, symbol: str = "WBTC") -> object:
    """A step in which the supply of a token is of the day so many days ago."""
    at = token(symbol)
    as_of_s = START_OF_DAY_S - days * DAY_S
    valid_until_s = as_of_s + max_age_days * DAY_S if max_age_days else 0
    supply_entry = TokenSupply(at.address, 19_800_000 * 10**at.decimals, "supplies.csv of a day", as_of_s, valid_until_s)
    settings = allocator(AllocationMethod.MARKET_CAP, supplies=(supply_entry,))
    return weighed(settings, recorded(moves()), supplies=SUPPLIES)


@pytest.mark.parametrize(("days", "max_age_days"), [(0, 90), (89, 90), (400, 0), (400, 500), (1, 2)])
@pytest.mark.parametrize("symbol", ["WBTC", "LINK"])
def test_supply_within_its_age_counts_and_reports_it(days: int, max_age_days: int, symbol: str) -> None:
    sample_text = chosen_of(step_with_supply_age(days, max_age_days, symbol)).sample_text  # type: ignore[arg-type]
    assert mentions(sample_text, symbol, "supplies.csv", f", {pluralize(days, 'day')} old")


@pytest.mark.parametrize(("days", "max_age_days"), [(91, 90), (400, 90), (3, 2)])
@pytest.mark.parametrize("symbol", ["WBTC", "LINK"])
def test_supply_too_old_holds_and_names_the_token(days: int, max_age_days: int, symbol: str) -> None:
    assert mentions(hold_reason(step_with_supply_age(days, max_age_days, symbol)), symbol, f"{days} days old", "supplies_max_age")  # type: ignore[arg-type]


@pytest.mark.parametrize("days", [-2, -30, -4_000])
@pytest.mark.parametrize("max_age_days", [90, 0])
def test_supply_from_the_future_holds(days: int, max_age_days: int) -> None:
    assert mentions(hold_reason(step_with_supply_age(days, max_age_days)), "WBTC", "future")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "max_age_s"), [("", 90 * DAY_S), ('supplies_max_age = "30d"\n', 30 * DAY_S), ('supplies_max_age = "off"\n', 0)]
)
def test_config_has_the_age_of_supplies(tmp_path: Path, key: str, max_age_s: int) -> None:
    (tmp_path / "supplies.csv").write_text("symbol,supply,as_of\nWBTC,1,2026-11-01\nWETH,1,\n")
    built_allocator = allocator_config(CAPS + key, tmp_path)
    assert [supply.as_of_s for supply in built_allocator.supplies] == [1_793_491_200, 0]
    assert [supply.valid_until_s for supply in built_allocator.supplies] == [1_793_491_200 + max_age_s if max_age_s else 0, 0]


@pytest.mark.parametrize("as_of", ["2026-13-01", "2026-02-30", "0000-01-01", "1970-01-01", "1969-10-03"])
def test_config_refuses_an_impossible_day(tmp_path: Path, as_of: str) -> None:
    (tmp_path / "supplies.csv").write_text(f"symbol,supply,as_of\nWBTC,1,{as_of}\n")
    with pytest.raises(ConfigError, match="line 2: as_of"):
        allocator_config(CAPS, tmp_path)
