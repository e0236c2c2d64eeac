"""The command line as somebody new meets it: headings, the help that fits a mistake, tables that a terminal has room for."""

from __future__ import annotations

import sys
from itertools import chain

import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from agent.cli import history, options
from agent.cli.display import help
from agent.cli.display.terminal import format_stage
from agent.cli.ledger import table_of_rows
from agent.cli.main import app, declared_commands, main
from agent.cli.options import Heading
from tests.cli.widths import cut, drawing_of
from tests.support.text import mentions

NAMES = ("from", *(f"figure {number}" for number in range(9)))
ROWS = [("2026-01-01", *(f"{10_000 + number:,}.25" for number in range(9))), ("2026-02-01", *(f"-{number}.5" for number in range(9)))]


def test_commands_stand_below_headings_in_order() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    assert list(dict.fromkeys(command.rich_help_panel for command in commands)) == [heading.value for heading in Heading]
    assert len(commands) == len(options.DECLARED_COMMANDS)


def printed(*words: str) -> Result:
    """What the command line prints of these words in a terminal of 80 columns."""
    return CliRunner().invoke(app, words, prog_name="trimtab", env={"COLUMNS": "80"})


@pytest.mark.parametrize("words", [("--help",), ("help",), ("-h",), ()])
def test_the_fifteen_commands_of_daily_use_fit_a_screen(words: tuple[str, ...]) -> None:
    result = printed(*words)
    assert result.exit_code == (0 if words else 2)
    lines = result.stdout.rstrip().splitlines()
    assert len(lines) < 24  # the prompt stands below
    assert max(map(len, lines)) <= 80
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == list(chain(*help.DAILY_COMMANDS.values()))
    assert len(set(listed)) == 15
    assert mentions(lines[-1], "trimtab help all")


def test_help_all_lists_every_command_once_below_its_heading() -> None:
    lines = printed("help", "all").stdout.splitlines()
    assert [line for line in lines[3:-2] if not line.startswith(" ")] == [*(heading.value for heading in Heading), "Options"]
    headings = {}
    heading = ""
    for line in lines[3:-2]:
        if not line.startswith(" "):
            heading = line
        elif line[2] not in " -":
            headings[line.split()[0]] = heading
    assert headings == {declared.name: declared.heading.value for declared in declared_commands()}


@pytest.mark.parametrize("words", [("whatif",), ("orders", "set"), ("alerts",)])
def test_help_of_a_command_is_its_own(words: tuple[str, ...]) -> None:
    assert printed("help", *words).stdout == printed(*words, "--help").stdout != printed("help").stdout


@pytest.mark.parametrize(("command", "old_name"), help.RENAMED_OPTIONS)
def test_an_old_name_of_an_option_is_read_as_the_present_one(command: str, old_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = help.RENAMED_OPTIONS[command, old_name]
    words = command.split()
    assert name in printed(*words, "--help").stdout
    assert old_name not in printed(*words, "--help").stdout
    assert help.with_present_names([*words, old_name, "1", f"{old_name}=2"]) == [*words, name, "1", f"{name}=2"]
    assert capsys.readouterr().err.splitlines()[0] == f"{old_name} is now {name}"
    assert help.with_present_names(["swap", old_name]) == ["swap", old_name]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("init",), "see trimtab init --help"),
        (("db", "restore"), "see trimtab db restore --help"),
        (("status", "--colour"), "see trimtab status --help"),
        (("nosuch",), "see trimtab --help"),
        (("quote", "WETH", "USDC", "0.1"), "write trimtab quote --in TOKEN_IN --out TOKEN_OUT --amount AMOUNT; see"),
        (("swap", "--in", "WETH"), "write trimtab swap --in TOKEN_IN --out TOKEN_OUT --amount AMOUNT; see trimtab swap --help"),
        (("token", "add"), "write trimtab token add NAME --scope SCOPE; see trimtab token add --help"),
        (("history", "--limit", "x"), "write a whole number from 1 to 10000; see trimtab history --help"),
        (("history", "--limit", "0"), "write a whole number from 1 to 10000; see trimtab history --help"),
        (("withdraw", "--resume", "1.5"), "write a whole number; see trimtab withdraw --help"),
        (("orders", "set"), "write trimtab orders set SUBJECT; see trimtab orders set --help"),
    ],
)
def test_a_mistake_names_the_help_of_its_command(
    words: tuple[str, ...], remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert remedy in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "words",
    [("status", "--config"), ("init", "--config"), ("export", "--config"), ("backtest", "--prices"), ("localchain", "--write-config")],
    ids=" ".join,
)
def test_path_that_the_system_refuses__is_named(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab", *words, "long" * 99])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert mentions(shown, "Wrong input: ", "longlong", "File name too long", "check the path")
    assert "bug" not in shown


def test_what_is_waited_for_is_told_in_words() -> None:
    stages_text = [
        format_stage(stage) for stage in ("before:signed", "before:send", "after:send", "after:mined", "nonce 4: waiting 3 s to be mined")
    ]
    assert stages_text == ["recording: signed", "sending", "sent", "recorded: mined", "nonce 4: waiting 3 s to be mined"]


def test_missing_transactions__are_a_sentence_and_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    history._show_transactions({"transactions": [], "waiting": 0, "confirming": 0})
    assert mentions(capsys.readouterr().out, "No transaction")


def test_profit_and_loss_is_stacked_on_a_narrow_terminal() -> None:
    figure_table = table_of_rows("Profit", NAMES, ROWS)
    assert cut(figure_table) == []
    assert drawing_of(figure_table, 40).split().count("2026-01-01") == 1
    assert "  figure 0  10,000.25" in drawing_of(figure_table, 40).splitlines()
    assert len(drawing_of(figure_table, 200).splitlines()) == 6
