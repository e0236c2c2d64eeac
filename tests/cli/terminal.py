"""Commands as processes of their own at a terminal, where keys and passwords are typed unseen."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cli.tools import TRIMTAB


@dataclass(frozen=True)
class Seen:
    """How a command ended, what its terminal showed, and what `ps` could show of it meanwhile."""

    code: int
    shown: str
    command_line: bytes


def typed(replies: Sequence[tuple[str, str]], *args: str, cwd: Path, env: Mapping[str, str] | None = None, within_s: float = 120) -> Seen:
    """Runs `trimtab` at a terminal; each reply is typed when its prompt has been shown."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what it runs in the background
            os.chdir(cwd)
            os.execvpe(TRIMTAB[0], [*TRIMTAB, *args], {**os.environ, "TERM": "xterm", "COLUMNS": "160", **(env or {})})
        finally:
            os._exit(99)
    shown, answered, end, left = b"", 0, time.monotonic() + within_s, list(replies)
    command_line = b""
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the child has closed its end
                break
        if left and left[0][0].encode() in shown[answered:]:
            answered = len(shown)
            command_line += Path(f"/proc/{child}/cmdline").read_bytes()
            os.write(terminal, left.pop(0)[1].encode() + b"\n")
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert not left, shown.decode()
    return Seen(os.waitstatus_to_exitcode(status), shown.decode(), command_line)
