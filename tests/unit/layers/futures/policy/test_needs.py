"""What futures may do at a block: deposits, budgets, cooldowns and back-offs, at exact amounts and seconds."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NoReturn

import pytest

from agent.app.alerting import RunFacts, cycle_alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.composer import FuturesComposer
from agent.layers.futures.planning.plans import (
    action_gas,
    as_limit_orders,
    collateral_change_raw,
    current_futures_plan,
    fee_raw,
    funding_raw,
    uneconomic_reason,
    vault_approval_raw,
    without_resting_markets,
)
from agent.layers.futures.policy import exposure
from agent.layers.futures.policy.needs import (
    AGENT_KEY_WARNING_S,
    agent_key_ends_soon,
    back_off_reason,
    cooldown_reason,
    deleverage_sizes,
    depositable_raw,
    index_requires_reduction,
    reduction_budget_left,
    reopening_s,
    spendable_collateral_raw,
    spot_value_in_quote,
)
from agent.layers.futures.policy.plans import emergency_gas_per_day_wei, emergency_gas_price_limit_wei
from agent.layers.futures.state import FuturesCycle, FuturesState, planned_futures
from agent.margin import account as margin
from agent.model import MARGIN_PLACE, AdjustFutures, Allowance, ExitFailures, Hold, StepInput
from agent.model.futures import (
    FuturesAction,
    FuturesPlan,
    Hedge,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    PerpQuote,
    RestingOrder,
    StopOrder,
)
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.decide import current_drifts, decide
from agent.ports import PreparedTransaction
from agent.ports.perpetuals import PerpActionDraft, granted_action
from tests.support.builders import GWEI, NOW_S, OWNER, token, with_history, with_limits, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.books import LOT
from tests.support.perpetuals.needs import BUY, SELL, UNIT, USDC, VAULT, in_usdc, policy
from tests.support.perpetuals.plans import pair_book
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of

# Deposits: 5,000 of USDC and 5,000 of WETH are in the wallet.


def depositable(step: StepInput, *, has_prices: bool = True) -> int:
    return depositable_raw(step, current_drifts(step) if has_prices else ())


@pytest.mark.parametrize(
    ("top_up_bps", "topped_up", "coins"),
    [
        pytest.param(None, 9_000, 5_000, id="limit off"),
        pytest.param(3_000, 0, 3_000, id="nothing deposited"),
        pytest.param(3_000, 2_000, 1_000, id="part deposited"),
        pytest.param(3_000, 3_000, 0, id="all deposited"),
        pytest.param(3_000, 4_000, 0, id="more than all"),
        pytest.param(10_000, 0, 5_000, id="more than at hand"),
    ],
)
def test_depositable__is_what_the_wallet_and_the_day_leave(top_up_bps: int | None, topped_up: int, coins: int) -> None:
    step = step_of(in_usdc(OVER), policy(top_up_bps), top_up_value_24h=Fraction(topped_up * UNIT))
    assert depositable(step) == coins * UNIT


def test_depositable__without_prices_is_a_share_of_the_collateral() -> None:
    step = step_of(in_usdc(OVER), policy(3_000), top_up_value_24h=Fraction(500 * UNIT))
    assert depositable(step, has_prices=False) == 1_000 * UNIT


def test_depositable__part_of_a_base_unit_is_not_deposited() -> None:
    step = step_of(in_usdc(OVER), policy(3_000), top_up_value_24h=Fraction(1, 3))
    assert depositable(step) == 3_000 * UNIT - 1


def test_depositable__failed_deposits_back_off() -> None:
    failed = (ExitFailures(MARGIN_PLACE, failures.MAX_REVERTS_IN_ROW, 0, NOW_S),)
    assert depositable(step_of(in_usdc(OVER), policy(), failed_exits=failed)) == 0


def test_collateral__reserve_of_the_asset_is_not_spendable() -> None:
    step = step_of(in_usdc(OVER), policy())
    assets = tuple(replace(asset, reserve_raw=1_200 * UNIT) if asset.token.address == USDC else asset for asset in step.portfolio.assets)
    portfolio = replace(step.portfolio, assets=assets)
    assert spendable_collateral_raw(step.snapshot, portfolio, step.limits, USDC) == 3_800 * UNIT


def test_collateral__reserve_above_the_balance_leaves_nothing() -> None:
    step = step_of(in_usdc(OVER), policy())
    assets = tuple(replace(asset, reserve_raw=6_000 * UNIT) if asset.token.address == USDC else asset for asset in step.portfolio.assets)
    assert spendable_collateral_raw(step.snapshot, replace(step.portfolio, assets=assets), step.limits, USDC) == 0


@pytest.mark.parametrize(("allowed", "approved"), [(700, 700), (699, 0), (701, 0)])
def test_approved_deposit__counts_while_the_vault_has_its_allowance(allowed: int, approved: int) -> None:
    step = with_snapshot(step_of(in_usdc(OVER), policy()), allowances=(Allowance(USDC, VAULT, allowed),))
    assert vault_approval_raw(step.snapshot, ((USDC, 700),), policy()) == approved


# Budgets, cooldowns and back-offs


def budget_left(reduced: int, **changes: object) -> Fraction | None:
    step = with_history(step_of(PUSHED, **changes), reduced_notional_24h=Fraction(reduced * UNIT))
    budget = reduction_budget_left(step, spot_value_in_quote(step, current_drifts(step)))
    return None if budget is None else budget / E18


@pytest.mark.parametrize(("reduced", "budget"), [(0, 17_000), (5_000, 12_000), (16_829, 171), (16_830, 0), (20_000, 0)])
def test_reduction_budget__rest_of_a_hundredth_counts_as_used(reduced: int, budget: int) -> None:
    """2x of 8,500 are 17,000."""
    assert margin.account_value_raw(PUSHED) == 8_500 * E18
    assert budget_left(reduced) == budget


def test_reduction_budget__unknown_day_is_judged_by_the_guard() -> None:
    assert budget_left(0, unknown_reason="a gap") is None


def test_reduction_budget__reduction_the_index_requires_has_none() -> None:
    step = step_of(OVER)
    assert reduction_budget_left(step, spot_value_in_quote(step, current_drifts(step))) is None


def test_required_by_index__pushed_mark_alone_requires_nothing() -> None:
    step = step_of(PUSHED)
    assert not index_requires_reduction(step.snapshot, FUTURES_POLICY, None)


@pytest.mark.parametrize(("now_s", "waits"), [(99, True), (100, False), (101, False)])
def test_cooldown__ends_at_its_second(now_s: int, waits: bool) -> None:
    assert bool(cooldown_reason(100, now_s)) is waits


@pytest.mark.parametrize(
    ("cooldown_s", "last_s", "from_s"),
    [
        pytest.param(600, 1_000, 1_600, id="after an emergency"),
        pytest.param(0, 1_000, 0, id="off"),
        pytest.param(600, None, 0, id="no emergency"),
    ],
)
def test_cooldown__begins_at_the_newest_emergency(cooldown_s: int, last_s: int | None, from_s: int) -> None:
    assert reopening_s(policy(emergency_cooldown_s=cooldown_s), FuturesState(last_emergency_s=last_s)) == from_s


@pytest.mark.parametrize(("later_s", "waits"), [(-1, True), (0, False)])
def test_back_off__market_is_tried_again_at_the_second_it_names(later_s: int, waits: bool) -> None:
    failure = ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10**6)
    wait_s = failures.retry_wait_s(failure)
    failure = replace(failure, at_s=NOW_S - wait_s - later_s)
    step = step_of(OVER, failed_exits=(failure,))
    assert bool(back_off_reason(step.snapshot, step.history, "ETH")) is waits


def test_back_off__emergency_waits_for_its_shorter_time_at_most() -> None:
    failure = ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW + 20, 0, NOW_S - failures.FIRST_WAIT_S)
    step = step_of(OVER, failed_exits=(failure,))
    waits = [bool(back_off_reason(step.snapshot, step.history, "ETH", is_emergency=is_emergency)) for is_emergency in (True, False)]
    assert waits == [False, True]


@pytest.mark.parametrize(("end_s", "warns"), [(0, False), (NOW_S + AGENT_KEY_WARNING_S - 1, True), (NOW_S + AGENT_KEY_WARNING_S, False)])
def test_approval__warning_begins_within_its_time_of_the_end(end_s: int, warns: bool) -> None:
    assert agent_key_ends_soon(with_snapshot(step_of(EMPTY), key_approval_expires_s=end_s).snapshot) is warns


def test_gas_of_emergencies__own_limit_replaces_the_general_one() -> None:
    step = step_of(EMPTY)
    assert emergency_gas_per_day_wei(replace(LIMITS, emergency_gas_per_day_wei=7), step.limits) == 7


# Spot and futures together


def test_expected_funding__is_the_rate_of_the_horizon_s_days() -> None:
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
    assert exposure.expected_funding(paying, Fraction(-3_000), 10 * exposure.DAY_S) == -30


def test_funding_cost__position_that_receives_costs_nothing() -> None:
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
    costs = [exposure.funding_cost_share(paying, Fraction(notional), 10 * exposure.DAY_S) for notional in (3_000, -3_000, 0)]
    assert costs == [Fraction(1, 100), 0, 0]


def test_spot_value__margin_account_is_no_part_of_it() -> None:
    step = step_of(in_usdc(OVER), policy())
    assert exposure.spot_portfolio_value(current_drifts(step)) == 10_000 * UNIT


def test_market_growth__margin_is_its_part_of_all_capital() -> None:
    step = step_of(in_usdc(book(10_000)), policy())
    growth = exposure.market_terms(step, Fraction(30_000 * UNIT))
    assert growth is not None
    assert growth.margin_share == Fraction(1, 4)


def test_exposures__long_adds_to_its_asset_margin_to_collateral() -> None:
    weth = token("WETH").address
    step = step_of(in_usdc(book(10_000, -2 * E18, asset=weth)), policy())
    margin_account = in_usdc(book(10_000, -2 * E18, asset=weth))
    values = {
        price_exposure.token: (price_exposure.spot / UNIT, price_exposure.futures / UNIT, price_exposure.net / UNIT)
        for price_exposure in exposure.exposures(margin_account, policy(), current_drifts(step))
    }
    assert values == {weth: (5_000, -4_000, 1_000), USDC: (15_000, 0, 15_000)}


# Plans


def test_fee__is_that_of_the_bound_or_of_a_worse_mark_rounded_up() -> None:
    margin_account = book(10_000)
    fees = [fee_raw(margin_account, order) for order in (BUY, SELL, replace(BUY, size_raw=1, bound_raw=1))]
    assert fees == [2_020 * E18 // 1_000, 2_000 * E18 // 1_000, 2]


def test_funding__orders_pay_by_their_signed_size() -> None:
    margin_account = book(10_000, funding_daily=Fraction(1, 1_000))
    double = replace(SELL, size_raw=-3 * E18)
    assert funding_raw(margin_account, [BUY, double], 5 * exposure.DAY_S) == -20 * E18


def test_moved_collateral__deposit_leaves_and_withdrawal_enters() -> None:
    moved = [
        collateral_change_raw(action)
        for action in (MarginDeposit(5), MarginWithdrawal(7), BUY, StopOrder("ETH", 1, 1, 1), OrderCancel("ETH", "1"))
    ]
    assert moved == [-5, 7, 0, 0, 0]


def test_gas__resting_actions_cost_none() -> None:
    assert [action_gas(action) for action in (StopOrder("ETH", 1, 1, 1), OrderCancel("ETH", "1"))] == [0, 0]


def test_plan__cost_and_gas_are_those_of_its_orders() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    futures = planned_futures(plan)
    assert futures is not None
    [order] = futures.orders
    assert plan.cost.fees == Fraction(order.bound_raw, 1_000 * 10**12)
    assert plan.cost.gas == plan.gas_units * step.snapshot.current_gas_price_wei * Fraction(2_000 * UNIT, E18)
    assert plan.gas_units == 1_100_000


@pytest.mark.parametrize(("fee_ppm", "waits"), [(3_000, False), (3_001, True)])
def test_uneconomic__cost_that_equals_the_limit_is_paid(fee_ppm: int, waits: bool) -> None:
    """30 bps of fees on an order without gas."""
    step = with_limits(step_of(replace(book(10_000, fee_ppm=fee_ppm), is_on_chain=False)), plan_cost_bps=30)
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    margin_account = book(10_000, fee_ppm=fee_ppm)
    assert bool(uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, margin_account)) is waits


def test_uneconomic__mark_on_the_wrong_side_of_the_index_costs() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    reasons = [
        bool(uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, book(10_000, mark=Fraction(mark))))
        for mark in (2_010, 1_990)
    ]
    assert reasons == [True, False], "50 bps of basis and 10 of fee, of at most 50"


@pytest.mark.parametrize("mark", [1_999, 1_990, 1_900])
def test_uneconomic__gain_of_the_basis_pays_no_fee(mark: int) -> None:
    """60 bps of fee, of at most 50."""
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    margin_account = book(10_000, fee_ppm=6_000, mark=Fraction(mark))
    assert uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, margin_account)


@pytest.mark.parametrize(
    ("size", "mid", "bound"),
    [
        pytest.param(1, Fraction(19_991, 10), 1_999_100_000_000_000_000_000, id="purchase within the bound"),
        pytest.param(1, Fraction(2_100), 2_020 * E18, id="purchase at the bound"),
        pytest.param(-1, Fraction(20_011, 10), 2_001_100_000_000_000_000_000, id="sale within the bound"),
        pytest.param(-1, Fraction(1_900), 1_980 * E18, id="sale at the bound"),
        pytest.param(1, Fraction(0), 2_000 * E18, id="no book"),
    ],
)
def test_post_only__price_is_the_book_s_middle_within_the_bound(size: int, mid: Fraction, bound: int) -> None:
    changed_book = replace(book(10_000, mid=mid), is_on_chain=False)
    order = replace(BUY if size > 0 else SELL, is_reduce_only=False)
    resting = replace(FUTURES_POLICY, order_kind=PerpOrderKind.POST_ONLY)
    [limit] = as_limit_orders(changed_book, resting, "drift", [order])
    assert (limit.kind, limit.bound_raw) == (PerpOrderKind.POST_ONLY, bound)


@pytest.mark.parametrize(
    ("size", "mid", "bound"),
    [pytest.param(3, Fraction(1, 2), 2, id="purchase rounds up"), pytest.param(-3, Fraction(1, 2), 1, id="sale rounds down")],
)
def test_post_only__part_of_a_base_unit_favours_the_fill(size: int, mid: Fraction, bound: int) -> None:
    changed_book = replace(book(10_000, mid=mid), is_on_chain=False)
    order = replace(BUY, size_raw=size, bound_raw=10 if size > 0 else 0)
    [limit] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.POST_ONLY), "drift", [order])
    assert limit.bound_raw == bound


@pytest.mark.parametrize(("trigger", "rests"), [("drift", True), ("leverage_drift", True), ("funding", False), ("leverage", False)])
def test_limit_orders__only_openings_to_the_targets_rest(trigger: str, rests: bool) -> None:
    changed_book = replace(book(10_000), is_on_chain=False)
    [order] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT), trigger, [BUY])
    assert order.kind.can_rest is rests


@pytest.mark.parametrize("sale", [SELL, replace(SELL, is_reduce_only=False)], ids=["reduce-only", "any that reduces"])
def test_limit_orders__reduction_is_sent_at_once(sale: PerpOrder) -> None:
    changed_book = replace(book(10_000, 2 * E18), is_on_chain=False)
    [order] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT), "drift", [sale])
    assert order == sale


def test_beside_resting__market_with_an_order_gets_no_second() -> None:
    margin_account = account(10_000, {}, market("ETH"), market("BTC", 30_000))
    margin_account = replace(
        margin_account, is_on_chain=False, resting_orders=(RestingOrder("ETH", E18, E18, Fraction(1_990), NOW_S, "1"),)
    )
    btc = replace(BUY, market="BTC")
    plan = without_resting_markets(margin_account, FuturesPlan((BUY, btc), "drift", "", refusal_texts=("why",)))
    assert (plan.orders, plan.refusal_texts) == ((btc,), ("why", "ETH: an order rests at the venue"))


def test_plan_now__reduction_is_planned_for_the_account_as_it_is() -> None:
    step = step_of(OVER)
    plan = current_futures_plan(step, FUTURES_POLICY, current_drifts(step), None)
    assert plan is not None
    assert [order.is_reduce_only for order in plan.orders] == [True]


def test_cycle__actions_that_reverted_are_not_done() -> None:
    assert FuturesCycle(action_count=5, reverted_count=2).notes() == ["3 futures actions done"]


def test_gas__emergency_ceiling_is_a_multiple_of_the_general() -> None:
    step = with_limits(step_of(EMPTY), gas_price_wei=20 * GWEI)
    assert emergency_gas_price_limit_wei(LIMITS, step.limits) == 100 * GWEI


def test_composer__composes_plans_with_futures_actions_alone() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    without = replace(plan, layers=())
    assert [FuturesComposer(None).composes(candidate) for candidate in (plan, without)] == [True, False]


@pytest.mark.parametrize(("allowed", "lacking"), [(0, [700]), (700, []), (699, [0, 700])])
def test_composer__deposit_needs_an_allowance_of_its_amount(allowed: int, lacking: list[int]) -> None:
    step = step_of(in_usdc(OVER), policy())
    step = with_snapshot(step, allowances=(*step.snapshot.allowances, Allowance(USDC, VAULT, allowed)))
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    deposit = plan.with_layer(FuturesPlan((), "leverage", "", (MarginDeposit(700),)))
    approvals = FuturesComposer(None).missing_approvals(step, deposit)
    assert [(approval.token, approval.spender, approval.raw) for approval in approvals] == [(USDC, VAULT, raw) for raw in lacking]


def test_composer__allowance_of_another_spender_approves_nothing() -> None:
    step = step_of(in_usdc(OVER), policy())
    step = with_snapshot(step, allowances=(Allowance(USDC, VAULT, 0), Allowance(USDC, "router", 10**30)))
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    deposit = plan.with_layer(FuturesPlan((), "leverage", "", (MarginDeposit(700),)))
    assert [approval.raw for approval in FuturesComposer(None).missing_approvals(step, deposit)] == [700]


def test_composer__order_needs_no_approval() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert FuturesComposer(None).missing_approvals(step, plan) == []


class OneActionVenue:
    """A venue off the chain that takes every order."""

    has_left_out_reads = False

    def unused(self) -> NoReturn:
        raise AssertionError("a composer posts and reads nothing")

    read = read_promptly = wait_for_budget = require_approved_key = post = post_orders = outcome = unused

    def quote(self, _account: MarginAccount, order: PerpOrder) -> PerpQuote:
        return PerpQuote(abs(order.size_raw), 1)

    def draft(self, _account: MarginAccount, _action: FuturesAction, now_s: int) -> PerpActionDraft:
        return PerpActionDraft(OWNER, "0x00", now_s + 90, 2)

    def draft_companion(self, _account: MarginAccount, _order: PerpOrder, first_draft: PerpActionDraft, number: int) -> PerpActionDraft:
        return replace(first_draft, nonce=2 + 2 * number)


HEDGE = Hedge("ETH", token("WETH").address, -E18, NOW_S, Fraction(1))
OPENING = replace(BUY, market="BTC")


@pytest.mark.parametrize(
    ("orders", "before", "after", "companions"),
    [
        ((SELL, replace(SELL, market="BTC")), (), (), ["BTC"]),
        ((SELL, replace(SELL, market="BTC")), (HEDGE,), (HEDGE,), []),
        ((SELL, replace(SELL, market="BTC")), (HEDGE,), (), []),
        ((SELL, replace(SELL, market="BTC")), (), (HEDGE,), []),
        ((SELL, OPENING), (), (), []),
        ((OPENING, SELL), (), (), []),
    ],
    ids=["reductions", "beside a hedge", "hedge that ends", "hedge that begins", "an opening last", "an opening first"],
)
def test_composer__only_reductions_without_hedges_share_an_action(
    orders: tuple[PerpOrder, ...], before: tuple[Hedge, ...], after: tuple[Hedge, ...], companions: list[str]
) -> None:
    margin_account = account(10_000, {"ETH": 2 * E18, "BTC": E18}, market("ETH"), market("BTC", 30_000))
    step = step_of(replace(margin_account, is_on_chain=False), replace(FUTURES_POLICY, hedges=before))
    any_plan = propose_rebalance(step_of(EMPTY)).plan
    assert any_plan is not None
    plan = any_plan.with_layer(FuturesPlan(orders, "leverage", "", hedges=after))
    composed = FuturesComposer(OneActionVenue()).compose(step, plan, step.snapshot.head)  # type: ignore[arg-type]  # no other method is called
    assert isinstance(composed, PreparedTransaction)
    actions = [granted_action(companion.grant) for companion in composed.companions]
    assert [action.market for action in actions if isinstance(action, PerpOrder)] == companions


def test_trigger_that_waits_for_a_person__orders_nothing() -> None:
    changed_futures_policy = replace(FUTURES_POLICY, manual_triggers=("leverage",))
    decision = decide(step_of(OVER, changed_futures_policy)).decision
    assert isinstance(decision, Hold)
    assert "futures: leverage is above its limit; futures.ask requires a confirmation: trimtab rebalance --send" in decision.reason
    assert isinstance(decide(step_of(OVER)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, changed_futures_policy)).decision, AdjustFutures)
    assert isinstance(decide(step_of(EMPTY, replace(changed_futures_policy, manual_triggers=("drift",)))).decision, Hold)


def test_an_alert_carries_the_orders_that_wait_for_a_person() -> None:
    step = step_of(OVER, replace(FUTURES_POLICY, manual_triggers=("leverage",)))
    outcome = StepOutcome("step", OutcomeKind.HOLD, "a reason", step, decide(step), None)
    texts = [alert.text for alert in cycle_alerts(outcome, RunFacts(False, "", None)) if alert.key.startswith("futures:")]
    assert len(texts) == 1
    assert texts[0].startswith("Futures actions await confirmation (leverage); leverage 4.00x of at most 3x, utilisation")
    assert texts[0].endswith("It would close 5.75 of 20 ETH (long). Run: trimtab rebalance --send")


@pytest.mark.parametrize(
    ("eth", "slippage_bps", "order"),
    [
        pytest.param(10, 0, -5_006, id="long without slippage"),
        pytest.param(10, 2_000, -6_258, id="long with slippage"),
        pytest.param(-10, 0, 5_006, id="short without slippage"),
        pytest.param(-10, 2_000, 6_260, id="short with slippage"),
    ],
)
def test_deleverage__reduction_pays_for_its_fee_and_slippage(eth: int, slippage_bps: int, order: int) -> None:
    """From 2x to 1x: 10,000 of 20,000 · (1 - cost), where the fee of 1 ‰ counts on the larger of value and bound."""
    assert deleverage_sizes(pair_book(10_000, eth * E18), Fraction(1), ["ETH"], slippage_bps) == {"ETH": order * LOT}


def test_deleverage__leverage_that_is_reached_needs_no_order() -> None:
    assert deleverage_sizes(pair_book(10_000, 5 * E18), Fraction(1), ["ETH"], 0) == {}


def test_deleverage__account_in_debt_closes_everything() -> None:
    account = replace(pair_book(0, 5 * E18), realised_raw=-E18)
    assert deleverage_sizes(account, Fraction(1), ["ETH"], 0) == {"ETH": -5 * E18}
