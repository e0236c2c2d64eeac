#!/usr/bin/env python3
"""Benchmark of `trimtab status` on a local chain, with and without cached bytecode, and the share of
imports. Prints JSON.

Processor seconds count, since other programs on the machine slow the clock. The time of imports is
that of the outermost import statements. Without bytecode the cache folder is empty, and none is
written.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRIMTAB = ["-c", "from agent.cli.main import main; main()"]
IMPORT_TIMER_PROGRAM = """
import atexit, builtins, sys, time
real, spent, inside = builtins.__import__, 0.0, False
def timed(*arguments, **named):
    global spent, inside
    if inside:
        return real(*arguments, **named)
    inside, began = True, time.process_time()
    try:
        return real(*arguments, **named)
    finally:
        inside, spent = False, spent + time.process_time() - began
builtins.__import__ = timed
atexit.register(lambda: print("imports:", len(sys.modules), spent, file=sys.stderr))
from agent.cli.main import main
main()
"""
"""Program that runs the command and reports the number of imported modules and the processor seconds
of the imports."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_status(config: Path, program: list[str], **environment: str) -> tuple[float, float, str]:
    """Return (wall seconds, processor seconds, stderr) of one `status`."""
    command = [sys.executable, *program, "status", "--config", str(config)]
    usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    process = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.perf_counter() - began_s,
        usage.ru_utime + usage.ru_stime - usage_before.ru_utime - usage_before.ru_stime,
        process.stderr,
    )


def parse_import_figures(stderr: str) -> tuple[int, float]:
    """Return (modules, processor seconds) from the output of `IMPORT_TIMER_PROGRAM`."""
    (figure_texts,) = (line.split() for line in stderr.splitlines() if line.startswith("imports: "))
    return int(figure_texts[1]), float(figure_texts[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "local.toml"
        empty_cache = Path(folder) / "empty"
        serve_command = [
            sys.executable,
            *TRIMTAB,
            "localchain",
            "--port",
            str(free_port()),
            "--write-config",
            str(config),
        ]
        chain = subprocess.Popen(
            serve_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not config.is_file():
                if chain.poll() is not None:
                    raise SystemExit("the local chain did not start")
                time.sleep(0.2)
            run_status(config, TRIMTAB)  # runs migrations, and writes missing bytecode
            no_bytecode = {"PYTHONPYCACHEPREFIX": str(empty_cache), "PYTHONDONTWRITEBYTECODE": "1"}
            with_bytecode = [run_status(config, TRIMTAB) for _ in range(runs)]
            without_bytecode = [run_status(config, TRIMTAB, **no_bytecode) for _ in range(runs)]
            import_figures = [
                parse_import_figures(run_status(config, ["-c", IMPORT_TIMER_PROGRAM])[2])
                for _ in range(runs)
            ]
        finally:
            chain.send_signal(signal.SIGINT)
            chain.wait()
    figures = {
        "status_clock_s": statistics.median(measurement[0] for measurement in with_bytecode),
        "status_processor_s": statistics.median(measurement[1] for measurement in with_bytecode),
        "without_bytecode_clock_s": statistics.median(
            measurement[0] for measurement in without_bytecode
        ),
        "without_bytecode_processor_s": statistics.median(
            measurement[1] for measurement in without_bytecode
        ),
        "imports_s": statistics.median(seconds for _, seconds in import_figures),
        "imports_least_s": min(seconds for _, seconds in import_figures),
        "modules": import_figures[0][0],
        "runs": runs,
    }
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
