"""The tracking rule in numbers: its two equations, check values, and what its widths depend on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.triggers.tracking_rule import MIN_COST, PairRule, TokenRule, TradingCost, edge_and_trigger, pair_rules, token_rules
from scripts.tracking.tracking_loss import expected_loss
from tests.support.decisions.tracking_rules import one_coin_rule
from tests.support.samples import examples

terms = st.floats(1e-9, 1e-2)
STRICTNESS = {"relaxed": 0.3, "normal": 1.0, "strict": 3.0}


@examples(50)
@given(terms, terms)
def test_edge_and_trigger_solve_both_equations(cost_term: float, gas_term: float) -> None:
    edge, trigger = edge_and_trigger(cost_term, gas_term)
    middle = (edge + trigger) / 2
    half = (trigger - edge) / 2
    assert 0 <= edge < trigger
    assert middle * half**3 == pytest.approx(gas_term, rel=1e-6)
    assert middle * (middle**2 - half**2) == pytest.approx(cost_term, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("cost_term", [1e-9, 1e-5, 0.3])
def test_edge_and_trigger_are_equal_without_gas(cost_term: float) -> None:
    edge, trigger = edge_and_trigger(cost_term, 0.0)
    assert edge == trigger == pytest.approx(cost_term ** (1 / 3), rel=1e-14)


@pytest.mark.parametrize("gas_term", [1e-12, 1e-8, 1e-3])
def test_edge_is_the_target_without_cost(gas_term: float) -> None:
    """b⁴ = 12·F/k = 16·(3F/4k)."""
    edge, trigger = edge_and_trigger(1e-30, gas_term)
    assert edge == pytest.approx(0, abs=1e-7)
    assert trigger == pytest.approx((16 * gas_term) ** 0.25, rel=1e-6)


@pytest.mark.parametrize(
    ("target", "fee_bps", "gas", "edge", "trigger"),
    [
        pytest.param(0.5, 5, 0.0, 3.61, 3.61, id="half, 5 bps"),
        pytest.param(0.5, 30, 0.0, 6.55, 6.55, id="half, 30 bps"),
        pytest.param(0.25, 5, 0.0, 2.98, 2.98, id="quarter, 5 bps"),
        pytest.param(0.25, 30, 0.0, 5.41, 5.41, id="quarter, 30 bps"),
        pytest.param(0.1, 5, 0.0, 1.82, 1.82, id="tenth, 5 bps"),
        pytest.param(0.1, 30, 0.0, 3.32, 3.32, id="tenth, 30 bps"),
        pytest.param(0.25, 5, 0.03 / 5_000, 1.61, 4.98, id="quarter, 5 bps and gas"),
        pytest.param(0.25, 30, 6 / 50_000, 2.55, 9.95, id="quarter, 30 bps and gas"),
    ],
)
def test_single_coin_has_its_widths_in_points(target: float, fee_bps: float, gas: float, edge: float, trigger: float) -> None:
    rule = one_coin_rule(target, fee_bps, gas)
    assert (round(rule.edge * 100, 2), round(rule.trigger * 100, 2)) == (edge, trigger)


@pytest.mark.parametrize(
    ("target", "fee_bps", "sale_tax", "edge"),
    [
        pytest.param(0.25, 5, 0.05, 11.04, id="quarter, 5 %"),
        pytest.param(0.25, 30, 0.05, 11.39, id="quarter at 30 bps, 5 %"),
        pytest.param(0.5, 30, 0.05, 13.79, id="half at 30 bps, 5 %"),
        pytest.param(0.5, 5, 0.125, 18.08, id="half, 12.5 %"),
        pytest.param(0.25, 5, 0.25, 12.5, id="quarter, 25 %"),
    ],
)
def test_single_coin_counts_half_of_the_tax_as_cost(target: float, fee_bps: float, sale_tax: float, edge: float) -> None:
    """A 25 % target, 5 bps and a tax of 5 %: ∛(1.5 · (0.0005 + 0.025) · 0.1875²) = 0.1104; the last one is half the target."""
    rule = one_coin_rule(target, fee_bps, sale_tax=sale_tax)
    assert (round(rule.edge * 100, 2), round(rule.trigger * 100, 2)) == (edge, edge)


@pytest.mark.parametrize("sale_tax", [0.0, 0.01, 0.2])
def test_horizon_with_tax_is_where_the_planned_cost_pays(sale_tax: float) -> None:
    rule = one_coin_rule(0.25, 30, 1e-6, volatility=0.8, sale_tax=sale_tax)
    assert rule.horizon_years is not None
    assert 0.64 * rule.horizon_years * rule.edge == pytest.approx(0.003)


@pytest.mark.parametrize("gas", [6e-7, 1.2e-5, 1.2e-4])
def test_trigger_with_tax_is_where_a_trade_saves_its_gas(gas: float) -> None:
    """Over the horizon a trade of x from the trigger saves c·x²/2a after its fee."""
    rule = one_coin_rule(0.25, 5, gas, sale_tax=0.1)
    traded = rule.trigger - rule.edge
    assert 0.0005 * traded**2 / (2 * rule.edge) >= gas * (1 - 1e-9)


@pytest.mark.parametrize(("strictness", "share"), [("relaxed", 1.49), ("strict", 0.69)])
def test_strictness_scales_widths_by_the_cube_root(strictness: str, share: float) -> None:
    rule = one_coin_rule(0.25, 5, risk_aversion=STRICTNESS[strictness])
    assert round(rule.edge / one_coin_rule(0.25, 5).edge, 2) == share


@pytest.mark.parametrize("volatility", [0.01, 0.2, 2.0])
def test_volatility_of_a_single_coin_does_not_count(volatility: float) -> None:
    """What is dearer to hold drifts faster."""
    rule = one_coin_rule(0.25, 30, 1e-5, volatility=volatility)
    usual = one_coin_rule(0.25, 30, 1e-5)
    assert (rule.edge, rule.trigger) == pytest.approx((usual.edge, usual.trigger), rel=1e-12)


@st.composite
def portfolios(draw: st.DrawFn) -> tuple[list[float], list[list[float]], list[TradingCost]]:
    """Targets with that of the numeraire last, covariance, costs; two to six coins."""
    count = draw(st.integers(2, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    dice = np.random.default_rng(seed)
    targets = dice.dirichlet(np.ones(count + 1))
    factors = dice.normal(size=(count, count + 2))
    covariance = np.zeros((count + 1, count + 1))
    covariance[:count, :count] = factors @ factors.T * 0.1
    costs = [TradingCost(float(dice.uniform(1e-4, 1e-2)), float(dice.choice([0.0, 1e-6, 1e-4])), 0.0) for _ in range(count)]
    return targets.tolist(), covariance.tolist(), costs


def rules_of(portfolio: tuple[list[float], list[list[float]], list[TradingCost]], risk_aversion: float = 1.0) -> dict[int, TokenRule]:
    targets, covariance, costs = portfolio
    return token_rules(targets, covariance, len(costs), dict(enumerate(costs)), risk_aversion)


@examples(30)
@given(portfolios())
def test_several_coins__all_volatilities_scaled__widths_stay(
    portfolio: tuple[list[float], list[list[float]], list[TradingCost]],
) -> None:
    targets, covariance, costs = portfolio
    scaled = [[4 * entry for entry in row] for row in covariance]
    for rule, other in zip(rules_of(portfolio).values(), rules_of((targets, scaled, costs)).values(), strict=True):
        assert (rule.edge, rule.trigger) == pytest.approx((other.edge, other.trigger), rel=1e-9)


@examples(30)
@given(portfolios(), st.sampled_from(["unit_cost", "leg_cost", "risk_aversion"]))
def test_widths_rise_with_cost_and_gas_and_fall_with_strictness(
    portfolio: tuple[list[float], list[list[float]], list[TradingCost]], raised: str
) -> None:
    targets, covariance, costs = portfolio
    usual = rules_of(portfolio)
    if raised == "risk_aversion":
        wider = usual
        narrower = rules_of(portfolio, 2.0)
    else:
        dearer = [
            TradingCost(cost.unit_cost * (1 + (raised == "unit_cost")), cost.leg_cost + (raised == "leg_cost") * 1e-5, 0.0)
            for cost in costs
        ]
        wider = rules_of((targets, covariance, dearer))
        narrower = usual
    for token, rule in narrower.items():
        assert wider[token].trigger >= rule.trigger * (1 - 1e-9)


@examples(50)
@given(portfolios(), st.floats(0, 1))
def test_several_coins__tax_on_a_sale__no_range_is_narrower(
    portfolio: tuple[list[float], list[list[float]], list[TradingCost]], sale_tax: float
) -> None:
    targets, covariance, costs = portfolio
    usual = rules_of(portfolio)
    taxed = rules_of((targets, covariance, [replace(cost, sale_tax=sale_tax) for cost in costs]))
    for token, rule in usual.items():
        assert taxed[token].edge >= rule.edge * (1 - 1e-9)
        assert taxed[token].trigger >= rule.trigger * (1 - 1e-9)


@examples(30)
@given(portfolios())
def test_risk_over_shorter_horizons_is_not_negative(
    portfolio: tuple[list[float], list[list[float]], list[TradingCost]],
) -> None:
    """Schur's product theorem: the covariance times min(Hᵢ, Hⱼ)."""
    _, covariance, costs = portfolio
    rules = rules_of(portfolio)
    horizons = np.array([rules[token].horizon_years or 1.0 for token in range(len(costs))])
    risk = np.array(covariance)[:-1, :-1] * np.minimum.outer(horizons, horizons)
    assert np.linalg.eigvalsh(risk).min() >= -1e-9 * np.abs(risk).max()


@pytest.mark.parametrize("target", [0.01, 0.02, 0.1])
def test_trigger_is_at_most_half_the_target(target: float) -> None:
    rule = one_coin_rule(target, 100, 1e-3)
    assert rule.trigger == pytest.approx(target / 2)
    uncapped_edge, uncapped_trigger = edge_and_trigger(1.5 * 1e-2 * spread(target), 0.75 * 1e-3 * spread(target))
    assert rule.edge / rule.trigger == pytest.approx(uncapped_edge / uncapped_trigger)


def spread(target: float) -> float:
    """1/k of one coin."""
    return (target * (1 - target)) ** 2


@pytest.mark.parametrize("min_trade", [0.0, 0.001, 0.2])
def test_trigger_is_a_min_trade_beyond_the_edge(min_trade: float) -> None:
    rule = one_coin_rule(0.25, 5, min_trade=min_trade)
    assert rule.trigger == pytest.approx(max(one_coin_rule(0.25, 5).trigger, rule.edge + min_trade))


def test_cost__below_a_basis_point__counts_as_one() -> None:
    assert one_coin_rule(0.25, 0.0) == one_coin_rule(0.25, MIN_COST * 10_000)


def test_target__of_zero__leaves_nothing() -> None:
    rule = one_coin_rule(0.0, 5, min_trade=0.002)
    assert (rule.edge, rule.trigger, rule.horizon_years) == (0.0, 0.002, None)


def test_target__of_all__still_has_a_width() -> None:
    rule = one_coin_rule(1.0, 5)
    assert 0 < rule.edge <= rule.trigger < 0.5


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.3, 0.3)])
def test_coin_that_moves_with_the_numeraire_has_no_rule(first: float, second: float) -> None:
    covariance = [[first, 0.0, first], [0.0, 0.25, 0.0], [second, 0.0, second]]
    costs = {token: TradingCost(5e-4, 0.0, 0.0) for token in (0, 1)}
    assert set(token_rules([0.3, 0.3, 0.4], covariance, 2, costs, 1.0)) == {1}


def test_horizon_is_where_the_last_unit_pays_at_the_edge() -> None:
    """λ·s·H·a = c."""
    rule = one_coin_rule(0.25, 30, 1e-5, risk_aversion=3.0, volatility=0.8)
    assert rule.horizon_years is not None
    assert 3.0 * 0.64 * rule.horizon_years * rule.edge == pytest.approx(0.003)


def optimal_loss(edge: float, trigger: float, cost: float, gas: float) -> float:
    """Average loss of trading from ±trigger to ±edge, λ = s = η = 1: by renewal between trades.

    Between edge and trigger the driftless deviation of ±edge takes b² − a² years to ±b and collects
    ∫x²/2, of which Dynkin's formula on x⁴ gives (b⁴ − a⁴)/12.
    """
    years = trigger**2 - edge**2
    return ((trigger**4 - edge**4) / 12 + cost * (trigger - edge) + gas) / years


@pytest.mark.parametrize(("cost", "gas"), [(1e-3, 1e-5), (1e-2, 1e-4), (1e-4, 1e-3)])
def test_widths_are_those_of_the_least_loss_between_trades(cost: float, gas: float) -> None:
    """An argument of its own: no neighbour of (a, b) loses less, and the least is λ·s·(a² + ab + b²)/6."""
    edge, trigger = edge_and_trigger(1.5 * cost, 0.75 * gas)
    least = optimal_loss(edge, trigger, cost, gas)
    assert least == pytest.approx((edge**2 + edge * trigger + trigger**2) / 6, rel=1e-9)
    for edge_factor, trigger_factor in neighbours():
        assert optimal_loss(edge * edge_factor, trigger * trigger_factor, cost, gas) > least


def neighbours() -> Sequence[tuple[float, float]]:
    return [(math.cos(angle) / 50 + 1, math.sin(angle) / 50 + 1) for angle in np.linspace(0, 2 * math.pi, 16, endpoint=False)]


@pytest.mark.parametrize(("fee_bps", "gas"), [(5, 0.0), (30, 1e-5), (1, 1e-4)])
def test_expected_loss_of_a_coin_is_that_between_trades(fee_bps: float, gas: float) -> None:
    """λ = s = 1 and η² = (w(1 − w))²: costs and drift of a coin by the renewal between trades."""
    rule = one_coin_rule(0.25, fee_bps, gas, volatility=1.0)
    loss = expected_loss({0: rule}, [[1.0, 0.0], [0.0, 0.0]], 1, 1.0)
    years = (rule.trigger**2 - rule.edge**2) / spread(0.25)
    if gas:
        costs = (max(fee_bps / 10_000, MIN_COST) * (rule.trigger - rule.edge) + gas) / years
        assert loss.costs == pytest.approx(costs, rel=1e-6)
    else:
        assert loss.costs == pytest.approx(2 * loss.drift)
    assert loss.total == pytest.approx((rule.edge**2 + rule.edge * rule.trigger + rule.trigger**2) / 6)


@examples(20)
@given(portfolios())
def test_expected_loss_is_between_that_of_the_largest_and_all(
    portfolio: tuple[list[float], list[list[float]], list[TradingCost]],
) -> None:
    _, covariance, costs = portfolio
    rules = rules_of(portfolio)
    together = expected_loss(rules, covariance, len(costs), 1.0).total
    alone = [expected_loss({token: rule}, covariance, len(costs), 1.0).total for token, rule in rules.items()]
    assert max(alone) / len(alone) * 0.999 <= together <= sum(alone) * 1.001


def pair_rule(
    pair_bps: float, gas: float = 0.0, risk_aversion: float = 1.0, sale_taxes: tuple[float, float] = (0.0, 0.0)
) -> PairRule | None:
    """The rule of two uncorrelated coins of 60 % with targets of 30 %, whose pools with the cash cost 30 bps."""
    costs = {token: TradingCost(0.003, gas, 0.0, tax) for token, tax in enumerate(sale_taxes)}
    pair_costs = {(0, 1): pair_bps / 10_000}
    rules = token_rules(THIRDS, TWO_COINS, 2, costs, risk_aversion)
    return pair_rules(THIRDS, TWO_COINS, rules, costs, pair_costs, risk_aversion).get((0, 1))


THIRDS = [0.3, 0.3, 0.4]
TWO_COINS = [[0.36, 0.0, 0.0], [0.0, 0.36, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("pair_bps", "has_rule"), [(26.9, True), (27.1, False), (30, False)])
def test_pair__has_a_rule_below_45_percent_of_two_swaps(pair_bps: float, has_rule: bool) -> None:
    assert (pair_rule(pair_bps) is not None) is has_rule


def test_pair__has_the_widths_of_two_coins_one_of_which_is_the_numeraire() -> None:
    """s = 0.36 + 0.36; its slopes ±0.36 move the weights by ±0.3·0.36, whose variance is 2·0.36·0.108²; k = s³ over it."""
    rule = pair_rule(5)
    k = 0.72**3 / (2 * 0.36 * 0.108**2)
    assert rule.edge == rule.trigger == pytest.approx((1.5 * 0.0005 / k) ** (1 / 3), rel=1e-12)
    with_gas = pair_rule(5, gas=1e-5)
    middle = (with_gas.edge + with_gas.trigger) / 2
    assert middle * ((with_gas.trigger - with_gas.edge) / 2) ** 3 == pytest.approx(0.75 * 1e-5 / k, rel=1e-6)


@pytest.mark.parametrize("gas", [0.0, 1e-5], ids=["no-gas", "gas"])
@pytest.mark.parametrize("risk_aversion", [0.3, 3.0], ids=["relaxed", "strict"])
def test_pair__correlation_leads_the_planner_to_its_edge(gas: float, risk_aversion: float) -> None:
    """The exchange has the risk Q₁₁ + Q₂₂ − 2·Q₁₂ = c/a, and each coin Q₁₁ = c/a."""
    rule = pair_rule(5, gas, risk_aversion)
    coin = token_rules(THIRDS, TWO_COINS, 2, {0: TradingCost(0.003, gas, 0.0)}, risk_aversion)[0]
    coin_risk = 0.003 / coin.edge
    assert 2 * coin_risk - 2 * rule.correlation * coin_risk == pytest.approx(0.0005 / rule.edge, rel=1e-12)


def test_pair__owes_half_the_taxes_of_both() -> None:
    """Either coin may be the one that is sold: 5 bps and half of 4 % and of 2 % are the cost of 305 bps."""
    untaxed_edge = pair_rule(5).edge
    assert pair_rule(5, sale_taxes=(0.04, 0.02)).edge == pytest.approx(untaxed_edge * (305 / 5) ** (1 / 3), rel=1e-12)


def test_pair__trigger_is_at_most_half_the_smaller_target() -> None:
    targets = [0.4, 0.02, 0.58]
    costs = {token: TradingCost(0.003, 1e-3, 0.0) for token in (0, 1)}
    rules = token_rules(targets, TWO_COINS, 2, costs, 1.0)
    (rule,) = pair_rules(targets, TWO_COINS, rules, costs, {(0, 1): 0.0005}, 1.0).values()
    assert rule.trigger == pytest.approx(0.01)
