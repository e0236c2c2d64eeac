"""Limits of liquidity at exact figures: what equals a limit is kept, what is spendable, and what a move may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest

from agent.errors import Refused
from agent.guards.case import GuardCase, build_guard_case
from agent.guards.safety import moved_tokens
from agent.layers.liquidity import guard_case
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.layers.liquidity.guards import slippage
from agent.layers.liquidity.policy.adjustments import gas_unit_value
from agent.layers.liquidity.policy.book import LiquidityExposure, LiquidityLimits, max_pool_deviation_bps, price_deviation_reason
from agent.layers.liquidity.policy.provisions import AdjustmentBuilder
from agent.layers.liquidity.policy.replay import worst_overpayment_share
from agent.model import Plan, StepInput
from tests.support.builders import ETHER, GWEI, with_limits, with_snapshot
from tests.support.lp_worlds import PRICES, USD, USDC, WETH, book, paired, planned, ranged, roomy, wanted, world
from tests.support.plans import evidence, verdict

TENTH = LiquidityLimits(Fraction(1, 100), Fraction(1, 10))
"""Expected loss and weight of a portfolio of 1,000."""
JUST = Fraction(1, 10**9)


# Exposure


@pytest.mark.parametrize(
    ("loss", "value", "is_within"),
    [(10, 100, True), (11, 100, False), (10, 101, False), (0, 0, True)],
    ids=["equal", "loss", "weight", "none"],
)
def test_exposure__that_equals_both_limits_is_within_them(loss: int, value: int, is_within: bool) -> None:
    assert LiquidityExposure(Fraction(loss), Fraction(value), Fraction(1_000)).is_within(TENTH) is is_within


def test_exposure__limit_that_is_off_binds_nothing() -> None:
    assert LiquidityExposure(Fraction(999), Fraction(999), Fraction(1_000)).is_within(LiquidityLimits(None, None))


def test_limits__both_are_scaled_and_one_that_is_off_stays_off() -> None:
    assert TENTH.scaled(Fraction(1, 2)) == LiquidityLimits(Fraction(1, 200), Fraction(1, 20))
    assert LiquidityLimits(None, Fraction(1)).scaled(Fraction(1, 2)) == LiquidityLimits(None, Fraction(1, 2))


def test_exposure__total_is_wallet_and_positions_together() -> None:
    exposure = book(world([paired(2_000)])).exposure()
    assert exposure.portfolio_value - exposure.value == 8_000 * USD


# Price of the pool


@pytest.mark.parametrize(
    ("oracle_bps", "slippage_bps", "price", "is_kept"),
    [
        pytest.param(150, 30, Fraction(1_015, 1_000), True, id="at the oracle limit"),
        pytest.param(150, 30, Fraction(1_015, 1_000) + JUST, False, id="above the oracle limit"),
        pytest.param(150, 30, Fraction(985, 1_000), True, id="at the lower oracle limit"),
        pytest.param(150, 30, Fraction(985, 1_000) - JUST, False, id="below the oracle limit"),
        pytest.param(None, 30, Fraction(1_003, 1_000), True, id="at the slippage"),
        pytest.param(None, 30, Fraction(1_003, 1_000) + JUST, False, id="above the slippage"),
        pytest.param(None, 30, Fraction(1_000, 1_003), True, id="at the lower slippage"),
        pytest.param(None, 30, Fraction(1_000, 1_003) - JUST, False, id="below the slippage"),
        pytest.param(150, None, Fraction(1_015, 1_000), True, id="slippage off"),
        pytest.param(None, None, Fraction(1), False, id="both off"),
        pytest.param(150, 30, None, False, id="no price"),
    ],
)
def test_pool_price__on_the_edge_of_its_band_may_be_used(
    oracle_bps: int | None, slippage_bps: int | None, price: Fraction | None, is_kept: bool
) -> None:
    limits = roomy(oracle_deviation_bps=oracle_bps, slippage_bps=slippage_bps)
    assert (price_deviation_reason(limits, price, Fraction(1)) == "") is is_kept


@pytest.mark.parametrize(
    ("oracle_bps", "slippage_bps", "band"),
    [
        pytest.param(150, 30, 180, id="both"),
        pytest.param(None, 30, 30, id="slippage alone"),
        pytest.param(150, None, 150, id="oracle alone"),
        pytest.param(0, 0, 0, id="limits of nothing"),
        pytest.param(None, None, None, id="both off"),
    ],
)
def test_band__is_the_sum_of_both_limits(oracle_bps: int | None, slippage_bps: int | None, band: int | None) -> None:
    assert max_pool_deviation_bps(roomy(oracle_deviation_bps=oracle_bps, slippage_bps=slippage_bps)) == band


# Spendable balances


def test_spendable__is_the_balance_less_reserve_and_uncertain() -> None:
    """4,000 USDC besides a reserve of 500, 300 of them not certain."""
    opened = book(world(reserves={"USDC": 500}))
    assert replace(opened, uncertain_raw_by_token={USDC.address: 300 * USD}).spendable_raw(USDC.address) == 3_700 * USD


def test_spendable__is_never_below_nothing() -> None:
    opened = book(world(reserves={"USDC": 500}))
    assert replace(opened, uncertain_raw_by_token={USDC.address: 4_001 * USD}).spendable_raw(USDC.address) == 0


@pytest.mark.parametrize(("approved", "spendable"), [(100, 100), (4_000 * USD, 4_000 * USD), (4_001 * USD, 4_000 * USD), (0, 0)])
def test_spendable__is_at_most_what_the_step_has_approved(approved: int, spendable: int) -> None:
    step = world()
    step = replace(step, progress=replace(step.progress, spend_caps=((USDC.address, approved),)))
    assert book(step).spendable_raw(USDC.address) == spendable


def test_spendable__token_that_is_no_asset_is_not() -> None:
    assert book(world()).spendable_raw("0xother") == 0


FLOOR_WEI = ETHER // 20


def native_world(coin_wei: int) -> StepInput:
    """4,000 USDC and 2 WETH, which counts together with this much native coin."""
    step = world()
    assets = tuple(replace(asset, includes_native=asset.token == WETH) for asset in step.portfolio.assets)
    return with_snapshot(replace(step, portfolio=replace(step.portfolio, assets=assets)), native_wei=coin_wei)


@pytest.mark.parametrize(
    ("coin_wei", "spendable"),
    [(FLOOR_WEI, 2 * ETHER), (FLOOR_WEI + 1, 2 * ETHER), (FLOOR_WEI - 1, 2 * ETHER - 1), (0, 2 * ETHER - FLOOR_WEI)],
)
def test_spendable__native_floor_is_taken_from_the_coin_first(coin_wei: int, spendable: int) -> None:
    """What is unwrapped cannot be provided."""
    assert book(native_world(coin_wei)).spendable_raw(WETH.address) == spendable


def test_counted__coin_counts_with_its_wrapped_token_less_floor() -> None:
    opened = book(native_world(ETHER))
    assert [opened.counted_raw(asset) for asset in opened.step.portfolio.assets if asset.includes_native] == [3 * ETHER - FLOOR_WEI]


@pytest.mark.parametrize(("usdc", "total"), [(501, 4_001), (500, 4_000), (499, 4_000), (0, 4_000)])
def test_exposure__balance_below_its_reserve_counts_as_nothing(usdc: int, total: int) -> None:
    """500 USDC are reserved beside 4,000 of WETH."""
    opened = book(world(reserves={"USDC": 500}))
    balances = {**opened.wallet_raw_by_token, USDC.address: usdc * USD}
    assert replace(opened, wallet_raw_by_token=balances).exposure().portfolio_value == total * USD


@pytest.mark.parametrize("uncertain_raw", [0, 1])
def test_spendable__uncertain_is_taken_before_approved(uncertain_raw: int) -> None:
    step = world()
    step = replace(step, progress=replace(step.progress, spend_caps=((USDC.address, 4_000 * USD),)))
    assert (
        replace(book(step), uncertain_raw_by_token={USDC.address: uncertain_raw}).spendable_raw(USDC.address) == 4_000 * USD - uncertain_raw
    )


# Cost of a move


@pytest.mark.parametrize(
    ("base_fee_wei", "price_wei"),
    [(7 * GWEI, 7 * GWEI + GWEI // 10), (None, GWEI + GWEI // 10)],
    ids=["base and priority fee", "gas price"],
)
def test_gas__is_valued_at_the_price_of_this_block(base_fee_wei: int | None, price_wei: int) -> None:
    step = world()
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei))
    value = gas_unit_value(step.snapshot, step.portfolio, step.limits, PRICES, is_needed=True)
    assert value == price_wei * Fraction(2_000 * USD, ETHER)


def test_gas__without_a_coin_price_is_nothing_where_no_limit_asks() -> None:
    step = world()
    assert gas_unit_value(step.snapshot, step.portfolio, step.limits, {}, is_needed=False) == 0


def test_gas__without_a_coin_price_is_refused_where_a_limit_asks() -> None:
    step = world()
    with pytest.raises(Refused, match="gas cannot be valued"):
        gas_unit_value(step.snapshot, step.portfolio, step.limits, {}, is_needed=True)


def why_not(value: int, units: int = 0, approvals: int = 0, skew: int = 0, step: StepInput | None = None) -> bool:
    """True if the move is not worth it at 100 a unit of gas, a plan_cost of 50 bps and a min_trade of 10 USDC."""
    builder = AdjustmentBuilder(book(step or world()), Fraction(100))
    return bool(builder.not_worth_reason(Fraction(value), units, approvals, Fraction(skew)))


@pytest.mark.parametrize(("value", "is_refused"), [(10 * USD, False), (10 * USD - 1, True)])
def test_move__of_exactly_min_trade_is_worth_it(value: int, is_refused: bool) -> None:
    assert why_not(value) is is_refused


@pytest.mark.parametrize(("value", "is_refused"), [(20 * USD, False), (20 * USD - 1, True)])
def test_move__whose_gas_equals_plan_cost_is_worth_it(value: int, is_refused: bool) -> None:
    assert why_not(value, units=1_000) is is_refused


@pytest.mark.parametrize(("value", "is_refused"), [(60 * USD, False), (60 * USD - 1, True)])
def test_move__cost_of_a_pool_off_the_reference_adds_to_its_gas(value: int, is_refused: bool) -> None:
    assert why_not(value, units=1_000, skew=200_000) is is_refused


@pytest.mark.parametrize(("value", "is_refused"), [(1_840 * USD, False), (1_840 * USD - 1, True)])
def test_move__approvals_count_46_000_units_each(value: int, is_refused: bool) -> None:
    assert why_not(value, approvals=2) is is_refused


def test_move__approvals_that_this_step_has_paid_do_not_count() -> None:
    step = world()
    step = replace(step, progress=replace(step.progress, spend_caps=((USDC.address, 1),)))
    assert not why_not(10 * USD, approvals=2, step=step)


# Guards of plans


def providing() -> tuple[StepInput, Plan]:
    step = world([ranged(500, 1_800, 2_200)], [wanted(2_000)])
    return step, planned(step)


def withdrawing() -> tuple[StepInput, Plan]:
    step = world([ranged(2_000, 1_800, 2_200)], [wanted(1_000)])
    return step, planned(step)


def case_of(step: StepInput, plan: Plan) -> tuple[GuardCase, LiquidityCase]:
    case = build_guard_case(step, plan, evidence(step, plan))
    assert isinstance(case.layer_answers, LiquidityCase)
    return case, case.layer_answers


@pytest.mark.parametrize(("less", "passes"), [(Fraction(0), True), (JUST, False)])
@pytest.mark.parametrize("kind", [providing, withdrawing])
def test_plan_cost__gas_that_equals_the_limit_passes(kind: Callable[[], tuple[StepInput, Plan]], less: Fraction, passes: bool) -> None:
    step, plan = kind()
    case, layer = case_of(step, plan)
    moved = sum((run.value for run in layer.simulated_actions()), Fraction(0))
    limited = with_limits(step, plan_cost_bps=case.cost() * 10_000 / moved - less)
    assert verdict("plan_cost", limited, plan).passed is passes


@pytest.mark.parametrize(("more", "passes"), [(Fraction(0), True), (JUST, False)])
def test_min_trade__smallest_action_may_be_as_small_as_the_limit(more: Fraction, passes: bool) -> None:
    step, plan = withdrawing()
    smallest = min(run.value for run in case_of(step, plan)[1].simulated_actions())
    assert verdict("min_trade", with_limits(step, min_trade=smallest + more), plan).passed is passes


@pytest.mark.parametrize(("less", "passes"), [(Fraction(0), True), (JUST, False)])
def test_slippage__overpayment_that_equals_the_limit_passes(less: Fraction, passes: bool) -> None:
    """The overpayment depends on the limits of the step; the guard alone is judged against another."""
    step, plan = providing()
    case, layer = case_of(step, plan)
    [run] = layer.simulated_actions()
    limit_bps = worst_overpayment_share(run, step.limits) * 10_000 - less
    measurement = slippage(case, limit_bps)  # type: ignore[arg-type]  # exact, to hit the boundary
    assert measurement is not None
    assert measurement.passed is passes


@pytest.mark.parametrize(("guard", "limit"), [("lp_max_weight", "lp_max_weight_bps"), ("impermanent_loss", "impermanent_loss_bps")])
@pytest.mark.parametrize(("less", "passes"), [(Fraction(0), True), (JUST, False)])
def test_limits_of_liquidity__share_after_the_plan_may_equal_limit(guard: str, limit: str, less: Fraction, passes: bool) -> None:
    step, plan = providing()
    after = case_of(step, plan)[1].exposures()[1]
    share = (after.value if guard == "lp_max_weight" else after.loss) * 10_000 / after.portfolio_value
    assert verdict(guard, with_limits(step, **{limit: share - less}), plan).passed is passes


def test_worst_cost__provision_may_be_overpaid_by_its_minimums() -> None:
    step, plan = providing()
    _, layer = case_of(step, plan)
    [run] = layer.simulated_actions()
    assert layer.worst_cost() == run.value * worst_overpayment_share(run, step.limits) > layer.cost()


def test_worst_cost__withdrawal_has_none() -> None:
    step, plan = withdrawing()
    _, layer = case_of(step, plan)
    assert (layer.worst_cost(), layer.cost()) == (0, 0)


def test_without_positions__guard_names_that_there_are_none() -> None:
    step, plan = providing()
    without = replace(plan, layer_actions=())
    empty = replace(with_snapshot(step, positions=()), portfolio=replace(step.portfolio, positions=(), lp_targets=()))
    measured = [verdict(guard, empty, without).measured_text for guard in ("lp_max_weight", "impermanent_loss")]
    assert measured == ["no liquidity position"] * 2


def test_overpayment__liquidity_gained_below_value_costs_nothing() -> None:
    opened = book(world([paired(2_000)]))
    ((confirmed, _),) = opened.position_states
    grown = opened.after_provision(confirmed, 10**15, (1, 1))
    assert opened.overpayment(wanted(1_000), (1, 1), grown) == 0


def test_value__is_both_amounts_at_their_prices() -> None:
    opened = book(world())
    target = wanted(1_000)
    amounts = tuple({WETH.address: ETHER, USDC.address: 5 * USD}[token] for token in (target.token0, target.token1))
    assert opened.pair_value(target, (amounts[0], amounts[1])) == 2_005 * USD


def test_moved_tokens__are_those_provided_and_not_withdrawn() -> None:
    assert set(moved_tokens(providing()[1])) == {WETH.address, USDC.address}
    assert moved_tokens(withdrawing()[1]) == ()


@pytest.mark.parametrize(("more", "passes"), [(Fraction(0), True), (JUST, False)])
def test_pool_min_value__counts_the_pool_that_is_provided_to(more: Fraction, passes: bool) -> None:
    step, plan = providing()
    assert plan.legs == ()
    [action] = plan.layer_actions
    [pool] = [pool for pool in step.snapshot.pools if pool.address == action.pool]
    case = case_of(step, plan)[0]
    depth = sum((pool.depth(token) * case.price(token) for token in (pool.token0, pool.token1)), Fraction(0))
    assert verdict("pool_min_value", with_limits(step, pool_min_value=depth + more), plan).passed is passes


def test_worst_cost__counts_each_provision_s_worse_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """One costs 5 as simulated and nothing by its minimums, the other the reverse: together 10."""

    def provision(overpayment: int, worst: int) -> SimpleNamespace:
        return SimpleNamespace(
            action=None,
            amounts=(0, 0),
            book_after=None,
            value=worst,
            book_before=SimpleNamespace(overpayment=lambda *_: Fraction(overpayment)),
        )

    monkeypatch.setattr(guard_case, "worst_overpayment_share", lambda *_: Fraction(1))
    monkeypatch.setattr(LiquidityCase, "_provisions", lambda _: [provision(5, 0), provision(0, 5)])
    step, plan = providing()
    case = LiquidityCase(step, plan)
    assert (case.cost(), case.worst_cost()) == (5, 10)
