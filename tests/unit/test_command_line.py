"""The command line as somebody new meets it: headings, the help that fits a mistake, tables that a terminal has room for."""

from __future__ import annotations

import io
import sys

import pytest
import typer
from rich.console import Console
from typer.main import get_command

from agent.cli import journal
from agent.cli.ledger_tables import show_columns
from agent.cli.main import app, main
from agent.cli.output import in_words
from agent.cli.panels import PANELS, arrange

NAMES = ("from", *(f"figure {number}" for number in range(9)))
ROWS = [("2026-01-01", *(f"{10_000 + number:,}.25" for number in range(9))), ("2026-02-01", *(f"-{number}.5" for number in range(9)))]


def test_every_command_stands_below_one_heading_and_headings_keep_their_order() -> None:
    listed = [name for names in PANELS.values() for name in names]
    commands = get_command(app).commands  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    assert sorted(listed) == sorted(commands)
    seen = list(dict.fromkeys(command.rich_help_panel for command in commands.values()))
    assert seen == list(PANELS)


def test_a_command_without_a_heading_is_a_defect() -> None:
    other = typer.Typer()
    other.command()(test_a_command_without_a_heading_is_a_defect)
    with pytest.raises(KeyError):
        arrange(other)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("init",), "see trimtab init --help"),
        (("db", "restore"), "see trimtab db restore --help"),
        (("status", "--colour"), "see trimtab status --help"),
        (("nosuch",), "see trimtab --help"),
    ],
)
def test_a_mistake_names_the_help_of_its_command(
    words: tuple[str, ...], remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert remedy in capsys.readouterr().err


def test_what_is_waited_for_is_told_in_words() -> None:
    told = [in_words(stage) for stage in ("before:signed", "before:send", "after:send", "after:mined", "nonce 4: waiting 3 s to be mined")]
    assert told == ["writing down: signed", "sending", "sent", "written down: mined", "nonce 4: waiting 3 s to be mined"]


def test_no_transactions_are_told_by_a_sentence_and_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    journal._show({"transactions": [], "waiting": 0, "confirming": 0})
    assert capsys.readouterr().out == "No transaction is written down.\n"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_of_figures_cuts_none_whatever_the_width(width: int) -> None:
    file = io.StringIO()
    show_columns(Console(file=file, width=width), "Profit", NAMES, ROWS)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = file.getvalue().split()
    assert all(words.count(figure) == 1 for row in ROWS for figure in row[1:])
    assert words.count("from") == words.count("2026-01-01") == {40: 5, 80: 2, 200: 1}[width]
