"""The estimate of what a policy loses a year: against the benchmark's own simulator, against the formula of the rule, and in words."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from agent.app.start.capital import draft_config
from agent.app.start.tracking_losses import (
    DIRECT_POOL_TEXT,
    MAX_LEG_SHARE,
    first_purchase_lines,
    loss_document,
    portfolio_of_config,
    portfolio_of_step,
    step_loss_document,
)
from agent.backtest.loss.backtests import backtest_loss
from agent.backtest.loss.estimates import policy_losses, portfolio_tax
from agent.backtest.loss.picture import WIDTH_FACTORS, loss_curve
from agent.backtest.loss.policies import CHOICES, ComparedPolicy, LossPair, LossPortfolio, loss_market
from agent.backtest.report.losses import loss_section
from agent.backtest.settings import BacktestSpec, SimulationSettings, TaxRule, make_spec
from agent.config.networks.presets import ETHEREUM_PRESET
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
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.policy.triggers.no_trade_zone import build_tracking
from agent.policy.triggers.tracking_rule import CORRELATION_SHARE, TradingCost, token_rules
from agent.units import BPS
from agent.weights.asset_classes import class_correlation_bps, class_volatility_bps
from scripts.make.loss_picture import PICTURE, curve, svg
from scripts.tracking.tracking_loss import expected_loss
from tests.support.builders import price_of, step_input, token, v2_pool, v3_pool, with_snapshot
from tests.support.decisions.tracking_losses import DEPTH, RULE, SYMBOLS, loss_portfolio, with_correlations

SIMULATED = {
    (5, "0.03", 50_000): (3.79, 8.38, 4.58, 5.60, 6.64),
    (5, "0.6", 50_000): (5.69, 21.2, 8.91, 8.63, 11.0),
    (5, "0.6", 5_000): (11.2, 34.7, 19.3, 27.6, 23.4),
    (30, "0.03", 500_000): (11.2, 46.7, 17.4, 26.9, 31.0),
    (30, "6", 500_000): (13.7, 60.3, 22.0, 30.1, 34.9),
}
"""Loss of tracking, relative 10 %, relative 20 % to halfway, absolute 5 %, every 28 days by fee in bps, gas and value in dollars: mean of
four times eight years of hours in scripts/tracking/tracking_market.py, world `three_coins` of scripts/bench/bench_tracking.py, seeds
1 to 4.
"""


def policy(trigger: Trigger = RULE, destination: Destination = Destination.TARGET, side: TradeSide | None = None) -> Policy:
    return Policy(trigger=trigger, destination=destination, cooldown_s=3_600, confirm_blocks=0, trade_side=side)


def losses(document: Any) -> dict[str, float]:
    return {row["policy"]: float(row["loss_bps"]) for row in rows_of(document)}


def own_row(of_policy: Policy, portfolio: LossPortfolio | None = None) -> Any:
    """Return the row of the policy itself, by default in the portfolio of the benchmark."""
    own = loss_document(portfolio or loss_portfolio(), of_policy)["own"]
    assert own is not None
    return own


def rows_of(document: Any) -> list[Any]:
    """Return the rows of all policies, which have estimates."""
    assert document["own"] is not None
    return [document["own"], *document["others"]]


@pytest.mark.parametrize("case", SIMULATED, ids=str)
def test_estimate_is_near_the_simulation_of_the_benchmark(case: tuple[int, str, int]) -> None:
    estimates = losses(loss_document(loss_portfolio(*case), policy(with_correlations(RULE))))
    assert list(estimates) == [choice.name for choice in CHOICES]
    assert list(estimates.values()) == pytest.approx(SIMULATED[case], rel=0.17)


@pytest.mark.parametrize(
    ("fee_bps", "gas", "value"),
    [
        pytest.param(5, "0", 50_000, id="5 bps without gas"),
        pytest.param(5, "0.6", 50_000, id="5 bps with gas"),
        pytest.param(30, "0.03", 50_000, id="30 bps"),
        pytest.param(100, "6", 500_000, id="100 bps on Ethereum"),
    ],
)
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
    own = own_row(policy(), loss_portfolio(fee_bps, gas, value, targets))
    assert 0.73 < formula_bps / float(own["loss_bps"]) < 1.34


def test_costs_and_drift_add_up_and_the_same_is_estimated_again() -> None:
    first = loss_document(loss_portfolio(), policy(Threshold(None, 1_000)))
    assert first == loss_document(loss_portfolio(), policy(Threshold(None, 1_000)))
    for row in rows_of(first):
        assert float(row["costs_bps"]) + float(row["drift_bps"]) == pytest.approx(float(row["loss_bps"]), rel=0.06)


@pytest.mark.parametrize("trigger", [RULE, Threshold(None, 1_000)])
def test_wild_year__loses_about_the_square_of_its_volatility(trigger: Trigger) -> None:
    """Drift and trades grow with the variance, 1.6² of it is 2.56."""
    document = loss_document(loss_portfolio(), policy(trigger))
    assert document["wild_year_bps"] is not None
    assert 2.2 < float(document["wild_year_bps"]) / float(rows_of(document)[0]["loss_bps"]) < 2.8
    assert document["lines"][-1].startswith(
        "Simulated with a volatility of WBTC 50 %, WETH 65 %, LINK 90 %; with 1.6 times as much, as in 2021"
    )


def test_rule__is_compared_with_a_band_and_a_band_with_the_rule() -> None:
    of_rule = loss_document(loss_portfolio(), policy(with_correlations(RULE)))["lines"]
    assert (
        of_rule[0] == "About 4 bps a year behind a perfect tracker (2 costs, 2 drift), 19 of 50,000 USDC; relative 10 % would lose more: 8."
    )
    assert of_rule[1].startswith("Other triggers, bps a year: relative 10 % 8, relative 20 % to halfway 5, absolute 5 %")
    of_band = loss_document(loss_portfolio(), policy(Threshold(None, 1_000)))["lines"]
    assert of_band[0].endswith("; tracking would lose less: 4.")
    assert "relative 10 %" not in of_band[1]


def test_loss_of_which_the_least_is_known__is_not_called_less() -> None:
    (line, *_) = loss_document(loss_portfolio(gas="100"), policy(Threshold(None, 1_000)))["lines"]
    assert line == "Over 18 bps a year behind a perfect tracker, 92 of 50,000 USDC; tracking would lose 48."


@pytest.mark.parametrize(
    ("symbol", "fees"),
    [
        pytest.param("WETH", (0.0005,), id="its own pool"),
        pytest.param("WBTC", (0.0005, 0.0005), id="through ether"),
        pytest.param("LINK", (0.003, 0.0005), id="small coin through ether"),
        pytest.param("USDT", (0.0001,), id="stable pool"),
    ],
)
def test_purchase_and_year__cost_fee_and_impact_of_each_pool(symbol: str, fees: tuple[float, ...]) -> None:
    config = draft_config(None, ETHEREUM_PRESET, ((symbol, "50%"), ("USDC", "50%")), "4000", "6000")
    (line,) = first_purchase_lines(config, Fraction(1), Fraction(4_000))
    bought = portfolio_of_config(config, Fraction(1), Fraction(4_000))
    assert bought is not None
    (asset,) = bought.assets
    assert asset.unit_cost == pytest.approx(sum(fees))
    assert asset.depth == Fraction(DEPTH, len(fees))
    pools = sum(2_000 * fee + 2_000**2 / DEPTH for fee in fees)
    gas = float(bought.leg_gas) * (1 + APPROVAL_GAS / LEG_GAS)
    cost, in_pools, of_gas = (f"{Decimal(f'{part:.1e}'):f}" for part in (pools + gas, pools, gas))
    words = f"once, in 1 swap ({in_pools} in pools, {of_gas} gas with an approval); {DIRECT_POOL_TEXT.format('USDC')}."
    assert line == f"The first purchase, from USDC alone, costs about {cost} USDC {words}"
    assert first_purchase_lines(config, Fraction(1), Fraction(0)) == []


@pytest.mark.parametrize(
    ("trigger", "name"),
    [
        (Every(7 * 86_400), "every 7 days"),
        (HybridTrigger(Threshold(None, 500), Every(7 * 86_400)), "relative 5 % every 7 days"),
        (NoTradeZone(replace(RULE.risk, horizon_s=30 * 86_400)), "zone 30 days"),
        (Threshold(200, 1_500), "absolute 2 % and relative 15 %"),
    ],
)
def test_schedules_zones_and_both_widths_are_estimated(trigger: Trigger, name: str) -> None:
    own = own_row(policy(trigger))
    assert own["policy"] == name
    assert 2 < float(own["loss_bps"]) < 40


def test_hybrid__reviews_less_than_its_band_and_trades_less() -> None:
    band = Threshold(None, 2_000)
    triggers = (band, HybridTrigger(band, Every(7 * 86_400)), Every(7 * 86_400))
    trades = [float(own_row(policy(trigger))["trades_a_year"]) for trigger in triggers]
    assert trades[1] < trades[0] < trades[2] == pytest.approx(52, rel=0.02)


@pytest.mark.parametrize("other", [policy(Cron("0 0 * * *", "UTC")), policy(side=TradeSide.SELL)])
def test_what_cannot_be_simulated_has_no_estimate(other: Policy) -> None:
    document = loss_document(loss_portfolio(), other)
    assert document["own"] is None
    assert document["lines"][0].startswith("No estimate of what this trigger loses; ")


def test_gas_above_half_a_percent_of_the_portfolio_is_warned_of() -> None:
    assert not loss_document(loss_portfolio(gas="6", value=1_200), policy())["warnings"]
    (warning,) = loss_document(loss_portfolio(gas="6", value=500), policy())["warnings"]
    assert MAX_LEG_SHARE == 6 / 1_200
    assert warning.startswith("Gas: each trade costs 1.2 % of the portfolio (6.0 USDC), and a weight waits until it is ±12.5 points off")


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


@pytest.mark.parametrize(
    ("pair_fee_pips", "pairs"),
    [
        pytest.param(500, [(0, 1, 0.0005)], id="cheap pool"),
        pytest.param(6_000, [], id="pool as dear as two"),
        pytest.param(None, [], id="no pool"),
    ],
)
def test_step__exchanges_two_coins_where_their_pool_is_cheaper(pair_fee_pips: int | None, pairs: list[tuple[int, int, float]]) -> None:
    portfolio = portfolio_of_step(step_of(3_000, pair_fee_pips=pair_fee_pips))
    assert portfolio is not None
    assert [(pair.first, pair.second, pytest.approx(pair.unit_cost)) for pair in portfolio.pairs] == pairs
    assert all(pair.depth == pytest.approx(portfolio.assets[0].depth, rel=0.01) for pair in portfolio.pairs)


@pytest.mark.parametrize(
    ("symbols", "pairs"),
    [
        pytest.param(("WETH", "WBTC"), [(0, 1, 0.0005, 1)], id="ether and its pool"),
        pytest.param(("LINK", "WBTC"), [(0, 1, 0.0035, 2)], id="both through ether"),
        pytest.param(("WETH", "USDT"), [(0, 1, 0.0005, 1)], id="ether and cash"),
        pytest.param(("DAI", "USDT"), [], id="no cheaper than the numeraire"),
    ],
)
def test_new_config__exchanges_two_coins_through_ether(symbols: tuple[str, str], pairs: list[tuple[int, int, float, int]]) -> None:
    targets = [*((symbol, "30%") for symbol in symbols), ("USDC", "40%")]
    portfolio = portfolio_of_config(draft_config(None, ETHEREUM_PRESET, tuple(targets), "4000", "6000"), Fraction(1), Fraction(4_000))
    assert portfolio is not None
    expected = [LossPair(first, second, pytest.approx(cost), Fraction(DEPTH, pools)) for first, second, cost, pools in pairs]
    assert list(portfolio.pairs) == expected


def document_of(step: StepInput, *, has_tax: bool = False) -> Any:
    """Return the document of a step, which has one."""
    document = step_loss_document(step, has_tax=has_tax)
    assert document is not None
    return document


def loss_of(step: StepInput) -> float:
    return float(rows_of(document_of(step))[0]["loss_bps"])


def test_a_step_whose_token_has_no_route_has_no_estimate() -> None:
    step = step_of(500)
    assert step_loss_document(with_snapshot(step, pools=step.snapshot.pools[1:])) is None


def step_of(fee_pips: int, base_fee_wei: int = 10**9, pair_fee_pips: int | None = None) -> StepInput:
    """The three coins and cash, each with a pool that is worth the same at the start, and one of the first two coins."""
    targets = {**SYMBOLS, "USDC": BPS - sum(SYMBOLS.values())}
    pools = [v2_pool(token(symbol), token("USDC"), price_of(symbol), 10**8, fee_pips=fee_pips) for symbol in SYMBOLS]
    if pair_fee_pips is not None:
        first, second, *_ = SYMBOLS
        pools.append(
            v2_pool(token(first), token(second), price_of(first) / price_of(second), 10**8 / price_of(second), fee_pips=pair_fee_pips)
        )
    step = step_input(targets, pools=pools)
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei), priority_fee_wei=0)


TAXED = TaxRule(LotMethod.FIFO, None, 2_500)


def document_with_tax(trigger: Trigger) -> Any:
    own_trigger = with_correlations(trigger) if isinstance(trigger, NoTradeZone) else trigger
    return loss_document(loss_portfolio(), policy(own_trigger), tax=portfolio_tax(loss_portfolio(), TAXED))


@pytest.mark.parametrize(
    ("trigger", "parts", "rest"),
    [
        (
            RULE,
            "53 bps a year behind a perfect tracker (0.9 costs, 53 drift, 0 tax)",
            "270 of 50,000 USDC, 140 bps with all gains sold after 8 years; tracking after tax would lose 59, 130 bps with all gains sold.",
        ),
        (
            build_tracking("normal", after_tax=True),
            "59 bps a year behind a perfect tracker (1 costs, 11 drift, 47 tax)",
            "300 of 50,000 USDC, 130 bps with all gains sold after 8 years;"
            " relative 10 % would lose more: 240, 260 bps with all gains sold.",
        ),
        (
            Threshold(None, 1_000),
            "250 bps a year behind a perfect tracker (8 costs, 0.4 drift, 240 tax)",
            "1,200 of 50,000 USDC, 260 bps with all gains sold after 8 years;"
            " tracking after tax would lose less: 61, 130 bps with all gains sold.",
        ),
    ],
    ids=["tracking", "tracking after tax", "relative 10 %"],
)
def test_loss_where_gains_are_taxed__has_the_tax_beside_it(trigger: Trigger, parts: str, rest: str) -> None:
    """Without after_tax tracking sells no gain: what it loses less of now it owes at the end, so that neither is said to lose less."""
    document = document_with_tax(trigger)
    sentence, others, basis, tax_line = document["lines"]
    assert sentence == f"About {parts}, {rest}"
    assert others.startswith("Other triggers, bps a year with tax (in brackets with all gains sold): ")
    assert "tax" not in basis
    assert tax_line == (
        "Tax: 25 % of the gains of each year, lots by fifo, as if all was bought today, with coins that grow by 15 % a year;"
        " the mean of 8 years."
    )
    assert {row["policy"] for row in rows_of(document)} == {*(choice.name for choice in CHOICES), "tracking after tax"}
    for row in rows_of(document):
        part_figures = [float(row[part]) for part in ("costs_bps", "drift_bps", "tax_bps")]
        assert sum(part_figures) == pytest.approx(float(row["loss_bps"]), rel=0.06)
        assert float(row["loss_if_sold_bps"]) >= float(row["loss_bps"])


def test_loss_without_tax__has_no_tax_and_no_rule_after_it() -> None:
    document = loss_document(loss_portfolio(), policy())
    for row in rows_of(document):
        assert (row["tax_bps"], row["loss_if_sold_bps"]) == (None, None)
    assert "tax" not in " ".join(document["lines"])


@pytest.mark.parametrize("trigger", [RULE, Cron("0 0 * * *", "UTC")], ids=["tracking", "no estimate"])
def test_tax_that_is_not_simulated__is_named_with_its_reason(trigger: Trigger) -> None:
    sentence, others, basis = loss_document(loss_portfolio(), policy(trigger), missing_tax_reason="a limit")["lines"]
    assert ", as if without tax (a limit)" in sentence
    assert "tax" not in others + basis


def test_rule_after_tax__is_the_rule_where_no_tax_is_simulated() -> None:
    sentence, others, _ = loss_document(loss_portfolio(), policy(build_tracking("normal", after_tax=True)), missing_tax_reason="a limit")[
        "lines"
    ]
    assert "; relative 10 % would lose more: " in sentence
    assert "tracking" not in others


def taxed_step(rate_bps: int, year_limit: Fraction | None = None) -> StepInput:
    return step_of(500).with_layer(TaxState(TaxInputs(LotMethod.FIFO, "", Fraction(1), (), Fraction(0), year_limit, rate_bps)))


@pytest.mark.parametrize("rate_bps", [2_500, 1, 0])
def test_loss_of_a_step__has_the_tax_of_its_rate(rate_bps: int) -> None:
    document = document_of(taxed_step(rate_bps), has_tax=rate_bps > 0)
    assert (document["lines"][-1].startswith(f"Tax: {rate_bps / 100:g} %")) == (rate_bps > 0)


@pytest.mark.parametrize(
    ("step", "has_tax", "reason"),
    [
        (taxed_step(2_500, Fraction(0)), True, "(tax.year_limit reduces or defers sales)"),
        (step_of(500), True, "(no exchange rate into"),
        (step_of(500), False, ""),
    ],
    ids=["yearly limit", "rate of the currency missing", "no tax"],
)
def test_loss_of_a_step__says_why_its_tax_is_not_simulated(step: StepInput, has_tax: bool, reason: str) -> None:
    document = document_of(step, has_tax=has_tax)
    assert ("as if without tax" in document["lines"][0]) == bool(reason)
    assert reason in document["lines"][0]


def test_losses_of_no_trigger_that_is_simulated__are_none() -> None:
    daily = ComparedPolicy(Cron("0 0 * * *", "UTC"), Destination.TARGET)
    assert policy_losses(loss_portfolio(), loss_market(loss_portfolio(), RULE), [daily], None) == {}


def test_the_rule_is_where_costs_and_drift_together_are_least() -> None:
    curve = loss_curve(loss_portfolio(), policy(Threshold(None, 1_500)))
    totals = [loss.total for _, loss in curve.points]
    costs = [loss.costs for _, loss in curve.points]
    assert costs == sorted(costs, reverse=True)
    assert [loss.drift for _, loss in curve.points] == sorted(loss.drift for _, loss in curve.points)
    assert min(totals) == pytest.approx(totals[WIDTH_FACTORS.index(1)], rel=0.04)
    assert totals[0] > 1.5 * min(totals) < totals[-1]
    rule, own, band = curve.marks
    assert rule.loss == curve.points[WIDTH_FACTORS.index(1)][1]
    assert (rule.name, own.name, band.name) == ("tracking", "relative 15 %", "relative 10 %")
    assert own.width_factor == pytest.approx(1.5 * (band.width_factor or 0))


def test_marks_of_one_trigger__are_two_where_the_cooldown_holds() -> None:
    own = replace(policy(), cooldown_s=30 * 86_400)
    rule, waiting, band = loss_curve(loss_portfolio(), own).marks
    assert (rule.name, waiting.name, band.name) == ("tracking", "tracking, cooldown 30 days", "relative 10 %")
    assert waiting.loss.trades < rule.loss.trades / 2
    assert len(loss_curve(loss_portfolio(), replace(own, cooldown_s=10)).marks) == 2


def test_schedule__has_no_width_and_no_estimate_no_mark() -> None:
    by_schedule = loss_curve(loss_portfolio(), policy(Every(7 * 86_400)))
    assert [(mark.name, mark.width_factor is None) for mark in by_schedule.marks][1] == ("every 7 days", True)
    assert len(loss_curve(loss_portfolio(), policy(side=TradeSide.SELL)).marks) == 2


def test_documentation_picture__is_that_of_the_simulation() -> None:
    assert svg(curve()) == PICTURE.read_text(encoding="utf-8"), "run scripts/make/loss_picture.py"


NO_TAX = TaxRule()


def report_spec(relative_bps: int = 1_000, tax: TaxRule = NO_TAX) -> BacktestSpec:
    """Return a back-test of three assets whose gas is ether, with a band."""
    spec = make_spec({"BTC": 5_000, "ETH": 3_000, "USD": 2_000}, Threshold(None, relative_bps), "USD", native="ETH")
    return replace(spec, tax=tax)


def report_section(spec: BacktestSpec, settings: SimulationSettings, prices: dict[str, float]) -> Any:
    """Return the section of the report, which has one."""
    section = loss_section(backtest_loss(spec, settings, prices))
    assert section is not None
    return section


REPORT = SimulationSettings(depth=Fraction(10**8), fee_pips=500, start_value=Fraction(50_000), gas_price_wei=10**9)
CLOSES = {"BTC": 30_000.0, "ETH": 2_000.0, "USD": 1.0}


def test_a_report_has_the_picture_of_its_own_fees_and_band() -> None:
    """The first closes are those of the sample: a swap of 150,000 units of gas at 20 gwei is 0.003 ether."""
    spec = report_spec(2_000)
    settings = replace(REPORT, fee_pips=3_000, gas_price_wei=20 * 10**9)
    loss = backtest_loss(spec, settings, CLOSES)
    assert loss is not None
    assert loss.portfolio.leg_gas == 6
    section = report_section(spec, settings, CLOSES)
    assert "without tax" in section.paragraphs[0]
    assert len(section.paragraphs) == 1
    assert [row[0] for row in section.tables[0].rows] == ["tracking", "relative 20 %", "relative 10 %"]
    costs, drift, policies = section.charts[0]["data"]
    assert len(costs["x"]) == len(drift["x"]) == len(WIDTH_FACTORS)
    assert policies["text"][0].startswith("tracking: ")
    cheaper = backtest_loss(spec, replace(settings, fee_pips=500), {"ETH": 2_000.0})
    assert cheaper is not None
    assert loss_curve(cheaper.portfolio, cheaper.policy).marks[0].loss.total < loss_curve(loss.portfolio, loss.policy).marks[0].loss.total


def test_taxed_backtest_report__has_loss_and_tax_of_each_policy() -> None:
    section = report_section(report_spec(2_000, TAXED), REPORT, CLOSES)
    assert "25 % of the gains of each year, lots by fifo" in section.paragraphs[1]
    (table,) = section.tables
    assert table.header[1:6] == ("costs", "drift", "tax", "loss and tax, bps a year", "with all gains sold")
    assert [row[0] for row in table.rows] == ["tracking", "relative 20 %", "relative 10 %", "tracking after tax"]
    for _, *bps_texts, loss_if_sold, _ in table.rows:
        *parts, loss_and_tax = map(float, bps_texts)
        assert float(loss_if_sold) >= loss_and_tax
        assert sum(parts) == pytest.approx(loss_and_tax, abs=0.2)
    assert len(section.charts[0]["data"][2]["x"]) == 3, "the rule after tax has no width of its own"
    limited = report_section(report_spec(2_000, replace(TAXED, year_limit=Fraction(0))), REPORT, CLOSES)
    assert limited.paragraphs[1] == "Tax is not simulated: tax.year_limit reduces or defers sales."


@pytest.mark.parametrize(
    ("gas_price_wei", "data_fee_wei", "is_free"),
    [
        pytest.param(1, 0, False, id="gas"),
        pytest.param((1, 1, 3), 0, False, id="gas of three prices"),
        pytest.param(0, 1, False, id="data fee"),
        pytest.param(0, 0, True, id="free"),
    ],
)
@pytest.mark.parametrize("prices", [{"BTC": 30_000.0}, {}])
def test_a_report_whose_gas_has_no_price_has_no_picture(
    prices: dict[str, float], gas_price_wei: int | tuple[int, ...], data_fee_wei: int, is_free: bool
) -> None:
    settings = replace(REPORT, start_value=Fraction(1_000), gas_price_wei=gas_price_wei, data_fee_wei=data_fee_wei)
    assert (backtest_loss(report_spec(), settings, prices) is not None) is is_free
    assert (backtest_loss(replace(report_spec(), has_gas_price=False), settings, {"ETH": 2_000.0}) is not None) is is_free


def test_a_report_of_recorded_pools_has_no_picture() -> None:
    spec = make_spec({"ETH": 5_000, "USD": 5_000}, Threshold(None, 1_000), "USD")
    settings = replace(REPORT, start_value=Fraction(1_000), gas_price_wei=0)
    assert loss_section(backtest_loss(spec, settings, {})) is not None
    recorded = replace(settings, recorded_pools=(v3_pool(token("WETH"), token("USDC"), price_of("WETH"), 10**6),))
    assert loss_section(backtest_loss(spec, recorded, {})) is None


def test_portfolio_without_the_numeraire__is_not_traded_for_it() -> None:
    """All targets beside it sum to one, so that its share of zero is no band."""
    whole = loss_portfolio(targets={"WETH": 6_000, "WBTC": 4_000})
    assert 2 < float(own_row(policy(Threshold(None, 1_000)), whole)["loss_bps"]) < 10
    assert float(own_row(policy(), loss_portfolio(targets={"WETH": 10_000}))["loss_bps"]) < 0.01


def test_what_never_trades_loses_more_than_any_figure() -> None:
    document = loss_document(loss_portfolio(gas="100", value=5_000), policy(Threshold(None, 2_000), Destination.HALFWAY))
    assert document["lines"][0].startswith("Over ")
    assert "costs" not in document["lines"][0]
    assert "beside usual years, over 100 bps" in document["lines"][-1], "not about over"
