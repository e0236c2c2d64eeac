"""The report in a real Chromium: drawn, right, quiet, and inert whatever the tokens are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.app.research.report_files import write_pages, write_report
from agent.backtest.report.backtest import backtest_page
from agent.backtest.report.page import ReportFact, ReportPage, ReportSection, ReportTable, write_page
from tests.browser.chromium import AXE, PATIENCE_MS, PHONE, WIDE, violations
from tests.browser.conftest import OpenedPage
from tests.support.backtests import HOSTILE, LINK, result_of, with_series
from tests.support.worlds import missing

pytestmark = pytest.mark.skipif(find_spec("empyrical") is None, reason="reports need the extra for backtests")

Open = Callable[..., OpenedPage]
THREE_YEARS = 3 * 8_760
EIGHT = ("BTC", "ETH", "LINK", "SOL", "UNI", "AAVE", "CRV", "USD")
THIRTY = (*(f"T{number}{HOSTILE}" for number in range(29)), LINK)
MOST_BYTES = 3_000_000


@pytest.fixture(scope="session")
def long_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three years of hours, eight assets, 130 rebalances."""
    path = tmp_path_factory.mktemp("report") / "long.html"
    write_report(result_of(EIGHT, THREE_YEARS, every=200, volatility=0.005), path)
    return path


@pytest.fixture(scope="module")
def long_page(open_page: Open, long_report: Path) -> OpenedPage:
    return open_page(long_report)


@pytest.fixture(scope="module")
def short_page(open_page: Open, tmp_path_factory: pytest.TempPathFactory) -> OpenedPage:
    """Some weeks of hours, with a final value of its own, opened in the dark."""
    path = tmp_path_factory.mktemp("report") / "short.html"
    simulation = result_of(bars=400)
    equity = simulation.equity.copy()
    equity[-1] = 9_000.123456
    hold_equity = simulation.hold_equity.copy()
    hold_equity[-1] = 9_500
    write_report(with_series(simulation, equity=equity, hold_equity=hold_equity), path)
    return open_page(path, color_scheme="dark")


@pytest.mark.parametrize(("sheet", "width"), [("dashboard.css", 660), ("report.css", PHONE[0])])  # below 640 px the dashboard has cards
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_table_that_goes_on_beyond_the_edge_has_a_shadow_there(chromium: Any, sheet: str, width: int, colours: str) -> None:
    style = (Path("agent/web/static") / sheet).read_text()
    page = chromium.new_page(viewport={"width": width, "height": 300}, color_scheme=colours)
    table = "<table><tr><td><p style='width: 60rem'>1</p></td></tr></table>"
    page.set_content(f"<style>{style}</style><div class=scroll id=it>{table}</div>")
    box = page.evaluate(
        "(({right, top, height}) => ({x: right - 4, y: top + 2, width: 4, height: height / 3}))(it.getBoundingClientRect())"
    )
    more = page.screenshot(clip=box)
    page.evaluate("it.scrollLeft = 10000")
    ends = page.screenshot(clip=box)
    page.evaluate("it.querySelector('p').style.width = 'auto'")
    assert more != ends
    assert page.screenshot(clip=box) == ends, "there is none at the end, nor on a table that fits"
    page.close()


@pytest.mark.slow
def test_three_years_of_hours_stay_below_three_megabytes(long_report: Path) -> None:
    assert long_report.stat().st_size < MOST_BYTES
    assert long_report.with_suffix(".json").stat().st_size < MOST_BYTES


def test_it_opens_from_a_file_without_a_complaint_or_a_request(short_page: OpenedPage) -> None:
    assert short_page.complaints == []
    assert short_page.requests == []


@pytest.mark.slow
def test_every_chart_is_drawn_and_the_page_says_when(long_page: OpenedPage) -> None:
    shapes = long_page.drawn
    assert len(shapes) == int(long_page.ask("document.documentElement.dataset.drawn")) == 23
    assert min(shapes) >= 1


def test_the_summary_and_the_figures_on_top_are_those_of_the_run(short_page: OpenedPage) -> None:
    page = short_page.page
    assert "9,000.12 USD" in page.inner_text(".summary")
    assert "9,500.00 USD" in page.inner_text(".summary")
    assert page.inner_text("h1") == "BTC, ETH and USD"
    assert page.inner_text(".facts dd >> nth=0").startswith("9,000.12")
    assert page.inner_text(".facts dd >> nth=4").startswith("3")
    assert "c0" * 32 in page.inner_text("#origin")
    assert page.locator("td.n").first.evaluate("one => getComputedStyle(one).textAlign") == "right"
    assert short_page.quiet


def test_a_symbol_that_is_markup_does_nothing(open_page: Open, tmp_path: Path) -> None:
    figure = {
        "title": HOSTILE,
        "says": LINK,
        "data": [
            {"type": "scatter", "mode": "lines+text", "x": [1, 2], "y": [1, 2], "name": HOSTILE, "text": [LINK, HOSTILE]},
            {"type": "bar", "x": [1, 2], "y": [2, 1], "name": LINK, "hovertemplate": f"<b>%{{y}}</b>{LINK}{HOSTILE}"},
        ],
        "layout": {
            "xaxis": {"title": HOSTILE, "tickvals": [1, 2], "ticktext": [LINK, HOSTILE]},
            "annotations": [{"text": LINK, "x": 1, "y": 1}],
            "images": [{"source": "https://evil.example/x.png"}],
        },
    }
    section = ReportSection(HOSTILE, (LINK,), (figure,), (ReportTable((HOSTILE, LINK), ((HOSTILE, LINK),), HOSTILE),))
    path = tmp_path / "hostile.html"
    write_page(
        ReportPage(HOSTILE, (ReportFact(HOSTILE, LINK, HOSTILE),), (section,) * 3, (HOSTILE, LINK), (ReportFact(LINK, HOSTILE),), LINK),
        path,
    )
    opened = open_page(path)
    opened.page.focus("[data-figure]")
    opened.page.keyboard.press("ArrowRight")
    assert opened.ask("window.bad") is None
    assert opened.ask("document.scripts.length") == 3
    assert opened.ask("document.querySelectorAll('img, image, iframe, object, embed').length") == 0
    assert opened.ask(
        "[...document.querySelectorAll('a')].every(one => (one.getAttribute('href') || one.getAttribute('xlink:href') || '')[0] === '#')"
    )
    for selector in ("h1", "h2", "figcaption", "caption", "tbody td", ".legendtext", ".annotation-text", ".xtick text"):
        assert opened.page.locator(selector).first.text_content() in (HOSTILE, LINK), selector
    assert HOSTILE in opened.page.text_content("#spoken")
    assert opened.quiet


def test_page__may_not_connect_anywhere(short_page: OpenedPage) -> None:
    tried = short_page.ask(
        """Promise.all([
          fetch("https://evil.example/").then(() => "sent", () => "refused"),
          new Promise(done => { const one = new Image(); one.onload = () => done("sent"); one.onerror = () => done("refused");
            one.src = "https://evil.example/x.png"; }),
          new Promise(done => { const one = document.createElement("script"); one.textContent = "window.bad = 1"; document.body.append(one);
            done(window.bad ? "ran" : "refused"); one.remove(); }),
        ])"""
    )
    assert tried == ["refused"] * 3
    assert short_page.requests == []
    short_page.complaints.clear()  # of the policy, about these three


@pytest.mark.slow
def test_the_keyboard_reads_values(long_page: OpenedPage) -> None:
    page = long_page.page
    page.focus("[data-figure='0']")
    page.keyboard.press("End")
    assert page.text_content("#spoken").startswith("2023-12-31 23:00: rebalanced ")
    assert page.locator("[data-figure='0'] .hoverlayer .legend").count() == 1
    page.keyboard.press("ArrowLeft")
    assert not page.text_content("#spoken").startswith("2023-12-31 23:00")
    page.keyboard.press("Escape")
    assert page.locator("[data-figure='0'] .hoverlayer .legend").count() == 0
    named = long_page.ask("[...document.querySelectorAll('[data-figure]')].every(one => one.tabIndex === 0 && one.ariaLabel.length > 20)")
    assert named


@pytest.mark.slow
@pytest.mark.parametrize("bars", [600, THREE_YEARS])
def test_nothing_is_wider_than_a_phone(open_page: Open, tmp_path: Path, bars: int) -> None:
    path = tmp_path / "report.html"
    write_report(result_of(EIGHT, bars, every=200, volatility=0.005), path)
    opened = open_page(path, PHONE, has_touch=True, is_mobile=True)
    assert opened.ask("document.documentElement.scrollWidth") <= PHONE[0]
    assert opened.ask("[...document.querySelectorAll('figure')].every(one => one.getBoundingClientRect().right <= innerWidth)")
    assert min(opened.drawn) >= 1
    assert opened.quiet


@pytest.mark.slow
def test_dark_light_and_paper_have_colours_of_their_own(short_page: OpenedPage) -> None:
    from playwright.sync_api import expect

    line = short_page.page.locator("[data-figure='1'] .scatterlayer path.js-line").first
    for media, scheme, ground, stroke in (
        ("screen", "dark", "rgb(20, 23, 26)", "rgb(91, 150, 251)"),
        ("print", "dark", "rgb(255, 255, 255)", "rgb(11, 79, 184)"),
        ("screen", "dark", "rgb(20, 23, 26)", "rgb(91, 150, 251)"),
        ("screen", "light", "rgb(255, 255, 255)", "rgb(11, 79, 184)"),
    ):
        short_page.page.emulate_media(media=media, color_scheme=scheme)
        assert short_page.ask("getComputedStyle(document.body).backgroundColor") == ground
        expect(line).to_have_css("stroke", stroke, timeout=PATIENCE_MS)
    assert short_page.quiet


@pytest.mark.slow
def test_charts_fit_on_paper_and_come_back(short_page: OpenedPage) -> None:
    widths = "[...document.querySelectorAll('[data-figure]')].map(one => one._fullLayout.width)"
    before = short_page.ask(widths)
    short_page.ask("void dispatchEvent(new Event('beforeprint'))")
    assert set(short_page.ask(widths)) == {680}
    short_page.ask("void dispatchEvent(new Event('afterprint'))")
    assert short_page.ask(widths) == before
    assert short_page.quiet


@pytest.mark.slow
def test_everything_has_a_name_for_whoever_listens(long_page: OpenedPage) -> None:
    assert long_page.ask("[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName).join('')").startswith("H1H2")
    assert long_page.ask(
        "new Set([...document.querySelectorAll('[id]')].map(one => one.id)).size === document.querySelectorAll('[id]').length"
    )
    for every in (
        "[...document.querySelectorAll('section')].every(one => document.getElementById(one.getAttribute('aria-labelledby')).innerText)",
        "[...document.querySelectorAll('[role=region], nav')].every(one => one.ariaLabel)",
        "[...document.querySelectorAll('table')].every(one => one.tHead && [...one.tHead.rows[0].cells].every(cell => cell.innerText))",
        "[...document.querySelectorAll('nav a')].every(one => document.querySelector(one.getAttribute('href')))",
        "document.documentElement.lang === 'en' && document.title.includes('BTC')",
    ):
        assert long_page.ask(every), every


def report_page(kind: str) -> ReportPage:
    """A report of a backtest, a search or a stress test."""
    if kind == "backtest":
        return backtest_page(result_of(bars=400))
    pytest.importorskip("numba")
    if kind == "tune":
        from agent.backtest.tune.report import tune_page
        from tests.support.backtests import search, tune_result_of, walks

        return tune_page(tune_result_of(search(walks(9, 120), every="7d")))
    from agent.backtest.stress.run import run_stress_test, stress_page
    from tests.support.backtests import DEEP, halves, wish
    from tests.support.studies.stress_tables import TABLE

    return stress_page(run_stress_test(halves(), TABLE, DEEP, wish(paths=2, bars=5)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["backtest", "tune", "stress"])
def test_no_report_has_a_violation_in_either_colour(open_page: Open, tmp_path: Path, kind: str) -> None:
    if not AXE.is_file():
        missing("no axe-core: make setup installs it")
    path = tmp_path / "report.html"
    write_pages(report_page(kind), path)
    opened = open_page(path, PHONE, bypass_csp=True)
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        assert violations(opened.page) == [], scheme


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_heat_map_is_squares_with_a_scale_beside_or_above_them(open_page: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    marker = {
        "symbol": "square",
        "size": 20,
        "color": [1.0, 2.0, None],
        "colorscale": [[0.0, "#7a3b69"], [1.0, "#1f6f6b"]],
        "showscale": True,
    }
    squares = {"type": "scatter", "mode": "markers", "x": ["a", "b", "a"], "y": ["c", "c", "d"], "marker": marker, "name": "growth"}
    path = tmp_path / "map.html"
    write_page(ReportPage("Map", (), (ReportSection("Map", ("words",), ({"data": [squares], "layout": {"hovermode": "closest"}},)),)), path)
    opened = open_page(path, size)
    assert opened.drawn == [3]
    plot, scale = (opened.page.locator(f"[data-figure] {name}").bounding_box() for name in (".nsewdrag", ".cbfills"))
    assert (scale["y"] < plot["y"]) is (size == PHONE)
    assert opened.quiet


@pytest.mark.slow
@pytest.mark.parametrize(
    ("symbols", "changes"),
    [
        pytest.param(("USD",), {}, id="one asset, which is the numeraire"),
        pytest.param(("BTC", "USD"), {"every": 0}, id="no rebalance", marks=pytest.mark.slow),
        pytest.param(("BTC", "USD"), {"bars": 2, "every": 0}, id="two bars and no rebalance"),
        pytest.param(("BTC", "USD"), {"bars": 3, "every": 1, "bar_s": 7 * 86_400}, id="three weeks"),
        pytest.param(("BTC", "USD"), {"volatility": 0.0}, id="prices that never move, so that no ratio is known"),
        pytest.param(THIRTY, {"bars": 200}, id="thirty symbols of markup"),
        pytest.param(THIRTY, {"bars": 3_000}, id="thirty symbols of markup for months", marks=pytest.mark.slow),
    ],
)
def test_runs_that_are_hardly_any_are_reported_too(
    open_page: Open, tmp_path: Path, symbols: tuple[str, ...], changes: dict[str, float]
) -> None:
    path = tmp_path / "report.html"
    write_report(result_of(symbols, **{"bars": 300, **changes}), path)  # type: ignore[arg-type]  # numbers of bars are whole here
    opened = open_page(path, PHONE)
    assert opened.ask("document.documentElement.scrollWidth") <= PHONE[0]
    assert len(opened.drawn) >= 3
    assert opened.ask("window.bad") is None
    assert not re.search(r"(?<![a-z])nan", opened.page.inner_text("body").lower()), "a number that is none"
    assert opened.quiet


def test_paths_that_end_in_nothing_are_reported(open_page: Open, tmp_path: Path) -> None:
    simulation = result_of(bars=60, every=20)
    path = tmp_path / "report.html"
    equity = simulation.equity.copy()
    equity[-5:] = np.nan
    write_report(replace(simulation, equity=equity, premium=None, yearly_gains=()), path)
    opened = open_page(path)
    assert "is unknown" in opened.page.inner_text(".summary")
    assert opened.quiet
