"""Benchmark of several portfolios in one process against one: memory, processor time and lateness of
looks, requests of a block, and the read of a block for fifty wallets against fifty reads.

A local anvil has funded wallets, and a run of N portfolios looks at them in a process of its own, in
a dry run. Lateness is the time from when a look was due to its start. `--part bad` adds one portfolio
whose endpoint never answers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from eth_account import Account

from agent.app.service import StoppableClock
from agent.chain.endpoints import EndpointPool
from agent.chain.providers.block_reading import BlockReader
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.snapshot import ChainReader
from agent.fleet.members import FleetMember, FleetOptions
from agent.fleet.run import run_fleet
from agent.localchain import LocalChain, open_anvil
from agent.observe.logs import Redactor, configure
from scripts.bench.bench_snapshot import full_scope

WALLETS_A_READ = 50
TARGETS = {"WETH": "50%", "USDC": "50%"}
WARM_UP_ROUNDS = 2


def wallet(number: int) -> str:
    """Return the address of one of the benchmark's wallets."""
    address: str = Account.from_key(f"0x{0xABC000 + number:064x}").address
    return address


def write_configs(chain: LocalChain, folder: Path, count: int) -> list[Path]:
    """Write the configs of `count` funded wallets, which hold what their targets ask."""
    config_text = chain.config_text(targets=TARGETS)
    paths = []
    for number in range(count):
        address = wallet(number)
        chain.set_balances(
            {"WETH": 10**18, "USDC": int(chain.deployed_world.prices_usd["WETH"] * 10**6)}, address
        )
        chain.set_native(10**18, address)
        own_text = re.sub(
            r'address = "0x[0-9a-fA-F]{40}"', f'address = "{address}"', config_text, count=1
        )
        own_text = own_text.replace("test_account = 0", 'keystore = "wallet.json"')
        path = folder / f"p{number}" / f"p{number}.toml"
        path.parent.mkdir()
        path.write_text(own_text)
        path.chmod(0o600)
        paths.append(path)
    return paths


def measure_reads(chain: LocalChain, rounds: int) -> dict[str, Any]:
    """Return processor times of one read for all wallets and of a read for each."""
    endpoint = EndpointProvider(chain.url or "", "local")
    first_scope = full_scope(chain, endpoint)
    scopes = [replace(first_scope, owner=wallet(number)) for number in range(WALLETS_A_READ)]
    readers = [ChainReader([endpoint], chain.chain_id, scope, chain.clock, 1) for scope in scopes]
    block_reader = BlockReader(EndpointPool([endpoint], 1), chain.chain_id, chain.clock, 1)

    def read_together() -> None:
        for reader, reading in zip(readers, block_reader.read(scopes), strict=True):
            reader.snapshot_of(block_reader, reading)

    def read_answers_together() -> None:
        block_reader.read(scopes)

    def read_alone() -> None:
        for reader in readers:
            reader.snapshot()

    return {
        "wallets": WALLETS_A_READ,
        "together_cpu_ms": median_cpu_ms(read_together, rounds),
        "together_without_snapshots_cpu_ms": median_cpu_ms(read_answers_together, rounds),
        "alone_cpu_ms": median_cpu_ms(read_alone, max(1, rounds // 5)),
    }


def median_cpu_ms(action: Callable[[], object], rounds: int) -> float:
    """Return the median of the processor times of an action, ms."""
    action()
    times_ms = []
    for _ in range(rounds):
        began_s = time.process_time()
        action()
        times_ms.append(1_000 * (time.process_time() - began_s))
    return round(statistics.median(times_ms), 3)


def run_in_process(paths: Sequence[Path], every_s: int, rounds: int) -> dict[str, Any]:
    """Run the portfolios in a new process for some rounds, and return its figures."""
    command = [sys.executable, __file__, "--run", str(every_s), str(rounds), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_here(every_s: int, rounds: int, paths: Sequence[Path]) -> dict[str, Any]:
    """Run the portfolios until each has looked so many times, and return figures of this process.
    The first looks, which open the portfolios, are not counted.
    """
    clock = StoppableClock()
    lateness_s: list[float] = []
    cpu_s: list[float] = []
    look_count_by_name: dict[str, int] = {}
    lock = threading.Lock()
    look = FleetMember.look

    def timed_look(member: FleetMember) -> None:
        late_s = time.monotonic() - member.due_s
        began_s = time.thread_time()
        look(member)
        with lock:
            # a look before its time asks only whether something ends the wait
            if late_s >= 0 and look_count_by_name.get(member.name, 0) > WARM_UP_ROUNDS:
                lateness_s.append(late_s)
                cpu_s.append(time.thread_time() - began_s)

    def count(name: str, *_: object) -> None:
        with lock:
            look_count_by_name[name] = look_count_by_name.get(name, 0) + 1
            counts = [number for key, number in look_count_by_name.items() if key != "bad"]
            good_count = sum(path.stem != "bad" for path in paths)
            if len(counts) == good_count and min(counts) > WARM_UP_ROUNDS + rounds:
                clock.request_stop()

    FleetMember.look = timed_look  # type: ignore[method-assign]  # measured
    configure(None)
    run_fleet(paths, FleetOptions(f"{every_s}s"), Redactor(), count, clock)
    late_order = sorted(lateness_s)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "portfolios": len(paths),
        "every_s": every_s,
        "looks": len(lateness_s),
        "rss_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "look_cpu_ms": round(1_000 * statistics.median(cpu_s), 2),
        "lateness_s": {
            "median": round(statistics.median(late_order), 3),
            "p99": round(late_order[int(0.99 * (len(late_order) - 1))], 3),
        },
    }


@contextmanager
def silent_endpoint() -> Iterator[str]:
    """Yield the address of a server that accepts requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def measure(counts: Sequence[int], every_s: int, rounds: int, *, with_bad: bool) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        with open_anvil() as chain:
            paths = write_configs(chain, folder, max(*counts, WALLETS_A_READ))
            figures: dict[str, Any] = {"reads": measure_reads(chain, rounds * 5)}
            runs = [run_in_process(paths[:count], every_s, rounds) for count in counts]
            if with_bad:
                with silent_endpoint() as url:
                    bad_path = folder / "bad.toml"
                    bad_path.write_text(paths[-1].read_text().replace(chain.url or "", url))
                    bad_path.chmod(0o600)
                    runs.append(
                        {
                            "with_bad": True,
                            **run_in_process([*paths[: counts[-1] - 1], bad_path], every_s, rounds),
                        }
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    reads = figures["reads"]
    return {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
        "ours": {**figures, "runs": runs},
        "ratios": {
            "cpu of a read for all to reads for each": round(
                reads["together_cpu_ms"] / reads["alone_cpu_ms"], 4
            ),
            "memory to one": {
                run["portfolios"]: round(run["rss_mb"] / runs[0]["rss_mb"], 2)
                for run in runs[1 : len(counts)]
            },
        },
    }


def main() -> int:
    if sys.argv[1:2] == ["--run"]:
        every_s, rounds, *paths = sys.argv[2:]
        print(json.dumps(run_here(int(every_s), int(rounds), [Path(path) for path in paths])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--portfolios", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--every", type=int, default=10, help="seconds between two looks")
    parser.add_argument("--rounds", type=int, default=4, help="looks of each portfolio")
    parser.add_argument(
        "--part", choices=["bad"], help="also with a portfolio whose endpoint is silent"
    )
    options = parser.parse_args()
    figures = measure(
        options.portfolios, options.every, options.rounds, with_bad=options.part == "bad"
    )
    print(json.dumps(figures, indent=None if options.json else 1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
