"""Commands as processes of their own at a terminal, where keys and passwords are typed unseen."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.tools import with_terminal


@dataclass(frozen=True)
class TerminalRun:
    """How a command ended, what its terminal showed, and what `ps` could show of it meanwhile."""

    code: int
    screen_text: str
    command_line: bytes


def typed(replies: Sequence[tuple[str, str]], *args: str, within_s: float = 120, **more: Any) -> TerminalRun:
    """Runs `trimtab` at a terminal; each reply is typed when its prompt has been shown. The command line is its own where it is not
    preloaded.
    """
    child, terminal = with_terminal(*args, **more)
    screen = b""
    answered = 0
    end = time.monotonic() + within_s
    remaining = list(replies)
    command_line = b""
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:  # the child has closed its end
                break
        if remaining and remaining[0][0].encode() in screen[answered:]:
            answered = len(screen)
            command_line += Path(f"/proc/{child.pid}/cmdline").read_bytes()
            os.write(terminal, remaining.pop(0)[1].encode() + b"\n")
    else:
        child.kill()
    code = child.wait()
    os.close(terminal)
    assert not remaining, screen.decode()
    return TerminalRun(code, screen.decode(), command_line)
