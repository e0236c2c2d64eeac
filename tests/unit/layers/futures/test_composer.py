"""Tests of agent/layers/futures/composer.py: approvals, quotes, grants, and orders that share an action."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, NoReturn, cast

import pytest

from agent.errors import Refused, Retryable, UnsendableTransaction
from agent.layers.futures.composer import FuturesComposer
from agent.layers.futures.policy.plans import emergency_gas_per_day_wei, emergency_gas_price_limit_wei
from agent.model import AdjustFutures, Allowance, Plan, StepInput, Verdict
from agent.model.futures import (
    DelegateChange,
    FuturesAction,
    FuturesGrant,
    FuturesPlan,
    FuturesReading,
    Hedge,
    MarginAccount,
    MarginDeposit,
    PerpOrder,
    PerpOrderKind,
    PerpQuote,
)
from agent.ports import PreparedTransaction
from agent.ports.perpetuals import PerpActionDraft, granted_action
from agent.venues.drafts import EmergencyLimits, TxDraft
from tests.support.builders import NOW_S, OWNER, token, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.needs import BUY, SELL, USDC, VAULT, in_usdc, policy
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, book, step_of
from tests.support.plans import proposed_plan

LONG = book(10_000, 2 * E18)
NO_FILL = UnsendableTransaction("no fill", (Verdict("simulation", "no fill", "a part", False),))
NO_ANSWER = Retryable("HTTP 503")


class FakeVenue:
    """A venue whose book answers with this error, or takes every order; on a chain without a `nonce`."""

    has_left_out_reads = False

    def __init__(self, quote_error: Exception | None = None, nonce: int | None = 2, refused_market: str = "") -> None:
        self.quote_error = quote_error
        self.nonce = nonce
        self.refused_market = refused_market
        self.quoted_orders: list[PerpOrder] = []

    def unused(self) -> NoReturn:
        raise AssertionError("a composer posts and reads nothing")

    read = read_promptly = wait_for_budget = require_approved_key = post = post_orders = outcome = unused

    def quote(self, _account: MarginAccount, order: PerpOrder) -> PerpQuote:
        self.quoted_orders.append(order)
        if self.quote_error is not None and self.refused_market in ("", order.market):
            raise self.quote_error
        return PerpQuote(abs(order.size_raw), 1)

    def draft(self, _account: MarginAccount, _action: FuturesAction, now_s: int) -> PerpActionDraft:
        return PerpActionDraft(OWNER, "0x00", now_s + 90, self.nonce)

    def draft_companion(self, _account: MarginAccount, _order: PerpOrder, first_draft: PerpActionDraft, number: int) -> PerpActionDraft:
        return replace(first_draft, nonce=2 + 2 * number)


def plan_of(layer_plan: FuturesPlan) -> Plan:
    return proposed_plan(step_of(EMPTY)).with_layer(layer_plan)


def composed(venue: FakeVenue, plan: Plan, step: StepInput) -> TxDraft | PreparedTransaction:
    return FuturesComposer(cast(Any, venue)).compose(step, plan, step.snapshot.head)


def test_composer_composes_plans_with_futures_actions_alone() -> None:
    plan = plan_of(FuturesPlan((BUY,), "drift", ""))

    assert FuturesComposer(None).composes(plan)
    assert not FuturesComposer(None).composes(replace(plan, layers=()))


# --- Approvals


DEPOSIT = FuturesPlan((), "leverage", "", (MarginDeposit(700),))


@pytest.mark.parametrize(
    ("allowances", "layer_plan", "missing_raw"),
    [
        pytest.param({VAULT: 0}, DEPOSIT, [700], id="none"),
        pytest.param({VAULT: 700}, DEPOSIT, [], id="its amount"),
        pytest.param({VAULT: 699}, DEPOSIT, [0, 700], id="a unit less, reset first"),
        pytest.param({VAULT: 0, "router": 10**30}, DEPOSIT, [700], id="of another spender"),
        pytest.param({VAULT: 0}, FuturesPlan((BUY,), "drift", ""), [], id="order"),
    ],
)
def test_missing_approvals_are_those_of_a_deposit(allowances: dict[str, int], layer_plan: FuturesPlan, missing_raw: list[int]) -> None:
    rows = tuple(Allowance(USDC, spender, raw) for spender, raw in allowances.items())
    step = with_snapshot(step_of(in_usdc(OVER), policy()), allowances=rows)

    approvals = FuturesComposer(None).missing_approvals(step, plan_of(layer_plan))

    assert [(approval.token, approval.spender, approval.raw) for approval in approvals] == [(USDC, VAULT, raw) for raw in missing_raw]


# --- Quotes


OFF_CHAIN = step_of(replace(LONG, is_on_chain=False))
RESTING = replace(BUY, kind=PerpOrderKind.LIMIT)


@pytest.mark.parametrize(
    ("order", "error", "quoted_orders"),
    [
        pytest.param(SELL, NO_ANSWER, [SELL], id="reduction, no answer"),
        pytest.param(RESTING, NO_FILL, [], id="limit order"),
        pytest.param(BUY, None, [BUY], id="opening"),
    ],
)
def test_order_is_composed_without_a_quote_that_it_does_not_need(
    order: PerpOrder, error: Exception | None, quoted_orders: list[PerpOrder]
) -> None:
    venue = FakeVenue(error)

    assert isinstance(composed(venue, plan_of(FuturesPlan((order,), "drift", "")), OFF_CHAIN), PreparedTransaction)
    assert venue.quoted_orders == quoted_orders


@pytest.mark.parametrize(
    ("order", "error"),
    [
        pytest.param(SELL, NO_FILL, id="reduction, no fill"),
        pytest.param(BUY, NO_ANSWER, id="opening, no answer"),
        pytest.param(BUY, NO_FILL, id="opening, no fill"),
    ],
)
def test_order_without_a_fill_is_not_composed(order: PerpOrder, error: Exception) -> None:
    with pytest.raises(type(error)):
        composed(FakeVenue(error), plan_of(FuturesPlan((order,), "drift", "")), OFF_CHAIN)


# --- Grants


@pytest.mark.parametrize(("is_emergency", "is_reducing"), [(True, True), (False, True), (False, False)])
def test_draft_of_an_emergency_alone_has_own_limits_of_gas(is_emergency: bool, is_reducing: bool) -> None:
    step = step_of(LONG)
    limits = EmergencyLimits(emergency_gas_price_limit_wei(LIMITS, step.limits), emergency_gas_per_day_wei(LIMITS, step.limits))
    plan = plan_of(FuturesPlan((SELL,), "", "", is_reducing=is_reducing, is_emergency=is_emergency))

    draft = composed(FakeVenue(nonce=None), plan, step)

    assert isinstance(draft, TxDraft)
    assert draft.emergency_limits == (limits if is_emergency else None)
    assert isinstance(draft.layer_grant, FuturesGrant)
    assert draft.layer_grant.is_emergency is is_emergency


@pytest.mark.parametrize(
    ("decision", "is_budgeted"),
    [
        pytest.param(AdjustFutures("", is_reducing=True), True, id="agent's"),
        pytest.param(AdjustFutures("", is_reducing=True, by_owner=True), False, id="owner's"),
        pytest.param(AdjustFutures("", is_reducing=True, closed_hedge_market="ETH"), False, id="hedge's"),
    ],
)
def test_grant_of_the_agent_s_reduction_alone_uses_the_budget(decision: AdjustFutures, is_budgeted: bool) -> None:
    goals = (("ETH", 1),)
    plan = replace(plan_of(FuturesPlan((SELL,), "leverage", "", set_goals=goals)), decision=decision)

    draft = composed(FakeVenue(nonce=None), plan, step_of(LONG))

    assert isinstance(draft, TxDraft)
    assert isinstance(draft.layer_grant, FuturesGrant)
    assert (draft.layer_grant.is_budgeted, draft.layer_grant.set_goals) == (is_budgeted, goals)


def test_delegate_is_revoked_while_the_account_is_unknown() -> None:
    revocation = plan_of(FuturesPlan((), "", "", (DelegateChange(OWNER, is_allowed=False),)))
    grant = plan_of(FuturesPlan((), "", "", (DelegateChange(OWNER, is_allowed=True),)))

    assert isinstance(composed(FakeVenue(nonce=None), revocation, step_of(None)), TxDraft)
    with pytest.raises(Refused, match="the margin account is unknown"):
        composed(FakeVenue(nonce=None), grant, step_of(None))


def test_composer_without_a_venue_refuses() -> None:
    step = step_of(LONG)

    with pytest.raises(Refused, match="no futures venue"):
        FuturesComposer(None).compose(step, plan_of(FuturesPlan((SELL,), "drift", "")), step.snapshot.head)


def test_unknown_account_is_no_missing_venue() -> None:
    step = step_of(LONG)
    unread = replace(step, snapshot=step.snapshot.with_layer(FuturesReading(None, unknown_reason="the venue is down")))
    with pytest.raises(Refused, match="margin account is unknown: the venue is down"):
        composed(FakeVenue(), plan_of(FuturesPlan((SELL,), "drift", "")), unread)


# --- Orders that share an action


HEDGE = Hedge("ETH", token("WETH").address, -E18, NOW_S, Fraction(1))
OPENING = replace(BUY, market="BTC")
BTC_SALE = replace(SELL, market="BTC")
SOL_SALE = replace(SELL, market="SOL")


@pytest.mark.parametrize(
    ("orders", "hedges_before", "hedges_after", "refused_market", "companions"),
    [
        pytest.param((SELL, BTC_SALE), (), (), "none", ["BTC"], id="reductions"),
        pytest.param((SELL, BTC_SALE, SOL_SALE), (), (), "BTC", ["SOL"], id="one without a fill"),
        pytest.param((SELL, BTC_SALE), (HEDGE,), (HEDGE,), "none", [], id="beside a hedge"),
        pytest.param((SELL, BTC_SALE), (HEDGE,), (), "none", [], id="hedge that ends"),
        pytest.param((SELL, BTC_SALE), (), (HEDGE,), "none", [], id="hedge that begins"),
        pytest.param((SELL, OPENING), (), (), "none", [], id="an opening last"),
        pytest.param((OPENING, SELL), (), (), "none", [], id="an opening first"),
    ],
)
def test_companions_are_reductions_without_hedges(
    orders: tuple[PerpOrder, ...],
    hedges_before: tuple[Hedge, ...],
    hedges_after: tuple[Hedge, ...],
    refused_market: str,
    companions: list[str],
) -> None:
    markets = (market("ETH"), market("BTC", 30_000), market("SOL", 100))
    margin_account = account(10_000, {"ETH": 2 * E18, "BTC": E18, "SOL": E18}, *markets)
    step = step_of(replace(margin_account, is_on_chain=False), replace(FUTURES_POLICY, hedges=hedges_before))

    transaction = composed(
        FakeVenue(NO_FILL, refused_market=refused_market), plan_of(FuturesPlan(orders, "leverage", "", hedges=hedges_after)), step
    )

    assert isinstance(transaction, PreparedTransaction)
    actions = [granted_action(companion.grant) for companion in transaction.companions]
    assert [action.market for action in actions if isinstance(action, PerpOrder)] == companions
