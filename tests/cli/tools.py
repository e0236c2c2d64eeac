"""Runs commands as a user does, in this process or as processes of their own, and holds what they answered."""

from __future__ import annotations

import functools
import gc
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing import resource_tracker
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import pytest
import typer.main

from agent.cli.display.tables import FigureTable
from agent.cli.main import main
from agent.localchain import DEFAULT_WORLD, LocalChain
from agent.localchain.contracts import DeployedWorld, SpotContractAddresses
from agent.localchain.nodes import AnvilNode
from agent.units import Token
from tests.cli.documents import require_declared
from tests.cli.widths import MeasuringConsole, cut
from tests.support.preloaded import PreloadedProcess

TRIMTAB = [sys.executable, "-c", "from agent.cli.main import main; main()"]
"""The console script, by the interpreter that runs the tests."""
AT_ITS_TERMINAL = f"""
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
{TRIMTAB[-1]}
"""
"""The same in a new session: its terminal is what stdin is, and Ctrl-C reaches it, which a shell lets what it starts in the background,
and so all that this starts, ignore."""
STORE_ENDINGS = ("", "-wal", "-shm")
OPEN_FILES = 4096
"""More than a process of tests has."""
LEAD_S = 10
"""Seconds by which a chain that goes on by itself may be ahead, of the 30 that the guard head_age permits."""
SECRET = "canary7f3a"
"""Part of the endpoint's URL: it must show up nowhere."""


@dataclass(frozen=True)
class CommandResult:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def why(self) -> str:
        """What a failing test should show: the reason first."""
        document = json.loads(self.out) if self.out.startswith("{") else {}
        return f"exit {self.code}: {document.get('reason') or document.get('error')} {self.err}"

    @property
    def error(self) -> Any:
        """The error in the document."""
        return self.json["error"]


@dataclass(frozen=True)
class Desk:
    """A config on the served chain, with a store of its own."""

    config: Path
    node: AnvilNode
    about: dict[str, Any]
    run: Callable[..., CommandResult]

    def edit(self, *changes: tuple[str, str]) -> None:
        """Replaces pieces of the config, which must be there."""
        text = self.config.read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        self.config.write_text(text)

    def ask(self, *args: str, want: int = 0) -> Any:
        """The document of a command that is expected to end with the exit code `want`."""
        result = self.run(*args, "--json")
        assert result.code == want, result.why
        return result.json

    def holdings(self) -> dict[str, str]:
        """Base units by symbol."""
        return {item["symbol"]: item["raw"] for item in self.ask("status")["holdings"]}


def start(*args: str, program: type[subprocess.Popen[str]] = PreloadedProcess, **more: Any) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    return program([*TRIMTAB, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def first_document(process: subprocess.Popen[str]) -> Any:
    """The first JSON document on the process's stdout, once it is whole."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return json.loads(text)
    assert process.stderr is not None
    raise AssertionError(process.stderr.read())


def takes_config(args: tuple[str, ...]) -> bool:
    """Whether the command reads a config."""
    return args[0] not in ("localchain", "demo", "replay", "--version", "--help")


CHECKED: list[str] = []
"""Headings of the tables that commands have printed: none may be cut at any width."""
WHOLE: set[str] = set()
"""Tables that were found to be whole, by all that they show."""


def _checked(table: FigureTable, console: Any, options: Any, real: Any = FigureTable.__rich_console__) -> Any:
    if not isinstance(console, MeasuringConsole):  # drawing it does not check it anew
        CHECKED.append(table.heading.plain)
        rows = [[getattr(cell, "plain", cell) for cell in cells] for cells, _ in table.rows]
        drawing = repr((table.heading.plain, table.column_names, sorted(table.figure_columns), table.note, table.show_header, rows))
        if drawing not in WHOLE:
            assert not cut(table), cut(table)
            WHOLE.add(drawing)
    return real(table, console, options)


FigureTable.__rich_console__ = _checked  # type: ignore[method-assign]

typer.main.get_command = functools.cache(typer.main.get_command)
"""Typer builds the click commands of all of trimtab anew at each call, which takes longer than most of them: here once per process."""


def in_process(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> CommandResult:
    """A command in this process, through the same `main` that the console script calls."""
    monkeypatch.setattr(sys, "argv", ["trimtab", *args])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capfd.readouterr()
    result = CommandResult(int(ended.value.code or 0), captured.out, captured.err)
    assert "Traceback" not in result.out + result.err, result.err
    if "--json" in args and result.out.startswith("{"):
        require_declared(args, result.json)
    assert SECRET not in result.out + result.err, "an endpoint's URL was shown"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", result.out + result.err), "control codes outside a terminal"
    return result


@contextmanager
def blocks(url: str) -> Iterator[None]:
    """The chain goes on by itself meanwhile: blocks a second apart by its own clock, two a second until it leads by LEAD_S; further
    ahead of the machine's clock a long test would be refused for a head in the future.
    """
    done = threading.Event()
    node = AnvilNode(url)
    offset_s = node.now_s() - time.monotonic()

    def mine() -> None:
        while not done.wait(0.5):
            if node.now_s() < time.monotonic() + offset_s + LEAD_S:
                node.mine_at(node.now_s() + 1)

    thread = threading.Thread(target=mine, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def attach(desk: Desk) -> LocalChain:
    """The served chain with the verbs that change it: tokens, pools, feeds and prices as they were served."""
    chain = LocalChain(desk.node, DEFAULT_WORLD)
    document = tomllib.loads(desk.config.read_text())
    v2, v3 = document["venues"]
    known = {
        "weth": document["chain"]["wrapped_native"],
        "v2_factory": v2["factory"],
        "v2_router": v2["router"],
        "v3_factory": v3["factory"],
        "swap_router_02": v3["router"],
        "quoter_v2": v3["quoter"],
        "quoter_v1": v3["quoter_v1"],
    }
    # What the config does not name is not called here; approvals go to the position manager in its place.
    chain.addresses = SpotContractAddresses(
        **{field.name: known.get(field.name, v3["position_manager"]) for field in fields(SpotContractAddresses)}
    )
    chain.deployed_world = DeployedWorld(
        tokens={spec.symbol: Token(desk.about["tokens"][spec.symbol], spec.symbol, spec.decimals) for spec in DEFAULT_WORLD.tokens},
        kinds={spec.symbol: spec.kind for spec in DEFAULT_WORLD.tokens},
        prices_usd={spec.symbol: spec.price_usd for spec in DEFAULT_WORLD.tokens},
        feed_addresses=desk.about["feeds"],
        pool_by_name={},
        range_ends_by_pool={},
    )
    return chain


@dataclass(frozen=True)
class ForkedCommand:
    """A command in a child of this process, so that imports are paid once."""

    pid: int
    out: Path
    err: Path

    def told(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def document(self, within_s: float = 120) -> Any:
        """The first JSON document that it says, once it is whole."""
        end = time.monotonic() + within_s
        while not (text := self.out.read_text() if self.out.exists() else "").endswith("}\n"):
            assert time.monotonic() < end, self.err.read_text()
            assert os.waitpid(self.pid, os.WNOHANG)[0] == 0, self.err.read_text()
            time.sleep(0.05)
        return json.loads(text)

    def ended(self, within_s: float = 60) -> CommandResult:
        """Waits for its end; kills it and fails when that takes too long."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return CommandResult(os.waitstatus_to_exitcode(status), self.out.read_text(), self.err.read_text())
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {within_s} s: {self.err.read_text()}")


def forked(desk: Desk, *args: str, first: Callable[[], None] = lambda: None) -> ForkedCommand:
    """Starts a command on the desk's config, without a terminal; `first` is done in its process before. Returns once it has begun: a
    signal that comes earlier would meet this test's own code.
    """
    return forked_in(desk.config.parent, *args, "--config", str(desk.config), first=first)


def forked_in(folder: Path, *args: str, first: Callable[[], None] = lambda: None) -> ForkedCommand:
    """The same for a command with all its options; what it says is written in the folder."""
    place = folder / f"forked-{time.monotonic_ns()}"
    out = place.with_suffix(".out")
    err = place.with_suffix(".err")
    heard, begun = os.pipe()
    pid = os.fork()
    if pid:
        os.close(begun)
        os.read(heard, 1)
        os.close(heard)
        return ForkedCommand(pid, out, err)
    try:
        for stream, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        first()
        vars(resource_tracker._resource_tracker).update(_fd=None, _pid=None)  # of this test; the command starts its own
        os.closerange(3, OPEN_FILES)  # `begun`, the reader's end of file, and what is this test's own: servers, pipes
        _become(args)
    finally:
        os._exit(99)


def at_terminal(desk: Desk, answer: str, *args: str, within_s: float = 60, columns: int = 160) -> tuple[int, str]:
    """A command with a terminal for stdin, stdout and stderr; `answer` is typed when it asks. Exit code and all it showed, where it
    hangs also the stacks of its threads.
    """
    watched = f"import faulthandler; faulthandler.dump_traceback_later({within_s - 5}, file=2)"
    child, terminal = with_terminal(*args, "--config", str(desk.config), first=watched, env={"COLUMNS": str(columns)})
    screen = b""
    end = time.monotonic() + within_s
    answered = False
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:  # the child has closed its end
                break
        if b"[y/N]" in screen and not answered:
            os.write(terminal, answer.encode())
            answered = True
    else:
        child.kill()
    code = child.wait()
    os.close(terminal)
    return code, screen.decode()


def with_terminal(
    *args: str,
    first: str = "",
    env: Mapping[str, str] = MappingProxyType({}),
    program: type[subprocess.Popen[str]] = PreloadedProcess,
    **more: Any,
) -> tuple[subprocess.Popen[str], int]:
    """Start a command in a session of its own, whose terminal is stdin, stdout and stderr; return it and the other end of the terminal."""
    ours, theirs = pty.openpty()
    command = [*TRIMTAB[:-1], f"{first}{AT_ITS_TERMINAL}", *args]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", **env}
    child = program(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **more)
    os.close(theirs)
    return child, ours


def _become(args: tuple[str, ...]) -> NoReturn:
    """Makes this child process the command, on the descriptors it has by now."""
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 the descriptors themselves
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.freeze()  # what is this test's own has lost its descriptors, and is no part of the command
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = sys.__unraisablehook__
    sys.argv = ["trimtab", *args]
    try:
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))
    except KeyboardInterrupt as early:  # before it heard any signal, on a machine that is busy
        os._exit(99 if "_run" in [frame.name for frame in traceback.extract_tb(early.__traceback__)] else 12)
    os._exit(99)
