"""Guards on plans of liquidity: every figure of an action is worked out anew, and what its limits forbid is refused by name."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.guards.case import build_guard_case
from agent.layers.liquidity.policy.replay import replay_actions
from agent.model import CodeHash, Collect, ExitFailures, LpAction, Plan, Provide, StepInput, Withdraw
from tests.support import lp_worlds
from tests.support.builders import GWEI, address, history, with_limits, with_snapshot
from tests.support.decisions.liquidity_plans import COLLECT, PROVIDE, WITHDRAW, passing_plan_starting_with
from tests.support.lp_worlds import USD, book, paired, planned, ranged, roomy, v2_at, v3_at, wanted, world
from tests.support.plans import evidence, verdict
from tests.support.text import mentions


def with_action(plan: Plan, **changes: object) -> Plan:
    """The plan with other fields in its first action."""
    first = replace(plan.layer_actions[0], **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace
    return replace(plan, layer_actions=(first, *plan.layer_actions[1:]))


def refusing(step: StepInput, plan: Plan) -> set[str]:
    return {v.guard for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed}


def less(pair: tuple[int, int], by: int = 1) -> tuple[int, int]:
    return pair[0] - by, pair[1]


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
def test_a_figure_that_is_off_by_one_is_refused(kind: str, field: str, guard: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    figure = getattr(plan.layer_actions[0], field)
    changed = with_action(plan, **{field: less(figure) if isinstance(figure, tuple) else figure - 1})
    assert guard in refusing(step, changed)
    if guard == "fair_floor":
        assert "reference requires" in verdict(guard, step, changed).measured_text


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW])
def test_minimum_above_what_contracts_move__is_refused(kind: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    action = plan.layer_actions[0]
    assert not isinstance(action, Collect)
    changed = with_action(plan, min_raw=(action.amounts_raw[0] + 1, action.min_raw[1]))
    assert refusing(step, changed) == {"slippage"}


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
@pytest.mark.parametrize("field", ["pool", "contract", "venue", "token0", "token_id"])
def test_an_action_on_something_else_is_refused(kind: str, field: str) -> None:
    step, plan = passing_plan_starting_with(kind)
    changed = with_action(plan, **{field: 7 if field == "token_id" else address("elsewhere")})
    assert {"prediction", "fair_floor", "oracle_deviation", "impermanent_loss"} <= refusing(step, changed)


def test_liquidity_that_nobody_wanted_is_not_provided() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    unwanted = replace(step, portfolio=replace(step.portfolio, lp_targets=()))
    assert "liquidity target" in verdict("prediction", unwanted, plan).measured_text


def test_more_than_a_position_has_is_not_taken_out() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    action = plan.layer_actions[0]
    assert isinstance(action, Withdraw)
    assert "of liquidity" in verdict("prediction", step, with_action(plan, liquidity=action.position_liquidity + 1)).measured_text


@pytest.mark.parametrize(
    "ticks",
    [(198_479, 202_140), (198_480, 202_141), (202_140, 198_480), (198_480, 198_480), (198_480, 887_280), (-887_280, 202_140)],
)
def test_a_range_off_its_spacing_or_of_no_width_is_refused(ticks: tuple[int, int]) -> None:
    step = world(targets=[wanted(2_000)])
    plan = planned(step)
    assert "range of" in verdict("prediction", step, with_action(plan, ticks=ticks)).measured_text


@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
@pytest.mark.parametrize("price", [None, 0])
def test_an_action_on_a_token_without_a_price_is_refused(kind: str, price: int | None) -> None:
    step, plan = passing_plan_starting_with(kind)
    book_state = book(step)
    for token in (plan.layer_actions[0].token0, plan.layer_actions[0].token1):
        others = {at: known for at, known in book_state.prices.items() if at != token}
        unpriced = replace(book_state, prices=others if price is None else others | {token: Fraction(price)})
        assert mentions(replay_actions(unpriced, plan.layer_actions[:1]).fault, "action 0", "reference price", f"{token}")


def test_what_grows_has_its_own_range() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    action = plan.layer_actions[0]
    assert isinstance(action, Provide)
    assert action.ticks is not None
    changed = with_action(plan, ticks=(action.ticks[0] - 60, action.ticks[1]))
    assert mentions(verdict("prediction", step, changed).measured_text, "not have", "range")


def test_provision__stays_within_reserves_and_sure_receipts() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    action = plan.layer_actions[0]
    assert isinstance(action, Provide)
    asset = next(asset for asset in step.portfolio.assets if asset.token.address == action.token0)
    tight = replace(asset, reserve_raw=next(h.raw for h in step.snapshot.holdings if h.token == action.token0) - action.desired_raw[0] + 1)
    assets = tuple(tight if portfolio_asset is asset else portfolio_asset for portfolio_asset in step.portfolio.assets)
    short = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert "1 base" in verdict("balance", short, plan).measured_text


def test_what_is_wanted_without_a_pin_is_refused() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    for unpinned in (v3_at().address, lp_worlds.MANAGER):
        codes = tuple(code for code in step.snapshot.code_hashes if code.address != unpinned)
        assert refusing(with_snapshot(step, code_hashes=codes), plan) == {"allowlist"}
    changed = tuple(replace(c, hash="0x" + "cd" * 32) if c.address == lp_worlds.MANAGER else c for c in step.snapshot.code_hashes)
    verdicts = guards.judge(with_snapshot(step, code_hashes=changed), plan, evidence(step, plan))
    assert [v.guard for v in verdicts if not v.passed] == ["allowlist"]
    assert CodeHash(lp_worlds.MANAGER, "0x" + "ab" * 32) in step.snapshot.code_hashes


@pytest.mark.parametrize("pushed", [Fraction(97, 100), Fraction(104, 100)])
@pytest.mark.parametrize("kind", [PROVIDE, WITHDRAW, COLLECT])
def test_pool_off_the_reference__refuses_what_was_planned_before(kind: str, pushed: Fraction) -> None:
    """T11: the pool moves between plan and judgement; each touched pool is held against the reference by itself."""
    step, plan = passing_plan_starting_with(kind)
    at = v3_at(pushed)
    moved = tuple(replace(p, sqrt_price_x96=at.sqrt_price_x96, tick=at.tick) for p in step.snapshot.positions)  # type: ignore[call-arg]  # V3
    pool_verdict = verdict("oracle_deviation", with_snapshot(step, positions=moved, pools=(*step.snapshot.pools[:-1], at)), plan)
    assert not pool_verdict.passed
    assert f"pool {at.address}" in pool_verdict.measured_text


def test_budget_or_weight_excess__is_refused_by_what_it_leaves() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    over = with_limits(step, lp_max_weight_bps=1_999)
    assert refusing(over, plan) == {"lp_max_weight"}
    assert verdict("lp_max_weight", over, plan).measured_text.startswith("20")
    assert refusing(with_limits(step, impermanent_loss_bps=60), plan) == {"impermanent_loss"}
    assert verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=2_000), plan).passed


def test_withdrawal_that_lowers_an_excess__passes_without_curing_it() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    tight = with_limits(step, lp_max_weight_bps=100, impermanent_loss_bps=1)
    assert refusing(tight, plan) == set()
    for guard in ("lp_max_weight", "impermanent_loss"):
        assert "lowered from" in verdict(guard, tight, plan).measured_text


def test_collecting__lowers_the_weight_and_excuses_no_loss() -> None:
    step, plan = passing_plan_starting_with(COLLECT)
    alone = replace(plan, layer_actions=plan.layer_actions[:1])
    assert "lowered from" in verdict("lp_max_weight", with_limits(step, lp_max_weight_bps=1_000), alone).measured_text
    assert "impermanent_loss" in refusing(with_limits(step, impermanent_loss_bps=1), alone)


def test_more_positions_than_the_limit__are_refused_on_exit_too() -> None:
    step, leaving = passing_plan_starting_with(WITHDRAW)
    adding = planned(world([ranged(500, 1_800, 2_200)], [wanted(900)]))
    assert isinstance(adding.layer_actions[0], Provide)
    both = replace(leaving, layer_actions=(*leaving.layer_actions, *adding.layer_actions))
    tight = with_limits(step, lp_max_weight_bps=100)
    assert verdict("lp_max_weight", tight, leaving).passed
    assert not verdict("lp_max_weight", tight, both).passed


def test_gas__is_held_against_what_moves_and_an_exit_always_goes() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    dear = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=20 * GWEI))
    assert refusing(dear, plan) == {"plan_cost"}
    assert verdict("plan_cost", dear, plan).measured_text.startswith("117.")
    exit_ = with_limits(dear, lp_max_weight_bps=1_500)
    assert refusing(exit_, plan) == set()
    assert "not applied to liquidity above its limit" in verdict("plan_cost", exit_, plan).measured_text


def test_provision_above_a_limit__is_no_exit() -> None:
    """Cost and size of liquidity hold it back also where a limit is exceeded already."""
    step, plan = passing_plan_starting_with(PROVIDE)
    _, leaving = passing_plan_starting_with(WITHDRAW)
    for actions in (plan.layer_actions, (*leaving.layer_actions, *plan.layer_actions)):
        tight = with_limits(step, lp_max_weight_bps=100, min_trade=Fraction(5_000 * USD))
        guard_case = build_guard_case(tight, replace(plan, layer_actions=actions), evidence(tight, plan))
        assert not guard_case.is_required_by_layer()
        assert not guard_case.is_risk_reducing()
    assert {"lp_max_weight", "min_trade"} <= refusing(tight, plan)


def test_small_actions_are_refused_and_small_exits_pass() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    small = with_limits(step, min_trade=Fraction(5_000 * USD))
    assert refusing(small, plan) == {"min_trade"}
    assert refusing(with_limits(small, lp_max_weight_bps=1_500), plan) == set()


def test_shallow_pool__refuses_provision_and_lets_withdrawals_out() -> None:
    for kind, expected in ((PROVIDE, {"pool_min_value"}), (WITHDRAW, set())):
        step, plan = passing_plan_starting_with(kind)
        assert refusing(with_limits(step, pool_min_value=Fraction(10**9 * USD)), plan) == expected


def test_with_both_price_limits_off_nothing_is_signed() -> None:
    for kind in (PROVIDE, WITHDRAW):
        step, plan = passing_plan_starting_with(kind)
        assert "fair_floor" in refusing(with_limits(step, oracle_deviation_bps=None, slippage_bps=None), plan)


def test_cost_that_a_minimum_allows__is_held_against_slippage() -> None:
    step, plan = passing_plan_starting_with(PROVIDE)
    assert verdict("slippage", step, plan).measured_text.endswith("bps")
    assert Fraction(verdict("slippage", step, plan).measured_text.removesuffix(" bps")) <= 30
    strict = with_limits(step, slippage_bps=2)
    assert verdict("fair_floor", strict, plan).passed is False, "a narrower band has higher minimums"
    assert Fraction(verdict("slippage", strict, planned(strict)).measured_text.removesuffix(" bps")) <= 2


def test_reverts_loss_and_gas_of_the_day_hold_actions_back_too() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    failed = (ExitFailures(plan.layer_actions[0].pool, 3, 0, step.snapshot.head.timestamp_s),)
    assert refusing(replace(step, history=history(failed_exits=failed)), plan) == {"reverts_in_row"}
    provide, providing = passing_plan_starting_with(PROVIDE)
    assert refusing(replace(provide, history=history(reverts_in_row=3)), providing) == {"reverts_in_row"}
    assert refusing(replace(step, history=history(loss_24h=Fraction(101 * USD))), plan) == {"daily_loss"}
    assert refusing(replace(step, history=history(gas_24h_wei=10**18 // 20)), plan) == {"gas_per_day"}
    assert "expiry" in refusing(with_snapshot(step, head=replace(step.snapshot.head, number=2_000)), plan)


def test_holdings_after_the_actions_are_checked() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    (token, raw), *rest = plan.holdings_after
    assert refusing(step, replace(plan, holdings_after=((token, raw + 1), *rest))) == {"prediction"}


def test_an_unknown_position_refuses_every_guard_that_needs_it() -> None:
    step, plan = passing_plan_starting_with(WITHDRAW)
    assert {"impermanent_loss", "lp_max_weight", "prediction", "fair_floor"} <= refusing(with_snapshot(step, positions=()), plan)


def test_a_pair_is_judged_as_a_range_is() -> None:
    step = world([paired(300)], [wanted(2_000, v2_at())])
    plan = planned(step)
    assert refusing(step, plan) == set()
    action = plan.layer_actions[0]
    assert isinstance(action, Provide)
    assert "fair_floor" in refusing(step, with_action(plan, min_raw=less(action.min_raw)))
    assert "prediction" in refusing(step, with_action(plan, ticks=(-60, 60)))
    out = world([paired(2_000)], bounds=roomy(lp_max_weight_bps=1_500))
    lp_action: LpAction = planned(out).layer_actions[0]
    assert refusing(out, planned(out)) == set()
    assert isinstance(lp_action, Withdraw)
    assert "fair_floor" in refusing(out, with_action(planned(out), min_raw=less(lp_action.min_raw)))
