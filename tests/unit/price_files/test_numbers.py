"""Prices of a column: exact, and of a size that prices have."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agent.errors import ConfigError
from agent.price_files.numbers import parse_prices


@pytest.mark.parametrize("text", ["1" + "0" * 30, "0." + "0" * 29 + "1"])
def test_price_of_thirty_powers_of_ten_is_read(text: str) -> None:
    assert parse_prices([text], [2], "row {}".format, "BTC") == [Decimal(text)]


@pytest.mark.parametrize("text", ["1" + "0" * 31, "0." + "0" * 30 + "1"])
def test_price_of_one_power_more_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a price of BTC"):
        parse_prices([text], [2], "row {}".format, "BTC")
