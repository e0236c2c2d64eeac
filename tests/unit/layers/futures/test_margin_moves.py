"""Moves of margin in a step: top-up before reduction, its budget, the owner's requests, and the delegate's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec
from agent.app.documents.futures_report import futures_report
from agent.errors import Refused
from agent.layers.futures.policy import exposure
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import planned_futures
from agent.margin import account as margin
from agent.margin.state import after_action
from agent.model import (
    MARGIN_PLACE,
    AdjustFutures,
    Allowance,
    ExitFailures,
    Halt,
    Holding,
    Plan,
    ScreenedToken,
    StepInput,
    TokenFinding,
    UnreadableItem,
)
from agent.model.futures import (
    AccountAction,
    DelegateChange,
    FuturesPolicy,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    PerpOrder,
)
from agent.planning.proposals import propose_rebalance
from agent.planning.requests import proposer
from agent.policy import failures
from agent.policy.decide import decide
from agent.policy.quarantine import quarantine_tokens
from agent.units import BPS
from tests.support.builders import NOW_S, OWNER, token, v3_pool, with_history, with_snapshot, without_feed
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.needs import UNIT, USDC, VAULT, in_usdc
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, book, futures_of, proposed_futures, step_of
from tests.support.plans import proposed_plan, refusing_guards

KEY = "0x" + "6" * 40
OTHER = "0x" + "5" * 40
DAY = {"top_up_value_24h": Fraction(3_000 * UNIT)}
FAILING = {"failed_exits": (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)}
OVER = in_usdc(book(10_000, 20 * E18))
CALM = in_usdc(book(10_000, 5 * E18))
EMPTY = in_usdc(book(10_000))
"""4x, 1x and nothing, where 3x is allowed."""
NEAR = in_usdc(book(1_300, 10 * E18))
"""Near its liquidation."""


def policy(top_up: int | None = BPS, account: str = OWNER, **limits: int) -> FuturesPolicy:
    changed = replace(LIMITS, top_up_per_day_bps=top_up, **limits)
    return replace(FUTURES_POLICY, limits=changed, collateral=USDC, trader=account, vault=VAULT, delegate=KEY)


def requested(action: AccountAction, step: StepInput) -> Plan:
    """Return the plan of a request of the owner."""
    plan = proposer(MarginAccountRequest(action))(step).plan
    assert plan is not None
    return plan


# --- Deposits of a step


def test_step__tops_up_before_it_reduces() -> None:
    step = step_of(OVER, policy())
    plan = proposed_plan(step)
    [deposit] = futures_of(plan).actions
    assert futures_of(plan).is_reducing
    assert isinstance(deposit, MarginDeposit)
    assert margin.leverage(after_action(OVER, deposit)) == pytest.approx(2.85)
    assert dict(plan.holdings_after)[USDC] == 5_000 * UNIT - deposit.raw
    assert failures.exit_name(plan) == MARGIN_PLACE
    assert refusing_guards(step, plan) == []
    assert codec.loads(Plan, codec.dumps(plan)) == plan


def with_collateral_balances(*amounts_raw: int, **changes: Any) -> StepInput:
    """Return a step over its limit in whose snapshot the collateral has more balances."""
    step = step_of(OVER, policy(None))
    return with_snapshot(step, holdings=(*step.snapshot.holdings, *(Holding(USDC, raw) for raw in amounts_raw)), **changes)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step_of(OVER, policy(0)), id="no top-up allowed"),
        pytest.param(step_of(OVER, policy(1_000)), id="above the day's share"),
        pytest.param(step_of(OVER, policy(7_000), **DAY), id="the day is used"),
        pytest.param(step_of(OVER, policy(account=OTHER)), id="a delegate's key"),
        pytest.param(step_of(OVER, policy(), unknown_reason="a gap"), id="unknown day"),
        pytest.param(
            step_of(OVER, policy(), failed_exits=(ExitFailures(MARGIN_PLACE, failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)),
            id="deposits failed",
        ),
        pytest.param(step_of(OVER, policy(spot_multiple_bps=BPS)), id="restores no limit"),
        pytest.param(step_of(replace(OVER, is_on_chain=False), policy()), id="venue beside the chain"),
        pytest.param(with_collateral_balances(unreadable_items=(UnreadableItem("balance", USDC, "reverted"),)), id="balance not read"),
        pytest.param(with_collateral_balances(5_000 * UNIT + 1), id="two balances"),
        pytest.param(
            quarantine_tokens(with_collateral_balances(), [ScreenedToken(USDC, TokenFinding.CODE_CHANGED)]), id="collateral in quarantine"
        ),
    ],
)
def test_step__reduces_where_it_may_not_deposit(step: StepInput) -> None:
    futures = proposed_futures(step)
    assert futures.account_actions == ()
    assert all(order.is_reduce_only for order in futures.orders)
    assert futures.orders


def test_approved_deposit__keeps_its_amount_while_marks_move() -> None:
    [deposit] = proposed_futures(step_of(OVER, policy())).account_actions
    assert isinstance(deposit, MarginDeposit)
    moved = step_of(in_usdc(book(9_990, 20 * E18)), policy())
    approved = replace(moved, progress=replace(moved.progress, spend_caps=((USDC, deposit.raw),)))
    allowances = (*moved.snapshot.allowances, Allowance(USDC, VAULT, deposit.raw))
    assert proposed_futures(moved).top_up_raw > deposit.raw
    assert proposed_futures(with_snapshot(approved, allowances=allowances)).top_up_raw == deposit.raw
    assert proposed_futures(approved).top_up_raw > deposit.raw, "approved for a swap"


@pytest.mark.parametrize("limits", [{"stress_move_bps": 2_500}, {"max_utilisation_bps": 3_500}])
def test_top_up__restores_the_stress_move_and_utilisation(limits: dict[str, int]) -> None:
    rules = policy(max_leverage_bps=10 * BPS, **limits)
    [deposit] = proposed_futures(step_of(OVER, rules)).account_actions
    assert not isinstance(decide(step_of(after_action(OVER, deposit), rules)).decision, AdjustFutures)


WITHIN = step_of(OVER, policy())
USED = step_of(OVER, policy(5_000), **DAY)


@pytest.mark.parametrize(
    ("step", "deposit", "guards"),
    [
        pytest.param(WITHIN, 5_001, ["margin_move"], id="beyond the wallet"),
        pytest.param(USED, 2_001, ["top_up_per_day"], id="beyond the budget"),
        pytest.param(USED, 2_000, [], id="within both"),
    ],
)
def test_guards_refuse_a_deposit_beyond_wallet_and_budget(step: StepInput, deposit: int, guards: list[str]) -> None:
    plan = proposed_plan(WITHIN)
    plan = plan.with_layer(replace(futures_of(plan), account_actions=(MarginDeposit(deposit * UNIT),)))
    assert refusing_guards(step, plan) == guards
    assert "margin_move" in refusing_guards(step_of(OVER, policy(account=OTHER)), plan)


# --- Requests of the owner


@pytest.mark.parametrize(
    ("margin_account", "action", "guard"),
    [
        pytest.param(CALM, MarginDeposit(4_000 * UNIT), "", id="deposit"),
        pytest.param(CALM, MarginDeposit(5_001 * UNIT), "margin_move", id="deposit above the balance"),
        pytest.param(CALM, MarginWithdrawal(6_000 * UNIT), "", id="withdrawal"),
        pytest.param(CALM, MarginWithdrawal(7_000 * UNIT), "futures_state", id="withdrawal into the margin"),
        pytest.param(CALM, MarginWithdrawal(9_001 * UNIT), "margin_move", id="withdrawal above the margin"),
        pytest.param(OVER, MarginWithdrawal(UNIT), "futures_state", id="withdrawal over the limits"),
        pytest.param(EMPTY, MarginWithdrawal(10_000 * UNIT), "", id="withdrawal of all"),
        pytest.param(EMPTY, MarginWithdrawal(0), "margin_move", id="withdrawal of nothing"),
        pytest.param(CALM, DelegateChange(KEY, True), "", id="delegate allowed"),
        pytest.param(CALM, DelegateChange(OTHER, False), "", id="foreign delegate ended"),
        pytest.param(CALM, DelegateChange(OTHER, True), "margin_move", id="foreign delegate allowed"),
    ],
)
def test_owner__moves_margin_within_limits_and_free_margin(margin_account: MarginAccount, action: AccountAction, guard: str) -> None:
    step = step_of(margin_account, policy(0))
    plan = requested(action, step)
    assert futures_of(plan).actions == (action,)
    assert codec.loads(Plan, codec.dumps(plan)) == plan
    assert guard in (refusing_guards(step, plan) or [""])


BESIDE = step_of(replace(CALM, is_on_chain=False), policy())
"""At a venue beside the chain."""


@pytest.mark.parametrize(
    ("action", "step", "reason"),
    [
        pytest.param(MarginDeposit(UNIT), step_of(None, policy()), "unknown", id="deposit to an unknown account"),
        pytest.param(DelegateChange(KEY, True), step_of(None, policy()), "unknown", id="delegate of an unknown account"),
        pytest.param(MarginDeposit(UNIT), BESIDE, "off-chain", id="venue beside the chain"),
    ],
)
def test_request_of_an_unknown_or_off_chain_account__is_refused(action: AccountAction, step: StepInput, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        proposer(MarginAccountRequest(action))(step)


@pytest.mark.parametrize(
    ("plan_step", "action", "judged_step"),
    [
        pytest.param(step_of(CALM, policy()), MarginDeposit(UNIT), BESIDE, id="venue beside the chain"),
        pytest.param(
            step_of(CALM, policy(account=OTHER)), MarginWithdrawal(UNIT), step_of(CALM, policy(account=OTHER)), id="a delegate's key"
        ),
    ],
)
def test_margin_move__is_refused_by_its_guard(plan_step: StepInput, action: AccountAction, judged_step: StepInput) -> None:
    assert "margin_move" in refusing_guards(judged_step, requested(action, plan_step))


@pytest.mark.parametrize(
    ("margin_account", "unknown_reason"),
    [(None, "the account has positions in markets not configured"), (in_usdc(book(10_000, 5 * E18, index_s=NOW_S - 9_000)), "")],
    ids=["unknown", "stale"],
)
def test_stolen_delegate__is_ended_whatever_the_account_shows(margin_account: MarginAccount | None, unknown_reason: str) -> None:
    """A key in a thief's hands opens a position elsewhere, so that the account is not known any more."""
    step = with_snapshot(step_of(margin_account, policy()), futures_unknown=unknown_reason)
    assert refusing_guards(step, requested(DelegateChange(KEY, False), step)) == []


# --- The account of another owner


def test_delegate__says_that_it_moves_no_margin() -> None:
    reason = decide(step_of(CALM, policy(account=OTHER))).decision.reason
    assert f"this key is a delegate of {OTHER}; it trades and neither deposits nor withdraws margin" in reason
    assert "delegate" not in decide(step_of(CALM, policy())).decision.reason


def test_other_account_s_margin__counts_in_its_owner_alone() -> None:
    """A delegate trades for the account; whose money it is, of that portfolio it is a part."""
    own = step_of(CALM, policy())
    foreign = step_of(CALM, policy(account=OTHER))
    mine, theirs = (drift.raw_at(MARGIN_PLACE) for step in (own, foreign) for drift in decide(step).drifts if drift.token == USDC)
    assert mine == margin.value_in_collateral_raw(CALM) > 0 == theirs
    assert sum(drift.value for drift in decide(own).drifts) - sum(drift.value for drift in decide(foreign).drifts) == mine
    assert exposure.margin_baseline(own) is not None
    assert exposure.margin_baseline(foreign) is None
    report = futures_report(foreign, decide(foreign).drifts)
    assert report.exposures == ()
    assert report.account is not None


def test_other_account_s_unknown_margin__halts_nothing() -> None:
    result = decide(with_snapshot(step_of(None, policy(account=OTHER)), futures_unknown="the venue is down"))
    assert not isinstance(result.decision, Halt)
    assert result.drifts
    assert "no order, the venue is down" in result.decision.reason


FOREIGN = step_of(EMPTY, policy(account=OTHER))


@pytest.mark.parametrize("multiple_bps", [20_000, 100])
@pytest.mark.parametrize("margin_account", [EMPTY, CALM])
def test_delegate_s_wallet__is_not_the_account_s_spot_value(margin_account: MarginAccount, multiple_bps: int) -> None:
    """The owner's portfolio is not read: the multiple is unknown, triggers no reduction, and nothing is opened."""
    step = step_of(margin_account, policy(None, OTHER, spot_multiple_bps=multiple_bps))
    proposal = propose_rebalance(step)
    assert proposal.plan is None, "10,000 in the delegate's wallet count for nothing"
    assert f"spot_multiple is not judged, the portfolio of {OTHER} is not read" in proposal.decision_result.decision.reason
    assert futures_report(step, decide(step).drifts).spot_value_raw is None
    assert proposed_futures(FOREIGN).orders, "without a multiple it trades"
    assert "futures_state" in refusing_guards(step, proposed_plan(FOREIGN))


@pytest.mark.parametrize("multiple_bps", [20_000, 100])
def test_delegate__reduces_whatever_the_owner_s_spot_value(multiple_bps: int) -> None:
    step = step_of(OVER, policy(None, OTHER, spot_multiple_bps=multiple_bps))
    assert (proposed_futures(step).trigger, proposed_futures(step).is_reducing) == ("leverage", True)
    assert refusing_guards(step, proposed_plan(step)) == []


# --- The last deposit, where no reduction is possible


def contradictory(step: StepInput) -> StepInput:
    """The means of the pools follow a crash late, or a stranger has pushed one."""
    return with_snapshot(step, pools=(v3_pool(token("WETH"), token("USDC"), 2_000, twap_price=2_500),))


def without_price(step: StepInput) -> StepInput:
    return without_feed(step, "WETH")


def priced(step: StepInput) -> StepInput:
    return step


@pytest.mark.parametrize(
    ("view", "deposit"),
    [
        pytest.param(priced, 500, id="5 % of 10,000 in the wallet"),
        pytest.param(contradictory, 250, id="contradictory prices: 5 % of the 5,000 USDC"),
        pytest.param(without_price, 250, id="missing price: 5 % of the 5,000 USDC"),
    ],
)
@pytest.mark.parametrize("margin_account", [OVER, NEAR], ids=["limit", "emergency"])
def test_last_deposit__is_made_where_no_reduction_is_possible(
    margin_account: MarginAccount, view: Callable[[StepInput], StepInput], deposit: int
) -> None:
    """It is not enough to restore the limit, and more than nothing; 5 % of the whole would be refused where a price is unknown."""
    step = view(step_of(margin_account, policy(500), **FAILING))
    plan = proposed_plan(step)
    assert futures_of(plan).actions == (MarginDeposit(deposit * UNIT),)
    assert not futures_of(plan).is_emergency
    assert refusing_guards(step, plan) == []
    assert all(isinstance(action, PerpOrder) for action in proposed_futures(step_of(margin_account, policy(500))).actions)


@pytest.mark.parametrize(
    "step",
    [
        step_of(OVER, policy(500), **FAILING, top_up_value_24h=Fraction(500 * UNIT)),
        step_of(OVER, policy(5), **FAILING),
        step_of(OVER, policy(0), **FAILING),
        step_of(CALM, policy(500), **FAILING),
        step_of(replace(OVER, is_on_chain=False), policy(500), **FAILING),
        step_of(OVER, policy(500, OTHER), **FAILING),
        step_of(in_usdc(book(10_000, 20 * E18, index_s=NOW_S - 10_000)), policy(500), **FAILING),
    ],
    ids=["budget used", "dust", "no budget", "no limit broken", "beside the chain", "delegate", "stale index"],
)
def test_last_deposit__keeps_its_budget_and_needs_a_broken_limit(step: StepInput) -> None:
    futures = planned_futures(propose_rebalance(step).plan)
    assert futures is None or not futures.account_actions


@pytest.mark.parametrize("view", [contradictory, without_price])
@pytest.mark.parametrize(("top_up", "deposits"), [(None, 4_035), (BPS, 4_035), (9_000, 4_035), (8_000, 0)])
def test_deposit_budget__without_prices_counts_the_collateral(
    view: Callable[[StepInput], StepInput], top_up: int | None, deposits: int
) -> None:
    """4,035.1 restore the limit: 81 % of the 5,000 USDC in the wallet, 41 % of a portfolio whose other half has no price."""
    step = view(step_of(OVER, policy(top_up)))
    plan = proposed_plan(step)
    spent = with_history(step, top_up_value_24h=Fraction(5_000 * UNIT))
    assert futures_of(plan).top_up_raw // UNIT == deposits
    assert bool(futures_of(plan).orders) is not bool(deposits)
    assert refusing_guards(step, plan) == []
    assert ("top_up_per_day" in refusing_guards(spent, plan)) is (deposits > 0 and top_up is not None)
