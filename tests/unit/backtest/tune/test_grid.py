"""Settings of a search: their names, the options of a backtest, and the keys of a config."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest

from agent.backtest.tune.grid import NO_STOP, PolicyChoice, StopLevel
from agent.errors import ConfigError
from agent.model import AllocationMethod, Destination, Every, HybridTrigger, NoTradeZone, OrderKind, Threshold, TrackingRisk
from agent.policy.triggers.no_trade_zone import build_tracking

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


BAND = Threshold(None, 1_000)
PLAIN = PolicyChoice(BAND)
OPTIONS_BY_CHANGE = [
    pytest.param("trigger", Threshold(1_000, None), "--band 10%abs", id="other band"),
    pytest.param("trigger", Every(3_600), "--every 3600s", id="interval"),
    pytest.param("trigger", HybridTrigger(BAND, Every(3_600)), "--band 10%rel --every 3600s", id="band at interval"),
    pytest.param("trigger", build_tracking("strict"), "--tracking strict", id="tracking"),
    pytest.param("trigger", build_tracking("strict", after_tax=True), "", id="tracking after tax"),
    pytest.param("trigger", UNNAMED_RULE.trigger, "", id="tracking of another cost"),
    pytest.param("trigger", NoTradeZone(TrackingRisk(Fraction(3, 2), 3_600, (), ())), "", id="zone"),
    pytest.param("trigger", NoTradeZone(TrackingRisk(Fraction(3, 2), None, (("0x", 1),), ())), "", id="tracking of own volatilities"),
    pytest.param("destination", Destination.HALFWAY, "--band 10%rel --destination halfway", id="destination"),
    pytest.param("allocator", AllocationMethod.HRP, "", id="allocator"),
    pytest.param("stop", StopLevel(OrderKind.STOP_LOSS, 2_000), "", id="stop"),
    pytest.param("stop", NO_STOP, "", id="without the stops of the config"),
]


@pytest.mark.parametrize(("field", "value", "options"), OPTIONS_BY_CHANGE)
def test_options_simulate_the_setting_or_there_are_none(field: str, value: object, options: str) -> None:
    assert PLAIN.backtest_options == "--band 10%rel"
    assert replace(PLAIN, **{field: value}).backtest_options == options


def test_options_are_tried_with_each_field_of_a_setting() -> None:
    assert {str(change.values[0]) for change in OPTIONS_BY_CHANGE} == {field.name for field in fields(PolicyChoice)}
