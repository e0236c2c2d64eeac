"""What a page says of each figure: the heading of its column, the term before it or its row, against the path of the figure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec

import pytest

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.web.pages import PAGES
from tests.support.dashboards import HOSTILE, Served


class Headings(HTMLParser):
    """The paths of the figures below each heading or behind each term, without positions and periods; and the rows of each period."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, set[str]] = {}
        self.rows: set[tuple[str, str]] = set()
        self._columns: list[str] = []
        self._open, self._cell, self._term, self._row = "", -1, "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "table":
            self._columns = []
            self._term = ""
        elif tag == "tr":
            self._cell, self._row = -1, ""
        elif tag == "dt":
            self._open = "term"
            self._term = ""
        elif tag in ("td", "th"):
            self._cell += 1
            if attributes.get("scope") == "col":
                self._columns.append("")
            self._open = {"col": "column", "row": "row"}.get(attributes.get("scope") or "", "")
        elif (
            (path := attributes.get("data-of")) is not None
            and self._open != "column"
            and (self._term or -1 < self._cell < len(self._columns))
        ):
            if period := re.match(r"pnl\.(\w+)\.periods", path):
                self.rows.add((self._term or self._row, period[1]))
            plain = re.sub(r"^pnl\.\w+", "pnl", re.sub(r"\.\d+(?=\.)", "", path.replace(HOSTILE, "B")))
            self.found.setdefault(self._term or self._name(), set()).add(plain)

    def _name(self) -> str:
        """The heading of the present cell, with a number if an earlier column has the same."""
        name = self._columns[self._cell]
        same = self._columns[: self._cell + 1].count(name)
        return name if same == 1 else f"{name} {same}"

    def handle_data(self, data: str) -> None:
        if self._open == "column":
            self._columns[-1] += data
        elif self._open == "term":
            self._term += data
        elif self._open == "row":
            self._row += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "dt"):
            self._open = ""
        elif tag in ("table", "dl"):
            self._columns, self._term, self._cell = [], "", -1


HEADINGS: dict[str, dict[str, str]] = {
    "/": {
        "Profit since the start": "pnl.periods.profit pnl.periods.twr_bps", "Today (UTC)": "pnl.periods.profit pnl.periods.twr_bps",
        "Against holding": "pnl.periods.against_holding pnl.periods.hold_return_bps",
        "Costs so far": "pnl.periods.costs.total pnl.periods.rebalances", "Asset": "status.holdings.amount status.holdings.symbol",
        "Value": "status.holdings.value", "Price, 24 h": "status.holdings.day_bps status.holdings.price",
        "Weight, target": "status.holdings.target_bps status.holdings.weight_bps",
        "Moves": "status.holdings.back_to_bps.0 status.holdings.band_bps.0 status.holdings.band_bps.1",
        "Leaves its band, about": "alerts.assets.alert_high alerts.assets.alert_low alerts.assets.to_high_bps alerts.assets.to_low_bps",
        "Profit": "pnl.periods.profit", "Return": "pnl.periods.twr_bps",
        "Holding": "pnl.periods.hold_return_bps", "Benchmark": "pnl.periods.benchmark_return_bps",
        "Cost": "pnl.periods.costs.total",
        "Trades": "pnl.periods.trades", "Refusals": "pnl.periods.refusals", "Alerts": "pnl.periods.alerts",
    },
    "/history": {
        "Time (UTC)": "history.steps.time", "Outcome": "history.steps.outcome",
        "Transactions": "history.steps.transactions.kind history.steps.transactions.status", "Fees": "history.steps.cost.fees",
        "Impact": "history.steps.cost.impact", "Gas": "history.steps.cost.gas", "Cost": "history.steps.cost.total",
        "Against plan": "history.steps.execution.difference history.steps.execution.difference_bps", "Reason": "history.steps.reason",
    },
    "/assets": {
        "Asset": "alerts.assets.symbol lots.assets.symbol status.holdings.symbol",
        "Amount": "lots.assets.amount lots.assets.lots.amount status.holdings.amount",
        "Price": "alerts.assets.price lots.assets.price status.holdings.price",
        "Value": "lots.assets.lots.value lots.assets.value status.holdings.value", "Weight": "status.holdings.weight_bps",
        "Target": "status.holdings.target_bps", "Drift": "status.holdings.drift_bps", "Price from": "status.holdings.price_source",
        "Entry price": "lots.assets.entry_price lots.assets.lots.entry_price", "Cost": "lots.assets.cost lots.assets.lots.cost",
        "Unrealised": "lots.assets.lots.unrealised lots.assets.unrealised", "Realised in 2026": "lots.assets.realised",
        "Acquired (UTC)": "lots.assets.lots.acquired", "Leaves band below": "alerts.assets.alert_low",
        "Distance below": "alerts.assets.to_low_bps",
        "Leaves band above": "alerts.assets.alert_high",
        "Distance above": "alerts.assets.to_high_bps",
    },
    "/strategies": {
        "Strategy": "strategies.strategies.name", "State": "strategies.strategies.state strategies.strategies.state_reason",
        "Capital": "strategies.strategies.capital", "Share": "strategies.strategies.share_bps",
        "Target": "strategies.strategies.holdings.target_bps strategies.strategies.target_share_bps",
        "Return": "strategies.strategies.return_bps", "Costs": "strategies.strategies.costs",
        "Asset": "strategies.strategies.holdings.symbol", "Amount": "strategies.strategies.holdings.amount",
        "Value": "strategies.strategies.holdings.value", "Weight": "strategies.strategies.holdings.weight_bps",
    },
    "/liquidity": {
        "In liquidity": "lp.weight.limit_bps lp.weight.share_bps lp.weight.value",
        "Expected loss": "lp.expected_loss.limit_bps lp.expected_loss.share_bps lp.expected_loss.value lp.positions.expected_loss",
        "Position": "lp.positions.position",
        "Tokens": "lp.positions.tokens.0 lp.positions.tokens.1 lp.targets.tokens.0 lp.targets.tokens.1", "State": "lp.positions.state",
        "Value": "lp.positions.value lp.targets.value", "If held": "lp.positions.hold_value", "Loss so far": "lp.positions.loss",
        "Loss, share": "lp.positions.forecasts.loss_bps lp.positions.loss_bps", "Fees": "lp.positions.fees lp.targets.fees",
        "LVR a day": "lp.positions.lvr_per_day", "Pool off reference": "lp.positions.pool_deviation_bps",
        "Token": "lp.positions.tokens.0 lp.positions.tokens.1", "Liquidity": "lp.positions.redeemable_raw.B",
        "Uncollected fees": "lp.positions.fees_raw.B", "Price of": "lp.positions.forecasts.moving",
        "Moves by": "lp.positions.forecasts.move_bps", "Loss": "lp.positions.forecasts.loss", "Pool": "lp.targets.pool",
        "Target": "lp.targets.share_bps", "Width": "lp.targets.width_bps", "Share": "lp.targets.weight_bps",
        "Next": "lp.targets.due_reasons.0 lp.targets.skipped_reasons.0",
    },
    "/alerts": {
        "Asset": "alerts.assets.symbol", "Price": "alerts.assets.price", "Leaves band below": "alerts.assets.alert_low",
        "Distance below": "alerts.assets.to_low_bps", "Leaves band above": "alerts.assets.alert_high",
        "Distance above": "alerts.assets.to_high_bps",
        "Weight": "alerts.assets.side",
    },
    "/futures": {
        "Account value": "margin.margin.value", "Free margin": "margin.margin.free", "Leverage": "margin.margin.leverage",
        "Target leverage": "margin.margin.target_leverage",
        "Margin in use": "margin.margin.utilisation", "Gross notional": "margin.margin.gross", "Net notional": "margin.margin.net",
        "Unrealised": "margin.margin.unrealised positions.positions.unrealised", "Funding owed": "margin.margin.funding_pending",
        "Market": "funding.markets.symbol funding.recorded.symbol positions.positions.symbol", "Side": "positions.positions.side",
        "Size": "positions.positions.size", "Notional": "funding.markets.notional positions.positions.notional",
        "Entry": "positions.positions.entry", "Mark": "positions.positions.mark", "Liquidation": "positions.positions.liquidation_price",
        "Distance": "positions.positions.liquidation_distance", "Daily rate": "funding.markets.daily_rate",
        "Owed": "funding.markets.pending funding.pending", "Today": "funding.markets.today funding.today",
        "A day": "funding.daily funding.markets.daily", "Expected in 30 days": "funding.expected funding.markets.expected",
        "Day (UTC)": "funding.recorded.day", "Paid": "funding.recorded.paid", "Mean daily rate": "funding.recorded.daily_rate",
        "Readings": "funding.recorded.readings", "Limit": "margin.limits.limit", "Measured": "margin.limits.measured",
        "Allowed": "margin.limits.allowed",
    },
    "/plan": {
        "Turnover": "plan.turnover", "Expected cost": "plan.cost.total", "Worst case": "plan.worst_case", "Sell": "plan.legs.token_in",
        "Buy": "plan.legs.token_out", "Venue": "plan.legs.venue", "In": "plan.legs.amount_in_raw", "Out": "plan.legs.amount_out_raw",
        "At least": "plan.legs.min_out_raw", "Impact": "plan.legs.impact_bps", "Guard": "plan.verdicts.guard",
        "Measured": "plan.verdicts.measured", "Limit": "plan.verdicts.limit",
        "At block 1": " ".join(f"plan.weights_before_bps.{symbol}" for symbol in ("LINK", "USDC", "USDT", "WBTC", "WETH")),
        "Target": "status.holdings.target_bps",
        "After": " ".join(f"plan.weights_after_bps.{symbol}" for symbol in ("LINK", "USDC", "USDT", "WBTC", "WETH")),
    },
    "/settings": {
        "Asset": "settings.assets.symbol", "Target": "settings.assets.target_bps",
        "Band": "settings.assets.band_bps.0 settings.assets.band_bps.1", "Reserve": "settings.assets.reserve",
        "Orders": "settings.assets.orders",
        "Address": "settings.assets.address", "Setting": "settings.sections.settings.key", "Value": "settings.sections.settings.value",
    },
    "/reports": {
        "Report": "reports.reports.title", "Kind": "reports.reports.kind", "Made (UTC)": "reports.reports.created",
        "Main figures": "reports.reports.figures.value",
    },
}  # fmt: skip
"""By page and heading the paths of its figures, without the positions in lists."""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


@pytest.mark.parametrize("page", HEADINGS)
def test_each_figure_is_below_its_own_heading(served: Served, page: str) -> None:
    reader = Headings()
    reader.feed(served.ask(page)[2].decode())
    assert {name: " ".join(sorted(paths)) for name, paths in reader.found.items()} == HEADINGS[page]


def test_each_period_is_in_its_own_row(served: Served) -> None:
    reader = Headings()
    reader.feed(served.ask("/")[2].decode())
    assert reader.rows == {
        ("Today (UTC)", "day"), ("Profit since the start", "all"), ("Against holding", "all"), ("Costs so far", "all"),
        ("Today", "day"), ("This week", "week"), ("This month", "month"), ("This year", "year"), ("Since the start", "all"),
    }  # fmt: skip


def test_holding__is_explained_beside_its_figure(served: Served) -> None:
    text = served.ask("/")[2].decode()
    assert text.index("<dt>Against holding</dt>") < text.index("Holding: ") < text.index("Dashed: holding;")


def test_every_page_with_figures_is_here() -> None:
    assert HEADINGS.keys() == {page.path for page in PAGES}
