"""Maximum weights in decisions: they end bands, and orders that free a weight fill the others up to their maximum."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.strategies.policy.netting import strategy_drifts
from agent.layers.strategies.state import StrategyHealth, StrategyState
from agent.model import Every, OrderKind, Rebalance, Threshold, Trigger, WeightReallocation
from agent.policy.decide import decide
from agent.policy.drift import band, overweight_messages, with_trigger_bands
from agent.policy.orders.exits import apply_orders
from tests.support.builders import raw, strategy
from tests.support.decisions.max_weights import step_with_max_weights
from tests.support.standing_orders import terms, three
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

RELATIVE_TENTH = Threshold(None, 1_000)


@pytest.mark.parametrize(
    ("trigger", "max_bps", "band_bps"),
    [
        pytest.param(RELATIVE_TENTH, None, (4_500, 5_500), id="no maximum"),
        pytest.param(RELATIVE_TENTH, 5_200, (4_500, 5_200), id="a maximum within the band ends it"),
        pytest.param(RELATIVE_TENTH, 9_000, (4_500, 5_500), id="a maximum beyond the band"),
        pytest.param(RELATIVE_TENTH, 5_000, (4_500, 5_500), id="at the target, else every move would trade"),
        pytest.param(Every(86_400), 5_200, (5_000, 5_000), id="no band"),
    ],
)
def test_band_ends_at_the_maximum_weight(trigger: Trigger, max_bps: int | None, band_bps: tuple[int, int]) -> None:
    assert band(trigger, 5_000, None, max_bps) == band_bps


def test_weight_above_its_maximum_is_outside_its_band_and_named() -> None:
    decided = decide(step_with_max_weights({"WETH": 5_200}, {"WETH": 5_300, "USDC": 4_700}))

    assert isinstance(decided.decision, Rebalance)
    assert [drift.band_high_bps for drift in decided.drifts] == [5_200, 5_500]
    assert with_trigger_bands(decided.drifts, Threshold(300, None))[0].band_high_bps == 5_200
    assert mentions(overweight_messages(decided.drifts)[0], "WETH", "53 %", "limits.max_weight", "52 %")


def test_weight_at_its_maximum_is_not_named() -> None:
    decided = decide(step_with_max_weights({"WETH": 5_300}, {"WETH": 5_300, "USDC": 4_700}))

    assert overweight_messages(decided.drifts) == ()


@pytest.mark.parametrize(
    ("wbtc_max_bps", "targets_bps"),
    [
        pytest.param(None, {"WETH": 0, "WBTC": 6_000, "USDC": 4_000}, id="no maximum"),
        pytest.param(4_500, {"WETH": 0, "WBTC": 4_500, "USDC": 5_500}, id="the rest waits as cash"),
    ],
)
def test_order_that_frees_a_weight_fills_others_to_their_maximum(wbtc_max_bps: int | None, targets_bps: dict[str, int]) -> None:
    bot = three(terms("WETH", OrderKind.STOP_LOSS, 1_500), absent=WeightReallocation.REDISTRIBUTE)
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    bot.look({"WETH": 1_500, "WBTC": 60_000})
    step = bot.seen({"WETH": 1_500, "WBTC": 60_000})
    max_bps_by_symbol = {"WBTC": wbtc_max_bps}
    assets = tuple(replace(asset, max_bps=max_bps_by_symbol.get(asset.token.symbol)) for asset in step.portfolio.assets)

    ordered_step = apply_orders(replace(step, portfolio=replace(step.portfolio, assets=assets)))

    assert {asset.token.symbol: asset.target_bps for asset in ordered_step.effective_assets} == targets_bps


def test_maximum_weight_is_of_the_portfolio_and_of_no_strategy() -> None:
    """A strategy that wants 90 % of WETH for half of the capital has a band of 9 points."""
    step = step_with_max_weights({"WETH": 9_100})
    trend = strategy("trend", 5_000, {"WETH": 9_000, "USDC": 1_000})
    state = StrategyState("trend", StrategyHealth.ACTIVE, 0)
    price_by_token = {WETH.address: Fraction(2_000 * 10**6, 10**18), USDC.address: Fraction(1)}
    raw_by_token = {WETH.address: raw(Fraction(46, 20), WETH), USDC.address: raw(400, USDC)}

    drifts, _ = strategy_drifts(step, trend, state, raw_by_token, price_by_token)

    assert drifts[0].weight_bps == 9_200
    assert drifts[0].band_high_bps == 9_900
    assert not drifts[0].is_outside_band
