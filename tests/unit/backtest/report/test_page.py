"""A page as HTML: what is written of text and data, what its policy allows, and whether its colours can be read."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from agent.artifacts import WEB_FOLDER
from agent.backtest.report.page import (
    ReportFact,
    ReportPage,
    ReportSection,
    ReportTable,
    escape_for_plotly,
    render_html,
    report_document,
    to_plain_data,
)
from tests.support.backtests import HOSTILE, LINK

PAGE = ReportPage(
    "One", (ReportFact("value", "1.00"),), (ReportSection("Part", ("words",), ({"data": [], "layout": {}},)),), ("It ended.",)
)


def test_what_is_no_finite_number_is_null() -> None:
    assert to_plain_data({"y": np.array([1.5, math.nan, math.inf]), 1: (2, "a", None)}) == {"y": [1.5, None, None], "1": [2, "a", None]}
    assert to_plain_data([1_617_494_400_123.0, 0.1234567891234]) == [1_617_494_400_123.0, 0.123456789]
    assert report_document(PAGE)["sections"][0]["figures"] == [{"data": [], "layout": {}}]


def test_only_templates_keep_their_few_tags() -> None:
    figure_text = {"name": "a<br>b", "hovertemplate": "%{y}<br><b>x</b><i>y</i><extra></extra>", "text": ["\u202egpj.exe", "&lt;"]}
    assert escape_for_plotly(figure_text) == {
        "name": "a&lt;br&gt;b",
        "hovertemplate": "%{y}<br><b>x</b>&lt;i&gt;y&lt;/i&gt;<extra></extra>",
        "text": ["\\u202egpj.exe", "&amp;lt;"],
    }


def test_columns_of_numbers_stand_at_the_right_and_text_does_not() -> None:
    table = ReportTable(("what", "how much", "why"), (("a", "−1,234.50", "12 of 3"), ("b", "—", "none")))
    page = render_html(replace(PAGE, sections=(ReportSection("T", tables=(table,)),)))
    assert '<th scope="col">what</th><th scope="col" class="n">how much</th><th scope="col">why</th>' in page
    assert '<td class="n">—</td>' in page


def test_markup_in_any_text_is_shown_as_text() -> None:
    texts = (HOSTILE, LINK)
    fact = ReportFact(HOSTILE, LINK, HOSTILE)
    figure = {"title": HOSTILE, "says": LINK, "data": [{"name": HOSTILE}]}
    part = ReportSection(HOSTILE, texts, (figure,), (ReportTable(texts, (texts,), HOSTILE),))
    marked_texts: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: marked_texts.append(tag)  # type: ignore[method-assign]
    parser.feed(render_html(ReportPage(HOSTILE, (fact,), (part,) * 3, texts, (fact,), LINK)))
    assert marked_texts.count("script") == 3
    assert marked_texts.count("a") == 5
    assert "img" not in marked_texts


def test_a_long_list_that_series_share_is_written_once() -> None:
    x = list(range(1_000, 1_200))
    figure = {"data": [{"type": "scatter", "x": x, "y": [1] * 3}, {"type": "scatter", "x": x, "y": [2] * 3}]}
    page = render_html(replace(PAGE, sections=(ReportSection("T", charts=(figure,)),)))
    assert page.count("1000,1001,1002") == 1
    assert page.count('"x":{"list":0}') == 2


def test_the_policy_lets_two_scripts_run_and_nothing_else_in() -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render_html(PAGE))
    rules = dict(directive.strip().split(" ", 1) for directive in policy.group(1).split(";"))
    assert rules["default-src"] == rules["connect-src"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}=' 'sha256-[\w+/]{43}='", rules["script-src"])


# Colours
def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(scheme: str) -> None:
    style = (WEB_FOLDER / "static" / "report.css").read_text()
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light if scheme == "light" else dark))

    def contrast(name: str) -> float:
        low, high = sorted((luminance(colours[name]), luminance(colours["paper"])))
        return (high + 0.05) / (low + 0.05)

    assert {name for name in ("ink", "soft", "link", "good", "bad") if contrast(name) < 4.5} == set()
    assert {name for name in colours if re.fullmatch(r"c\d", name) and contrast(name) < 3} == set()
