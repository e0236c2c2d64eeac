"""A limit beyond its ceiling, or off, is named in limits.i_accept: a slip of the unit takes no protection away (T21)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config.load import load_config, parse_config
from agent.config.tables.limits import CEILINGS, accepted_limit_texts, needless_acceptances
from agent.config.writing.profile import profile_text, read_profile
from agent.errors import ConfigError
from tests.support.configs.samples import config_text
from tests.support.text import mentions, raises_field

WRITTEN = {"slippage": '"0.3%"', "price_impact": '"1%"', "plan_cost": '"0.5%"', "daily_loss": '"1%"'}


def changed(key: str, value: str, accept: str = "") -> str:
    """The template with one limit changed, and a list of what is accepted."""
    return config_text((f"{key} = {WRITTEN[key]}", f'{key} = "{value}"'), ("[limits] ", f"[limits]\n{accept}# "))


LARGEST_BPS = {"slippage": 500, "price_impact": 1_000, "plan_cost": 500, "daily_loss": 2_000}
"""As docs/limits.md lists the ceilings."""
EACH_CEILING = pytest.mark.parametrize(("key", "most_bps"), LARGEST_BPS.items(), ids=LARGEST_BPS)


def test_ceilings_are_those_of_four_limits() -> None:
    assert CEILINGS == LARGEST_BPS


@EACH_CEILING
def test_limit_at_its_ceiling__needs_no_word(key: str, most_bps: int) -> None:
    assert getattr(parse_config(changed(key, f"{most_bps}bps")).limits, key) == most_bps


@EACH_CEILING
@pytest.mark.parametrize("value", [pytest.param("{}bps", id="a bp above"), pytest.param("off", id="off")])
def test_limit__needs_a_word_from_one_bp_above_its_ceiling(key: str, most_bps: int, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(key, value.format(most_bps + 1)))
    assert f"limits.{key}: " in caught.value.message
    assert mentions(caught.value.message, f"{most_bps / 100:g} %", f'i_accept = ["{key}"]')


@EACH_CEILING
def test_what_is_accepted_by_name_is_read_and_told(key: str, most_bps: int) -> None:
    limits = parse_config(changed(key, "off", f'i_accept = ["{key}"]\n')).limits
    assert getattr(limits, key) is None
    (accepted,) = accepted_limit_texts(limits)
    assert "above" not in accepted
    assert mentions(accepted, f"limits.{key}: off", f"{most_bps / 100:g} %", "limits.i_accept")
    assert needless_acceptances(limits) == []


def test_another_name_accepts_nothing_and_the_remedy_keeps_it() -> None:
    with raises_field("limits.slippage", "50 %", "5 %") as caught:
        parse_config(changed("slippage", "50%", 'i_accept = ["plan_cost"]\n'))
    assert 'i_accept = ["plan_cost", "slippage"]' in caught.value.message


@pytest.mark.parametrize("name", ["slipage", "turnover", "all"])
def test_a_name_that_is_no_limit_with_a_ceiling_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}'.*ceiling"):
        parse_config(changed("slippage", "0.3%", f'i_accept = ["{name}"]\n'))


def test_name_within_its_ceiling__is_reported_as_needless() -> None:
    limits = parse_config(changed("slippage", "0.3%", 'i_accept = ["slippage"]\n')).limits
    assert needless_acceptances(limits) == ["slippage"]
    assert accepted_limit_texts(limits) == []


def test_a_profile_brings_no_acceptance_and_exports_none(tmp_path: Path) -> None:
    path = tmp_path / "trimtab.toml"
    path.write_text(changed("slippage", "6%", 'i_accept = ["slippage"]\n'))
    loaded = load_config(path)
    exported, left_out = profile_text(loaded)
    assert "limits.i_accept" in left_out
    assert "i_accept" not in exported
    assert 'slippage = "6%"' in exported
    file = tmp_path / "profile.toml"
    file.write_text(exported.replace("[limits]\n", '[limits]\ni_accept = ["slippage"]\n'))
    with pytest.raises(ConfigError, match=r"limits\.i_accept"):
        read_profile(file.read_bytes(), str(file), loaded)
