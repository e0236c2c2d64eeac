"""Tables at a terminal: no figure is cut at any width, and all of them come from one place."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.app.records.maintenance import _journalled_document as journalled_document
from agent.cli import emergency, history
from agent.cli.display.status_tables import decision_notice, holdings_table, own_range_text, zone_table
from agent.cli.display.tables import FigureTable, money_text, table
from agent.cli.display.terminal import Document, WeightBar
from agent.cli.history import _transactions_table as transaction_rows
from agent.cli.history import gas_price_text, steps_table
from agent.cli.ledger import weight_text
from agent.model import Intent, IntentKind, IntentState
from tests.cli.widths import WIDTHS, cut, drawing_of
from tests.support.samples import examples
from tests.support.syntax_trees import AGENT, imported_names
from tests.support.text import mentions
from tests.support.transactions import receipt, tx

WORDS = st.text("abcdefgh", min_size=1, max_size=12)
SENTENCES = st.lists(WORDS, max_size=8).map(" ".join)
FIGURES = st.decimals(-(10**15), 10**15, places=6, allow_nan=False).map(lambda number: f"{number:,.6f} WETH")
MARKET = [("WETH", "12.345678", "3000.1234", 4118), ("WBTC", "0.041666", "60000", 2451), ("USDC", "123456789.12", "1", 3431)]


def item(symbol: str, amount: str, price: str, weight_bps: int) -> dict[str, object]:
    rest = {"value": "123456789.10", "weight_bps": weight_bps, "target_bps": 3000, "band_bps": [2700, 3300]}
    return {"symbol": symbol, "amount": amount, "price": price, **rest}


def portfolio() -> FigureTable:
    return holdings_table(
        {"block": 19_000_000, "total_value": "370370367.30", "numeraire": "USDC", "holdings": [item(*market) for market in MARKET]}
    )


def test_holdings__show_each_figure_whole_at_every_width() -> None:
    assert cut(portfolio()) == []
    for width in WIDTHS:
        drawing = drawing_of(portfolio(), width)
        assert all(symbol in drawing for symbol, *_ in MARKET)
        assert drawing.count("123,456,789.10") == 3
    assert "  weight  41.18 %" in drawing_of(portfolio(), 40), "a narrow terminal stacks rows"
    assert "27-33 %" in drawing_of(portfolio(), 120), "a band has its unit, as in every table"
    assert "┃" in drawing_of(portfolio(), 120), "a wide one has bars"


def test_bars_go_before_rows_are_stacked() -> None:
    figure_table = table("", ("token", ""), ("amount",), column_order=("token", "amount", ""))
    figure_table.add_row("WETH", "1,234,567.123456", WeightBar(10, 20, 30, False))
    assert drawing_of(figure_table, 26).splitlines()[-2] == "WETH   1,234,567.123456"
    assert "┃" in drawing_of(figure_table, 40)


def test_text_wraps_between_words_beside_whole_figures() -> None:
    figure_table = table("", ("what", "why"), ("value",))
    figure_table.add_row("pool", "gas costs more than it saves, in this block and in the one before it", "1,000.25")
    lines = drawing_of(figure_table, 40).splitlines()
    assert len(lines) > 4
    assert cut(figure_table) == []
    assert sum("1,000.25" in line for line in lines) == 1


@examples(20)
@given(st.lists(st.tuples(WORDS, SENTENCES, FIGURES, FIGURES, FIGURES), min_size=1, max_size=4), WORDS, SENTENCES)
def test_no_random_table_is_cut_at_any_width(rows: list[tuple[str, ...]], name: str, heading: str) -> None:
    figure_table = table(heading, (name + " of", "note"), ("a", "b", "c"))
    for row in rows:
        figure_table.add_row(*row)
    assert cut(figure_table) == []


@pytest.mark.parametrize("path", sorted((AGENT / "cli").rglob("*.py")), ids=lambda path: path.name)
def test_all_tables_are_made_in_one_place(path: Path) -> None:
    assert path.name == "tables.py" or "rich.table" not in imported_names(path)


@pytest.mark.parametrize(
    ("text", "display"),
    [
        pytest.param("1234.5678", "1,234.57", id="rounded up"),
        pytest.param("-1234.5612", "-1,234.56", id="rounded down"),
        pytest.param("-3.001", "-3.00", id="rounded to a whole"),
        pytest.param("-0.004", "0.00", id="zero without a sign"),
        pytest.param("-0.01", "-0.01", id="a cent"),
        pytest.param("-2.5", "-2.50", id="one place"),
        pytest.param("1234.5", "1,234.50", id="thousands with one place"),
        pytest.param("0", "0.00", id="zero"),
    ],
)
def test_money_is_rounded_to_two_places(text: str, display: str) -> None:
    assert money_text(text) == display


ZONE: dict[str, Any] = {
    "risk": "31.25",
    "horizon_s": 31_536_000,
    "measured": "usual volatilities of their classes: WETH 65 % (ether)",
    "assets": [
        {
            "symbol": "WETH",
            "weight_bps": 3_100,
            "target_bps": 2_500,
            "trigger_bps": [1_935, 3_065],
            "no_trade_bps": [2_100, 2_900],
            "correction": {"cost": "1.209", "waiting_year": "1400.4"},
        },
        {
            "symbol": "USDC",
            "weight_bps": 6_900,
            "target_bps": 7_500,
            "trigger_bps": [0, 10_000],
            "no_trade_bps": [0, 10_000],
            "correction": None,
        },
    ],
    "plan": None,
}
ZONE_TEXT = """\
Zone: drift from the targets is a risk valued at 31.25 USDC within 365 days, not
money paid
token   weight   target   moves beyond  back to
───────────────────────────────────────────────
WETH   31.00 %  25.00 %  19.35-30.65 %  21-29 %
USDC   69.00 %  75.00 %           none     none
WETH is due, as it is above 30.65 %: a trade back costs 1.21 USDC once, waiting
costs as much every 7 h 33 min
usual volatilities of their classes: WETH 65 % (ether)"""


def test_zone__says_where_assets_move_and_what_waiting_costs() -> None:
    drawing = drawing_of(zone_table(ZONE, "USDC"), 80)
    assert [line.rstrip() for line in drawing.strip().splitlines()] == ZONE_TEXT.splitlines()
    assert cut(zone_table(ZONE, "USDC")) == []
    calm = {**ZONE, "assets": [{**asset, "correction": None} for asset in ZONE["assets"]]}
    drawing = drawing_of(zone_table(calm, "USDC"), 80)
    assert "a trade back" not in drawing


def test_range_of_an_asset_that_the_others_bring_beyond_it_is_not_shown() -> None:
    wbtc = {**ZONE["assets"][0], "symbol": "WBTC", "weight_bps": 2_420, "trigger_bps": [1_024, 2_334], "no_trade_bps": [1_208, 2_151]}
    drawing = drawing_of(zone_table({**ZONE, "assets": [wbtc]}, "USDC"), 80)
    text = " ".join(drawing.split())
    assert mentions(text, "with the others", "WBTC: the others have too much that moves with it; correcting that costs 1.21 USDC")
    assert not mentions(text, "23.34")
    assert not mentions(text, "21.51")


@pytest.mark.parametrize(
    ("weight_bps", "target_bps", "band_bps", "words"),
    [
        pytest.param(0, 0, [0, 52], "none", id="sold by its stop"),
        pytest.param(60, 0, [0, 52], "0-0.52 %", id="to be sold"),
        pytest.param(2_000, 2_000, [2_000, 2_000], "none", id="of a schedule"),
        pytest.param(2_000, 2_000, [1_800, 2_200], "18-22 %", id="its own"),
    ],
)
def test_band_of_its_own_is_shown_and_no_other(weight_bps: int, target_bps: int, band_bps: list[int], words: str) -> None:
    assert own_range_text({"weight_bps": weight_bps, "target_bps": target_bps, "band_bps": band_bps}, "band_bps") == words


def test_a_decision_names_its_kind_once() -> None:
    notice = decision_notice({"decision": {"kind": "adjustfutures", "reason": "futures: leverage is above its limit"}})
    assert (notice.title, notice.text) == ("futures", "leverage is above its limit")


def test_decision_while_paused__a_proposal_waits__names_what_waits() -> None:
    document = {"decision": {"kind": "rebalance", "reason": "due"}, "paused": True, "pause_reason": "lunch"}
    assert decision_notice(document).text == "lunch. Without the pause: rebalance: due"
    waiting = {**document, "waits_for": "the proposal 1 awaits 2 signatures"}
    assert decision_notice(waiting).text == "lunch. Without the pause: waits: the proposal 1 awaits 2 signatures"


@pytest.mark.parametrize(
    ("paid_wei", "gwei"),
    [
        (7 * 10**8, "0.7"),
        (10**7, "0.01"),
        (1_500 * 10**9, "1500"),
        (1_234_567 * 10**5, "123.5"),
        (52_000, "0.000052"),
        (None, "1"),
        (0, ""),
    ],
    ids=["plain", "rollup", "spike", "rounded", "least", "pending shows its maximum", "paid by another account"],
)
def test_gas_price_of_a_transaction_excludes_the_data_fee(paid_wei: int | None, gwei: str) -> None:
    mined = None
    if paid_wei is not None:
        mined = replace(receipt("0x1", 7, "0x7"), effective_gas_price_wei=paid_wei, data_fee_wei=2 * 50_000 * paid_wei)
    intent = Intent("i", "s", IntentKind.SWAP, IntentState.MINED, tx(0, max_fee_wei=10**9), "swap", 0, None, "0x1", mined)
    transaction: Document = dict(journalled_document(intent))
    assert gas_price_text(transaction) == gwei


def test_long_rows__are_whole_at_every_width() -> None:
    sent = [{"kind": "futures", "status": "final"}, {"kind": "approve", "status": "final"}]
    row = {
        "step": "e271837f19ed",
        "time": "2026-11-23 14:39:02",
        "outcome": "approved",
        "transactions": sent,
        "reason": "a long reason " * 20,
    }
    assert cut(steps_table({"steps": [row]})) == []
    note = "reduce futures: sell 12.345678 WETH for at least 34,567.89 USD " * 3
    order = {"nonce": 1234, "kind": "futures", "status": "broadcast", "gas_price_wei": None, "max_fee_wei": str(10**9), "block": None}
    rows = transaction_rows({"transactions": [{**order, "note": note, "hash": "0x" + 64 * "a"}]})
    assert cut(rows) == []
    assert drawing_of(rows, 80).splitlines()[1] == "nonce 1234"


def test_the_plan_of_a_stop_shows_the_futures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    documents: list[Document] = []
    monkeypatch.setattr(emergency, "show_trade_plan", lambda _console, sale, _agent, **_: documents.append(sale))
    sales = [{"outcome": "planned", "futures": {"leverage": "2"}} for _ in range(3)]
    document = {"state": "planned", "cancel": [], "revoke": [], "to_stable": True, "payments": [], "sales": sales, "to": None}
    rest = {"transactions": [], "remaining": [], "excluded": "", "futures": "", "reason": "", "remedies": [], "sales_total": None}
    emergency._show_shutdown(Console(file=io.StringIO()), {**document, **rest}, cast(Any, None), verbose=False)
    assert ["futures" in sale for sale in documents] == [True, False, False]


def test_weights__are_bars_from_their_target_in_eighty_columns() -> None:
    holdings = [item("WBTC", "2666.441096", "92800.1234", 9_000), item("WETH", "2666.441096", "92800.1234", 1_000)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(holdings_table({"block": 1, "total_value": "9", "numeraire": "USDC", "holdings": holdings}))
    lines = console.export_text().splitlines()
    assert max(len(line) for line in lines) <= 80
    heavy, light = (next(line for line in lines if symbol in line) for symbol in ("WBTC", "WETH"))
    for line in (heavy, light):
        assert "┃" in line
        assert "…" not in line
    assert heavy.split("┃")[1].strip("━ ") == ""
    assert "━" in heavy.split("┃")[1]
    assert "╌" in light.split("┃")[0]


@pytest.mark.parametrize(
    ("weight_bps", "expected_text"),
    [
        pytest.param(-0.4, "0.00 %", id="zero without a sign"),
        pytest.param(-1, "-0.01 %", id="a basis point"),
        pytest.param(1_250, "12.50 %", id="whole"),
        pytest.param(None, "", id="unknown"),
    ],
)
def test_weight_is_rounded_to_basis_points(weight_bps: float | None, expected_text: str) -> None:
    assert weight_text(weight_bps) == expected_text


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_long_reason__is_cut_at_a_terminal_and_whole_in_a_pipe(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_row(reason: str) -> dict[str, Any]:
        return {"step": "0" * 12, "time": "2026-11-21 00:00:00", "outcome": "refused", "transactions": [], "reason": reason}

    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=terminal)
    monkeypatch.setattr(history, "out", console)
    console.print(steps_table({"steps": [step_row("0x00 is not pinned; " * 20), step_row("all within their bands")]}))
    lines = console.export_text().splitlines()
    assert (len(lines) < 14) is terminal
    assert sum("…" in line for line in lines) == terminal
    assert max(len(line) for line in lines) <= 80
