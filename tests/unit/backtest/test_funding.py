"""Funding beside a simulation: by hand arithmetic, without looking ahead, and part of nothing else; mistakes in its file are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.text import mentions, raises_field

pytest.importorskip("polars")

from agent.backtest.data import PriceTable, read_table
from agent.backtest.funding import (
    FundingRateSeries,
    FundingSummary,
    funding_carry,
    funding_digest,
    funding_notes,
    read_funding,
    rename_funding_symbols,
    require_prices,
)
from agent.backtest.result import SimulationResult
from agent.backtest.settings import PRO_RATA, BacktestSpec, OwnerTransfer, SimulatedTokens, make_spec
from agent.backtest.simulate import simulate
from agent.errors import ConfigError
from tests.support.backtests import BAND, COIN, DEEP, HOUR_S, START_S, halves, hourly, random_table
from tests.support.studies.price_files import price_file

CROSSING = [100.0, 100, 130, 130, 104]
"""56.5 % of BTC in bar 2: beyond 55, sold back to a half there."""
DATA = Path(__file__).parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the research data are not beside this checkout: no {DATA}")
FIRST_S = 1_609_459_200
"""2021-01-01, UTC."""


def series(symbol: str, rates: Mapping[float, float]) -> FundingRateSeries:
    """Rates by hours since the first bar."""
    return FundingRateSeries(
        symbol, np.array([START_S + round(HOUR_S * at) for at in rates]), np.array(list(rates.values()), dtype=np.float64)
    )


def run(table: PriceTable, *rates: FundingRateSeries, spec: BacktestSpec | None = None) -> SimulationResult:
    return simulate(spec or halves(), table, DEEP, funding=rates)


def found_in(result: SimulationResult) -> FundingSummary:
    assert result.funding is not None
    return result.funding


def test_the_worked_example_is_what_a_hand_works_out() -> None:
    simulation = run(hourly(BTC=CROSSING), series("BTC", {0.5: 0.001, 1: 0.001, 1.5: 0.0002, 2: -0.001, 4: 0.002}))
    (carry,) = found_in(simulation).carries
    # 50 BTC at 100 are 5,000 until bar 2; there half is sold back, and half of what there is stands at 130. At 104 half is bought back.
    assert [carry.payments[at] for at in range(3)] == [5 * COIN, 5 * COIN, COIN]
    assert float(carry.payments[3]) / COIN == pytest.approx(-0.001 * simulation.equity[2] / 2, rel=1e-6)
    assert float(carry.payments[4]) / COIN == pytest.approx(0.002 * simulation.equity[4] / 2, rel=1e-6)
    assert simulation.equity[2] / 2 == pytest.approx(5_750, rel=1e-3)
    assert carry.notionals[:3] == (5_000 * COIN,) * 3
    # The usual distance is half an hour: so long is the first rate for, and no rate for more than that.
    assert carry.durations_s == (1_800,) * 5
    assert carry.total == found_in(simulation).total == sum(carry.payments)
    assert carry.yearly_rate == pytest.approx(float(carry.total) / float(sum(carry.notionals)) * 365 * 48)


def test_rates_sooner_than_usual__are_for_a_shorter_time() -> None:
    bars_s = np.array([START_S, START_S + 20 * HOUR_S])
    carry = funding_carry(series("BTC", {1: 0.1, 4: 0.1, 8: 0.1, 12: 0.1, 20: 0.1}), bars_s, lambda bar: Fraction(7))
    assert carry.durations_s == (14_400, 10_800, 14_400, 14_400, 14_400)
    assert (
        funding_carry(series("BTC", {1: 0.1}), bars_s, lambda bar: Fraction(7)).yearly_rate is None
    )  # for how long one rate is, nobody said


def test_unheld_asset_and_rates_outside_the_bars__count_zero() -> None:
    table = hourly(BTC=[100.0] * 5, ETH=[10.0] * 5)
    bitcoin = series("BTC", {-8: 0.5, -1: 0.5, 0: 0.001, 1: 0.001, 4.001: 0.5, 9: 0.5})
    funded = run(table, bitcoin, series("ETH", {0: 0.001, 1: 0.001}))
    first, second = found_in(funded).carries
    assert first.payments == (5 * COIN, 5 * COIN)
    assert (second.payments, second.total, second.yearly_rate) == ((0, 0), 0, None)
    assert mentions(funded.notes, "funding", "BTC", "4 rates")
    assert mentions(funded.notes, "funding", "ETH", "not held")


def test_each_payment_is_rounded_down_against_the_holder() -> None:
    bars_s = np.array([START_S, START_S + 9 * HOUR_S])
    paid = funding_carry(series("BTC", {1: 0.001, 2: -0.001}), bars_s, lambda bar: Fraction(19_999, 10))
    assert paid.payments == (1, -2)


def test_decimals_and_a_priced_numeraire__are_counted() -> None:
    table = hourly(WBTC=[100.0] * 3, USDC=[0.5] * 3)  # closes in a third unit: a WBTC is 200 USDC
    spec = make_spec({"WBTC": 5_000, "USDC": 5_000}, BAND, "USDC", tokens=SimulatedTokens(decimals_by_symbol={"WBTC": 8, "USDC": 6}))
    carry, money = found_in(run(table, series("WBTC", {1: 0.01}), series("USDC", {1: 0.01}), spec=spec)).carries
    assert carry.payments == money.payments == (50 * 10**6,)


def test_a_deposit_is_hedged_from_its_bar_on() -> None:
    flows = replace(DEEP, flows=(OwnerTransfer(START_S + 2 * HOUR_S, Fraction(10_000)),), transfer_mode=PRO_RATA)
    simulation = simulate(halves(), hourly(BTC=[100.0] * 4), flows, funding=[series("BTC", {1: 0.001, 1.99: 0.001, 2: 0.001})])
    assert found_in(simulation).carries[0].payments == (5 * COIN, 5 * COIN, 10 * COIN)


def test_funding_changes_nothing_else() -> None:
    table = hourly(BTC=CROSSING[:4])
    bare = run(table)
    beside = run(table, series("BTC", {1: 0.5, 3: -0.5}))
    assert bare.funding is None
    for name in ("final_value", "hold_value", "fees", "balances", "rebalances", "config_hash", "data_hash", "parameters", "twr", "premium"):
        assert getattr(bare, name) == getattr(beside, name), name
    assert np.array_equal(bare.equity, beside.equity)


def test_the_future_changes_no_earlier_payment() -> None:
    table = random_table(3, 14, ("BTC",))
    cut = 7
    rates = series("BTC", {at / 2: 0.0001 * (at % 7 - 3) for at in range(26)})
    closes = np.where(np.arange(table.bar_count)[:, None] > cut, table.closes * 1.7, table.closes)
    later = rates.times_s >= table.times_s[cut + 1]
    other = replace(rates, rates=np.where(later, rates.rates + 0.01, rates.rates))
    (first,), (second,) = (found_in(funded).carries for funded in (run(table, rates), run(replace(table, closes=closes), other)))
    known = int((~later).sum())
    assert known == 2 * (cut + 1)
    assert first.payments[:known] == second.payments[:known]
    assert first.payments[known:] != second.payments[known:]


RATES = st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=8)
WORTH = st.lists(st.fractions(0, 10**24), min_size=3, max_size=3)


@given(RATES, WORTH, WORTH, st.integers(0, 50))
def test_carry_is_linear_in_what_is_held(millionths: list[int], first: list[Fraction], second: list[Fraction], times: int) -> None:
    funding_rate_series = series("BTC", {at / 3: rate / 10**6 for at, rate in enumerate(millionths)})
    bars_s = np.array([START_S + HOUR_S * bar for bar in range(3)])

    def paid(worth: Sequence[Fraction]) -> tuple[int, ...]:
        return funding_carry(funding_rate_series, bars_s, lambda bar: worth[bar]).payments

    both = paid([a + b for a, b in zip(first, second, strict=True)])
    many = paid([times * value for value in first])
    for alone, other, sum_, scaled in zip(paid(first), paid(second), both, many, strict=True):
        assert 0 <= sum_ - alone - other <= 1  # what is rounded down once and not twice
        assert 0 <= scaled - times * alone <= times
    turned = funding_carry(replace(funding_rate_series, rates=-funding_rate_series.rates), bars_s, lambda bar: first[bar]).payments
    assert all(-1 <= there + back <= 0 for there, back in zip(paid(first), turned, strict=True))


def test_sum__is_that_of_assets_and_a_year_is_weighed_by_holding() -> None:
    table = hourly(BTC=[100.0] * 9, ETH=[10.0] * 9)
    spec = make_spec({"BTC": 6_000, "ETH": 2_000, "USD": 2_000}, BAND, "USD")
    funding_summary = found_in(run(table, series("BTC", dict.fromkeys(range(1, 9), 0.001)), series("ETH", {4: 0.002, 8: 0.002}), spec=spec))
    first, second = funding_summary.carries
    assert (first.total, second.total) == (48 * COIN, 8 * COIN)
    assert funding_summary.total == 56 * COIN
    assert (first.mean_notional, second.mean_notional) == (6_000 * COIN, 2_000 * COIN)
    a_year = 365 * 24
    assert (first.yearly_rate, second.yearly_rate) == (pytest.approx(0.001 * a_year), pytest.approx(0.002 * a_year / 4))
    assert funding_summary.yearly_rate == pytest.approx((0.001 * 6 + 0.0005 * 2) / 8 * a_year)


# What is told
@pytest.mark.parametrize(
    ("hours", "rate", "notes"),
    [
        pytest.param(range(20), 0.00001, [], id="complete"),
        pytest.param(range(1, 19), 0.00001, [], id="an hour late and early"),
        pytest.param(range(3, 20), 0.00001, ["starts at 2023-11-15 01:00, after the simulation starts"], id="late start"),
        pytest.param(range(18), 0.00001, ["ends at 2023-11-15 15:00, before the simulation ends"], id="early end"),
        pytest.param(
            (*range(9), 14, *range(15, 20)),
            0.00001,
            ["has 1 interval longer than usual, 6 h from 2023-11-15 06:00 UTC; missing rates are left out, of the yearly carry too"],
            id="a gap",
        ),
        pytest.param(
            (*range(10), 9.5, *range(10, 20)), 0.00001, ["has 2 intervals shorter than usual, at least 30 min"], id="half-hourly rate"
        ),
        pytest.param([at + (at + 1) % 2 / 3_600 for at in range(20)], 0.00001, [], id="seconds off"),  # venues miss the hour by moments
        pytest.param(range(25), 0.00001, ["has 5 rates outside the simulation, ignored"], id="rates after the end"),
        pytest.param(range(20), -0.001, ["has rates of 876 % a year: they may be percent instead of shares"], id="percents"),
    ],
)
def test_what_is_missing_or_strange_is_told(hours: Sequence[float], rate: float, notes: list[str]) -> None:
    bars_s = np.array([START_S + HOUR_S * bar for bar in range(20)])
    assert funding_notes(series("BTC", dict.fromkeys(hours, rate)), bars_s) == [f"funding: BTC {note}" for note in notes]


def test_stand_in_price_and_holdings_without_rates__are_named() -> None:
    table = hourly(BTC=[100.0, 100, float("nan"), 100, 100], ETH=[10.0] * 5)
    spec = make_spec({"BTC": 5_000, "ETH": 2_500, "USD": 2_500}, BAND, "USD")
    notes = run(table, series("BTC", {1: 0.0001, 2: 0.0001, 2.5: 0.0001, 3: 0.0001}), spec=spec).notes
    assert mentions(notes, "funding", "2 times", "BTC")
    assert mentions(notes, "funding", "no rates", "ETH")


# What is refused
@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        (series("DOGE", {1: 0.0001}), "--funding: DOGE has rates but no prices"),
        (series("USD", {1: 0.0001}), "--funding: USD has rates but no prices"),
        (series("BTC", {-9: 0.0001, -1: 0.0001}), "from 2023-11-14 13:00 to 2023-11-14 21:00, are outside the simulation, from"),
        (series("BTC", {5: 0.0001}), "are outside the simulation, from 2023-11-14 22:00 to 2023-11-15 02:00"),
        (series("ETH", {5: 0.0001}), "the rates of ETH, from .*, are outside the simulation"),
    ],
)
def test_rates_without_prices__are_refused_before_any_bar(rates: FundingRateSeries, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.backtest.simulate.SimulationRun.evaluate_next_bar", lambda self: pytest.fail("a bar was looked at"))
    with pytest.raises(ConfigError, match=reason) as refused:
        run(hourly(BTC=CROSSING, ETH=[10.0] * 5), rates)
    assert "rows" in (refused.value.remedy or "")


def test_late_asset__leaves_no_room_for_rates_before_its_start() -> None:
    table = hourly(BTC=[100.0] * 5, ETH=[float("nan"), float("nan"), float("nan"), 10.0, 10.0])
    spec = make_spec({"BTC": 5_000, "ETH": 5_000}, BAND, "USD")
    with raises_field("--funding", "BTC", "2023-11-15 01:00"):
        run(table, series("BTC", {0: 0.0001, 1: 0.0001}), spec=spec)


def test_names__are_the_portfolio_s_and_two_never_become_one() -> None:
    both = (series("BTCUSDT", {1: 0.0001}), series("BTC", {1: 0.0002}))
    assert [funding_rates.symbol for funding_rates in rename_funding_symbols(both, {"BTC": "WBTC", "ETH": "WETH"})] == ["BTCUSDT", "WBTC"]
    require_prices(rename_funding_symbols(both[:1], {"BTCUSDT": "WBTC"}), ["WBTC"], np.array([START_S, START_S + HOUR_S]))
    with pytest.raises(ConfigError, match=r"--as.*the same name"):
        rename_funding_symbols(both, {"BTC": "WBTC", "BTCUSDT": "WBTC"})


# --- Files.


def funding_file(folder: Path, *rows: str, header: str = "time,symbol,rate") -> Path:
    return price_file(folder, *rows, header=header, name="funding.csv")


def test_a_file_says_the_same_as_csv_and_as_parquet(tmp_path: Path) -> None:
    import polars

    path = funding_file(tmp_path, "2021-01-01T00:00:00Z,B,0.0001", "2021-01-01T00:00:00Z,A,-0.0002", "2021-01-01T08:00:00Z,A,1")
    first, second = read_funding(path)
    assert (first.symbol, first.times_s.tolist(), first.rates.tolist()) == ("B", [FIRST_S], [0.0001])
    assert (second.symbol, second.times_s.tolist(), second.rates.tolist()) == ("A", [FIRST_S, FIRST_S + 28_800], [-0.0002, 1.0])
    polars.read_csv(path, try_parse_dates=True).write_parquet(tmp_path / "funding.parquet")
    assert funding_digest(read_funding(tmp_path / "funding.parquet")) == funding_digest((first, second))
    assert funding_digest((first,)) != funding_digest((replace(first, rates=first.rates + 1e-9),))


@pytest.mark.parametrize(
    ("lines", "reason", "remedy"),
    [
        pytest.param(
            ("2021-01-01,A,0.1", "2021-01-01,B,0.1", "2021-01-01,A,0.1"),
            "row 3: 'A' has a repeated time",
            "without duplicates",
            id="repeated time",
        ),
        pytest.param(
            ("2021-01-02,B,0.1", "2021-01-02,A,0.1", "2021-01-01,A,0.1"), "row 3: 'A' has an unordered time", "sort", id="unordered time"
        ),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,A,NaN"), "row 2: 'A' has a rate of nan", "or remove the row", id="NaN"),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,A,inf"), "row 2: 'A' has a rate of inf", "or remove the row", id="infinity"),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,A,-inf"), "row 2: 'A' has a rate of -inf", "or remove the row", id="minus infinity"),
        pytest.param(
            ("2021-01-01,A,0.1", "2021-01-02,A,1.5"),
            "row 2: 'A' has a rate of 1.5, .* looks like percent",
            "0.0001 for 0.01%",
            id="percent",
        ),
        pytest.param(
            ("2021-01-01,A,0.1", "2021-01-02,A,-2"),
            "row 2: 'A' has a rate of -2.0, .* looks like percent",
            "0.0001 for 0.01%",
            id="negative percent",
        ),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,A,"), "row 2: no rate", "remove rows", id="missing rate"),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,,0.1"), "row 2: no symbol", "remove rows", id="missing symbol"),
        pytest.param(("2021-01-01,A,0.1", "2021-01-02,A,0.01%"), "column 'rate' holds no numbers", "plain decimals", id="percent sign"),
        pytest.param(
            ("2021-01-01T00:00:00Z,A,0.1", "2021-01-02T00:00:00+02:00,A,0.1"), "times in several time zones", "UTC", id="several zones"
        ),
        pytest.param(("2021-01-01,A,0.1", "soon,A,0.1"), "row 2: 'soon' is not a time", "write times", id="word as a time"),
        pytest.param(("2021-01-01,A,0.1", ",A,0.1"), "1 row without a time", "", id="missing time"),
        pytest.param(("44197,A,0.1",), "'44197' is not a time: .*spreadsheet", "", id="days of a spreadsheet"),
        pytest.param(("01/02/2021,A,0.1",), "01/02/2021 may be 2021-01-02 or 2021-02-01", "write dates", id="ambiguous date"),
        pytest.param(("2021-01-01,A B,0.1",), "a symbol is not a plain name", "letters, digits", id="symbol with a space"),
        pytest.param((), "--funding: funding.csv ", "", id="no rows"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, lines: tuple[str, ...], reason: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        read_funding(funding_file(tmp_path, *lines))
    assert remedy in (refused.value.remedy or "")


@pytest.mark.parametrize("time_text", ["1609459200", "1609459200000", "1609459200000000", "2021-01-01 00:00", "2021-01-01T01:00:00+01:00"])
def test_times_are_read_as_those_of_price_files(tmp_path: Path, time_text: str) -> None:
    (funding,) = read_funding(funding_file(tmp_path, f"{time_text},A,0.1"))
    assert funding.times_s.tolist() == [FIRST_S]


@pytest.mark.parametrize("column", ["row", "step", "date"])
def test_another_column_of_the_file_is_ignored(tmp_path: Path, column: str) -> None:
    (funding,) = read_funding(funding_file(tmp_path, "2021-01-01,A,0.1,7", header=f"time,symbol,rate,{column}"))
    assert (funding.times_s.tolist(), funding.rates.tolist()) == ([FIRST_S], [0.1])


@pytest.mark.parametrize("head", ["when,symbol,rate", "time,coin,rate", "time,symbol,close"])
def test_a_column_that_lacks_is_named(tmp_path: Path, head: str) -> None:
    with raises_field("--funding", "funding.csv", "columns"):
        read_funding(funding_file(tmp_path, "2021-01-01,A,0.1", header=head))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two columns named 'rate'"):
        read_funding(funding_file(tmp_path, "2021-01-01,A,0.1,0.2", header="time,symbol,rate,rate"))


@needs_data
def test_bitcoin_through_2021__is_hedged_for_a_plain_sum() -> None:
    table = read_table(DATA / "prices" / "daily_2017_2023.parquet")
    bitcoin = next(
        funding_rates for funding_rates in read_funding(DATA / "funding" / "binance_8h.parquet") if funding_rates.symbol == "BTC"
    )
    year = (table.times_s >= FIRST_S) & (table.times_s <= FIRST_S + 365 * 86_400)
    bars_s = table.times_s[year]
    closes = table.closes[year, table.symbols.index("BTC")]
    carry = funding_carry(bitcoin, bars_s, lambda bar: Fraction(str(float(closes[bar]))) * COIN)
    plain = sum(
        float(closes[int(at - FIRST_S) // 86_400]) * rate
        for at, rate in zip(bitcoin.times_s.tolist(), bitcoin.rates.tolist(), strict=True)
        if FIRST_S <= at <= FIRST_S + 365 * 86_400
    )
    assert len(carry.payments) == 365 * 3 + 1
    assert float(carry.total) / COIN == pytest.approx(plain, rel=1e-9)
    assert carry.yearly_rate is not None
    assert 0.25 < carry.yearly_rate < 0.35  # longs paid dearly in 2021
    assert funding_notes(bitcoin, bars_s) == [
        f"funding: BTC has {len(bitcoin.times_s) - 365 * 3 - 1:,} rates outside the simulation, ignored"
    ]
