"""Tests of agent/layers/futures/composer.py: approvals, and orders that share an action."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NoReturn

import pytest

from agent.layers.futures.composer import FuturesComposer
from agent.model import Allowance
from agent.model.futures import (
    FuturesAction,
    FuturesPlan,
    Hedge,
    MarginAccount,
    MarginDeposit,
    PerpOrder,
    PerpQuote,
)
from agent.planning.proposals import propose_rebalance
from agent.ports import PreparedTransaction
from agent.ports.perpetuals import PerpActionDraft, granted_action
from tests.support.builders import NOW_S, OWNER, token, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.needs import BUY, SELL, USDC, VAULT, in_usdc, policy
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, OVER, step_of


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
