"""Progress in a notebook, and elsewhere if it is asked for."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace

import polars as pl
import pytest

from agent import research
from agent.research import progress
from tests.support.studies.signals import BAND, PRICES, TARGETS


class FakeOutput:
    """An output of a notebook's cell, with what it showed one after another."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.texts.append(content["text/plain"])

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> FakeOutput:
        assert display_id, "without it no output can be updated"
        assert self.texts == [], "each further output would stay in the saved notebook"
        self.update(content, raw=raw)
        return self


@pytest.fixture
def output_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], FakeOutput]:
    """Lets a shell of IPython run this, and returns its output."""

    def enter(shell: object) -> FakeOutput:
        output = FakeOutput()
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]  # it stands in for a module
        monkeypatch.setitem(sys.modules, "IPython.display", output)  # type: ignore[arg-type]  # it stands in for a module
        return output

    return enter


@pytest.mark.parametrize(
    ("shell", "lines"),
    [(SimpleNamespace(kernel=object()), ["1 of 3", ""]), (SimpleNamespace(), []), (None, [])],
    ids=["notebook", "terminal", "script"],
)
def test_back_test_shows_progress_in_a_notebook_only(
    shell: object, lines: list[str], output_in: Callable[[object], FakeOutput], capsys: pytest.CaptureFixture[str]
) -> None:
    """At the end it is empty: a saved notebook keeps no progress."""
    output = output_in(shell)
    research.backtest(PRICES.head(3), TARGETS, BAND)
    assert output.texts == lines
    research.backtest(PRICES.head(3), TARGETS, BAND, progress=lambda finished, total: None)
    assert output.texts == lines
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("progress", "line"), [(True, "3 of 3"), (False, ""), (None, "")])
def test_a_script_gets_a_line_if_it_asks(progress: bool | None, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    research.backtest(PRICES.head(3), TARGETS, BAND, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == "", "it is not mixed with what the script prints"
    assert captured.err.rpartition("\r")[2].strip() == line


LONG_PRICES = pl.DataFrame(
    {"time": [1_700_000_000 + 86_400 * day for day in range(60)], "BTC": [100.0 + day % 7 for day in range(60)], "ETH": [50.0] * 60}
)


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        pytest.param(lambda: research.backtest(PRICES.head(3), TARGETS, BAND), ["1 of 3", "3 of 3"], id="backtest"),
        pytest.param(lambda: research.compare(PRICES.head(3), TARGETS, [BAND]), ["0 of 1", "1 of 1"], id="compare"),
        pytest.param(lambda: research.tune(PRICES, TARGETS, [BAND], objective="growth"), ["0 of 2", "2 of 2"], id="tune"),
        pytest.param(
            lambda: research.stress(LONG_PRICES, TARGETS, BAND, paths=2, scenarios=["crash"], bars=8),
            ["resampled blocks: 0 of 2"],
            id="stress",
        ),
    ],
)
def test_terminal__shows_progress_from_the_start_to_the_end(
    run: Callable[[], object], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run()
    shown = [line.strip() for line in terminal.getvalue().split("\r")]
    assert set(lines) <= set(shown)
    assert shown[1] == lines[0]
    assert shown[-2:] == ["", ""], "at the end the line is empty"
    assert "\n" not in terminal.getvalue()


def test_output_updates_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch, output_in: Callable[[object], FakeOutput]) -> None:
    now_s = [0.0]
    output = output_in(SimpleNamespace(kernel=object()))
    monkeypatch.setattr("agent.research.progress.time.monotonic", lambda: now_s[0])
    show = progress.notebook_progress()
    assert show is not None
    for finished in range(1, 11):
        show("crash", finished, 10)
        now_s[0] += 0.125
    show("crash", 10, 10)
    assert output.texts == [*(f"crash: {finished} of 10" for finished in (1, 3, 5, 7, 9)), ""]


def test_line__says_after_five_seconds_how_long_the_rest_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("agent.research.progress.time.monotonic", lambda: now_s[0])
    terminal = io.StringIO()
    show = progress.progress_line(terminal, "\n")
    for finished, at_s in ((0, 100), (40, 104), (50, 105), (60, 160), (100, 170)):
        now_s[0] = at_s
        show("crash", finished, 100)
    now_s[0] = 176
    show("drift", 1, 100)  # the clock of a case begins with it
    lines = [line.strip() for line in terminal.getvalue().split("\r")]
    assert lines[1:] == [
        "crash: 0 of 100",
        "crash: 40 of 100",
        "crash: 50 of 100, about 5 s left",
        "crash: 60 of 100, about 40 s left",
        "crash: 100 of 100",
        "drift: 1 of 100",
    ]
