"""Backtests from Python: frames in, the command's own result out, errors that name the argument."""

from __future__ import annotations

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from agent import research
from agent.app.research.backtests import MarketOptions, sample_files
from agent.app.research.backtests import backtest as backtest_by_options
from agent.backtest.data import read_table
from agent.backtest.report.series import backtest_document
from agent.cli.research.portfolio_texts import portfolio_options
from agent.errors import ConfigError
from agent.model import Every, HybridTrigger, NoTradeZone, Threshold
from agent.research.prices import read_prices
from tests.support.text import mentions

PRICES = sample_files()[0]
TARGETS = {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}
TIMES = [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 31)]
BTC = [100.0 + day * (-1) ** day for day in range(30)]


def wide() -> pl.DataFrame:
    return pl.read_csv(PRICES, infer_schema_length=None).select("time", "BTC", "ETH")


def long() -> pl.DataFrame:
    return wide().unpivot(index="time", variable_name="symbol", value_name="close")


def pandas_frame() -> pd.DataFrame:
    return pd.read_csv(PRICES)[["time", "BTC", "ETH"]]


def pandas_by_index() -> pd.DataFrame:
    frame = pandas_frame()
    return frame.assign(time=pd.to_datetime(frame["time"])).set_index("time")


def pandas_in_a_zone() -> pd.DataFrame:
    frame = pandas_by_index()
    frame.index = frame.index.tz_localize("UTC").tz_convert("Asia/Tokyo")
    return frame


def small(**columns: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"time": TIMES, **(columns or {"BTC": BTC})})


@pytest.mark.parametrize(
    "read",
    [wide, lambda: wide().lazy(), long, pandas_frame, pandas_by_index, pandas_in_a_zone, lambda: PRICES, lambda: str(PRICES)],
    ids=["polars", "lazy", "long", "pandas", "pandas index", "pandas zone", "path", "text"],
)
def test_prices_of_every_kind_are_read_as_the_file_is(read: Callable[[], object]) -> None:
    table = read_prices(read())
    expected = read_table(PRICES)
    for symbol in ("BTC", "ETH"):
        assert table.times_s.tolist() == expected.times_s.tolist()
        column, expected_column = (of.closes[:, of.symbols.index(symbol)].tolist() for of in (table, expected))
        assert column == expected_column


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a server on this machine that has the sample as prices.csv."""
    shutil.copy(PRICES, tmp_path / "prices.csv")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_prices_are_read_from_an_address(site: str) -> None:
    assert read_prices(f"{site}/prices.csv?version=1").closes.tolist() == read_table(PRICES).closes.tolist()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{site}/absent.csv", "prices: the server answers 404"),
        ("{site}/", "--prices: prices is neither .csv nor .parquet"),
        ("http://192.0.2.1/prices.csv", "prices: http:// is not https"),
        ("ftp://127.0.0.1/prices.csv", "prices: ftp:// is not https"),
        ("file:///etc/passwd", "prices: file:// is not https"),
    ],
)
def test_an_address_that_gives_no_prices_is_named(site: str, address: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_prices(address.format(site=site))
    assert error.value.message.startswith(message)


def test_backtest_is_that_of_the_command() -> None:
    options = portfolio_options(target="BTC=40,ETH=30,USD=30", band="10%rel")
    expected = backtest_document(backtest_by_options(PRICES, MarketOptions(), options))
    result = research.backtest(PRICES, TARGETS, research.band(0.1))
    assert backtest_document(result._result) == expected


def test_picture_of_a_comparison_has_each_value_and_that_of_holding() -> None:
    results = research.compare(wide(), TARGETS, {"band": research.band(0.1), "weekly": research.every("7d")}, end="2021-02-01")
    figure = results.plot()
    frames = {name: result.frame() for name, result in results.items()}
    assert {line.name: list(line.y) for line in figure.data if line.yaxis == "y"} == {
        **{name: frame["value"].to_list() for name, frame in frames.items()},
        "buy and hold": frames["band"]["hold_value"].to_list(),
    }
    assert {line.name: list(line.y) for line in figure.data if line.yaxis == "y2"} == {
        name: (frame["value"] - frame["hold_value"]).to_list() for name, frame in frames.items()
    }
    assert [line.name for line in figure.data if line.showlegend] == ["band", "weekly", "buy and hold"]
    assert "weekly" in results._repr_html_()


def test_summary_frames_and_report_agree_with_each_other(tmp_path: Path) -> None:
    result = research.backtest(wide(), TARGETS, research.band(0.1), flows={"2021-06-01": 500})
    assert " % time-weighted (held " in repr(result)
    summary = result.summary
    frame = result.frame()
    assert frame.columns == ["time", "value", "hold_value", "drawdown"]
    assert frame["time"][0] == summary.start == datetime(2021, 1, 1, tzinfo=UTC)
    assert frame["value"][-1] == pytest.approx(summary.value)
    assert frame["hold_value"][-1] == pytest.approx(summary.hold_value)
    assert frame["drawdown"].min() == pytest.approx(summary.max_drawdown)
    assert result.trades["succeeded"].sum() == summary.trades == len(result.trades)
    assert result.trades["fees"].sum() == pytest.approx(summary.fees)
    assert summary.costs == pytest.approx(summary.fees + summary.impact + summary.gas)
    assert result.weights.columns == ["time", "BTC", "ETH", "USD"]
    assert result.weights.drop("time").sum_horizontal().to_list() == pytest.approx([1.0] * len(frame))
    report = result.report(tmp_path / "report.html")
    assert f"{summary.trades}" in report.read_text(encoding="utf-8")
    attribution = result.attribution
    parts = attribution.excess_growth + attribution.off_target - attribution.dispersion - attribution.costs
    assert attribution.advantage == pytest.approx(parts)
    assert re.fullmatch(r"Attribution\(advantage -?[0-9.]{3,6} %(, [a-z_]+ -?[0-9.]{3,6} %){6}\)", repr(attribution))
    assert attribution._repr_html_().count("<tr>") == 7
    assert f"start 2021-01-01 00:00 UTC, end {summary.end:%Y-%m-%d %H:%M} UTC, " in repr(summary)
    assert f", value {summary.value:,.2f} USD, " in repr(summary)


@pytest.mark.parametrize("latency", [0, 1])
def test_swaps_explain_holdings_and_fees(latency: int) -> None:
    prices = small(BTC=BTC, ETH=[50.0 + day % 5 for day in range(30)])
    targets = {"BTC": 0.4, "ETH": 0.3, "USD": 0.3}
    result = research.backtest(prices, targets, research.every("7d"), costs=research.Costs(latency=latency))
    swaps = result.swaps
    first_closes = {symbol: prices[symbol][0] for symbol in ("BTC", "ETH")} | {"USD": 1}
    last_closes = {symbol: prices[symbol][-1] for symbol in ("BTC", "ETH")} | {"USD": 1}
    coins = {
        symbol: 10_000 * share / first_closes[symbol]
        + swaps.filter(bought=symbol)["bought_amount"].sum()
        - swaps.filter(sold=symbol)["sold_amount"].sum()
        for symbol, share in targets.items()
    }
    assert sum(coins[symbol] * last_closes[symbol] for symbol in targets) == pytest.approx(result.summary.value)
    assert swaps["fee"].sum() == pytest.approx(result.summary.fees)
    assert swaps["value"].to_list() == pytest.approx((swaps["fee"] / 0.001).to_list())
    assert swaps["time"].unique().to_list() == result.trades["time"].to_list()
    assert swaps["reason"].str.contains("review").all()


def test_trades_without_trades_are_an_empty_frame() -> None:
    result = research.backtest(small(BTC=[100.0] * 30), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    assert result.trades.schema == research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.every("7d")).trades.schema
    assert len(result.trades) == 0


@pytest.mark.parametrize(
    ("shown", "name", "words"),
    [
        pytest.param("summary", "sharp", "sharp: no such figure (did you mean sharpe?)", id="near name"),
        pytest.param(
            "summary", "numeraire", "numeraire: no such figure (choose from start, end, start_value, ", id="name of another place"
        ),
        pytest.param("summary", 5, "5: no such figure (choose from start, ", id="number"),
        pytest.param("attribution", "cost", "cost: no such figure (did you mean costs?)", id="attribution"),
    ],
)
def test_text_of_another_name_is_refused_with_the_nearest(shown: str, name: Any, words: str) -> None:
    result = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    with pytest.raises(ConfigError) as error:
        getattr(result, shown).text(name)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("name", ["summary", "attribution"])
def test_figures_that_are_called_say_that_they_are_no_method(name: str) -> None:
    result = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    with pytest.raises(ConfigError, match=rf"{name}: it is no method \(write result.{name} without parentheses\)"):
        getattr(result, name)()


def test_what_a_progress_function_raises_ends_the_run_as_it_is() -> None:
    def fail(*_count: int) -> None:
        raise KeyError("own")

    for call in (research.backtest, research.tune):
        with pytest.raises(KeyError, match="own"):
            call(small(), {"BTC": 0.5, "USD": 0.5}, [research.band(0.1)] if call is research.tune else research.band(0.1), progress=fail)


def test_attribution_has_the_parts_of_the_advantage_and_no_effect_of_flows() -> None:
    plain = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.every("7d")).attribution
    with_flow = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.every("7d"), flows={small()["time"][5]: 5_000}).attribution
    for parts in (plain, with_flow):
        assert parts is not None
        assert parts.advantage == pytest.approx(parts.excess_growth + parts.off_target - parts.dispersion - parts.costs)
    assert plain.excess_growth == pytest.approx(with_flow.excess_growth, rel=0.01)


def test_swaps_without_trades_are_an_empty_frame() -> None:
    result = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.9))
    assert result.swaps.schema == {
        "time": pl.Datetime("us", "UTC"),
        "sold": pl.String,
        "bought": pl.String,
        "sold_amount": pl.Float64,
        "bought_amount": pl.Float64,
        "value": pl.Float64,
        "fee": pl.Float64,
        "reason": pl.String,
    }
    assert result.swaps.is_empty()


def test_result_is_shown_in_one_line_and_as_a_notebook_cell() -> None:
    result = research.backtest(wide(), TARGETS, research.band(0.1))
    assert repr(result).startswith("Backtest(2021-01-01 to 2021-12-31, +")
    assert len(repr(result)) < 100
    html = result._repr_html_()
    assert html.count("<polyline") == 2
    assert "<th style='text-align:left'>sharpe</th>" in html
    assert [name for name in dir(result) if name.startswith("_")] == []
    assert {"summary", "frame", "trades", "weights", "attribution", "plot", "report"} <= set(dir(result))


@pytest.mark.parametrize(("hours", "bars"), [(1, 720), (1, 481), (8, 100), (24, 30)], ids=["29.96 days", "20 days", "of 8 hours", "daily"])
def test_rate_of_a_year_is_that_of_the_time_between_the_closes(hours: int, bars: int) -> None:
    times = [TIMES[0] + timedelta(hours=hours * bar) for bar in range(bars)]
    frame = pl.DataFrame({"time": times, "BTC": [100 * 0.9 ** (bar / bars) for bar in range(bars)]})
    summary = research.backtest(frame, {"BTC": 0.5, "USD": 0.5}, research.band(0.9)).summary
    years = (times[-1] - times[0]) / timedelta(days=365)
    assert summary.total_return < -0.04
    assert summary.cagr == pytest.approx((1 + summary.total_return) ** (1 / years) - 1)


def test_rate_of_a_year_of_less_than_twenty_days_is_unknown_and_says_so() -> None:
    times = [TIMES[0] + timedelta(hours=bar) for bar in range(480)]
    result = research.backtest(pl.DataFrame({"time": times, "BTC": [100.0 + bar % 7 for bar in range(480)]}), {"BTC": 0.5, "USD": 0.5})
    assert math.isnan(result.summary.cagr)
    assert "needs 20 days" in result._repr_html_()


def test_notebook_cell__has_axes_legend_and_readable_figures() -> None:
    result = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    html = result._repr_html_()
    summary = result.summary
    values = [*result.frame()["value"], *result.frame()["hold_value"]]
    for text in ("2024-01-01", "2024-01-30", "portfolio", "buy and hold", f"{max(values):,.0f}", f"{min(values):,.0f}", "USD"):
        assert f">{text}</text>" in html
    for name, text in (
        ("total return (time-weighted)", f"{summary.total_return * 100:.2f} %"),
        ("costs", f"{summary.costs:,.2f} USD"),
        ("turnover", f"{summary.turnover:.2f}"),
        ("trades", str(summary.trades)),
    ):
        assert f"{name}</th><td style='text-align:right'>{text}</td>" in html
    assert not re.search(r"nan|e-\d", html)
    assert summary._repr_html_() in html


def test_notebook_cell_of_a_comparison__says_what_is_common_once() -> None:
    html = research.compare(small(), {"BTC": 0.5, "USD": 0.5}, {"band": research.band(0.1), "weekly": research.every("7d")})._repr_html_()
    assert html.startswith("<div><p>2024-01-01 to 2024-01-30, 10,000.00 USD at the start</p>")
    for column in ("start", "end", "numeraire", "start_value"):
        assert f"<th>{column}</th>" not in html
    assert "total return (time-weighted)</th><td>" in html
    assert html.count(" USD</td>") == 12, "value, holding, fees, impact, gas and costs of two"


def test_plot_has_value_holding_and_drawdown() -> None:
    figure = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.01)).plot()
    assert [trace.name for trace in figure.data] == ["portfolio", "buy and hold", "drawdown"]
    layout = figure.layout
    assert (layout.yaxis.title.text, layout.yaxis2.title.text, layout.xaxis2.title.text) == ("value, USD", "drawdown", "time, UTC")
    assert layout.title.text
    assert len(figure.data[0].y) == len(TIMES)


def test_start_and_end_are_both_included() -> None:
    result = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, start="2024-01-05", end=datetime(2024, 1, 9, tzinfo=UTC))
    assert result.frame()["time"].to_list() == TIMES[4:9]


@pytest.mark.parametrize(("start", "is_noted"), [("2023-12-31", True), ("2023-12-31T12:00", False), ("2024-01-01", False)])
def test_prices_that_begin_after_the_start_are_noted(start: str, is_noted: bool) -> None:
    notes = research.backtest(small(), {"BTC": 0.5, "USD": 0.5}, research.band(0.1), start=start).notes
    assert ("start: prices begin on 2024-01-01, after 2023-12-31" in notes) == is_noted


@pytest.mark.parametrize("jobs", [1, 2])
def test_compare_gives_the_same_and_counts_triggers(jobs: int) -> None:
    targets = {"BTC": 0.5, "USD": 0.5}
    triggers = [research.band(0.01), research.every("7d")]
    counts: list[tuple[int, int]] = []
    results = research.compare(small(), targets, triggers, jobs=jobs, progress=lambda *count: counts.append(count))
    assert results.frame().equals(research.compare(small(), targets, triggers).frame())
    assert counts == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    "arguments",
    [{"triggers": [lambda view: True]}, {"signal": lambda view: {}}, {"allocator": research.signal(lambda view: {})}],
    ids=["trigger", "signal", "allocator"],
)
def test_a_function_is_asked_in_one_process(arguments: dict[str, Any]) -> None:
    usual = {"prices": small(), "targets": {"BTC": 0.5, "USD": 0.5}, "triggers": [research.band(0.1)], "jobs": 2}
    with pytest.raises(ConfigError, match="jobs: 2, but a function is asked in one process"):
        research.compare(**(usual | arguments))


def test_compare_gives_a_result_for_each_trigger() -> None:
    targets = {"BTC": 0.5, "USD": 0.5}
    costs = research.Costs(fee=0.003)
    results = research.compare(small(), targets, {"band": research.band(0.01), "weekly": research.every("7d")}, costs=costs)
    assert list(results) == ["band", "weekly"]
    assert repr(results) == f"Comparison of 2\n  band: {results['band']!r}\n  weekly: {results['weekly']!r}"
    assert results["band"].summary.trades > results["weekly"].summary.trades > 0
    alone = research.backtest(small(), targets, research.every("7d"), costs=costs)
    assert results["weekly"].summary == alone.summary
    frame = results.frame()
    assert frame.columns == ["name", *(field.name for field in fields(alone.summary)), "costs"]
    weekly = frame.row(1, named=True)
    assert (weekly["name"], weekly["value"], weekly["costs"]) == ("weekly", alone.summary.value, alone.summary.costs)


def test_comparison__writes_a_report_of_all(tmp_path: Path) -> None:
    triggers = {"narrow": research.band(0.01), "<weekly>": research.every("7d")}
    results = research.compare(small(), {"BTC": 0.5, "USD": 0.5}, triggers)
    html = results.report(tmp_path / "comparison.html").read_text()
    for name, result in results.items():
        assert escape(name) in html
        assert result.summary.text("total_return") in html
        assert result.summary.text("costs") in html
    assert mentions(html, "2 backtests side by side", "buy and hold", "data hash", "narrow: policy")
    assert "<weekly>" not in html
    with pytest.raises(ConfigError, match=r"does not end in \.html"):
        results.report(tmp_path / "comparison.pdf")


def test_compare_names_the_triggers_of_a_list() -> None:
    def rarely(view: object) -> bool:
        return False

    prices = small().head(4)
    results = research.compare(prices, {"BTC": 0.5, "USD": 0.5}, [research.band(0.1), research.every("7d"), rarely])
    assert list(results) == ["band 10 % rel", "every 7 days", "rarely"]
    with pytest.raises(ConfigError, match="triggers: two are band 10 % rel"):
        research.compare(prices, {"BTC": 0.5, "USD": 0.5}, [research.band(0.1), research.band(0.1)])


@pytest.mark.parametrize("value", [10_000, "12345.678"])
def test_schedule_counts_from_the_first_bar(value: Any) -> None:
    closes = [2_000 / 3 + 7 * day for day in range(30)]
    result = research.backtest(small(BTC=BTC, ETH=closes), TARGETS, research.every("7d"), value=value)
    assert result.trades["time"].dt.day().to_list() == [8, 15, 22, 29]
    assert result.notes == ()


def test_network_adds_its_gas_and_data_fee() -> None:
    prices = small(ETH=BTC)
    targets = {"ETH": 0.5, "USD": 0.5}
    free = research.backtest(prices, targets, research.every("7d"))
    assert free.summary.gas == 0
    on_base = research.backtest(prices, targets, research.every("7d"), network="base").summary.gas
    on_ethereum = research.backtest(prices, targets, research.every("7d"), network="ethereum").summary.gas
    assert 0 < on_base < on_ethereum


@pytest.mark.parametrize("native", ["BTC", "USD"])
def test_gas_in_another_target_than_the_network_s_coin_is_refused(native: str) -> None:
    prices = small(ETH=BTC, BTC=BTC)
    with pytest.raises(ConfigError) as error:
        research.backtest(prices, {"ETH": 0.5, "BTC": 0.5, "USD": 0}, research.band(0.1), network="base", native=native)
    assert str(error.value) == f"native: gas of base is paid in ETH, not in {native} (omit it)"


def test_gas_at_the_price_of_another_coin_is_noted() -> None:
    prices = small(MATIC=BTC)
    targets = {"MATIC": 0.5, "USD": 0.5}
    result = research.backtest(prices, targets, research.every("7d"), network="polygon", native="MATIC")
    assert result.notes == ("native: gas of polygon is paid in POL, and counts at the price of MATIC",)
    wrapped = research.backtest(small(WETH=BTC), {"WETH": 0.5, "USD": 0.5}, research.every("7d"), network="base", native="WETH")
    assert wrapped.notes == ()


@pytest.mark.parametrize(
    ("targets", "bps"),
    [
        ({"BTC": 1 / 3, "ETH": 1 / 3, "USD": 1 / 3}, [3334, 3333, 3333]),
        ({"BTC": "0.4", "ETH": 0.3, "USD": 0.3}, [4000, 3000, 3000]),
        ({"BTC": 0.00005, "ETH": 0.99995, "USD": 0}, [1, 9999, 0]),
    ],
)
def test_targets_are_rounded_to_a_sum_of_one(targets: dict[str, Any], bps: list[int]) -> None:
    result = research.backtest(wide(), targets, research.every("28d"))
    shares = [share / 10_000 for share in bps]
    assert result._result.targets[0].tolist() == pytest.approx(shares)


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (research.band(0.1), Threshold(None, 1_000)),
        (research.band(absolute=0.05), Threshold(500, None)),
        (research.band(0.2, absolute=0.05), Threshold(500, 2_000)),
        (research.every("7d"), Every(604_800)),
        (research.every("1d", research.band(0.1)), HybridTrigger(Threshold(None, 1_000), Every(86_400))),
    ],
    ids=["relative", "absolute", "both", "schedule", "hybrid"],
)
def test_triggers_are_those_of_a_config(trigger: object, expected: object) -> None:
    assert trigger == expected


def test_the_tracking_rule_is_the_default() -> None:
    assert isinstance(research.tracking("strict"), NoTradeZone)
    targets = {"BTC": 0.5, "USD": 0.5}
    usual = research.backtest(small(), targets).summary
    assert usual == research.backtest(small(), targets, research.tracking()).summary
    assert usual == research.backtest(small(), targets, destination="zone").summary


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"targets": {"BTC": 0.5, "USD": 0.4}},
            'targets: the shares sum to 0.9, not to 1 (if the rest is cash, write "USD": 0.5; else divide each by 0.9: write',
        ),
        ({"targets": {"BTC": 0.5, "ETH": 0.2}}, 'the shares sum to 0.7, not to 1 (if the rest is cash, write "USD": 0.3; else divide'),
        ({"targets": {"BTC": 0.5, "USDC": 0.1}}, 'the shares sum to 0.6, not to 1 (if the rest is cash, write "USDC": 0.5; else divide'),
        (
            {"targets": {"BTC": 0.4, "ETH": 0.3, "USD": 0.4}},
            'sum to 1.1, not to 1 (divide each by 1.1: write {"BTC": 0.3637, "ETH": 0.2727, "USD": 0.3636})',
        ),
        ({"targets": {"BTC": 40, "USD": 60}}, 'sum to 100, not to 1 (divide each by 100: write {"BTC": 0.4, "USD": 0.6})'),
        ({"targets": {"BTC": 0, "USD": 0}}, "sum to 0, not to 1 (write shares such as"),
        ({"targets": {"BTC": 1.5, "USD": -0.5}}, "targets: USD is -0.5, below 0"),
        ({"targets": {"BTC": "half", "USD": 0.5}}, "targets: 'half' of BTC is no number"),
        ({"targets": {"BTC": float("nan"), "USD": 0.5}}, "targets: nan of BTC is no number"),
        ({"targets": {"LINK": 0.5, "USD": 0.5}}, "targets: LINK has no prices"),
        ({"targets": {"BTC": 0.5, "EUR": 0.4, "USD": 0.1}}, "targets: USD has no prices, and EUR is taken for the cash ("),
        ({"targets": {"BTC": 1.0}, "trigger": None}, "targets: tracking trades against USD"),
        ({"value": 0}, "value: 0 is not above zero"),
        ({"value": 10**400}, "value: a number of too many digits is no number"),
        ({"value": "9" * 61}, f"value: '{'9' * 58}… is no number"),
        ({"targets": {"BTC": 10**5_000, "USD": 0.5}}, "targets: a number of too many digits of BTC is no number"),
        ({"flows": {"2024-01-05": [10**5_000]}}, "flows: list of 2024-01-05 is no number"),
        ({"network": "solana"}, "network: 'solana' (choose from ethereum, "),
        ({"network": "Base"}, "network: 'Base' (did you mean base?)"),
        ({"network": "POLYGON"}, "network: 'POLYGON' (did you mean polygon?)"),
        ({"destination": "Half-way"}, "destination: 'Half-way' (did you mean halfway?)"),
        ({"network": "base"}, "network: gas of base is paid in ETH, which is not a target with prices"),
        ({"network": "base", "prices": small(BTC=BTC, ETH=BTC)}, 'ETH, which is not a target with prices (add "ETH": 0 to the targets)'),
        ({"network": "base", "prices": small(BTC=BTC, WETH=BTC)}, 'with prices (add "WETH": 0 to the targets)'),
        ({"network": "base", "targets": {"LINK": 0.5, "USD": 0.5}}, "targets: LINK has no prices"),
        ({"flows": {"2030-01-01": 5}}, "flows: 2030-01-01"),
        ({"flows": {"soon": 5}}, "flows: 'soon' is no time"),
        ({"start": "2025-01-01"}, "start, end: from 2025-01-01 the prices, of 2024-01-01 to 2024-01-30, have 0 bars"),
        ({"end": "2024-01-01"}, "start, end: to 2024-01-01 the prices, of 2024-01-01 to 2024-01-30, have 1 bar"),
        ({"start": "2024-01-09", "end": "2024-01-05"}, "start, end: 2024-01-05 is before 2024-01-09"),
        ({"destination": "nowhere"}, "destination: 'nowhere'"),
        ({"destination": "zone"}, "destination: zone, but only tracking has one"),
        ({"destination": "halfway", "trigger": None}, "destination: halfway, but tracking trades to the edge of its zone"),
        ({"destination": "target", "trigger": None}, "destination: target, but tracking trades to the edge of its zone"),
        ({"prices": [1, 2]}, "prices: list is no frame"),
        ({"prices": small().head(0)}, "prices is empty"),
        ({"prices": small(BTC=[-1.0] * 30)}, "prices, row 1, 2024-01-01 00:00:00 UTC: '-1.0' is not a price of BTC"),
        ({"prices": small(BTC=[1.0] * 29 + [0.0])}, "prices, row 30, 2024-01-30 00:00:00 UTC: '0.0' is not a price of BTC"),
        ({"prices": small(BTC=["1.5"] * 29 + ["1,5"])}, "prices, row 30, 2024-01-30 00:00:00 UTC: '1,5' has a decimal comma"),
        ({"prices": "nowhere.csv"}, "prices: nowhere.csv: no such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], words: str) -> None:
    usual = {"prices": small(), "targets": {"BTC": 0.5, "USD": 0.5}, "trigger": research.band(0.1)}
    with pytest.raises(ConfigError) as caught:
        research.backtest(**(usual | arguments))
    assert words in str(caught.value)
    assert "--" not in f"{caught.value.message} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (research.band, "band: no width"),
        (lambda: research.band(0.00001), "finer than 0.0001"),
        (lambda: research.band(-0.1), "band"),
        (lambda: research.every("soon"), "every"),
        (lambda: research.every("1M"), r'every: .1M. .* or research.cron\("@monthly"\) in place of months'),
        (lambda: research.cron("@montly"), r"cron: .@montly. has 1 field \(did you mean @monthly\? else write five fields"),
        (lambda: research.cron("Monthly"), r"did you mean @monthly\?"),
        (lambda: research.cron("0 9 * *"), r"cron: .* has 4 fields \(write five fields"),
        (lambda: research.tracking("lazy"), "lazy"),
        (lambda: research.tracking("Strict"), "did you mean strict?"),
    ],
)
def test_a_wrong_trigger_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_probably_wrong_close_is_told() -> None:
    closes = [*BTC[:14], BTC[14] * 100, *BTC[15:]]
    result = research.backtest(small(BTC=closes), {"BTC": 0.5, "USD": 0.5}, research.band(0.1))
    assert "1 close is probably wrong" in result.notes[0]
    assert result.notes[0] in result._repr_html_()
    assert repr(result).endswith("USD, 1 note)")


@pytest.mark.parametrize("triggers", [[], (), {}], ids=["list", "tuple", "dict"])
def test_comparison_without_triggers_is_refused(triggers: Any) -> None:
    with pytest.raises(ConfigError, match=r"triggers: .* has no triggers by name"):
        research.compare("prices.csv", {"BTC": 0.5, "USD": 0.5}, triggers)
