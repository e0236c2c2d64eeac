"""Pages from documents: the templates of agent/web/templates, with every value escaped. The exact
value of a figure and its path in the documents are kept beside the formatted text, so that each can
be compared with the command's JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from agent import artifacts
from agent.errors import printable_text
from agent.units import decimal_text, gain_text, spell_durations
from agent.web.reach import Reach
from agent.web.reading import Documents

if TYPE_CHECKING:
    from agent.web.sessions import Review, Session


MINUS = "−"
NO_VALUE = "–"
SIGNIFICANT_DIGITS = 6
APPROVED_OUTCOME = "approved"
"""Outcome of a step of history that sent the approvals of a plan."""
SIGNED_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def value_at(documents: Documents, path: str) -> Any:
    """Return the value at a path such as `status.holdings.0.value`; a key may have dots itself."""
    value: Any = documents
    while path:
        name, _, rest_of_path = path.partition(".")
        if isinstance(value, list):
            value, path = value[int(name)], rest_of_path
        elif path in value:
            return value[path]
        else:
            value, path = value[name], rest_of_path
    return value


def format_figure(value: Any, figure_format: str) -> str:
    """Format a value: `money` and `amount` of a decimal string, `percent` and `points` of bps, `ratio`
    and (with 4 decimals) `rate` of a share, `number`, `text`, `time` of an ISO time in UTC, `coins:6` of
    base units with 6 decimals.
    With a `+` at the end a positive value has its sign; a loss in `money+` is rounded up in size.
    """
    if value is None:
        return NO_VALUE
    kind, has_plus = figure_format.removesuffix("+"), figure_format.endswith("+")
    if kind == "text":
        return str(value)
    if kind == "time":
        return str(value).replace("T", " ").removesuffix("Z")
    if kind.startswith("coins:"):
        return _decimal(decimal_text(int(value), int(kind.removeprefix("coins:"))), "amount")
    if kind in ("percent", "points", "ratio", "rate"):
        share = float(value) / (100 if kind in ("percent", "points") else 0.01)
        if not math.isfinite(share):
            return NO_VALUE
        text = (
            f"{abs(share):,.{4 if kind == 'rate' else 2}f} {'points' if kind == 'points' else '%'}"
        )
        is_negative = share < 0
    else:
        decimal = gain_text(str(value)) if figure_format == "money+" else str(value)
        text = _decimal(decimal.lstrip("-"), kind)
        is_negative = str(value).startswith("-")
    if not any(digit in "123456789" for digit in text):
        return text
    if is_negative:
        return MINUS + text
    return f"+{text}" if has_plus else text


def format_move(text: str) -> str:
    """Return a movement of an offered plan, such as "-0.123456789 WETH", with its amount as on the pages;
    any other text unchanged.
    """
    amount, _, symbol = text.partition(" ")
    if not SIGNED_AMOUNT.fullmatch(amount):
        return text
    return f"{format_figure(amount, 'amount+')} {symbol}"


def sign_class(value: Any) -> str:
    """Return the style of a profit or loss: "up", "down", or nothing for zero and None."""
    if value is None or float(value) == 0:
        return ""
    return "up" if float(value) > 0 else "down"


def _decimal(text: str, kind: str) -> str:
    """Format a positive decimal string with thousands separators; truncated, never rounded."""
    whole, _, fraction = text.partition(".")
    if kind == "number":
        return f"{int(whole or 0):,}" + (f".{fraction}" if fraction else "")
    if kind == "money":
        return f"{int(whole or 0):,}.{fraction[:2]:0<2}"
    leading_digits = len(whole) if int(whole or 0) else -(len(fraction) - len(fraction.lstrip("0")))
    decimals = fraction[: max(2, SIGNIFICANT_DIGITS - leading_digits)].rstrip("0")
    return f"{int(whole or 0):,}" + (f".{decimals}" if decimals else "")


PACKAGE_EXTRA = "dashboard"
SHOWN_REBALANCES, SHOWN_CYCLES, SHOWN_LOTS = 25, 40, 20
MAX_CHART_POINTS = 400
"""Maximum number of points of a chart."""


class Page(NamedTuple):
    """A page: its path, title, template, and the reads that it needs. It is in the menu only if
    `document` is empty or has been read, which needs the feature in the config.
    """

    path: str
    title: str
    template: str
    reads: tuple[str, ...]
    document: str = ""


STORED, LIVE, PLAN = "stored_documents", "live_documents", "plan_document"
CONTROLS = "controls.queue.dashboard_controls"
REPORTS = "research.kept_reports.dashboard_reports"
REPORT_PAGE = Page("/reports", "Reports", "reports.html", (REPORTS,))
PAGES = (
    Page("/", "Overview", "overview.html", (LIVE, STORED)),
    Page("/history", "History", "history.html", (STORED,)),
    Page("/assets", "Assets", "assets.html", (LIVE, STORED)),
    Page("/liquidity", "Liquidity", "liquidity.html", (LIVE,), "lp"),
    Page("/strategies", "Strategies", "strategies.html", (LIVE,), "strategies"),
    Page("/alerts", "Alerts", "alerts.html", (LIVE,)),
    Page("/futures", "Futures", "futures.html", (LIVE,), "margin"),
    Page("/plan", "Plan now", "plan.html", (PLAN,)),
    Page("/settings", "Settings", "settings.html", (STORED,)),
    REPORT_PAGE,
)
CONTROL_PAGE = Page("/controls", "Controls", "controls.html", (CONTROLS, LIVE))
"""Shown to logged-in users."""
REVIEW_PAGE = Page("/controls/review/{review}", "", "review.html", ())
STEP_PAGE = Page("/history/{step}", "Step", "step.html", ())
ASSETS = (
    "vendor/htmx-2.0.11.min.js",
    "vendor/uplot-1.6.32.min.js",
    "vendor/uplot-1.6.32.min.css",
    "dashboard.css",
    "portfolios.css",
    "dashboard.js",
    "stream.js",
    "offline.js",
    "manifest.webmanifest",
    "icon.svg",
    "icon.png",
)
"""The files that are served, and no others."""
EXPORTS = ("csv.zip", "rotki.zip")
"""Archives of `trimtab export` that are made on request."""


class Renderer:
    """Renders the pages of a dashboard with this reach. Raises ConfigError if Jinja2 is missing."""

    def __init__(self, reach: Reach) -> None:
        self._templates = artifacts.template_environment(PACKAGE_EXTRA)
        self._templates.globals |= {
            name: getattr(reach, name) for name in ("prefix", "portfolio", "banner", "uses_tls")
        }
        self._templates.filters["short_move"] = format_move

    def login(self, csrf: str, message: str, return_path: str, plan_hash: str = "") -> str:
        """Render the login page; `message` is the reason of a refusal, `return_path` the page to open after the
        login, `plan_hash` the plan of the link that led here.
        """
        template = self._templates.get_template("login.html")
        return template.render(csrf=csrf, why=message, to=return_path, plan=plan_hash)

    def page(
        self,
        page: Page,
        documents: Documents,
        read_errors: Mapping[str, object],
        version: int,
        session: Session | None = None,
        review: Review | None = None,
    ) -> str:
        """Render a page from the documents read so far; `version` is that of the document cache."""
        status = documents.get("status", {})
        decimals = {
            holding["symbol"]: holding["decimals"] for holding in status.get("holdings", ())
        }

        def coin_format(symbol: str) -> str:
            return f"coins:{decimals[symbol]}" if symbol in decimals else "number"

        return self._templates.get_template(page.template).render(
            page=page,
            session=session,
            may_control=session is not None and not session.read_only,
            review=review,
            version=version,
            pages=[
                listed_page
                for listed_page in (*PAGES, *([] if session is None else [CONTROL_PAGE]))
                if not listed_page.document or listed_page.document in documents
            ],
            title=page.title,
            documents=documents,
            status=status,
            figure=partial(figure, documents),
            coins=coin_format,
            failed=[str(read_errors[read]) for read in page.reads if read in read_errors],
            value_charts=value_charts,
            weight_charts=weight_charts,
            steps=documents.get("history", {}).get("steps", []),
            alert_path=alert_path,
            bar=weight_bar,
            periods=newest_periods,
            steps_of=step_indices_by_kind,
            last_swap=last_swap,
            approvals_before=approvals_before,
            nearest=nearest_alert,
            limits={
                "rebalances": SHOWN_REBALANCES,
                "cycles": SHOWN_CYCLES,
                "lots": SHOWN_LOTS,
            },
        )

    def portfolios(
        self,
        rows: Sequence[Mapping[str, Any]],
        documents: Documents,
        state_hash: str,
        *,
        may_add: bool,
    ) -> str:
        """Render the list of portfolios; `documents` has the documents of each row, `state_hash` is a
        hash of the shown state. With `may_add` users who may control a portfolio can add one.
        """
        return self._templates.get_template("portfolios.html").render(
            title="Portfolios",
            rows=rows,
            sums=documents["sums"],
            state_hash=state_hash,
            may_add=may_add,
            controlled=[row for row in rows if row.get("csrf")],
            figure=partial(figure, documents),
        )


def figure(
    documents: Documents, path: str, figure_format: str = "text", colour: bool = False
) -> Markup:
    """Return the HTML element of the value at a path of the documents."""
    value = value_at(documents, path)
    style = sign_class(value) if colour else ""
    return Markup('<data value="{}" data-of="{}" data-form="{}"{}>{}</data>').format(
        "" if value is None else str(value),
        path,
        figure_format,
        Markup(' class="{}"').format(style) if style else "",
        printable_text(spell_durations(format_figure(value, figure_format))),
    )


def newest_periods(documents: Documents) -> list[tuple[str, str]]:
    """Return (name, path of its figures) for each period of `pnl` that has figures."""
    documents = documents.get("pnl", {})
    if "error" in documents:
        return []
    return [
        (name, f"pnl.{name}.periods.0")
        for name, document in documents.items()
        if document["periods"]
    ]


def step_indices_by_kind(history: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the indices of the steps by kind: `swapped` with a swap, `sent` with other
    transactions only, such as approvals and payouts, `held` with none.
    """
    indices: dict[str, list[int]] = {"swapped": [], "sent": [], "held": []}
    for index, step in enumerate(history.get("steps", ())):
        kinds = {transaction["kind"] for transaction in step["transactions"]}
        if "swap" in kinds:
            indices["swapped"].append(index)
        else:
            indices["sent" if kinds else "held"].append(index)
    return indices


def last_swap(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the newest step that swapped; None without one."""
    return next((index for index, step in enumerate(steps) if step["execution"]), None)


def approvals_before(steps: Sequence[Mapping[str, Any]], step_index: int) -> list[int]:
    """Return the indices of the steps directly before a step that sent its approvals."""
    indices = []
    for index, step in enumerate(steps[step_index + 1 :], step_index + 1):
        if step["outcome"] != APPROVED_OUTCOME or step["cost"] is None:
            break
        indices.append(index)
    return indices


def nearest_alert(documents: Documents) -> tuple[str, str] | None:
    """Return (path of the asset, "low" or "high") of the alert price nearest to its present price; None
    without one, and once an asset is outside its band. The numeraire's own price does not move.
    """
    rows, numeraire = (
        documents.get("alerts", {}).get("assets", ()),
        documents["status"]["numeraire"],
    )
    if any(asset["side"] != "inside" for asset in rows):
        return None
    distances = [
        (abs(row[f"to_{side}_bps"]), f"alerts.assets.{index}", side)
        for index, row in enumerate(rows)
        for side in ("low", "high")
        if row["symbol"] != numeraire and row[f"to_{side}_bps"] is not None
    ]
    return min(distances)[1:] if distances else None


def alert_path(documents: Documents, holding_index: int) -> str:
    """Return the path of the alert prices of a holding; empty if they are not read."""
    alerts = documents.get("alerts", {}).get("assets", ())[holding_index : holding_index + 1]
    symbol = documents["status"]["holdings"][holding_index]["symbol"]
    is_read = bool(alerts) and alerts[0]["symbol"] == symbol
    return f"alerts.assets.{holding_index}" if is_read else ""


def value_charts(documents: Documents) -> list[dict[str, str]]:
    """Return the chart of the value and of holding; empty for fewer than two valuations."""
    series = documents.get("series", {})
    if len(series.get("times_s", ())) < 2:
        return []
    unit = documents["pnl"]["all"]["numeraire"]
    first, last, hold = series["values"][0], series["values"][-1], series["hold_values"][-1]
    label = f"Value from {format_figure(first, 'money')} to {format_figure(last, 'money')} {unit};"
    label += (
        f" holding reached {format_figure(hold, 'money')}. Rebalances: {len(series['rebalances'])}"
    )
    chart_data = {
        "times_s": series["times_s"],
        "line": series["values"],
        "hold": series["hold_values"],
        "marks": series["rebalances"],
    }
    # escaped here: the templates shorten a long text
    data = escape(json.dumps(chart_data, separators=(",", ":")))
    return [{"label": label, "unit": unit, "data": data}]


def weight_charts(
    history: Mapping[str, Any], holdings: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, str]]:
    """Return the weight of each asset over time with its present band and target, as JSON for the
    charts' elements, oldest first; empty for fewer than two valuations.
    """
    valuations = list(reversed(history.get("values", ())))
    if len(valuations) < 2:
        return []
    stride = -(-len(valuations) // MAX_CHART_POINTS)
    shown_values = valuations[::-1][::stride][::-1]
    times = [valuation["time"] for valuation in shown_values]
    bands = {
        holding["symbol"]: [bps / 100 for bps in (*holding["band_bps"], holding["target_bps"])]
        for holding in holdings
    }
    symbols = {symbol for valuation in shown_values for symbol in valuation["weights_bps"]}
    ordered_symbols = [symbol for symbol in bands if symbol in symbols] + sorted(
        symbols - bands.keys()
    )
    return [
        _chart(
            printable_text(symbol),
            "%",
            times,
            [valuation["weights_bps"].get(symbol, 0) / 100 for valuation in shown_values],
            bands.get(symbol),
        )
        for symbol in ordered_symbols
    ]


def _chart(
    name: str,
    unit: str,
    times: Sequence[str],
    points: Sequence[float],
    band: Sequence[float] | None = None,
) -> dict[str, str]:
    """Return a chart; `band` is (low, high, target)."""
    label = (
        f"{name} in {unit}, {times[0]} to {times[-1]}: from {points[0]:,.2f} to {points[-1]:,.2f}"
    )
    title = f"{name}, in {unit}"
    if band is not None:
        low, high, target = band
        label += f"; its band now is {low:,.2f} to {high:,.2f}, its target {target:,.2f}"
        title += f"; band {low:g} to {high:g}, target {target:g}"
    chart_data = {"times": times, "name": name, "line": points, "band": band}
    return {"title": title, "label": label, "data": json.dumps(chart_data)}


def weight_bar(holding: Mapping[str, Any], full_bps: int) -> Markup:
    """Return a picture of a weight in its band, with the target as a line."""
    low_bps, high_bps = holding["band_bps"]

    def x_position(bps: int) -> str:
        return f"{min(max(bps, 0), full_bps) * 100 / full_bps:.2f}"

    is_inside = low_bps <= holding["weight_bps"] <= high_bps
    description = (
        f"{holding['weight_bps'] / 100:.2f} %, {'inside' if is_inside else 'outside'} its band of"
        f" {low_bps / 100:.2f} to {high_bps / 100:.2f} %"
    )
    return Markup(
        '<svg class="bar{}" viewBox="0 0 100 10" preserveAspectRatio="none" role="img"'
        ' aria-label="{}"><rect class="band" x="{}" y="0" width="{}" height="10"></rect>'
        '<rect class="weight" x="0" y="3" width="{}" height="4"></rect>'
        '<rect class="target" x="{}" y="0" width="0.8" height="10"></rect></svg>'
    ).format(
        "" if is_inside else " outside",
        escape(printable_text(f"{holding['symbol']}: {description}")),
        x_position(low_bps),
        f"{float(x_position(high_bps)) - float(x_position(low_bps)):.2f}",
        x_position(holding["weight_bps"]),
        x_position(holding["target_bps"]),
    )
