"""Every command with --json has a declared document, and the golden documents fit theirs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main
from pydantic import TypeAdapter

from agent.cli.main import app
from tests.cli.documents import DOCUMENTS, require_declared

GOLDEN = sorted((Path(__file__).parents[1] / "golden" / "json").glob("*.json"))


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that prints a document."""
    if any("--json" in param.opts for param in command.params):
        yield " ".join(path)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))


def test_every_command_with_a_document_has_declared_it() -> None:
    assert set(commands(typer.main.get_command(app))) == DOCUMENTS.keys() - {"plan --input"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_document_fits_its_declaration(path: Path) -> None:
    document = json.loads(path.read_text())
    require_declared(tuple(shlex.split(document["command"])), document["document"])


def test_every_declaration_has_a_json_schema() -> None:
    for kind in DOCUMENTS.values():
        assert "$defs" in TypeAdapter(list[kind]).json_schema()
