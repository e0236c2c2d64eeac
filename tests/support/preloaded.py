"""Python processes that begin with the agent's modules loaded, as children of the test that starts them.

Loading them takes longer than most commands. A fresh interpreter, which runs nothing of the tests, loads them once per process of tests;
each program is a fork of it. What looks at the terminal and the environment when it is loaded, agent.cli, each fork loads itself. Tests
that judge the start (imports, environment, command line, encodings) start interpreters.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODULES = ("agent.app.agent", "agent.app.settings", "web3", "tomlkit", "typer", "rich.status", "rich.table", "fastapi", "uvicorn")
MOST_BYTES = 1 << 17
"""Of a program with its arguments and environment."""
OPEN_FILES = 4096
SET_CHILD_SUBREAPER = 36
"""Option of Linux's prctl: orphans below this process become its children."""
STARTS = threading.Lock()


@cache
def _loader() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that loads the modules; return the connection to it, and itself. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = f"from tests.support.preloaded import program; exec(program({theirs.fileno()}))"
    loader = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return ours, loader


def program(connection: int) -> str:
    """Load the modules and fork at each request; return, in each fork, the program that it has to run."""

    for name in MODULES:
        import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    channel = socket.socket(fileno=connection)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads do not live on in a fork"
    while True:
        message, streams, _, _ = socket.recv_fds(channel, MOST_BYTES, 3)
        if not message:
            os._exit(0)
        if (parent := os.fork()) == 0:
            if child := os.fork():
                channel.send(str(child).encode())
                os._exit(0)  # the test inherits the child
            channel.detach()
            return _begin(json.loads(message), streams)
        os.waitpid(parent, 0)
        channel.send(b"inherited")
        for stream in streams:
            os.close(stream)


def _begin(request: dict[str, Any], streams: list[int]) -> str:
    """Give this process what a new interpreter would have; return its program."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, OPEN_FILES)
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = ["-c", *request["arguments"]]
    sys.orig_argv[:] = [sys.executable, "-c", request["program"], *request["arguments"]]  # what starts itself anew reads it
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 the descriptors themselves
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    return str(request["program"])


class PreloadedProcess(subprocess.Popen[str]):
    """A Popen of `[sys.executable, "-c", program, *arguments]` in which the agent's modules are loaded already."""

    def _execute_child(self, *arguments: Any) -> None:
        from tests.support.worlds import SHORTCUTS  # not at the top: the process that loads modules loads none of the tests

        options = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments  # type: ignore[attr-defined]
        command = options["args"]
        if not SHORTCUTS or sys.platform != "linux":
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        assert command[:2] == [sys.executable, "-c"], command
        assert (options["preexec_fn"], options["pass_fds"]) == (None, ()), "not passed on"
        message = {
            "program": command[2], "arguments": command[3:], "folder": str(options["cwd"] or Path.cwd()),
            "environment": dict(os.environ if options["env"] is None else options["env"]),
            "session": options["start_new_session"],
        }  # fmt: skip
        streams = [options[name] if options[name] >= 0 else number for number, name in enumerate(("p2cread", "c2pwrite", "errwrite"))]
        with STARTS:
            prctl = ctypes.CDLL(None).prctl
            channel, _ = _loader()
            prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(channel, [json.dumps(message).encode()], streams)
                self.pid = int(channel.recv(MOST_BYTES) or 0)
                assert channel.recv(MOST_BYTES) == b"inherited", "the process that loads modules has ended"
            finally:
                prctl(SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(options[end] for end in ends))  # type: ignore[attr-defined]
