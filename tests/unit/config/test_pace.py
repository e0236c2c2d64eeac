"""[execution] in time: each style demands its keys, and what could not be carried out is named with its remedy."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.config.load import parse_config
from agent.config.pace import build_pace, pace_text
from agent.errors import ConfigError
from agent.model import ExecutionPace, ExecutionStyle
from tests.support.configs.pace import LIMIT, ROUNDS, TWAP
from tests.support.configs.samples import config_text
from tests.support.text import mentions, raises_field


def written(keys: dict[str, str]) -> str:
    """The template with these keys in [execution]."""
    head, tail = config_text().split("[execution]\n", 1)
    tail = tail.replace('style = "market"', "# market", 1)
    return head + "[execution]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) + tail


def test_template__trades_at_the_market_and_names_other_keys() -> None:
    config = parse_config(config_text())
    assert build_pace(config) == ExecutionPace()
    assert pace_text(config) == "market"
    commented = config_text().split("[execution]")[1].split("[lp]")[0]
    assert all(f"# {key} = " in commented for style in (ROUNDS, TWAP, LIMIT) for key in style if key not in ("style", "over"))
    assert 'over = "6h"' in commented


def test_each_style_is_read_with_its_keys() -> None:
    assert build_pace(parse_config(written(ROUNDS))) == ExecutionPace(
        ExecutionStyle.ROUNDS, 6, 600, 0, 1_200, 3_000, 5_000, 50, Fraction(1, 2), 0, 0
    )
    assert build_pace(parse_config(written(TWAP))) == ExecutionPace(ExecutionStyle.TWAP, 8, 0, 21_600, 0, 0, 0, None, None, 0, 0)
    assert build_pace(parse_config(written(LIMIT))) == ExecutionPace(ExecutionStyle.LIMIT, limit_bps=-50, patience_s=14_400)
    words = pace_text(parse_config(written(ROUNDS)))
    assert mentions(words, "rounds", "max_rounds 6", "interval 10 min", "recovery 20 min", "waiting_cost 0.5 bps", "budget 0.5 %")
    assert mentions(words, "size_jitter 30 %", "time_jitter 50 %")


@pytest.mark.parametrize(
    ("style", "key"), [(style, key) for style in ("ROUNDS", "TWAP", "LIMIT") for key in globals()[style] if key != "style"]
)
def test_a_key_that_a_style_needs_has_no_default(style: str, key: str) -> None:
    keys = {name: value for name, value in globals()[style].items() if name != key}
    with pytest.raises(ConfigError, match=f"execution.{key}: missing"):
        parse_config(written(keys))


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (ROUNDS | {"style": '"slowly"'}, "style"),
        (ROUNDS | {"max_rounds": "1"}, "max_rounds"),
        (ROUNDS | {"max_rounds": "25"}, "max_rounds"),
        (ROUNDS | {"interval": '"5s"'}, "execution.interval"),
        (ROUNDS | {"recovery": '"0s"'}, "execution.recovery"),
        (ROUNDS | {"size_jitter": '"51%"'}, "execution.size_jitter"),
        (ROUNDS | {"time_jitter": '"91%"'}, "execution.time_jitter"),
        (ROUNDS | {"waiting_cost": '"cheap"'}, "waiting_cost"),
        (ROUNDS | {"waiting_cost": '"-1bps"'}, "waiting_cost"),
        (ROUNDS | {"waiting_cost": '"zone"'}, "requires a zone trigger"),
        (ROUNDS | {"budget": "5"}, "budget"),
        (TWAP | {"over": '"29d"'}, "execution.over"),
        (TWAP | {"over": '"60s"'}, "too short for 8 slices"),
        (LIMIT | {"limit": '"25%"'}, "execution.limit"),
        (LIMIT | {"limit": '"soon"'}, "limit"),
        (LIMIT | {"patience": '"60d"'}, "execution.patience"),
    ],
)
def test_what_could_not_be_carried_out_is_named(keys: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(written(keys))


def test_strategies_over_one_wallet_are_corrected_at_once() -> None:
    two = "".join(
        f'\n[[strategies]]\nname = "{name}"\nshare = "50%"\nfloor = "0%"\nallocator = "equal"\nhealth = "off"\n' for name in ("one", "two")
    )
    split = '[split]\nrelative = "20%"\n'
    parse_config(config_text() + two + split)
    with raises_field("execution.style", "strategies"):
        parse_config(written(TWAP) + two + split)
