"""The same command for each of several portfolios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from agent.cli.display.hints import running_command
from agent.cli.display.terminal import Document, emit, error_document, print_error, say
from agent.errors import TrimtabError


@dataclass(frozen=True, slots=True)
class PortfolioAnswer:
    """What a command says about one portfolio: its document, how it is shown, and its exit code."""

    document: Document
    show: Callable[[], None]
    exit_code: int = 0


def answer_for_each(
    config: Sequence[Path] | None, as_json: bool, ask: Callable[[Path], PortfolioAnswer]
) -> None:
    """Show the answer about one config, or about several under their names. Of several, one that
    cannot be read is shown with its error, and the largest exit code counts.
    """
    from agent.fleet.configs import find_configs, portfolio_names

    config_paths = find_configs(config)
    if config is None or (len(config_paths) == 1 and not config[0].is_dir()):
        answer = ask(config_paths[0])
        emit(answer.document, as_json, answer.show)
        _exit_with(answer.exit_code)
        return
    exit_codes = []
    documents: list[Document] = []
    for path, (name, _) in zip(config_paths, portfolio_names(config_paths), strict=True):
        if not as_json:
            say(f"\n{name}:" if documents else f"{name}:")
        running_command.config = path
        try:
            answer = ask(path)
        except TrimtabError as error:
            documents.append({"portfolio": name, **error_document(error)})
            exit_codes.append(error.exit_code)
            if not as_json:
                print_error(error, as_json=False)
            continue
        documents.append({"portfolio": name, **answer.document})
        exit_codes.append(answer.exit_code)
        if not as_json:
            answer.show()
    emit({"portfolios": documents}, as_json, lambda: None)
    _exit_with(max(exit_codes))


def _exit_with(exit_code: int) -> None:
    if exit_code:
        raise typer.Exit(exit_code)
