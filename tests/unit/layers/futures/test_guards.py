"""Guards of futures plans at their exact limits: what equals a limit passes, one base unit or second more is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.guards.case import build_guard_case
from agent.layers.futures.guards import futures_cost, worst_cost
from agent.layers.futures.state import FuturesState, futures_policy, with_policy
from agent.margin import account as margin
from agent.model import Plan, StepInput
from agent.model.futures import (
    FuturesPlan,
    FuturesPolicy,
    Hedge,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    StopOrder,
)
from agent.planning.proposals import propose_rebalance
from tests.support.builders import NOW_S, OWNER, token, with_history, with_limits
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, book, step_of
from tests.support.plans import evidence, verdict
from tests.support.transactions import OTHER

USDC = token("USDC").address
WETH = token("WETH").address
UNIT = 10**6
BUY = PerpOrder("ETH", E18, PerpOrderKind.MARKET, 2_020 * E18, is_reduce_only=False)
"""Opens 2,000 of ETH at its bound of 1 %."""
SELL = PerpOrder("ETH", -E18, PerpOrderKind.MARKET, 1_980 * E18, is_reduce_only=True)


def plan_with(step: StepInput, *orders: PerpOrder, **changes: object) -> Plan:
    """The step's futures plan with these orders instead of its own."""
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    return plan.with_layer(FuturesPlan(orders, "drift", "", **changes))  # type: ignore[arg-type]  # field names


def two_markets(eth: int = 0, btc: int = 0, eth_age_s: int = 0, btc_age_s: int = 0) -> MarginAccount:
    """10,000 of collateral with whole ETH and thousandths of BTC."""
    sizes = {name: size for name, size in (("ETH", eth * E18), ("BTC", btc * 10**15)) if size}
    opened = account(10_000, sizes, market("ETH"), market("BTC", 30_000))
    ages = {"ETH": eth_age_s, "BTC": btc_age_s}
    return replace(opened, markets=tuple(replace(market, index_s=NOW_S - ages[market.market]) for market in opened.markets))


@pytest.mark.parametrize("limit", ["daily_loss", "total_loss"])
def test_loss_limits__hold_an_opening_and_not_what_lowers_risk(limit: str) -> None:
    step = with_limits(step_of(two_markets(eth=2)), **{f"{limit}_bps": 1})
    step = with_history(step, loss_24h=Fraction(10**12), loss_total=Fraction(10**12))
    assert verdict(limit, step, plan_with(step, SELL)).passed
    assert not verdict(limit, step, plan_with(step, BUY)).passed


# Age of the index


@pytest.mark.parametrize(("age_s", "passes"), [(600, True), (601, False)])
def test_index_age__at_its_limit_passes_and_older_is_refused(age_s: int, passes: bool) -> None:
    step = step_of(book(10_000, index_s=NOW_S - age_s))
    assert verdict("index_age", step, plan_with(step, BUY)).passed is passes


def test_index_age__opening_needs_the_index_of_every_position() -> None:
    step = step_of(two_markets(btc=100, btc_age_s=601))
    assert not verdict("index_age", step, plan_with(step, BUY)).passed


def test_index_age__reduction_needs_its_own_market_s_alone() -> None:
    step = step_of(two_markets(eth=2, btc=100, btc_age_s=601))
    assert verdict("index_age", step, plan_with(step, SELL)).passed


def test_index_age__deposit_needs_the_index_of_every_position() -> None:
    step = step_of(two_markets(btc=100, btc_age_s=601), replace(FUTURES_POLICY, collateral=USDC))
    assert not verdict("index_age", step, plan_with(step, account_actions=(MarginDeposit(1),))).passed


def test_index_age__oldest_index_counts() -> None:
    step = step_of(two_markets(eth=1, btc=100, eth_age_s=30, btc_age_s=90))
    assert verdict("index_age", step, plan_with(step, BUY)).measured_text == "90 s (BTC)"


# Bounds of orders and stops


@pytest.mark.parametrize(("bound", "passes"), [(19_400 * E18, True), (19_400 * E18 - 1, False)])
def test_order_bound__emergency_sale_may_reach_its_own_slippage(bound: int, passes: bool) -> None:
    """3 % below the index of 2,000, for 10 ETH."""
    step = step_of(book(1_300, 10 * E18))
    closing = PerpOrder("ETH", -10 * E18, PerpOrderKind.MARKET, bound, is_reduce_only=True)
    assert verdict("order_bound", step, plan_with(step, closing, is_emergency=True)).passed is passes


def test_order_bound__emergency_bound_is_refused_outside_of_one() -> None:
    step = step_of(OVER)
    assert not verdict("order_bound", step, plan_with(step, replace(SELL, bound_raw=1_980 * E18 - 1))).passed


def test_order_bound__emergency_opens_nothing() -> None:
    step = step_of(book(1_300, 10 * E18))
    buying = replace(BUY, is_reduce_only=True)
    assert not verdict("order_bound", step, plan_with(step, buying, is_emergency=True)).passed


LONG_STOP = StopOrder("ETH", -20 * E18, 30_000 * E18, 29_100 * E18)
"""Closes 20 ETH at 1,500, 3 % below which it sells at the least."""
SHORT_STOP = StopOrder("ETH", 20 * E18, 50_000 * E18, 51_500 * E18)
AT_MARK = 40_000 * E18


@pytest.mark.parametrize(
    ("size", "stop", "passes"),
    [
        pytest.param(20, LONG_STOP, True, id="long"),
        pytest.param(20, replace(LONG_STOP, bound_raw=29_100 * E18 - 1), False, id="long, bound a unit beyond"),
        pytest.param(20, replace(LONG_STOP, trigger_raw=AT_MARK - 1, bound_raw=AT_MARK - 1), True, id="long, a unit below the mark"),
        pytest.param(20, replace(LONG_STOP, trigger_raw=AT_MARK, bound_raw=AT_MARK), False, id="long, at the mark"),
        pytest.param(20, replace(LONG_STOP, size_raw=-20 * E18 + 1), False, id="long, a unit too small"),
        pytest.param(20, replace(LONG_STOP, size_raw=20 * E18), False, id="long, wrong side"),
        pytest.param(-20, SHORT_STOP, True, id="short"),
        pytest.param(-20, replace(SHORT_STOP, bound_raw=51_500 * E18 + 1), False, id="short, bound a unit beyond"),
        pytest.param(-20, replace(SHORT_STOP, trigger_raw=AT_MARK + 1, bound_raw=AT_MARK + 1), True, id="short, a unit above the mark"),
        pytest.param(-20, replace(SHORT_STOP, trigger_raw=AT_MARK, bound_raw=AT_MARK), False, id="short, at the mark"),
        pytest.param(-20, replace(SHORT_STOP, bound_raw=0), False, id="short without bound"),
        pytest.param(0, replace(LONG_STOP, size_raw=0), False, id="no position"),
    ],
)
def test_order_bound__stop_closes_all_within_its_slippage(size: int, stop: StopOrder, passes: bool) -> None:
    step = step_of(replace(book(10_000, size * E18), is_on_chain=False))
    assert verdict("order_bound", step, plan_with(step, resting_actions=(stop,))).passed is passes


def test_order_bound__cancel_beside_a_stop_is_judged_as_no_stop() -> None:
    step = step_of(replace(book(10_000, 20 * E18), is_on_chain=False))
    assert verdict("order_bound", step, plan_with(step, resting_actions=(OrderCancel("ETH", "1"), LONG_STOP))).passed


# Basis


@pytest.mark.parametrize(
    ("mark", "passes"),
    [(Fraction(2_100), True), (Fraction(2_100_001, 1_000), False), (Fraction(1_900), True), (Fraction(1_899_999, 1_000), False)],
)
def test_basis__mark_at_the_limit_passes_and_beyond_is_refused(mark: Fraction, passes: bool) -> None:
    step = step_of(book(10_000, mark=mark))
    assert verdict("basis", step, plan_with(step, BUY)).passed is passes


def test_basis__widest_of_the_markets_counts() -> None:
    wide = two_markets()
    wide = replace(wide, markets=(wide.markets[0], replace(wide.markets[1], mark=Fraction(33_000))))
    btc = PerpOrder("BTC", 10**15, PerpOrderKind.MARKET, 30 * E18, is_reduce_only=False)
    step = step_of(wide)
    assert verdict("basis", step, plan_with(step, BUY, btc)).measured_text == "10.00 % (BTC)"


# Cooldown after an emergency


@pytest.mark.parametrize(("since_s", "passes"), [(600, True), (599, False)])
def test_reopening__is_allowed_from_the_end_of_the_cooldown(since_s: int, passes: bool) -> None:
    policy = replace(FUTURES_POLICY, limits=replace(LIMITS, emergency_cooldown_s=600))
    step = step_of(EMPTY, policy).with_layer(FuturesState(last_emergency_s=NOW_S - since_s))
    assert verdict("reopening", step, plan_with(step, BUY)).passed is passes


def test_reopening__opening_beside_a_reduction_waits_too() -> None:
    policy = replace(FUTURES_POLICY, limits=replace(LIMITS, emergency_cooldown_s=600))
    step = step_of(two_markets(eth=2), policy).with_layer(FuturesState(last_emergency_s=NOW_S))
    btc = PerpOrder("BTC", 10**15, PerpOrderKind.MARKET, 30 * E18, is_reduce_only=False)
    assert not verdict("reopening", step, plan_with(step, SELL, btc)).passed


# Moves of margin


def margin_step(top_up_bps: int | None = None, sizes: int = 0, topped_up: int = 0) -> StepInput:
    """10,000 of USDC as margin, 5,000 in the wallet, and 5,000 of WETH."""
    policy = replace(FUTURES_POLICY, limits=replace(LIMITS, top_up_per_day_bps=top_up_bps), collateral=USDC, trader=OWNER)
    changed_book = replace(book(10_000, sizes * E18), collateral_unit_raw=10**12)
    return step_of(changed_book, policy, top_up_value_24h=Fraction(topped_up * UNIT))


@pytest.mark.parametrize(("raw", "passes"), [(5_000 * UNIT, True), (5_000 * UNIT + 1, False), (0, False)])
def test_margin_move__deposit_is_positive_and_within_the_balance(raw: int, passes: bool) -> None:
    step = margin_step()
    assert verdict("margin_move", step, plan_with(step, account_actions=(MarginDeposit(raw),))).passed is passes


@pytest.mark.parametrize(("more", "passes"), [(0, True), (1, False)])
def test_margin_move__withdrawal_is_at_most_the_free_margin(more: int, passes: bool) -> None:
    """10,000 less 10 % of 10,000."""
    step = margin_step(sizes=5)
    withdrawal = MarginWithdrawal(9_000 * UNIT + more)
    assert verdict("margin_move", step, plan_with(step, account_actions=(withdrawal,))).passed is passes


def test_margin_move__every_move_of_a_plan_is_judged() -> None:
    step = margin_step()
    moves = (MarginDeposit(UNIT), MarginWithdrawal(10_000 * UNIT + 1))
    assert not verdict("margin_move", step, plan_with(step, account_actions=moves)).passed


@pytest.mark.parametrize(("raw", "passes"), [(1_000 * UNIT, True), (1_000 * UNIT + 1, False)])
def test_top_up__day_s_deposits_are_at_most_their_spot_share(raw: int, passes: bool) -> None:
    """30 % of 10,000 without the margin account, of which 2,000 are used."""
    step = margin_step(3_000, topped_up=2_000)
    assert verdict("top_up_per_day", step, plan_with(step, account_actions=(MarginDeposit(raw),))).passed is passes


@pytest.mark.parametrize(("raw", "passes"), [(1_500 * UNIT, True), (1_500 * UNIT + 1, False)])
def test_top_up__without_whole_targets_counts_the_collateral_alone(raw: int, passes: bool) -> None:
    """30 % of 5,000."""
    step = without_whole_targets(margin_step(3_000))
    assert verdict("top_up_per_day", step, plan_with(step, account_actions=(MarginDeposit(raw),))).passed is passes


@pytest.mark.parametrize(("reduced", "passes"), [(16_000, True), (16_001, False)])
def test_reduction_budget__is_the_day_s_share_of_the_account(reduced: int, passes: bool) -> None:
    """2x of a value of 10,000: 4,000 are closed at the index, 3,600 at the mark."""
    pushed = book(10_000, 10 * E18, mark=Fraction(1_800))
    pushed = replace(pushed, collateral_raw=pushed.collateral_raw + 10_000 * E18 - margin.account_value_raw(pushed))
    step = step_of(pushed, reduced_notional_24h=Fraction(reduced * UNIT))
    halves = replace(SELL, size_raw=-2 * E18, bound_raw=3_960 * E18)
    assert verdict("reduction_per_day", step, plan_with(step, halves)).passed is passes


def without_whole_targets(step: StepInput) -> StepInput:
    """The step with a fault: its targets are not 100 % together."""
    assets = tuple(replace(asset, target_bps=5_001) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def for_another(step: StepInput) -> StepInput:
    """The step of a wallet that is a delegate of the account."""
    policy = futures_policy(step)
    assert policy is not None
    return with_policy(step, replace(policy, trader=OTHER))


def over_spot_multiple(multiple_bps: int) -> StepInput:
    """20,000 of notional beside a spot portfolio of 10,000, on a day whose budget is used."""
    policy = replace(FUTURES_POLICY, limits=replace(LIMITS, spot_multiple_bps=multiple_bps))
    return step_of(book(10_000, 10 * E18), policy, reduced_notional_24h=Fraction(20_000 * UNIT))


@pytest.mark.parametrize(("multiple_bps", "passes"), [(19_999, True), (20_000, False)])
def test_reduction_budget__excess_over_the_spot_multiple_is_free(multiple_bps: int, passes: bool) -> None:
    step = over_spot_multiple(multiple_bps)
    assert verdict("reduction_per_day", step, plan_with(step, SELL)).passed is passes


def test_reduction_budget__unwhole_targets_require_no_reduction() -> None:
    step = without_whole_targets(over_spot_multiple(19_999))
    assert not verdict("reduction_per_day", step, plan_with(step, SELL)).passed


def test_reduction_budget__delegate_s_wallet_is_no_spot_value() -> None:
    step = for_another(over_spot_multiple(19_999))
    assert not verdict("reduction_per_day", step, plan_with(step, SELL)).passed


# Hedges


@pytest.mark.parametrize(("more_raw", "passes"), [(0, True), (1, False)])
def test_reduction_budget__account_of_no_value_has_none(more_raw: int, passes: bool) -> None:
    """The mark is at half of the index: 10 ETH have lost the collateral of 10,000."""
    pushed = book(10_000, 10 * E18, mark=Fraction(1_000))
    pushed = replace(pushed, collateral_raw=pushed.collateral_raw + more_raw)
    assert margin.account_value_raw(pushed) == more_raw
    step = step_of(pushed)
    assert verdict("reduction_per_day", step, plan_with(step, SELL)).passed is passes


def test_reduction_budget__unknown_day_refuses_a_reduction() -> None:
    pushed = book(10_000, 10 * E18, mark=Fraction(1_800))
    step = step_of(pushed, unknown_reason="a gap")
    assert not verdict("reduction_per_day", step, plan_with(step, SELL)).passed


@pytest.mark.parametrize(("more", "passes"), [(0, True), (1, False)])
def test_hedge__short_is_at_most_its_asset_s_value_at_the_index(more: int, passes: bool) -> None:
    """The wallet holds 2.5 WETH at 2,000."""
    step = step_of(book(10_000, asset=WETH))
    hedge = Hedge("ETH", WETH, -(25 * 10**17 + more), NOW_S, Fraction(0))
    sale = replace(BUY, size_raw=-(25 * 10**17 + more), bound_raw=4_950 * E18 + more * 2_000)
    assert verdict("hedge", step, plan_with(step, sale, hedges=(hedge,))).passed is passes


def test_hedge__largest_share_of_several_hedges_counts() -> None:
    step = step_of(book(10_000, asset=WETH))
    hedges = tuple(Hedge("ETH", WETH, -size * 10**17, NOW_S, Fraction(0)) for size in (26, 1))
    sale = replace(BUY, size_raw=-E18, bound_raw=1_980 * E18)
    assert verdict("hedge", step, plan_with(step, sale, hedges=hedges)).measured_text == "104.00 % of WETH"


# Cost


def cost_of(margin_account: MarginAccount, *orders: PerpOrder, at_bound: bool) -> tuple[Fraction, Fraction]:
    """Cost and notional of the orders, in whole coins."""
    step = step_of(margin_account)
    plan = plan_with(step, *orders)
    cost, notional = futures_cost(build_guard_case(step, plan, evidence(step, plan)), at_bound=at_bound)
    return cost / UNIT, notional / UNIT


def test_cost__purchase_above_the_index_is_its_distance_and_fee() -> None:
    assert cost_of(book(10_000, mark=Fraction(2_010)), BUY, at_bound=False) == (10 + Fraction(201, 100), 2_000)


def test_cost__sale_below_the_index_is_its_distance_and_fee() -> None:
    assert cost_of(book(10_000, E18, mark=Fraction(1_990)), SELL, at_bound=False) == (10 + Fraction(199, 100), 2_000)


@pytest.mark.parametrize(("order", "mark"), [(BUY, 1_990), (SELL, 2_010)])
def test_cost__fill_better_than_the_index_costs_its_fee_alone(order: PerpOrder, mark: int) -> None:
    assert cost_of(book(10_000, E18, mark=Fraction(mark)), order, at_bound=False) == (Fraction(mark, 1_000), 2_000)


def test_cost__fill_at_the_bound_is_its_slippage_and_fee() -> None:
    assert cost_of(book(10_000), BUY, at_bound=True) == (20 + Fraction(202, 100), 2_000)


def test_cost__orders_of_a_plan_are_summed() -> None:
    assert cost_of(book(10_000), BUY, BUY, at_bound=False) == (4, 4_000)


def test_cost__worst_cost_is_that_at_the_bounds() -> None:
    step = step_of(EMPTY)
    plan = plan_with(step, BUY)
    assert worst_cost(build_guard_case(step, plan, evidence(step, plan))) == (20 + Fraction(202, 100)) * UNIT


@pytest.mark.parametrize(("fee_ppm", "passes"), [(3_000, True), (3_001, False)])
def test_plan_cost__fees_and_gas_may_equal_the_limit(fee_ppm: int, passes: bool) -> None:
    """30 bps of 20,000 are fees; the limit leaves exactly the gas beside them."""
    large = replace(BUY, size_raw=10 * E18, bound_raw=20_200 * E18)
    probe = step_of(book(10_000))
    plan = plan_with(probe, large)
    gas = build_guard_case(probe, plan, evidence(probe, plan)).cost()
    limit_bps = 30 + gas * 10_000 / (20_000 * UNIT)
    step = step_of(book(10_000, fee_ppm=fee_ppm))
    step = replace(step, limits=replace(step.limits, plan_cost_bps=limit_bps))  # type: ignore[arg-type]  # exact, to hit the boundary
    assert verdict("plan_cost", step, plan).passed is passes


# The account after the plan


def state_policy(**changes: int) -> FuturesPolicy:
    return replace(FUTURES_POLICY, limits=replace(LIMITS, slippage_bps=0, stress_move_bps=0, **changes))


@pytest.mark.parametrize(("more", "passes"), [(0, True), (1, False)])
def test_futures_state__leverage_after_the_worst_fill_is_limited(more: int, passes: bool) -> None:
    """3x of 10,000 without a fee."""
    step = with_policy(step_of(book(10_000, fee_ppm=0)), state_policy())
    order = replace(BUY, size_raw=15 * E18 + more * 10**3, bound_raw=30_000 * E18 + more * 2_000 * 10**3)
    assert verdict("futures_state", step, plan_with(step, order)).passed is passes


@pytest.mark.parametrize(("more", "passes"), [(0, True), (1, False)])
def test_futures_state__notional_is_at_most_its_spot_multiple(more: int, passes: bool) -> None:
    """A fifth of 10,000, of one ETH."""
    step = with_policy(step_of(book(10_000, fee_ppm=0)), state_policy(spot_multiple_bps=2_000))
    order = replace(BUY, size_raw=E18 + more, bound_raw=2_000 * (E18 + more))
    assert verdict("futures_state", step, plan_with(step, order)).passed is passes


def test_futures_state__delegate_without_owner_s_value_opens_none() -> None:
    step = for_another(with_policy(step_of(book(10_000, fee_ppm=0)), state_policy(spot_multiple_bps=2_000)))
    order = replace(BUY, bound_raw=2_000 * E18)
    assert not verdict("futures_state", step, plan_with(step, order)).passed


def test_futures_state__all_orders_of_a_plan_count_together() -> None:
    step = with_policy(step_of(book(10_000, fee_ppm=0)), state_policy())
    order = replace(BUY, size_raw=8 * E18, bound_raw=16_000 * E18)
    assert not verdict("futures_state", step, plan_with(step, order, order)).passed


def test_futures_state__plan_without_an_action_is_refused() -> None:
    step = step_of(EMPTY)
    assert not verdict("futures_state", step, plan_with(step)).passed


def test_futures_guards__market_not_in_the_snapshot_is_refused() -> None:
    step = step_of(EMPTY)
    plan = plan_with(step, replace(BUY, market="DOGE"))
    assert not any(verdict(name, step, plan).passed for name in ("index_age", "order_bound", "basis", "futures_state", "margin_move"))


def test_futures_guards__stop_of_an_unknown_market_is_refused() -> None:
    step = step_of(replace(book(10_000, 20 * E18), is_on_chain=False))
    assert not verdict("order_bound", step, plan_with(step, resting_actions=(replace(LONG_STOP, market="DOGE"),))).passed


def test_budgets__unknown_day_refuses_a_deposit_with_a_budget() -> None:
    step = with_history(margin_step(3_000), unknown_reason="a gap")
    assert not verdict("top_up_per_day", step, plan_with(step, account_actions=(MarginDeposit(UNIT),))).passed
