"""Numbers that people write, of a size that no portfolio has: each is refused at once, by its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.cli.research.portfolio_texts import parse_owner_transfer
from agent.config.tables.fields import parse_duration_s, parse_gas_price_wei
from agent.config.tables.pace import _parse_bps
from agent.config.tables.triggers import _parse_correlation, _parse_yearly_cost
from agent.errors import ConfigError
from agent.research.arguments import exact_amount
from agent.units import parse_bps, parse_raw, parse_share_with_unit_bps

READERS: dict[str, Callable[[str], object]] = {
    "share": lambda text: parse_bps(text, "target"),
    "percent": lambda text: parse_bps(f"{text}%", "target"),
    "share with unit": lambda text: parse_share_with_unit_bps(f"{text}bps", "limit"),
    "amount": lambda text: parse_raw(text, 18, "amount"),
    "duration": lambda text: parse_duration_s(f"{text}d"),
    "gas price": lambda text: parse_gas_price_wei(f"{text} gwei"),
    "transfer": lambda text: parse_owner_transfer(f"2021-03-01={text}"),
    "cost of a tracking error": lambda text: _parse_yearly_cost(f"{text}bps"),
    "correlation": lambda text: _parse_correlation(f"{text}%"),
    "amount from Python": lambda text: exact_amount(text, "value"),
}
"""The pace of gradual execution answers None instead: it tries several units."""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["1e400", "1e999999999", "1e-999999999", "9" * 5000, "0." + "0" * 5000 + "1"], ids=lambda text: text[:12])
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_number_of_absurd_size__is_refused(reader: Callable[[str], object], text: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=r"is not|is no|digits before|decimal places|--flow"):
        reader(text)


@pytest.mark.parametrize("text", ["1e400", "1e999999999", "9" * 5000])
def test_pace_of_absurd_size__has_no_unit(text: str) -> None:
    assert _parse_bps(f"{text}bps") is None


def test_number_of_ordinary_size__is_exact() -> None:
    assert parse_bps("1e-2", "target") == 100
    assert parse_owner_transfer("2021-03-01=1e6").amount == 10**6
    assert parse_duration_s("1.5d") == 129_600
