"""Closes that are probably wrong are found, and crashes, spikes and quiet prices are not taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("polars")

from agent.app.records.price_checks import JumpCheck
from agent.app.records.price_history import PriceFile, read_prices
from agent.app.research.backtests import sample_files
from agent.backtest.data import read_table
from agent.errors import ConfigError
from agent.model import PricePoint
from agent.price_files.jumps import find_jumps
from agent.wiring.past_prices import FetchedPrices, without_jumps
from tests.support.builders import step_input, unit_price
from tests.support.constants import HOUR_S
from tests.support.studies.price_walks import walk
from tests.support.text import mentions
from tests.support.tokens import USDC, WBTC

START_S = 1_760_000_400
PORTFOLIO = step_input(targets_bps={"WETH": 5_000, "WBTC": 3_000, "USDC": 2_000}).portfolio


def places(prices: Sequence[float]) -> list[tuple[int, int, bool]]:
    return [(jump.start, jump.end, jump.is_edge) for jump in find_jumps(prices)]


@pytest.mark.parametrize(
    ("factor", "count"),
    [*((factor, 1) for factor in (100, 10, 2, 1 / 2, 1 / 10, 1 / 100, 1 / 30_000)), *product((100, 1 / 100, 4), (2, 3))],
)
def test_wrong_closes__are_one_jump_wherever_they_stand(factor: float, count: int) -> None:
    for seed in range(20):
        prices = walk(seed)
        index = (2 if count == 1 else 4) + 5 * seed
        prices[index : index + count] = [price * factor for price in prices[index : index + count]]
        assert places(prices) == [(index, index + count, False)]


@pytest.mark.parametrize(("factor", "is_jump"), [(1.31, True), (1.29, False), (1 / 1.31, True), (1 / 1.29, False)])
def test_of_quiet_prices__a_jump_begins_at_thirty_per_cent(factor: float, is_jump: bool) -> None:
    prices = [100 + index % 3 / 10 for index in range(60)]
    prices[30] *= factor
    assert places(prices) == ([(30, 31, False)] if is_jump else [])


@pytest.mark.parametrize("factor", [100, 1 / 100, 3, 1 / 30_000])
def test_a_wrong_first_or_last_close_is_an_edge(factor: float) -> None:
    for seed in range(20):
        first = walk(seed)
        last = walk(seed)
        first[0] *= factor
        last[-1] *= factor
        assert places(first) == [(0, 1, True)]
        assert places(last) == [(119, 120, True)]


@pytest.mark.parametrize(
    ("closes", "edges"), [([10_000, 100, 100, 100], [(0, 1, True)]), ([100, 222, 447], [])], ids=["two calm returns", "a return alone"]
)
def test_wrong_first_close__shows_beside_two_calm_returns(closes: list[float], edges: list[tuple[int, int, bool]]) -> None:
    assert places(closes) == edges


@pytest.mark.parametrize(("factor", "is_jump"), [(5.3, True), (4.7, False), (1 / 5.3, True), (1 / 4.7, False)])
def test_two_wrong_closes_at_an_end__are_an_edge_from_factor_five(factor: float, is_jump: bool) -> None:
    prices = [100 + index % 3 / 10 for index in range(60)]
    first = [price * factor if index < 2 else price for index, price in enumerate(prices)]
    last = [price * factor if index >= 58 else price for index, price in enumerate(prices)]
    assert places(first) == ([(0, 2, True)] if is_jump else [])
    assert places(last) == ([(58, 60, True)] if is_jump else [])


def test_several_wrong_closes_are_all_found() -> None:
    prices = walk(3)
    for index in (0, 17, 60, 119):
        prices[index] *= 50
    assert [start for start, _, _ in places(prices)] == [0, 17, 60, 119]


CALM = [100.0, 101.0, 99.0, 102.0, 100.5] * 6


@pytest.mark.parametrize(
    "prices",
    [
        pytest.param([*CALM, 64.0, 32.0, 17.0, 1.1, 0.01, 0.0001, 0.0002, 0.00018, 0.00016, 0.0002, 0.0002], id="a crash to nothing"),
        pytest.param([*CALM, 40.0, 41.0, 39.5, 42.0, 40.0], id="a crash in one bar that lasts"),
        pytest.param([*CALM, 55.0, 72.0, 70.0, 74.0, 71.0, 75.0], id="a crash that half returns"),
        pytest.param([*CALM, 140.0, 180.0, 190.0, 170.0, 150.0, 130.0, 110.0, 100.0, 101.0], id="a rise and fall over bars"),
        pytest.param([*CALM, 205.0, 145.0, 125.0, 118.0, 110.0, 104.0, 101.0], id="a rise in one bar that is lost over bars"),
        pytest.param([*CALM, 50.0, 69.0, 80.0, 86.0, 92.0, 97.0, 100.0], id="a fall in one bar that is made up over bars"),
        pytest.param([*CALM, 210.0, 215.0, 208.0, 220.0, 219.0], id="a price that doubles and stays"),
        pytest.param([*CALM, 124.0, 100.0, 101.0, 99.0], id="a spike below the floor"),
        pytest.param([1.0] * 30, id="a constant"),
        pytest.param([1.0, 1.001] * 15, id="a stable coin"),
        pytest.param([5.0], id="one price"),
        pytest.param([5.0, 500.0], id="two prices, of which either may be wrong"),
    ],
)
def test_what_is_real_is_no_jump(prices: list[float]) -> None:
    assert places(prices) == []


@pytest.mark.parametrize("volatility", [0.0005, 0.01, 0.04, 0.09])
def test_no_walk_has_a_jump(volatility: float) -> None:
    assert not [seed for seed in range(100) if find_jumps(walk(seed, volatility=volatility))]


def test_the_prices_of_2021_have_no_jump() -> None:
    table = read_table(sample_files()[0])
    assert table.bar_count == 365
    assert not [symbol for column, symbol in enumerate(table.symbols) if find_jumps(table.closes[:, column].tolist())]


def imported(folder: Path, prices: Sequence[float], check: JumpCheck | None = None) -> PriceFile:
    return imported_rows(folder, [f"{index * HOUR_S + START_S},WBTC,{price:.10f}" for index, price in enumerate(prices)], check)


def imported_rows(folder: Path, rows: Sequence[str], check: JumpCheck | None = None) -> PriceFile:
    path = folder / "closes.csv"
    path.write_text("\n".join(["time,symbol,close", *rows]) + "\n")
    return read_prices(path, PORTFOLIO, {}, None, START_S + 10**7, check)


def test_import__refuses_a_wrong_close_with_row_and_neighbours(tmp_path: Path) -> None:
    prices = walk(1)
    before = prices[59]
    after = prices[61]
    for wrong in (prices[60] * 100, 1.0, prices[60] / 1_000):
        prices[60] = wrong
        with pytest.raises(ConfigError) as caught:
            imported(tmp_path, prices)
        assert f"closes.csv, row 61: WBTC is {wrong:.10f}, after {before:.10f} and before {after:.10f}" in caught.value.message
        assert "--accept-jumps" in caught.value.remedy
        accepted = imported(tmp_path, prices, JumpCheck(accepts_jumps=True))
        assert len(accepted.series[0].points) == 120
        assert [remark.text.split(":")[0] for remark in accepted.remarks] == ["accepted"]


@pytest.mark.parametrize("wrong", [0.0, -30_000.0])
def test_close_of_zero_or_less__is_refused_even_with_jumps(wrong: float, tmp_path: Path) -> None:
    prices = walk(1)
    prices[60] = wrong
    with pytest.raises(ConfigError, match=r"row 61, .* UTC: .* is not a price of WBTC"):
        imported(tmp_path, prices, JumpCheck(accepts_jumps=True))


def test_a_wrong_close_of_the_numeraire_is_refused_too(tmp_path: Path) -> None:
    rows = [f"{START_S + index * HOUR_S},{symbol},{price}" for index in range(40) for symbol, price in (
        ("WBTC", 30_000 + index), ("USDC", 100 if index == 20 else 1))]  # fmt: skip
    with pytest.raises(ConfigError, match="row 42: USDC is 100, after 1 and before 1"):
        imported_rows(tmp_path, rows)


def check_against(price: float, age_s: int = HOUR_S, *, accepts: bool = False) -> JumpCheck:
    last_s = START_S + 119 * HOUR_S
    return JumpCheck({WBTC.address: unit_price(WBTC, str(price), USDC)}, last_s + age_s, accepts)


@pytest.mark.parametrize("factor", [100, 1.5, 0.6, 0.001])
def test_the_last_close_is_compared_with_todays_reference(factor: float, tmp_path: Path) -> None:
    prices = walk(2)
    with pytest.raises(ConfigError, match=r"the last close of WBTC is .*, today's reference price") as caught:
        imported(tmp_path, prices, check_against(prices[-1] * factor))
    assert "--accept-jumps" in caught.value.remedy
    assert "accepted" in imported(tmp_path, prices, check_against(prices[-1] * factor, accepts=True)).remarks[-1].text
    assert not imported(tmp_path, prices, check_against(prices[-1] * 1.1)).remarks


def test_last_close__is_confirmed_by_today_s_reference(tmp_path: Path) -> None:
    crashed = [*walk(2)[:-1], 300.0]
    with pytest.raises(ConfigError, match="no other close confirms it"):
        imported(tmp_path, crashed)
    assert imported(tmp_path, crashed, check_against(290.0)).series[0].points[-1].price == unit_price(WBTC, "300", USDC)
    with pytest.raises(ConfigError, match="row 120"):
        imported(tmp_path, crashed, check_against(290.0, 10 * 86_400))


def test_a_last_close_that_is_not_compared_is_said(tmp_path: Path) -> None:
    prices = walk(2)
    assert "more than 3 days old" in imported(tmp_path, prices, check_against(1.0, 10 * 86_400)).remarks[0].text
    assert "today's is not known" in imported(tmp_path, prices, JumpCheck({}, START_S)).remarks[0].text


def check_recorded(prices: Sequence[float], factor: float, *, accepts: bool = False) -> JumpCheck:
    """The first ten closes are recorded, the fourth by another factor than the others."""
    recorded = {
        (WBTC.address, START_S // HOUR_S + index): unit_price(WBTC, f"{price * (factor if index == 3 else 1):.10f}", USDC)
        for index, price in enumerate(prices[:10])
    }
    return JumpCheck(accepts_jumps=accepts, recorded_prices=recorded)


@pytest.mark.parametrize("factor", [1.01, 0.99, 1.29])
def test_import__close_near_the_recorded_one__is_named(factor: float, tmp_path: Path) -> None:
    prices = walk(2)
    assert not imported(tmp_path, prices, check_recorded(prices, 1)).remarks
    (remark,) = imported(tmp_path, prices, check_recorded(prices, factor)).remarks
    assert remark.text == (
        f"WBTC differs from recorded prices in 1 hour, at 2025-10-09 12:00:00 UTC: {prices[3]:.6g} in the file,"
        f" {prices[3] * factor:.6g} USDC recorded, which stays"
    )


@pytest.mark.parametrize("factor", [1.31, 0.7, 100])
def test_import__close_far_from_the_recorded_one__is_refused(factor: float, tmp_path: Path) -> None:
    prices = walk(2)
    with pytest.raises(ConfigError) as caught:
        imported(tmp_path, prices, check_recorded(prices, factor))
    assert f"in 1 hour, at 2025-10-09 12:00:00 UTC: {prices[3]:.6g} in the file" in caught.value.message
    assert mentions(caught.value.remedy, "trimtab prices forget import", "--accept-jumps")
    (remark,) = imported(tmp_path, prices, check_recorded(prices, factor, accepts=True)).remarks
    assert remark.text.startswith("accepted: WBTC differs")


def test_import__several_other_closes__are_one_remark(tmp_path: Path) -> None:
    prices = walk(2)
    check = check_recorded([price * 1.01 for price in prices], 1.1)
    (remark,) = imported(tmp_path, prices, check).remarks
    assert mentions(remark.text, "in 10 hours, the most at 2025-10-09 12:00:00 UTC")


def test_fetched_prices_that_jump_and_come_back_are_left_out() -> None:
    prices = walk(5, 48)
    for index, factor in ((10, 100), (20, 0.01), (30, 0.4)):
        prices[index] *= factor
    prices[-1] *= 5  # the newest answer of the chain stays: nothing later contradicts it
    points = tuple(PricePoint(WBTC.address, START_S + index * HOUR_S, Fraction(price)) for index, price in enumerate(prices))
    checked_prices = without_jumps(FetchedPrices(WBTC, "feed", points, "the feed has no older rounds"))
    assert checked_prices.points == tuple(point for index, point in enumerate(points) if index not in (10, 20, 30))
    assert mentions(checked_prices.missing_reason, "the feed has no older rounds", "3 prices left out after a jump that comes back")
    calm = FetchedPrices(WBTC, "feed", checked_prices.points)
    assert without_jumps(calm) is calm
