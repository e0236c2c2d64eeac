"""Moves of margin in a step: top-up before reduction, its budget, the owner's requests, and the delegate's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec, guards
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
    FuturesLimits,
    FuturesPlan,
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
from tests.support.perpetuals.steps import FUTURES_POLICY, LIMITS, book, step_of
from tests.support.plans import evidence

USDC = token("USDC").address
VAULT = "0x" + "7" * 40
KEY = "0x" + "6" * 40
OTHER = "0x" + "5" * 40
UNIT = 10**6
DAY = {"top_up_value_24h": Fraction(3_000 * UNIT)}


def in_usdc(margin_account: MarginAccount) -> MarginAccount:
    """The account with a collateral of 6 decimals."""
    return replace(margin_account, collateral_unit_raw=10**12)


OVER = in_usdc(book(10_000, 20 * E18))
CALM = in_usdc(book(10_000, 5 * E18))
EMPTY = in_usdc(book(10_000))
"""4x, 1x and nothing, where 3x is allowed."""


def policy(top_up: int | None = BPS, account: str = OWNER) -> FuturesPolicy:
    limits: FuturesLimits = replace(LIMITS, top_up_per_day_bps=top_up)
    return replace(FUTURES_POLICY, limits=limits, collateral=USDC, trader=account, vault=VAULT, delegate=KEY)


def futures_of(step: StepInput) -> FuturesPlan:
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    return planned_futures(plan)


def refusing(step: StepInput, plan: Plan | None) -> set[str]:
    assert plan is not None
    return {verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed}


def test_a_step_tops_up_before_it_reduces() -> None:
    step = step_of(OVER, policy())
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).is_reducing
    [deposit] = planned_futures(plan).actions
    assert isinstance(deposit, MarginDeposit)
    assert margin.leverage(after_action(OVER, deposit)) == pytest.approx(2.85)
    assert dict(plan.holdings_after)[USDC] == 5_000 * UNIT - deposit.raw
    assert failures.exit_name(plan) == MARGIN_PLACE
    assert refusing(step, plan) == set()
    assert codec.loads(Plan, codec.dumps(plan)) == plan


@pytest.mark.parametrize(
    ("rules", "history"),
    [
        (policy(0), {}),
        (policy(1_000), {}),
        (policy(7_000), DAY),
        (policy(account=OTHER), {}),
        (policy(), {"unknown_reason": "a gap"}),
        (policy(), {"failed_exits": (ExitFailures(MARGIN_PLACE, failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)}),
    ],
    ids=["no top-up allowed", "above the day's share", "the day is used", "a delegate's key", "unknown day", "deposits failed"],
)
def test_a_step_reduces_where_it_may_not_deposit(rules: FuturesPolicy, history: dict[str, object]) -> None:
    futures_plan = futures_of(step_of(OVER, rules, **history))
    assert futures_plan.account_actions == ()
    assert all(order.is_reduce_only for order in futures_plan.orders)
    assert futures_plan.orders


def test_an_approved_deposit_keeps_its_amount_while_marks_move() -> None:
    step = step_of(OVER, policy())
    [deposit] = futures_of(step).account_actions
    assert isinstance(deposit, MarginDeposit)
    moved = step_of(in_usdc(book(9_990, 20 * E18)), policy())
    assert futures_of(moved).top_up_raw > deposit.raw
    approved = replace(moved, progress=replace(moved.progress, spend_caps=((USDC, deposit.raw),)))
    allowances = (*moved.snapshot.allowances, Allowance(USDC, VAULT, deposit.raw))
    assert futures_of(with_snapshot(approved, allowances=allowances)).top_up_raw == deposit.raw
    assert futures_of(approved).top_up_raw > deposit.raw, "approved for a swap"


def test_a_deposit_that_restores_no_limit_is_not_made() -> None:
    rules = policy()
    rules = replace(rules, limits=replace(rules.limits, spot_multiple_bps=BPS))
    assert futures_of(step_of(OVER, rules)).account_actions == ()


def test_a_top_up_restores_the_stress_move_and_utilisation() -> None:
    for changes in ({"max_leverage_bps": 10 * BPS, "stress_move_bps": 2_500}, {"max_leverage_bps": 10 * BPS, "max_utilisation_bps": 3_500}):
        rules = policy()
        rules = replace(rules, limits=replace(rules.limits, **changes))
        [deposit] = futures_of(step_of(OVER, rules)).account_actions
        after = after_action(OVER, deposit)
        assert not isinstance(decide(step_of(after, rules)).decision, AdjustFutures)


def with_deposit(step: StepInput, raw: int) -> Plan:
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    return plan.with_layer(replace(planned_futures(plan), account_actions=(MarginDeposit(raw),)))


def test_guards_refuse_a_deposit_beyond_wallet_and_budget() -> None:
    step = step_of(OVER, policy())
    assert refusing(step, with_deposit(step, 5_001 * UNIT)) == {"margin_move"}
    used = step_of(OVER, policy(5_000), **DAY)
    assert refusing(used, with_deposit(step, 2_001 * UNIT)) == {"top_up_per_day"}
    assert refusing(used, with_deposit(step, 2_000 * UNIT)) == set()
    foreign = step_of(OVER, policy(account=OTHER))
    assert "margin_move" in refusing(foreign, with_deposit(step, UNIT))


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
def test_the_owner_moves_margin_within_limits_and_free_margin(margin_account: MarginAccount, action: AccountAction, guard: str) -> None:
    step = step_of(margin_account, policy(0))
    outcome = proposer(MarginAccountRequest(action))(step)
    assert outcome.plan is not None
    assert planned_futures(outcome.plan) is not None
    assert planned_futures(outcome.plan).actions == (action,)
    assert codec.loads(Plan, codec.dumps(outcome.plan)) == outcome.plan
    assert guard in (refusing(step, outcome.plan) or {""})


def test_margin_of_an_unknown_account_is_not_moved() -> None:
    with pytest.raises(Refused, match="unknown"):
        proposer(MarginAccountRequest(MarginDeposit(UNIT)))(step_of(None, policy()))


@pytest.mark.parametrize("margin_account", [None, in_usdc(book(10_000, 5 * E18, index_s=NOW_S - 9_000))], ids=["unknown", "stale"])
def test_a_stolen_delegate_is_ended_whatever_the_account_shows(margin_account: MarginAccount | None) -> None:
    """A key in a thief's hands opens a position elsewhere, so that the account is not known any more."""
    step = with_snapshot(
        step_of(margin_account, policy()), futures_unknown="" if margin_account else "the account has positions in markets not configured"
    )
    outcome = proposer(MarginAccountRequest(DelegateChange(KEY, False)))(step)
    assert outcome.plan is not None
    assert refusing(step, outcome.plan) == set()
    with pytest.raises(Refused, match="unknown"):
        proposer(MarginAccountRequest(DelegateChange(KEY, True)))(step_of(None, policy()))


def test_margin_of_a_venue_beside_the_chain_is_not_moved() -> None:
    step = step_of(CALM, policy())
    plan = proposer(MarginAccountRequest(MarginDeposit(UNIT)))(step).plan
    beside = step_of(replace(CALM, is_on_chain=False), policy())
    assert "margin_move" in refusing(beside, plan)
    with pytest.raises(Refused, match="off-chain"):
        proposer(MarginAccountRequest(MarginDeposit(UNIT)))(beside)
    assert futures_of(step_of(replace(OVER, is_on_chain=False), policy())).account_actions == ()


def test_a_delegate_says_that_it_moves_no_margin() -> None:
    decision = decide(step_of(CALM, policy(account=OTHER))).decision
    assert f"this key is a delegate of {OTHER}; it trades and neither deposits nor withdraws margin" in decision.reason
    assert "delegate" not in decide(step_of(CALM, policy())).decision.reason
    step = step_of(CALM, policy(account=OTHER))
    assert "margin_move" in refusing(step, proposer(MarginAccountRequest(MarginWithdrawal(UNIT)))(step).plan)


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
    assert report is not None
    assert report.exposures == ()
    assert report.account is not None
    lost = with_snapshot(step_of(None, policy(account=OTHER)), futures_unknown="the venue is down")
    decision_result = decide(lost)
    assert not isinstance(decision_result.decision, Halt)
    assert decision_result.drifts
    assert "no order, the venue is down" in decision_result.decision.reason


FAILING = {"failed_exits": (ExitFailures("ETH", failures.MAX_REVERTS_IN_ROW, 0, NOW_S - 10),)}


@pytest.mark.parametrize("margin_account", [OVER, in_usdc(book(1_300, 10 * E18))], ids=["limit", "emergency"])
def test_deposit__is_made_where_no_reduction_is_possible(margin_account: MarginAccount) -> None:
    """5 % of 10,000 in the wallet are not enough to restore the limit, and are more than nothing."""
    step = step_of(margin_account, policy(500), **FAILING)
    [deposit] = futures_of(step).actions
    assert deposit == MarginDeposit(500 * UNIT)
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert not planned_futures(plan).is_emergency
    assert refusing(step, plan) == set()
    assert all(isinstance(action, PerpOrder) for action in futures_of(step_of(margin_account, policy(500))).actions), "reductions go first"


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
    plan = propose_rebalance(step).plan
    assert plan is None or planned_futures(plan) is None or not planned_futures(plan).account_actions


def contradictory(step: StepInput) -> StepInput:
    """The means of the pools follow a crash late, or a stranger has pushed one."""
    return with_snapshot(step, pools=(v3_pool(token("WETH"), token("USDC"), 2_000, twap_price=2_500),))


@pytest.mark.parametrize("blind", [contradictory, lambda step: without_feed(step, "WETH")], ids=["contradictory", "missing"])
@pytest.mark.parametrize(("top_up", "deposits"), [(None, 4_035), (BPS, 4_035), (9_000, 4_035), (8_000, 0)])
def test_deposit_budget__without_prices_counts_the_collateral(
    blind: Callable[[StepInput], StepInput], top_up: int | None, deposits: int
) -> None:
    """4,035.1 restore the limit: 81 % of the 5,000 USDC in the wallet, 41 % of a portfolio whose other half has no price."""
    step = blind(step_of(OVER, policy(top_up)))
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).top_up_raw // UNIT == deposits
    assert bool(planned_futures(plan).orders) is not bool(deposits)
    assert refusing(step, plan) == set()
    if deposits:
        spent = with_history(step, top_up_value_24h=Fraction(5_000 * UNIT))
        assert ("top_up_per_day" in refusing(spent, plan)) is (top_up is not None)


@pytest.mark.parametrize("blind", [contradictory, lambda step: without_feed(step, "WETH")], ids=["contradictory", "missing"])
@pytest.mark.parametrize("margin_account", [OVER, in_usdc(book(1_300, 10 * E18))], ids=["limit", "emergency"])
def test_last_deposit_without_prices__passes_its_guard(margin_account: MarginAccount, blind: Callable[[StepInput], StepInput]) -> None:
    """5 % of the 5,000 USDC in the wallet; 5 % of the whole would be refused, and nothing deposited."""
    step = blind(step_of(margin_account, policy(500), **FAILING))
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).top_up_raw == 250 * UNIT
    assert refusing(step, plan) == set()


@pytest.mark.parametrize("change", ["quarantined", "two balances", "shut"])
def test_collateral_of_an_unknown_balance_is_not_deposited(change: str) -> None:
    step = step_of(OVER, policy(None))
    if change == "quarantined":
        step = with_snapshot(step, unreadable_items=(UnreadableItem("balance", USDC, "reverted"),))
    elif change == "two balances":
        step = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(USDC, 5_000 * UNIT + 1)))
    else:
        step = quarantine_tokens(step, [ScreenedToken(USDC, TokenFinding.CODE_CHANGED)])
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert planned_futures(plan).orders
    assert not planned_futures(plan).account_actions


@pytest.mark.parametrize("multiple_bps", [20_000, 100])
def test_delegate_s_wallet__is_not_the_account_s_spot_value(multiple_bps: int) -> None:
    """The owner's portfolio is not read: the multiple is unknown, triggers no reduction, and nothing is opened."""
    terms = replace(policy(account=OTHER), limits=replace(LIMITS, spot_multiple_bps=multiple_bps))
    opening = propose_rebalance(step_of(EMPTY, policy(account=OTHER))).plan
    assert opening is not None
    assert planned_futures(opening) is not None
    assert planned_futures(opening).orders, "without a multiple it trades"
    assert "futures_state" in refusing(step_of(EMPTY, terms), opening)
    for margin_account in (EMPTY, CALM):
        step = step_of(margin_account, terms)
        proposal = propose_rebalance(step)
        assert proposal.plan is None, "10,000 in the delegate's wallet count for nothing"
        assert f"spot_multiple is not judged, the portfolio of {OTHER} is not read" in proposal.decision_result.decision.reason
        report = futures_report(step, decide(step).drifts)
        assert report is not None
        assert report.spot_value_raw is None
    over = futures_of(step_of(OVER, terms))
    assert over.trigger == "leverage"
    assert over.is_reducing
    assert refusing(step_of(OVER, terms), propose_rebalance(step_of(OVER, terms)).plan) == set()
