"""How long the dashboard's first page takes on a ledger of many entries, and how large it is.

Serves the store of scripts/bench_books.py (`--entries`, `--keep`) by `trimtab serve` and prints
JSON: seconds until it answers and until the ledger is read, milliseconds and gzipped bytes of the
overview, the same with `--streams` open event streams, and bytes with all its files. No endpoint
is configured: the parts that read the chain say so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent import wiring
from scripts import bench_books

ASKED = 50


def main() -> None:
    """Prints figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--keep", type=Path, default=None, help="a folder to build the store in")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as thrown_away:
        folder = wanted.keep or Path(thrown_away)
        loaded = bench_books.config(folder)
        with wiring.open_store_offline(loaded) as (store, _):
            if store.ledger.current_book() is None:
                bench_books.build(store, wanted.entries, 365)
        print(json.dumps({"entries": wanted.entries, **measured(folder, wanted.streams)}, indent=2))


def measured(folder: Path, streams: int) -> dict[str, object]:
    """Figures of one `trimtab serve`."""
    config = next(folder.glob("*.toml"))
    command = [sys.executable, "-c", "from agent.cli.main import main; main()", "serve"]
    began = perf_counter()
    process = subprocess.Popen(
        [*command, "--port", "0", "--json", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout is None:
        raise OSError("no output")
    try:
        address = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["url"]
        answers_s = perf_counter() - began
        while b'data-of="pnl.all' not in page(address)[0]:
            sleep(0.1)
        ledger_s = perf_counter() - began
        alone_ms, page_bytes = asked(address)
        files = re.findall(r'"(/static/[^"]+)"', page(address)[0].decode())
        file_bytes = sum(page(address.rstrip("/") + name)[1] for name in files)
        links = [stream(address) for _ in range(streams)]
        beside_ms, _ = asked(address)
        for link in links:
            link.close()
    finally:
        process.terminate()
        process.wait()
    return {
        "answers_after_s": round(answers_s, 2),
        "ledger_read_after_s": round(ledger_s, 2),
        "page_ms": round(alone_ms, 2),
        "page_ms_beside_streams": round(beside_ms, 2),
        "page_gzip_bytes": page_bytes,
        "page_and_files_gzip_bytes": page_bytes + file_bytes,
    }


def page(address: str) -> tuple[bytes, int]:
    """A page, and its bytes as they came."""
    asking = Request(address, headers={"Accept-Encoding": "gzip"})  # noqa: S310 loopback
    with urlopen(asking) as answer:  # noqa: S310 loopback
        body = answer.read()
        packed = answer.headers["Content-Encoding"] == "gzip"
    return gzip.decompress(body) if packed else body, len(body)


def asked(address: str) -> tuple[float, int]:
    """Median milliseconds of the page, and its bytes."""
    times, size = [], 0
    for _ in range(ASKED):
        began = perf_counter()
        size = page(address)[1]
        times.append((perf_counter() - began) * 1000)
    return median(times), size


def stream(address: str) -> socket.socket:
    """An open event stream."""
    host, port = address.split("/")[2].rsplit(":", 1)
    link = socket.create_connection((host, int(port)))
    link.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return link


if __name__ == "__main__":
    main()
