"""Figures of simulated futures against arithmetic of their own: a few lines of numpy, none of the product's functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from agent.app.research.backtests import USUAL_MARKET, MarketOptions, PortfolioOptions
from agent.app.research.futures_backtests import (
    FuturesBookOptions,
    backtest_futures,
    futures_market,
    prepare_futures_stress,
    stress_futures,
)
from agent.backtest.futures.book import FuturesPath, futures_path
from agent.backtest.futures.simulate import FuturesResult, held_book
from agent.backtest.futures_alone import simulate_book
from agent.model.futures import FuturesTarget
from tests.support.perpetuals.simulated import SETTINGS, random_path
from tests.support.samples import slow
from tests.support.studies.shared_data import DATA, HOURLY, needs_data
from tests.support.text import raises_field

E18 = 10**18
MAINTENANCE = 0.0625
PENALTY = 0.025
FREE = FuturesBookOptions({"BTC": 10_000}, fee_bps=0, slippage_bps=0)


def table_of(path: FuturesPath) -> tuple[np.ndarray, np.ndarray]:
    """Prices, and rates paid, by bar and column."""
    paid = np.zeros((path.bar_count, len(path.symbols)))
    for bar, payments in enumerate(path.payments):
        for payment in payments:
            assert payment.price_bar == bar
            paid[bar, payment.column] += float(payment.rate)
    return np.array([[float(price) for price in row] for row in path.index_prices]), paid


@pytest.mark.parametrize("seed", range(12))
def test_value_leverage_and_liquidation_bar__are_numpy_s(seed: int) -> None:
    """A held book of a long and a short: price + funding − fees up to the first bar whose value is below 6.25 % of the notional."""
    policy = replace(SETTINGS.policy, targets=(FuturesTarget("BTC", 6_000), FuturesTarget("ETH", -4_000)), leverage_bps=38_000)
    path = random_path(seed, 80, 0.05)
    book_result = held_book(path, replace(SETTINGS, policy=policy))
    prices, rates = table_of(path)
    sizes = np.zeros(2)
    cash = 10_000.0
    values = []
    leverages = []
    broken = None
    for bar in range(path.bar_count):
        cash -= float((sizes * prices[bar] * rates[bar]).sum())
        value = cash + float((sizes * prices[bar]).sum())
        gross = float((np.abs(sizes) * prices[bar]).sum())
        if value < MAINTENANCE * gross:
            broken = bar
            break
        for fill in (fill for fill in book_result.fills if fill.bar == bar):
            column = path.symbols.index(fill.symbol)
            size = fill.size_raw / E18
            price = prices[bar, column] * (1.001 if size > 0 else 0.999)
            sizes[column] += size
            cash -= size * price + abs(size) * price * 0.001
        value = cash + float((sizes * prices[bar]).sum())
        gross = float((np.abs(sizes) * prices[bar]).sum())
        values.append(value)
        leverages.append(gross / value)
    assert book_result.fills
    assert {fill.bar for fill in book_result.fills} == {1}
    assert book_result.equity[: len(values)] == pytest.approx(np.array(values), abs=1e-6)
    assert book_result.leverage[: len(values)] == pytest.approx(np.array(leverages), rel=1e-9)
    assert book_result.leverage[: len(values)].max() == pytest.approx(max(leverages), rel=1e-9)
    assert (book_result.liquidations[0].bar if book_result.liquidations else None) == broken


def test_the_seeds_above_have_liquidations_and_none() -> None:
    policy = replace(SETTINGS.policy, targets=(FuturesTarget("BTC", 6_000), FuturesTarget("ETH", -4_000)), leverage_bps=38_000)
    liquidated = [bool(held_book(random_path(seed, 80, 0.05), replace(SETTINGS, policy=policy)).liquidations) for seed in range(12)]
    assert any(liquidated)
    assert not all(liquidated)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """BTC at 100 for twelve days."""
    file = tmp_path / "prices.csv"
    file.write_text("time,BTC\n" + "".join(f"2021-01-{day:02},100\n" for day in range(1, 13)))
    return file


def test_the_margin_call_stress_is_what_a_hand_works_out(flat: Path) -> None:
    """30,000 of BTC held on 10,000, without fees.

    gap-30: value 10,000 − 9,000 = 1,000 is below 6.25 % of 21,000 (1,312.50) and above half of it, so half of the notional, 10,500, is
    closed at a penalty of 2.5 %, 262.50. 737.50 are left on 10,500, above 656.25.
    funding-spike: 3 % a day of 30,000 on four days. paused: 20 % of 30,000, of which nothing could be liquidated before it was over.
    """
    options = replace(FREE, leverage_bps=30_000)
    spec = prepare_futures_stress(flat, options, USUAL_MARKET, PortfolioOptions(), bar_count=12, path_count=1, seed_count=1)
    cases = {case["name"]: case["held"] for case in stress_futures(spec)["cases"]}
    by_hand = {
        "calm": 0.0,
        "gap-10": 0.1 * 3,
        "gap-20": 0.2 * 3,
        "gap-30": (9_000 + 10_500 * PENALTY) / 10_000,
        "funding-spike": 4 * 0.03 * 3,
        "mark-off-index": 0.0,
        "paused": 0.2 * 3,
    }
    assert {name: float(cases[name]["worst_loss"]) for name in by_hand} == pytest.approx(by_hand, abs=1e-6)
    assert [name for name in by_hand if cases[name]["liquidated_paths"]] == ["gap-30"]


@pytest.mark.parametrize(
    "portfolio_options", [PortfolioOptions(), PortfolioOptions(target_bps_by_symbol={"BTC": 10_000})], ids=["alone", "beside a portfolio"]
)
def test_stress_of_a_book_has_no_spot_for_a_multiple(flat: Path, portfolio_options: PortfolioOptions) -> None:
    """A book of a stress test is alone, so a multiple of its spot would close it, and its losses were zero."""
    options = replace(FREE, spot_multiple_bps=20_000)
    with raises_field("--futures", "spot-multiple", "no spot portfolio") as caught:
        prepare_futures_stress(flat, options, USUAL_MARKET, portfolio_options, bar_count=12, path_count=1, seed_count=1)
    assert "--target" not in caught.value.remedy


@pytest.mark.parametrize(
    ("fall", "closed", "margin_left"),
    [
        pytest.param(0.28, None, 10_000 - 8_400, id="no liquidation"),
        pytest.param(0.29, 21_300 / 2, 10_000 - 8_700 - 21_300 / 2 * PENALTY, id="half closed"),
        pytest.param(0.32, 20_400, 10_000 - 9_600 - 20_400 * PENALTY, id="all closed"),
    ],
)
def test_a_liquidation_takes_what_the_venue_s_rule_says(tmp_path: Path, fall: float, closed: float | None, margin_left: float) -> None:
    """6.25 % of 21,600 is 1,350 < 1,600: none. Of 21,300 it is 1,331.25 > 1,300: half. Half of 1,275 is 637.50 > 400: all, and the
    insurance fund bears 110.
    """
    file = tmp_path / "prices.csv"
    closes = [100, 100, 100, 100 * (1 - fall)]
    file.write_text("time,BTC\n" + "".join(f"2021-01-{day:02},{close:.6f}\n" for day, close in enumerate(closes, 1)))
    options = replace(FREE, leverage_bps=30_000)
    result = backtest_futures(file, options, MarketOptions(), PortfolioOptions())
    assert isinstance(result, FuturesResult)
    held_book = result.held_book
    assert [liquidation.bar for liquidation in held_book.liquidations] == ([] if closed is None else [3])
    if closed is not None:
        assert abs(held_book.liquidations[0].size_raw) / E18 == pytest.approx(closed / (100 * (1 - fall)), rel=1e-9)
    assert held_book.final_value_raw / E18 == pytest.approx(max(0.0, margin_left), abs=1e-6)
    assert held_book.profit.insured_raw / E18 == pytest.approx(max(0.0, -margin_left), abs=1e-6)


def _hourly(symbol: str, read: Callable[[Path], object]) -> tuple[np.ndarray, np.ndarray]:
    frame = read(HOURLY).filter(symbol=symbol).sort("time")  # type: ignore[attr-defined]
    return frame["time"].dt.epoch("s").to_numpy(), frame["close"].to_numpy()


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("weight", [1, -1])
def test_two_recorded_years_of_funding_are_what_numpy_works_out(weight: int) -> None:
    """A position of BTC at 0.5x, held: profit = price + funding − fees, its largest leverage, and no liquidation."""
    pl = pytest.importorskip("polars")
    times, closes = _hourly("BTC", pl.read_parquet)
    rates = pl.read_parquet(DATA / "funding" / "binance_8h.parquet").filter(symbol="BTC").sort("time")
    paid_at = rates["time"].dt.epoch("s").to_numpy()
    rate = rates["rate"].to_numpy()
    options = FuturesBookOptions({"BTC": weight * 10_000}, leverage_bps=5_000, max_leverage_bps=100_000, stress_move_bps=100)
    table, funded = futures_market(options, *PortfolioOptions().load_prices_and_funding(HOURLY, DATA / "funding" / "binance_8h.parquet"))
    book = held_book(futures_path(table, funded), options.settings(table.interval_s, USUAL_MARKET))
    (fill,) = book.fills
    assert fill.time_s == times[1]
    size = fill.size_raw / E18
    price = closes[1] * (1 + weight * 0.001)
    assert size == pytest.approx(weight * 5_000 / closes[0], abs=0.001)
    inside = (paid_at > times[1]) & (paid_at <= times[-1])
    newest = np.searchsorted(times, paid_at[inside], side="right") - 1
    payments = size * closes[newest] * rate[inside]
    bars = np.searchsorted(times, paid_at[inside], side="left")
    funding = np.cumsum(np.bincount(bars, weights=payments, minlength=len(times)))
    equity = 10_000 + size * (closes - price) - abs(size) * price * 0.001 - funding
    assert book.equity[1:] == pytest.approx(equity[1:], abs=1e-5)
    assert book.profit.funding_raw / E18 == pytest.approx(funding[-1], abs=1e-5)
    assert book.leverage[1:].max() == pytest.approx((abs(size) * closes / equity)[1:].max(), rel=1e-9)
    assert not book.liquidations
    assert funding[-1] * weight > 0, "longs paid over these years"


@pytest.mark.parametrize("seeds", [1, *slow([4])])
def test_profit_by_source_adds_up_to_the_base_unit(seeds: int) -> None:
    for seed in range(seeds):
        book = simulate_book(random_path(seed, 80, 0.05), SETTINGS).agent_book
        parts = book.profit
        total = parts.price_gain_raw - parts.slippage_raw - parts.funding_raw - parts.fees_raw - parts.penalties_raw + parts.insured_raw
        assert book.final_value_raw == 10_000 * E18 + total
        assert Fraction(total) == parts.total_raw
