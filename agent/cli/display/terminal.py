"""Output and exit of commands: tables or one JSON document on stdout, errors with exit codes,
prompts. Ctrl-C ends offline commands within a second, others within seconds: with exit code 12
where --send was given, else with 130.
"""

from __future__ import annotations

import atexit
import codecs
import errno
import functools
import getpass
import json
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.status import Status
from rich.text import Text

from agent.cli.display.hints import completed_hints
from agent.errors import (
    ConfigError,
    Interrupted,
    NotAccepted,
    OperatorNeeded,
    Refused,
    TrimtabError,
)
from agent.figures import reader_text
from agent.foreign_text import key_like_texts, without_parts_of

Document = Mapping[str, Any]
"""A document of agent/app/documents."""
PIPED_COLUMNS = 100_000
"""Width of piped output unless COLUMNS is set, so that lines and tables are not wrapped."""

READING_CHAIN_TEXT = "Reading the chain"


class Output(Console):
    """Console that leaves wrapping of free text to the terminal, so that copied or piped paths and
    figures stay whole.
    """

    @property  # type: ignore[misc]  # a read-only attribute of Console
    def size(self) -> ConsoleDimensions:
        """Width of the terminal, or of COLUMNS."""
        size = super().size
        if self.is_terminal or os.environ.get("COLUMNS", "").isdigit():
            return size
        return ConsoleDimensions(PIPED_COLUMNS, size.height)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print like Console; plain text is not wrapped when piped."""
        if not self.is_terminal and all(
            isinstance(printed_object, str | Text)
            or getattr(printed_object, "prints_as_text", False)
            for printed_object in objects
        ):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)


err = Output(stderr=True, highlight=False)
out = Output(highlight=False)

ANSWER_TIMEOUT_S = 300.0
"""Seconds to wait for an answer. The process may hold the wallet's lock and block a run meanwhile.
"""
_UNPRINTABLE_PATTERN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)
"""Control codes, and marks that reorder or hide text. Untrusted text must not control the owner's
terminal (T17).
"""


def escape_control_codes(text: str) -> str:
    """Return the text with terminal control characters escaped."""
    return _UNPRINTABLE_PATTERN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def safe_text(text: object, style: str = "") -> Text:
    """Return free text safe for the terminal: no markup, no control codes, figures as `reader_text`
    writes them, commands with the config of this one, and long words wrapped instead of truncated.
    """
    return exact_text(completed_hints(reader_text(str(text))), style)


def exact_text(text: str, style: str = "") -> Text:
    """Return the same for what an owner signs or copies: with all digits of its figures."""
    return Text(escape_control_codes(text), style=style, overflow="fold")


def say(text: str) -> None:
    """Print a line of free text on stdout."""
    out.print(safe_text(text))


def say_whole(text: str) -> None:
    """Print a line to be copied on stdout, without line breaks at the terminal's width."""
    out.print(exact_text(text), soft_wrap=True)


def spaced_time(iso_time: str) -> str:
    """Return an ISO time in UTC with a space in place of "T", and without "Z"."""
    return iso_time.replace("T", " ").removesuffix("Z")


def note(text: str) -> None:
    """Print a line of free text on stderr."""
    err.print(safe_text(text))


def emit(
    document: Document, as_json: bool, show: Callable[[], None], one_line: bool = False
) -> None:
    """Print the document as JSON, or call `show`. With `one_line`, the document is one line, for
    commands that print many.
    """
    if as_json:
        sys.stdout.write(json.dumps(document, indent=None if one_line else 2) + "\n")
        sys.stdout.flush()
    else:
        show()


def without_known_secrets(text: str) -> str:
    """Return the text without the secrets of the configs that this process has loaded, and without
    keys and recovery phrases that were typed as arguments (T18).
    """
    text = without_parts_of(text, key_like_texts(*sys.argv))
    # not imported here: without that module no config was loaded, and a signal may interrupt imports
    known_secrets = sys.modules.get("agent.config.secrets.known")
    return text if known_secrets is None else str(known_secrets.without_known_secrets(text))


def error_document(error: TrimtabError) -> dict[str, Any]:
    """Return the JSON document of an error."""
    error_fields: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": without_known_secrets(error.message),
        "remedy": without_known_secrets(error.remedy),
        "exit": error.exit_code,
        "docs": f"refusals.html#{error.code or f'exit-{error.exit_code}'}",
    }
    if error.code:
        error_fields["code"] = error.code
    if isinstance(error, Refused | NotAccepted):
        error_fields["verdicts"] = [
            {
                "guard": verdict.guard,
                "measured": verdict.measured_text,
                "limit": verdict.limit,
                "passed": verdict.passed,
            }
            for verdict in error.verdicts
        ]
    if (
        proposal_path := getattr(error, "proposal_path", None)
    ) is not None:  # a proposal awaiting its signer
        error_fields["proposal"] = {"file": proposal_path, **getattr(error, "proposal", {})}
    return {"error": error_fields}


def print_error(error: TrimtabError, as_json: bool, one_line: bool = False) -> int:
    """Print an error as text or JSON; return its exit code."""
    if as_json:
        emit(error_document(error), True, lambda: None, one_line)
    title, message = title_and_message(error)
    err.print(f"[bold red]{title}[/]:", safe_text(without_known_secrets(message)))
    if error.remedy:
        remedy = without_known_secrets(error.remedy).replace("\n", "\n  ")
        note(f"  What to do: {remedy}")
    return error.exit_code


ERROR_TITLES = {
    2: "Wrong input",
    10: "Refused",
    11: "Try again later",
    12: "Operator needed",
    130: "Interrupted",
}


def title_and_message(error: TrimtabError) -> tuple[str, str]:
    """Return the title of an error, else of its exit code, and its message without that title."""
    title = error.title or ERROR_TITLES.get(error.exit_code, "Error")
    return title, error.message.removeprefix(f"{title.lower()}: ")


def is_interactive() -> bool:
    """Return whether a user can answer: the question goes to stderr, the answer comes from
    stdin.
    """
    return sys.stdin.isatty() and sys.stderr.isatty()


def hidden_prompt() -> Callable[[str], str] | None:
    """Return the prompt for a secret, which shows nothing typed; None if stdin is not a
    terminal.
    """
    return getpass.getpass if sys.stdin.isatty() else None


def require_answerable(yes: bool) -> None:
    """Raise ConfigError up front if a confirmation is needed and no user can answer."""
    if not yes and not is_interactive():
        raise ConfigError(
            "a confirmation is needed, and there is no terminal to ask",
            "add --yes, or run it in a terminal",
        )


def ask(question: str) -> bool:
    """Ask on the terminal; return True only for "y" or "yes". End of input, or no answer within
    ANSWER_TIMEOUT_S, declines.
    """
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    err.print(safe_text(f"{question} [y/N]: "), end="")
    # poll, since a signal just before a blocking read would be handled only after the answer
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        if time.monotonic() >= deadline_s:
            note(f"\nNo answer within {ANSWER_TIMEOUT_S:.0f} s: declined.")
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
    """Progress text on stderr; without a terminal only a wait for the wallet, once."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self._noted_wait = ""

    def update(self, text: str) -> None:
        """Change the text."""
        if self._status is not None:
            self._status.update(safe_text(format_stage(text)))
        elif text.startswith("Waiting for the wallet: ") and text != self._noted_wait:
            self._noted_wait = text
            note(text)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the spinner during other output or a prompt."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()

    def ask(self, question: str, show: Callable[[], object]) -> bool:
        """Ask like `ask`, after `show`, with the spinner hidden."""
        with self.hidden():
            show()
            return ask(question)


@contextmanager
def show_spinner(text: str) -> Iterator[Spinner]:
    """Show a spinner on stderr during a long operation, on terminals only."""
    if not err.is_terminal:
        yield Spinner(None)
        return
    with err.status(safe_text(text)) as status:
        yield Spinner(status)


MAX_BAR_CELLS = 24
MIN_BAR_CELLS = 5


@dataclass(frozen=True, slots=True)
class WeightBar:
    """A weight as a bar of the available width, with `full_bps` as full width; excess and shortfall
    are highlighted.
    """

    weight_bps: int
    target_bps: int
    full_bps: int
    is_outside: bool

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(MIN_BAR_CELLS, MAX_BAR_CELLS)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, MAX_BAR_CELLS)
        weight_cells, target_cells = (
            round(bps / max(1, self.full_bps) * (width - 1))
            for bps in (self.weight_bps, self.target_bps)
        )
        gap_style = "red" if self.is_outside else "green"
        common_cells = min(weight_cells, target_cells)
        difference_cells = abs(weight_cells - target_cells)
        yield Text.assemble(
            ("━" * common_cells, "green" if weight_cells >= target_cells else gap_style),
            ("╌" * difference_cells if weight_cells < target_cells else "", gap_style),
            ("┃", "bold"),
            ("━" * difference_cells if weight_cells > target_cells else "", gap_style),
        )


OUTPUT_ERRNOS = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG}
ASCII_FORMS = {
    "✓": "v",
    "…": ".",
    "–": "-",
    "—": "-",
    "→": ">",
    "↳": ">",
    "≤": "<",
    "≥": ">",
    "×": "x",
    "·": ".",
    "\u00a0": " ",
} | {
    **dict.fromkeys("━", "="),
    **dict.fromkeys("─╌", "-"),
    **dict.fromkeys("┃│", "|"),
    **dict.fromkeys("╭╮╰╯", "+"),
    **dict.fromkeys("“”", '"'),
}
"""One ASCII character for each symbol, so that tables stay aligned."""


def replace_unencodable() -> None:
    """Replace characters that an output cannot encode by simpler ones from now on."""
    codecs.register_error("trimtab-plain", _to_ascii)
    for stream in (sys.stdout, sys.stderr):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        if not encoding.lower().replace("-", "").startswith("utf"):
            stream.reconfigure(errors="trimtab-plain")  # type: ignore[union-attr]  # text streams of the interpreter


def _to_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return (
        "".join(
            ASCII_FORMS.get(character, "?") for character in error.object[error.start : error.end]
        ),
        error.end,
    )


def is_output_error(error: OSError) -> bool:
    """Return whether the error concerns an output and not a named file."""
    return error.errno in OUTPUT_ERRNOS and error.filename is None


def report_lost_output(error: OSError) -> None:
    """Report the error on stderr if possible, and drop pending output, which would fail again at
    the interpreter's exit.
    """
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            os.write(
                2,
                f"Operator needed: cannot write: {os.strerror(error.errno or 0)}\n  What to do:"
                " free space, or write elsewhere\n".encode(),
            )
    null_fd = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(null_fd, stream.fileno())


P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[[int, FrameType | None], None]
GRACE_S = 0.25
"""Seconds for cleanup such as removing temporary folders. The exit does not wait for native code
that is still running.
"""
KILL_DELAY_S = 3.0
"""Seconds from Ctrl-C until a sending command is killed. Sent transactions are in the journal."""
RUN_KILL_DELAY_S = 5.0
"""Seconds from the second Ctrl-C until a long run is killed. The first requests a graceful stop."""
NOTHING_SENT_MESSAGE = "interrupted: no transaction was sent"
END_MESSAGES = {
    "demo": "interrupted: the demo's chain and its portfolio are gone",
    "telegram": "the bot has stopped; requests that it queued stay in the queue",
}
"""What Ctrl-C ends instead, by command."""
SETTLED_LATER_MESSAGE = (
    "interrupted. Sent transactions are in the journal; the next run settles them"
)
EXECUTION_MESSAGE = (
    "interrupted. Run the same command again: it waits for an execution that was sent, and sends one"
    " otherwise"
)


class ProcessExit:
    """Ends this process once: reports the error and skips the interpreter's shutdown, which would
    wait for threads.
    """

    def __init__(self, error: TrimtabError, is_graceful: bool) -> None:
        """Set the error; `is_graceful` first ends child processes and removes temporary folders."""
        self.error = error
        self._is_graceful = is_graceful
        self._exit_lock = threading.Lock()
        self._report_lock = threading.Lock()
        self._reported_by_command = False
        self.was_interrupted = False
        """True from the first Ctrl-C on."""

    def end_process(self) -> None:
        """End the process. Returns at once for every caller but the first."""
        if not self._exit_lock.acquire(blocking=False):
            return
        if self._report_lock.acquire(blocking=False):
            if "--json" in sys.argv:
                os.write(1, (json.dumps(error_document(self.error), indent=2) + "\n").encode())
            prefix = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""  # show the cursor after a spinner
            os.write(2, f"{prefix}{': '.join(title_and_message(self.error))}\n".encode())
        if self._is_graceful:
            for output_fd in (1, 2):  # silence threads that report their lost processes
                os.dup2(os.open(os.devnull, os.O_WRONLY), output_fd)
            if "multiprocessing" in sys.modules:
                for process in sys.modules["multiprocessing"].active_children():
                    process.terminate()
            atexit._run_exitfuncs()
        os._exit(self.error.exit_code)

    def claim_report(self) -> bool:
        """Return True if the command has to report its end itself. Blocks if this object already
        does.
        """
        if self._reported_by_command:
            return False
        if not self._report_lock.acquire(blocking=False):
            threading.Event().wait()
        self._reported_by_command = True
        return True

    def wait_if_begun(self) -> None:
        """Block the main thread once the exit has begun, since its result no longer counts."""
        if self._exit_lock.locked():
            threading.Event().wait()


def command_exit(arguments: Sequence[str]) -> ProcessExit:
    """Return the exit at Ctrl-C of the command with these arguments, its name first: with --send
    its transactions are settled later, without it nothing has left.
    """
    command_name = next(iter(arguments), "")
    if "--send" in arguments:
        is_execution = command_name == "proposal"
        sending_message = EXECUTION_MESSAGE if is_execution else SETTLED_LATER_MESSAGE
        return ProcessExit(OperatorNeeded(sending_message), is_graceful=False)
    message = END_MESSAGES.get(command_name, NOTHING_SENT_MESSAGE)
    return ProcessExit(Interrupted(message), is_graceful=False)


def interruptible(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command that moves no money and writes atomically, so that Ctrl-C ends it at once.

    No exception is raised inside the command, since libraries would report or swallow it.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if threading.current_thread() is not threading.main_thread():
            return command(*args, **kwargs)
        message = END_MESSAGES.get(command.__name__, NOTHING_SENT_MESSAGE)
        process_exit = ProcessExit(Interrupted(message), is_graceful=True)
        with _handling_interrupts(
            process_exit, lambda _signal, _frame: process_exit.end_process(), lambda: (GRACE_S,)
        ):
            return command(*args, **kwargs)

    return run


@contextmanager
def exit_after_interrupt(process_exit: ProcessExit) -> Iterator[None]:
    """Let Ctrl-C interrupt a command that may send. After KILL_DELAY_S, or at the next Ctrl-C, the
    process ends, even while a lock is held or threads wait for an endpoint.

    A run handles signals itself: the second Ctrl-C interrupts, and the third ends the process at
    once.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if process_exit.was_interrupted:
            process_exit.end_process()
        process_exit.was_interrupted = True
        raise KeyboardInterrupt

    def exit_delays() -> Sequence[float | None]:
        # `was_interrupted` covers a command that ends before this thread gets here
        if process_exit.was_interrupted or signal.getsignal(signal.SIGINT) is handle:
            return KILL_DELAY_S, GRACE_S
        return None, RUN_KILL_DELAY_S, GRACE_S

    old_hook = sys.unraisablehook

    def report_unraisable(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not KeyboardInterrupt:  # raised in a finalizer; the delay ends it
            old_hook(lost)

    sys.unraisablehook = report_unraisable
    try:
        with _handling_interrupts(process_exit, handle, exit_delays):
            yield
    finally:
        sys.unraisablehook = old_hook


@contextmanager
def _handling_interrupts(
    process_exit: ProcessExit, handler: Handler, exit_delays: Callable[[], Sequence[float | None]]
) -> Iterator[None]:
    """Pass Ctrl-C to `handler` and to a thread that ends the process after a delay, even if the
    command has ended. `exit_delays` returns the seconds for the first Ctrl-C, the second, and so on
    (None: do not end the process).
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    threading.Thread(
        target=_watch_interrupts,
        args=(read_end, exit_delays, process_exit.end_process),
        daemon=True,
    ).start()
    # the interpreter writes here even while the main thread is busy
    old_wakeup_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    old_handler = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        process_exit.wait_if_begun()
        signal.signal(signal.SIGINT, old_handler)
        signal.set_wakeup_fd(old_wakeup_fd)
        os.close(write_end)


def _watch_interrupts(
    read_end: int,
    exit_delays: Callable[[], Sequence[float | None]],
    end_process: Callable[[], None],
) -> None:
    press_count = 0
    deadline_s = float("inf")
    while True:
        timeout_s = None if deadline_s == float("inf") else max(0.0, deadline_s - time.monotonic())
        if not select.select([read_end], [], [], timeout_s)[0]:
            end_process()
            return
        signal_bytes = os.read(read_end, 64)
        if (
            not signal_bytes
        ):  # the command has ended, but the interpreter's exit may wait for threads
            os.close(read_end)
            if deadline_s < float("inf"):
                time.sleep(max(0.0, deadline_s - time.monotonic()))
                end_process()
            return
        for _ in range(signal_bytes.count(signal.SIGINT)):
            press_count += 1
            delays_s = exit_delays()
            if (delay_s := delays_s[min(press_count, len(delays_s)) - 1]) is not None:
                deadline_s = min(deadline_s, time.monotonic() + delay_s)
