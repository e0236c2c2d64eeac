"""Ctrl-C in commands without a chain: within a second all their processes are gone, with exit code 130; servers end without an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tools import TRIMTAB

pytest.importorskip("polars")
pytest.importorskip("numba")

TARGET = ("--sample", "--target", "BTC=40,ETH=30,USD=30")
LONG = {
    "backtest": ("backtest", *TARGET, "--band", "1%rel", "--every", "1h"),
    "backtest as JSON": ("backtest", *TARGET, "--band", "1%rel", "--every", "1h", "--json"),
    "stress in this process": ("stress", *TARGET, "--band", "5%rel", "--paths", "200000,cores=1", "--scenarios", "crash", "--yes"),
    "stress in many": ("stress", *TARGET, "--band", "5%rel", "--paths", "200000,cores=2", "--scenarios", "all", "--yes"),
    "tune": ("tune", *TARGET, "--band", "1%rel..20%rel:30", "--every", "1d,7d", "--run", "full,cores=2", "--yes"),
}  # fmt: skip
IMPORTS = 0.7
WORKS = 2.8
"""Processor seconds of all its processes after which it still imports, and after which it works, on a busy machine too."""
FEW_WORK = 3.5
MANY_WORK = 4.8
"""The same where other processes first import what they need: the kernel alone, or the whole agent."""
QUICK: tuple[tuple[str, bool, float], ...] = (("backtest", True, IMPORTS),)
LONGER = (
    ("stress in many", False, FEW_WORK),
    ("backtest as JSON", True, WORKS),
    ("stress in many", True, FEW_WORK),
    ("stress in many", True, IMPORTS),
    ("tune", True, IMPORTS),
    ("stress in this process", True, WORKS),
    ("tune", True, MANY_WORK),  # what shares work out among processes is the same for a stress test: agent/backtest/workers.py
)
CASES = (*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER))
"""Commands, whether all their processes hear it, and when."""
INTERRUPTED = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {TRIMTAB[2]}"
"""`trimtab`, which hears Ctrl-C even if a suite in the background ignores it."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def group(leader: int) -> Iterator[tuple[int, str, float]]:
    """Processes of a session that are alive, with their command lines and processor seconds."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    yield int(path.name), (path / "cmdline").read_bytes().decode(), (int(fields[11]) + int(fields[12])) / TICKS_PER_S
            except (OSError, IndexError):
                continue


def left_two_seconds_later(leader: int) -> list[tuple[int, str, float]]:
    """Processes of a session that have not ended two seconds after their leader."""
    end = time.monotonic() + 2
    while (members := list(group(leader))) and time.monotonic() < end:
        time.sleep(0.05)
    return members


def worked(process: subprocess.Popen[str], processor_s: float) -> None:
    """Waits until it has used so much."""
    end = time.monotonic() + 120
    while sum(used_s for _, _, used_s in group(process.pid)) < processor_s:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "whole_group", "moment"), CASES)
def test_ctrl_c_ends_it_and_its_processes_within_a_second(name: str, whole_group: bool, moment: float) -> None:
    process = subprocess.Popen([*TRIMTAB, *LONG[name]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    worked(process, moment)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    begun = time.monotonic()
    out, err = process.communicate(timeout=20)
    took = time.monotonic() - begun
    assert process.returncode == 130, (moment, out, err)
    assert took < 1.0, (moment, took)
    assert "Traceback" not in err, (moment, err)
    assert "Interrupted" in err, (moment, err)
    if "--json" in LONG[name]:
        assert json.loads(out)["error"]["exit"] == 130, "one document"
    else:
        assert out == "", out
    assert not (members := left_two_seconds_later(process.pid)), (moment, members)


def test_docs_end_without_a_word_at_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "build" / "site").mkdir(parents=True)
    (tmp_path / "build" / "site" / "index.html").touch()
    program = f"import pathlib; from agent import artifacts; artifacts._REPO = pathlib.Path({str(tmp_path)!r}); {INTERRUPTED}"
    process = subprocess.Popen([*TRIMTAB[:2], program, "docs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Documentation: http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_dashboard_terminated_at_its_start__leaves_nothing(tmp_path: Path) -> None:
    command = [*TRIMTAB[:2], INTERRUPTED, "serve", "--port", "0", "--config", str(tmp_path / "trimtab.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 120
    while not any("spawn_main" in command_line for _, command_line, _ in group(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0
    assert not left_two_seconds_later(process.pid)
