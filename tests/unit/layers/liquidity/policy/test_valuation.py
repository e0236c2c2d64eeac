"""Positions in the portfolio: they count in weights and totals at reference prices, cannot be spent, and keep to their limits."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import isqrt

import pytest

from agent import codec, guards
from agent.amm.lp import positions
from agent.errors import ConfigError, Refused
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.model import AdjustLiquidity, Destination, Halt, Hold, Limits, LpV2Position, Rebalance, Snapshot, StepInput, UnreadableItem
from agent.planning import planner
from agent.policy.decide import decide
from agent.policy.drift import band_edge_prices, compute_drifts, corrections, investable_total, rebalance_goal
from agent.reference import reference_prices
from tests.support import lp_worlds
from tests.support.builders import ETHER, address, limits, step_input, token, with_limits, with_snapshot
from tests.support.constants import USD
from tests.support.plans import evidence, sell_weth, verdict
from tests.support.text import mentions

WETH = token("WETH").address
USDC = token("USDC").address
PRICES = {WETH: Fraction(2_000 * USD, ETHER), USDC: Fraction(1)}


def raw(weth: Fraction | int, usd: Fraction | int) -> tuple[int, int]:
    """Base units of so much WETH and so many dollars, in the order of the tokens."""
    amounts = {WETH: int(Fraction(weth) * ETHER), USDC: int(Fraction(usd) * USD)}
    first, second = lp_worlds.TOKENS
    return amounts[first], amounts[second]


def share(usd: int, pushed: Fraction = Fraction(1), **changes: object) -> LpV2Position:
    """A tenth of a pair, worth `usd` at 2,000 a WETH; `pushed` is how much dearer WETH is in the pair."""
    weth = Fraction(usd, 4_000) * 10
    money = Fraction(usd, 2) * 10
    root = Fraction(isqrt(int(pushed * 10**12)), 10**6)
    return lp_worlds.v2(10**18, 10**19, raw(weth / root, money * root), k_last=0, **changes)


def holding(position: LpV2Position, values: dict[str, int | Fraction] | None = None, **changes: object) -> StepInput:
    """A portfolio of WETH and USDC, half and half, with this position confirmed."""
    step = step_input(values=values or {"WETH": 4_000, "USDC": 4_000}, **changes)  # type: ignore[arg-type]  # keywords of step_input
    mine = replace(step.portfolio, positions=(lp_worlds.confirmed_position(position, raw(Fraction(1, 2), 1_000)),))
    return replace(with_snapshot(step, positions=(position,)), portfolio=mine)


def test_position__counts_in_weights_but_cannot_be_spent() -> None:
    drifts = {d.symbol: d for d in compute_drifts(holding(share(2_000), {"WETH": 3_000, "USDC": 5_000}), PRICES)}
    assert investable_total(tuple(drifts.values())) == 10_000 * USD
    assert (drifts["WETH"].weight_bps, drifts["USDC"].weight_bps) == (4_000, 6_000)
    assert (drifts["WETH"].raw, drifts["WETH"].investable_raw, drifts["WETH"].raw_at(POSITIONS_PLACE)) == (
        15 * ETHER // 10,
        15 * ETHER // 10,
        ETHER // 2,
    )
    assert (drifts["USDC"].raw, drifts["USDC"].raw_at(POSITIONS_PLACE)) == (5_000 * USD, 1_000 * USD)


def test_position__is_a_place_of_each_of_its_tokens() -> None:
    own = share(2_000)
    places = valuation.holdings_by_place(holding(own), PRICES)
    assert places == {(own.name, token): raw for token, raw in zip(lp_worlds.TOKENS, raw(Fraction(1, 2), 1_000), strict=True)}


def test_uncollected_fees_count_too() -> None:
    own = lp_worlds.v3(liquidity=0, owed=raw(Fraction(1, 2), 1_000), core_owed=raw(1, 2_000))
    step = holding(share(2_000))
    confirmed = replace(step.portfolio, positions=(*step.portfolio.positions, lp_worlds.confirmed_position(own)))
    step = replace(with_snapshot(step, positions=(*step.snapshot.positions, own)), portfolio=confirmed)
    assert {d.symbol: d.raw_at(POSITIONS_PLACE) for d in compute_drifts(step, PRICES)} == {"WETH": ETHER, "USDC": 2_000 * USD}
    assert investable_total(compute_drifts(step, PRICES)) == 12_000 * USD


@pytest.mark.parametrize("pushed", [Fraction(1, 4), Fraction(4), Fraction(121, 100)])
def test_pushed_pool__moves_no_weight_total_or_forecast(pushed: Fraction) -> None:
    unmoved = holding(share(2_000))
    moved = holding(share(2_000, pushed))
    assert positions.redeemable_amounts(moved.snapshot.positions[0]) != positions.redeemable_amounts(unmoved.snapshot.positions[0])
    for before, after in zip(compute_drifts(unmoved, PRICES), compute_drifts(moved, PRICES), strict=True):
        assert abs(before.raw_at(POSITIONS_PLACE) - after.raw_at(POSITIONS_PLACE)) <= 2 + before.raw_at(POSITIONS_PLACE) // 10**5
        assert (before.weight_bps, before.is_outside_band) == (after.weight_bps, after.is_outside_band)
    assert abs(
        valuation.expected_loss(moved.snapshot, moved.portfolio, PRICES)
        / valuation.expected_loss(unmoved.snapshot, unmoved.portfolio, PRICES)
        - 1
    ) < Fraction(1, 10**5)


def test_reading_beside_confirmed_positions__does_not_count() -> None:
    step = holding(share(2_000))
    gift = replace(share(10**9), pair=address("another pair"))
    gifted = with_snapshot(step, positions=(gift, *step.snapshot.positions, lp_worlds.v3(owed=raw(9, 9), core_owed=raw(9, 9))))
    assert compute_drifts(gifted, PRICES) == compute_drifts(step, PRICES)
    none = replace(gifted, portfolio=replace(gifted.portfolio, positions=()))
    assert investable_total(compute_drifts(none, PRICES)) == 8_000 * USD


def test_alert_prices_count_what_lies_in_positions() -> None:
    low, high = band_edge_prices(compute_drifts(holding(share(2_000)), PRICES))[WETH]
    assert low is not None
    assert high is not None
    assert low / PRICES[WETH] == Fraction(9, 11)
    assert high / PRICES[WETH] == Fraction(11, 9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": ()}, "position uniswap_v2 {}: it was not read"),
        (
            {
                "positions": (),
                "unreadable_items": (UnreadableItem(f"position uniswap_v2 {lp_worlds.PAIR}", lp_worlds.PAIR, "it belongs to somebody"),),
            },
            "position uniswap_v2 {}: it belongs to somebody",
        ),
    ],
)
def test_unknown_position__halts_by_name_and_is_never_zero(change: dict[str, object], reason: str) -> None:
    step = with_snapshot(holding(share(2_000)), **change)
    decision = decide(step).decision
    assert isinstance(decision, Halt)
    assert reason.format(lp_worlds.PAIR) in decision.reason
    with pytest.raises(Refused, match="position uniswap_v2"):
        compute_drifts(step, PRICES)
    with pytest.raises(Refused, match="position uniswap_v2"):
        planner.plan(step, Rebalance("test", rebalance_goal(compute_drifts(holding(share(2_000)), PRICES), Destination.TARGET)))


def test_a_position_of_a_token_that_is_no_asset_halts_by_name() -> None:
    step = holding(share(2_000))
    strange = replace(step.portfolio.positions[0], token0=address("another token"))
    decision = decide(replace(step, portfolio=replace(step.portfolio, positions=(strange,)))).decision
    assert isinstance(decision, Halt)
    assert "not in the portfolio's assets" in decision.reason


def test_a_burned_position_counts_nothing_and_is_told() -> None:
    step = step_input()
    mine = replace(step.portfolio, positions=(lp_worlds.confirmed_position(lp_worlds.gone()),))
    step = replace(with_snapshot(step, positions=(lp_worlds.gone(),)), portfolio=mine)
    assert isinstance(decide(step).decision, Hold)
    assert investable_total(compute_drifts(step, PRICES)) == 10_000 * USD
    assert mentions(valuation.position_warnings(step.snapshot, step.portfolio)[0], "uniswap_v3 #42", "not exist")
    plan = sell_weth(step)
    guards.require_all_passed(plan, guards.judge(step, plan, evidence(step, plan)))


def test_warnings__unread_position_hides_no_burned_one() -> None:
    mine = replace(
        step_input().portfolio, positions=(lp_worlds.confirmed_position(share(2_000)), lp_worlds.confirmed_position(lp_worlds.gone()))
    )
    (warning,) = valuation.position_warnings(with_snapshot(step_input(), positions=(lp_worlds.gone(),)).snapshot, mine)
    assert mentions(warning, "uniswap_v3 #42", "not exist")


def test_positions_survive_the_file() -> None:
    step = with_snapshot(holding(share(2_000)), positions=(share(2_000), lp_worlds.v3(inside_last_x128=(2**255, 3)), lp_worlds.gone()))
    assert codec.loads(StepInput, codec.dumps(step)) == step
    with pytest.raises(ConfigError, match="Curve"):
        codec.loads(Snapshot, codec.dumps(step.snapshot).replace("LpMissingPosition", "Curve"))


def test_a_step_from_before_positions_is_still_read() -> None:
    data = codec.to_jsonable(step_input())
    del data["snapshot"]["positions"], data["portfolio"]["positions"], data["limits"]["lp_max_weight_bps"]
    assert codec.from_jsonable(StepInput, data) == step_input()


# planning
def roomy() -> Limits:
    """Limits that leave only the market's own bounds, and nearly all of the portfolio to liquidity."""
    off = {"turnover_bps": None, "daily_turnover_bps": None, "impermanent_loss_bps": None, "plan_cost_bps": None}
    return replace(limits(), lp_max_weight_bps=9_000, price_impact_bps=2_000, **off)


def test_a_plan_brings_wallet_and_positions_together_on_target() -> None:
    step = holding(share(2_000), {"WETH": 5_000, "USDC": 3_000})
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    assert corrections(decided.drifts, decided.decision.goal) == {WETH: -1_000 * USD, USDC: 1_000 * USD}
    plan = planner.plan(step, decided.decision)
    assert abs(dict(plan.weights_after_bps)[WETH] - 5_000) <= 1
    sold = sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == WETH)
    assert abs(sold * PRICES[WETH] - 1_000 * USD) < 5 * USD
    assert dict(plan.holdings_after)[WETH] == 25 * ETHER // 10 - sold
    assert all(v.passed for v in guards.judge(step, plan, evidence(step, plan)))


def test_what_lies_in_positions_is_never_sold_and_said_to_stay() -> None:
    """WETH is 6,000 of 10,000 against a target of 1,000: only the 3,000 in the wallet can go."""
    step = holding(share(6_000), {"WETH": 3_000, "USDC": 1_000}, targets_bps={"WETH": 1_000, "USDC": 9_000}, bounds=roomy())
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    plan = planner.plan(step, decided.decision)
    assert dict(plan.holdings_after)[WETH] * PRICES[WETH] < USD // 100
    assert "liquidity positions" in " ".join(item.why for item in plan.skipped)
    assert [v.guard for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed] == []
    tight = with_limits(step, lp_max_weight_bps=5_000)
    assert [v.guard for v in guards.judge(tight, plan, evidence(tight, plan)) if not v.passed] == ["lp_max_weight"]
    assert isinstance(decide(tight).decision, AdjustLiquidity), "what is too much is taken out first"


def test_drift_that_lies_in_positions__plans_nothing() -> None:
    step = holding(share(6_000), {"WETH": 0, "USDC": 1_000}, targets_bps={"WETH": 1_000, "USDC": 9_000}, bounds=roomy())
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance)
    with pytest.raises(Refused, match="liquidity positions"):
        planner.plan(step, decided.decision)


# guards
def test_expected_loss_of_the_portfolio__is_held_to_its_budget() -> None:
    """A pair of 2,000 in 10,000 at 60 % a year for 30 days: 1 - exp(-0.36·30/365/8) of it, 7.39 bps of the portfolio."""
    step = holding(share(2_000))
    plan = sell_weth(step)
    assert verdict("impermanent_loss", with_limits(step, impermanent_loss_bps=8), plan).passed
    loss_verdict = verdict("impermanent_loss", with_limits(step, impermanent_loss_bps=7), plan)
    assert not loss_verdict.passed
    assert loss_verdict.measured_text.startswith("7.39 bps (7.3")
    assert loss_verdict.limit == "7 bps"


def test_position_weight__passes_at_the_limit_and_fails_one_bp_on() -> None:
    step = holding(share(2_000))
    plan = replace(sell_weth(step), legs=())
    assert verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=2_000), plan).passed
    weight_verdict = verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=1_999), plan)
    assert not weight_verdict.passed
    assert mentions(weight_verdict.measured_text, "2000 bps", "2000 USDC")


def test_the_weight_is_that_of_what_the_plan_leaves() -> None:
    step = with_limits(holding(share(2_000)), lp_max_weight_bps=2_000)
    assert not verdict("lp_max_weight", step, sell_weth(step)).passed


@pytest.mark.parametrize("guard", ["impermanent_loss", "lp_max_weight", "turnover", "max_live_value"])
def test_an_unknown_position_refuses_what_needs_it(guard: str) -> None:
    step = with_limits(with_snapshot(holding(share(2_000)), positions=()), lp_max_weight_bps=2_000)
    unknown_verdict = verdict(guard, step, sell_weth(step))
    assert not unknown_verdict.passed
    assert "position uniswap_v2" in unknown_verdict.measured_text


def test_guards_without_positions__pass_and_are_off_unmeasured() -> None:
    step = with_limits(step_input(), lp_max_weight_bps=0, impermanent_loss_bps=0)
    for guard in ("impermanent_loss", "lp_max_weight"):
        assert mentions(verdict(guard, step, sell_weth(step)).measured_text, "liquidity position")
    off = with_limits(holding(share(2_000)), impermanent_loss_bps=None, lp_max_weight_bps=None)
    for guard in ("impermanent_loss", "lp_max_weight"):
        assert (verdict(guard, off, sell_weth(off)).passed, verdict(guard, off, sell_weth(off)).limit) == (True, "off")


# reports
def report(step: StepInput) -> valuation.PositionReport:
    [position_report] = valuation.position_reports(step.snapshot, step.portfolio, reference_prices(step).price_by_token)
    return position_report


def test_a_report_of_a_pair_that_doubled_and_earned() -> None:
    """Provided 1 WETH and 2,000 at 2,000; WETH fell from 8,000: √k is a tenth more by fees."""
    position = lp_worlds.v2(10**18, 10**19, raw(11, 22_000), k_last=0)
    step = holding(position)
    entry = raw(Fraction(1, 2), 4_000)
    step = replace(step, portfolio=replace(step.portfolio, positions=(lp_worlds.confirmed_position(position, entry),)))
    position_report = report(step)
    assert position_report.state is valuation.RangeState.WHOLE
    assert position_report.value == 4_400 * USD
    assert position_report.hold_value == 5_000 * USD
    assert abs(position_report.fees - 400 * USD) <= USD // 1_000
    assert abs(position_report.loss - 1_000 * USD) <= USD // 1_000, (
        "√(0.5·4,000) stands for 4,000 where holding is worth 5,000: 20 %, as for any fourfold price"
    )
    assert position_report.pool_deviation == 0


def test_forecasts_move_the_token_that_is_not_the_numeraire() -> None:
    position_report = report(holding(share(2_000)))
    assert [item.move_bps for item in position_report.forecasts] == [-5_000, -2_500, -1_000, 1_000, 2_500, 5_000]
    assert {item.moving_token for item in position_report.forecasts} == {"WETH"}
    half = position_report.forecasts[0]
    assert float(half.loss_share) == pytest.approx(1 - 2 * 0.5**0.5 / 1.5, abs=1e-11)
    assert float(half.loss_value) == pytest.approx(1_500 * USD * float(half.loss_share), rel=1e-9), (
        "holding is worth 1,500 when WETH halves"
    )


def test_a_pool_off_the_reference_is_told() -> None:
    position_report = report(holding(share(2_000, Fraction(121, 100))))
    assert position_report.pool_deviation is not None
    assert min(abs(float(position_report.pool_deviation) - 0.21), abs(float(position_report.pool_deviation) - (1 - 1 / 1.21))) < 1e-5


@pytest.mark.parametrize(
    ("position", "state"),
    [
        (lp_worlds.v3(-600, 600), valuation.RangeState.BELOW),
        (lp_worlds.v3(-887_220, -887_160), valuation.RangeState.ABOVE),
        (lp_worlds.v3(-887_220, 887_220), valuation.RangeState.INSIDE),
        (lp_worlds.v3(liquidity=0), valuation.RangeState.EMPTY),
        (lp_worlds.gone(), valuation.RangeState.GONE),
    ],
)
def test_report__says_where_the_reference_is_in_the_range(position: object, state: valuation.RangeState) -> None:
    step = step_input()
    mine = replace(step.portfolio, positions=(lp_worlds.confirmed_position(position),))  # type: ignore[arg-type]  # parametrize erases the type
    position_report = report(replace(with_snapshot(step, positions=(position,)), portfolio=mine))
    sides = {valuation.RangeState.BELOW, valuation.RangeState.ABOVE}
    assert position_report.state is state or {position_report.state, state} == sides, (
        "which side is which depends on the order of the tokens"
    )
    assert (position_report.lvr_per_day > 0) == (state is valuation.RangeState.INSIDE)
    assert bool(position_report.forecasts) == (state not in (valuation.RangeState.EMPTY, valuation.RangeState.GONE))
