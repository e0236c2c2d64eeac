"""Tests of agent/layers/liquidity with any wallet, positions, targets and limits: what holds for every plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent import guards
from agent.amm.lp import slippage
from agent.amm.pools import marginal_price
from agent.errors import Refused
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE
from agent.layers.liquidity.policy.replay import replay_actions
from agent.layers.liquidity.state import LiquidityProgress
from agent.model import AdjustLiquidity, Collect, LpTarget, LpV3Position, Plan, Provide, StepInput, Withdraw
from agent.policy.decide import decide
from tests.support.builders import with_snapshot
from tests.support.decisions.liquidity_plans import liquidity_answers
from tests.support.lp_worlds import Place, book, lp_target, paired, quiet, ranged, roomy, v2_at, v3_at, world
from tests.support.plans import evidence

GAS_GUARDS = {"gas_per_day", "native_floor", "daily_loss", "gas_price"}
DOLLARS = st.integers(0, 20_000)
PUSHES = st.sampled_from([Fraction(part, 1_000) for part in (1_000, 1_000, 1_000, 1_001, 995, 1_012, 970, 1_500)])


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """A step and its plan of liquidity; None if nothing is due or possible."""

    step: StepInput
    plan: Plan | None


def liquidity_plan(step: StepInput) -> Plan | None:
    """Return the plan of the step's decision on liquidity; None without one, and if it is refused."""
    decision = decide(step).decision
    try:
        return plan_liquidity(step, decision) if isinstance(decision, AdjustLiquidity) else None
    except Refused:
        return None


@st.composite
def planned_cases(draw: st.DrawFn) -> PlannedCase:
    pushed = draw(PUSHES)
    range_pool = v3_at(pushed)
    pair_pool = v2_at(pushed)
    positions: list[Place] = [paired(draw(st.sampled_from([0, 40, 700, 9_000])), pair_pool)]
    for number in range(draw(st.integers(0, 2))):
        low = draw(st.integers(500, 4_000))
        high = low + draw(st.integers(30, 4_000))
        fees = (draw(st.integers(0, 10**9)), draw(st.integers(0, 10**18)))
        positions.append(ranged(draw(st.integers(1, 4_000)), low, high, number + 1, range_pool, owed=fees, core_owed=fees))
    targets: list[LpTarget] = []
    if draw(st.booleans()):
        above = draw(st.sampled_from([None, Fraction(0), Fraction(10**8)]))
        width = draw(st.integers(10, 30_000))
        targets.append(lp_target(draw(st.integers(0, 3_000)), range_pool, width_bps=width, compound_above=above))
    if draw(st.booleans()):
        targets.append(lp_target(draw(st.integers(0, 3_000)), pair_pool))
    limits = roomy(
        lp_max_weight_bps=draw(st.sampled_from([0, 300, 2_500, 9_000, 10_000, 10_000])),
        impermanent_loss_bps=draw(st.sampled_from([None, None, 0, 10, 100, 1_000])),
        oracle_deviation_bps=draw(st.sampled_from([None, 30, 150, 150, 500])),
        slippage_bps=draw(st.sampled_from([None, 1, 30, 30, 300])),
        plan_cost_bps=draw(st.sampled_from([None, 50, 2_000])),
        min_trade=draw(st.sampled_from([None, Fraction(10 * 10**6), Fraction(500 * 10**6)])),
    )
    reserves = {"WETH": draw(st.integers(0, 2)), "USDC": draw(st.integers(0, 3_000))}
    values = {"WETH": draw(DOLLARS), "USDC": draw(DOLLARS)}
    step = world(positions, targets, values, limits, pushed, reserves=reserves, trigger=quiet())
    return PlannedCase(step, liquidity_plan(step))


@given(planned_cases())
def test_plan_passes_every_guard_but_those_of_gas(case: PlannedCase) -> None:
    """A feed that differs from the other pools is refused too; no pool of an action is off."""
    if case.plan is None:
        return
    refusals = [judged for judged in guards.judge(case.step, case.plan, evidence(case.step, case.plan)) if not judged.passed]
    has_oracle_limit = case.step.limits.oracle_deviation_bps is not None

    assert {judged.guard for judged in refusals} <= GAS_GUARDS | ({"oracle_deviation"} if has_oracle_limit else set()), refusals
    assert all(
        "spot" in judged.measured_text or "TWAP" in judged.measured_text for judged in refusals if judged.guard == "oracle_deviation"
    )


@given(planned_cases())
def test_plan_keeps_the_limits_or_withdraws_all_it_can(case: PlannedCase) -> None:
    if case.plan is None:
        return
    before = book(case.step)
    replay = liquidity_answers(case.step, case.plan).replay
    assert replay.fault is None
    limits = liquidity_limits(case.step.limits)
    exposure = replay.book_after.exposure()
    if before.exposure().is_within(limits):
        assert exposure.is_within(limits)
        if exposure.loss > before.exposure().loss and limits.loss is not None:
            assert exposure.loss <= limits.loss * LIMIT_GOAL_SHARE * exposure.portfolio_value + 1
        return
    withdrawals = [action for action in case.plan.layer_actions if isinstance(action, Withdraw)]
    emptied_names = {action.name for action in withdrawals if action.liquidity == action.position_liquidity}
    skipped_names = {item.subject for item in case.plan.skipped}
    filled_names = {confirmed.name for confirmed, position in before.position_states if getattr(position, "liquidity", 0)}

    assert len(withdrawals) == len(case.plan.layer_actions)
    assert all(action.liquidity == action.position_liquidity for action in withdrawals[:-1]), "all but the last are emptied"
    assert exposure.is_within(limits.scaled(LIMIT_GOAL_SHARE)) or filled_names <= emptied_names | skipped_names


@given(planned_cases())
def test_plan_keeps_reserves_and_has_minimums_of_its_own(case: PlannedCase) -> None:
    if case.plan is None:
        return
    reserve_by_token = {asset.token.address: asset.reserve_raw for asset in case.step.portfolio.assets}
    raw_by_token = {holding.token: holding.raw for holding in case.step.snapshot.holdings}
    pool_by_address = {pool.address: pool for pool in case.step.snapshot.pools}
    limits = case.step.limits

    assert all(raw >= min(raw_by_token[token], reserve_by_token[token]) for token, raw in case.plan.holdings_after)
    for action in case.plan.layer_actions:
        if isinstance(action, Collect):
            continue
        assert max(action.min_raw) > 0
        assert all(min_raw <= raw for min_raw, raw in zip(action.min_raw, action.amounts_raw, strict=True))
        if isinstance(action, Provide):
            assert all(raw <= desired_raw for raw, desired_raw in zip(action.amounts_raw, action.desired_raw, strict=True))
            assert action.liquidity > 0
        reference_price = book(case.step).reference_price(action)
        pool_price = marginal_price(pool_by_address[action.pool], action.token0)
        band_bps = (limits.oracle_deviation_bps or 0) + (limits.slippage_bps or 0)
        assert slippage.is_within_band(pool_price, reference_price, band_bps)
        if limits.oracle_deviation_bps is not None:
            assert abs(pool_price / reference_price - 1) * 10_000 <= limits.oracle_deviation_bps


def step_after_first_action(step: StepInput, plan: Plan, token_id: int) -> StepInput:
    """Return the step that a new snapshot gives after the first action, in the same cycle; a minted position has this id."""
    replay = replay_actions(book(step), plan.layer_actions[:1])
    assert replay.fault is None
    pairs = [
        (replace(confirmed, token_id=token_id), replace(position, token_id=token_id))
        if isinstance(position, LpV3Position) and not position.token_id
        else (confirmed, position)
        for confirmed, position in replay.book_after.position_states
    ]
    holdings = tuple(replace(holding, raw=replay.book_after.wallet_raw_by_token[holding.token]) for holding in step.snapshot.holdings)
    step_after = with_snapshot(step, holdings=holdings, positions=tuple(position for _, position in pairs))
    portfolio = replace(step.portfolio, positions=tuple(confirmed for confirmed, _ in pairs))
    return replace(step_after, portfolio=portfolio).with_progress(LiquidityProgress(has_moved=True))


@given(planned_cases())
def test_actions_of_a_cycle_come_to_an_end(case: PlannedCase) -> None:
    """The first action of each plan, then everything again; the next cycle finds nothing to do."""
    step = case.step
    plan = case.plan
    action_count = 0
    while plan is not None:
        action_count += 1
        assert action_count <= 12
        step = step_after_first_action(step, plan, 1_000 + action_count)
        plan = liquidity_plan(step)

    assert liquidity_plan(step.with_progress(LiquidityProgress(has_moved=False))) is None
