"""Ctrl-C in commands without a chain: within a second they and their processes are gone, with exit code 130."""

from __future__ import annotations

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
    "backtest": ("backtest", *TARGET, "--band", "1%rel", "--every-bar"),
    "stress in this process": ("stress", *TARGET, "--band", "5%rel", "--paths", "200000", "--scenarios", "crash", "--cores", "1", "--yes"),
    "stress in many": ("stress", *TARGET, "--band", "5%rel", "--paths", "200000", "--scenarios", "all", "--cores", "3", "--yes"),
    "tune": ("tune", *TARGET, "--band", "1%rel..20%rel:30", "--every", "1d,7d", "--full", "--cores", "2", "--yes"),
}  # fmt: skip
MOMENTS = (1.5, 6.0)


def group(leader: int) -> Iterator[tuple[int, str]]:
    """Processes of a session that are alive, with their command lines."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] not in "ZX":
                    yield int(path.name), (path / "cmdline").read_bytes().decode()
            except (OSError, IndexError):
                continue


@pytest.mark.parametrize(("name", "whole_group"), [*((name, True) for name in LONG), ("stress in many", False)])
def test_ctrl_c_ends_it_and_its_processes_within_a_second(name: str, whole_group: bool) -> None:
    for moment in MOMENTS:
        process = subprocess.Popen(
            [*TRIMTAB, *LONG[name]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        time.sleep(moment)
        assert process.poll() is None, process.communicate()
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        begun = time.monotonic()
        out, err = process.communicate(timeout=20)
        took = time.monotonic() - begun
        assert process.returncode == 130, (moment, out, err)
        assert took < 1.0, (moment, took)
        assert "Traceback" not in err and "Interrupted" in err, (moment, err)
        end = time.monotonic() + 2
        while (left := list(group(process.pid))) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, (moment, left)


def test_ctrl_c_as_json_is_one_document() -> None:
    process = subprocess.Popen([*TRIMTAB, *LONG["backtest"], "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert '"exit": 130' in out
