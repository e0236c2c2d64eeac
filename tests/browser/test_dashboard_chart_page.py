"""The chart of the value on a phone and a wide screen: its labels, and the least span of its axis."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.figures import format_figure
from agent.web.access import Access
from agent.web.reach import Reach
from tests.browser.chromium import AXE, PHONE, WIDE, patient_context, violations
from tests.support.dashboards import Served
from tests.support.pages.setup_keys import tab_to
from tests.support.worlds import missing

RECORD = """
window.labels = [];
const draw = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...more) {
  const { e, f } = this.getTransform();
  const width = this.measureText(text).width;
  const left = x + e - { center: width / 2, right: width, end: width }[this.textAlign] || 0;
  window.labels.push({ text, left, right: left + width, y: y + f, side: this.textAlign === "center" ? "below" : "beside" });
  return draw.call(this, text, x, y, ...more);
};
"""
"""Notes each text that is drawn on a canvas, with its place in pixels of the canvas."""
SERIES = {
    "seconds": (5, 40, 123_456_789.5, 900_000.0),
    "minutes": (12, 30, 500.12, 0.002),
    "hours": (60, 3_600, 10_199.4, 0.4),
    "days": (56, 86_400, 1_234_567.5, 300_000.0),
    "a year": (400, 86_400, 10_199.4, 2_000.0),
}
"""Points, seconds between two, value and largest change."""


COLOURED_COLUMNS = """() => {
  const canvas = document.querySelector(".chart canvas");
  const box = document.querySelector(".u-over").getBoundingClientRect();
  const outer = canvas.getBoundingClientRect();
  const scale = canvas.width / outer.width;
  const coloured = share => {
    const x = Math.round((box.left - outer.left + box.width * share) * scale);
    const top = Math.round((box.top - outer.top) * scale);
    const pixels = canvas.getContext("2d").getImageData(x, top, 1, Math.round(box.height * scale)).data;
    for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] && pixels[at + 2] - pixels[at] > 90) return true;
    return false;
  };
  return [0.1, 0.5, 0.9].map(coloured);
}"""
"""Whether the line of the value is in the column of pixels at these shares of the width of the chart."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as served:
        yield served


def labels_of(chromium: Any, served: Served, size: tuple[int, int], name: str) -> tuple[list[dict[str, Any]], float]:
    """The labels of the chart as drawn last, and the width of its canvas."""
    count, step_s, value, change = SERIES[name]
    values = [f"{value + change * (-1) ** number:.6f}" for number in range(count)]
    times_s = [1_790_000_000 + step_s * number for number in range(count)]
    served.board.documents["series"] = {"times_s": times_s, "values": values, "hold_values": values, "rebalances": []}
    context = patient_context(chromium, viewport={"width": size[0], "height": size[1]})
    context.add_init_script(RECORD)
    page = context.new_page()
    page.goto(f"http://localhost:{served.port}/")
    page.wait_for_selector(".chart canvas")
    page.evaluate("window.labels.length = 0")
    page.click("#r-All")
    page.wait_for_timeout(200)
    drawn = page.evaluate("[window.labels, document.querySelector('.chart canvas').width]")
    context.close()
    return drawn[0], drawn[1]


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
@pytest.mark.parametrize("name", SERIES)
def test_chart__labels_are_whole_and_do_not_overlap(chromium: Any, served: Served, size: tuple[int, int], name: str) -> None:
    labels, width = labels_of(chromium, served, size, name)
    assert {label["side"] for label in labels} == {"below", "beside"}
    cut = [label["text"] for label in labels if label["left"] < 0 or label["right"] > width]
    assert cut == []
    for first_label, right in combinations(sorted(labels, key=lambda label: label["left"]), 2):
        assert first_label["y"] != right["y"] or first_label["right"] < right["left"], (first_label["text"], right["text"])


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_weight_chart__has_whole_labels_beside_short_figures(chromium: Any, served: Served, size: tuple[int, int]) -> None:
    days = zip(("2026-11-30", "2026-11-29"), served.board.documents["history"]["values"], strict=True)
    values = [{**valuation, "time": f"{day} 00:00:00"} for day, valuation in days]
    served.board.documents["history"] = {**served.board.documents["history"], "values": values}
    with patient_context(chromium, viewport={"width": size[0], "height": size[1]}) as context:
        context.add_init_script(RECORD)
        page = context.new_page()
        page.goto(f"http://localhost:{served.port}/assets")
        page.wait_for_selector(".chart canvas")
        page.wait_for_timeout(200)
        labels = page.evaluate("window.labels")
        assert "29 Nov 2026" in {label["text"] for label in labels}, "the widest date"
        assert [label["text"] for label in labels if label["left"] < 0] == []


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_chart__range_is_chosen_by_keyboard(chromium: Any, served: Served, size: tuple[int, int]) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    with patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"http://localhost:{served.port}/")
        page.wait_for_selector(".chart canvas")
        tab_to(page, "#r-1M")
        page.keyboard.press("Enter")
        assert page.locator("[data-range][aria-pressed=true]").all_inner_texts() == ["1M"]
        assert page.locator("#r-1M:focus").count() == 1
        assert violations(page) == []


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_chart__spans_at_least_a_hundredth_of_the_value(chromium: Any, served: Served, size: tuple[int, int]) -> None:
    labels, _ = labels_of(chromium, served, size, "minutes")
    labels_beside = [float(label["text"].replace(",", "")) for label in labels if label["side"] == "beside"]
    assert max(labels_beside) - min(labels_beside) > 3, "and not the 0.004 by which the value of 500 moves"
    assert min(labels_beside) < 500.12 < max(labels_beside)


def test_chart__line_breaks_over_a_gap(chromium: Any, served: Served) -> None:
    hours = [0, 1, 2, 8, 9]
    times_s = [1_790_000_000 + 3_600 * hour for hour in hours]
    served.board.documents["series"] = {"times_s": times_s, "values": ["500"] * 5, "hold_values": ["500"] * 5, "rebalances": []}
    with patient_context(chromium, viewport={"width": WIDE[0], "height": WIDE[1]}) as context:
        page = context.new_page()
        page.goto(f"http://localhost:{served.port}/")
        page.wait_for_selector(".chart canvas")
        drawn = page.evaluate(COLOURED_COLUMNS)
        assert drawn == [True, False, True]
        assert "no value was recorded then" in page.inner_text("#t-chart")


@pytest.mark.parametrize(
    "amount",
    ["6088.8451", "6088.845", "6088.835", "6088.8449", "999.995", "999.9950001", "0.5", "0.005", "12", "123456789012345678.999"],
)
def test_chart__rounds_as_the_figures_do(chromium: Any, served: Served, amount: str) -> None:
    values = ["1", amount]
    series = {"times_s": [1_790_000_000, 1_790_086_400], "values": values, "hold_values": values, "rebalances": []}
    served.board.documents["series"] = series
    with patient_context(chromium) as context:
        page = context.new_page()
        page.goto(f"http://localhost:{served.port}/")
        page.wait_for_selector(".chart canvas")
        figure = format_figure(amount, "money")
        assert page.inner_text("#readout").endswith(f"value {figure}, holding {figure}.")


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["390", "1280"])
def test_chart__of_replayed_prices_has_their_dates(chromium: Any, size: tuple[int, int], tmp_path: Path) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    path = tmp_path / "replay.csv"
    path.write_text("1790000000,2021-01-01\n1794752000,2021-03-05\n")
    with Served(Access(Reach(port=1, replay_path=path))) as replay:
        labels, _ = labels_of(chromium, replay, size, "days")
        below = " ".join(label["text"] for label in labels if label["side"] == "below")
        assert "2021" in below
        assert "Feb" in below
        assert "2026" not in below, "the time of the chain"
        with patient_context(chromium, viewport={"width": size[0], "height": size[1]}, bypass_csp=True) as context:
            page = context.new_page()
            page.goto(f"http://localhost:{replay.port}/")
            page.wait_for_selector(".chart canvas")
            assert page.inner_text("#readout").startswith("2021-03-05 ")
            assert "prices of 1 Jan 2021 to 5 Mar 2021" in page.inner_text("#t-chart h2")
            assert violations(page) == []
