"""The margin account as part of the portfolio: total, weights, caps, and what is never spent or guessed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec, guards
from agent.errors import Refused
from agent.layers.futures.policy.exposure import exposures
from agent.layers.futures.policy.needs import spot_value_in_quote
from agent.layers.futures.state import futures_policy, hold_futures, margin_account, with_policy
from agent.layers.strategies.policy.netting import net_strategies
from agent.margin import account as margin
from agent.model import MARGIN_PLACE, ExitFailures, Halt, HaltCode, Hold, NavPerShare, Rebalance, ScreenedToken, StepInput, TokenFinding
from agent.planning.proposals import propose_rebalance
from agent.policy import failures
from agent.policy.cash_flows.transfers import goal_to_invest
from agent.policy.decide import current_drifts, decide
from agent.policy.drift import band_edge_prices, compute_drifts, investable_total, portfolio_total
from agent.policy.orders.conditional import updated_nav_record
from agent.policy.quarantine import quarantine_tokens
from agent.reference import reference_prices
from tests.support.builders import (
    NOW_S,
    brought_up,
    opening,
    split,
    step_input,
    strategy,
    threshold,
    with_history,
    with_limits,
)
from tests.support.perpetuals.steps import EVEN, OVER, book
from tests.support.perpetuals.values import OURS, USDC, step_with_margin
from tests.support.plans import evidence

E6 = 10**6
E18 = 10**18


def test_margin_counts_in_the_total_and_as_its_collateral() -> None:
    weth, usdc = current_drifts(step_with_margin(book(2_500)))
    assert (usdc.raw_at(MARGIN_PLACE), usdc.locked_raw, weth.raw_at(MARGIN_PLACE)) == (2_500 * E6, 2_500 * E6, 0)
    assert investable_total((weth, usdc)) == 12_500 * E6
    assert (weth.weight_bps, usdc.weight_bps) == (4_000, 6_000)
    assert usdc.investable_raw == 5_000 * E6, "none of the margin can be spent by a swap"


def test_profit_and_funding_of_positions_change_the_total() -> None:
    margin_account = book(2_500, E18)
    gained = margin.with_moved_marks(margin_account, {"ETH": Fraction(1, 10)})
    owing = replace(gained, positions=(replace(gained.positions[0], funding_pending_raw=50 * E18),))
    totals = [investable_total(current_drifts(step_with_margin(account))) / E6 for account in (margin_account, gained, owing)]
    assert totals == [12_500, 12_700, 12_650]


def test_the_spot_multiple_leaves_the_margin_out() -> None:
    step = step_with_margin(book(2_500))
    drifts = current_drifts(step)
    assert spot_value_in_quote(step, drifts) == 10_000 * E18
    account = margin_account(step.snapshot)
    assert account is not None
    assert [price_exposure.spot for price_exposure in exposures(account, OURS, drifts)] == [5_000 * E6, 7_500 * E6], (
        "shown as the weights count"
    )


def test_a_deposit_moves_no_weight() -> None:
    before = current_drifts(step_with_margin(book(0), {"WETH": 5_000, "USDC": 5_000}))
    after = current_drifts(step_with_margin(book(3_000), {"WETH": 5_000, "USDC": 2_000}))
    assert [drift.share for drift in before] == [drift.share for drift in after]
    assert band_edge_prices(before) == band_edge_prices(after)


# --- Margin beside the weights: futures.margin_in_weights is off.


def apart(step: StepInput) -> StepInput:
    """The step of a config without futures.margin_in_weights."""
    assert futures_policy(step) is not None
    return with_policy(step, replace(futures_policy(step), margin_in_weights=False))


def test_margin_beside_the_weights__changes_no_weight_or_trade() -> None:
    skewed = {"WETH": 8_000, "USDC": 2_000}
    alone = step_with_margin(book(0), skewed)
    beside = apart(step_with_margin(book(6_000), skewed))
    assert [asset_drift.share for asset_drift in current_drifts(beside)] == [asset_drift.share for asset_drift in current_drifts(alone)]
    plans = [propose_rebalance(with_limits(step, turnover_bps=None, daily_turnover_bps=None)).plan for step in (alone, beside)]
    assert plans[0] is not None
    assert plans[1] is not None
    assert [leg.amount_in_raw for leg in plans[0].legs] == [leg.amount_in_raw for leg in plans[1].legs] != []
    assert plans[0].weights_after_bps == plans[1].weights_after_bps
    counted = propose_rebalance(step_with_margin(book(6_000), skewed)).plan
    assert counted is not None
    assert counted.legs == (), "margin as the stable asset hides the drift"


def test_margin_beside_the_weights__counts_in_total_and_exposure() -> None:
    margin_book = book(2_500, E18)
    step = apart(step_with_margin(margin_book))
    drifts = current_drifts(step)
    assert (investable_total(drifts), portfolio_total(step, drifts)) == (10_000 * E6, 12_500 * E6)
    assert spot_value_in_quote(step, drifts) == 10_000 * E18
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    assert account is not None
    assert policy is not None
    assert [price_exposure.spot for price_exposure in exposures(account, policy, drifts)][:2] == [5_000 * E6, 7_500 * E6]
    first = nav(step)
    fallen = nav(apart(step_with_margin(margin.with_moved_marks(margin_book, {"ETH": Fraction(-1, 2)}))), first)
    assert (first.nav, fallen.nav) == (1, Fraction(115, 125))


def test_managed_value_cap__counts_margin_beside_the_weights() -> None:
    step = apart(step_with_margin(book(2_500), {"WETH": 8_000, "USDC": 2_000}))
    for cap, refused in ((12_500, False), (12_499, True)):
        capped = with_limits(step, max_live_value=Fraction(cap * E6))
        plan = propose_rebalance(step).plan
        assert plan is not None
        passed_by_guard = {verdict.guard: verdict.passed for verdict in guards.judge(capped, plan, evidence(capped, plan))}
        assert passed_by_guard["max_live_value"] is not refused


def test_a_policy_without_the_key_is_read_as_counting_margin() -> None:
    written = codec.to_jsonable(OURS)
    del written["margin_in_weights"]
    assert codec.from_jsonable(type(OURS), written) == OURS
    off = replace(OURS, margin_in_weights=False)
    assert codec.from_jsonable(type(OURS), codec.to_jsonable(off)) == off


def test_a_rebalance_spends_no_margin() -> None:
    step = step_with_margin(book(6_000), {"WETH": 1_000, "USDC": 3_000})
    plan = propose_rebalance(with_limits(step, turnover_bps=None, daily_turnover_bps=None)).plan
    assert plan is not None
    assert plan.legs
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == USDC) <= 3_000 * E6


def test_the_cap_on_managed_value_counts_margin() -> None:
    step = step_with_margin(book(2_500), {"WETH": 8_000, "USDC": 2_000})
    for cap, refused in ((12_500, False), (12_499, True)):
        capped = with_limits(step, max_live_value=Fraction(cap * E6))
        plan = propose_rebalance(step).plan
        assert plan is not None
        passed_by_guard = {verdict.guard: verdict.passed for verdict in guards.judge(capped, plan, evidence(capped, plan))}
        assert passed_by_guard["max_live_value"] is not refused


def test_unknown_margin_holds_a_rebalance_and_names_the_reason() -> None:
    skewed = {"WETH": 8_000, "USDC": 2_000}
    assert isinstance(decide(step_with_margin(book(0), skewed)).decision, Rebalance)
    decision = decide(step_with_margin(None, skewed, futures_unknown="free margin could not be read")).decision
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.FUTURES,)
    assert "free margin could not be read" in decision.reason


def test_a_spot_proposal_in_place_of_orders_keeps_the_total() -> None:
    step = step_with_margin(OVER, {"WETH": 5_000, "USDC": 5_000})
    failed = (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)
    proposal = propose_rebalance(with_history(step, failed_exits=failed))
    assert investable_total(proposal.decision_result.drifts) == 20_000 * E6
    assert not isinstance(proposal.decision_result.decision, Hold)


def test_why_a_layer_is_held_is_read_back() -> None:
    step = step_with_margin(OVER)
    held_step = hold_futures(replace(step, progress=replace(step.progress, spot_hold_reason="why not")), "why")
    assert codec.from_jsonable(StepInput, codec.to_jsonable(held_step)) == held_step


def nav(step: StepInput, nav_per_share: NavPerShare | None = None) -> NavPerShare:
    step = with_history(step, nav_per_share=nav_per_share)
    return updated_nav_record(step, reference_prices(step).price_by_token, current_drifts(step))


def test_value_per_share__falls_with_futures_not_with_deposits() -> None:
    margin_account = book(2_500, E18)
    first = nav(step_with_margin(margin_account))
    fallen = nav(step_with_margin(margin.with_moved_marks(margin_account, {"ETH": Fraction(-1, 2)})), first)
    assert (first.nav, fallen.nav) == (1, Fraction(115, 125))
    deposited = replace(margin_account, collateral_raw=margin_account.collateral_raw + 1_000 * E18)
    moved = nav(step_with_margin(deposited, {"WETH": 5_000, "USDC": 4_000}), first)
    assert moved.nav == 1
    assert nav(step_with_margin(margin.with_moved_marks(deposited, {"ETH": Fraction(1, 8)})), moved).nav == Fraction(1_275, 1_250)


def test_an_unknown_account_leaves_the_value_per_share_as_it_was() -> None:
    first = nav(step_with_margin(book(2_500, E18)))
    assert nav(step_with_margin(None, futures_unknown="not read"), first) == first
    assert codec.from_jsonable(NavPerShare, codec.to_jsonable(first)) == first
    assert nav(step_input(values=EVEN)).margin is None


def test_deposit__waits_while_the_account_is_unknown() -> None:
    with pytest.raises(Refused, match="the margin account is unknown: not read"):
        goal_to_invest(step_with_margin(None, futures_unknown="not read"), {USDC: 100 * E6})
    assert goal_to_invest(step_with_margin(book(0), {"WETH": 4_000, "USDC": 6_000}), {USDC: 500 * E6}).weights


def test_strategies_do_not_own_the_margin_and_the_goal_counts_it() -> None:
    strategies = split(strategy("core", 10_000, {"WETH": 5_000, "USDC": 5_000}, threshold(500)))
    step = step_with_margin(book(5_000), {"WETH": 6_000, "USDC": 4_000}).with_config(strategies)
    ledger = opening({"core": {"WETH": 3, "USDC": 4_000}})
    step = brought_up(step, ledger)
    goal = net_strategies(step, reference_prices(step).price_by_token).goal
    assert [weight.low for weight in goal.weights] == [Fraction(1, 3), Fraction(2, 3)], "5,000 of 15,000, and 5,000 with the margin"


def test_margin_in_a_quarantined_token_counts_nowhere() -> None:
    step = step_with_margin(book(2_500), {"WETH": 5_000, "USDC": 5_000})
    shut = quarantine_tokens(step, [ScreenedToken(USDC, TokenFinding.CODE_CHANGED)])
    assert investable_total(compute_drifts(shut, reference_prices(shut).price_by_token)) == 5_000 * E6
