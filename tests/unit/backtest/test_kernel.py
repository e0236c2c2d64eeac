"""The fast kernel: equal to a plain loop in every market, exact in what it keeps and pays, blind to the future, the same in a sweep."""

import sys
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf, isinf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.amm.v2 import get_amount_out
from agent.backtest.kernel import value_after_costs
from agent.backtest.sweep import KernelPrices, KernelSetting, TradingCosts, prepare_prices, run_kernel, sweep
from agent.errors import ConfigError, Refused
from agent.model import Cron, Destination, Every, HybridTrigger, Threshold, VolatilityJump
from tests.support.backtests import SYMBOLS, VALUE, market, settings_of, spread
from tests.support.samples import examples
from tests.support.text import raises_code, raises_field

EDGE = 1e-12


@dataclass
class Plain:
    """Result of a plain run."""

    values: list[float] = field(default_factory=list)
    rebalanced: list[int] = field(default_factory=list)
    turnover: float = 0.0
    costs: float = 0.0
    hold: float = 0.0


def parts(setting: KernelSetting) -> tuple[Threshold | None, int]:
    """Return band and interval of a trigger."""
    match setting.trigger:
        case HybridTrigger(threshold, Every(every_s)):
            return threshold, every_s
        case Every(every_s):
            return None, every_s
        case Threshold():
            return setting.trigger, 0
    raise AssertionError(setting.trigger)


def width(band: Threshold | None, target: float) -> float:
    """Return half the width of a band, as a share."""
    widths = [] if band is None or band.absolute_bps is None else [band.absolute_bps / 1e4]
    widths += [] if band is None or band.relative_bps is None else [band.relative_bps / 1e4 * target]
    return min(widths, default=0.0)


def left_after(values: list[float], land: list[float], fee: list[float], depth: list[float]) -> float:
    """Return the value left after costs once every asset has its share `land`: by bisection on the proceeds of sales and the cost of
    purchases.
    """

    def surplus(rest: float) -> float:
        surplus = 0.0
        for value, share, cost, side in zip(values, land, fee, depth, strict=True):
            excess = share * rest - value
            if excess < 0:
                net = -excess * (1 - cost)
                surplus += net if isinf(side) else side * net / (side + net)
            elif not isinf(side) and excess >= side:
                return -inf
            else:
                surplus -= (excess if isinf(side) else side * excess / (side - excess)) / (1 - cost)
        return surplus

    low = 0.0
    high = sum(values)
    if all(cost == 0 and isinf(side) for cost, side in zip(fee, depth, strict=True)):
        return high
    for _ in range(120):
        middle = (low + high) / 2
        if surplus(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def plain_result(times: NDArray[np.int64], prices: NDArray[np.float64], setting: KernelSetting) -> Plain:
    """Run one setting bar by bar."""
    bars, count = prices.shape
    band, every_s = parts(setting)
    fee = [bps / 1e4 for bps in setting.costs.fees_bps]
    depth = list(setting.costs.depths)
    units = [0.0] * count
    first = [0.0] * count
    last = [0.0] * count
    begun = False
    due_s = 0
    rested_s = 0
    result = Plain()
    for t in range(bars):
        known = [not np.isnan(price) for price in prices[t]]
        absent = [not here and price > 0 for here, price in zip(known, last, strict=True)]
        last = [float(price) if here else old for here, price, old in zip(known, prices[t], last, strict=True)]
        now = int(times[t])
        waits = any(absent)
        whole = sum(bps for bps, here in zip(setting.targets_bps, known, strict=True) if here)
        if not waits and whole > 0:
            on = [i for i in range(count) if known[i]]
            targets = [setting.targets_bps[i] / whole for i in on]
            if not begun:
                begun = True
                for i, target in zip(on, targets, strict=True):
                    units[i] = first[i] = VALUE * target / last[i]
            values = [units[i] * last[i] for i in on]
            total = sum(values)
            if now >= due_s and total > 0:
                shares = [value / total for value in values]
                low = [max(0.0, target - width(band, target)) for target in targets]
                high = [min(1.0, target + width(band, target)) for target in targets]
                outside = any(not a - EDGE <= share <= b + EDGE for share, a, b in zip(shares, low, high, strict=True))
                fires = band is None or outside
                if not fires or now >= rested_s:
                    due_s = now + every_s
                if fires and now >= rested_s:
                    if setting.destination is Destination.BAND:
                        least = [max(a, 1 - (sum(high) - b)) for a, b in zip(low, high, strict=True)]
                        most = [min(b, 1 - (sum(low) - a)) for a, b in zip(low, high, strict=True)]
                        nearest = [min(max(share, a), b) for share, a, b in zip(shares, least, most, strict=True)]
                        land = spread(shares, least, most)
                    else:
                        part = 1.0 if setting.destination is Destination.TARGET else 0.5
                        land = nearest = [share + part * (target - share) for share, target in zip(shares, targets, strict=True)]
                    largest = max(abs(a - b) for a, b in zip(nearest, shares, strict=True))
                    if largest > EDGE and largest * total >= setting.min_trade:
                        value_after = left_after(values, land, [fee[i] for i in on], [depth[i] for i in on])
                        for i, share, value in zip(on, land, values, strict=True):
                            units[i] = share * value_after / last[i]
                            result.turnover += abs(share * value_after - value) / 2
                        result.costs += total - value_after
                        result.rebalanced.append(t)
                        rested_s = now + setting.cooldown_s
        result.values.append(sum(u * p for u, p in zip(units, last, strict=True)) if begun else VALUE)
    result.hold = sum(u * p for u, p in zip(first, last, strict=True)) if begun else VALUE
    return result


CLOSE = 1e-9
BAND = Threshold(500, None)
DAILY = Every(86_400)
EVEN = KernelSetting((2_500,) * 4, BAND, Destination.TARGET, TradingCosts.for_pools(10, inf, 4))
KINDS = [
    (trigger, destination)
    for trigger, destination in product([BAND, Threshold(None, 2_000), DAILY, HybridTrigger(BAND, DAILY)], list(Destination)[:3])
    if not (trigger is DAILY and destination is Destination.BAND)
]


def table(seed: int, bars: int, assets: int, missing: bool = False) -> KernelPrices:
    times, prices = market(seed, bars, assets, missing)
    return prepare_prices(SYMBOLS[:assets], times, prices)


def assert_equal_to_the_plain_loop(seed: int, setting: KernelSetting, missing: bool) -> int:
    assets = len(setting.targets_bps)
    times, prices = market(seed, 200, assets, missing)
    ours = run_kernel(prepare_prices(SYMBOLS[:assets], times, prices), setting, VALUE)
    theirs = plain_result(times, prices, setting)
    assert ours.rebalance_bars.tolist() == theirs.rebalanced
    assert ours.rebalance_count == len(theirs.rebalanced)
    assert ours.value_by_bar == pytest.approx(theirs.values, rel=CLOSE)
    assert ours.final_value == pytest.approx(theirs.values[-1], rel=CLOSE)
    assert ours.hold_value == pytest.approx(theirs.hold, rel=CLOSE)
    assert ours.turnover == pytest.approx(theirs.turnover, rel=CLOSE, abs=CLOSE * VALUE)
    assert ours.costs == pytest.approx(theirs.costs, rel=CLOSE, abs=CLOSE * VALUE)
    return ours.rebalance_count


@given(st.data(), st.integers(0, 10**6), st.integers(2, 5))
@pytest.mark.slow
def test_every_run_equals_a_plain_loop(data: st.DataObject, seed: int, assets: int) -> None:
    assert_equal_to_the_plain_loop(seed, data.draw(settings_of(assets)), False)


@given(st.data(), st.integers(0, 10**6), st.integers(3, 5))
def test_with_missing_prices_too(data: st.DataObject, seed: int, assets: int) -> None:
    assert_equal_to_the_plain_loop(seed, data.draw(settings_of(assets)), True)


@pytest.mark.parametrize(("trigger", "destination"), KINDS)
@pytest.mark.parametrize(
    "costs",
    [
        TradingCosts.for_pools(10, inf, 4),
        TradingCosts.for_pools(10, inf, 4, numeraire_index=0),
        TradingCosts.for_pools(30, 1e6, 4, numeraire_index=0),
    ],
)
def test_each_trigger_and_destination__equals_a_plain_loop(
    trigger: Threshold | Every | HybridTrigger, destination: Destination, costs: TradingCosts
) -> None:
    setting = replace(EVEN, trigger=trigger, destination=destination, costs=costs)
    assert assert_equal_to_the_plain_loop(3, setting, False) > 2


@examples(20)
@given(st.data(), st.integers(0, 10**6))
def test_what_is_held_is_told_and_is_what_the_values_count(data: st.DataObject, seed: int) -> None:
    times, prices = market(seed, 200, 4)
    setting = data.draw(settings_of(4))
    kernel_result = run_kernel(prepare_prices(SYMBOLS[:4], times, prices), setting, VALUE)
    times_held = np.nonzero(kernel_result.holdings.any(axis=1))[0]
    assert times_held.tolist() == sorted({0, *kernel_result.rebalance_bars.tolist()})
    holding = kernel_result.holdings[np.maximum.accumulate(np.where(kernel_result.holdings.any(axis=1), np.arange(200), 0))]
    assert (holding * prices).sum(axis=1) == pytest.approx(kernel_result.value_by_bar, rel=1e-12)


@given(st.data(), st.integers(0, 10**6), st.integers(3, 5), st.booleans())
def test_costs__are_never_negative_and_without_any_nothing_is_lost(data: st.DataObject, seed: int, assets: int, missing: bool) -> None:
    setting = data.draw(settings_of(assets))
    bars = table(seed, 200, assets, missing)
    assert run_kernel(bars, setting, VALUE).costs >= 0
    free = replace(setting, costs=TradingCosts.for_pools(0, inf, assets))
    kernel_result = run_kernel(bars, free, VALUE)
    assert kernel_result.costs == 0
    never = run_kernel(bars, replace(free, min_trade=1e300), VALUE)
    if kernel_result.rebalance_count:  # the first trade leaves what the holdings of before are worth at its prices
        assert kernel_result.value_by_bar[kernel_result.rebalance_bars[0]] == pytest.approx(
            never.value_by_bar[kernel_result.rebalance_bars[0]], rel=1e-12
        )
    unmoved = prepare_prices(bars.symbols, bars.arrays.times_s, np.tile(np.arange(1.0, assets + 1), (200, 1)))
    assert run_kernel(unmoved, setting, VALUE).value_by_bar == pytest.approx(np.full(200, VALUE), rel=1e-12)


@given(
    st.lists(st.tuples(st.floats(1.0, 1e6), st.floats(0.0, 1.0), st.floats(0.0, 0.05), st.floats(3.0, 9.0)), min_size=2, max_size=6),
)
def test_sales__bring_what_purchases_take_as_the_contract_pays(assets: list[tuple[float, float, float, float]]) -> None:
    values, raw, fee, powers = (np.array(column) for column in zip(*assets, strict=True))
    land = (raw + 0.01) / (raw + 0.01).sum()
    pips = np.round(fee * 1e6)
    depth = 10.0**powers
    value_after = value_after_costs(values, land, pips / 1e6, 1 / depth, values.sum())
    assert 0 < value_after <= values.sum()
    scale = 10**18
    brought = taken = 0
    for value, share, fee_pips, side in zip(values, land, pips, depth, strict=True):
        expected_sale = share * value_after - value
        reserve = int(side * scale)
        if expected_sale < -1e-12:
            brought += get_amount_out(int(-expected_sale * scale), reserve, reserve, int(fee_pips))
        elif expected_sale > 1e-12:
            paid = expected_sale / (1 - expected_sale / side) / (1 - fee_pips / 1e6)
            taken += int(paid * scale)
            assert get_amount_out(int(paid * scale), reserve, reserve, int(fee_pips)) == pytest.approx(
                expected_sale * scale, rel=CLOSE, abs=scale * 1e-6
            )
    assert brought == pytest.approx(taken, rel=1e-7, abs=scale * 1e-6 * len(values))


def test_costs_add_up_to_the_value_that_is_missing() -> None:
    times, prices = market(5, 2, 2)
    prices[0], prices[1] = [1.0, 1.0], [2.0, 1.0]
    kernel_result = run_kernel(
        prepare_prices("AB", times, prices),
        KernelSetting((5_000, 5_000), BAND, Destination.TARGET, TradingCosts.for_pools(100, inf, 2)),
        1_000.0,
    )
    assert kernel_result.final_value + kernel_result.costs == pytest.approx(1_500.0, rel=1e-12)
    # Sells x of 1,000 and gets 0.99 x, of which 0.99 arrive: 1,000 - x = 500 + 0.9801 x.
    sold = 500 / 1.9801
    assert kernel_result.costs == pytest.approx(sold * (1 - 0.9801), rel=1e-12)
    assert kernel_result.turnover == pytest.approx(sold * (1 + 0.9801) / 2, rel=1e-12)
    assert kernel_result.hold_value == 1_500.0


@examples(10)
@given(st.data(), st.integers(0, 10**6), st.integers(1, 3))
def test_a_sweep_is_the_single_runs_on_any_number_of_cores(data: st.DataObject, seed: int, cores: int) -> None:
    bars = table(seed, 150, 3, True)
    some = data.draw(st.lists(settings_of(3), min_size=1, max_size=9))
    marks = [0, 7, 8, 100, 149]
    sweep_result = sweep(bars, some, VALUE, marked_bars=marks, cores=cores)
    for k, setting in enumerate(some):
        kernel_result = run_kernel(bars, setting, VALUE)
        totals = (sweep_result.final_values[k], sweep_result.hold_values[k], sweep_result.turnover[k], sweep_result.costs[k])
        assert (*totals, sweep_result.rebalance_counts[k]) == (
            kernel_result.final_value,
            kernel_result.hold_value,
            kernel_result.turnover,
            kernel_result.costs,
            kernel_result.rebalance_count,
        )
        assert sweep_result.mark_values[k].tolist() == kernel_result.value_by_bar[marks].tolist()


@given(st.data(), st.integers(0, 10**6), st.integers(1, 199), st.booleans())
def test_other_prices_in_the_future_never_change_the_past(data: st.DataObject, seed: int, now: int, missing: bool) -> None:
    setting = data.draw(settings_of(4))
    times, prices = market(seed, 200, 4, missing)
    _, others = market(seed + 1, 200, 4, not missing)
    changed = np.vstack([prices[:now], others[now:]])
    kernel_result = run_kernel(prepare_prices(SYMBOLS[:4], times, prices), setting, VALUE)
    other = run_kernel(prepare_prices(SYMBOLS[:4], times, changed), setting, VALUE)
    assert kernel_result.value_by_bar[:now].tolist() == other.value_by_bar[:now].tolist()
    assert [bar for bar in kernel_result.rebalance_bars if bar < now] == [bar for bar in other.rebalance_bars if bar < now]


def test_delisted_asset__counts_at_its_last_price_and_stops_trade() -> None:
    times, prices = market(11, 400, 4)
    prices[100:, 3] = np.nan
    waits = run_kernel(prepare_prices(SYMBOLS[:4], times, prices), EVEN, VALUE)
    assert waits.rebalance_bars.max() < 100
    units = waits.holdings[waits.rebalance_bars[-1]]
    assert waits.final_value == pytest.approx(units @ [*prices[-1, :3], prices[99, 3]], rel=1e-12)


def test_an_asset_listed_late_is_bought_when_it_has_a_price() -> None:
    times, prices = market(12, 50, 4)
    prices[:20, 0] = np.nan
    kernel_result = run_kernel(prepare_prices(SYMBOLS[:4], times, prices), EVEN, VALUE)
    assert 20 in kernel_result.rebalance_bars
    assert kernel_result.value_by_bar[0] == pytest.approx(VALUE, rel=1e-12)


def test_nothing_is_invested_before_any_wanted_asset_has_a_price() -> None:
    times, prices = market(12, 50, 2)
    prices[:20, 0] = np.nan
    setting = KernelSetting((10_000, 0), BAND, Destination.TARGET, TradingCosts.for_pools(0, inf, 2))
    kernel_result = run_kernel(prepare_prices("AB", times, prices), setting, VALUE)
    assert kernel_result.value_by_bar[:21].tolist() == [VALUE] * 21
    assert kernel_result.final_value == pytest.approx(VALUE * prices[-1, 0] / prices[20, 0])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        (replace(EVEN, targets_bps=(5_000, 5_000)), "targets"),
        (replace(EVEN, targets_bps=(2_500, 2_500, 2_500, 2_501)), "targets"),
        (replace(EVEN, targets_bps=(-1, 2_501, 2_500, 5_000)), "targets"),
        (replace(EVEN, trigger=Threshold(None, None)), "policy.trigger"),
        (replace(EVEN, trigger=Every(60)), "policy.trigger"),
        (replace(EVEN, trigger=HybridTrigger(BAND, Cron("0 9 * * *", "UTC"))), "trigger"),
        (replace(EVEN, trigger=VolatilityJump(21_600, 86_400, 20_000)), "trigger"),
        (replace(EVEN, trigger=DAILY, destination=Destination.BAND), "policy.destination"),
        (replace(EVEN, destination=Destination.ZONE), "policy.destination"),
        (replace(EVEN, cooldown_s=-1), "policy.cooldown"),
        (replace(EVEN, min_trade=float("nan")), "min_trade"),
        (replace(EVEN, costs=TradingCosts.for_pools(10, inf, 3)), "costs"),
        (replace(EVEN, costs=TradingCosts.for_pools(10_000, inf, 4)), "costs.fee_bps"),
        (replace(EVEN, costs=TradingCosts.for_pools(-1, inf, 4)), "costs.fee_bps"),
        (replace(EVEN, costs=TradingCosts.for_pools(10, 0.0, 4)), "costs.depth"),
        (replace(EVEN, costs=TradingCosts.for_pools(10, float("nan"), 4)), "costs.depth"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(setting: KernelSetting, named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{named}"):
        run_kernel(table(1, 10, 4), setting, VALUE)


def test_no_settings_no_value_and_marks_out_of_order_are_named() -> None:
    bars = table(1, 10, 4)
    with raises_field("settings"):
        sweep(bars, [], VALUE)
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"^value"):
            run_kernel(bars, EVEN, value)
    for marks in ([3, 2], [1, 1], [-1], [10]):
        with pytest.raises(ConfigError, match=r"^marks"):
            sweep(bars, [EVEN], VALUE, marked_bars=marks)
    with raises_field("costs.numeraire", "numeraire"):
        TradingCosts.for_pools(10, inf, 4, numeraire_index=4)


def test_without_numba_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agent.backtest.kernel", raising=False)
    monkeypatch.delattr("agent.backtest.kernel", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with raises_code(Refused, "package", "numba") as refused:
        run_kernel(table(1, 10, 4), EVEN, VALUE)
    assert "trimtab[analysis]" in refused.value.remedy
