"""Where a command's words go: one JSON document on stdout, or tables for people; errors with their exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from agent.errors import Refused, TrimtabError

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def emit(document: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Prints the document as JSON, or calls `show` for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        sys.stdout.flush()
    else:
        show()


def error_document(error: TrimtabError) -> dict[str, Any]:
    """The JSON document of an error."""
    body: dict[str, Any] = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy, "exit": error.exit_code}
    if isinstance(error, Refused):
        body["verdicts"] = [{"guard": v.guard, "measured": v.measured, "limit": v.limit, "passed": v.passed} for v in error.verdicts]
    return {"error": body}


def fail(error: TrimtabError, as_json: bool) -> int:
    """Prints an error where it belongs; returns its exit code."""
    if as_json:
        emit(error_document(error), True, lambda: None)
    err.print(f"[bold red]{_HEADS.get(error.exit_code, 'Error')}[/]: ", end="")
    err.print(error.message, markup=False)
    if error.remedy:
        err.print(f"  What to do: {error.remedy}", markup=False)
    return error.exit_code


_HEADS = {2: "Wrong input", 10: "Refused", 11: "Try again later", 12: "Operator needed"}


@contextmanager
def waiting(text: str, as_json: bool = False) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something takes its time; the yielded function changes its text."""
    if as_json or not err.is_terminal:
        yield lambda _: None
        return
    with err.status(text) as status:
        yield status.update
