"""Tests of agent/layers/liquidity/settings.py: what the owner confirms, and which shares a control may change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.config.load import parse_config
from agent.config.writing.edits import apply_changes, parse_changes
from agent.layers.liquidity.settings import confirmed_settings, editable_keys
from tests.support.configs.lp_targets import V2_TARGET, V3_TARGET, config_with_targets
from tests.support.lp_worlds import paired, world

TARGETS = config_with_targets(V3_TARGET, V2_TARGET)
"""Shares of 10 % and 5 %."""
EXIT = "portfolio.assets.WETH.stop_loss=10%"


def changed(text: str, *changes: str) -> str:
    return apply_changes(text, parse_changes(list(changes), [], [], []))


@pytest.mark.parametrize(
    ("share", "before", "after", "is_editable"),
    [
        pytest.param("12%", (), (), True, id="a higher share"),
        pytest.param("12%", (EXIT,), (EXIT,), False, id="a higher share beside an exit"),
        pytest.param("12%", (), (EXIT,), False, id="a higher share with a new exit"),
        pytest.param("10%", (EXIT,), (EXIT,), True, id="the same share beside an exit"),
        pytest.param("8%", (EXIT,), (EXIT,), True, id="a lower share beside an exit"),
    ],
)
def test_share_rises_only_without_exits(share: str, before: tuple[str, ...], after: tuple[str, ...], is_editable: bool) -> None:
    config_before = parse_config(changed(TARGETS, *before))
    config_after = parse_config(changed(TARGETS, *after, f"lp.targets.0.share={share}"))

    keys = set(editable_keys(config_before, config_after))

    assert keys == ({"lp.targets.0.share", "lp.targets.1.share"} if is_editable else {"lp.targets.1.share"})


def test_share_needs_targets_before_and_after() -> None:
    assert set(editable_keys(parse_config(config_with_targets()), parse_config(TARGETS))) == set()


def test_confirmed_settings_are_those_of_valued_positions() -> None:
    config = parse_config(TARGETS)
    portfolio = world([paired(2_000)]).portfolio

    assert confirmed_settings(config, portfolio) == {"lp": "volatility 60 % a year, horizon 30 days"}
    assert confirmed_settings(config, replace(portfolio, positions=())) == {}
