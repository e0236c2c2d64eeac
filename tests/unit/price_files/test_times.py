"""Unix times of a column: of any unit, from the earliest year to the last."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.price_files.times import EARLIEST_S, LATEST_S, parse_times


@pytest.mark.parametrize("units_per_s", [1, 1_000])
def test_first_and_last_unix_times_are_read(units_per_s: int) -> None:
    cells = [EARLIEST_S * units_per_s, LATEST_S * units_per_s - 1]
    assert parse_times(cells, [2, 3], "prices.csv").times_s == [EARLIEST_S, LATEST_S - 1]


@pytest.mark.parametrize("units_per_s", [1, 1_000])
@pytest.mark.parametrize("at_s", [EARLIEST_S - 1, LATEST_S])
def test_unix_time_beside_these_is_refused(at_s: int, units_per_s: int) -> None:
    with pytest.raises(ConfigError, match="row 2"):
        parse_times([at_s * units_per_s], [2], "prices.csv")
