"""Tests of agent/layers/liquidity/guards.py: cost, size, minimums and predictions of actions, and limits on positions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.guards.case import build_guard_case
from agent.guards.safety import moved_tokens
from agent.layers.liquidity.guards import slippage
from agent.layers.liquidity.policy.replay import worst_overpayment_share
from agent.model import Collect, ExitFailures, LpAction, Plan, Provide, StepInput, Withdraw
from tests.support import lp_worlds
from tests.support.builders import GWEI, address, history, with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, liquidity_answers, passing_plan_starting_with
from tests.support.decisions.plan_costs import exit_plan
from tests.support.lp_worlds import USD, USDC, WETH, lp_target, paired, planned, ranged, roomy, v2_at, v3_at, world
from tests.support.plans import assert_refused, evidence, sell_weth, verdict

JUST = Fraction(1, 10**9)


def with_action(plan: Plan, **action_fields: object) -> Plan:
    """Return the plan with other fields in its first action."""
    first = replace(plan.layer_actions[0], **action_fields)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return replace(plan, layer_actions=(first, *plan.layer_actions[1:]))


def refusing_guards(step: StepInput, plan: Plan) -> set[str]:
    return {judged.guard for judged in guards.judge(step, plan, evidence(step, plan)) if not judged.passed}


def one_less(figure: int | tuple[int, int]) -> object:
    """Return an amount, or a pair of them, less one base unit of the first."""
    return (figure[0] - 1, figure[1]) if isinstance(figure, tuple) else figure - 1


def collection_of_nothing() -> Plan:
    """Return a plan that collects from a position without fees."""
    _, plan = passing_plan_starting_with(COLLECT)
    return with_action(replace(plan, layer_actions=plan.layer_actions[:1]), fees_raw=(0, 0))


# --- predictions and minimums of each action


@pytest.mark.parametrize(
    ("kind", "field", "guard"),
    [
        pytest.param(PROVIDE, "amounts_raw", "prediction", id="provided amounts"),
        pytest.param(PROVIDE, "liquidity", "prediction", id="provided liquidity"),
        pytest.param(PROVIDE, "min_raw", "fair_floor", id="provided minimum"),
        pytest.param(WITHDRAW, "amounts_raw", "prediction", id="withdrawn amounts"),
        pytest.param(WITHDRAW, "fees_raw", "prediction", id="withdrawn fees"),
        pytest.param(WITHDRAW, "min_raw", "fair_floor", id="withdrawn minimum"),
        pytest.param(COLLECT, "fees_raw", "prediction", id="collected fees"),
    ],
)
def test_guards_refuse_a_figure_one_unit_lower(kind: str, field: str, guard: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    changed_plan = with_action(plan, **{field: one_less(getattr(plan.layer_actions[0], field))})

    assert guard in refusing_guards(step, changed_plan)
    assert_refused(verdict(guard, step, changed_plan), "reference requires" if guard == "fair_floor" else "the plan predicts")


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW])
def test_slippage_allows_minimums_up_to_the_amounts(kind: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    action = plan.layer_actions[0]
    assert not isinstance(action, Collect)

    assert refusing_guards(step, with_action(plan, min_raw=action.amounts_raw)) == set()
    assert refusing_guards(step, with_action(plan, min_raw=(action.amounts_raw[0] + 1, action.min_raw[1]))) == {"slippage"}


@pytest.mark.parametrize("excess_raw", [1, -1])
def test_prediction_checks_the_balances_after_the_actions(excess_raw: int) -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    (token, raw), *rest = plan.holdings_after

    assert refusing_guards(step, replace(plan, holdings_after=((token, raw + excess_raw), *rest))) == {"prediction"}


# --- actions on something else


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
@pytest.mark.parametrize("field", ["pool", "contract", "venue", "token0", "token_id"])
def test_guards_refuse_an_action_on_something_else(kind: str, field: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    changed_plan = with_action(plan, **{field: 7 if field == "token_id" else address("elsewhere")})

    assert {"prediction", "fair_floor", "oracle_deviation", "impermanent_loss"} <= refusing_guards(step, changed_plan)


def test_guards_refuse_a_plan_while_a_position_is_unknown() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    assert {"impermanent_loss", "lp_max_weight", "prediction", "fair_floor"} <= refusing_guards(with_snapshot(step, positions=()), plan)


@pytest.mark.parametrize("contract", [v3_at().address, lp_worlds.MANAGER], ids=["pool", "manager"])
@pytest.mark.parametrize("code_hash", [None, "0x" + "cd" * 32], ids=["unread", "another"])
def test_allowlist_needs_pinned_pool_and_manager(contract: str, code_hash: str | None) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    other_codes = tuple(code for code in step.snapshot.code_hashes if code.address != contract)
    changed_codes = tuple(
        replace(code, hash=code_hash) for code in step.snapshot.code_hashes if code.address == contract and code_hash is not None
    )
    changed_step = with_snapshot(step, code_hashes=(*other_codes, *changed_codes))

    verdicts = guards.judge(changed_step, plan, evidence(step, plan))

    assert [judged.guard for judged in verdicts if not judged.passed] == ["allowlist"]


@pytest.mark.parametrize("pushed", [Fraction(97, 100), Fraction(104, 100)], ids=["below", "above"])
@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
def test_oracle_deviation_judges_each_action_s_pool(kind: str, pushed: Fraction) -> None:
    """T11: the pool moves between plan and judgement."""
    step, plan = passing_plan_starting_with(kind)
    pool = v3_at(pushed)
    positions = tuple(replace(position, sqrt_price_x96=pool.sqrt_price_x96, tick=pool.tick) for position in step.snapshot.positions)  # type: ignore[call-arg]  # V3
    pushed_step = with_snapshot(step, positions=positions, pools=(*step.snapshot.pools[:-1], pool))

    assert_refused(verdict("oracle_deviation", pushed_step, plan), f"pool {pool.address}")


def test_fair_floor_refuses_actions_with_both_price_limits_off() -> None:
    for kind in (PROVIDE, WITHDRAW):
        step, plan = passing_plan_starting_with(kind)
        assert "fair_floor" in refusing_guards(with_limits(step, oracle_deviation_bps=None, slippage_bps=None), plan)


@pytest.mark.parametrize(
    ("step", "off_range"),
    [
        pytest.param(world([paired(300)], [lp_target(2_000, v2_at())]), {"ticks": (-60, 60)}, id="a provision"),
        pytest.param(world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500)), {}, id="a withdrawal"),
    ],
)
def test_guards_judge_a_pair_as_they_judge_a_range(step: StepInput, off_range: dict[str, object]) -> None:
    plan = planned(step)
    action: LpAction = plan.layer_actions[0]
    assert isinstance(action, Provide | Withdraw)

    assert refusing_guards(step, plan) == set()
    assert "fair_floor" in refusing_guards(step, with_action(plan, min_raw=one_less(action.min_raw)))
    assert not off_range or "prediction" in refusing_guards(step, with_action(plan, **off_range))


# --- balance


def reserving(step: StepInput, token: str, reserve_raw: int) -> StepInput:
    """Return the step with this reserve of an asset."""
    assets = tuple(replace(asset, reserve_raw=reserve_raw) if asset.token.address == token else asset for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize(("excess_raw", "reason"), [(0, ""), (1, "provides 1 base units")], ids=["all above it", "one unit of it"])
def test_balance_of_a_provision_keeps_the_reserve(excess_raw: int, reason: str) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    action = plan.layer_actions[0]
    assert isinstance(action, Provide)
    balance_raw = {holding.token: holding.raw for holding in step.snapshot.holdings}[action.token0]

    judged = verdict("balance", reserving(step, action.token0, balance_raw - action.desired_raw[0] + excess_raw), plan)

    assert judged.passed is not bool(reason)
    assert reason in judged.measured_text


# --- impermanent_loss and lp_max_weight


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["at the limit", "just beyond"])
@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_bind_the_share_after_the_plan(guard: str, excess: Fraction) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    exposure = liquidity_answers(step, plan).exposures()[1]
    share_bps = (exposure.value if guard == "lp_max_weight" else exposure.loss) * 10_000 / exposure.portfolio_value

    limited_step = with_limits(step, **{f"{guard}_bps": share_bps - excess})

    assert refusing_guards(limited_step, plan) == ({guard} if excess else set())


@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_pass_a_withdrawal_that_lowers_them(guard: str) -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    tight_step = with_limits(step, lp_max_weight_bps=100, impermanent_loss_bps=1)

    assert refusing_guards(tight_step, plan) == set()
    assert "lowered from" in verdict(guard, tight_step, plan).measured_text


def test_limits_on_positions_pass_a_collection_only_by_weight() -> None:
    """Collected fees leave the weight of positions, and take nothing off the expected loss."""
    step, plan = passing_plan_starting_with(COLLECT)
    collection = replace(plan, layer_actions=plan.layer_actions[:1])

    assert "lowered from" in verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=1_000), collection).measured_text
    assert "impermanent_loss" in refusing_guards(with_limits(step, impermanent_loss_bps=1), collection)


@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_refuse_a_plan_that_lowers_nothing(guard: str) -> None:
    step = with_limits(world([ranged(2_000, 1_800, 2_200)]), lp_max_weight_bps=100, impermanent_loss_bps=1)

    assert not verdict(guard, step, collection_of_nothing()).passed


def test_lp_max_weight_refuses_an_exit_that_provides_again() -> None:
    step, withdrawal = passing_plan_starting_with(WITHDRAW)
    provision = planned(world([ranged(500, 1_800, 2_200)], [lp_target(900)]))
    tight_step = with_limits(step, lp_max_weight_bps=100)

    assert verdict("lp_max_weight", tight_step, withdrawal).passed
    exchange = replace(withdrawal, layer_actions=(*withdrawal.layer_actions, *provision.layer_actions))
    assert not verdict("lp_max_weight", tight_step, exchange).passed


@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_pass_without_positions(guard: str) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    empty_step = replace(with_snapshot(step, positions=()), portfolio=replace(step.portfolio, positions=(), lp_targets=()))
    empty_step = with_limits(empty_step, lp_max_weight_bps=0, impermanent_loss_bps=0)

    assert verdict(guard, empty_step, replace(plan, layer_actions=())).measured_text == "no liquidity position"


@pytest.mark.parametrize(("limit_bps", "measured"), [(8, ""), (7, "7.39 bps (7.3")], ids=["above the loss", "below it"])
def test_impermanent_loss_of_a_swap_plan_is_that_of_positions(limit_bps: int, measured: str) -> None:
    """A pair of 2,000 in 10,000 at 60 % a year for 30 days: 1 - exp(-0.36 · 30/365 / 8) of it, 7.39 bps of the portfolio."""
    step = with_limits(world([paired(2_000)]), impermanent_loss_bps=limit_bps)

    judged = verdict("impermanent_loss", step, sell_weth(step))

    assert judged.passed is not bool(measured)
    assert judged.measured_text.startswith(measured)
    assert judged.limit == f"{limit_bps} bps"


def test_lp_max_weight_of_a_swap_plan_is_of_what_it_leaves() -> None:
    step = with_limits(world([paired(2_000)]), lp_max_weight_bps=2_000)
    plan = sell_weth(step)

    assert verdict("lp_max_weight", step, replace(plan, legs=())).passed
    assert_refused(verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=1_999), replace(plan, legs=())), "2000 bps", "2000 USDC")
    assert_refused(verdict("lp_max_weight", step, plan), "in positions")


@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_are_not_applied_to_an_exit(guard: str) -> None:
    step = with_limits(world([paired(2_000)]), lp_max_weight_bps=100, impermanent_loss_bps=1)
    plan = sell_weth(step)

    assert not verdict(guard, step, plan).passed
    assert verdict(guard, step, exit_plan(plan)).measured_text.endswith("not applied to an exit")
    assert verdict(guard, step, exit_plan(plan)).passed


@pytest.mark.parametrize("guard", ["impermanent_loss", "lp_max_weight", "turnover", "max_live_value"])
def test_guards_refuse_a_swap_plan_while_a_position_is_unknown(guard: str) -> None:
    step = with_limits(with_snapshot(world([paired(2_000)]), positions=()), lp_max_weight_bps=2_000)

    assert_refused(verdict(guard, step, sell_weth(step)), "position uniswap_v2")


@pytest.mark.parametrize("guard", ["lp_max_weight", "impermanent_loss"])
def test_limits_on_positions_may_be_off(guard: str) -> None:
    step = with_limits(world([paired(2_000)]), impermanent_loss_bps=None, lp_max_weight_bps=None)

    assert (verdict(guard, step, sell_weth(step)).passed, verdict(guard, step, sell_weth(step)).limit) == (True, "off")


# --- plan_cost, min_trade and pool_min_value


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["at the limit", "just beyond"])
@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW])
def test_plan_cost_is_gas_and_overpayment_of_what_moves(kind: str, excess: Fraction) -> None:
    step, plan = passing_plan_starting_with(kind)
    case = build_guard_case(step, plan, evidence(step, plan))
    moved_value = sum((simulation.value for simulation in liquidity_answers(step, plan).simulated_actions()), Fraction(0))

    limited_step = with_limits(step, plan_cost_bps=case.cost() * 10_000 / moved_value - excess)

    assert verdict("plan_cost", limited_step, plan).passed is not bool(excess)


def test_plan_cost_refuses_gas_for_a_collection_of_nothing() -> None:
    assert not verdict("plan_cost", world([ranged(500, 1_800, 2_200)], [lp_target(500)]), collection_of_nothing()).passed


def test_plan_cost_is_not_applied_to_a_required_withdrawal() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    dear_step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=20 * GWEI))
    required_step = with_limits(dear_step, lp_max_weight_bps=1_500)

    assert refusing_guards(dear_step, plan) == {"plan_cost"}
    assert verdict("plan_cost", dear_step, plan).measured_text.startswith("119.")
    assert refusing_guards(required_step, plan) == set()
    assert "not applied to liquidity above its limit" in verdict("plan_cost", required_step, plan).measured_text


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["at the limit", "just below"])
def test_min_trade_binds_the_smallest_action(excess: Fraction) -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    smallest_value = min(simulation.value for simulation in liquidity_answers(step, plan).simulated_actions())

    assert verdict("min_trade", with_limits(step, min_trade=smallest_value + excess), plan).passed is not bool(excess)


def test_min_trade_is_not_applied_to_a_required_withdrawal() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    large_step = with_limits(step, min_trade=Fraction(5_000 * USD))

    assert refusing_guards(large_step, plan) == {"min_trade"}
    assert refusing_guards(with_limits(large_step, lp_max_weight_bps=1_500), plan) == set()


def test_min_trade_binds_a_provision_above_a_limit() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    tight_step = with_limits(step, lp_max_weight_bps=100, min_trade=Fraction(5_000 * USD))

    assert {"lp_max_weight", "min_trade"} <= refusing_guards(tight_step, plan)


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["at the limit", "just below"])
def test_pool_min_value_binds_the_pool_of_a_provision(excess: Fraction) -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    case = build_guard_case(step, plan, evidence(step, plan))
    [pool] = [pool for pool in step.snapshot.pools if pool.address == plan.layer_actions[0].pool]
    depth_value = sum((pool.depth(token) * case.price(token) for token in (pool.token0, pool.token1)), Fraction(0))

    judged = verdict("pool_min_value", with_limits(step, pool_min_value=depth_value + excess), plan)

    assert judged.passed is not bool(excess)


def test_pool_min_value_lets_withdrawals_leave_a_shallow_pool() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    assert refusing_guards(with_limits(step, pool_min_value=Fraction(10**9 * USD)), plan) == set()


# --- slippage of a provision


@pytest.mark.parametrize("excess", [Fraction(0), JUST], ids=["at the limit", "just beyond"])
def test_slippage_bounds_the_overpayment_that_minimums_allow(excess: Fraction) -> None:
    """The overpayment depends on the limits of the step, so the guard alone is judged against another."""
    step, plan = passing_plan_starting_with(PROVIDE)
    [simulation] = liquidity_answers(step, plan).simulated_actions()
    limit_bps = worst_overpayment_share(simulation, step.limits) * 10_000 - excess

    measurement = slippage(build_guard_case(step, plan, evidence(step, plan)), limit_bps)  # type: ignore[arg-type]  # exact, to hit the limit

    assert measurement.passed is not bool(excess)


@pytest.mark.parametrize("slippage_bps", [30, 2])
def test_slippage_of_a_plan_fits_its_own_limit(slippage_bps: int) -> None:
    step, _ = passing_plan_starting_with(PROVIDE)
    limited_step = with_limits(step, slippage_bps=slippage_bps)

    measured_text = verdict("slippage", limited_step, planned(limited_step)).measured_text

    assert 0 < Fraction(measured_text.removesuffix(" bps")) <= slippage_bps


def test_fair_floor_is_higher_in_a_narrower_band() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)

    assert_refused(verdict("fair_floor", with_limits(step, slippage_bps=2), plan), "reference requires")


# --- guards of every plan


DAY_GAS_WEI = 10**18 // 20


@pytest.mark.parametrize(
    ("history_fields", "guard"),
    [
        pytest.param({"loss_24h": Fraction(101 * USD)}, "daily_loss", id="loss of the day"),
        pytest.param({"gas_24h_wei": DAY_GAS_WEI}, "gas_per_day", id="gas of the day"),
    ],
)
def test_guards_of_the_day_bind_withdrawals(history_fields: dict[str, object], guard: str) -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    assert refusing_guards(replace(step, history=history(**history_fields)), plan) == {guard}


def test_reverts_in_row_count_by_pool_for_withdrawals() -> None:
    step, withdrawal = passing_plan_starting_with(WITHDRAW)
    pool = withdrawal.layer_actions[0].pool
    provision_step, provision = passing_plan_starting_with(PROVIDE)
    now_s = step.snapshot.head.timestamp_s

    assert refusing_guards(replace(step, history=history(failed_exits=(ExitFailures(pool, 3, 0, now_s),))), withdrawal) == {
        "reverts_in_row"
    }
    assert refusing_guards(replace(step, history=history(failed_exits=(ExitFailures("other", 3, 0, now_s),))), withdrawal) == set()
    assert refusing_guards(replace(step, history=history(reverts_in_row=3)), withdrawal) == set()
    assert refusing_guards(replace(provision_step, history=history(reverts_in_row=3)), provision) == {"reverts_in_row"}


def test_expiry_binds_actions_too() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)

    assert "expiry" in refusing_guards(with_snapshot(step, head=replace(step.snapshot.head, number=2_000)), plan)


def test_moved_tokens_are_those_provided_and_not_withdrawn() -> None:
    assert set(moved_tokens(passing_plan_starting_with(PROVIDE)[1])) == {WETH.address, USDC.address}
    assert moved_tokens(passing_plan_starting_with(WITHDRAW)[1]) == ()
