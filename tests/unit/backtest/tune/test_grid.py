"""Settings of a search: their names, the options of a backtest, and the keys of a config."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.backtest.tune.grid import PolicyChoice
from agent.errors import ConfigError
from agent.model import NoTradeZone, TrackingRisk

UNNAMED_RULE = PolicyChoice(NoTradeZone(TrackingRisk(Fraction(7, 10), None, (), ())))


def test_rule_of_a_cost_without_a_name_is_named_by_its_cost() -> None:
    assert UNNAMED_RULE.strictness is None
    assert UNNAMED_RULE.label == "tracking 0.7 bps"


def test_rule_of_a_cost_without_a_name_has_no_options() -> None:
    assert UNNAMED_RULE.backtest_options == ""


def test_rule_of_a_cost_without_a_name_has_no_config() -> None:
    with pytest.raises(ConfigError, match=r"a config has no tracking 0\.7 bps .*relaxed, normal, strict"):
        _ = UNNAMED_RULE.config_text


def test_named_rule_is_named_by_its_strictness() -> None:
    rule = PolicyChoice(NoTradeZone(TrackingRisk(Fraction(3, 2), None, (), ())))
    assert rule.label == "tracking strict"
    assert rule.config_text == 'trigger = { kind = "tracking", strictness = "strict" }'
