"""Benchmark of the dashboard's first page on a ledger with many entries: time and size.

Serves the store of scripts/bench/bench_books.py (`--entries`, `--keep`) by `trimtab serve` and prints
JSON: seconds until it answers and until the ledger is read; milliseconds of /health meanwhile;
milliseconds and gzipped bytes of the overview, without and with `--streams` open event streams;
bytes with all its files. No endpoint is configured, so parts of the page that read the chain show
an error.

`--cold` measures instead the dashboard of such a ledger on a local chain, or one that runs at
`--cold ADDRESS`, once it has read its documents, in Chromium with a fresh profile for each opening:
milliseconds until value, allocation and next decision of the overview are painted, until the first
byte, and until the chart is drawn, with the load average of each opening.

`--pairs` measures instead the cost of open event streams for a cycle of the agent, with `trimtab
serve` running on the same local chain. Batches of cycles without and with `--streams` alternate. Each
stream is read, and its page fetched after each change, as a browser does.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, sleep
from urllib.error import HTTPError
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent import codec, wiring
from agent.app.agent import Agent, open_agent
from agent.errors import TrimtabError
from agent.localchain import open_anvil
from agent.model import StepInput
from scripts.bench import bench_books
from tests.browser.chromium import OPTIONS, WIDE, program

PAGE_REQUESTS = 50
LOCAL = "a local chain"
DAYS = 365
MINED_AT_ONCE = 2_000
"""Blocks asked of the local chain in one call, which has a time limit."""
CYCLES = 10
"""Number of cycles per batch."""
PAUSE_S = 0.3
"""Pause after a cycle, in seconds. A batch outlasts the interval at which the dashboard polls."""


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--keep", type=Path, default=None, help="folder to build the store in")
    parser.add_argument("--pairs", type=int, default=0, help="number of pairs of batches of cycles")
    parser.add_argument("--cold", nargs="?", const=LOCAL, default="", metavar="ADDRESS")
    parser.add_argument("--openings", type=int, default=7)
    parser.add_argument("--read", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        asyncio.run(read_streams(options.read, options.streams))
        return
    if options.cold == LOCAL:
        with dashboard_on_local_chain(options.entries) as address:
            print(json.dumps(cold_page_figures(address, options.openings), indent=2))
        return
    if options.cold:
        print(json.dumps(cold_page_figures(options.cold, options.openings), indent=2))
        return
    if options.pairs:
        print(json.dumps(cycles_beside_streams(options.pairs, options.streams), indent=2))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        loaded = bench_books.loaded_config(folder)
        with wiring.open_store_offline(loaded) as (store, _):
            if store.ledger.current_book() is None:
                bench_books.build_store(store, options.entries, DAYS)
        print(
            json.dumps(
                {"entries": options.entries, **serve_figures(folder, options.streams)}, indent=2
            )
        )


def serve_figures(folder: Path, streams: int) -> dict[str, object]:
    """Return the figures of one `trimtab serve`."""
    began_s = perf_counter()
    with running_dashboard(next(folder.glob("*.toml"))) as (address, _):
        answers_s = perf_counter() - began_s
        health_times_ms = []
        while b'data-of="pnl.all' not in fetch_page(address)[0]:
            health_times_ms.append(health_ms(address + "health"))
            sleep(0.1)
        ledger_s = perf_counter() - began_s
        alone_ms, page_bytes = median_page_ms(address)
        file_names = re.findall(r'"(/static/[^"]+)"', fetch_page(address)[0].decode())
        file_bytes = sum(fetch_page(address.rstrip("/") + name)[1] for name in file_names)
        streams_open = [open_stream(address) for _ in range(streams)]
        beside_ms, _ = median_page_ms(address)
        for open_socket in streams_open:
            open_socket.close()
    return {
        "answers_after_s": round(answers_s, 2),
        "ledger_read_after_s": round(ledger_s, 2),
        "health_ms_meanwhile": {
            "first": round(health_times_ms[0], 2),
            "median": round(median(health_times_ms[1:]), 2),
            "longest": round(max(health_times_ms[1:]), 2),
        },
        "page_ms": round(alone_ms, 2),
        "page_ms_beside_streams": round(beside_ms, 2),
        "page_gzip_bytes": page_bytes,
        "page_and_files_gzip_bytes": page_bytes + file_bytes,
    }


BROWSER_START_S = 1.0
"""Pause after a browser's start, whose own work would delay the page."""
WATCH_PAINT = """
const parts = [".value data", "table[aria-labelledby=t-weights] tbody tr", "#t-decision data"];
window.marks = {};
const paint = new Promise(resolve => {
  new PerformanceObserver(list => resolve(list.getEntries().at(-1).startTime)).observe({ type: "paint", buffered: true });
});
(function look() {
  const height = part => document.querySelector(part)?.getBoundingClientRect().height;
  if (!marks.shown && parts.every(height)) {
    const frame = performance.now();
    paint.then(first => { marks.shown = Math.max(first, frame); });
  }
  if (!marks.chart && document.querySelector(".chart canvas")) marks.chart = performance.now();
  requestAnimationFrame(look);
})();
"""
"""Notes the paint of the first frame with all parts, and the frame with the chart."""


def cold_page_figures(address: str, openings: int) -> dict[str, object]:
    """Return medians and single figures of the overview in fresh browser profiles, in milliseconds."""
    from playwright.sync_api import sync_playwright

    figures_by_name: dict[str, list[float]] = {
        name: [] for name in ("shown", "first_byte", "chart", "load_average")
    }
    with sync_playwright() as playwright:
        for _ in range(openings):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                context = playwright.chromium.launch_persistent_context(
                    profile,
                    executable_path=program(),
                    args=list(OPTIONS),
                    viewport={"width": WIDE[0], "height": WIDE[1]},
                )
                page = context.pages[0]
                sleep(BROWSER_START_S)
                page.add_init_script(WATCH_PAINT)
                page.goto(address)
                while not {"shown", "chart"} <= (marks := page.evaluate("marks")).keys():
                    sleep(0.05)
                first_byte = "performance.getEntriesByType('navigation')[0].responseStart"
                marks |= {
                    "first_byte": page.evaluate(first_byte),
                    "load_average": os.getloadavg()[0],
                }
                for name, figures in figures_by_name.items():
                    figures.append(round(marks[name], 1))
                context.close()
    return {
        name: {"median": median(figures), "all": figures}
        for name, figures in figures_by_name.items()
    }


@contextmanager
def dashboard_on_local_chain(entries: int) -> Iterator[str]:
    """Serve inside the context a portfolio of a local chain whose ledger has so many trades of a year;
    yield its address once it has read its documents.
    """
    with tempfile.TemporaryDirectory() as folder, open_anvil() as chain:
        config = Path(folder) / "trimtab.toml"
        config.write_text(chain.config_text())
        with open_agent(config) as agent:
            run_once(agent)
            store = agent.context.store
            wallet = chain.wallet.address
            step_json = store.steps.input_json(store.steps.newest(1)[0].id)
            step = codec.loads(StepInput, step_json or "")
            weth, usdc = (chain.tokens[symbol].address for symbol in ("WETH", "USDC"))
            trades = bench_books.TradeHistory(
                wallet,
                weth,
                usdc,
                step.snapshot.head.number + 1,
                step.snapshot.head.timestamp_s,
                entries,
                DAYS,
            )
            trades.add_to(store, step)
            for mined in range(0, entries, MINED_AT_ONCE):
                chain.node.mine(min(MINED_AT_ONCE, entries - mined))
            chain.warp(DAYS * 86_400)
            for symbol, token in (("WETH", weth), ("USDC", usdc)):
                change = sum(
                    trades.token_changes(number).get(token, 0) for number in range(entries)
                )
                chain.set_balance(symbol, chain.balance(symbol) + change)
            gas_wei = entries * bench_books.GAS * bench_books.GAS_PRICE_WEI
            chain.node.set_native(wallet, chain.w3.eth.get_balance(wallet) - gas_wei)
            run_once(agent)
        with running_dashboard(config) as (address, _):
            while any(
                part not in fetch_page(address)[0]
                for part in (b'data-of="pnl.all', b'data-of="status')
            ):
                sleep(0.1)
            yield address


def run_once(agent: Agent) -> None:
    """Run a cycle. Raises what it ended with."""
    for outcome in agent.run(once=True):
        if isinstance(outcome, TrimtabError):
            raise outcome


def health_ms(address: str) -> float:
    """Return the milliseconds until a health check is answered."""
    began_s = perf_counter()
    with suppress(HTTPError):  # 503: no run has written here
        urlopen(address).close()  # noqa: S310 our own address
    return (perf_counter() - began_s) * 1_000


@contextmanager
def running_dashboard(config: Path) -> Iterator[tuple[str, int]]:
    """Run `trimtab serve` inside the context; yield its address and process id."""
    command = [sys.executable, "-c", "from agent.cli.main import main; main()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None:
        raise OSError("no output")
    try:
        address = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def cycles_beside_streams(pairs: int, streams: int) -> dict[str, object]:
    """Return the figures of a cycle without and with streams: medians over batches, and the median of
    the ratios within pairs.
    """
    figures_by_streams: dict[int, list[dict[str, float]]] = {0: [], streams: []}
    with tempfile.TemporaryDirectory() as folder, open_anvil() as chain:
        config = Path(folder) / "trimtab.toml"
        config.write_text(chain.config_text())
        with open_agent(config) as agent:
            run_once(agent)
            with running_dashboard(config) as (address, pid):
                while b'data-of="status' not in fetch_page(address)[0]:
                    sleep(0.1)
                for pair in range(pairs):
                    for stream_count in (0, streams) if pair % 2 else (streams, 0):
                        figures_by_streams[stream_count].append(
                            run_batch(agent, address, pid, stream_count)
                        )
    names = figures_by_streams[0][0]
    return {
        "cycles": pairs * CYCLES,
        "streams": streams,
        **{
            name: {
                "alone": round(median(figures[name] for figures in figures_by_streams[0]), 2),
                "beside_streams": round(
                    median(figures[name] for figures in figures_by_streams[streams]), 2
                ),
                "ratio": round(
                    median(
                        figures_beside[name] / figures_alone[name]
                        for figures_alone, figures_beside in zip(
                            figures_by_streams[0], figures_by_streams[streams], strict=True
                        )
                        if figures_alone[name]
                    ),
                    4,
                ),
            }
            for name in names
        },
    }


def run_batch(agent: Agent, address: str, pid: int, streams: int) -> dict[str, float]:
    """Run CYCLES cycles; return the processor and wall milliseconds of a cycle, and the processor
    milliseconds of the server per cycle.
    """
    reader = None
    if streams:
        command = [sys.executable, __file__, "--read", address, "--streams", str(streams)]
        reader = subprocess.Popen(command, stdout=subprocess.PIPE)
        if reader.stdout is None or not reader.stdout.readline():
            raise OSError("the streams did not open")
    processor_s = 0.0
    wall_s = 0.0
    server_s = process_processor_s(pid)
    for _ in range(CYCLES):
        processor_began_s = process_time()
        began_s = perf_counter()
        run_once(agent)
        processor_s = processor_s + process_time() - processor_began_s
        wall_s = wall_s + perf_counter() - began_s
        sleep(PAUSE_S)
    server_s = process_processor_s(pid) - server_s
    if reader is not None:
        reader.terminate()
        reader.wait()
    seconds_by_name = {
        "processor_ms": processor_s,
        "clock_ms": wall_s,
        "serving_process_ms": server_s,
    }
    return {name: seconds * 1000 / CYCLES for name, seconds in seconds_by_name.items()}


def process_processor_s(pid: int) -> float:
    """Return the processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def read_streams(address: str, streams: int) -> None:
    """Read event streams, and fetch the page after each change. Print a line once all are open."""
    host, port = address.split("/")[2].rsplit(":", 1)

    async def request(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def follow(reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"event: changed"):
                page_reader, writer = await request("/")
                await page_reader.read()
                writer.close()

    connections = [await request("/events") for _ in range(streams)]
    print("open", flush=True)
    await asyncio.gather(*(follow(reader) for reader, _ in connections))


def fetch_page(address: str) -> tuple[bytes, int]:
    """Return a page, and the number of bytes received."""
    request = Request(address, headers={"Accept-Encoding": "gzip"})  # noqa: S310 loopback
    with urlopen(request) as answer:  # noqa: S310 loopback
        body = answer.read()
        is_gzip = answer.headers["Content-Encoding"] == "gzip"
    return gzip.decompress(body) if is_gzip else body, len(body)


def median_page_ms(address: str) -> tuple[float, int]:
    """Return the median milliseconds of the page, and its bytes."""
    times_ms = []
    size = 0
    for _ in range(PAGE_REQUESTS):
        began_s = perf_counter()
        size = fetch_page(address)[1]
        times_ms.append((perf_counter() - began_s) * 1000)
    return median(times_ms), size


def open_stream(address: str) -> socket.socket:
    """Open an event stream."""
    host, port = address.split("/")[2].rsplit(":", 1)
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return connection


if __name__ == "__main__":
    main()
