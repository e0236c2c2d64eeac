"""A signal in the midst of the start of a process: the process gets its work first, and both end without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

SIGNAL_AT_START = """
import os, signal, sys, threading, time
from multiprocessing import popen_spawn_posix, resource_tracker, util
from pathlib import Path

resource_tracker.ensure_running()
spawn = util.spawnv_passfds

def spawn_and_signal(*arguments):
    pid = spawn(*arguments)
    print(pid, flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.2)
    return pid

util.spawnv_passfds = spawn_and_signal
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.argv[2] == "True":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
READING_PROCESS = """
from agent.web.reading import AppProcess
from agent.web.stopping import end_at_signal

process = AppProcess()
with end_at_signal():
    process.submit(time.sleep, 60)
    print("not ended", flush=True)
process.stop()
"""
DASHBOARD = """
from agent.web.server import DashboardProcess
from agent.web.stopping import end_at_signal

with end_at_signal():
    DashboardProcess(Path("absent.toml"), 0)
    print("not ended", flush=True)
"""
PARENTS = {"a process that reads": READING_PROCESS, "a dashboard": DASHBOARD}


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("has_thread", [False, True], ids=["one thread", "two threads"])
@pytest.mark.parametrize("parent", PARENTS)
def test_a_start_is_not_cut_in_half(parent: str, has_thread: bool, signal_number: int, tmp_path: Path) -> None:
    """A mask holds for one thread: the system gives the signal to the other, and the main thread hears of it."""
    program = tmp_path / "parent.py"
    statements = SIGNAL_AT_START + PARENTS[parent]
    program.write_text("if __name__ == '__main__':\n" + textwrap.indent(statements, "    "))
    command = [sys.executable, str(program), str(int(signal_number)), str(has_thread)]
    parent_process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert parent_process.stderr == ""
    assert parent_process.returncode == 0
    started = parent_process.stdout.split()
    assert len(started) == 1, "it ends before its next statement"
    assert not Path(f"/proc/{started[0]}").exists()


def test_a_started_process_ends_at_sigterm(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys, time\n"
        "from agent.web.reading import AppProcess\n"
        "if __name__ == '__main__':\n"
        "    process = AppProcess()\n"
        "    process.submit(time.time).result()\n"
        "    print(*process._pool._processes, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent_process:
        pid = int(parent_process.stdout.readline())
        os.kill(pid, signal.SIGTERM)
        status = Path(f"/proc/{pid}/status")
        deadline_s = time.monotonic() + 10
        with suppress(FileNotFoundError, ProcessLookupError):
            while "State:\tZ" not in status.read_text():
                assert time.monotonic() < deadline_s, "it did not end"
                time.sleep(0.05)
        parent_process.communicate("", timeout=60)
    assert parent_process.returncode == 0
