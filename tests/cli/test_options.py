"""Options that set the fields of one concept by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.cli.options import GroupedOption
from agent.errors import ConfigError
from tests.cli.tools import CommandResult

Bare = Callable[..., CommandResult]
BOOK = GroupedOption(
    "--book",
    ("weights", "lot", "max-leverage", "latency", "pool-state", "gas-prices"),
    unnamed="weights",
    numbers={"latency": range(3)},
    files=frozenset({"gas-prices"}),
    lists=frozenset({"pool-state"}),
)
LISTED = GroupedOption("--listed", ("first-shock", "depth"), unnamed="first-shock", lists=frozenset({"first-shock"}))
COUNTED = GroupedOption("--counted", ("step-paths",), unnamed="step-paths", numbers={"step-paths": None})
NAMED = GroupedOption("--named", ("cost", "depth"))


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (None, {}),
        (["BTC=60,ETH=-40"], {"weights": "BTC=60,ETH=-40"}),
        (["BTC=60,ETH=-40,max-leverage=3x"], {"weights": "BTC=60,ETH=-40", "max_leverage": "3x"}),
        (["lot=BTC=0.001,ETH=0.01,latency=2"], {"lot": "BTC=0.001,ETH=0.01", "latency": 2}),
        (["max-leverage=3x", "max-leverage=4x"], {"max_leverage": "4x"}),
        (["pool-state=A/B=one.json", "pool-state=C/D=two.json"], {"pool_state": ("A/B=one.json", "C/D=two.json")}),
        (["gas-prices=gas.csv"], {"gas_prices": Path("gas.csv")}),
        (["BTC=60", "BTC=60"], {"weights": "BTC=60"}),
        (["max-leverage= 20 gwei , latency=1"], {"max_leverage": "20 gwei", "latency": 1}),
    ],
)
def test_grouped_option__sets_fields_by_name(texts: list[str] | None, values: dict[str, Any]) -> None:
    assert BOOK.parse(texts) == values


@pytest.mark.parametrize(
    ("option", "texts", "values"),
    [
        pytest.param(LISTED, ["first-shock=0.1", "first-shock=0.2"], {"first_shock": ("0.1", "0.2")}, id="both named"),
        pytest.param(LISTED, ["0.1"], {"first_shock": ("0.1",)}, id="unnamed"),
        pytest.param(LISTED, ["0.1", "first-shock=0.2"], {"first_shock": ("0.1", "0.2")}, id="unnamed and named"),
        pytest.param(COUNTED, ["5", "5"], {"step_paths": 5}, id="both unnamed"),
        pytest.param(COUNTED, ["5", "step-paths=6"], {"step_paths": 6}, id="last one named"),
    ],
)
def test_unnamed_text__may_stand_beside_its_name(option: GroupedOption, texts: list[str], values: dict[str, Any]) -> None:
    assert option.parse(texts) == values


@pytest.mark.parametrize(
    ("option", "texts", "named"),
    [
        pytest.param(BOOK, ["latency=3"], "--book latency: '3'", id="number without a unit"),
        pytest.param(BOOK, ["latency=many"], "--book latency: 'many'", id="not a number"),
        pytest.param(BOOK, ["BTC=60", "lottt=1"], "--book: 'lottt=1' beside 'BTC=60'", id="unknown name beside a symbol"),
        pytest.param(LISTED, ["0.1", "0.2"], "--listed: '0.2' beside '0.1'", id="two texts without a name of a list"),
        pytest.param(LISTED, ["0.1", "unmamed=2"], "--listed: 'unmamed=2' beside '0.1'", id="misspelt name of a list"),
        pytest.param(COUNTED, ["5", "6"], "--counted: '6' beside '5'", id="two texts without a name of a number"),
        pytest.param(NAMED, ["price=1"], "--named: 'price=1'", id="foreign name"),
        pytest.param(NAMED, ["30bps"], "--named: '30bps'", id="value without a name"),
    ],
)
def test_grouped_option__refuses_the_unreadable_with_its_names(option: GroupedOption, texts: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        option.parse(texts)
    assert caught.value.message == named
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("option", "remedy"), [(BOOK, "write a whole number from 0 to 2"), (replace(BOOK, numbers={"latency": None}), "write a whole number")]
)
def test_grouped_option__names_the_range_of_a_number(option: GroupedOption, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        option.parse(["latency=many"])
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("stress", "--fee", "30bps"), "write --market fee=VALUE"),
        (("stress", "--shock", "ALT=-5%"), "write --scenarios shock=VALUE"),
        (("stress", "--step-paths", "1"), "write --paths step-paths=VALUE"),
        (("tune", "--folds", "2"), "write --walk folds=VALUE"),
        (("whatif", "--hedge", "50%"), "write --futures hedge=VALUE"),
    ],
)
def test_grouped_name_written_as_an_option__ends_with_its_spelling(bare: Bare, words: tuple[str, ...], remedy: str) -> None:
    result = bare(*words, "--json")
    assert result.code == 2
    assert result.json["error"]["message"] == f"{words[1]}: no option of {words[0]}"
    assert result.json["error"]["remedy"] == remedy
