"""A page as HTML: all text escaped, scripts allowed by their hashes alone, and no connection to anywhere."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from agent import artifacts
from agent.backtest.report import Fact, Figure, Page, Section, Table, as_data, inert
from agent.errors import ConfigError, plain

HEIGHT_PX = 320
LONG_FACT = 13
"""Letters of a fact beyond which it is set smaller."""
HOW_TO_READ = "Drag along a chart to look closer, double-click to go back. By keyboard: tab to a chart, arrow keys read its values."
NUMBER = re.compile(r"[+−-]?\d[\d,  ]*(\.\d+)?( ?(%|bps|×|points|days|bars|[A-Z]{2,6}))?")
LONG = 64
"""Entries of a list from which on it is worth being written once."""
NOTHING = ("", "—", "–", "none")
_HERE = Path(__file__).parent / "page"


def html(page: Page) -> str:
    """The whole file. Raises ConfigError where Plotly's bundle is missing."""
    style, script, plotly = _own("page.css"), _own("page.js"), _plotly()
    figures: list[Figure] = []
    body = "\n".join(_section(number, one, figures) for number, one in enumerate(page.sections))
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{_text(page.title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">To the report</a>
<header>
<p class="kind">{_text(page.kind)}</p>
<h1>{_text(page.title)}</h1>
<div class="summary">{_paragraphs(page.summary)}</div>
{_facts(page.facts)}
{_contents(page)}
</header>
<main id="main" tabindex="-1">
{body}
{_origin(page.origin)}
</main>
<footer><p>{HOW_TO_READ}</p></footer>
<p id="spoken" class="unseen" role="status"></p>
<script type="application/json" id="figures">{_data(figures)}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


@lru_cache(maxsize=1)
def _plotly() -> str:
    path = artifacts.plotly_bundle()
    found = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    if re.search(r"</script|<!--", found, re.IGNORECASE):
        raise ConfigError(f"report: {path} cannot be written into a page", "install the locked version")
    return found


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"


def _text(value: str) -> str:
    return escape(plain(value), quote=True)


def _data(figures: list[Figure]) -> str:
    """JSON that ends no script element; a long list that several series share is written once."""
    lists: dict[str, int] = {}

    def once(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: once(one) for key, one in value.items()}
        if isinstance(value, list):
            if len(value) < LONG:
                return [once(one) for one in value]
            return {"list": lists.setdefault(_json(value), len(lists))}
        return value

    drawn = [once(inert(as_data({"data": one.get("data", []), "layout": _layout(one)}))) for one in figures]
    text = f'{{"lists":[{",".join(lists)}],"figures":{_json(drawn)}}}'
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _layout(figure: Figure) -> dict[str, Any]:
    return {key: one for key, one in figure.get("layout", {}).items() if key not in ("title", "height", "width", "images")}


def _paragraphs(words: tuple[str, ...]) -> str:
    return "".join(f"<p>{_text(one)}</p>" for one in words)


def _facts(facts: tuple[Fact, ...]) -> str:
    if not facts:
        return ""
    cells = []
    for one in facts:
        size = ' class="long"' if len(one.value) > LONG_FACT else ""
        note = f"<small>{_text(one.note)}</small>" if one.note else ""
        cells.append(f"<div><dt>{_text(one.name)}</dt><dd{size}>{_text(one.value)}{note}</dd></div>")
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _contents(page: Page) -> str:
    if len(page.sections) < 3:
        return ""
    links = [f'<li><a href="#s{number}">{_text(one.title)}</a></li>' for number, one in enumerate(page.sections)]
    if page.origin:
        links.append('<li><a href="#origin">Where it came from</a></li>')
    return f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav>'


def _section(number: int, section: Section, figures: list[Figure]) -> str:
    parts = []
    for one in section.figures:
        parts.append(_figure(len(figures), one))
        figures.append(one)
    parts += [_table(one, section.title) for one in section.tables]
    small = ' class="shown small"' if any(one.get("small") for one in section.figures) else ' class="shown"'
    return (
        f'<section id="s{number}" aria-labelledby="t{number}"><div class="said"><h2 id="t{number}">{_text(section.title)}</h2>'
        f"{_paragraphs(section.words)}</div><div{small}>{''.join(parts)}</div></section>"
    )


def _figure(number: int, figure: Figure) -> str:
    inside = figure.get("layout", {}).get("title", "")
    title = str(figure.get("title") or (inside.get("text", "") if isinstance(inside, dict) else inside))
    says = str(figure.get("says", ""))
    height = int(figure.get("height") or figure.get("layout", {}).get("height") or HEIGHT_PX)
    caption = f"<figcaption>{_text(title)}</figcaption>" if title else ""
    label = _text(". ".join(one.rstrip(".") for one in (title, says) if one) or "Chart")
    kind = "plot small" if figure.get("small") else "plot"
    return (
        f'<figure>{caption}<div class="{kind}" data-figure="{number}" style="height:{height}px" tabindex="0" role="application" '
        f'aria-roledescription="chart" aria-label="{label}. Arrow keys read values."></div></figure>'
    )


def _table(table: Table, title: str) -> str:
    wide = len(table.header)
    columns = [[row[index] if index < len(row) else "" for row in table.rows] for index in range(wide)]
    right = [_numeric(cells) for cells in columns]

    def cell(index: int, value: str, head: bool) -> str:
        number = ' class="n"' if right[index] else ""
        if head:
            return f'<th scope="col"{number}>{_text(value)}</th>'
        return f'<th scope="row"{number}>{_text(value)}</th>' if index == 0 else f"<td{number}>{_text(value)}</td>"

    head = "".join(cell(index, value, True) for index, value in enumerate(table.header))
    rows = "".join(f"<tr>{''.join(cell(i, value, False) for i, value in enumerate(row[:wide]))}</tr>" for row in table.rows)
    caption = f"<caption>{_text(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(table.caption or title)}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _numeric(cells: list[str]) -> bool:
    told = [one for one in cells if one not in NOTHING]
    return bool(told) and all(NUMBER.fullmatch(one) for one in told)


def _origin(origin: tuple[Fact, ...]) -> str:
    if not origin:
        return ""
    rows = "".join(
        f"<div><dt>{_text(one.name)}</dt><dd>{_text(one.value)}{f' <small>{_text(one.note)}</small>' if one.note else ''}</dd></div>"
        for one in origin
    )
    return (
        '<section id="origin" aria-labelledby="t-origin"><div class="said"><h2 id="t-origin">Where it came from</h2>'
        "<p>By these the run can be repeated, to the last digit.</p></div>"
        f'<div class="shown"><dl class="origin">{rows}</dl></div></section>'
    )
