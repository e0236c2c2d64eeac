"""Draw docs/dashboard-*.png: pages of the dashboard for a portfolio that an agent rebalanced for some
weeks on a local chain, at the daily prices of the packaged sample.

    .venv/bin/python scripts/make/dashboard_pictures.py

Needs Chromium. The colours of each picture are reduced to a palette, which keeps it small.
"""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playwright.sync_api import Browser, sync_playwright

from agent.app.agent import open_agent
from agent.app.local import DEMO_START_USD, DEMO_TARGETS, SMALL_WORLD, fund
from agent.app.paper import always_confirm
from agent.app.start.trust import pin_all
from agent.config.load import load_config
from agent.localchain import LocalChain, open_anvil
from agent.web.server import DashboardProcess
from tests.browser.chromium import OPTIONS, PATIENCE_MS, PHONE, program

ROOT = Path(__file__).resolve().parents[2]
PRICES = ROOT / "agent" / "backtest" / "sample" / "prices_2021.csv"
FIRST_DAY = "2021-07-20"
DAYS = 56
SAMPLE_SYMBOLS = {"WBTC": "BTC", "WETH": "ETH"}
DAY_S = 86_400
GAS_MONEY_WEI = 3 * 10**17
SPARE_S = 7_200
"""Seconds between the last cycle and the present, since each cycle mines blocks ahead of its time."""
RUN_COMMAND = [
    sys.executable,
    "-c",
    "from agent.cli.main import main; main()",
    "run",
    "--every",
    "1h",
]
RUN_COMMAND += ["--send", "--yes", "--json"]
WIDE = (1080, 1140)
PICTURES: dict[str, tuple[str, Literal["light", "dark"], tuple[int, int]]] = {
    "overview-light": ("/", "light", WIDE),
    "overview-dark": ("/", "dark", WIDE),
    "overview-phone": ("/", "light", (PHONE[0], 950)),
    "history": ("/history", "light", (1280, 700)),
}
UPDATE_DRAWN = (
    "document.querySelector('.chart canvas')"
    " && !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling, .htmx-added')"
)
"""True once the chart is drawn and no update of the page is between its text and its charts."""
COLOURS = 64
MAX_BYTES = 80_000


def daily_prices() -> list[dict[str, Fraction]]:
    """Return the prices by symbol of each day."""
    with PRICES.open(encoding="utf-8") as file:
        days = [row for row in csv.DictReader(file) if row["time"] >= FIRST_DAY][: DAYS + 1]
    return [
        {symbol: Fraction(day[sample_symbol]) for symbol, sample_symbol in SAMPLE_SYMBOLS.items()}
        for day in days
    ]


@contextmanager
def rebalanced_config() -> Iterator[Path]:
    """Rebalance a portfolio daily up to the present; yield its config."""
    prices = daily_prices()
    tokens = tuple(
        replace(token, price_usd=prices[0].get(token.symbol, token.price_usd))
        for token in SMALL_WORLD.tokens
    )
    began_s = int(time.time()) - DAYS * DAY_S - SPARE_S
    with (
        tempfile.TemporaryDirectory() as folder,
        open_anvil(world=replace(SMALL_WORLD, tokens=tokens), now_s=began_s) as chain,
    ):
        fund(chain, DEMO_START_USD)
        chain.set_native(GAS_MONEY_WEI)
        config = Path(folder) / "trimtab.toml"
        config.write_text(chain.config_text(targets=DEMO_TARGETS), encoding="utf-8")
        loaded = load_config(config)
        pin_all(loaded)
        with open_agent(loaded, clock=chain.clock) as agent:
            for number, day_prices in enumerate(prices):
                if number:
                    _open_day(chain, began_s + number * DAY_S, day_prices)
                agent.rebalance(send=True, confirm=always_confirm)
        chain.node.mine_at(int(time.time()))
        chain.refresh_feeds()
        with open_agent(loaded) as agent:
            agent.rebalance(send=True, confirm=always_confirm)
        yield config


def _open_day(chain: LocalChain, begins_s: int, prices: dict[str, Fraction]) -> None:
    chain.node.mine_at(begins_s)
    chain.move_market(prices)


def screenshot(
    browser: Browser,
    address: str,
    path: str,
    scheme: Literal["light", "dark"],
    size: tuple[int, int],
) -> bytes:
    """Return a page as PNG."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        device_scale_factor=1,
        bypass_csp=True,  # of the page, which forbids the condition that is waited for
    )
    page.goto(address.rstrip("/") + path)
    page.wait_for_selector("data[data-of]", timeout=PATIENCE_MS)
    page.wait_for_selector("#connection:has-text('Live')")
    if path == "/":
        for selector in ("text=healthy", "[data-of='status.total_value']"):
            page.wait_for_selector(selector, timeout=PATIENCE_MS)
        page.wait_for_function(UPDATE_DRAWN, timeout=PATIENCE_MS)
    png = page.screenshot()
    page.close()
    return png


def with_palette(png: bytes) -> bytes:
    """Return the picture in at most COLOURS colours, one byte per pixel."""
    pixels = decode_png(png)
    height, width, _ = pixels.shape
    palette, colour_indices = reduce_colours(pixels.reshape(-1, 3))
    rows = np.zeros(
        (height, width + 1), dtype=np.uint8
    )  # each row begins with its filter type, none
    rows[:, 1:] = colour_indices.reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    compressed_pixels = zlib.compress(rows.tobytes(), 9)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", compressed_pixels),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk_data))
        + name
        + chunk_data
        + struct.pack(">I", zlib.crc32(name + chunk_data))
        for name, chunk_data in chunks
    )


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """Return red, green and blue of each pixel of a PNG with 8 bits per channel (W3C Recommendation,
    Portable Network Graphics, 2nd edition).
    """
    offset = 8
    compressed_pixels = b""
    width = 0
    height = 0
    channels = 0
    while offset < len(png):
        chunk_size, chunk_name = struct.unpack(">I4s", png[offset : offset + 8])
        chunk_data = png[offset + 8 : offset + 8 + chunk_size]
        if chunk_name == b"IHDR":
            width, height, _, colour_type = struct.unpack(">IIBB", chunk_data[:10])
            channels = {2: 3, 6: 4}[colour_type]
        elif chunk_name == b"IDAT":
            compressed_pixels += chunk_data
        offset += chunk_size + 12
    filtered_bytes = np.frombuffer(zlib.decompress(compressed_pixels), dtype=np.uint8).reshape(
        height, -1
    )
    rows = np.zeros((height + 1, width, channels), dtype=np.int64)
    for number, line in enumerate(filtered_bytes):
        filtered_row = line[1:].reshape(width, channels).astype(np.int64)
        rows[number + 1] = _unfiltered(int(line[0]), filtered_row, rows[number])
    return rows[1:, :, :3].astype(np.uint8)


def _unfiltered(
    filter_type: int, filtered_row: NDArray[np.int64], row_above: NDArray[np.int64]
) -> NDArray[np.int64]:
    if filter_type == 0:
        return filtered_row
    if filter_type == 1:
        return np.cumsum(filtered_row, axis=0) % 256
    if filter_type == 2:
        return (filtered_row + row_above) % 256
    row = np.zeros_like(filtered_row)
    left_value = np.zeros_like(filtered_row[0])
    corner_value = np.zeros_like(filtered_row[0])
    for x, value in enumerate(filtered_row):
        if filter_type == 3:
            prediction = (left_value + row_above[x]) // 2
        else:
            distances = [
                abs(row_above[x] - corner_value),
                abs(left_value - corner_value),
                abs(left_value + row_above[x] - 2 * corner_value),
            ]
            prediction = np.where(
                (distances[0] <= distances[1]) & (distances[0] <= distances[2]),
                left_value,
                np.where(distances[1] <= distances[2], row_above[x], corner_value),
            )
        row[x] = left_value = (value + prediction) % 256
        corner_value = row_above[x]
    return row


def reduce_colours(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a palette, and the index of the nearest colour for each pixel. The palette has the
    sixteen most frequent colours, then others, each at some distance from those before it.
    """
    colours, inverse, counts = np.unique(pixels, axis=0, return_inverse=True, return_counts=True)
    palette_colours: list[NDArray[np.int64]] = []
    for size, min_distance in ((16, 1), (COLOURS, 24), (COLOURS, 12), (COLOURS, 6), (COLOURS, 1)):
        for colour in colours[np.argsort(-counts, kind="stable")].astype(np.int64):
            if len(palette_colours) < size and all(
                np.abs(colour - palette_colour).sum() >= min_distance
                for palette_colour in palette_colours
            ):
                palette_colours.append(colour)
    palette = np.array(palette_colours)
    distances = np.abs(colours.astype(np.int64)[:, None, :] - palette[None, :, :]).sum(axis=2)
    nearest_indices = distances.argmin(axis=1).astype(np.uint8)
    return palette.astype(np.uint8), nearest_indices[inverse.reshape(-1)]


def main() -> None:
    """Write the pictures."""
    with rebalanced_config() as config, sync_playwright() as playwright, ExitStack() as stack:
        dashboard = DashboardProcess(config, 0)
        stack.callback(dashboard.stop)
        run_process = subprocess.Popen(
            [*RUN_COMMAND, "--config", str(config)], stdout=subprocess.DEVNULL
        )
        stack.callback(run_process.wait)
        stack.callback(run_process.terminate)
        browser = playwright.chromium.launch(executable_path=program(), args=list(OPTIONS))
        for name, (path, scheme, size) in PICTURES.items():
            png = with_palette(screenshot(browser, dashboard.address, path, scheme, size))
            if len(png) > MAX_BYTES:
                raise SystemExit(f"{name}: {len(png):,} bytes")
            (ROOT / "docs" / f"dashboard-{name}.png").write_bytes(png)
            print(f"docs/dashboard-{name}.png: {len(png):,} bytes")
        browser.close()


if __name__ == "__main__":
    main()
