"""A question: only yes is a yes, and an interrupt is heard even where no system call is interrupted by it."""

from __future__ import annotations

import _thread
import os
import pty
import signal
import threading
from collections.abc import Iterator

import pytest

from agent.cli.display import terminal
from agent.cli.display.terminal import Spinner, ask


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal for stdin; what is written to the number is typed."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield ours
    os.close(ours)


@pytest.mark.parametrize(
    ("answer", "is_yes"), [("y", True), ("YES", True), (" yes ", True), ("n", False), ("", False), ("yess", False), ("j", False)]
)
def test_only_yes_is_a_yes(typed: int, answer: str, is_yes: bool) -> None:
    os.write(typed, f"{answer}\n".encode())
    assert ask("Sign and send this?") is is_yes


def test_interrupt_just_before_the_read_blocks__is_heard(typed: int) -> None:
    """Python notes such a signal without the system call ending early: one that reads without looking up waits for an answer."""
    answers = threading.Timer(60, lambda: os.write(typed, b"n\n"))
    answers.daemon = True
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background may ignore it
    answers.start()
    threading.Timer(0.3, _thread.interrupt_main).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ask("Sign and send this?")
    finally:
        signal.signal(signal.SIGINT, before)
        answers.cancel()


def test_a_question_that_nobody_answers_is_a_no_in_the_end(typed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks may have the wallet: a run beside it could sell nothing at a stop for as long as the question stands."""
    late = threading.Timer(60, lambda: os.write(typed, b"y\n"))
    late.daemon = True
    monkeypatch.setattr(terminal, "ANSWER_TIMEOUT_S", 0.5)
    late.start()
    try:
        assert ask("Sign and send this?") is False
    finally:
        late.cancel()


def test_wait_for_the_wallet__is_noted_once_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wait_text = "Waiting for the wallet: another command (process 77) is acting for it; trimtab pause acts at once"
    spinner = Spinner(None)
    for text in ("before:send", wait_text, wait_text, "after:send"):
        spinner.update(text)
    output = capsys.readouterr()
    assert (" ".join(output.err.split()), output.out) == (wait_text, "")
