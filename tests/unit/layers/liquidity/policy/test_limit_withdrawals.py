"""Liquidity above its limits: what goes first, how much of it, and what stands in the way."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.errors import Refused
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.book import liquidity_limits
from agent.layers.liquidity.policy.provisions import LIMIT_GOAL_SHARE
from agent.model import AdjustLiquidity, Collect, ExternalTransfer, Halt, Hold, Rebalance, StepInput, Withdraw
from agent.policy.decide import decide
from tests.support import lp_worlds
from tests.support.builders import NOW_S, history, with_limits, with_snapshot
from tests.support.decisions.liquidity_exits import step_after_plan
from tests.support.lp_worlds import USD, book, paired, planned, ranged, roomy, v2_at, v3_at, wanted, world
from tests.support.plans import evidence, verdict
from tests.support.text import mentions, raises_code


def taken(step: StepInput) -> list[tuple[str, Fraction]]:
    """Which positions are taken out, in order, and what part of each."""
    actions = []
    for action in planned(step).layer_actions:
        assert isinstance(action, Withdraw)
        actions.append((action.name, Fraction(action.liquidity, action.position_liquidity)))
    return actions


def test_within_both_limits_nothing_is_taken_out() -> None:
    assert isinstance(decide(world([paired(2_000)])).decision, Hold)
    at = with_limits(world([paired(2_000)]), lp_max_weight_bps=2_001)
    assert isinstance(decide(at).decision, Hold)


def test_too_much_weight_is_taken_back_to_the_aim_and_no_further() -> None:
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    assert mentions(decision.reason, "20 %", "limits.lp_max_weight", "15 %")
    [(name, part)] = taken(step)
    assert name == f"uniswap_v2 {paired(1).pair}"
    assert part == pytest.approx(1 - 0.95 * 0.15 / 0.2, abs=2e-3)
    load = book(step_after_plan(step)).exposure()
    assert load.is_within(liquidity_limits(step.limits).scaled(LIMIT_GOAL_SHARE))
    assert load.value / load.portfolio_value == pytest.approx(0.15 * 0.95, abs=5e-4)
    assert isinstance(decide(step_after_plan(step)).decision, Hold)


def test_exit__names_the_expected_loss_in_numbers() -> None:
    """A range of 10 % each way loses several times what a pair does."""
    step = world([ranged(2_000, 1_800, 2_200)], bounds=roomy(impermanent_loss_bps=30))
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    assert "above limits.impermanent_loss 0.3 %" in decision.reason
    load = book(step_after_plan(step)).exposure()
    assert float(load.loss / load.portfolio_value) == pytest.approx(0.003 * 0.95, rel=5e-3)
    assert load.loss <= load.portfolio_value * Fraction(30, 10_000) * LIMIT_GOAL_SHARE


def test_exits__take_the_most_loss_per_cost_first_and_no_more() -> None:
    """The narrow range loses more for what it is worth than the wide one; one out of range earns nothing and can only lose."""
    narrow = ranged(800, 1_900, 2_100, 1)
    wide = ranged(800, 1_000, 4_000, 2)
    beside = ranged(800, 2_050, 2_150, 3)
    step = world([wide, narrow, beside], bounds=roomy(impermanent_loss_bps=15))
    names = [name for name, _ in taken(step)]
    assert names[0] == "uniswap_v3 #3"
    parts = dict(taken(step))
    assert list(parts.values())[:-1] == [1] * (len(parts) - 1), "all but the last are taken whole"
    assert "uniswap_v3 #2" not in parts, "what loses least stays"
    load = book(step_after_plan(step)).exposure()
    assert load.is_within(liquidity_limits(step.limits).scaled(LIMIT_GOAL_SHARE))


def test_a_limit_of_nothing_takes_everything_out() -> None:
    step = world([ranged(800, 1_800, 2_200, 1), paired(500)], bounds=roomy(lp_max_weight_bps=0))
    assert sorted(part for _, part in taken(step)) == [1, 1]
    assert book(step_after_plan(step)).exposure().value == 0


def test_fees_come_with_what_is_taken_out_and_count() -> None:
    fees = (30 * USD, 10**16)
    step = world([ranged(2_000, 1_800, 2_200, owed=fees, core_owed=fees)], bounds=roomy(lp_max_weight_bps=1_500))
    [action] = planned(step).layer_actions
    assert isinstance(action, Withdraw)
    assert action.fees_raw == fees
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    for token, raw in planned(step).holdings_after:
        of = (action.token0, action.token1).index(token)
        assert raw == raw_by_token[token] + action.amounts_raw[of] + fees[of]


def test_what_an_empty_position_is_still_owed_is_collected() -> None:
    owed = (2_000 * USD, 10**18)
    step = world([ranged(1, 1_800, 2_200, liquidity=0, owed=owed, core_owed=owed)], bounds=roomy(lp_max_weight_bps=1_500))
    [action] = planned(step).layer_actions
    assert isinstance(action, Collect)
    assert action.fees_raw == owed
    plan = planned(step)
    assert all(v.passed for v in guards.judge(step, plan, evidence(step, plan)))
    assert book(step_after_plan(step)).exposure().value == 0


def test_dust_owed_to_an_empty_position__is_not_worth_its_gas() -> None:
    """What is above the limit lies in a pool that is off: then nothing goes, rather than dust at the price of gas."""
    pool = v3_at(Fraction(102, 100))
    pushed = Fraction(102, 100)
    dust = ranged(1, 1_800, 2_200, 7, pool, liquidity=0, owed=(1, 1), core_owed=(1, 1))
    step = world([ranged(2_000, 1_800, 2_200, 42, pool), dust], bounds=roomy(lp_max_weight_bps=1_500), pushed=pushed)
    with raises_code(Refused, "impermanent_loss", "not withdrawn"):
        planned(step)


@pytest.mark.parametrize(("liquidity", "kind"), [(1, Collect), (10**9, Withdraw)])
def test_owed_fees__leave_though_hardly_any_liquidity_is_left(liquidity: int, kind: type) -> None:
    """Anybody may add a unit to an empty position: no action goes out whose minimums are both nothing."""
    owed = (2_000 * USD, 10**18)
    here = ranged(1, 1_500, 1_900, liquidity=liquidity, owed=owed, core_owed=owed)
    (action,) = planned(world([here], bounds=roomy(lp_max_weight_bps=1_500, min_trade=None))).layer_actions
    assert isinstance(action, kind)
    first = planned(world([here], [wanted(5_000)])).layer_actions[0]
    assert isinstance(first, kind)
    assert all(max(out.min_raw) > 0 for out in (action, first) if isinstance(out, Withdraw))


def test_a_pair_of_which_this_step_has_approved_nothing_is_named() -> None:
    mine = paired(2_000)
    step = replace(
        world([mine], bounds=roomy(lp_max_weight_bps=1_500)),
        progress=replace(world([mine], bounds=roomy(lp_max_weight_bps=1_500)).progress, spend_caps=((mine.pair, 0),)),
    )
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    with raises_code(Refused, "impermanent_loss", "approved"):
        plan_liquidity(step, decision)


def test_a_rest_that_is_not_worth_a_transaction_goes_too() -> None:
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=10))
    assert taken(step)[0][1] == 1, "0.1 % of the portfolio would be 9.50, below min_trade"


def test_at_least_min_trade_is_taken() -> None:
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_999, min_trade=Fraction(500 * USD)))
    assert float(taken(step)[0][1]) == pytest.approx(0.25, abs=1e-6)


def test_exit__waits_for_no_cooldown_trigger_or_gas_price() -> None:
    past = history(last_rebalance_s=NOW_S - 60)
    step = world([paired(2_000)], values={"WETH": 6_000, "USDC": 2_000}, bounds=roomy(lp_max_weight_bps=1_500), past=past)
    calm = with_limits(step, lp_max_weight_bps=5_000)
    assert isinstance(decide(calm).decision, Hold), "a trigger fires, and the cooldown holds it"
    assert "cooldown" in decide(calm).decision.reason
    assert isinstance(decide(step).decision, AdjustLiquidity)
    dear = with_snapshot(step, gas_price_wei=50 * 10**9, head=replace(step.snapshot.head, base_fee_wei=50 * 10**9))
    plan = planned(dear)
    assert {v.guard for v in guards.judge(dear, plan, evidence(dear, plan)) if not v.passed} <= {"gas_per_day", "native_floor"}


def test_a_fired_trigger_comes_after_the_exit() -> None:
    step = world([paired(2_000)], values={"WETH": 6_000, "USDC": 2_000}, bounds=roomy(lp_max_weight_bps=1_500))
    assert isinstance(decide(step).decision, AdjustLiquidity)
    assert isinstance(decide(step_after_plan(step)).decision, Rebalance)


@pytest.mark.parametrize("pushed", [Fraction(9, 10), Fraction(11, 10), Fraction(102, 100)])
def test_pool_off_the_reference__lets_nothing_be_taken_out(pushed: Fraction) -> None:
    """T11: beyond limits.oracle_deviation the step refuses, and says how far the pool is off."""
    step = world([paired(2_000, v2_at(pushed))], bounds=roomy(lp_max_weight_bps=1_500), pushed=pushed)
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    with raises_code(Refused, "impermanent_loss", "not withdrawn", "limits.oracle_deviation", "150 bps"):
        plan_liquidity(step, decision)


def test_other_positions__are_taken_out_while_one_pool_is_off() -> None:
    off = ranged(1_000, 1_800, 2_200, 1, v3_at(Fraction(11, 10)))
    step = world([off, paired(1_000)], bounds=roomy(lp_max_weight_bps=1_500))
    step = with_snapshot(step, pools=(*step.snapshot.pools[:-1], v3_at(Fraction(11, 10))))
    plan = planned(step)
    assert [action.name for action in plan.layer_actions] == [f"uniswap_v2 {paired(1).pair}"]
    assert "uniswap_v3 #1" in {item.subject for item in plan.skipped}


def test_push_within_the_limit__hardly_changes_what_goes_out() -> None:
    """T3: budget and weight go by the reference; the pool's own price decides the mix that is paid alone."""
    unmoved = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    moved = world([paired(2_000, v2_at(Fraction(101, 100)))], bounds=roomy(lp_max_weight_bps=1_500), pushed=Fraction(101, 100))
    assert float(taken(unmoved)[0][1]) == pytest.approx(float(taken(moved)[0][1]), rel=1e-3)


def test_with_both_price_limits_off_nothing_is_taken_out() -> None:
    bounds_off = roomy(lp_max_weight_bps=1_500, oracle_deviation_bps=None, slippage_bps=None)
    step = world([paired(2_000)], bounds=bounds_off)
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity)
    with raises_code(Refused, "impermanent_loss", "unbounded"):
        plan_liquidity(step, decision)


def test_stranger_s_liquidity__is_never_taken_out_or_counted() -> None:
    """T11: positions that the owner did not confirm are read by nobody's wish, whatever they are worth."""
    gift = ranged(900_000, 1_900, 2_100, 77)
    mine = paired(1_000)
    step = world([mine, gift], bounds=roomy(lp_max_weight_bps=1_500), confirmed=[lp_worlds.confirmed_position(mine)])
    assert isinstance(decide(step).decision, Hold)
    tight = with_limits(step, lp_max_weight_bps=500)
    assert [name for name, _ in taken(tight)] == [f"uniswap_v2 {mine.pair}"]


def test_lp_tokens__are_taken_out_up_to_the_step_s_allowance() -> None:
    mine = paired(2_000)
    step = replace(
        world([mine], bounds=roomy(lp_max_weight_bps=1_000)),
        progress=replace(world([mine], bounds=roomy(lp_max_weight_bps=1_000)).progress, spend_caps=((mine.pair, mine.liquidity // 4),)),
    )
    [action] = planned(step).layer_actions
    assert isinstance(action, Withdraw)
    assert action.liquidity <= mine.liquidity // 4
    assert verdict("lp_max_weight", step, planned(step)).passed, "a part of the way lowers what is exceeded"


@pytest.mark.parametrize("sign", [-1, 1])
def test_liquidity_above_its_limit__goes_despite_unexplained_flows(sign: int) -> None:
    step = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500, balance_jump_bps=200))
    flow = ExternalTransfer(1, step.portfolio.numeraire.address, sign, Fraction(sign * 500 * USD), 1, 2, NOW_S, True, None)
    changed_step = replace(step, history=history(unexplained_transfers=(flow,)))
    assert isinstance(decide(changed_step).decision, AdjustLiquidity)
    plan = planned(changed_step)
    assert verdict("balance_jump", changed_step, plan).passed
    assert verdict("max_live_value", changed_step, plan).passed
    assert isinstance(decide(replace(step_after_plan(step), history=changed_step.history)).decision, Halt), "and then everything else waits"


def test_failures_in_a_row__stop_targets_and_not_limits() -> None:
    step = world([paired(2_000)], targets=[wanted(500)])
    assert isinstance(decide(step).decision, AdjustLiquidity)
    failed = history(is_stopped=True)
    decision = decide(replace(step, history=failed)).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "failed", "trimtab resume")
    above = replace(world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500)), history=failed)
    assert isinstance(decide(above).decision, AdjustLiquidity)
    assert verdict("reverts_in_row", above, planned(above)).passed
