"""What many portfolios cost: the table "Done when" of a fleet, as one JSON document, each row with its
bound, and met or not, or why it was not measured.

A local anvil has funded wallets, and a run of N portfolios looks at them in a process of its own, in
a dry run, with their stores in files or on PostgreSQL. Lateness is the time from when a look was due
to its start; a process counts from when each of its portfolios has looked twice, and what came before
is told apart. Long measurements have scripts of their own, which the table names. Exit code 1 if a row
was missed and the machine is no reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import requests.adapters
from eth_account import Account
from sqlalchemy import Connection, Engine, event

from agent import wiring
from agent.app.agent import Agent
from agent.app.service import StoppableClock
from agent.chain.endpoints import EndpointPool
from agent.chain.providers.block_reading import BlockReader
from agent.chain.providers.endpoint import EndpointProvider
from agent.chain.snapshot import ChainReader
from agent.config.load import load_config
from agent.errors import TrimtabError
from agent.execution.step_context import StepOutcome
from agent.fleet.members import FleetMember, FleetOptions
from agent.fleet.run import run_fleet
from agent.fleet.sharing import join_workers
from agent.localchain import LocalChain, open_anvil
from agent.observe.logs import Redactor, configure
from agent.store.database.connection import WRITE_FLAG
from scripts.bench.bench_snapshot import full_scope
from tests.support.endpoints import passing_on, serve
from tests.support.postgresql import Server, running_server

WALLETS_A_READ = 50
TARGETS = {"WETH": "50%", "USDC": "50%"}
WARM_UP_ROUNDS = 2
WARM_UP_LIMIT_S = 300
"""Longest time until a process serves its part: a worker whose companion has ended never does."""
BLOCK_S = 12
FAR_ENDPOINT_S = 0.2
SIGNER_VARIABLE = "TRIMTAB_BENCH_SIGNER"
WORKER_GROUP = "bench"
PARTS = ("fifty", "read", "bad", "workers")
OTHER_PARTS = {"large": "takes long", "single": "needs a tree from before the fleet (--before)"}
"""Parts that are measured if asked for, and why."""
SINGLE_LOOKS = 5
CORES_FOR_TWO_WORKERS = 4
LONG_ROWS = {
    "takeover after SIGKILL, s": (
        "<= 20",
        "pytest -m slow tests/postgresql/test_workers.py -k take_the_rest_over",
    ),
    "sent twice after SIGSTOP and SIGCONT, of 500": ("0", "scripts/check/stopped_workers.py"),
    "rebalances under database faults not done exactly once, of 500": (
        "0",
        "scripts/check/database_faults.py",
    ),
    "10,000 wallets, simulated: lateness p99, s": ("<= 5", "scripts/bench/fleet_schedule.py"),
}
"""Rows that take long: the bound, and the command that measures."""


@dataclass(frozen=True)
class RunSpec:
    """What a process of the benchmark runs: these configs, for so many seconds after each of its
    `served_count` portfolios has looked WARM_UP_ROUNDS times.
    """

    paths: tuple[str, ...]
    every_s: int
    seconds: int
    served_count: int
    is_worker: bool = False
    bad_name: str = ""
    """The portfolio whose looks do not count."""


class LookMeter:
    """Measures the looks of this process."""

    def __init__(self, spec: RunSpec, clock: StoppableClock) -> None:
        self.lateness_s: list[float] = []
        self.warm_lateness_s: list[float] = []
        self.commit_counts: list[int] = []
        self.outcomes: Counter[str] = Counter()
        self.request_count = 0
        self.request_count_at_end = 0
        self.cpu_s = 0.0
        self.elapsed_s = 0.0
        self._spec = spec
        self._clock = clock
        self._look = threading.local()
        self._lock = threading.Lock()
        self._count_by_name: Counter[str] = Counter()
        self._began_s = 0.0
        self._members: set[FleetMember] = set()

    def install(self) -> None:
        """Measure looks, HTTP requests and commits from now on."""
        look = FleetMember.look
        send = requests.adapters.HTTPAdapter.send

        def timed_look(member: FleetMember) -> None:
            self._members.add(member)
            self._look.late_s = max(0.0, time.monotonic() - member.due_s)
            self._look.commits = 0
            self._look.has_written = False
            look(member)

        def counted_send(*arguments: Any, **options: Any) -> Any:
            self.request_count += 1
            return send(*arguments, **options)

        FleetMember.look = timed_look  # type: ignore[method-assign]  # measured
        requests.adapters.HTTPAdapter.send = counted_send  # type: ignore[method-assign]  # measured
        event.listen(Engine, "before_cursor_execute", self._on_statement)
        event.listen(Engine, "commit", self._on_commit)
        limit = threading.Timer(WARM_UP_LIMIT_S, self._end_if_cold)
        limit.daemon = True
        limit.start()

    def _end_if_cold(self) -> None:
        if not self._began_s:
            print(f"{WARM_UP_LIMIT_S} s passed before the portfolios were served", file=sys.stderr)
            os._exit(1)

    def _on_statement(self, _: Connection, cursor: object, statement: str, *others: object) -> None:
        del cursor, others
        if statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self._look.has_written = True

    def _on_commit(self, db: Connection) -> None:
        if not hasattr(self._look, "commits"):
            return  # of no look
        self._look.commits += WRITE_FLAG in db.info or self._look.has_written
        self._look.has_written = False

    def on_result(self, name: str, _: Agent, result: StepOutcome | TrimtabError) -> None:
        """Count a look that has ended."""
        if name == self._spec.bad_name:
            return
        outcome = result.kind.value if isinstance(result, StepOutcome) else type(result).__name__
        with self._lock:
            self._count_by_name[name] += 1
            if not self._began_s:
                if self._count_by_name[name] > 1:  # the first one opens the portfolio
                    self.warm_lateness_s.append(self._look.late_s)
                if self._is_warm():
                    self._begin()
            elif not self.elapsed_s:
                self.outcomes[outcome] += 1
                self.lateness_s.append(self._look.late_s)
                self.commit_counts.append(self._look.commits)

    def _is_warm(self) -> bool:
        served = [
            member.name
            for member in list(self._members)
            if member.agent is not None and member.name != self._spec.bad_name
        ]
        return len(served) == self._spec.served_count and all(
            self._count_by_name[name] >= WARM_UP_ROUNDS for name in served
        )

    def _begin(self) -> None:
        self._began_s = time.monotonic()
        self.cpu_s = -time.process_time()
        self.request_count = 0
        threading.Timer(self._spec.seconds, self._end).start()

    def _end(self) -> None:
        with self._lock:
            self.elapsed_s = time.monotonic() - self._began_s
            self.cpu_s += time.process_time()
            self.request_count_at_end = self.request_count
        self._clock.request_stop()

    def figures(self) -> dict[str, Any]:
        """Return the figures of the looks that count."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        look_count = len(self.lateness_s)
        return {
            "portfolios": self._spec.served_count,
            "every_s": self._spec.every_s,
            "seconds": round(self.elapsed_s, 1),
            "looks": dict(self.outcomes),
            "looks_a_second": round(look_count / self.elapsed_s, 3),
            "rss_mb": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
            "cpu_ms_a_look": round(1_000 * self.cpu_s / look_count, 2),
            "requests_a_block": round(self.request_count_at_end * BLOCK_S / self.elapsed_s, 2),
            "commits_of_a_look": dict(Counter(self.commit_counts)),
            "lateness_s": quantiles(self.lateness_s),
            "warm_up_lateness_s": quantiles(self.warm_lateness_s),
        }


def quantiles(lateness_s: Sequence[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum."""
    if not lateness_s:
        return {}
    ordered = sorted(lateness_s)
    return {
        "median": round(statistics.median(ordered), 3),
        "p99": round(ordered[int(0.99 * (len(ordered) - 1))], 3),
        "max": round(ordered[-1], 3),
    }


def run_here(spec: RunSpec) -> dict[str, Any]:
    """Run the portfolios in this process; return its figures."""
    clock = StoppableClock()
    meter = LookMeter(spec, clock)
    meter.install()
    configure(None)
    paths = [Path(path) for path in spec.paths]
    options = FleetOptions(f"{spec.every_s}s")
    if spec.is_worker:
        options = replace(options, sends=True, share=join_workers(paths, WORKER_GROUP))
    run_fleet(paths, options, Redactor(), meter.on_result, clock)
    return meter.figures()


@dataclass(frozen=True)
class Bench:
    """Chain, server of PostgreSQL and folder of the measurements, and what the command line asks."""

    chain: LocalChain
    server: Server | None
    folder: Path
    options: argparse.Namespace

    def write_configs(self, name: str, count: int, url: str = "") -> list[Path]:
        """Write the configs of `count` funded wallets, which hold what their targets ask, into a
        folder, with stores in a new database if there is a server. Workers' keys are at a signer
        that nobody asks, since nothing is to be done.
        """
        is_worker = name == "workers"
        key_text = (
            f'signer_url_env = "{SIGNER_VARIABLE}"' if is_worker else 'keystore = "wallet.json"'
        )
        store_url = "sqlite:///trimtab.db"
        if self.server is not None and (is_worker or self.options.store == "postgresql"):
            store_url = self.server.new_database(name)
        config_text = self.chain.config_text(store_url, targets=TARGETS)
        config_text = config_text.replace("test_account = 0", key_text)
        config_text = config_text.replace(self.chain.url or "", url or self.chain.url or "")
        paths = []
        for number in range(count):
            address = wallet(number)
            self._fund(address)
            own_text = re.sub(
                r'address = "0x[0-9a-fA-F]{40}"', f'address = "{address}"', config_text, count=1
            )
            path = self.folder / name / f"p{number}" / f"p{number}.toml"
            path.parent.mkdir(parents=True)
            write_config(path, own_text)
            paths.append(path)
            if is_worker:  # the first one creates the tables, in which workers meet
                with wiring.open_store_offline(load_config(path)):
                    pass
        return paths

    def _fund(self, address: str) -> None:
        usd_raw = int(self.chain.deployed_world.prices_usd["WETH"] * 10**6)
        self.chain.set_balances({"WETH": 10**18, "USDC": usd_raw}, address)
        self.chain.set_native(10**18, address)

    def run(self, *specs: RunSpec) -> list[dict[str, Any]]:
        """Run a process for each of the specs, side by side; return their figures."""
        processes = []
        self.chain.warp(max(1, int(time.time()) - self.chain.now_s()))
        with mined_blocks(self.chain):
            for number, spec in enumerate(specs):
                variables = {SIGNER_VARIABLE: "http://127.0.0.1:9"}
                variables["XDG_STATE_HOME"] = str(self.folder / f"state{number}")
                command = [sys.executable, __file__, "--run", json.dumps(asdict(spec))]
                processes.append(
                    subprocess.Popen(
                        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
                    )
                )
            outputs = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            raise SystemExit("a process of the measurement failed; nothing was measured")
        return [json.loads(output.splitlines()[-1]) for output in outputs]

    def spec(self, paths: Sequence[Path], **fields: Any) -> RunSpec:
        """Return a run of all these portfolios at the usual pace."""
        usual = {
            "every_s": self.options.every,
            "seconds": self.options.seconds,
            "served_count": len(paths),
        }
        return RunSpec(tuple(map(str, paths)), **{**usual, **fields})


@contextmanager
def mined_blocks(chain: LocalChain) -> Iterator[None]:
    """Let a block be mined every BLOCK_S seconds."""
    ends = threading.Event()

    def mine() -> None:
        while not ends.wait(BLOCK_S):
            chain.node.mine_at(int(time.time()))

    thread = threading.Thread(target=mine, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def write_config(path: Path, text: str) -> None:
    """Write a config as its owner would keep it."""
    path.write_text(text)
    path.chmod(0o600)


def wallet(number: int) -> str:
    """Return the address of one of the benchmark's wallets."""
    address: str = Account.from_key(f"0x{0xABC000 + number:064x}").address
    return address


def row(
    figure: str,
    measured: float,
    limit: float,
    *,
    is_least: bool = False,
    why: str = "",
    **beside: Any,
) -> dict[str, Any]:
    """Return a measured row of the table. `why` is what makes a miss no fault of the program."""
    is_met = measured >= limit if is_least else measured <= limit
    fields = {
        "figure": figure,
        "must": f"{'>=' if is_least else '<='} {limit:g}",
        "measured": round(measured, 4),
        "met": is_met,
        **beside,
    }
    if not is_met and why:
        fields["why"] = why
    return fields


def measure_fifty(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure memory, requests of a block and commits of a hold."""
    count = bench.options.portfolios
    paths = bench.write_configs("fifty", count)
    (single,) = bench.run(bench.spec(paths[:1]))
    (many,) = bench.run(bench.spec(paths))
    rows = [
        row(f"memory of {count} portfolios to 1", many["rss_mb"] / single["rss_mb"], 1.9),
        row(
            f"requests a block, {count} wallets",
            many["requests_a_block"],
            2 + count / WALLETS_A_READ,
        ),
        row("commits of a hold", max(map(int, many["commits_of_a_look"])), 1),
    ]
    return rows, {"single": single, "many": many}


def measure_large(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure a process of many portfolios that look once a minute."""
    count = bench.options.large
    paths = bench.write_configs("large", count)
    (figures,) = bench.run(bench.spec(paths, every_s=60, seconds=max(180, bench.options.seconds)))
    rows = [
        row(f"memory of {count} portfolios, MB", figures["rss_mb"], 1_500),
        row(f"lateness p99 of {count} portfolios, s", figures["lateness_s"]["p99"], 5),
        row(
            f"requests a block, {count} wallets",
            figures["requests_a_block"],
            2 + count / WALLETS_A_READ,
        ),
    ]
    return rows, figures


def measure_read(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure the processor time of one read for all wallets and of a read for each."""
    chain = bench.chain
    rounds = bench.options.rounds
    endpoint = EndpointProvider(chain.url or "", "local")
    first_scope = full_scope(chain, endpoint)
    scopes = [replace(first_scope, owner=wallet(number)) for number in range(WALLETS_A_READ)]
    readers = [ChainReader([endpoint], chain.chain_id, scope, chain.clock, 1) for scope in scopes]
    block_reader = BlockReader(EndpointPool([endpoint], 1), chain.chain_id, chain.clock, 1)

    def read_together() -> None:
        block_reader.read(scopes)

    def read_each() -> None:
        for scope in scopes:
            block_reader.read([scope])

    def snapshots_together() -> None:
        for reader, reading in zip(readers, block_reader.read(scopes), strict=True):
            reader.snapshot_of(block_reader, reading)

    def snapshots_each() -> None:
        for reader in readers:
            reader.snapshot()

    figures = {
        "together_cpu_ms": median_cpu_ms(read_together, 5 * rounds),
        "each_cpu_ms": median_cpu_ms(read_each, rounds),
        "snapshots_together_cpu_ms": median_cpu_ms(snapshots_together, 5 * rounds),
        "snapshots_each_cpu_ms": median_cpu_ms(snapshots_each, rounds),
    }
    rows = [
        row(
            f"processor time of a merged read to {WALLETS_A_READ} single ones",
            figures["together_cpu_ms"] / figures["each_cpu_ms"],
            1 / 20,
            with_the_snapshots=round(
                figures["snapshots_together_cpu_ms"] / figures["snapshots_each_cpu_ms"], 4
            ),
        )
    ]
    return rows, figures


def median_cpu_ms(action: Callable[[], object], rounds: int) -> float:
    """Return the median of the processor times of an action, ms."""
    action()
    times_ms = []
    for _ in range(rounds):
        began_s = time.process_time()
        action()
        times_ms.append(1_000 * (time.process_time() - began_s))
    return round(statistics.median(times_ms), 3)


def measure_bad(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure the same portfolios without and with one whose endpoint never answers, by turns."""
    paths = bench.write_configs("bad", bench.options.portfolios)
    good_paths = paths[:-1]
    bad_path = paths[-1].with_name("bad.toml")
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    with silent_endpoint() as url:
        write_config(bad_path, paths[-1].read_text().replace(bench.chain.url or "", url))
        spec = bench.spec(good_paths)
        bad_spec = replace(spec, paths=(*spec.paths, str(bad_path)), bad_name="bad")
        for _ in range(bench.options.turns):
            runs["without"] += bench.run(spec)
            runs["with"] += bench.run(bad_spec)
    p99_s = {
        name: statistics.median(figures["lateness_s"]["p99"] for figures in figures_of_runs)
        for name, figures_of_runs in runs.items()
    }
    name = f"lateness p99 of {len(good_paths)} portfolios with a bad one to without"
    return [row(name, p99_s["with"] / p99_s["without"], 1.2, p99_s=p99_s)], runs


@contextmanager
def silent_endpoint() -> Iterator[str]:
    """Yield the address of a server that accepts requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def measure_workers(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure looks a second of two workers to those of one, on PostgreSQL: first of as many looks as
    the processor allows, then of looks that wait for an endpoint, of twice as many portfolios.
    """
    count = bench.options.portfolios // 2 * 2
    paths = bench.write_configs("workers", count)
    busy = worker_runs(bench, paths, paths, every_s=1)
    chain = bench.chain
    with serve(far_answers(chain.url or "")) as far:
        for path in paths:
            write_config(path, path.read_text().replace(chain.url or "", far.url))
        waiting = worker_runs(bench, paths[: count // 2], paths, every_s=bench.options.every)
    cores = os.cpu_count() or 1
    why = ""
    if cores < CORES_FOR_TWO_WORKERS:
        why = f"{cores} cores carry anvil, PostgreSQL and both workers"
    rows = [
        row(
            "looks a second of 2 workers to 1",
            looks_ratio(busy),
            1.7,
            is_least=True,
            why=why,
            cpu_of_a_look_to_that_of_one_worker=round(
                statistics.mean(figures["cpu_ms_a_look"] for figures in busy["two"])
                / busy["one"][0]["cpu_ms_a_look"],
                3,
            ),
        ),
        row(
            f"the same, waiting for an endpoint of {FAR_ENDPOINT_S:g} s, {count // 2} portfolios a worker",
            looks_ratio(waiting),
            1.7,
            is_least=True,
        ),
    ]
    return rows, {"busy": busy, "waiting": waiting}


def far_answers(url: str) -> Callable[[Any], Any]:
    """Return the answers of the node at `url`, each after FAR_ENDPOINT_S."""
    answer = passing_on(url)
    return lambda question: replace(answer(question), delay_s=FAR_ENDPOINT_S)


def worker_runs(
    bench: Bench, paths_of_one: Sequence[Path], paths: Sequence[Path], every_s: int
) -> Mapping[str, list[dict[str, Any]]]:
    """Run one worker, then two with copies of the configs, each with half of the portfolios."""
    one = bench.run(bench.spec(paths_of_one, every_s=every_s, is_worker=True))
    specs = []
    for number in range(2):
        machine = bench.folder / f"machine{number}"
        shutil.rmtree(machine, ignore_errors=True)
        shutil.copytree(paths[0].parent.parent, machine)
        own_paths = [machine / path.parent.name / path.name for path in paths]
        specs.append(
            bench.spec(own_paths, every_s=every_s, is_worker=True, served_count=len(paths) // 2)
        )
    return {"one": one, "two": bench.run(*specs)}


def looks_ratio(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """Return the looks a second of two workers to those of one."""
    rates = {name: sum(run["looks_a_second"] for run in figures) for name, figures in runs.items()}
    return rates["two"] / rates["one"]


def measure_single(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure the processor time of a single wallet's commands to that of another tree, by turns."""
    trees = {"before": bench.options.before, "now": Path(__file__).parents[2]}
    times_ms: dict[str, dict[str, list[float]]] = {}
    (path,) = bench.write_configs("single", 1)
    bench.chain.warp(max(1, int(time.time()) - bench.chain.now_s()))
    for _ in range(1 + bench.options.turns):
        for tree_name, tree in trees.items():
            own_path = bench.folder / tree_name / path.name
            own_path.parent.mkdir(exist_ok=True)
            write_config(own_path, path.read_text())
            program = [sys.executable, "-c", "from agent.entry import main; main()"]
            commands = {
                "status": [*program, "status", "--config", str(own_path), "--json"],
                "look": [sys.executable, "-c", LOOK_PROGRAM, str(own_path)],
                "demo": [*program, "demo", "--json"],
            }
            for name, command in commands.items():
                with mined_blocks(bench.chain):
                    time_ms = processor_ms(command, tree)
                times_ms.setdefault(name, {}).setdefault(tree_name, []).append(time_ms)
    rows = []
    for name, times_by_tree in times_ms.items():
        # the first turn fills caches
        medians_ms = {tree: statistics.median(times[1:]) for tree, times in times_by_tree.items()}
        figure = f"processor time of a single wallet's {name} to {bench.options.before.name}"
        rows.append(row(figure, medians_ms["now"] / medians_ms["before"], 1.05, ms=medians_ms))
    return rows, times_ms


LOOK_PROGRAM = f"""
import sys, time
from itertools import islice
from agent.app.agent import open_agent

with open_agent(sys.argv[1]) as agent:
    run = agent.run(every="1s")
    for _ in islice(run, {WARM_UP_ROUNDS}): pass
    began_s = time.process_time()
    outcomes = list(islice(run, {SINGLE_LOOKS}))
    print(1_000 * (time.process_time() - began_s) / {SINGLE_LOOKS})
    assert all(outcome.kind.value == "hold" for outcome in outcomes), outcomes
"""
"""Prints the processor time of a look that holds, ms; runs in either tree."""


def processor_ms(command: Sequence[str], tree: Path) -> float:
    """Return the processor time of a command with this tree's program, with its children's, or of
    one look of LOOK_PROGRAM.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if LOOK_PROGRAM in command:
        return float(output)
    return 1_000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


MEASURES = {
    "fifty": measure_fifty,
    "read": measure_read,
    "bad": measure_bad,
    "workers": measure_workers,
    "large": measure_large,
    "single": measure_single,
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen parts."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    rows: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    needs_server = options.store == "postgresql" or "workers" in options.part
    try:
        with open_anvil() as chain, running_server() if needs_server else nullcontext() as server:
            bench = Bench(chain, server, folder, options)
            for part in options.part:
                part_rows, runs[part] = MEASURES[part](bench)
                rows += part_rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows += [
        {
            "figure": f"those of --part {part}",
            "not_measured": OTHER_PARTS.get(part, "left out by --part"),
        }
        for part in MEASURES
        if part not in options.part
    ]
    rows += [
        {"figure": figure, "must": bound, "not_measured": f"takes long: {command}"}
        for figure, (bound, command) in LONG_ROWS.items()
    ]
    return {
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "store": options.store,
        "done_when": rows,
        "runs": runs,
    }


def main() -> int:
    """Measure, print the document, and return the exit code."""
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run_here(RunSpec(**json.loads(sys.argv[2])))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="the document in one line")
    parser.add_argument("--part", choices=MEASURES, nargs="+", default=list(PARTS))
    parser.add_argument(
        "--before", type=Path, help="another tree of this repository, for --part single"
    )
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--portfolios", type=int, default=WALLETS_A_READ)
    parser.add_argument("--large", type=int, default=500, help="portfolios of the part large")
    parser.add_argument("--every", type=int, default=BLOCK_S, help="seconds between two looks")
    parser.add_argument("--seconds", type=int, default=60, help="how long each run is measured")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of reads for each")
    parser.add_argument(
        "--turns", type=int, default=2, help="repetitions of what is compared by turns"
    )
    options = parser.parse_args()
    if "single" in options.part and options.before is None:
        parser.error("--part single needs --before")
    figures = measure(options)
    print(json.dumps(figures, indent=None if options.json else 1))
    is_missed = any(
        not fields.get("met", True) and "why" not in fields for fields in figures["done_when"]
    )
    return 1 if is_missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
