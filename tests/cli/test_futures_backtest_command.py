"""`trimtab backtest --futures`: its document, its words, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.documents.research import FuturesBacktestDocument, FuturesStressDocument
from tests.cli.documents import misfits
from tests.cli.mapping_documents import BacktestDocument
from tests.cli.tools import CommandResult
from tests.support.studies.shared_data import DATA, HOURLY, needs_data

pl = pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
FUNDED = ("time,symbol,rate", "2021-01-02,BTCUSDT,0.01", "2021-01-03,BTCUSDT,0.01")
FREE = ("--futures", "fee=0bps,slippage=0bps")


def files(folder: Path, *closes: float) -> tuple[str, ...]:
    rows = [f"2021-01-{day:02},{close}" for day, close in enumerate(closes, 1)]
    (folder / "prices.csv").write_text("\n".join(["time,BTC", *rows]) + "\n")
    (folder / "funding.csv").write_text("\n".join(FUNDED) + "\n")
    return ("--prices", str(folder / "prices.csv"), "--funding", str(folder / "funding.csv"), "--as", "BTCUSDT=BTC")


def test_a_book_alone_prints_its_profit_by_source(bare: Bare, tmp_path: Path) -> None:
    """20,000 of BTC are bought on the second day; one funding of 1 % is paid on them at 100, before a rise of 5 %."""
    arguments = ("backtest", *files(tmp_path, 100, 100, 100, 105), "--futures", "BTC=100", *FREE)
    result = bare(*arguments, "--json")
    assert result.code == 0, result.why
    assert set(result.json) == {"futures"}
    futures = result.json["futures"]
    assert not misfits(FuturesBacktestDocument, futures)
    agent = futures["agent"]
    assert agent["profit"] == {
        "total": "600", "price": "1000", "slippage": "0", "funding": "400", "fees": "0", "penalties": "0", "insured": "0",
    }  # fmt: skip
    assert (agent["final_value"], agent["sizes"], len(agent["fills"])) == ("10600", {"BTC": "200"}, 1)
    assert futures["held"]["final_value"] == "10800"
    assert len(futures["config_hash"]) == len(futures["data_hash"]) == 64
    command_result = bare(*arguments)
    for word in ("Futures, 4 bars", "10,800.00", "10,600.00", "-400.00", "liquidations", "bars above 4.00x"):
        assert word in command_result.out


def test_with_a_spot_portfolio_both_are_one_portfolio(bare: Bare, tmp_path: Path) -> None:
    spot = ("backtest", *files(tmp_path, 100, 100, 130, 105), "--target", "BTC=50,USD=50", "--band", "5%abs", "--json")
    alone = bare(*spot).json
    both = bare(*spot, "--futures", "BTC=-100,spot-multiple=1x").json
    assert (alone["start_value"], both["start_value"]) == ("10000", "20000"), "the wallet and the margin"
    assert not misfits(BacktestDocument, both)
    (fill,) = both["futures"]["agent"]["fills"][:1]
    assert Fraction(fill["notional"]) <= 10_000
    assert fill["size"].startswith("-")


@pytest.mark.parametrize("spot", [(), ("--target", "BTC=50,USD=50", "--band", "5%abs")], ids=["alone", "beside spot"])
def test_the_report_draws_leverage_margin_and_funding_over_time(bare: Bare, tmp_path: Path, spot: tuple[str, ...]) -> None:
    page = tmp_path / "page.html"
    result = bare(
        "backtest", *files(tmp_path, 100, 100, 80, 105), "--futures", "BTC=100,leverage=3x",
        *spot, "--html", str(page), "--json",
    )  # fmt: skip
    assert result.code == 0, result.why
    assert result.json["report"] == [str(page), str(page.with_suffix(".json"))]
    section = next(section for section in json.loads(page.with_suffix(".json").read_text())["sections"] if section["title"] == "Futures")
    charts = {figure["title"]: {line["name"]: line["y"] for line in figure["data"]} for figure in section["figures"]}
    assert set(charts) == {"Value of the futures book", "Leverage", "Margin in use", "Funding paid so far"}
    assert charts["Leverage"]["limit"] == [4, 4]
    assert max(charts["Leverage"]["held"]) > 4
    assert charts["Margin in use"]["limit"] == [0.8, 0.8]
    assert charts["Funding paid so far"]["held"][-1] > 0
    assert {row[0] for row in section["tables"][0]["rows"]} >= {"from funding", "liquidations"}
    assert "Leverage" in page.read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--futures", "BTC=60"), "--futures target: absolute weights must sum to 100 %"),
        (("--futures", "DOGE=100"), "--prices: no symbol DOGE"),
        (("--futures", "BTC=100,max-leverage=4"), "--futures max-leverage: '4' has no unit"),
        (("--futures", "BTC=100", "--futures", "tax=1%"), "--futures: 'tax=1%' beside 'BTC=100'"),
        (("--futures", "BTC=100,penalty=60%"), "--futures penalty: 60 %"),
        (("--futures", "BTC=100,lot=ETH=1"), "--futures lot: 'ETH' has no target"),
        (("--futures", "BTC=100,lot=BTC=0"), "--futures lot BTC: must be above 0"),
        (("--futures", "BTC=100,margin=0"), "--futures margin: must be above 0"),
        (("--futures", "BTC=100", "--value", "0"), "--value: 0 is not above zero"),
        (("--futures", "BTC=100,spot-multiple=2x"), "--futures spot-multiple: no spot portfolio"),
    ],
)
def test_a_mistake_in_an_option_is_named(bare: Bare, tmp_path: Path, options: tuple[str, ...], named: str) -> None:
    result = bare("backtest", *files(tmp_path, 100, 100, 100), *options, "--json")
    assert result.code == 2
    assert result.json["error"]["message"].startswith(named)


def test_a_leverage_limit_of_zero_opens_nothing(bare: Bare, tmp_path: Path) -> None:
    result = bare("backtest", *files(tmp_path, 100, 100, 100), "--futures", "BTC=100,max-leverage=0x", "--json")
    assert result.code == 0, result.why
    agent = result.json["futures"]["agent"]
    assert (agent["final_value"], agent["fills"]) == ("10000", [])


@needs_data
@pytest.mark.parametrize(
    ("target", "until"),
    [
        ("BTC=60,ETH=40", datetime(2021, 6, 1, tzinfo=UTC)),
        pytest.param("BTC=60,ETH=40", None, marks=pytest.mark.slow),
        pytest.param("BTC=50,ETH=-50", None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_hourly_prices_liquidate_the_held_book_alone(bare: Bare, tmp_path: Path, target: str, until: datetime | None) -> None:
    funding = DATA / "funding" / "binance_8h.parquet"
    prices = HOURLY
    if until is not None:
        prices = tmp_path / "cut.parquet"
        pl.read_parquet(HOURLY).filter(pl.col("time") < until).write_parquet(prices)
    result = bare("backtest", "--prices", str(prices), "--funding", str(funding), "--futures", target, "--futures", "leverage=3x", "--json")
    assert result.code == 0, result.why
    futures = result.json["futures"]
    assert not futures["agent"]["liquidations"]
    assert futures["held"]["liquidations"]
    assert futures["agent"]["longest_above_limit"] == 0
    profit = {name: Fraction(text) for name, text in futures["agent"]["profit"].items()}
    costs = profit["slippage"] + profit["funding"] + profit["fees"] + profit["penalties"]
    assert profit["total"] == profit["price"] - costs + profit["insured"]
    assert Fraction(futures["agent"]["final_value"]) == 10_000 + profit["total"]
    assert profit["funding"] != 0


@pytest.mark.slow
@pytest.mark.parametrize(("bars", "seeds"), [(20, 1), pytest.param(30, 2, marks=pytest.mark.slow)])
def test_stress_shows_what_margin_calls_take_from_both_books(bare: Bare, bars: int, seeds: int) -> None:
    arguments = ("stress", "--sample", "--futures", "BTC=100,leverage=3x", "--paths", "step-paths=1")
    result = bare(*arguments, "--paths", f"bars={bars!s},seeds={seeds!s}", "--json")
    assert result.code == 0, result.why
    assert set(result.json) == {"futures"}
    futures = result.json["futures"]
    assert not misfits(FuturesStressDocument, futures)
    cases = {case["name"]: case for case in futures["cases"]}
    assert list(cases) == ["calm", "gap-10", "gap-20", "gap-30", "funding-spike", "mark-off-index", "paused", "crash-rally"]
    assert cases["crash-rally"]["agent"]["liquidated_paths"] == 0
    assert Fraction(cases["gap-30"]["held"]["worst_loss"]) > Fraction(cases["gap-10"]["held"]["worst_loss"])
    command_result = bare(*arguments, "--paths", "bars=12,seeds=1")
    for word in ("Futures, 12 bars", "crash-rally", "consecutive bars at most"):
        assert word in command_result.out
