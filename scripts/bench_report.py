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
    options = parser.parse_args()
    result = result_of(
        [f"T{number}" for number in range(options.assets - 1)] + ["USD"],
        options.bars,
        every=options.every,
        volatility=0.005,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_report(result, path)  # imports modules before the clock starts
        began_s = perf_counter()
        processor_began_s = process_time()
        write_report(result, path)
        write_times = {
            "wall_s": round(perf_counter() - began_s, 2),
            "processor_s": round(process_time() - processor_began_s, 2),
        }
        figures = {
            "html_bytes": path.stat().st_size,
            "json_bytes": path.with_suffix(".json").stat().st_size,
            "written": write_times,
        }
        print(
            json.dumps(
                figures
                | {
                    "rebalances": len(result.rebalances),
                    "opened_ms": opening_times(path, options.openings),
                },
                indent=1,
            )
        )


def opening_times(path: Path, repetitions: int) -> dict[str, dict[str, dict[str, int]]]:
    """Return the milliseconds until the visible charts and until all charts are drawn, and of the
    main thread's work, on a desktop and on a phone.
    """
    by_screen: dict[str, dict[str, dict[str, int]]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program(), args=list(OPTIONS), timeout=PATIENCE_MS
        )
        for name, (width, height) in (("desk", WIDE), ("phone", PHONE)):
            visible_ms = []
            drawn_ms = []
            work_ms = []
            for _ in range(repetitions):
                context = browser.new_context(viewport={"width": width, "height": height})
                page = context.new_page()
                session = context.new_cdp_session(page)
                session.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(path.as_uri())
                page.wait_for_selector("html[data-drawn]", timeout=PATIENCE_MS)
                page_times = page.evaluate("({...document.documentElement.dataset})")
                visible_ms.append(int(page_times["seenMs"]))
                drawn_ms.append(int(page_times["drawnMs"]))
                metrics = {
                    metric["name"]: metric["value"]
                    for metric in session.send("Performance.getMetrics")["metrics"]
                }
                work_ms.append(round(metrics["TaskDuration"] * 1_000))
                context.close()
            by_screen[name] = {
                "seen": summarise(visible_ms),
                "drawn": summarise(drawn_ms),
                "worked": summarise(work_ms),
            }
        browser.close()
    return by_screen


def summarise(times_ms: list[int]) -> dict[str, int]:
    """Return median, minimum and maximum."""
    return {
        "median": round(statistics.median(times_ms)),
        "least": min(times_ms),
        "most": max(times_ms),
    }


if __name__ == "__main__":
    main()
