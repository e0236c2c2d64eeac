"""Pages from documents: the templates of agent/web/templates, with every value escaped. The exact
value of a figure and its path in the documents are kept beside the formatted text, so that each can
be compared with the command's JSON.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from agent import artifacts
from agent.errors import printable_text
from agent.figures import (
    HALF_CENT,
    REFUSED_PREFIX,
    WITH_THE_OTHERS,
    Column,
    as_sentence,
    asset_range,
    column,
    correction_text,
    format_figure,
    lead_reason,
    pause_exceptions,
    pause_text,
    ranges_beside_targets,
    reader_text,
    replace_pool_addresses,
    stop_text,
    token_colour,
)
from agent.model.limits import ABOVE_CEILING_TEXT
from agent.units import HOUR_S
from agent.web.app_modules import dashboard, kept_reports, queue
from agent.web.reach import Reach
from agent.web.reading import DocumentRead, Documents

if TYPE_CHECKING:
    from jinja2 import Environment

    from agent.web.sessions import PlanReview, Session


APPROVED_OUTCOME = "approved"
"""Outcome of a step of history that sent the approvals of a plan."""
TRADE_KINDS = frozenset({"swap", "liquidity", "futures"})
"""Kinds of the transactions that trade."""
UNDONE_OUTCOMES = frozenset({"refused", "halt", "failed", "error", "unfinished"})
"""Outcomes of steps that did not do what they had planned."""
ENDED_STATES = frozenset({"stopped", "failed", "gone"})
STARTS_OR_ENDS = "starts or ends"
"""State of a paper run of which it is unknown which."""
NUMBER = re.compile(r"[0-9][0-9.,]*")
SIGNED_AMOUNT = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def value_at(documents: Documents, path: str) -> Any:
    """Return the value at a path such as `status.holdings.0.value`; a key may have dots itself."""
    value: Any = documents
    while path:
        name, _, rest_of_path = path.partition(".")
        if isinstance(value, list):
            value = value[int(name)]
            path = rest_of_path
        elif path in value:
            return value[path]
        else:
            value = value[name]
            path = rest_of_path
    return value


PERCENT_SIGN = re.compile("(?<=[0-9]) ?%(?![0-9A-Za-z])")
"""The sign behind a number; not that of a band such as 10%rel, or of an address."""


def unbroken_text(text: str) -> Markup:
    """Return a text escaped for HTML, with figures as `reader_text` writes them, and percentages in
    the one form of the pages, "60 %". The space is a no-break one, so that no line begins with the
    sign.
    """
    return escape(PERCENT_SIGN.sub("\u00a0%", reader_text(printable_text(text))))


def page_environment(complete_hints: Callable[[str], str] = str) -> Environment:
    """Return the environment of the templates of pages, whose texts name commands as
    `complete_hints` completes them. Raises ConfigError if Jinja2 is missing.
    """
    environment = artifacts.template_environment(PACKAGE_EXTRA)
    environment.filters |= {
        "unbroken": lambda text: unbroken_text(complete_hints(text)),
        "asset_range": asset_range,
        "correction_text": correction_text,
        "pause_exceptions": pause_exceptions,
        "pause_text": pause_text,
        "ranges_beside_targets": ranges_beside_targets,
        "stop_text": stop_text,
        "with_pool_names": replace_pool_addresses,
        "percent": lambda share: unbroken_text(format_figure(share, "ratio+")),
        "amount": lambda amount: format_figure(amount, "amount"),
        "sentence": as_sentence,
    }
    environment.globals["program"] = program_name()
    environment.globals["command"] = partial(command_text, complete_hints)
    environment.globals["with_the_others"] = WITH_THE_OTHERS
    environment.globals["above_ceiling"] = ABOVE_CEILING_TEXT
    return environment


def program_name() -> str:
    """Return how a terminal calls trimtab: by its name, or by the path by which this process was
    called if the name finds none or another.
    """
    called_as = sys.argv[0]
    is_by_name = Path(called_as).name != PROGRAM or shutil.which(PROGRAM) == called_as
    return PROGRAM if is_by_name else shlex.quote(called_as)


def command_text(complete_hints: Callable[[str], str], command: str) -> Markup:
    """Return the HTML of a command such as "orders arm SYMBOL", as it is typed, with the options of
    its portfolio. No line ends within "--option".
    """
    words = complete_hints(f"{PROGRAM} {command}").removeprefix(PROGRAM).split(" ")
    option = Markup("<span>{}</span>")
    return program_name() + Markup(" ").join(
        option.format(word) if word.startswith("--") else word for word in words
    )


def with_complete_hints(value: Any, complete_hints: Callable[[str], str]) -> Any:
    """Return documents, or a value of them, with complete commands in each text."""
    if isinstance(value, dict):
        return {key: with_complete_hints(item, complete_hints) for key, item in value.items()}
    if isinstance(value, list):
        return [with_complete_hints(item, complete_hints) for item in value]
    return complete_hints(value) if isinstance(value, str) else value


def format_move(move_text: str) -> str:
    """Return a movement of an offered plan, such as "-0.123456789 WETH", with its amount as on the
    pages; any other text with its figures in that style.
    """
    amount, _, symbol = move_text.partition(" ")
    if not SIGNED_AMOUNT.fullmatch(amount):
        return reader_text(move_text)
    return f"{format_figure(amount, 'amount+')} {symbol}"


def sign_class(value: Any) -> str:
    """Return the style of a profit or loss: "up", "down", or nothing for zero and None."""
    if value is None or float(value) == 0:
        return ""
    return "up" if float(value) > 0 else "down"


@dataclass(frozen=True, slots=True)
class PriceReplay:
    """Recorded prices that a demo replays: times of the chain, and the recorded times whose prices
    began then, both in Unix seconds, oldest first.
    """

    chain_times_s: Sequence[int]
    recorded_times_s: Sequence[int]

    def recorded_s(self, chain_s: int) -> int:
        """Return the recorded time at a time of the chain. Between two of its times it passes
        evenly, after the last it stands still.
        """
        position = bisect_right(self.chain_times_s, chain_s)
        begun_index = max(0, position - 1)
        recorded_s = self.recorded_times_s[begun_index]
        if position in (0, len(self.chain_times_s)):
            return recorded_s
        begun_s = self.chain_times_s[begun_index]
        share = (chain_s - begun_s) / (self.chain_times_s[position] - begun_s)
        return recorded_s + round(share * (self.recorded_times_s[position] - recorded_s))

    @property
    def text(self) -> str:
        """The recorded dates so far, such as "prices of 1 Jan 2021 to 12 Mar 2021"."""
        first_date, last_date = (
            f"{date.day} {date:%b %Y}"
            for time_s in (self.recorded_times_s[0], self.recorded_times_s[-1])
            for date in [datetime.fromtimestamp(time_s, UTC)]
        )
        return f"prices of {first_date} to {last_date}"


def read_replay(path: Path | None) -> PriceReplay | None:
    """Return the replay of a file with lines of a chain's time and a recorded date; None without
    one.
    """
    if path is None or not path.is_file():
        return None
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").split()]
    chain_times_s = [int(chain_time) for chain_time, _ in rows]
    return PriceReplay(chain_times_s, [_unix_time(date) for _, date in rows])


def _unix_time(time_text: str) -> int:
    return int(datetime.fromisoformat(time_text.removesuffix("Z")).replace(tzinfo=UTC).timestamp())


PACKAGE_EXTRA = "dashboard"
MOVING_KINDS = ("rebalance", "confirm", "invest", "withdraw", "stop")
"""Kinds of controls that move assets: while one is under way a further plan is out of date."""
SHOWN_REBALANCES = 25
SHOWN_CYCLES = 40
PROGRAM = "trimtab"
"""Name of the command line."""
SHOWN_LOTS = 20
CENT = Decimal("0.01")
MAX_CHART_POINTS = 400
"""Maximum number of points of a chart."""
MIN_GAP_S = 2 * HOUR_S
"""Shortest time without a valuation that is a gap: a run makes one an hour."""


TYPE_BY_DOCUMENT_PATH = {
    "status": "StatusDocument",
    "orders": "OrdersDocument",
    "alerts": "AlertsDocument",
    "positions": "FuturesPositionsDocument",
    "lp": "LiquidityDocument",
    "margin": "MarginDocument",
    "funding": "FundingDocument",
    "strategies": "StrategiesDocument",
    "plan": "LivePlanDocument",
    "history": "HistoryDocument",
    "lots": "LotsDocument",
    "settings": "SettingsDocument",
    "explain": "ExplanationDocument",
    "controls|paper_run": "ControlsDocument",
    r"((paper|now)\.)?pnl\.[a-z]+": "ProfitDocument",
    r"review\.document\.strategies": "StrategiesDocument",
    r"review\.document\.sales_total": "SalesTotalDocument",
    r"review\.document(\.plan|\.sale|\.transition|\.next_cycle|\.sales\.\d+)?": "PlanDocument",
}
"""Type of the document at a path of the documents, which declares labels and formats."""


class Page(NamedTuple):
    """A page: its path, title, template, and the reads that it needs. If it has a
    `required_document`, it is in the menu only if that has been read, or if the settings have a
    section of its title: the config has the feature.
    """

    path: str
    title: str
    template: str
    read_functions: tuple[DocumentRead, ...]
    required_document: str = ""


REPORT_PAGE = Page("/reports", "Reports", "reports.html", (kept_reports.dashboard_reports,))
PAGES = (
    Page("/", "Overview", "overview.html", (dashboard.live_documents, dashboard.stored_documents)),
    Page("/history", "History", "history.html", (dashboard.stored_documents,)),
    Page(
        "/assets", "Assets", "assets.html", (dashboard.live_documents, dashboard.stored_documents)
    ),
    Page("/liquidity", "Liquidity", "liquidity.html", (dashboard.live_documents,), "lp"),
    Page("/strategies", "Strategies", "strategies.html", (dashboard.live_documents,), "strategies"),
    Page("/alerts", "Alerts", "alerts.html", (dashboard.live_documents,)),
    Page("/futures", "Futures", "futures.html", (dashboard.live_documents,), "margin"),
    Page("/plan", "Plan now", "plan.html", (dashboard.plan_document,)),
    Page("/settings", "Settings", "settings.html", (dashboard.stored_documents,)),
    REPORT_PAGE,
)
CONTROL_PAGE = Page(
    "/controls",
    "Controls",
    "controls.html",
    (queue.dashboard_controls, dashboard.live_documents, dashboard.stored_documents),
)
"""Shown to logged-in users."""
REVIEW_PAGE = Page("/controls/review/{review}", "", "review.html", ())
STEP_PAGE = Page("/history/{step}", "Step", "step.html", ())
STATIC_FILES = (
    "vendor/htmx-2.0.11.min.js",
    "vendor/uplot-1.6.32.min.js",
    "vendor/uplot-1.6.32.min.css",
    "dashboard.css",
    "portfolios.css",
    "connection.js",
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
    """Renders the pages of a dashboard with this reach, which name `config_file`, if given.
    Raises ConfigError if Jinja2 is missing.
    """

    def __init__(self, reach: Reach, config_file: str = "") -> None:
        self._templates = page_environment(reach.complete_hints)
        self._templates.globals["config_name"] = Path(config_file).name
        self._templates.globals["config_option"] = (
            f" --config {shlex.quote(str(Path(config_file).absolute()))}" if config_file else ""
        )
        self._templates.globals |= {
            name: getattr(reach, name)
            for name in ("prefix", "portfolio", "banner", "uses_tls", "on_paper")
        }
        self._replay_path = reach.replay_path
        self._on_paper = reach.on_paper
        self._has_paper_run = reach.has_paper_run
        self._complete_hints = reach.complete_hints
        self._templates.filters |= {
            "short_move": format_move,
            "lead": lead_reason,
            "folded": folded_reason,
            "worst_case_lines": worst_case_lines,
            "gain_beyond_lots": gain_beyond_lots,
            "cost": lambda amount: format_figure(amount, "number"),
        }
        self._templates.globals["dot"] = token_dot

    def render_login(self, csrf: str, message: str, return_path: str, plan_hash: str = "") -> str:
        """Render the login page; `message` is the reason of a refusal, `return_path` the page to
        open after the login, `plan_hash` the plan of the link that led here.
        """
        template = self._templates.get_template("login.html")
        return template.render(csrf=csrf, why=message, to=return_path, plan=plan_hash)

    def render_page(
        self,
        page: Page,
        documents: Documents,
        read_errors: Mapping[DocumentRead, object],
        version: int,
        session: Session | None = None,
        review: PlanReview | None = None,
    ) -> str:
        """Render a page from the documents read so far; `version` is that of the document cache."""
        documents = with_run_state(
            with_step_under_way(documents),
            on_paper=self._on_paper,
            has_paper_run=self._has_paper_run(),
        )
        if self._on_paper:
            documents = with_complete_hints(documents, self._complete_hints)
        replay = read_replay(self._replay_path)
        status = documents.get("status", {})
        pause: Any = documents.get("pause", status)
        stop = pause.get("stop")
        steps = documents.get("history", {}).get("steps", [])
        pnl_path, pnl = newest_pnl(documents)
        sections = documents.get("settings", {}).get("sections", ())
        section_titles = {section["title"] for section in sections}
        decimals_by_symbol = {
            holding["symbol"]: holding["decimals"] for holding in status.get("holdings", ())
        }

        def coin_format(symbol: str) -> str:
            return (
                f"coins:{decimals_by_symbol[symbol]}" if symbol in decimals_by_symbol else "number"
            )

        return self._templates.get_template(page.template).render(
            page=page,
            session=session,
            stop=stop,
            may_control=(may_control := session is not None and not session.read_only and not stop),
            may_edit=may_control and not self._on_paper,
            review=review,
            version=version,
            pages=[
                listed_page
                for listed_page in (*PAGES, *([] if session is None else [CONTROL_PAGE]))
                if not listed_page.required_document
                or listed_page.required_document in documents
                or listed_page.title in section_titles
            ],
            title=page.title,
            documents=documents,
            status=status,
            pnl_path=pnl_path,
            pnl=pnl,
            pause=pause,
            figure=partial(figure_element, documents),
            reason=partial(reason_element, documents),
            columns=columns_at,
            value_at=partial(value_at, documents),
            coins=coin_format,
            failed=[
                str(read_errors[function])
                for function in page.read_functions
                if function in read_errors
            ],
            replay=replay,
            value_charts=partial(value_charts, replay=replay),
            weight_charts=partial(weight_charts, replay=replay),
            steps=steps,
            alert_path=alert_path,
            moving_kinds=MOVING_KINDS,
            bar=weight_bar,
            periods=partial(newest_periods, replay=replay),
            ended_states=ENDED_STATES,
            is_behind=self._on_paper and is_behind_config(documents),
            steps_of=step_indices_by_kind,
            runs_of=runs_of_cycles,
            step_class=step_class,
            last_swap=last_swap_index,
            traded_since=partial(has_traded_since, steps),
            approvals_before=approval_indices_before,
            nearest=nearest_alert,
            limits={
                "rebalances": SHOWN_REBALANCES,
                "cycles": SHOWN_CYCLES,
                "lots": SHOWN_LOTS,
            },
        )

    def render_portfolios(
        self,
        portfolio_rows: Sequence[Mapping[str, Any]],
        documents: Documents,
        state_hash: str,
        *,
        may_add: bool,
    ) -> str:
        """Render the list of portfolios; `documents` has the documents of each row, `state_hash` is
        a hash of the shown state. With `may_add` users who may control a portfolio can add one.
        """
        return self._templates.get_template("portfolios.html").render(
            title="Portfolios",
            rows=portfolio_rows,
            sums=documents["sums"],
            state_hash=state_hash,
            may_add=may_add,
            controlled=[row for row in portfolio_rows if row.get("csrf")],
            figure=partial(figure_element, documents),
        )


@lru_cache(maxsize=8192)
def column_at(path: str) -> Column | None:
    """Return label and format of the figure at a path of the documents; None if it is in no
    document of a declared type. Raises KeyError for a field that the type does not declare.
    """
    for path_pattern, document_type in TYPE_BY_DOCUMENT_PATH.items():
        if match := re.match(rf"(?:{path_pattern})\.", path):
            return column(document_type, path[match.end() :])
    return None


def columns_at(path: str, *fields: str) -> list[Column]:
    """Return the columns of the fields of the object at a path of the documents."""
    return [
        replace(declared_column, path=field)
        for field in fields
        if (declared_column := column_at(f"{path}.{field}")) is not None
    ]


def figure_element(
    documents: Documents, path: str, figure_format: str = "", colour: bool = False
) -> Markup:
    """Return the HTML element of the value at a path of the documents, in the declared format if no
    other is given.
    """
    value = value_at(documents, path)
    if not figure_format:
        declared_column = column_at(path)
        figure_format = "text" if declared_column is None else declared_column.figure
    figure_text = format_figure(value, figure_format)
    css_class = (
        sign_class(value) if colour and any(map("123456789".__contains__, figure_text)) else ""
    )
    return Markup('<data value="{}" data-of="{}" data-form="{}"{}>{}</data>').format(
        "" if value is None else str(value),
        path,
        figure_format,
        Markup(' class="{}"').format(css_class) if css_class else "",
        unbroken_text(figure_text),
    )


def reason_element(documents: Documents, path: str, mark: str) -> Markup:
    """Return the HTML of the reason at a path; `mark` is the page's id of what it folds."""
    lead = figure_element(documents, path, "lead")
    return folded_reason(str(value_at(documents, path) or ""), mark, lead)


def folded_reason(reason: str, mark: str, lead: Markup | None = None) -> Markup:
    """Return the HTML of a reason: `lead`, by default its lead as text, and below it what the lead
    leaves out, folded, a line for each part.
    """
    reason = reason.removeprefix(REFUSED_PREFIX)
    lead_text = lead_reason(reason)
    lead = unbroken_text(lead_text) if lead is None else lead
    if lead_text == reason:
        return lead
    parts = reason.removeprefix(f"{lead_text}; ").split("; ")
    rest = Markup("<br>").join(map(unbroken_text, parts))
    return Markup(
        '<details id="{}" class="reason"><summary>{}</summary><p class="hash">{}</p></details>'
    ).format(mark, lead, rest)


def with_step_under_way(documents: Documents) -> Documents:
    """Return the documents, whose newest cycle is under way if it has no outcome and its run goes on."""
    newest_steps = documents.get("history", {}).get("steps", [])[:1]
    is_running = documents.get("run", {}).get("state") == "running"
    if not is_running or [step["outcome"] for step in newest_steps] != ["unfinished"]:
        return documents
    since = format_figure(newest_steps[0]["time"], "time")
    step = {**newest_steps[0], "outcome": "under way", "reason": f"since {since} UTC"}
    history = documents["history"]
    return {**documents, "history": {**history, "steps": [step, *history["steps"][1:]]}}


NEXT_CYCLE = "; checked again in the next cycle"


def with_run_state(
    documents: Documents, *, on_paper: bool, has_paper_run: bool = False
) -> Documents:
    """Return the documents with the state of the run as it is: a paper run whose report says that it
    runs, and that takes no controls, starts or ends; so does one of which only its process is known;
    without a run no reason promises a next cycle.
    """
    run = documents.get("run", {})
    is_unserved = on_paper and documents.get("controls", {}).get("served") is False
    is_starting = has_paper_run and run.get("state") in {"none", *ENDED_STATES}
    if not is_unserved and not is_starting and run.get("state") not in ENDED_STATES:
        return documents
    present = dict(documents)
    if run.get("ok") or is_starting:
        present["run"] = {**run, "ok": False, "state": STARTS_OR_ENDS, "reasons": []}
    plan = documents.get("plan", {})
    if "reason" in plan:
        present["plan"] = {**plan, "reason": plan["reason"].replace(NEXT_CYCLE, "")}
    status = documents.get("status", {})
    if "decision" in status:
        reason = status["decision"]["reason"].replace(NEXT_CYCLE, "")
        present["status"] = {**status, "decision": {**status["decision"], "reason": reason}}
    return present


def is_behind_config(documents: Documents) -> bool:
    """Return whether a paper run goes on with the config that it read at its start, although that
    was changed since.
    """
    goes_on = documents.get("run", {}).get("state", "none") not in {
        "none",
        STARTS_OR_ENDS,
        *ENDED_STATES,
    }
    return goes_on and bool(documents.get("settings", {}).get("changes_since_start"))


def newest_pnl(documents: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return path and document of value and profit: those of the moment of the status, or, unless
    these are read, of the newest valuation, or why there are none.
    """
    now_document = documents.get("now", {})
    if "pnl" in now_document:
        return "now.pnl", now_document["pnl"]
    return "pnl", documents.get("pnl", now_document)


def newest_periods(
    documents: Documents, replay: PriceReplay | None = None
) -> list[tuple[str, str]]:
    """Return (name, path of its figures) for each period of `pnl` that has figures; of a replay, whose
    days are others, only for the whole time.
    """
    pnl_path, pnl = newest_pnl(documents)
    if "error" in pnl:
        return []
    return [
        (name, f"{pnl_path}.{name}.periods.0")
        for name, document in pnl.items()
        if document["periods"] and (replay is None or name == "all")
    ]


def gain_beyond_lots(pnl: Mapping[str, Any]) -> str:
    """Return the profit since the start, in the numeraire, that is no gain of a tax lot."""
    since_start = pnl["periods"][0]
    lot_gains = Decimal(since_start["realised"]) + Decimal(pnl["unrealised"])
    return format_figure(Decimal(since_start["profit"]) - lot_gains, "money+")


def step_indices_by_kind(history: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the indices of the steps by kind: `swapped` with a swap, `sent` with other
    transactions only, such as approvals and payouts, `held` with none.
    """
    indices_by_kind: dict[str, list[int]] = {"swapped": [], "sent": [], "held": []}
    for index, step in enumerate(history.get("steps", ())):
        transaction_kinds = {transaction["kind"] for transaction in step["transactions"]}
        if "swap" in transaction_kinds:
            indices_by_kind["swapped"].append(index)
        else:
            indices_by_kind["sent" if transaction_kinds else "held"].append(index)
    return indices_by_kind


def runs_of_cycles(
    steps: Sequence[Mapping[str, Any]], step_indices: Sequence[int]
) -> list[list[int]]:
    """Return the indices in groups: holds, or refusals, directly after one another whose reasons
    differ at most in their numbers are one group, any other step is its own.
    """
    groups: list[list[int]] = []
    for index in step_indices:
        is_next = bool(groups) and index == groups[-1][-1] + 1
        if is_next and _is_repeated(steps[index], steps[index - 1]):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _is_repeated(step: Mapping[str, Any], next_step: Mapping[str, Any]) -> bool:
    """Return whether both are holds, or refusals, whose reasons differ at most in their numbers."""
    if not step["outcome"] == next_step["outcome"] in ("hold", "refused"):
        return False
    return NUMBER.sub("0", step["reason"]) == NUMBER.sub("0", next_step["reason"])


def step_class(step: Mapping[str, Any]) -> str:
    """Return what the filters of the history call a step: "trade", "transfer", "refusal" or
    "other".
    """
    if step["outcome"] in UNDONE_OUTCOMES:
        return "refusal"
    transaction_kinds = {transaction["kind"] for transaction in step["transactions"]}
    if transaction_kinds & TRADE_KINDS:
        return "trade"
    return "transfer" if "payout" in transaction_kinds else "other"


def last_swap_index(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the newest step that swapped; None without one."""
    return next((index for index, step in enumerate(steps) if step["execution"]), None)


def has_traded_since(steps: Sequence[Mapping[str, Any]], block: object) -> bool:
    """Return whether the agent traded in a later block than this: what was planned at it is a plan of
    before. False if the block is unknown.
    """
    trade_blocks = [
        transaction["block"]
        for step in steps
        for transaction in step["transactions"]
        if transaction["kind"] in TRADE_KINDS and isinstance(transaction["block"], int)
    ]
    return isinstance(block, int) and max(trade_blocks, default=block) > block


def approval_indices_before(steps: Sequence[Mapping[str, Any]], step_index: int) -> list[int]:
    """Return the indices of the steps directly before a step that sent its approvals."""
    approval_indices = []
    for index, step in enumerate(steps[step_index + 1 :], step_index + 1):
        if step["outcome"] != APPROVED_OUTCOME or step["cost"] is None:
            break
        approval_indices.append(index)
    return approval_indices


def nearest_alert(documents: Documents) -> tuple[str, str] | None:
    """Return (path of the asset, "low" or "high") of the alert price nearest to its present price;
    None without one, and once an asset is outside its band. The numeraire's own price does not
    move.
    """
    alert_assets = documents.get("alerts", {}).get("assets", ())
    numeraire = documents["status"]["numeraire"]
    if any(asset["side"] in ("below", "above", WITH_THE_OTHERS) for asset in alert_assets):
        return None
    distances = [
        (abs(alert_asset[f"to_{side}_bps"]), f"alerts.assets.{index}", side)
        for index, alert_asset in enumerate(alert_assets)
        for side in ("low", "high")
        if alert_asset["symbol"] != numeraire and alert_asset[f"to_{side}_bps"] is not None
    ]
    return min(distances)[1:] if distances else None


def alert_path(documents: Documents, holding_index: int) -> str:
    """Return the path of the alert prices of a holding; empty if they are not read."""
    alerts = documents.get("alerts", {}).get("assets", ())[holding_index : holding_index + 1]
    symbol = documents["status"]["holdings"][holding_index]["symbol"]
    is_read = bool(alerts) and alerts[0]["symbol"] == symbol
    return f"alerts.assets.{holding_index}" if is_read else ""


class CostLine(NamedTuple):
    """A part of a cost, in the numeraire."""

    name: str
    amount: str


def worst_case_lines(plan_document: Mapping[str, Any]) -> list[CostLine]:
    """Return the parts whose sum is the worst case of a plan, rounded so that they sum to the
    rounded one: the largest takes the difference. Empty if the worst case is unknown.
    """
    worst_case_text = plan_document.get("worst_case")
    if worst_case_text is None:
        return []
    cost = {name: Decimal(amount_text) for name, amount_text in plan_document["cost"].items()}
    expected = cost["total"] - cost["gas"] - cost["approvals"]
    lines = {"Fees and impact, as expected": expected}
    unexplained = Decimal(worst_case_text) - expected
    sandwich = plan_document.get("sandwich") or {}
    if sandwich.get("at_most") is None:
        lines["Swaps at their minimums, all gas that is permitted, and inexact prices"] = (
            unexplained
        )
    else:
        minimums = Decimal(sandwich["at_most"])
        inexact_prices = Decimal(sandwich["profit_at_most"]) - minimums - max(expected, Decimal(0))
        lines["Swaps at their minimums"] = minimums
        lines["Prices that are off by limits.oracle_deviation"] = inexact_prices
        lines["Gas: all that is permitted, at its highest price"] = (
            unexplained - minimums - inexact_prices
        )
    lines = {name: amount for name, amount in lines.items() if amount}
    smallest = min(map(abs, lines.values()), default=Decimal(1))
    unit = Decimal(1).scaleb(smallest.adjusted() - 1) if smallest <= HALF_CENT else CENT
    rounded_amounts = {name: amount.quantize(unit) for name, amount in lines.items()}
    if rounded_amounts:
        largest = max(rounded_amounts, key=rounded_amounts.__getitem__)
        rounded_amounts[largest] += Decimal(worst_case_text).quantize(unit) - sum(
            rounded_amounts.values()
        )
    return [CostLine(name, f"{amount:f}") for name, amount in rounded_amounts.items()]


def value_charts(documents: Documents, replay: PriceReplay | None = None) -> list[dict[str, Any]]:
    """Return the chart of the value and of holding up to the moment of the status, if that is read,
    over the recorded times of a replay; empty for fewer than two valuations, and until the profit is
    read too.
    """
    series = documents.get("now", {}).get("series") or documents.get("series", {})
    if len(series.get("times_s", ())) < 2 or "all" not in documents.get("pnl", {}):
        return []
    numeraire = documents["pnl"]["all"]["numeraire"]
    first_value = series["values"][0]
    last_value = series["values"][-1]
    hold_value = series["hold_values"][-1]
    label = f"Value from {format_figure(first_value, 'money')} to {format_figure(last_value, 'money')} {numeraire};"
    label += f" holding reached {format_figure(hold_value, 'money')}. Rebalances: {len(series['rebalances'])}"
    inflows = series.get("inflows", [])
    if inflows:
        label += f"; deposits and withdrawals: {len(inflows)}"
    times_s = series["times_s"]
    if replay is not None:
        times_s = [replay.recorded_s(time_s) for time_s in times_s]
        label += f"; {replay.text}"
    gaps = gap_indices(times_s)
    chart_data = {
        "times_s": times_s,
        "gaps": gaps,
        "line": series["values"],
        "hold": series["hold_values"],
        "marks": series["rebalances"],
        "inflows": [[inflow["index"], inflow["value"]] for inflow in inflows],
    }
    # escaped here: the templates shorten a long text
    chart_json = escape(json.dumps(chart_data, separators=(",", ":")))
    return [
        {"label": label, "unit": numeraire, "data": chart_json, "inflows": inflows, "gaps": gaps}
    ]


def gap_indices(times_s: Sequence[int]) -> list[int]:
    """Return the indices of the valuations before which none was made for much longer than usual."""
    distances_s = [later - earlier for earlier, later in pairwise(times_s)]
    longest_s = max(MIN_GAP_S, 2 * median_low(distances_s))
    return [index for index, distance_s in enumerate(distances_s, 1) if distance_s > longest_s]


def weight_charts(
    history: Mapping[str, Any],
    holdings: Sequence[Mapping[str, Any]] = (),
    replay: PriceReplay | None = None,
) -> list[dict[str, Any]]:
    """Return the weight of each asset over time with its present band and target, as JSON for the
    charts' elements, oldest first; empty for fewer than two valuations.
    """
    valuations = list(reversed(history.get("values", ())))
    if len(valuations) < 2:
        return []
    stride = -(-len(valuations) // MAX_CHART_POINTS)
    shown_valuations = valuations[::-1][::stride][::-1]
    times = [valuation["time"] for valuation in shown_valuations]
    if replay is not None:
        recorded_times_s = [replay.recorded_s(_unix_time(time)) for time in times]
        times = [f"{datetime.fromtimestamp(time_s, UTC):%F %T}" for time_s in recorded_times_s]
    gaps = gap_indices(list(map(_unix_time, times)))
    band_and_target_by_symbol = {
        holding["symbol"]: [bps / 100 for bps in (*_own_band(holding), holding["target_bps"])]
        for holding in holdings
    }
    symbols = {symbol for valuation in shown_valuations for symbol in valuation["weights_bps"]}
    ordered_symbols = [
        symbol for symbol in band_and_target_by_symbol if symbol in symbols
    ] + sorted(symbols - band_and_target_by_symbol.keys())
    return [
        _chart(
            printable_text(symbol),
            "%",
            times,
            [valuation["weights_bps"].get(symbol, 0) / 100 for valuation in shown_valuations],
            gaps,
            band_and_target_by_symbol.get(symbol),
        )
        for symbol in ordered_symbols
    ]


def _own_band(holding: Mapping[str, Any]) -> tuple[int, int]:
    """Return the band of a holding in bps; nothing but its target without one of its own."""
    low_bps, high_bps = holding["band_bps"]
    if not asset_range(holding).is_own:
        low_bps = high_bps = holding["target_bps"]
    return low_bps, high_bps


def _chart(
    name: str,
    unit: str,
    times: Sequence[str],
    line_points: Sequence[float],
    gaps: Sequence[int],
    band_and_target: Sequence[float] | None,
) -> dict[str, Any]:
    """Return the chart of a token; `band_and_target` is (low, high, target)."""
    label = f"{name} in {unit}, {times[0]} to {times[-1]}: from {line_points[0]:,.2f} to {line_points[-1]:,.2f}"
    title = f"{name}, in {unit}"
    if band_and_target is not None:
        low_percent, high_percent, target_percent = band_and_target
        band_text = f"{low_percent:,.2f} to {high_percent:,.2f}"
        title_text = f"band {band_text}"
        if low_percent == high_percent:
            band_text = "none"
            title_text = "no band"
        label += f"; its band now is {band_text}, its target {target_percent:,.2f}"
        title += f"; {title_text}, target {target_percent:,.2f}"
    chart_data = {
        "times": times,
        "name": name,
        "colour": token_colour(name),
        "line": line_points,
        "gaps": gaps,
        "band": band_and_target,
    }
    return {
        "name": name,
        "title": title,
        "label": label,
        "data": json.dumps(chart_data),
        "gaps": gaps,
    }


def token_dot(symbol: str) -> Markup:
    """Return a picture of a token's colour."""
    return Markup(
        '<svg class="dot" viewBox="0 0 2 2" aria-hidden="true"><circle cx="1" cy="1" r="1"'
        ' fill="{}"></circle></svg>'
    ).format(token_colour(symbol))


def weight_bar(holding: Mapping[str, Any], full_bps: int) -> Markup:
    """Return a picture of a weight in its band, if it has one, with the target as a line."""
    low_bps, high_bps = _own_band(holding)
    has_band = low_bps < high_bps

    def x_position(bps: int) -> str:
        return f"{min(max(bps, 0), full_bps) * 100 / full_bps:.2f}"

    is_inside = not has_band or low_bps <= holding["weight_bps"] <= high_bps
    band_text = (
        f"{'inside' if is_inside else 'outside'} its band of {low_bps / 100:.2f} to"
        f" {high_bps / 100:.2f} %"
        if has_band
        else "no band"
    )
    description = f"{holding['weight_bps'] / 100:.2f} %, {band_text}"
    return Markup(
        '<svg class="bar{}" viewBox="0 0 100 10" preserveAspectRatio="none" role="img"'
        ' aria-label="{}"><rect class="band" x="{}" y="0" width="{}" height="10"></rect>'
        '<rect class="weight" fill="{}" x="0" y="3" width="{}" height="4"></rect>'
        '<rect class="target" x="{}" y="0" width="0.8" height="10"></rect></svg>'
    ).format(
        "" if is_inside else " outside",
        escape(printable_text(f"{holding['symbol']}: {description}")),
        x_position(low_bps),
        f"{float(x_position(high_bps)) - float(x_position(low_bps)):.2f}",
        token_colour(holding["symbol"]),
        x_position(holding["weight_bps"]),
        x_position(holding["target_bps"]),
    )
