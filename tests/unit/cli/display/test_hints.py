"""Commands that texts name act on the config of the command that prints them."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import typer

from agent.cli.display import hints
from agent.cli.display.hints import RunningCommand, with_config
from agent.cli.main import app
from agent.cli.options import paper_hints

COMMANDS = frozenset({"rebalance", "run", "trust", "withdraw", "orders", "orders arm", "token add", "init", "history"})


@pytest.mark.parametrize(
    ("text", "completed_text"),
    [
        pytest.param("restart it with trimtab trust", "restart it with trimtab trust --config own/trimtab.toml", id="remedy"),
        pytest.param("Next: trimtab trust.", "Next: trimtab trust --config own/trimtab.toml.", id="next"),
        pytest.param(
            "trimtab trust, then trimtab run; see `trimtab run`",
            "trimtab trust --config own/trimtab.toml, then trimtab run --config own/trimtab.toml;"
            " see `trimtab run --config own/trimtab.toml`",
            id="three-hints",
        ),
        pytest.param("trimtab withdraw --resume 1", "trimtab withdraw --config own/trimtab.toml --resume 1", id="options"),
        pytest.param("trimtab orders arm WETH", "trimtab orders arm --config own/trimtab.toml WETH", id="group-and-argument"),
        pytest.param("trimtab orders", "trimtab orders --config own/trimtab.toml", id="group"),
        pytest.param("trimtab token add NAME", "trimtab token add --config own/trimtab.toml NAME", id="group-without-default"),
        pytest.param("(`trimtab run` does this)", "(`trimtab run --config own/trimtab.toml` does this)", id="back-ticks"),
        pytest.param("trimtab rebalance\nabove", "trimtab rebalance --config own/trimtab.toml\nabove", id="end-of-line"),
    ],
)
def test_hint_without_a_config__gets_it(text: str, completed_text: str) -> None:
    assert with_config(text, Path("own/trimtab.toml"), COMMANDS) == completed_text


@pytest.mark.parametrize(
    "text",
    [
        "trimtab docs xyzzy",
        "trimtab localchain --write-config own.toml",
        "trimtab token",
        "trimtab token list",
        "trimtab trust --config other.toml",
        "trimtab init --template core -c other.toml",
        "see trimtab orders arm --help",
        "trimtab writes every key",
        "the file own/trimtab.toml run by cron",
        "trimtab history's first row",
        "trimtab run-time",
        "",
    ],
)
def test_text_without_such_a_hint__stays(text: str) -> None:
    assert with_config(text, Path("own/trimtab.toml"), COMMANDS) == text


def test_config_of_another_hint__completes_none_before_it() -> None:
    text = "trimtab trust first, or end the other: trimtab run --config other.toml"
    assert with_config(text, Path("own.toml"), COMMANDS) == text.replace("trust", "trust --config own.toml")


def test_path_with_a_blank__is_quoted() -> None:
    assert with_config("trimtab run", Path("my own/a.toml"), COMMANDS) == "trimtab run --config 'my own/a.toml'"


@pytest.mark.parametrize(
    ("text", "completed_text"),
    [
        pytest.param("until trimtab orders arm WETH", "until trimtab orders arm --paper WETH", id="takes it"),
        pytest.param("trimtab orders --paper lists them", "trimtab orders --paper lists them", id="has it"),
        pytest.param("trimtab rebalance --send", "trimtab rebalance --send", id="has no such option"),
    ],
)
def test_hint_of_a_paper_portfolio__names_it(text: str, completed_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = RunningCommand(on_paper=True, paper_commands=frozenset({"orders", "orders arm"}))
    monkeypatch.setattr(hints, "running_command", command)
    assert hints.completed_hints(text) == completed_text


def test_hints_of_paper_pages__name_the_portfolio_wherever_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with click.Context(typer.main.get_command(app)):
        complete = paper_hints(Path("trimtab.toml"))
    config = f"--config {tmp_path / 'trimtab.toml'}"
    assert complete("until trimtab orders arm WETH") == f"until trimtab orders arm {config} --paper WETH"
    assert complete("trimtab edit --set policy.cooldown=1h") == f"trimtab edit {config} --set policy.cooldown=1h"
