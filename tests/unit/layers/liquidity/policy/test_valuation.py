"""Tests of agent/layers/liquidity/policy/valuation.py: amounts, value, expected loss and reports of confirmed positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import isqrt

import pytest

from agent import codec, guards
from agent.errors import ConfigError, Refused
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.layers.liquidity.policy.valuation import LossForecast, PositionReport, RangeState
from agent.model import (
    AdjustLiquidity,
    AssetDrift,
    Destination,
    Halt,
    Hold,
    LpMissingPosition,
    LpPosition,
    LpV2Position,
    LpV3Position,
    Rebalance,
    Snapshot,
    StepInput,
    UnreadableItem,
)
from agent.planning import planner
from agent.policy.decide import decide
from agent.policy.drift import band_edge_prices, compute_drifts, corrections, investable_total, rebalance_goal
from tests.support import lp_worlds
from tests.support.builders import ETHER, address, step_input, with_limits, with_snapshot
from tests.support.lp_worlds import PRICES, TOKENS, USD, confirmed_position, redeemable_amounts, roomy
from tests.support.plans import evidence, sell_weth
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

Holder = LpV2Position | LpV3Position | LpMissingPosition


def raw_pair(weth: Fraction | int, usd: Fraction | int) -> tuple[int, int]:
    """Return the base units of so much WETH and so many dollars, in the order of the pool's tokens."""
    raw_by_token = {WETH.address: int(Fraction(weth) * ETHER), USDC.address: int(Fraction(usd) * USD)}
    return raw_by_token[TOKENS[0]], raw_by_token[TOKENS[1]]


def pair_share(usd: int, pushed: Fraction | int = 1, **changes: object) -> LpV2Position:
    """Return a tenth of a pair, worth `usd` at 2,000 a WETH, in which WETH is `pushed` times as dear."""
    root = Fraction(isqrt(int(pushed * 10**12)), 10**6)
    reserves = raw_pair(Fraction(usd, 400) / root, 5 * usd * root)
    return lp_worlds.v2(10**18, 10**19, reserves, k_last=0, **changes)


def step_with(*pool_positions: Holder, values: Mapping[str, int | Fraction] | None = None, **changes: object) -> StepInput:
    """Return a step of WETH and USDC, half and half, with these positions confirmed."""
    step = step_input(values=values or {"WETH": 4_000, "USDC": 4_000}, **changes)  # type: ignore[arg-type]  # keywords of step_input
    confirmed = tuple(confirmed_position(position, raw_pair(Fraction(1, 2), 1_000)) for position in pool_positions)
    return replace(with_snapshot(step, positions=pool_positions), portfolio=replace(step.portfolio, positions=confirmed))


def drifts_of(step: StepInput) -> dict[str, AssetDrift]:
    return {drift.symbol: drift for drift in compute_drifts(step, PRICES)}


# --- amounts in weights and totals


def test_position_counts_in_weights_and_cannot_be_spent() -> None:
    step = step_with(pair_share(2_000), values={"WETH": 3_000, "USDC": 5_000})
    weth = drifts_of(step)["WETH"]
    usdc = drifts_of(step)["USDC"]

    assert investable_total(compute_drifts(step, PRICES)) == 10_000 * USD
    assert (weth.weight_bps, usdc.weight_bps) == (4_000, 6_000)
    assert (weth.raw, weth.investable_raw, weth.raw_at(POSITIONS_PLACE)) == (15 * ETHER // 10, 15 * ETHER // 10, ETHER // 2)
    assert (usdc.raw, usdc.raw_at(POSITIONS_PLACE)) == (5_000 * USD, 1_000 * USD)


def test_position_is_a_place_of_each_of_its_tokens() -> None:
    position = pair_share(2_000)

    places = valuation.holdings_by_place(step_with(position), PRICES)

    assert places == {(position.name, token): raw for token, raw in zip(TOKENS, raw_pair(Fraction(1, 2), 1_000), strict=True)}


def test_position_counts_its_uncollected_fees() -> None:
    empty_range = lp_worlds.v3(liquidity=0, owed=raw_pair(Fraction(1, 2), 1_000), core_owed=raw_pair(1, 2_000))
    step = step_with(pair_share(2_000), empty_range)

    assert {symbol: drift.raw_at(POSITIONS_PLACE) for symbol, drift in drifts_of(step).items()} == {"WETH": ETHER, "USDC": 2_000 * USD}
    assert investable_total(compute_drifts(step, PRICES)) == 12_000 * USD


@pytest.mark.parametrize("pushed", [Fraction(1, 4), Fraction(4), Fraction(121, 100)])
def test_position_in_a_pushed_pool_counts_as_before(pushed: Fraction) -> None:
    """T3: weights, totals and expected loss are at reference prices."""
    level_step = step_with(pair_share(2_000))
    pushed_step = step_with(pair_share(2_000, pushed))
    level_loss = valuation.expected_loss(level_step.snapshot, level_step.portfolio, PRICES)
    pushed_loss = valuation.expected_loss(pushed_step.snapshot, pushed_step.portfolio, PRICES)

    for symbol, level_drift in drifts_of(level_step).items():
        pushed_drift = drifts_of(pushed_step)[symbol]
        level_raw = level_drift.raw_at(POSITIONS_PLACE)
        assert abs(level_raw - pushed_drift.raw_at(POSITIONS_PLACE)) <= 2 + level_raw // 10**5
        assert (level_drift.weight_bps, level_drift.is_outside_band) == (pushed_drift.weight_bps, pushed_drift.is_outside_band)
    assert redeemable_amounts(pushed_step.snapshot.positions[0]) != redeemable_amounts(level_step.snapshot.positions[0])
    assert abs(pushed_loss / level_loss - 1) < Fraction(1, 10**5)


def test_position_without_a_confirmation_does_not_count() -> None:
    """T11: whatever the wallet was given."""
    step = step_with(pair_share(2_000))
    gifts = (replace(pair_share(10**9), pair=address("another pair")), lp_worlds.v3(owed=raw_pair(9, 9), core_owed=raw_pair(9, 9)))
    step_with_gifts = with_snapshot(step, positions=(*gifts, *step.snapshot.positions))
    unconfirmed_step = replace(step_with_gifts, portfolio=replace(step.portfolio, positions=()))

    assert compute_drifts(step_with_gifts, PRICES) == compute_drifts(step, PRICES)
    assert investable_total(compute_drifts(unconfirmed_step, PRICES)) == 8_000 * USD


def test_alert_prices_count_what_lies_in_positions() -> None:
    low, high = band_edge_prices(compute_drifts(step_with(pair_share(2_000)), PRICES))[WETH.address]

    assert (low, high) == (PRICES[WETH.address] * Fraction(9, 11), PRICES[WETH.address] * Fraction(11, 9))


# --- unknown positions


PAIR_NAME = f"uniswap_v2 {lp_worlds.PAIR}"


@pytest.mark.parametrize(
    ("unreadable_items", "reason"),
    [
        pytest.param((), "it was not read", id="not read"),
        pytest.param((UnreadableItem(f"position {PAIR_NAME}", lp_worlds.PAIR, "it is somebody's"),), "it is somebody's", id="unreadable"),
    ],
)
def test_unknown_position_halts_by_name_and_is_never_zero(unreadable_items: tuple[UnreadableItem, ...], reason: str) -> None:
    known_step = step_with(pair_share(2_000))
    step = with_snapshot(known_step, positions=(), unreadable_items=unreadable_items)
    decision = decide(step).decision
    goal = rebalance_goal(compute_drifts(known_step, PRICES), Destination.TARGET)

    assert isinstance(decision, Halt)
    assert f"position {PAIR_NAME}: {reason}" in decision.reason
    for use in (
        lambda: compute_drifts(step, PRICES),
        lambda: planner.plan(step, Rebalance("test", goal)),
        lambda: valuation.total_value(step.snapshot, step.portfolio, PRICES),
    ):
        with pytest.raises(Refused, match="position uniswap_v2"):
            use()


def test_position_of_a_token_that_is_no_asset_halts() -> None:
    step = step_with(pair_share(2_000))
    [confirmed] = step.portfolio.positions
    changed_step = replace(step, portfolio=replace(step.portfolio, positions=(replace(confirmed, token0=address("another token")),)))

    decision = decide(changed_step).decision

    assert isinstance(decision, Halt)
    assert "not in the portfolio's assets" in decision.reason


def test_burned_position_counts_zero_with_a_warning() -> None:
    step = step_with(lp_worlds.gone(), values={"WETH": 5_000, "USDC": 5_000})
    plan = sell_weth(step)

    [warning] = valuation.position_warnings(step.snapshot, step.portfolio)

    assert mentions(warning, "uniswap_v3 #42", "not exist")
    assert isinstance(decide(step).decision, Hold)
    assert investable_total(compute_drifts(step, PRICES)) == 10_000 * USD
    guards.require_all_passed(plan, guards.judge(step, plan, evidence(step, plan)))


def test_warnings_are_of_confirmed_positions_alone() -> None:
    burned = lp_worlds.gone()
    step = step_with(pair_share(2_000), burned)
    unread_step = with_snapshot(step, positions=(burned, replace(burned, token_id=43)))

    [warning] = valuation.position_warnings(unread_step.snapshot, step.portfolio)

    assert mentions(warning, "uniswap_v3 #42", "not exist")


# --- records


def test_positions_are_read_back_from_a_record() -> None:
    pool_positions = (pair_share(2_000), lp_worlds.v3(inside_last_x128=(2**255, 3)), lp_worlds.gone())
    step = with_snapshot(step_with(pair_share(2_000)), positions=pool_positions)

    assert codec.loads(StepInput, codec.dumps(step)) == step
    with pytest.raises(ConfigError, match="Curve"):
        codec.loads(Snapshot, codec.dumps(step.snapshot).replace("LpMissingPosition", "Curve"))


def test_record_from_before_positions_is_read_without() -> None:
    record = codec.to_jsonable(step_input())
    del record["snapshot"]["positions"], record["portfolio"]["positions"], record["limits"]["lp_max_weight_bps"]

    assert codec.from_jsonable(StepInput, record) == step_input()


# --- swaps beside positions


def test_plan_brings_wallet_and_positions_to_the_target_together() -> None:
    step = step_with(pair_share(2_000), values={"WETH": 5_000, "USDC": 3_000})
    decision_result = decide(step)
    decision = decision_result.decision
    assert isinstance(decision, Rebalance)

    plan = planner.plan(step, decision)
    sold_raw = sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == WETH.address)

    assert corrections(decision_result.drifts, decision.goal) == {WETH.address: -1_000 * USD, USDC.address: 1_000 * USD}
    assert abs(dict(plan.weights_after_bps)[WETH.address] - 5_000) <= 1
    assert abs(sold_raw * PRICES[WETH.address] - 1_000 * USD) < 5 * USD
    assert dict(plan.holdings_after)[WETH.address] == 25 * ETHER // 10 - sold_raw
    assert all(judged.passed for judged in guards.judge(step, plan, evidence(step, plan)))


WIDE_LIMITS = roomy(
    lp_max_weight_bps=9_000,
    price_impact_bps=2_000,
    turnover_bps=None,
    daily_turnover_bps=None,
    impermanent_loss_bps=None,
    plan_cost_bps=None,
)


def test_plan_leaves_what_lies_in_positions() -> None:
    """WETH is 6,000 of 10,000 against a target of 1,000; only the 3,000 in the wallet can go."""
    step = step_with(
        pair_share(6_000), values={"WETH": 3_000, "USDC": 1_000}, targets_bps={"WETH": 1_000, "USDC": 9_000}, bounds=WIDE_LIMITS
    )
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)
    tight_step = with_limits(step, lp_max_weight_bps=5_000)

    plan = planner.plan(step, decision)

    assert dict(plan.holdings_after)[WETH.address] * PRICES[WETH.address] < USD // 100
    assert any("liquidity positions" in item.why for item in plan.skipped)
    assert [judged.guard for judged in guards.judge(step, plan, evidence(step, plan)) if not judged.passed] == []
    assert [judged.guard for judged in guards.judge(tight_step, plan, evidence(tight_step, plan)) if not judged.passed] == ["lp_max_weight"]
    assert isinstance(decide(tight_step).decision, AdjustLiquidity), "the excess is withdrawn first"


def test_plan_is_refused_if_all_of_a_drift_lies_in_positions() -> None:
    step = step_with(pair_share(6_000), values={"WETH": 0, "USDC": 1_000}, targets_bps={"WETH": 1_000, "USDC": 9_000}, bounds=WIDE_LIMITS)
    decision = decide(step).decision
    assert isinstance(decision, Rebalance)

    with pytest.raises(Refused, match="liquidity positions"):
        planner.plan(step, decision)


# --- reports


def report_of(position: Holder, entry_raw: tuple[int, int] = (1, 1)) -> PositionReport:
    """Return the report of one position that was provided with these amounts."""
    step = step_with(position)
    portfolio = replace(step.portfolio, positions=(confirmed_position(position, entry_raw),))
    [report] = valuation.position_reports(step.snapshot, portfolio, PRICES)
    return report


def test_report_of_a_pair_has_its_loss_and_fees() -> None:
    """Provided half a WETH and 4,000 at 8,000; WETH fell to 2,000, and √k grew by a tenth.

    √(0.5 · 4,000) stands for 4,000 where holding is worth 5,000: a loss of 20 %, as for any fourfold price.
    """
    report = report_of(lp_worlds.v2(10**18, 10**19, raw_pair(11, 22_000), k_last=0), raw_pair(Fraction(1, 2), 4_000))

    assert (report.state, report.value, report.hold_value, report.pool_deviation) == (RangeState.WHOLE, 4_400 * USD, 5_000 * USD, 0)
    assert report.fees == pytest.approx(400 * USD, abs=USD // 1_000)
    assert report.loss == pytest.approx(1_000 * USD, abs=USD // 1_000)


@pytest.mark.parametrize(
    ("entry_weth", "fees_usd"),
    [
        pytest.param(Fraction(1, 2), 0, id="none yet"),
        pytest.param(1, 0, id="less than was provided"),
        pytest.param(Fraction(1, 4), 1_000, id="half of it"),
    ],
)
def test_report_has_fees_of_a_pair_from_the_growth_of_its_root(entry_weth: Fraction, fees_usd: int) -> None:
    """The share stands for half a WETH and 1,000; with both amounts halved at entry, half of it is fees."""
    report = report_of(pair_share(2_000), raw_pair(entry_weth, entry_weth * 2_000))

    assert report.fees == pytest.approx(fees_usd * USD, abs=1)
    assert report.loss == report.hold_value - 2_000 * USD + report.fees


@pytest.mark.parametrize("numeraire", ["USDC", "WETH"])
def test_forecasts_move_the_token_that_is_not_the_numeraire(numeraire: str) -> None:
    """When the moving token halves, holding is worth three quarters; the pair loses 1 - 2·√0.5 / 1.5 of that."""
    step = step_with(pair_share(2_000))
    portfolio = replace(step.portfolio, numeraire=USDC if numeraire == "USDC" else WETH)
    prices = {token: price / PRICES[portfolio.numeraire.address] for token, price in PRICES.items()}
    half_loss = 1 - 2 * 0.5**0.5 / 1.5

    [report] = valuation.position_reports(step.snapshot, portfolio, prices)
    half: LossForecast = report.forecasts[0]

    assert [forecast.move_bps for forecast in report.forecasts] == [-5_000, -2_500, -1_000, 1_000, 2_500, 5_000]
    assert {forecast.moving_token for forecast in report.forecasts} == {"WETH" if numeraire == "USDC" else "USDC"}
    assert float(half.loss_share) == pytest.approx(half_loss, abs=1e-11)
    assert float(half.loss_value) == pytest.approx(float(report.value) * 0.75 * half_loss, rel=1e-9)


@pytest.mark.parametrize(("pushed", "deviation"), [(Fraction(121, 100), 0.21), (Fraction(1), 0)], ids=["pushed", "level"])
def test_report_has_the_deviation_of_its_pool(pushed: Fraction, deviation: float) -> None:
    """The price of token0 in token1; USDC is token0, so that a dearer WETH is a lower price."""
    report = report_of(pair_share(2_000, pushed))

    assert TOKENS[0] == USDC.address
    assert float(report.pool_deviation or 0) == pytest.approx(1 - 1 / (1 + deviation), abs=1e-5)


REFERENCE_TICK = 200_311
"""Tick of 2,000 USDC a WETH: WETH base units for a base unit of USDC."""


@pytest.mark.parametrize(
    ("position", "state"),
    [
        pytest.param(lp_worlds.v3(REFERENCE_TICK + 1, REFERENCE_TICK + 600), RangeState.BELOW, id="below its range"),
        pytest.param(lp_worlds.v3(REFERENCE_TICK, REFERENCE_TICK + 600), RangeState.INSIDE, id="at its lower edge"),
        pytest.param(lp_worlds.v3(REFERENCE_TICK - 600, REFERENCE_TICK + 1), RangeState.INSIDE, id="below its upper edge"),
        pytest.param(lp_worlds.v3(REFERENCE_TICK - 600, REFERENCE_TICK), RangeState.ABOVE, id="above its range"),
        pytest.param(lp_worlds.v3(liquidity=0), RangeState.EMPTY, id="no liquidity"),
        pytest.param(lp_worlds.gone(), RangeState.GONE, id="burned"),
    ],
)
def test_report_says_where_the_reference_is_in_the_range(position: LpPosition, state: RangeState) -> None:
    report = report_of(position)

    assert report.state is state
    assert (report.lvr_per_day > 0) == (state is RangeState.INSIDE)
    assert bool(report.forecasts) == (state not in (RangeState.EMPTY, RangeState.GONE))
