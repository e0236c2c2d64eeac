"""Limits of an imported profile: every key has its direction, only what is tighter is taken (T16)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomlkit

from agent.config.load import load_config
from agent.config.tables import fields
from agent.config.tables.limits import CEILINGS, OFF_TIGHTEST_DIRECTIONS, LimitsTable, is_tighter
from agent.model import LIMITS, LimitUnit, TighterDirection
from tests.support.agents import config, profile, taken_over


def sample(key: str) -> tuple[str, str]:
    """A small and a large value of a limit, as a config writes it."""
    field = LimitsTable.model_fields[key]
    kinds = {
        "share": (fields.ShareOrOff, ("0.01%", "25%")),
        "coins": (fields.DecimalOrOff, ("0.001", "1000000")),
        "time": (fields.DurationOrOff, ("1s", "2h")),
        "gas": (fields.GasPriceOrOff, ("1 gwei", "9000 gwei")),
        "switch": (fields.Switch, ("off", "on")),
    }
    metadata = {name: (list(kind.__metadata__), pair) for name, (kind, pair) in kinds.items()}
    return next(pair for known, pair in metadata.values() if known == field.metadata)


def test_limit__has_its_direction_and_none_is_left_over() -> None:
    assert set(LIMITS) == set(LimitsTable.model_fields) - {"i_accept", "max_weight", "futures_notional"}


@pytest.mark.parametrize("key", LIMITS)
def test_of_every_limit_only_the_tighter_value_is_taken(key: str, tmp_path: Path) -> None:
    small, large = sample(key)
    tight = LIMITS[key].tighter
    tighter, looser = {
        TighterDirection.LESS: (small, large),
        TighterDirection.MORE: (large, small),
        TighterDirection.LESS_OR_OFF: ("off", large),
        TighterDirection.MORE_OR_OFF: (large, small),
        TighterDirection.ON: ("on", "off"),
    }[tight]
    for number, (offered, mine, taken) in enumerate(((tighter, looser, True), (looser, tighter, False), (looser, looser, False))):
        path = config(tmp_path, f"mine{number}", comments=False)
        document = tomlkit.parse(path.read_text())
        document["limits"]["native_top_up"] = "off"  # type: ignore[index]  # a table
        document["limits"][key] = mine  # type: ignore[index]  # a table
        if key in CEILINGS:
            document["limits"]["i_accept"] = [key]  # type: ignore[index]  # a table
        if key == "native_top_up" and mine != "off":
            document["limits"]["native_floor"] = "0.0001"  # type: ignore[index]  # a table
        path.write_text(tomlkit.dumps(document))
        (row,) = taken_over(path, profile(tmp_path, limits={key: offered}))["limits"]
        assert (row["key"], row["taken"]) == (key, taken)
        assert tomllib.loads(path.read_text())["limits"][key] == (offered if taken else mine)


@pytest.mark.parametrize("key", [key for key, limit in LIMITS.items() if limit.tighter not in OFF_TIGHTEST_DIRECTIONS])
def test_off_is_never_taken_and_anything_is_tighter_than_off(key: str, tmp_path: Path) -> None:
    small, large = sample(key)
    path = config(tmp_path, comments=False)
    before = load_config(path).config.limits
    taken_over(path, profile(tmp_path, limits={key: "off"}))
    assert load_config(path).config.limits == before
    read = {
        text: getattr(LimitsTable.model_validate({**tomllib.loads(path.read_text())["limits"], key: text}), key) for text in (small, large)
    }
    for text in (small, large):
        assert is_tighter(key, read[text], None) is (read[text] is not None)
        assert not is_tighter(key, None, read[text])


def test_no_profile_makes_the_parts_of_a_purchase_follow_sooner(tmp_path: Path) -> None:
    path = config(tmp_path, comments=False)
    document = tomlkit.parse(path.read_text())
    document["limits"]["first_purchase"] = "10m"  # type: ignore[index]  # a table
    path.write_text(tomlkit.dumps(document))
    for offered, taken in (("1s", False), ("20m", True), ("off", True)):
        (row,) = taken_over(path, profile(tmp_path, limits={"first_purchase": offered}))["limits"]
        assert row["taken"] is taken, offered


def test_coins_are_compared_in_the_same_numeraire_alone(tmp_path: Path) -> None:
    path = config(tmp_path, comments=False)
    before = load_config(path).config.limits
    coins = {
        key: "1000000" if limit.tighter is TighterDirection.MORE else "0" for key, limit in LIMITS.items() if limit.unit is LimitUnit.COINS
    }
    assert coins
    document = taken_over(path, profile(tmp_path, profile={"format": 1, "chain_id": 1, "numeraire": "WETH"}, limits=coins))
    assert all("numeraire" in row["why"] for row in document["limits"])
    assert load_config(path).config.limits == before


def test_equal_limits_in_another_numeraire__are_not_the_same(tmp_path: Path) -> None:
    """10 WETH are not 10 USDC."""
    path = config(tmp_path, comments=False)
    min_trade = tomllib.loads(path.read_text())["limits"]["min_trade"]
    other = profile(tmp_path, profile={"format": 1, "chain_id": 1, "numeraire": "WETH"}, limits={"min_trade": min_trade})
    (row,) = taken_over(path, other)["limits"]
    assert (row["taken"], row["why"]) == (False, "counted in another numeraire")
