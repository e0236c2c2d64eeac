"""Tests of agent/config/tables/weights.py: signals and function triggers of the config, and their mistakes."""

from __future__ import annotations

import pytest

from agent.config.load import parse_config
from agent.config.triggers import build_trigger_with_risk
from agent.config.weights import build_signals
from agent.errors import ConfigError
from agent.model import AnsweredTrigger, SignalSettings
from agent.policy.triggers.trigger_text import format_trigger
from tests.support.builders import step_input
from tests.support.configs.futures import FUTURES
from tests.support.configs.weights import config_text
from tests.support.constants import DAY_S
from tests.support.signals import SIGNAL_ALLOCATOR

MINE = "[signals.mine]\ntimeout = '5s'\n"
HASH = "0" * 64


def test_signal_has_its_timeout_and_options() -> None:
    config = parse_config(config_text(SIGNAL_ALLOCATOR + MINE + "options = { fast = 5, mode = 'x' }\n"))

    assert build_signals(config)["mine"] == SignalSettings("mine", 5, (("fast", "5"), ("mode", "x")))


@pytest.mark.parametrize(
    ("toml_value", "text"),
    [
        pytest.param("true", "true", id="true"),
        pytest.param("false", "false", id="false"),
        pytest.param("0.02", "0.02", id="a fraction"),
        pytest.param("-30", "-30", id="a negative number"),
        pytest.param("'True'", "True", id="a text"),
    ],
)
def test_option_reaches_the_signal_as_it_is_written(toml_value: str, text: str) -> None:
    config = parse_config(config_text(SIGNAL_ALLOCATOR + MINE + f"options = {{ exact = {toml_value} }}\n"))

    assert build_signals(config)["mine"].options == (("exact", text),)


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        pytest.param("", "no [signals.mine]", id="no table"),
        pytest.param("[signals.mine]\ntimeout = '2m'\n", "120s; write above 0s and at most 60s", id="a long timeout"),
        pytest.param(MINE + "file = 'own.py:targets'\n", "sha256: missing; write what sha256sum prints", id="a file without hash"),
        pytest.param(MINE + f"sha256 = '{HASH}'\n", "sha256: without file", id="a hash without file"),
        pytest.param(MINE + f"file = '../own.py:targets'\nsha256 = '{HASH}'\n", "signals.mine.file", id="a file elsewhere"),
        pytest.param(MINE + f"file = 'own.py'\nsha256 = '{HASH}'\n", "signals.mine.file", id="a file without function"),
        pytest.param(MINE + "file = 'own.py:targets'\nsha256 = 'abc'\n", "signals.mine.sha256", id="a short hash"),
        pytest.param(MINE + "[signals.other]\ntimeout = '5s'\n", "signals.other: unused", id="an unused signal"),
        pytest.param(MINE + FUTURES, "futures.leverage_band: missing", id="futures without a band of leverage"),
    ],
)
def test_mistake_in_signals_is_named(tables: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text(SIGNAL_ALLOCATOR + tables))

    assert reason in str(caught.value)


TRIGGER = 'trigger = { kind = "function", signal = "calm", window = "30d", step = "1d" }'
CALM = f"[signals.calm]\ntimeout = '5s'\nfile = 'calm.py:heaviest'\nsha256 = '{HASH}'\noptions = {{ above = '0.4' }}\n"


def config_with(trigger: str, signals: str) -> str:
    text = config_text('kind = "fixed"')
    (line,) = [line for line in text.splitlines() if line.startswith("trigger = ")]
    return text.replace(line, trigger) + "\n" + signals


def test_function_trigger_names_its_file() -> None:
    settings = SignalSettings("calm", 5, (("above", "0.4"),), file="calm.py:heaviest", sha256=HASH)

    config = parse_config(config_with(TRIGGER, CALM))
    trigger = build_trigger_with_risk(config, config.policy.trigger)

    assert trigger == AnsweredTrigger(30 * DAY_S, step_s=DAY_S, signal=settings)
    assert format_trigger(trigger, step_input().portfolio) == f"the function calm, calm.py:heaviest {HASH[:12]}"


@pytest.mark.parametrize(
    ("trigger", "signals", "reason"),
    [
        pytest.param(TRIGGER, "", "policy.trigger.signal: no [signals.calm]", id="no table"),
        pytest.param(TRIGGER.replace('"1d"', '"30m"'), CALM, "policy.trigger.step: 30 min", id="a short step"),
        pytest.param(TRIGGER.replace('"1d"', '"30d"'), CALM, "policy.trigger.step: 30 days", id="a step of the window"),
        pytest.param(TRIGGER.replace(', step = "1d"', ""), CALM, "step: missing", id="no step"),
        pytest.param(
            TRIGGER.replace("= {", "= [{").replace("}", '}, { kind = "time", every = "1d" }]'),
            CALM,
            "a list cannot contain a function",
            id="in a list",
        ),
    ],
)
def test_mistake_in_a_function_trigger_is_named(trigger: str, signals: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_with(trigger, signals))

    assert reason in str(caught.value)
