"""Tests of agent/layers/futures/policy/hedges.py: the cost of a short, the choice, and spot targets beside open hedges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from agent.layers.futures.policy.hedges import (
    apply_hedges,
    comparison_text,
    hedged_value,
    held_hedges,
    margin_share,
    short_costs,
    with_choice,
    with_hedges,
)
from agent.layers.futures.state import FuturesConfig, futures_policy, with_policy
from agent.model import ScreenedToken, StepInput, TokenFinding
from agent.model.futures import FuturesPolicy, FuturesTarget, Hedge, HedgeComparison, MarginAccount
from agent.policy.quarantine import quarantine_tokens
from agent.units import BPS
from tests.support.builders import NOW_S, step_input, token, with_history, with_snapshot
from tests.support.constants import MONTH_S
from tests.support.perpetuals.accounts import market
from tests.support.perpetuals.hedges import DAY_S, E6, E18, HEDGING, OPEN, SHORT, TERMS, USDC, WBTC, WETH, hedge_account
from tests.support.perpetuals.steps import LIMITS

ROOT = Path(__file__).resolve().parents[5]

# --- Costs and choice


def comparison(**changes: Any) -> HedgeComparison:
    """Return a sale that costs 100 against a short that costs 60, with other costs."""
    values = {
        "excess": 900, "hedged_value": 500, "sale_fees": 50, "sale_impact": 30, "sale_tax": 20,
        "hedge_fees": 40, "hedge_funding": 10, "capital_cost": 10, "required_margin": 9,
    } | changes  # fmt: skip
    amounts = {name: Fraction(value) for name, value in values.items()}
    return HedgeComparison(WETH, horizon_s=DAY_S, **amounts)  # type: ignore[arg-type]  # field names


@pytest.mark.parametrize(
    ("changes", "min_saving", "counts_income", "is_hedged"),
    [
        pytest.param({}, 39, False, True, id="saving above the minimum"),
        pytest.param({}, 40, False, False, id="saving at the minimum"),
        pytest.param({"hedge_funding": -30}, 50, True, True, id="income counts"),
        pytest.param({"hedge_funding": -30}, 50, False, False, id="income does not count"),
        pytest.param({"hedged_value": 0}, 0, True, False, id="nothing can be shorted"),
    ],
)
def test_choice_is_the_short_that_saves_more_than_the_minimum(
    changes: dict[str, int], min_saving: int, counts_income: bool, is_hedged: bool
) -> None:
    assert with_choice(comparison(**changes), Fraction(min_saving), counts_income=counts_income).is_hedged is is_hedged


@pytest.mark.parametrize(
    ("funding_daily", "tax", "is_hedged"),
    [
        pytest.param(Fraction(0), 0, False, id="no tax"),
        pytest.param(Fraction(0), 50, True, id="tax"),
        pytest.param(Fraction(-1, 100), 50, False, id="funding above the tax"),
        pytest.param(Fraction(1, 100), 0, True, id="funding received"),
    ],
)
def test_choice_is_the_short_where_tax_outweighs_its_costs(funding_daily: Fraction, tax: int, is_hedged: bool) -> None:
    """Of 2,400 above target half may be shorted: 1,200 cost 1.80 to sell, and 2.40 to short."""
    hedged = Fraction(1_200)
    fees, funding, required, capital = short_costs(replace(market("ETH"), funding_daily=funding_daily), hedged, MONTH_S, Fraction(1, 10), 0)
    costs = comparison(
        excess=2 * hedged, hedged_value=hedged, sale_fees=hedged * 15 / BPS, sale_impact=0, sale_tax=tax,
        hedge_fees=fees, hedge_funding=funding, capital_cost=capital, required_margin=required,
    )  # fmt: skip

    assert (fees, required, capital) == (Fraction(24, 10), 120, 0)
    assert with_choice(costs, Fraction(0), counts_income=True).is_hedged is is_hedged


def test_short_costs_are_fees_twice_funding_and_capital() -> None:
    """10,000 for a fifth of a year: 1 ‰ twice, 0.1 % a day received, and 4 % a year on a quarter."""
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))

    assert short_costs(paying, Fraction(10_000), 73 * DAY_S, Fraction(1, 4), 400) == (20, -730, 2_500, 20)


@pytest.mark.parametrize(
    ("max_leverage_bps", "share"),
    [pytest.param(30_000, Fraction(1, 3), id="leverage"), pytest.param(200_000, Fraction(1, 10), id="initial margin")],
)
def test_margin_share_is_the_larger_of_initial_and_leverage(max_leverage_bps: int, share: Fraction) -> None:
    assert margin_share(market("ETH"), replace(HEDGING, limits=replace(LIMITS, max_leverage_bps=max_leverage_bps))) == share


def test_comparison_text_of_the_docs_is_computed() -> None:
    """10 WETH above target at 2,000, bought at 1,000: half may be shorted."""
    hedged = Fraction(10_000)
    shorted_market = hedge_account(10_000, funding_daily=Fraction(-2, 10_000)).market("ETH")
    fees, funding, required, capital = short_costs(
        shorted_market, hedged, TERMS.horizon_s, margin_share(shorted_market, HEDGING), TERMS.capital_cost_bps
    )
    costs = replace(
        comparison(
            excess=2 * hedged, hedged_value=hedged, sale_fees=hedged * 3 / 1_000, sale_impact=0,
            sale_tax=5_000 * Fraction(TERMS.tax_rate_bps, BPS),
            hedge_fees=fees, hedge_funding=funding, capital_cost=capital, required_margin=required,
        ),
        horizon_s=TERMS.horizon_s,
    )  # fmt: skip

    choice = with_choice(costs, hedged * TERMS.min_saving_bps / BPS, counts_income=False)

    assert comparison_text(choice, "WETH", 0) in (ROOT / "docs" / "futures.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        pytest.param(comparison(hedge_funding=-30), ["funding receives 30", "it is sold"], id="funding received"),
        pytest.param(
            replace(comparison(), is_hedged=True),
            ["900 to sell, of which 500 may be shorted", "funding costs 10", "it is shorted"],
            id="shorted",
        ),
        pytest.param(replace(comparison(hedged_value=0), reason="ETH is paused"), ["WETH is sold: ETH is paused"], id="no short"),
    ],
)
def test_comparison_text_names_the_choice_and_its_reason(costs: HedgeComparison, words: Sequence[str]) -> None:
    text = comparison_text(costs, "WETH", 0)

    assert all(word in text for word in words), text


# --- Hedges that the account still has


TARGETED = replace(HEDGING, targets=(FuturesTarget("ETH", 5_000),), leverage_bps=10_000)
TARGETED_BTC = replace(TARGETED, targets=(FuturesTarget("BTC", 5_000),))


@pytest.mark.parametrize(
    ("eth", "policy", "hedge", "size"),
    [
        pytest.param(-5, HEDGING, OPEN, -5, id="whole short"),
        pytest.param(-3, HEDGING, OPEN, -3, id="part of it liquidated"),
        pytest.param(-9, HEDGING, OPEN, -5, id="larger short"),
        pytest.param(0, HEDGING, OPEN, 0, id="nothing held"),
        pytest.param(2, HEDGING, OPEN, 0, id="long"),
        pytest.param(2, TARGETED, OPEN, -5, id="beside a target"),
        pytest.param(2, replace(TARGETED, leverage_bps=0), OPEN, 0, id="beside a target without leverage"),
        pytest.param(-5, HEDGING, replace(OPEN, size_raw=0), 0, id="closed"),
        pytest.param(-5, TARGETED_BTC, replace(OPEN, market="BTC"), 0, id="target in a market that is gone"),
    ],
)
def test_held_hedges_are_at_most_the_short_without_a_target(eth: int, policy: FuturesPolicy, hedge: Hedge, size: int) -> None:
    hedges = held_hedges((hedge,), hedge_account(10_000, eth * E18), policy)

    assert hedges == ((replace(hedge, size_raw=size * E18),) if size else ())


def test_held_hedges_of_one_market_are_together_at_most_its_short() -> None:
    hedges = held_hedges((OPEN, replace(OPEN, token=WBTC, size_raw=-3 * E18)), hedge_account(10_000, -6 * E18), HEDGING)
    assert [hedge.size_raw for hedge in hedges] == [-5 * E18, -E18]


# --- Spot targets


def spot_step(margin_account: MarginAccount | None, targets: dict[str, int], *hedges: Hedge) -> StepInput:
    """Return a step of 30,000 of WETH beside 35,000 of WBTC and 25,000 of USDC that hedges."""
    values = {symbol: value for symbol, value in (("WETH", 30_000), ("WBTC", 35_000), ("USDC", 25_000)) if symbol in targets}
    step = with_snapshot(step_input(targets, values, depth=100_000_000), futures=margin_account)
    return with_history(with_policy(step, HEDGING), hedges=hedges)


FIFTHS = {"WETH": 2_000, "WBTC": 4_000, "USDC": 4_000}
NINE_TENTHS = {"WETH": 9_000, "WBTC": 500, "USDC": 500}
HUNDREDTH = Hedge("ETH", WETH, -E18 // 2, NOW_S, Fraction(1))
"""1,000 of 100,000, the account's 10,000 included."""
WBTC_HUNDREDTH = replace(HUNDREDTH, token=WBTC)
ALL_OF_IT = {"WETH": 10_000, "WBTC": 0, "USDC": 0}
MORE_THAN_ALL = {"WETH": 9_455, "WBTC": 545, "USDC": 0}
"""1,000 and 100 are added, as far as the 500 of USDC reach."""
MAXIMUM = {"WETH": 9_300, "WBTC": 600, "USDC": 100}


def with_maximum(step: StepInput, max_bps: int) -> StepInput:
    """Return the step whose WETH may be so much of the portfolio."""
    assets = tuple(replace(asset, max_bps=max_bps) if asset.token.symbol == "WETH" else asset for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize(
    ("step", "hedges", "targets"),
    [
        pytest.param(spot_step(SHORT, FIFTHS), (OPEN,), {"WETH": 3_000, "WBTC": 3_500, "USDC": 3_500}, id="a tenth hedged"),
        pytest.param(spot_step(SHORT, FIFTHS), (HUNDREDTH,), {"WETH": 2_100, "WBTC": 3_950, "USDC": 3_950}, id="a hundredth hedged"),
        pytest.param(with_maximum(spot_step(SHORT, FIFTHS), 2_500), (OPEN,), {"WETH": 2_500, "WBTC": 3_750, "USDC": 3_750}, id="maximum"),
        pytest.param(with_maximum(spot_step(SHORT, FIFTHS), 1_500), (OPEN,), FIFTHS, id="maximum below its target"),
        pytest.param(spot_step(SHORT, FIFTHS), (replace(OPEN, token="0x" + "1" * 40),), FIFTHS, id="token that is no asset"),
        pytest.param(spot_step(SHORT, NINE_TENTHS), (OPEN,), ALL_OF_IT, id="all of it"),
        pytest.param(spot_step(SHORT, NINE_TENTHS), (OPEN, WBTC_HUNDREDTH), MORE_THAN_ALL, id="more than all of it"),
        pytest.param(spot_step(SHORT, NINE_TENTHS), (replace(OPEN, size_raw=-10 * E18),), ALL_OF_IT, id="two tenths beside a tenth"),
        pytest.param(with_maximum(spot_step(SHORT, NINE_TENTHS), 9_300), (OPEN, WBTC_HUNDREDTH), MAXIMUM, id="maximum beside another"),
        pytest.param(spot_step(SHORT, FIFTHS), (), FIFTHS, id="no hedge"),
        pytest.param(spot_step(None, FIFTHS), (OPEN,), FIFTHS, id="unknown account"),
    ],
)  # fmt: skip
def test_with_hedges_adds_the_hedged_value_to_its_target(step: StepInput, hedges: tuple[Hedge, ...], targets: dict[str, int]) -> None:
    """The others shrink in proportion, at most to zero; USDC counts with its margin."""
    assert {asset.token.symbol: asset.target_bps for asset in with_hedges(step, hedges).effective_assets} == targets


def test_with_hedges_counts_from_the_targets_before_them() -> None:
    """A second application does not raise the target again."""
    step = with_hedges(spot_step(SHORT, FIFTHS), (OPEN,))

    assert step.config(FuturesConfig).targets_before_hedges_bps == ((WETH, 2_000), (WBTC, 4_000), (USDC, 4_000))
    assert with_hedges(step, (OPEN,)).effective_assets == step.effective_assets


def test_with_hedges_of_an_unread_balance_leaves_the_targets() -> None:
    step = spot_step(SHORT, FIFTHS)
    step_after = with_hedges(with_snapshot(step, holdings=step.snapshot.holdings[1:]), (OPEN,))

    assert futures_policy(step_after).hedges == (OPEN,)
    assert step_after.effective_assets == step.effective_assets


@pytest.mark.parametrize(
    ("symbol", "targets"),
    [
        pytest.param("WBTC", {"WETH": 6_538, "WBTC": 0, "USDC": 3_462}, id="WBTC"),
        pytest.param("WETH", {"WETH": 0, "WBTC": 3_333, "USDC": 6_667}, id="WETH"),
    ],
)
def test_apply_hedges_raises_no_quarantined_asset(symbol: str, targets: dict[str, int]) -> None:
    """Of 35,000 of WBTC or 30,000 of WETH nothing counts; the rest shares the targets."""
    step = spot_step(SHORT, FIFTHS | {"WETH": 4_000, "WBTC": 2_000}, OPEN)

    step_after = apply_hedges(quarantine_tokens(step, [ScreenedToken(token(symbol).address, TokenFinding.PAUSED)]))

    assert {asset.token.symbol: asset.target_bps for asset in step_after.effective_assets} == targets


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(spot_step(hedge_account(10_000, -5 * E18, asset=""), {"WBTC": 5_000, "USDC": 5_000}, OPEN), id="removed"),
        pytest.param(quarantine_tokens(spot_step(SHORT, FIFTHS, OPEN), [ScreenedToken(WETH, TokenFinding.PAUSED)]), id="in quarantine"),
    ],
)
def test_apply_hedges_of_left_out_assets_leaves_the_targets(step: StepInput) -> None:
    assert apply_hedges(step).targets == step.targets


def test_hedged_value_is_that_at_the_index() -> None:
    step = spot_step(hedge_account(10_000, -5 * E18, mark=Fraction(1_900)), FIFTHS)

    assert hedged_value(step.snapshot, step.portfolio, OPEN) == 10_000 * E6
    assert hedged_value(with_snapshot(step, futures=None).snapshot, step.portfolio, OPEN) == 0
