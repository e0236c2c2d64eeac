"""The fast kernel against the live step with its real planner, router and pools of integers: the same trades, the same worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.backtest.data import prices_in_numeraire
from agent.backtest.settings import PERMISSIVE_LIMITS, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.stress.work import kernel_setting_or_reason
from agent.backtest.sweep import prepare_prices, run_kernel
from agent.model import Destination, Every, HybridTrigger, Threshold, Trigger
from tests.support.backtests import COIN, DEEP, HOUR_S, random_table

CLOSE = 1e-5
VALUE = 10_000.0
TARGETS = {"BTC": 4_000, "ETH": 3_000, "USD": 3_000}
PAIR = {"BTC": 5_000, "USD": 5_000}
"""Of two assets one edge is the other's: with more, a planner may choose among points of a band that cost the same."""
DUST = replace(PERMISSIVE_LIMITS, min_trade=Fraction(COIN, 100))
"""What is bought at the start is off its target by base units: a schedule would trade those at the next bar."""


def assert_the_same(
    seed: int, trigger: Trigger, destination: Destination, targets: Mapping[str, int] = TARGETS, bars: int = 14, **market: object
) -> int:
    """Bars traded at, worth at every bar, and costs, of both; gives how many trades there were."""
    table = random_table(seed, bars, [symbol for symbol in targets if symbol != "USD"], volatility=0.08)
    spec = replace(make_spec(targets, trigger, "USD", destination=destination), limits=DUST)
    deep_settings = replace(DEEP, **{"depth": Fraction(10**7), **market})  # type: ignore[arg-type]  # field names, checked by replace
    setting = kernel_setting_or_reason(spec, deep_settings)
    assert not isinstance(setting, str)
    prices = prices_in_numeraire(spec, table, table.closes, [asset.token for asset in spec.portfolio.assets])
    ours = run_kernel(prepare_prices(tuple(targets), table.times_s, prices), setting, VALUE)
    step = simulate(spec, table, deep_settings)
    assert ours.rebalance_bars.tolist() == [rebalance.bar for rebalance in step.rebalances]
    assert ours.value_by_bar == pytest.approx(step.equity, rel=CLOSE)
    assert ours.final_value == pytest.approx(float(step.final_value) / COIN, rel=CLOSE)
    assert ours.hold_value == pytest.approx(float(step.hold_value) / COIN, rel=CLOSE)
    assert ours.costs == pytest.approx(float(step.fees + step.impact) / COIN, rel=1e-2, abs=CLOSE * VALUE)
    return ours.rebalance_count


@pytest.mark.parametrize(
    ("trigger", "destination", "targets", "least"),
    [
        pytest.param(Threshold(500, None), Destination.TARGET, TARGETS, 2, id="absolute band"),
        pytest.param(Threshold(None, 1_500), Destination.HALFWAY, TARGETS, 2, id="halfway"),
        pytest.param(Threshold(500, None), Destination.BAND, PAIR, 2, id="to the band"),
        pytest.param(Every(4 * HOUR_S), Destination.TARGET, TARGETS, 3, id="every four hours"),
        pytest.param(HybridTrigger(Threshold(300, None), Every(3 * HOUR_S)), Destination.TARGET, TARGETS, 2, id="hybrid"),
    ],
)
def test_every_kind_of_policy_ends_where_the_live_step_does(
    trigger: Trigger, destination: Destination, targets: Mapping[str, int], least: int
) -> None:
    assert assert_the_same(11, trigger, destination, targets) >= least


@settings(max_examples=3, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    trigger=st.sampled_from([Threshold(400, None), Threshold(None, 1_000), Every(6 * HOUR_S)]),
    depth=st.sampled_from([10**6, 10**9]),
    fee_pips=st.sampled_from([500, 3_000]),
    pool=st.sampled_from(["v2", "v3"]),
)
def test_in_any_market_within_a_hundred_thousandth(seed: int, trigger: Trigger, depth: int, fee_pips: int, pool: str) -> None:
    assert_the_same(seed, trigger, Destination.TARGET, bars=10, depth=Fraction(depth), fee_pips=fee_pips, pool_kind=pool)


def test_schedule_of_whole_bars__is_kept_to_the_bar() -> None:
    table = random_table(3, 13, ["BTC"])
    spec = replace(make_spec({"BTC": 5_000, "USD": 5_000}, Every(4 * HOUR_S), "USD"), limits=DUST)
    assert [rebalance.bar for rebalance in simulate(spec, table, DEEP).rebalances] == [4, 8, 12]
    assert np.diff(table.times_s).max() == HOUR_S
