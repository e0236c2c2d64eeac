"""The tracking rule in the compiled kernel: the best plan, the trades of the live step, and what a run loses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.backtest.data import PriceTable, prices_in_numeraire
from agent.backtest.kernel import ExchangeCosts, SweepResult, set_rule_shares
from agent.backtest.settings import BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.sweep import KernelSetting, prepare_prices, run_kernel, simulated_costs, sweep
from agent.backtest.tune.kernel_rule import is_rule_supported, kernel_rule
from agent.backtest.tune.loss import RISK_AVERSION, active_variance, balanced_growth, step_losses
from agent.errors import ConfigError
from agent.model import Destination, NoTradeZone, RiskEstimationWindow, Threshold, TrackingRisk
from agent.policy.triggers.no_trade_zone import build_tracking
from tests.support.backtests import DAY_S, SYMBOLS, VALUE, daily, market, settings_of
from tests.support.samples import examples

TARGETS = {"BTC": 3_000, "ETH": 2_500, "LINK": 1_500, "USD": 3_000}


def days(bars: int, seed: int = 1) -> PriceTable:
    """Days of correlated walks."""
    common, own = np.random.default_rng(seed).normal(0, 0.03, (2, bars, 3))
    closes = np.round(100 * np.exp(np.cumsum(common[:, :1] + own * [0.7, 0.9, 1.2], axis=0)), 6)
    return daily({symbol: closes[:, column].tolist() for column, symbol in enumerate(("BTC", "ETH", "LINK"))})


def rule_spec(table: PriceTable, strictness: str = "normal", targets: dict[str, int] = TARGETS) -> BacktestSpec:
    trigger = build_tracking(strictness)
    return make_spec(targets, trigger, "USD", destination=Destination.ZONE, interval_s=table.interval_s)


def rule_setting(spec: BacktestSpec, settings: SimulationSettings) -> KernelSetting:
    costs = simulated_costs(spec, settings)
    trigger = spec.policy.trigger
    assert isinstance(trigger, NoTradeZone)
    targets = tuple(asset.target_bps for asset in spec.portfolio.assets)
    return KernelSetting(targets, trigger, Destination.ZONE, costs, rule=kernel_rule(spec, trigger, costs))


def swept(spec: BacktestSpec, table: PriceTable, settings: SimulationSettings) -> tuple[SweepResult, NDArray[np.float64]]:
    """The rule in the kernel, and its squared active returns until each bar."""
    tokens = [asset.token for asset in spec.portfolio.assets]
    prices = prepare_prices([token.symbol for token in tokens], table.times_s, prices_in_numeraire(spec, table, table.closes, tokens))
    setting = rule_setting(spec, settings)
    sweep_result = sweep(prices, [setting], float(settings.start_value), marked_bars=range(table.bar_count), cores=1)
    targets = np.array(setting.targets_bps) / 10_000
    balanced = balanced_growth(prices.arrays.quote_prices, targets)
    return sweep_result, active_variance(balanced, sweep_result.mark_values[0], sweep_result.cost_shares[0])


@pytest.mark.parametrize(
    ("strictness", "fee_pips", "depth"),
    [
        pytest.param("normal", 500, 10**9, id="normal"),
        pytest.param("strict", 3_000, 10**6, id="strict in shallow pools"),
        pytest.param("relaxed", 3_000, 10**9, id="relaxed"),
    ],
)
def test_the_kernel_loses_what_the_live_step_loses(strictness: str, fee_pips: int, depth: int) -> None:
    table = days(90)
    spec = rule_spec(table, strictness)
    settings = SimulationSettings(Fraction(depth), fee_pips, Fraction(50_000))
    step = simulate(spec, table, settings)
    cost_shares, square_sums = step_losses(spec, step)
    kernel, kernel_sums = swept(spec, table, settings)
    assert kernel.rebalance_counts[0] == sum(rebalance.succeeded for rebalance in step.rebalances)
    assert kernel.rebalance_counts[0] >= 5
    assert kernel.mark_values[0] == pytest.approx(step.equity, rel=1e-3)
    loss = cost_shares[-1] + RISK_AVERSION / 2 * square_sums[-1]
    assert kernel.cost_shares[0, -1] + RISK_AVERSION / 2 * kernel_sums[-1] == pytest.approx(loss, rel=0.01)
    assert kernel.cost_shares[0] == pytest.approx(cost_shares, rel=0.02, abs=1e-6)
    assert kernel_sums[1:] == pytest.approx(square_sums[1:], rel=0.02)


def drawn_plan(data: st.DataObject) -> tuple[NDArray[np.float64], ...]:
    """Shares, targets, Q, fees and impacts of three assets and the numeraire."""
    chance = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    factors = chance.normal(0, 0.1, (4, 4))
    factors[3] = 0.0
    shares, targets = chance.dirichlet(np.ones(4), 2)
    return shares, targets, factors @ factors.T, np.append(chance.uniform(0, 0.003, 3), 0.0), np.append(chance.uniform(0, 0.01, 3), 0.0)


@given(st.data())
def test_no_other_amount_saves_more_after_its_cost(data: st.DataObject) -> None:
    shares, targets, risk, fees, impacts = drawn_plan(data)
    end_shares = np.zeros(4)
    largest = set_rule_shares(shares, targets, np.ones(4, dtype=bool), risk - risk[3], 3, ExchangeCosts(fees, impacts), end_shares)
    assert largest == pytest.approx(np.abs(end_shares - shares).max())
    assert end_shares.sum() == pytest.approx(1.0)
    assert end_shares.min() >= -1e-12

    def loss(ends: NDArray[np.float64]) -> float:
        deviation = ends - targets
        amounts = np.abs(ends - shares)
        return float(deviation @ risk @ deviation / 2 + fees @ amounts + impacts @ amounts**2)

    for asset in range(3):
        for amount in (-1e-3, -1e-5, 1e-5, 1e-3):
            other = end_shares.copy()
            other[asset] -= amount
            other[3] += amount
            if other.min() >= 0:
                assert loss(end_shares) <= loss(other) + 1e-11


def test_assets_without_a_price_stay() -> None:
    shares = np.array([0.5, 0.2, 0.3])
    end_shares = np.zeros(3)
    risk = np.diag([1.0, 1.0, 0.0])
    free = np.zeros(3)
    targets = np.array([0.3, 0.4, 0.3])
    assert set_rule_shares(
        shares, targets, np.array([True, False, True]), risk - risk[2], 2, ExchangeCosts(free, free), end_shares
    ) == pytest.approx(0.2)
    assert end_shares.tolist() == pytest.approx([0.3, 0.2, 0.5])
    assert set_rule_shares(shares, targets, np.array([True, True, False]), risk - risk[2], 2, ExchangeCosts(free, free), end_shares) == 0.0


@examples(30)
@given(st.data(), st.integers(0, 10**6))
def test_losses__are_costs_and_active_returns_of_holdings(data: st.DataObject, seed: int) -> None:
    times, prices = market(seed, 120, 4)
    setting = data.draw(settings_of(4))
    bars = prepare_prices(SYMBOLS[:4], times, prices)
    run = run_kernel(bars, setting, VALUE)
    sweep_result = sweep(bars, [setting], VALUE, marked_bars=range(120), cores=1)
    targets = np.array(setting.targets_bps) / 10_000
    balanced = balanced_growth(bars.arrays.quote_prices, targets)
    square_sums = active_variance(balanced, sweep_result.mark_values[0], sweep_result.cost_shares[0])
    units = run.holdings[0]
    square_sum = 0.0
    cost_share = 0.0
    for bar in range(1, 120):
        growth = prices[bar] / prices[bar - 1]
        weights = units * prices[bar - 1] / (units @ prices[bar - 1])
        square_sum += float((weights - targets) @ growth) ** 2
        if bar in run.rebalance_bars:
            cost_share += 1 - float(run.holdings[bar] @ prices[bar]) / float(units @ prices[bar])
            units = run.holdings[bar]
        assert square_sums[bar] == pytest.approx(square_sum, rel=1e-6, abs=1e-12)
        assert sweep_result.cost_shares[0, bar] == pytest.approx(cost_share, rel=1e-6, abs=1e-12)


def test_later_prices_do_not_change_the_rule_before_them() -> None:
    table = days(120)
    other = days(120, seed=2)
    changed = replace(table, closes=np.vstack([table.closes[:60], other.closes[60:]]))
    spec = rule_spec(table)
    settings = SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000))
    first, second = (swept(spec, prices, settings)[0] for prices in (table, changed))
    assert first.mark_values[0, :60].tolist() == second.mark_values[0, :60].tolist()
    assert first.mark_values[0, 60:].tolist() != second.mark_values[0, 60:].tolist()


def test_the_kernel_runs_the_rule_only_where_its_widths_stay() -> None:
    table = days(10)
    spec = rule_spec(table)
    rule = build_tracking("normal")
    assert is_rule_supported(spec, rule)
    assert not is_rule_supported(spec, NoTradeZone(TrackingRisk(Fraction(1, 2), 30 * DAY_S, (), ())))
    measured = replace(rule.risk, estimation_window=RiskEstimationWindow(90 * DAY_S, DAY_S, 30, 2 * DAY_S))
    policy = replace(spec.policy, trigger=NoTradeZone(measured))
    assert not is_rule_supported(replace(spec, policy=policy), rule)
    assert not is_rule_supported(rule_spec(table, targets={"BTC": 7_000, "ETH": 0, "USD": 3_000}), rule)
    assert not is_rule_supported(rule_spec(table, targets={"BTC": 7_000, "ETH": 3_000, "USD": 0}), rule)
    hub = make_spec({"BTC": 5_000, "ETH": 5_000}, Threshold(500, None), "USD")
    assert not is_rule_supported(hub, rule)
    plain_rule = replace(rule_setting(spec, SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000))), rule=None)
    with pytest.raises(ConfigError, match="the fast kernel does not support this trigger"):
        run_kernel(prepare_prices(SYMBOLS[:4], *market(1, 10, 4)), plain_rule, VALUE)


def test_configured_volatilities_count_as_in_the_step() -> None:
    table = days(10)
    spec = rule_spec(table)
    rule = build_tracking("normal")
    costs = simulated_costs(spec, SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000)))
    tokens = [asset.token.address for asset in spec.portfolio.assets]
    risky = replace(rule.risk, cost_bps=Fraction(3, 2), volatilities_bps=((tokens[0], 20_000),))
    own = replace(spec, policy=replace(spec.policy, trigger=NoTradeZone(risky)))
    by_class = kernel_rule(spec, rule, costs)
    by_owner = kernel_rule(own, rule, costs)
    assert by_owner.triggers != by_class.triggers
    banded = replace(spec, policy=replace(spec.policy, trigger=Threshold(500, None)))
    assert by_owner == kernel_rule(banded, NoTradeZone(replace(risky, cost_bps=rule.risk.cost_bps)), costs)
    assert kernel_rule(own, build_tracking("strict"), costs).triggers[0] < by_owner.triggers[0]
