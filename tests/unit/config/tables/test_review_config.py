"""Values that would take a protection away without saying so are refused by name."""

from __future__ import annotations

import pytest

from agent.config.load import parse_config
from tests.support.configs.samples import config_error, config_text
from tests.support.text import raises_field


def test_a_slippage_of_everything_is_refused() -> None:
    assert "any price" in config_error(('slippage = "0.3%"', 'slippage = "100%"'))


@pytest.mark.parametrize("window", ["0s", "29m"])
def test_a_short_mean_is_refused_where_strangers_trade(window: str) -> None:
    assert "twap_window" in config_error(('twap_window = "30m"', f'twap_window = "{window}"'))


@pytest.mark.parametrize("deadline", ["0s", "31m", "52w"])
def test_a_deadline_is_short(deadline: str) -> None:
    with raises_field("execution.deadline"):
        parse_config(config_text(('deadline = "90s"', f'deadline = "{deadline}"')))
