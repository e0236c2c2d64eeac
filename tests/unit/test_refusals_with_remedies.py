"""Every refusal of what is typed names its option and says what to write: nobody has to guess, and a machine finds it in `remedy`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config.fields import parse_address, parse_duration_s, parse_gas_price_wei
from agent.config.load import load_config, parse_config
from agent.config.triggers import parse_band
from agent.errors import ConfigError
from agent.units import parse_bps, parse_raw


@pytest.mark.parametrize(
    "typed",
    [
        lambda: parse_raw("-5", 18, "--value"),
        lambda: parse_raw("0.0000001", 6, "--value"),
        lambda: parse_raw("9" * 80, 18, "--value"),
        lambda: parse_bps("3", "--value"),
        lambda: parse_bps("abc", "--value"),
        lambda: parse_bps("-1%", "--value"),
        lambda: parse_bps("0.005%", "--value"),
        lambda: parse_duration_s("7", "--value"),
        lambda: parse_duration_s("0.1s", "--value"),
        lambda: parse_gas_price_wei("5", "--value"),
        lambda: parse_gas_price_wei("0.1 wei", "--value"),
        lambda: parse_address("0x12", "--value"),
        lambda: parse_band("5", "--value"),
    ],
)
def test_a_number_that_is_none_is_told_with_its_field_and_what_to_write(typed: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        typed()
    assert caught.value.message.startswith("--value: ")
    assert caught.value.remedy


def test_a_config_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    for broken in (lambda: parse_config("x = ["), lambda: parse_config(""), lambda: load_config(tmp_path)):
        with pytest.raises(ConfigError) as caught:
            broken()
        assert caught.value.remedy
