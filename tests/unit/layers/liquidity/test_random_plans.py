"""Any wallet, positions, targets and limits: plans of liquidity keep to budget, reserves and minimums, whatever they are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent import guards
from agent.amm.lp import slippage
from agent.errors import Refused
from agent.guards.case import build_guard_case
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE
from agent.layers.liquidity.policy.replay import replay_actions
from agent.layers.liquidity.state import LiquidityProgress
from agent.model import AdjustLiquidity, Collect, LpTarget, LpV2Position, LpV3Position, Plan, Provide, StepInput, Withdraw
from agent.policy.decide import decide
from tests.support.builders import threshold, with_snapshot
from tests.support.lp_worlds import book, paired, ranged, roomy, v2_at, v3_at, wanted, world
from tests.support.plans import evidence

GAS_GUARDS = {"gas_per_day", "native_floor", "daily_loss", "gas_price"}
money = st.integers(0, 20_000)
pushes = st.sampled_from([Fraction(part, 1_000) for part in (1_000, 1_000, 1_000, 1_001, 995, 1_012, 970, 1_500)])


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """A step and what was made of it."""

    step: StepInput
    plan: Plan | None


@st.composite
def anything(draw: st.DrawFn) -> PlannedCase:
    pushed = draw(pushes)
    v3 = v3_at(pushed)
    v2 = v2_at(pushed)
    places: list[LpV2Position | LpV3Position] = [paired(draw(st.sampled_from([0, 40, 700, 9_000])), v2)]
    for number in range(draw(st.integers(0, 2))):
        low = draw(st.integers(500, 4_000))
        high = low + draw(st.integers(30, 4_000))
        fees = (draw(st.integers(0, 10**9)), draw(st.integers(0, 10**18)))
        places.append(ranged(draw(st.integers(1, 4_000)), low, high, number + 1, v3, owed=fees, core_owed=fees))
    targets: list[LpTarget] = []
    if draw(st.booleans()):
        above = draw(st.sampled_from([None, Fraction(0), Fraction(10**8)]))
        width = draw(st.integers(10, 30_000))
        targets.append(wanted(draw(st.integers(0, 3_000)), v3, width_bps=width, compound_above=above))
    if draw(st.booleans()):
        targets.append(wanted(draw(st.integers(0, 3_000)), v2))
    limits = roomy(
        lp_max_weight_bps=draw(st.sampled_from([0, 300, 2_500, 9_000, 10_000, 10_000])),
        impermanent_loss_bps=draw(st.sampled_from([None, None, 0, 10, 100, 1_000])),
        oracle_deviation_bps=draw(st.sampled_from([None, 30, 150, 150, 500])),
        slippage_bps=draw(st.sampled_from([None, 1, 30, 30, 300])),
        plan_cost_bps=draw(st.sampled_from([None, 50, 2_000])),
        min_trade=draw(st.sampled_from([None, Fraction(10 * 10**6), Fraction(500 * 10**6)])),
    )
    reserves = {"WETH": draw(st.integers(0, 2)), "USDC": draw(st.integers(0, 3_000))}
    values = {"WETH": draw(money), "USDC": draw(money)}
    quiet = threshold(absolute_bps=9_999)
    step = world(places, targets, values, limits, pushed, reserves=reserves, trigger=quiet)
    return PlannedCase(step, planned_or_none(step))


def planned_or_none(step: StepInput) -> Plan | None:
    """What would be done with liquidity now; None where nothing is wanted or can be done."""
    decision = decide(step).decision
    try:
        return plan_liquidity(step, decision) if isinstance(decision, AdjustLiquidity) else None
    except Refused:
        return None


@given(anything())
def test_every_guard_lets_every_plan_pass_but_for_gas_money(case: PlannedCase) -> None:
    if case.plan is None:
        return
    refused = [v for v in guards.judge(case.step, case.plan, evidence(case.step, case.plan)) if not v.passed]
    prices_apart = case.step.limits.oracle_deviation_bps is not None
    allowed = GAS_GUARDS | ({"oracle_deviation"} if prices_apart else set())
    assert {v.guard for v in refused} <= allowed, refused
    assert all("spot" in v.measured_text or "TWAP" in v.measured_text for v in refused if v.guard == "oracle_deviation"), (
        "no touched pool is off"
    )


@given(anything())
def test_limits__hold_after_a_plan_or_all_that_could_go_has_gone(case: PlannedCase) -> None:
    if case.plan is None:
        return
    before = book(case.step).exposure()
    layer = build_guard_case(case.step, case.plan, evidence(case.step, case.plan)).layer_answers
    assert isinstance(layer, LiquidityCase)
    lp = layer.replay
    assert lp.fault is None
    limits = liquidity_limits(case.step.limits)
    after = lp.book_after.exposure()
    if before.is_within(limits):
        assert after.is_within(limits)
        if after.loss > before.loss and limits.loss is not None:
            assert after.loss <= limits.loss * LIMIT_GOAL_SHARE * after.portfolio_value + 1
    else:
        assert all(isinstance(action, Withdraw) for action in case.plan.layer_actions)
        out = {
            action.name
            for action in case.plan.layer_actions
            if isinstance(action, Withdraw) and action.liquidity == action.position_liquidity
        }
        stuck = {item.subject for item in case.plan.skipped}
        assert (
            after.is_within(limits.scaled(LIMIT_GOAL_SHARE))
            or {state.name for state, p in book(case.step).position_states if getattr(p, "liquidity", 0)} <= out | stuck
        )


@given(anything())
def test_all_but_the_last_position_of_an_exit_go_whole(case: PlannedCase) -> None:
    if case.plan is None or book(case.step).exposure().is_within(liquidity_limits(case.step.limits)):
        return
    actions = [action for action in case.plan.layer_actions if isinstance(action, Withdraw)]
    assert all(action.liquidity == action.position_liquidity for action in actions[:-1])


@given(anything())
def test_reserves_stay_and_minimums_are_ours_not_the_pools(case: PlannedCase) -> None:
    if case.plan is None:
        return
    reserve = {asset.token.address: asset.reserve_raw for asset in case.step.portfolio.assets}
    before = {holding.token: holding.raw for holding in case.step.snapshot.holdings}
    for token, raw in case.plan.holdings_after:
        assert raw >= min(before[token], reserve[token])
    now = book(case.step)
    for action in case.plan.layer_actions:
        if isinstance(action, Collect):
            continue
        assert max(action.min_raw) > 0
        assert all(least <= raw for least, raw in zip(action.min_raw, action.amounts_raw, strict=True))
        if isinstance(action, Provide):
            assert all(raw <= most for raw, most in zip(action.amounts_raw, action.desired_raw, strict=True))
            assert action.liquidity > 0
        ratio = now.reference_price(action)
        pool = next(p for p in case.step.snapshot.pools if p.address == action.pool)
        price = Fraction(pool.reserve1, pool.reserve0) if hasattr(pool, "reserve0") else Fraction(pool.sqrt_price_x96**2, 2**192)
        limit = case.step.limits.oracle_deviation_bps
        assert slippage.is_within_band(price, ratio, (limit or 0) + (case.step.limits.slippage_bps or 0))
        if limit is not None:
            assert abs(price / ratio - 1) * 10_000 <= limit


def acted_once(step: StepInput, plan: Plan, number: int) -> StepInput:
    """The step that a new snapshot gives after the first action, as the engine goes on with it; what was minted has a number."""
    done = replay_actions(book(step), plan.layer_actions[:1])
    assert done.fault is None
    pairs = [
        (replace(state, token_id=number), replace(place, token_id=number))
        if isinstance(place, LpV3Position) and not place.token_id
        else (state, place)
        for state, place in done.book_after.position_states
    ]
    holdings = tuple(replace(holding, raw=done.book_after.wallet_raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    later = with_snapshot(step, holdings=holdings, positions=tuple(place for _, place in pairs))
    return replace(
        later,
        portfolio=replace(step.portfolio, positions=tuple(pair for pair, _ in pairs)),
        progress=replace(later.progress, layers=(LiquidityProgress(has_moved=True),)),
    )


@given(anything())
def test_actions_one_by_one__come_to_an_end(case: PlannedCase) -> None:
    """As the engine does it: the first action of each plan, then everything anew; and then a step of its own, which must rest."""
    step = case.step
    plan = case.plan
    count = 0
    while plan is not None:
        count += 1
        assert count <= 12, "it goes round in circles"
        step = acted_once(step, plan, 1_000 + count)
        plan = planned_or_none(step)
    later = step.with_progress(LiquidityProgress(has_moved=False))
    assert planned_or_none(later) is None
