"""Progress in a notebook, and elsewhere if it is asked for."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from agent import research
from agent.research import progress
from tests.support.studies.signals import BAND, PRICES, TARGETS


@pytest.mark.parametrize(
    ("shell", "lines"),
    [(SimpleNamespace(kernel=object()), "3 of 3"), (SimpleNamespace(), ""), (None, "")],
    ids=["notebook", "terminal", "script"],
)
def test_back_test_shows_a_line_in_a_notebook_only(
    shell: object, lines: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]  # it stands in for a module
    research.backtest(PRICES.head(3), TARGETS, BAND)
    output = capsys.readouterr().out
    assert output.rpartition("\r")[2].strip() == lines
    assert output.endswith("\n") == bool(lines)
    research.backtest(PRICES.head(3), TARGETS, BAND, progress=lambda finished, total: None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("progress", "line"), [(True, "3 of 3"), (False, ""), (None, "")])
def test_a_script_gets_a_line_if_it_asks(progress: bool | None, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    research.backtest(PRICES.head(3), TARGETS, BAND, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == "", "it is not mixed with what the script prints"
    assert captured.err.rpartition("\r")[2].strip() == line


def test_line_updates_at_most_five_times_a_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())))  # type: ignore[arg-type]  # it stands in for a module
    monkeypatch.setattr("agent.research.progress.time.monotonic", lambda: now_s[0])
    show = progress.notebook_progress()
    assert show is not None
    for finished in range(1, 11):
        show("crash", finished, 10)
        now_s[0] += 0.125
    show("crash", 10, 10)
    updates = [line.strip() for line in capsys.readouterr().out.split("\r")[1:]]
    assert updates == [f"crash: {finished} of 10" for finished in (1, 3, 5, 7, 9, 10)]
