"""The container file: it is hardened, and every command in it exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from agent.cli.main import app

ROOT = Path(__file__).parent.parent.parent
CONTAINER = ROOT / "scripts" / "Containerfile"


def require_command(words: list[str]) -> None:
    """`trimtab` with these words is a command with options that exist, and the values they take."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]  # click's Group, which Typer makes of several commands
    command.make_parser(command.context_class(command)).parse_args(words[1:])
    options = {option: param for param in command.params for option in param.opts}
    assert all(word in options for word in words[1:] if word.startswith("-")), words


def test_a_command_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--nowhere"):
        require_command(["run", "--nowhere"])


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", "\n".join(line for line in CONTAINER.read_text().splitlines() if not line.startswith("#")))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def test_the_container_runs_trimtab_itself_and_not_as_root() -> None:
    found = instructions()
    last = dict(found[max(i for i, (name, _) in enumerate(found) if name == "FROM") :])
    assert json.loads(last["ENTRYPOINT"]) == ["trimtab"], "the exec form: signals reach the program"
    require_command(json.loads(last["CMD"]))
    assert last["USER"].split(":")[0].isdecimal()
    assert int(last["USER"].split(":")[0]) > 0
    assert last["STOPSIGNAL"] == "SIGTERM"
    program, *words = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    require_command(words)
    assert (program, words[0]) == ("trimtab", "health")
    assert words[words.index("--config") + 1] in json.loads(last["CMD"]), "the config of the run beside it"


def test_what_the_container_copies_is_there_and_no_secret_is_built_in() -> None:
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
        assert name not in ("ADD", "ARG")
        assert "://" not in value
    assert any("--require-hashes" in value for _, value in instructions())
