"""The part of a config by which a function of research trades live, from a file beside it."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from agent import research
from agent.config.tables.triggers import TriggerTable, build_trigger
from agent.config.tables.weights import AllocatorTable, SignalTable
from agent.errors import ConfigError
from agent.layers.signals import host
from agent.model import AnsweredTrigger
from agent.signals import SignalView
from agent.signals.worker import load_file, main
from tests.support.studies.signal_views import view

DAY_S = 86_400
PAGE = Path(__file__).parents[3] / "docs" / "python.md"
SOURCE = """
def trend(view):
    return {"BTC": 0.6}


def calm(view):
    return True
"""


def trend(view: SignalView) -> dict[str, float]:
    return {"BTC": 0.6}


def calm(view: SignalView) -> bool:
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trend.py"
    path.write_text(SOURCE)
    return path


def test_config_of_a_signal__is_valid_and_that_of_its_backtest(file: Path) -> None:
    signal = research.signal(trend, every="7d", window="90d")
    values = tomllib.loads(signal.config(file, step="1d"))
    weights = AllocatorTable.model_validate(values["portfolio"]["weights"])
    assert (weights.every, weights.window, weights.step) == (7 * DAY_S, 90 * DAY_S, DAY_S)
    assert weights.signal == "trend"


def test_config_of_a_signal__is_the_documented_one(file: Path) -> None:
    page = PAGE.read_text()
    assert 'research.signal(trend, every="7d", window="90d")' in page
    block = page.split("```toml\n")[1].split("```")[0]
    text = research.signal(trend, every="7d", window="90d").config(file, step="1d")
    assert text.replace(hashlib.sha256(file.read_bytes()).hexdigest(), "…") == block


@pytest.mark.parametrize(
    "make",
    [
        lambda file: research.signal(trend, window="90d").config(file, step="1d"),
        lambda file: research.trigger(trend).config(file, step="1h"),
    ],
    ids=["signal", "trigger"],
)
def test_signal_of_a_config__is_run_by_its_hash(make: Callable[[Path], str], file: Path) -> None:
    table = SignalTable.model_validate(tomllib.loads(make(file))["signals"]["trend"])
    assert table.file == "trend.py:trend"
    assert table.sha256 is not None
    assert load_file(file, "trend", table.sha256)(None) == {"BTC": 0.6}  # type: ignore[arg-type]  # it reads no view


def test_config_of_a_trigger_is_valid(file: Path) -> None:
    text = research.trigger(calm, window="30d").config(file, step="1d")
    assert text.startswith("[policy]  # its trigger replaces that of the config\n"), "a config has one, and a table stands once"
    values = tomllib.loads(text)
    table = TypeAdapter[Any](TriggerTable).validate_python(values["policy"]["trigger"])
    trigger = build_trigger(table, {})
    assert isinstance(trigger, AnsweredTrigger)
    assert (trigger.window_s, trigger.step_s) == (30 * DAY_S, DAY_S)
    assert trigger.signal is not None
    assert trigger.signal.name == "calm"


@pytest.mark.parametrize(("bar", "history"), [("1d", "30d"), ("4h", "720h"), ("30d", "60d")], ids=["a third", "of hours", "two bars"])
def test_least_history__is_a_third_of_the_window_or_two_bars(bar: str, history: str, file: Path) -> None:
    values = tomllib.loads(research.signal(trend, window="90d").config(file, step=bar))
    assert AllocatorTable.model_validate(values["portfolio"]["weights"]).min_history == research.every(history).every_s  # type: ignore[union-attr]  # a schedule


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda file: research.signal(trend).config(file.with_name("other.py"), step="1d"),
            "signal: other.py cannot be read: No such file or directory",
        ),
        (lambda file: research.signal(lambda view: {"BTC": 1}).config(file, step="1d"), "signal: trend.py has no function <lambda>"),
        (lambda file: research.trigger(lambda view: True).config(file, step="1d"), "trigger: trend.py has no function <lambda>"),
        (lambda file: research.signal(trend).config(file, step="30min"), "30min|an hour"),
        (lambda file: research.trigger(calm).config(file, step="30min"), "step: 30 min"),
        (lambda file: research.signal(trend, window="1001h").config(file, step="1h"), "a live agent takes no window"),
        (lambda file: research.trigger(calm, window="1d").config(file, step="1d"), "trigger: no price is within the window of 1 day"),
        (lambda file: research.signal(trend).config(file, step="daily"), "step: 'daily' is not a duration"),
    ],
)
def test_what_no_live_agent_takes_is_refused(make: Callable[[Path], str], words: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        make(file)


def test_file_that_is_no_python_is_refused(tmp_path: Path) -> None:
    for name, content, words in (
        ("a.py", b"def trend(view:", "'\\(' was never closed"),
        ("b.py", b"\x00", "null bytes"),
        ("c.py", b"\xff\xfe", "'utf-8' codec"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"signal: {name} cannot be read as Python: .*{words}"):
            research.signal(trend).config(tmp_path / name, step="1d")


def test_function_of_a_class_is_none_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "trend.py"
    path.write_text("class Signals:\n    def trend(self, view):\n        return {}\n")
    with pytest.raises(ConfigError, match=r"trend\.py has no function trend"):
        research.signal(trend).config(path, step="1d")


FUTURE = "from __future__ import annotations\n"
OWN_TYPES = {
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass Rule:\n    share: float = 0.6\n",
    "dataclass of field names": "from dataclasses import *\n@dataclass\nclass Rule:\n    _: KW_ONLY\n    share: float = 0.6\n",
    "NamedTuple": "from typing import NamedTuple\nclass Rule(NamedTuple):\n    share: float = 0.6\n",
}


@pytest.mark.parametrize("head", ["", FUTURE], ids=["types", "texts of types"])
@pytest.mark.parametrize("types", OWN_TYPES.values(), ids=OWN_TYPES)
def test_file_with_types_of_its_own__is_loaded(tmp_path: Path, types: str, head: str) -> None:
    source = f'{head}{types}\ndef rule(view: object) -> dict:\n    return {{"BTC": Rule().share}}\n'
    file = tmp_path / "rule.py"
    file.write_text(source)
    function = load_file(file, "rule", hashlib.sha256(source.encode()).hexdigest())
    assert function(None) == {"BTC": 0.6}  # type: ignore[arg-type]  # it reads no view
    assert isinstance(function.__annotations__["view"], str) is bool(head)


@pytest.mark.parametrize(
    "returned",
    [
        {"BTC": 0.25},
        pd.Series({"BTC": 0.25}),
        MappingProxyType({"BTC": 0.25}),
        {"BTC": np.float32(0.25)},
        pd.Series({"BTC": 0.25, "USDC": 0.75}),
    ],
    ids=["dict", "Series", "read-only", "of NumPy", "Series with cash"],
)
def test_answer__is_understood_live_as_in_a_backtest(returned: Any) -> None:
    answers = StringIO()
    seen = view(BTC=[1.0, 2.0])
    main(lambda: lambda _: returned, StringIO(host._request_line(seen)), answers)
    assert json.loads(answers.getvalue()) == {"spot": {"BTC": 0.25, "USDC": 0.75}, "futures": None}


def test_page__lists_each_field_of_the_view_with_its_type() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([A-Z]?[\w\[\], .]+)` \| .+ \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(field.name, field.type) for field in fields(SignalView)]
