"""The estimate of what a policy loses a year: against the benchmark's own simulator, against the formula of the rule, and in words."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.app.start.capital import draft_config
from agent.app.start.tracking_losses import (
    MAX_LEG_SHARE,
    config_loss_document,
    first_purchase_lines,
    loss_document,
    portfolio_of_config,
    portfolio_of_step,
    step_loss_document,
)
from agent.backtest.loss.backtests import backtest_loss
from agent.backtest.loss.picture import WIDTH_FACTORS, loss_curve
from agent.backtest.loss.policies import CHOICES, LossAsset, LossPortfolio
from agent.backtest.report.losses import loss_section
from agent.backtest.settings import SimulationSettings, make_spec
from agent.config.networks.presets import ETHEREUM_PRESET
from agent.layers.tax.config import TaxTable
from agent.layers.tax.state import TaxState
from agent.model import (
    Cron,
    Destination,
    Every,
    HybridTrigger,
    LotMethod,
    NoTradeZone,
    Policy,
    StepInput,
    TaxInputs,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.tracking_rule import CORRELATION_SHARE, TradingCost, expected_loss, token_rules
from agent.units import BPS
from agent.weights.asset_classes import class_correlation_bps, class_volatility_bps
from scripts.make.loss_picture import PICTURE, curve, svg
from tests.support.builders import price_of, step_input, token, v2_pool, v3_pool, with_snapshot

SYMBOLS = {"WBTC": 2_500, "WETH": 2_500, "LINK": 2_000}
CORRELATIONS = (("WBTC", "WETH", 8_000), ("WBTC", "LINK", 6_000), ("WETH", "LINK", 7_000))
DEPTH = 20_000_000
RULE = build_tracking("normal")
SIMULATED = {
    (5, "0.03", 50_000): (3.79, 8.38, 4.58, 5.60, 6.64),
    (5, "0.6", 50_000): (5.69, 21.2, 8.91, 8.63, 11.0),
    (5, "0.6", 5_000): (11.2, 34.7, 19.3, 27.6, 32.5),
    (30, "0.03", 500_000): (11.2, 46.7, 17.4, 26.9, 29.6),
    (30, "6", 500_000): (13.7, 60.3, 22.0, 30.1, 34.9),
}
"""Loss of tracking, relative 10 %, relative 20 % to halfway, absolute 5 %, every 28 d by fee in bps, gas and value in dollars: mean of
four times eight years of hours in scripts/tracking/tracking_market.py, world `three_coins` of scripts/bench/bench_tracking.py, seeds
1 to 4.
"""


def portfolio(fee_bps: float = 5, gas: str = "0.03", value: int = 50_000, targets: dict[str, int] = SYMBOLS) -> LossPortfolio:
    assets = tuple(LossAsset(symbol, symbol, target, None, fee_bps / BPS, Fraction(DEPTH)) for symbol, target in targets.items())
    cash = LossAsset("USDC", "USDC", BPS - sum(targets.values()), None, 0.0, Fraction(DEPTH))
    return LossPortfolio(assets, cash, Fraction(value), Fraction(gas), Fraction(10), 50)


def policy(trigger: Trigger = RULE, destination: Destination = Destination.TARGET, side: TradeSide | None = None) -> Policy:
    return Policy(trigger=trigger, destination=destination, cooldown_s=3_600, confirm_blocks=0, trade_side=side)


def with_correlations(trigger: NoTradeZone) -> NoTradeZone:
    return NoTradeZone(replace(trigger.risk, correlations_bps=CORRELATIONS))


def losses(document: Any) -> dict[str, float]:
    return {row["policy"]: float(row["loss_bps"]) for row in (document["own"], *document["others"])}


@pytest.mark.parametrize("case", SIMULATED, ids=str)
def test_estimate_is_near_the_simulation_of_the_benchmark(case: tuple[int, str, int]) -> None:
    document = loss_document(portfolio(*case), policy(with_correlations(RULE)))
    estimates = losses(document)
    assert list(estimates) == [choice.name for choice in CHOICES]
    assert list(estimates.values()) == pytest.approx(SIMULATED[case], rel=0.17)


@pytest.mark.parametrize(("fee_bps", "gas", "value"), [(5, "0", 50_000), (5, "0.6", 50_000), (30, "0.03", 50_000), (100, "6", 500_000)])
@pytest.mark.parametrize("targets", [{"WETH": 5_000}, {"WBTC": 4_000, "WETH": 3_000}, SYMBOLS])
def test_estimate_of_the_rule_is_near_its_formula(fee_bps: int, gas: str, value: int, targets: dict[str, int]) -> None:
    symbols = [*targets]
    volatilities = [class_volatility_bps(symbol, "USDC") / BPS for symbol in symbols]
    reduced = [
        [
            volatilities[i] * volatilities[j] * (1 if i == j else CORRELATION_SHARE * class_correlation_bps(first, second, "USDC") / BPS)
            for j, second in enumerate(symbols)
        ]
        + [0.0]
        for i, first in enumerate(symbols)
    ] + [[0.0] * (len(symbols) + 1)]
    costs = {index: TradingCost(fee_bps / BPS, float(Fraction(gas) / value), 0.0) for index in range(len(symbols))}
    shares = [target / BPS for target in targets.values()]
    rules = token_rules([*shares, 1 - sum(shares)], reduced, len(symbols), costs, 1.0)
    formula_bps = expected_loss(rules, reduced, len(symbols), 1.0).total * BPS
    own = loss_document(portfolio(fee_bps, gas, value, targets), policy())["own"]
    assert own is not None
    assert 0.73 < formula_bps / float(own["loss_bps"]) < 1.34


def test_costs_and_drift_add_up_and_the_same_is_estimated_again() -> None:
    first = loss_document(portfolio(), policy(Threshold(None, 1_000)))
    assert first == loss_document(portfolio(), policy(Threshold(None, 1_000)))
    for row in (first["own"], *first["others"]):
        assert row is not None
        assert float(row["costs_bps"]) + float(row["drift_bps"]) == pytest.approx(float(row["loss_bps"]), rel=0.06)


@pytest.mark.parametrize("trigger", [RULE, Threshold(None, 1_000)])
def test_a_wild_year_loses_more_about_with_the_square_of_its_volatility(trigger: Trigger) -> None:
    """Drift and trades grow with the variance, 1.6² of it is 2.56."""
    document = loss_document(portfolio(), policy(trigger))
    assert document["own"] is not None
    assert document["wild_year_bps"] is not None
    assert 2.2 < float(document["wild_year_bps"]) / float(document["own"]["loss_bps"]) < 2.8
    assert document["lines"][-1].startswith(
        "Simulated with a volatility of WBTC 50 %, WETH 65 %, LINK 90 %; with 1.6 times as much, as in 2021"
    )


def test_the_rule_is_compared_with_a_band_and_a_band_with_the_rule() -> None:
    of_rule = loss_document(portfolio(), policy(with_correlations(RULE)))["lines"]
    assert (
        of_rule[0] == "About 4 bps a year behind a perfect tracker (2 costs, 2 drift), 19 of 50,000 USDC; relative 10 % would lose more: 8."
    )
    assert of_rule[1].startswith("Other triggers, bps a year: relative 10 % 8, relative 20 % to halfway 5, absolute 5 %")
    of_band = loss_document(portfolio(), policy(Threshold(None, 1_000)))["lines"]
    assert of_band[0].endswith("; tracking would lose less: 4.")
    assert "relative 10 %" not in of_band[1]


def test_loss_of_which_the_least_is_known__is_not_called_less() -> None:
    (line, *_) = loss_document(portfolio(gas="100"), policy(Threshold(None, 1_000)))["lines"]
    assert line == "Over 18 bps a year behind a perfect tracker, 92 of 50,000 USDC; tracking would lose 48."


def test_first_purchase__costs_fee_impact_and_gas_of_each_swap() -> None:
    config = draft_config(None, ETHEREUM_PRESET, (("WETH", "50%"), ("USDC", "50%")), "4000", "6000")
    (line,) = first_purchase_lines(config, Fraction(1), Fraction(4_000))
    bought = portfolio_of_config(config, Fraction(1), Fraction(4_000))
    assert bought is not None
    pools = 2_000 * 0.0005 + 2_000**2 / DEPTH
    words = f"once, in 1 swap ({pools:.2g} in pools, {float(bought.leg_gas):.2g} gas), besides its approvals."
    assert line == f"The first purchase, from USDC alone, costs about {pools + float(bought.leg_gas):.2g} USDC {words}"
    assert first_purchase_lines(config, Fraction(1), Fraction(0)) == []


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        (Every(7 * 86_400), "every 7 d"),
        (HybridTrigger(Threshold(None, 500), Every(7 * 86_400)), "relative 5 % every 7 d"),
        (NoTradeZone(replace(RULE.risk, horizon_s=30 * 86_400)), "zone 30 d"),
        (Threshold(200, 1_500), "absolute 2 % and relative 15 %"),
    ],
)
def test_schedules_zones_and_both_widths_are_estimated(trigger: Trigger, name: str) -> None:
    own = loss_document(portfolio(), policy(trigger))["own"]
    assert own is not None
    assert own["policy"] == name
    assert 2 < float(own["loss_bps"]) < 40


def test_a_hybrid_reviews_more_seldom_than_its_band_and_trades_less_than_its_schedule() -> None:
    band = Threshold(None, 2_000)
    trades = [
        float(own["trades_a_year"])
        for trigger in (band, HybridTrigger(band, Every(7 * 86_400)), Every(7 * 86_400))
        if (own := loss_document(portfolio(), policy(trigger))["own"]) is not None
    ]
    assert trades[1] < trades[0] < trades[2] == pytest.approx(52, rel=0.02)


@pytest.mark.parametrize("other", [policy(Cron("0 0 * * *", "UTC")), policy(side=TradeSide.SELL)])
def test_what_cannot_be_simulated_has_no_estimate(other: Policy) -> None:
    document = loss_document(portfolio(), other)
    assert document["own"] is None
    assert document["lines"][0].startswith("No estimate of what this trigger loses; ")


def test_gas_above_half_a_percent_of_the_portfolio_is_warned_of() -> None:
    assert not loss_document(portfolio(gas="6", value=1_200), policy())["warnings"]
    (warning,) = loss_document(portfolio(gas="6", value=500), policy())["warnings"]
    assert MAX_LEG_SHARE == 6 / 1_200
    assert warning.startswith("Gas: each trade costs 1.2 % of the portfolio (6.0 USDC), and a weight waits until it is ±12.5 points off")


def step_of(fee_pips: int, base_fee_wei: int = 10**9) -> StepInput:
    """The three coins and cash, each with a pool that is worth the same at the start."""
    targets = {**SYMBOLS, "USDC": BPS - sum(SYMBOLS.values())}
    pools = [v2_pool(token(symbol), token("USDC"), price_of(symbol), 10**8, fee_pips=fee_pips) for symbol in SYMBOLS]
    step = step_input(targets, pools=pools)
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei), priority_fee_wei=0)


def test_a_step_is_estimated_by_its_pools_and_its_gas() -> None:
    cheap, dear = (portfolio_of_step(step_of(fee_pips)) for fee_pips in (500, 3_000))
    assert cheap is not None
    assert dear is not None
    assert [asset.unit_cost for asset in cheap.assets] == pytest.approx([0.0005] * 3)
    assert [asset.unit_cost for asset in dear.assets] == pytest.approx([0.003] * 3)
    busy = portfolio_of_step(step_of(500, base_fee_wei=10**10))
    assert busy is not None
    assert busy.leg_gas == cheap.leg_gas * 10
    assert loss_of(step_of(3_000)) > 1.3 * loss_of(step_of(500))


def loss_of(step: StepInput) -> float:
    document = step_loss_document(step)
    assert document is not None
    assert document["own"] is not None
    return float(document["own"]["loss_bps"])


def test_a_step_whose_token_has_no_route_has_no_estimate() -> None:
    step = step_of(500)
    assert step_loss_document(with_snapshot(step, pools=step.snapshot.pools[1:])) is None


@pytest.mark.parametrize(("rate_bps", "says_so"), [(2_500, True), (1, True), (0, False)])
def test_estimate_where_gains_are_taxed__says_that_it_leaves_tax_out(rate_bps: int, says_so: bool) -> None:
    """It has no lots, and the tax changes what the rule trades."""
    inputs = TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), None, rate_bps)
    config = draft_config(None, ETHEREUM_PRESET, (("WETH", "50%"), ("USDC", "50%")))
    table = TaxTable(method="fifo", year_limit="off", rate=f"{rate_bps}bps" if rate_bps else None)
    taxed_config = config.model_copy(update={"tax": table})
    for document in (
        step_loss_document(step_of(500).with_layer(TaxState(inputs))),
        config_loss_document(taxed_config, Fraction(1), Fraction(50_000)),
    ):
        assert document is not None
        assert ("a perfect tracker, as if without tax" in document["lines"][0]) is says_so


def test_the_rule_is_where_costs_and_drift_together_are_least() -> None:
    found = loss_curve(portfolio(), policy(Threshold(None, 1_500)))
    totals = [loss.total for _, loss in found.points]
    costs = [loss.costs for _, loss in found.points]
    assert costs == sorted(costs, reverse=True)
    assert [loss.drift for _, loss in found.points] == sorted(loss.drift for _, loss in found.points)
    assert min(totals) == pytest.approx(totals[WIDTH_FACTORS.index(1)], rel=0.04)
    assert totals[0] > 1.5 * min(totals) < totals[-1]
    rule, own, band = found.marks
    assert rule.loss == found.points[WIDTH_FACTORS.index(1)][1]
    assert (rule.name, own.name, band.name) == ("tracking", "relative 15 %", "relative 10 %")
    assert own.width_factor == pytest.approx(1.5 * (band.width_factor or 0))


def test_a_schedule_has_no_width_and_what_has_no_estimate_no_mark() -> None:
    by_schedule = loss_curve(portfolio(), policy(Every(7 * 86_400)))
    assert [(mark.name, mark.width_factor is None) for mark in by_schedule.marks][1] == ("every 7 d", True)
    assert len(loss_curve(portfolio(), policy(side=TradeSide.SELL)).marks) == 2


def test_the_picture_of_the_documentation_is_that_of_the_simulation() -> None:
    assert svg(curve()) == PICTURE.read_text(encoding="utf-8"), "run scripts/make/loss_picture.py"


def test_a_report_has_the_picture_of_its_own_fees_and_band() -> None:
    """The first closes are those of the sample: a swap of 150,000 units of gas at 20 gwei is 0.003 ether."""
    targets = {"BTC": 5_000, "ETH": 3_000, "USD": 2_000}
    spec = make_spec(targets, Threshold(None, 2_000), "USD", native="ETH")
    settings = SimulationSettings(depth=Fraction(10**8), fee_pips=3_000, start_value=Fraction(50_000), gas_price_wei=20 * 10**9)
    loss = backtest_loss(spec, settings, {"BTC": 30_000.0, "ETH": 2_000.0, "USD": 1.0})
    assert loss is not None
    assert loss.portfolio.leg_gas == 6
    section = loss_section(loss)
    assert section is not None
    assert "without tax" in section.paragraphs[0]
    assert [row[0] for row in section.tables[0].rows] == ["tracking", "relative 20 %", "relative 10 %"]
    costs, drift, policies = section.charts[0]["data"]
    assert len(costs["x"]) == len(drift["x"]) == len(WIDTH_FACTORS)
    assert policies["text"][0].startswith("tracking: ")
    half = replace(settings, fee_pips=500)
    cheaper = backtest_loss(spec, half, {"ETH": 2_000.0})
    assert cheaper is not None
    assert loss_curve(cheaper.portfolio, cheaper.policy).marks[0].loss.total < loss_curve(loss.portfolio, loss.policy).marks[0].loss.total


def test_a_report_of_recorded_pools_has_no_picture() -> None:
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, Threshold(None, 1_000), "USD")
    settings = SimulationSettings(depth=Fraction(10**8), fee_pips=500, start_value=Fraction(1_000))
    assert loss_section(backtest_loss(spec, settings, {})) is not None
    recorded = replace(settings, recorded_pools=(v3_pool(token("WETH"), token("USDC"), price_of("WETH"), 10**6),))
    assert loss_section(backtest_loss(spec, recorded, {})) is None


def test_a_portfolio_without_the_numeraire_is_not_traded_for_its_own_sake() -> None:
    """All targets beside it sum to one, so that its share of zero is no band."""
    whole = portfolio(targets={"WETH": 6_000, "WBTC": 4_000})
    own = loss_document(whole, policy(Threshold(None, 1_000)))["own"]
    assert own is not None
    assert 2 < float(own["loss_bps"]) < 10
    alone = loss_document(portfolio(targets={"WETH": 10_000}), policy())["own"]
    assert alone is not None
    assert float(alone["loss_bps"]) < 0.01


def test_what_never_trades_loses_more_than_any_figure() -> None:
    document = loss_document(portfolio(gas="100", value=5_000), policy(Threshold(None, 2_000), Destination.HALFWAY))
    assert document["lines"][0].startswith("Over ")
    assert "costs" not in document["lines"][0]
    assert "beside usual years, over 100 bps" in document["lines"][-1], "not about over"
