"""Labels and formats of documents: declared once, read by tables, pages and the API's schema."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import pytest

from agent.artifacts import WEB_FOLDER
from agent.cli.display.tables import cost_text, document_table, figure_cell
from agent.figures import (
    HUE_BY_TOKEN,
    Column,
    as_sentence,
    column,
    columns,
    correction_text,
    field_label,
    format_figure,
    ranges_beside_targets,
    reader_text,
    relative_luminance,
    token_colour,
)
from agent.policy.orders.conditional import format_order_price
from agent.web.pages import column_at, columns_at, token_dot, weight_bar, weight_charts
from tests.cli.widths import drawing_of
from tests.support.builders import token
from tests.support.standing_orders import price_of, two


@pytest.mark.parametrize(
    ("text", "styled_text"),
    [
        ("the feed of WETH is 1740 s old, the limit is 3600 s", "the feed of WETH is 29 min old, the limit is 1 h"),
        ("the deadline is 90s", "the deadline is 1 min 30 s"),
        ("measured 90001 s, limit 90000 s", "measured 1 day 1 h 1 s, limit 1 day 1 h"),
        ("59 s and 2026-11-23 09:00:61 s", "59 s and 2026-11-23 09:00:61 s"),
        ("1740 secrets, v3.5000 s, WETH7200 s", "1740 secrets, v3.5000 s, WETH7200 s"),
        ('trimtab run --every 90s, or cooldown = "90s"', 'trimtab run --every 90s, or cooldown = "90s"'),
        ("3000 bps (1000 USDC), limit 2500 bps", "30 % (1,000 USDC), limit 25 %"),
        ("58.62 bps (0.585978 USDC), limit 50 bps", "0.5862 % (0.585978 USDC), limit 0.5 %"),
        ("53 bps a year, 140 bps with all gains sold", "53 bps a year, 140 bps with all gains sold"),
        ("1.212 bps of turnover, gas included", "1.212 bps of turnover, gas included"),
        ("2308 bps off its feed, limits.oracle_deviation is 150 bps", "23.08 % off its feed, limits.oracle_deviation is 1.5 %"),
        ("WETH to USDC 60.5 bps, limit 50 bps", "WETH to USDC 0.605 %, limit 0.5 %"),
        ("Elsewhere: +1.2 bps (0x), -3 bps (CoW)", "Elsewhere: +0.012 % (0x), -0.03 % (CoW)"),
        ("at -0.5 bps to 2 bps, 1 bps a year", "at -0.5 bps to 2 bps, 1 bps a year"),
        ("1 % of tracking error is worth 0.5 bps", "1 % of tracking error is worth 0.5 bps"),
        ("a config has no tracking 0.7 bps", "a config has no tracking 0.7 bps"),
        ("approve 0.005052925660310974 WETH, -1234.5678901 cbBTC", "approve 0.00505292 WETH, -1,234.56 cbBTC"),
        ("1,000 USDC until 29 Nov 2026 UTC, block 1234", "1,000 USDC until 29 Nov 2026 UTC, block 1234"),
        ("--price 5000 USDC/WETH, '5000 USDC' as typed", "--price 5000 USDC/WETH, '5000 USDC' as typed"),
        ("edge of 26.24-37.3 %, 26.241 to 37.296 %", "edge of 26.24-37.3 %, 26.24-37.3 %"),
        ("2026-11-29 is 100 %", "2026-11-29 is 100 %"),
    ],
)
def test_figures_of_a_sentence__are_in_one_style(text: str, styled_text: str) -> None:
    assert reader_text(text) == styled_text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("write digits with a point", "Write digits with a point", id="words"),
        pytest.param("re-entry, then a sale", "Re-entry, then a sale", id="hyphen and comma"),
        pytest.param("declined", "Declined", id="one word"),
        pytest.param("cbBTC is above its band", "cbBTC is above its band", id="symbol"),
        pytest.param("cbBTC: 'x' is not a share", "cbBTC: 'x' is not a share", id="symbol before a colon"),
        pytest.param("portfolio.use_cash is missing", "portfolio.use_cash is missing", id="key"),
        pytest.param("max_live_value is below it", "max_live_value is below it", id="field"),
        pytest.param("amount: '0' must be above 0", "amount: '0' must be above 0", id="field before a colon"),
        pytest.param("trimtab trust pins it", "trimtab trust pins it", id="command"),
        pytest.param("0xab is no address", "0xab is no address", id="address"),
        pytest.param("", "", id="empty"),
    ],
)
def test_sentence__begins_with_a_capital_unless_with_a_name(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence


def test_heading__leaves_a_symbol_as_it_is() -> None:
    assert column("LivePlanDocument", "weights_after_bps.cbBTC").heading == "cbBTC"


@pytest.mark.parametrize(
    ("verdict_text", "words"),
    [
        pytest.param("measured 100.01 bps, limit 100 bps", "measured 1.0001 %, limit 1 %", id="least above a percent"),
        pytest.param("measured 6000.4 bps, limit 6000 bps", "measured 60.004 %, limit 60 %", id="above a high limit"),
        pytest.param("measured 149.99 bps, limit 150 bps", "measured 1.4999 %, limit 1.5 %", id="below a minimum"),
        pytest.param("measured 123456.78 bps, limit 100000 bps", "measured 1,234.5678 %, limit 1,000 %", id="with thousands"),
        pytest.param(
            "measured 1000.000001 USDC, limit 1000 USDC", "measured 1,000.000001 USDC, limit 1,000 USDC", id="one base unit above"
        ),
        pytest.param("measured 999.999999 USDC, limit 1000 USDC", "measured 999.999999 USDC, limit 1,000 USDC", id="one base unit below"),
    ],
)
def test_breach_in_a_sentence__never_reads_as_its_limit(verdict_text: str, words: str) -> None:
    assert reader_text(verdict_text) == words


@pytest.mark.parametrize(
    ("document", "path", "label", "figure"),
    [
        pytest.param("StatusDocument", "holdings.0.symbol", "asset", "text", id="symbol"),
        pytest.param("StatusDocument", "holdings.0.weight_bps", "weight", "percent", id="weight"),
        pytest.param("StatusDocument", "holdings.0.band_bps.1", "band", "percent", id="band"),
        pytest.param("StatusDocument", "holdings.0.day_bps", "24 h", "percent+", id="change of a day"),
        pytest.param("StatusDocument", "total_value", "total value", "money", id="total value"),
        pytest.param("LiquidityDocument", "positions.0.lvr_per_day", "LVR a day", "cost", id="loss a day"),
        pytest.param("LiquidityDocument", "positions.0.loss_bps", "loss, share", "percent+", id="loss as a share"),
        pytest.param("HistoryDocument", "steps.3.cost.total", "cost", "cost", id="cost"),
        pytest.param("LotsDocument", "assets.0.lots.1.acquired", "acquired (UTC)", "time", id="time"),
        pytest.param("LivePlanDocument", "weights_after_bps.USDC.e", "USDC.e", "percent", id="weight by symbol"),
        pytest.param("LivePlanDocument", "weights_after_bps.Link", "Link", "percent", id="symbol with a capital"),
        pytest.param("LivePlanDocument", "legs.0.amount_in_raw", "in", "number", id="raw amount"),
    ],
)
def test_column__label_and_format_are_those_of_the_declaration(document: str, path: str, label: str, figure: str) -> None:
    assert column(document, path) == Column(path, label, figure)


@pytest.mark.parametrize("path", ["no_field", "holdings.0.no_field", "block.deeper"])
def test_column__a_field_that_is_not_declared_is_refused(path: str) -> None:
    with pytest.raises(KeyError, match="StatusDocument"):
        column("StatusDocument", path)


def test_column__the_schema_of_the_api_has_the_same_label() -> None:
    schema = json.loads((WEB_FOLDER / "api" / "openapi.json").read_text())["components"]["schemas"]["HoldingDocument"]
    assert schema["properties"]["price_source"]["title"] == "Price from"
    assert schema["properties"]["drift_bps"]["x-figure"] == "points+"


def test_column__tables_and_pages_read_the_same_declaration() -> None:
    fields = ("position", "state", "hold_value", "lvr_per_day")
    column_rows = columns_at("lp.positions.0", *fields)
    assert column_rows == list(columns("PositionDocument", *fields))
    assert [heading.heading for heading in column_rows] == ["Position", "State", "If held", "LVR a day"]


def test_column__documents_without_a_declared_type_have_none() -> None:
    assert column_at("run.state") is None
    assert column_at("pnl.month.periods.0.profit") == column("ProfitDocument", "periods.0.profit")


def test_table__cells_have_the_declared_labels_and_formats() -> None:
    row = {"name": "up", "costs": "12.345", "return_bps": -150, "sharpe": None}
    table = document_table("", columns("StrategyDocument", "name", "costs", "return_bps", "sharpe"), [row])
    assert drawing_of(table, 80).split() == ["strategy", "costs", "return", "sharpe", "─" * 32, "up", "12.34", "-1.50", "%", "–"]


def test_table__a_field_of_an_absent_part_is_a_dash() -> None:
    assert figure_cell({"cost": None}, column("PastStepDocument", "cost.total")) == "–"


def test_field_label__words_without_the_unit() -> None:
    assert field_label("max_live_value_raw") == "Max live value"


def contrast(*colours: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""
    darker, lighter = sorted(relative_luminance([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]) for colour in colours)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("background", ["paper", "wash"])
def test_token_colour__is_readable_on_light_and_dark(background: str) -> None:
    """WCAG 1.4.11 asks 3:1 of a picture."""
    style = (WEB_FOLDER / "static" / "dashboard.css").read_text()
    page_colours = re.findall(f"--{background}: (#[0-9a-f]{{6}})", style)
    assert len(page_colours) == 2
    symbols = [*HUE_BY_TOKEN, *(f"T{number}" for number in range(200))]
    assert min(contrast(token_colour(symbol), page) for symbol in symbols for page in page_colours) >= 3


@pytest.mark.parametrize(("symbol", "other"), [("ETH", "WETH"), ("BNB", "WBNB"), ("BTC", "cbBTC"), ("XYZ", "xyz")])
def test_token_colour__is_that_of_the_same_asset(symbol: str, other: str) -> None:
    assert token_colour(symbol) == token_colour(other)


def test_token_colour__frequent_tokens_differ() -> None:
    assert len({token_colour(symbol) for symbol in HUE_BY_TOKEN}) == len(HUE_BY_TOKEN)


def test_token_colour__is_the_same_in_bar_chart_and_dot() -> None:
    holding = {"symbol": "LINK", "weight_bps": 5_000, "target_bps": 5_000, "band_bps": [4_000, 6_000]}
    values = [{"time": f"2026-01-0{day} 00:00:00", "weights_bps": {"LINK": 5_000}} for day in (2, 1)]
    (chart,) = weight_charts({"values": values})
    pictures = (weight_bar(holding, 10_000), token_dot("LINK"), chart["data"])
    assert all(token_colour("LINK") in picture for picture in pictures)


@pytest.mark.parametrize(
    ("price", "words"),
    [
        pytest.param("3769.4976", "3,769.50", id="last place carries"),
        pytest.param("3426.816", "3,426.82", id="thousands"),
        pytest.param("4900.344", "4,900.34", id="down"),
        pytest.param("9.999996", "10.0000", id="next power of ten"),
        pytest.param("0.00012345678", "0.000123457", id="small"),
        pytest.param("100", "100.000", id="whole"),
        pytest.param("1", "1.00000", id="numeraire"),
        pytest.param("0", "0.00", id="nothing"),
        pytest.param("123456789.126", "123,456,789.13", id="two places"),
    ],
)
def test_price__is_rounded_and_an_amount_is_cut(price: str, words: str) -> None:
    assert format_figure(price, "price") == words
    assert Fraction(format_figure(price, "amount").replace(",", "")) <= Fraction(price)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ("StatusDocument", "holdings.0.price"),
        ("AssetLotsDocument", "entry_price"),
        ("AssetAlertDocument", "alert_high"),
        ("FuturesPositionDocument", "index"),
        ("ConditionalOrderDocument", "fired_at"),
    ],
)
def test_prices_of_documents__are_rounded(document: str, path: str) -> None:
    assert column(document, path).figure == "price"


@pytest.mark.parametrize("dollars", ["3855.168", "4900.347", "0.00012345678", "100"])
def test_price_of_a_reason__is_that_of_the_table_beside_it(dollars: str) -> None:
    price_text = format_order_price(two().seen({"WETH": 2_000}).portfolio, token("WETH").address, price_of("WETH", Fraction(dollars)))
    assert reader_text(price_text) == f"{format_figure(dollars, 'price')} USDC"


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("its price is 2998.1267 USDC per WETH now", "its price is 2,998.13 USDC per WETH now"),
        ("limit 0.000333541 WETH/USDC", "limit 0.000333541 WETH/USDC"),
        ("limit 3000.126 USDC/WETH", "limit 3,000.13 USDC/WETH"),
        ("at 15.0000 USDC", "at 15.0000 USDC"),
        ("pays 3000.126 USDC", "pays 3,000.12 USDC"),
        ("pays 3000.126 USDC per day", "pays 3,000.12 USDC per day"),
        ("correcting costs 1301.30 USDC, and 1.5 WETH", "correcting costs 1,301.30 USDC, and 1.5 WETH"),
    ],
)
def test_sentence__rounds_prices_and_cuts_amounts(sentence: str, words: str) -> None:
    assert reader_text(sentence) == words


@pytest.mark.parametrize(
    ("cost", "words"),
    [("1.38771", "1.39"), ("1.3849", "1.38"), ("-1.38779", "-1.39"), ("0", "0.00"), ("0.0000124", "0.000012"), ("1234.9", "1,234.90")],
)
def test_cost__is_money_on_the_terminal_too(cost: str, words: str) -> None:
    assert cost_text(cost) == words


@pytest.mark.parametrize("path", ["assets.nonsense", "holdings.nonsense", "holdings.0.nonsense", "nonsense"])
def test_column__of_an_undeclared_field_is_refused(path: str) -> None:
    with pytest.raises(KeyError, match=path):
        column("StatusDocument", path)


@pytest.mark.parametrize(
    ("weight_bps", "cost", "waiting_year", "words"),
    [
        pytest.param(
            2_940,
            "2",
            "20",
            "waits, as it is not above 30.00 %: a trade back costs 2.00 USDC once, waiting costs as much in 36 days",
            id="waits",
        ),
        pytest.param(
            3_001,
            "2",
            "20",
            "is due, as it is above 30.00 %: a trade back costs 2.00 USDC once, waiting costs as much every 36 days",
            id="due",
        ),
        pytest.param(
            1_999,
            "3",
            "1",
            "is due, as it is below 20.00 %: a trade back costs 3.00 USDC once, waiting costs as much every 2 years",
            id="dear",
        ),
        pytest.param(
            2_060,
            "3",
            "0",
            "waits, as it is not below 20.00 %: a trade back costs 3.00 USDC once, waiting costs as much in 2 years",
            id="free",
        ),
        pytest.param(2_940, "0.004", "0.0049", "", id="below a cent"),
        pytest.param(2_505, "2", "20", "", id="at its target within rounding"),
        pytest.param(2_495, "2", "20", "", id="at its target from below"),
        pytest.param(2_506, "2", "20", "waits, as it is not above 30.00 %", id="off its target"),
    ],
)
def test_correction__agrees_with_what_is_decided(weight_bps: int, cost: str, waiting_year: str, words: str) -> None:
    correction = {"cost": cost, "waiting_year": waiting_year}
    edges = {"target_bps": 2_500, "no_trade_bps": [2_100, 2_900], "trigger_bps": [2_000, 3_000]}
    text = correction_text({"symbol": "cbBTC", "weight_bps": weight_bps, **edges, "correction": correction}, "USDC")
    assert text.startswith(f"cbBTC {words}") if words else not text


OTHERS_HAVE_TOO_MUCH = "cbBTC: the others have too much that moves with it"


@pytest.mark.parametrize(
    ("weight_bps", "cost", "words"),
    [
        pytest.param(
            2_796, "2", f"{OTHERS_HAVE_TOO_MUCH}; correcting that costs 2.00 USDC once, waiting costs as much every", id="below its target"
        ),
        pytest.param(2_796, "0.001", OTHERS_HAVE_TOO_MUCH, id="below a cent"),
        pytest.param(2_700, "2", "cbBTC waits, as it is not above 27.85 % at these weights of the others: a trade back", id="waits"),
        pytest.param(4_000, "2", "cbBTC is due, as it is above 27.85 % at these weights of the others: a trade back", id="above both"),
    ],
)
def test_correction__of_a_range_beside_its_target_names_the_others(weight_bps: int, cost: str, words: str) -> None:
    edges = {"target_bps": 3_300, "no_trade_bps": [2_300, 2_523], "trigger_bps": [2_100, 2_785]}
    correction = {"cost": cost, "waiting_year": "0"}
    text = correction_text({"symbol": "cbBTC", "weight_bps": weight_bps, **edges, "correction": correction}, "USDC")
    assert text.startswith(words)


@pytest.mark.parametrize(
    ("ranges", "symbols"),
    [
        pytest.param({"WETH": (2_900, 3_100), "WBTC": (3_000, 3_200)}, "", id="around, and from the target on"),
        pytest.param({"WETH": (3_001, 3_200), "WBTC": (2_900, 3_100)}, "WETH", id="above its target"),
        pytest.param({"WETH": (2_000, 2_999), "WBTC": (3_001, 3_001)}, "WETH, WBTC", id="below, and empty"),
    ],
)
def test_ranges_beside_targets__are_named(ranges: dict[str, tuple[int, int]], symbols: str) -> None:
    zone = {
        "assets": [
            {"symbol": symbol, "weight_bps": 0, "target_bps": 3_000, "no_trade_bps": list(bps), "trigger_bps": list(bps)}
            for symbol, bps in ranges.items()
        ]
    }
    text = ranges_beside_targets(zone)
    assert text.partition(":")[0] == symbols
    assert ("at these weights of the others, as coins that move together stand in for one another" in text) is bool(symbols)
