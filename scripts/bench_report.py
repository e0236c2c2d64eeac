"""Benchmark of the report of a three-year hourly backtest: its size, and the time to write it and to
open it in Chromium.

The simulation consists of random walks of `--assets` over `--bars` hours with a rebalance every
`--every`; the report is written by the agent's own code. Each measurement opens the file in a new
browser page. Measured by the browser's clock are the times from the request until the charts in the
window are drawn, and until all charts are drawn. The work of its main thread is measured too, since
other programs on the machine affect it little. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import sync_playwright

from agent.app.research.trials import write_report
from tests.browser.chromium import OPTIONS, PATIENCE_MS, PHONE, WIDE, program
from tests.support.backtests import result_of


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=8)
    parser.add_argument("--bars", type=int, default=3 * 8_760)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--openings", type=int, default=7)
    wanted = parser.parse_args()
    found = result_of(
        [f"T{number}" for number in range(wanted.assets - 1)] + ["USD"],
        wanted.bars,
        every=wanted.every,
        volatility=0.005,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_report(found, path)  # imports modules before the clock starts
        started, worked = perf_counter(), process_time()
        write_report(found, path)
        written = {
            "wall_s": round(perf_counter() - started, 2),
            "processor_s": round(process_time() - worked, 2),
        }
        told = {
            "html_bytes": path.stat().st_size,
            "json_bytes": path.with_suffix(".json").stat().st_size,
            "written": written,
        }
        print(
            json.dumps(
                told
                | {
                    "rebalances": len(found.rebalances),
                    "opened_ms": opened(path, wanted.openings),
                },
                indent=1,
            )
        )


def opened(path: Path, times: int) -> dict[str, dict[str, dict[str, int]]]:
    """Return the milliseconds until the visible charts and until all charts are drawn, and of the
    main thread's work, on a desktop and on a phone.
    """
    found: dict[str, dict[str, dict[str, int]]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(), args=list(OPTIONS), timeout=PATIENCE_MS
        )
        for name, (width, height) in (("desk", WIDE), ("phone", PHONE)):
            seen, drawn, worked = [], [], []
            for _ in range(times):
                context = browser.new_context(viewport={"width": width, "height": height})
                page = context.new_page()
                session = context.new_cdp_session(page)
                session.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(path.as_uri())
                page.wait_for_selector("html[data-drawn]", timeout=PATIENCE_MS)
                told = page.evaluate("({...document.documentElement.dataset})")
                seen.append(int(told["seenMs"]))
                drawn.append(int(told["drawnMs"]))
                metrics = {
                    one["name"]: one["value"]
                    for one in session.send("Performance.getMetrics")["metrics"]
                }
                worked.append(round(metrics["TaskDuration"] * 1_000))
                context.close()
            found[name] = {"seen": spread(seen), "drawn": spread(drawn), "worked": spread(worked)}
        browser.close()
    return found


def spread(took: list[int]) -> dict[str, int]:
    """Return median, minimum and maximum."""
    return {"median": round(statistics.median(took)), "least": min(took), "most": max(took)}


if __name__ == "__main__":
    main()
