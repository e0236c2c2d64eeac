"""Output of commands: one JSON document on stdout or tables, errors with exit codes, prompts."""

from __future__ import annotations

import json
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.status import Status
from rich.text import Text

from agent.errors import ConfigError, Refused, TrimtabError

Document = Mapping[str, Any]
"""A document of agent/app/documents."""
PIPED_COLUMNS = 100_000
"""Width of piped output unless COLUMNS is set, so that lines and tables are not wrapped."""

READING = "Reading the chain"


class Output(Console):
    """Console that leaves wrapping of free text to the terminal, so that copied or piped paths and
    figures stay whole.
    """

    @property  # type: ignore[misc]  # a read-only attribute of Console
    def size(self) -> ConsoleDimensions:
        """Width of the terminal, or of COLUMNS."""
        found = super().size
        if self.is_terminal or os.environ.get("COLUMNS", "").isdigit():
            return found
        return ConsoleDimensions(PIPED_COLUMNS, found.height)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print like Console; plain text is not wrapped when piped."""
        if not self.is_terminal and all(
            isinstance(one, str | Text) or getattr(one, "is_text", False) for one in objects
        ):
            how.setdefault("soft_wrap", True)
        super().print(*objects, **how)


err = Output(stderr=True, highlight=False)
out = Output(highlight=False)

PATIENCE_S = 300.0
"""Seconds to wait for an answer. The process may hold the wallet's lock and block a run meanwhile.
"""
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Control codes, and marks that reorder or hide text. Untrusted text must not control the owner's
terminal (T17).
"""


def printable(text: str) -> str:
    """Return the text with terminal control characters escaped."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(text: object, style: str = "") -> Text:
    """Return free text as a table cell: no markup, no control codes, and long words wrapped instead
    of truncated.
    """
    return Text(printable(str(text)), style=style, overflow="fold")


def say(text: str) -> None:
    """Print a line of free text on stdout."""
    out.print(cell(text))


def note(text: str) -> None:
    """Print a line of free text on stderr."""
    err.print(cell(text))


def emit(document: Document, as_json: bool, show: Callable[[], None], lines: bool = False) -> None:
    """Print the document as JSON, or call `show`. With `lines`, each document is one line, for
    commands that print many.
    """
    if as_json:
        sys.stdout.write(json.dumps(document, indent=None if lines else 2) + "\n")
        sys.stdout.flush()
    else:
        show()


def error_document(error: TrimtabError) -> dict[str, Any]:
    """Return the JSON document of an error."""
    body: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "remedy": error.remedy,
        "exit": error.exit_code,
    }
    if error.code:
        body["code"] = error.code
    if isinstance(error, Refused):
        body["verdicts"] = [
            {"guard": v.guard, "measured": v.measured, "limit": v.limit, "passed": v.passed}
            for v in error.verdicts
        ]
    if (place := getattr(error, "place", None)) is not None:  # a proposal awaiting its signer
        body["proposal"] = {"file": place, **getattr(error, "document", {})}
    return {"error": body}


def fail(error: TrimtabError, as_json: bool, lines: bool = False) -> int:
    """Print an error as text or JSON; return its exit code."""
    if as_json:
        emit(error_document(error), True, lambda: None, lines)
    err.print(f"[bold red]{HEADS.get(error.exit_code, 'Error')}[/]:", cell(error.message))
    if error.remedy:
        note(f"  What to do: {error.remedy}")
    return error.exit_code


HEADS = {
    2: "Wrong input",
    10: "Refused",
    11: "Try again later",
    12: "Operator needed",
    130: "Interrupted",
}


def interactive() -> bool:
    """Return whether a user can answer: the question goes to stderr, the answer comes from stdin."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_answerable(yes: bool) -> None:
    """Raise ConfigError up front if a confirmation is needed and no user can answer."""
    if not yes and not interactive():
        raise ConfigError(
            "a confirmation is needed, and there is no terminal to ask",
            "add --yes, or run it in a terminal",
        )


def ask(question: str) -> bool:
    """Ask on the terminal; return True only for "y" or "yes". End of input, or no answer within
    PATIENCE_S, declines.
    """
    until = time.monotonic() + PATIENCE_S
    err.print(cell(f"{question} [y/N]: "), end="")
    # poll, since a signal just before a blocking read would be handled only after the answer
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        if time.monotonic() >= until:
            note(f"\nNo answer within {PATIENCE_S:.0f} s: declined.")
            return False
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def ask_with_changes(lines: tuple[str, ...], question: str) -> bool:
    """Ask like `ask`, after printing unconfirmed config changes."""
    if lines:
        note("The config was changed since it was last confirmed:")
        for line in lines:
            note(f"  {line}")
    return ask(question)


def format_stage(stage: str) -> str:
    """Describe a progress stage as text; stages of a transaction have fixed names
    (SubmissionEvent).
    """
    match stage.split(":"):
        case ["before", "send"]:
            return "sending"
        case ["after", "send"]:
            return "sent"
        case ["before", state]:
            return f"recording: {state}"
        case ["after", state]:
            return f"recorded: {state}"
        case _:
            return stage


class Spinner:
    """Progress text on stderr; silent without a terminal."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def update(self, text: str) -> None:
        """Change the text."""
        if self._status is not None:
            self._status.update(cell(format_stage(text)))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the spinner during other output or a prompt."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()


@contextmanager
def spinner(text: str) -> Iterator[Spinner]:
    """Show a spinner on stderr during a long operation, on terminals only."""
    if not err.is_terminal:
        yield Spinner(None)
        return
    with err.status(cell(text)) as status:
        yield Spinner(status)


# --- A weight and its target as a bar of the available width.


BAR_CELLS, FEWEST_CELLS = 24, 5


@dataclass(frozen=True, slots=True)
class Bar:
    """A weight as a bar of the available width, with `full_bps` as full width; excess and shortfall
    are highlighted.
    """

    weight_bps: int
    target_bps: int
    full_bps: int
    outside: bool

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(FEWEST_CELLS, BAR_CELLS)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, BAR_CELLS)
        weight, target = (
            round(value / max(1, self.full_bps) * (width - 1))
            for value in (self.weight_bps, self.target_bps)
        )
        off = "red" if self.outside else "green"
        both, more = min(weight, target), abs(weight - target)
        yield Text.assemble(
            ("━" * both, "green" if weight >= target else off),
            ("╌" * more if weight < target else "", off),
            ("┃", "bold"),
            ("━" * more if weight > target else "", off),
        )
