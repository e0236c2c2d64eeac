"""The command line as somebody new meets it: headings, the help that fits a mistake, tables that a terminal has room for."""

from __future__ import annotations

import sys

import pytest
from typer.main import get_command

from agent.cli import history, options
from agent.cli.display.terminal import format_stage
from agent.cli.ledger import figures_table
from agent.cli.main import app, main
from agent.cli.options import Heading
from tests.cli.widths import cut, drawn
from tests.support.text import mentions

NAMES = ("from", *(f"figure {number}" for number in range(9)))
ROWS = [("2026-01-01", *(f"{10_000 + number:,}.25" for number in range(9))), ("2026-02-01", *(f"-{number}.5" for number in range(9)))]


def test_commands_stand_below_headings_in_order() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    assert list(dict.fromkeys(command.rich_help_panel for command in commands)) == [heading.value for heading in Heading]
    assert len(commands) == len(options.DECLARED_COMMANDS)


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
    told = [
        format_stage(stage) for stage in ("before:signed", "before:send", "after:send", "after:mined", "nonce 4: waiting 3 s to be mined")
    ]
    assert told == ["recording: signed", "sending", "sent", "recorded: mined", "nonce 4: waiting 3 s to be mined"]


def test_no_transactions_are_told_by_a_sentence_and_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    history._show_transactions({"transactions": [], "waiting": 0, "confirming": 0})
    assert mentions(capsys.readouterr().out, "No transaction")


def test_profit_and_loss_is_stacked_on_a_narrow_terminal() -> None:
    made = figures_table("Profit", NAMES, ROWS)
    assert cut(made) == []
    assert drawn(made, 40).split().count("2026-01-01") == 1
    assert "  figure 0  10,000.25" in drawn(made, 40).splitlines()
    assert len(drawn(made, 200).splitlines()) == 6
