"""Exits after their own failures: how long they wait, what ends it, that one token's failures delay no other exit, and that the gas of
reverts does not use up what they may lose.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec, guards
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import (
    NATIVE_VENUE,
    ExitFailures,
    Goal,
    History,
    Intent,
    IntentKind,
    Leg,
    LegPlace,
    Plan,
    Rebalance,
    StepInput,
    StepProgress,
    TokenRefusal,
    TopUp,
)
from agent.model.step import NO_PROGRESS
from agent.planning import proposals
from agent.policy import failures
from agent.store import Store
from agent.units import NATIVE, Token
from tests.support import signing
from tests.support.builders import ETHER, NOW_S, history, step_input, with_limits
from tests.support.constants import DAY_S
from tests.support.decisions.exits import LINK, MARKET, OFF, SOUND, USDC, WBTC, WETH, step_with_stops
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.lp_worlds import planned, ranged, roomy, world
from tests.support.plans import evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.records.intents import ended_intent
from tests.support.records.mined import add_mined_intent
from tests.support.signing import MINT, WITHDRAW_V3, leg
from tests.support.stores import store_fixture
from tests.support.transactions import CHAIN_ID, START_S, WALLET

TWO = (*MARKET, SOUND)
GAS = Fraction(100 * 10**6)
"""Value of burnt gas, 100 USDC: one per cent of the portfolio."""


def passes_guard(past: History, is_exit: bool = True, progress: StepProgress = NO_PROGRESS) -> bool:
    """Whether the guard lets a sale of WETH through, after its step was written down and read again."""
    step = replace(step_input(), history=past, progress=progress)
    plan = sell_weth(step)
    plan = replace(plan, decision=Rebalance("a stop fired", Goal(()), is_exit=is_exit))
    return verdict("reverts_in_row", codec.loads(StepInput, codec.dumps(step)), plan).passed


@pytest.mark.parametrize(
    ("reverts", "approvals", "wait_s"),
    [
        pytest.param(3, 0, 60, id="three reverts"),
        pytest.param(3, 10, 240, id="three reverts, ten approvals"),
        pytest.param(4, 0, 120, id="four reverts"),
        pytest.param(5, 0, 240, id="five reverts"),
        pytest.param(8, 0, 1_920, id="eight reverts"),
        pytest.param(9, 0, 3_600, id="nine reverts"),
        pytest.param(10_000, 0, 3_600, id="ten thousand reverts"),
        pytest.param(0, 8, 60, id="eight approvals"),
        pytest.param(2, 10, 240, id="ten approvals"),
    ],
)
def test_exit_waits_longer_after_each_failure_up_to_an_hour(reverts: int, approvals: int, wait_s: int) -> None:
    def failed(ago_s: int, token: Token = WETH) -> History:
        own = ExitFailures(token.address, reverts, approvals, NOW_S - ago_s)
        return history(reverts_in_row=reverts, approval_cycles_in_row=approvals, failed_exits=(own,), is_stopped=True)

    assert passes_guard(failed(wait_s))
    assert not passes_guard(failed(wait_s - 1))
    assert passes_guard(failed(0), progress=StepProgress(spend_caps=((USDC.address, 1),))), (
        "what it approved is not held against its own step"
    )
    assert passes_guard(failed(0, LINK)), "the failures of another exit"
    assert not passes_guard(failed(10**6), is_exit=False), "a rebalance waits for its owner"


@pytest.mark.parametrize(
    ("reverts", "free", "approvals", "is_emergency", "wait_s"),
    [
        pytest.param(2, 0, 7, False, 0, id="a failure of each below the limit"),
        pytest.param(3, 0, 0, False, 60, id="three reverts"),
        pytest.param(4, 0, 0, False, 120, id="four reverts"),
        pytest.param(3, 3, 0, False, 60, id="three reverts without gas"),
        pytest.param(9, 9, 0, False, 60, id="nine reverts without gas"),
        pytest.param(9, 6, 0, False, 60, id="three of nine cost gas"),
        pytest.param(9, 5, 0, False, 120, id="four of nine cost gas"),
        pytest.param(9, 0, 0, False, 3_600, id="an hour at most"),
        pytest.param(2, 0, 8, False, 60, id="eight approvals"),
        pytest.param(2, 0, 9, False, 120, id="nine approvals"),
        pytest.param(3, 0, 10, False, 240, id="more approvals than reverts"),
        pytest.param(6, 0, 9, False, 480, id="more reverts than approvals"),
        pytest.param(3, 3, 10, False, 240, id="approvals beside reverts without gas"),
        pytest.param(9, 0, 0, True, 60, id="emergency"),
        pytest.param(2, 0, 7, True, 0, id="emergency below the limit"),
    ],
)
def test_retry_wait_doubles_with_each_failure_that_cost_gas(
    reverts: int, free: int, approvals: int, is_emergency: bool, wait_s: int
) -> None:
    exit_failures = ExitFailures("ETH", reverts, approvals, NOW_S, free)

    assert failures.retry_wait_s(exit_failures, is_emergency=is_emergency) == wait_s
    assert failures.retry_at_s(exit_failures, is_emergency=is_emergency) == (NOW_S + wait_s if wait_s else 0)


@pytest.mark.parametrize(
    ("past", "is_stopped"),
    [
        pytest.param(history(reverts_in_row=2, approval_cycles_in_row=7), False, id="a failure of each below the limit"),
        pytest.param(history(reverts_in_row=3), True, id="three reverts"),
        pytest.param(history(approval_cycles_in_row=8), True, id="eight approvals"),
        pytest.param(history(is_stopped=True), True, id="stopped before"),
    ],
)
def test_rebalances_stop_at_the_limit_of_failures(past: History, is_stopped: bool) -> None:
    assert failures.is_stopped(past) is is_stopped


EXIT = Rebalance("a stop fired", Goal(()), is_exit=True)
SALE = leg(WETH.address, USDC.address, 9, 9, pool="pool")


@pytest.mark.parametrize(
    ("legs", "name"),
    [
        pytest.param([SALE], WETH.address, id="sale"),
        pytest.param(
            [SALE, replace(SALE, token_in=LINK.address)], " ".join(sorted((WETH.address, LINK.address))), id="sale of two, sorted"
        ),
        pytest.param(
            [replace(SALE, token_in=LINK.address), SALE], " ".join(sorted((WETH.address, LINK.address))), id="the same in another order"
        ),
        pytest.param([SALE, replace(SALE, token_in="hub", source=LegPlace.ROUTER)], WETH.address, id="leg from the router"),
        pytest.param(
            [replace(SALE, token_in=NATIVE, token_out=WETH.address, venue=NATIVE_VENUE), replace(SALE, source=LegPlace.ROUTER)],
            WETH.address,
            id="native coin is wrapped first",
        ),
        pytest.param([SALE, replace(SALE, token_in=LINK.address, token_out=NATIVE)], WETH.address, id="refill of gas"),
    ],
)
def test_exit_name_is_the_token_that_the_wallet_sells(legs: list[Leg], name: str) -> None:
    assert failures.exit_name(replace(signing.plan_of(*legs), decision=EXIT)) == name


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        pytest.param(signing.plan_of(SALE), "", id="rebalance"),
        pytest.param(replace(signing.plan_of(SALE), decision=TopUp("short of gas", 1)), NATIVE, id="top-up"),
        pytest.param(replace(signing.plan_of(), layer_actions=(WITHDRAW_V3,)), WITHDRAW_V3.pool, id="withdrawal of liquidity"),
        pytest.param(replace(signing.plan_of(), layer_actions=(WITHDRAW_V3, MINT)), "", id="withdrawal for a provision"),
        pytest.param(replace(signing.plan_of(), layer_actions=(MINT,)), "", id="provision"),
    ],
)
def test_exit_name_of_other_plans(plan: Plan, name: str) -> None:
    assert failures.exit_name(plan) == name


def test_no_refused_market_changes_nothing() -> None:
    step = step_input()

    assert failures.with_refused_markets(step, {}) is step


@pytest.mark.parametrize("earlier_count", [1, 3, 9])
def test_refused_market_waits_from_now(earlier_count: int) -> None:
    earlier = ExitFailures("ETH", earlier_count, 0, NOW_S - 86_000)
    other = ExitFailures("BTC", 4, 0, NOW_S - 5)
    step = replace(step_input(), history=history(failed_exits=(other, earlier)))
    refused = failures.with_refused_markets(step, {"ETH": NOW_S})
    assert failures.retry_at_s(failures.exit_failures(refused.history, "ETH")) == NOW_S + failures.FIRST_WAIT_S
    assert failures.exit_failures(refused.history, "BTC") == other


def test_rebalance_waits_for_the_owner_after_an_exit_succeeded() -> None:
    assert passes_guard(history(is_stopped=True))
    assert not passes_guard(history(is_stopped=True), is_exit=False)


@pytest.mark.parametrize(
    ("exit_name", "ago_s", "passed"),
    [
        pytest.param(NATIVE, 59, False, id="its own, a second before the wait ends"),
        pytest.param(NATIVE, 60, True, id="its own, at the end of the wait"),
        pytest.param(WETH.address, 59, True, id="WETH, a second before"),
        pytest.param(WETH.address, 60, True, id="WETH, at the end"),
        pytest.param(LINK.address, 59, True, id="LINK, a second before"),
        pytest.param(LINK.address, 60, True, id="LINK, at the end"),
    ],
)
def test_top_up_waits_only_after_failures_of_its_own(exit_name: str, ago_s: int, passed: bool) -> None:
    failed = (ExitFailures(exit_name, 3, 0, NOW_S - ago_s),)
    step = replace(step_input(), history=history(reverts_in_row=3, failed_exits=failed, is_stopped=True))
    plan = replace(plan_of(step, []), decision=TopUp("short of gas", 1))
    assert verdict("reverts_in_row", step, plan).passed is passed


store = store_fixture("file", wallet=WALLET, chain_id=CHAIN_ID, begins_step=True)


def add_booked_intent(store: Store, nonce: int, at_s: int, status: int = 0, kind: IntentKind = IntentKind.SWAP) -> Intent:
    intent = ended_intent(store, nonce, kind=kind, status=status)
    store.budgets.book_intent(intent, Fraction(0), Fraction(0), 1, at_s)
    return intent


def exit_of(token: Token) -> Plan:
    plan = with_leg(sell_weth(step_input()), 0, token_in=token.address)
    return replace(plan, decision=Rebalance("a stop fired", Goal(()), is_exit=True))


def add_exit_attempt(store: Store, nonce: int, at_s: int | None, token: Token = WETH, status: int = 0) -> None:
    """A try to sell this token out, booked at that time, or not booked yet."""
    intent = ended_intent(store, nonce, status=status, plan=exit_of(token))
    if at_s is not None:
        store.budgets.book_intent(intent, Fraction(0), Fraction(0), 1, at_s)


def failures_of(store: Store, at_s: int = START_S + 9) -> dict[str, tuple[int, int, int]]:
    failed_exits = store.budgets.history(at_s).failures.failed_exits
    return {failure.exit_name: (failure.revert_count, failure.approval_cycle_count, failure.at_s) for failure in failed_exits}


def test_store_counts_the_reverts_of_each_exit_by_itself(store: Store) -> None:
    for nonce in range(3):
        add_exit_attempt(store, nonce, START_S + nonce)
    add_exit_attempt(store, 3, START_S + 3, LINK)
    assert failures_of(store) == {WETH.address: (3, 0, START_S + 2), LINK.address: (1, 0, START_S + 3)}
    past = store.budgets.history(START_S + 9)
    assert (past.failures.reverts_in_row, past.failures.is_stopped) == (4, True), "rebalances wait after reverts of any exit"
    add_exit_attempt(store, 4, None)
    assert failures_of(store)[WETH.address] == (4, 0, START_S + 9), "what is not booked yet failed now"


def test_store_counts_reverts_without_gas_apart(store: Store) -> None:
    for nonce, gas_used in enumerate((0, 21_000, 0)):
        intent = ended_intent(store, nonce, status=0, plan=exit_of(WETH), gas_used=gas_used)
        store.budgets.book_intent(intent, Fraction(0), Fraction(0), gas_used, START_S)
    [failure] = store.budgets.history(START_S + 9).failures.failed_exits
    assert (failure.revert_count, failure.free_revert_count) == (3, 2)


def test_store_counts_no_approval_without_gas_as_a_revert(store: Store) -> None:
    add_exit_attempt(store, 0, START_S)
    approval = ended_intent(store, 1, kind=IntentKind.APPROVE, to=WETH.address, plan=exit_of(WETH), gas_used=0)
    store.budgets.book_intent(approval, Fraction(0), Fraction(0), 0, START_S)
    [failure] = store.budgets.history(START_S + 9).failures.failed_exits
    assert (failure.approval_cycle_count, failure.free_revert_count) == (1, 0)


def test_failures_of_an_exit_end_with_its_own_success(store: Store) -> None:
    for nonce, token in enumerate((WETH, LINK)):
        add_exit_attempt(store, nonce, START_S, token)
    add_exit_attempt(store, 2, START_S + 1, LINK, status=1)
    add_booked_intent(store, 3, START_S + 2, status=1)
    assert failures_of(store) == {WETH.address: (1, 0, START_S)}
    add_exit_attempt(store, 4, START_S + 3, LINK)
    assert failures_of(store)[LINK.address] == (1, 0, START_S + 3)
    store.pause_switch.resume("seen", START_S)
    assert failures_of(store) == {}


def test_failures_of_an_exit_end_after_a_day(store: Store) -> None:
    add_exit_attempt(store, 0, START_S)
    add_exit_attempt(store, 1, START_S + 5)
    assert failures_of(store, START_S + DAY_S - 1)[WETH.address][0] == 2
    assert failures_of(store, START_S + DAY_S)[WETH.address][0] == 1
    assert failures_of(store, START_S + DAY_S + 5) == {}


def test_exit_does_not_wait_for_reverts_of_rebalances(store: Store) -> None:
    for nonce in range(3):
        add_booked_intent(store, nonce, START_S + nonce)
    past = store.budgets.history(START_S + 9)
    assert (past.failures.is_stopped, past.failures.failed_exits) == (True, ())
    assert passes_guard(past)


@pytest.mark.parametrize(("token", "steps"), [(WETH, 8), (LINK, 0)])
def test_approval_steps_count_for_the_exit_of_their_plan(store: Store, token: Token, steps: int) -> None:
    for nonce in range(8):
        store.steps.begin(f"s{nonce}", START_S, "{}")
        store.steps.end(f"s{nonce}", "rebalance", "", exit_of(WETH), "planned")
        intent = ended_intent(store, nonce, kind=IntentKind.APPROVE, step_id=f"s{nonce}", to=token.address)
        store.budgets.book_intent(intent, Fraction(0), Fraction(5), 7, START_S + nonce)
    assert failures_of(store) == ({WETH.address: (0, steps, START_S + 7)} if steps else {})
    assert store.budgets.history(START_S).budgets.gas_24h_wei == 8 * 7, "their gas is spent all the same"
    store.budgets.mark_submission_refusals((TokenRefusal(token.address, START_S, 1, "refused"),))
    assert failures_of(store) == {}, "the back-off of a refused exit bounds these"


@pytest.mark.parametrize("refused", [False, True])
def test_reverted_approval_counts_once_for_its_exit(store: Store, refused: bool) -> None:
    store.steps.begin("s0", START_S, "{}")
    store.steps.end("s0", "rebalance", "", exit_of(WETH), "refused")
    intent = ended_intent(store, 0, kind=IntentKind.APPROVE, status=0, step_id="s0", to=WETH.address)
    store.budgets.book_intent(intent, Fraction(0), Fraction(5), 7, START_S)
    if refused:
        store.budgets.mark_submission_refusals((TokenRefusal(WETH.address, START_S, 1, "refused"),))
    past = store.budgets.history(START_S)
    assert failures_of(store) == ({} if refused else {WETH.address: (1, 1, START_S)})
    assert (past.budgets.gas_24h_wei, past.budgets.non_trade_loss_24h) == (7, 5)


def test_liquidity_withdrawal_counts_for_its_pool(store: Store) -> None:
    step = world([ranged(2_000, 1_600, 2_500)], bounds=roomy(lp_max_weight_bps=0))
    plan = planned(step)
    for nonce in range(3):
        store.steps.begin(f"s{nonce}", START_S, "{}")
        store.steps.end(f"s{nonce}", "adjustliquidity", "", plan, "failed")
        intent = ended_intent(store, nonce, kind=IntentKind.LIQUIDITY, status=0, step_id=f"s{nonce}")
        store.budgets.book_intent(intent, Fraction(0), Fraction(0), 1, START_S)
    assert failures_of(store) == {plan.layer_actions[0].pool: (3, 0, START_S)}


def test_success_ends_the_wait_and_only_the_owner_the_stop(store: Store) -> None:
    for nonce in range(3):
        add_booked_intent(store, nonce, START_S)
    add_booked_intent(store, 3, START_S + 1, status=1)
    sold = store.budgets.history(START_S + 9)
    assert (sold.failures.reverts_in_row, sold.failures.is_stopped) == (0, True)
    store.pause_switch.resume("seen", START_S)
    assert not store.budgets.history(START_S + 9).failures.is_stopped


def test_eight_approval_steps_stop_like_reverts(store: Store) -> None:
    for nonce in range(8):
        add_mined_intent(store, nonce, IntentKind.APPROVE)
        (approval,) = store.journal.unbooked_intents()
        store.budgets.book_intent(approval, Fraction(0), Fraction(0), 1, START_S + nonce)
        assert store.budgets.history(START_S + 9).failures.is_stopped is (nonce == 7)


def outcome_after_reverts(step: StepInput, reverts: dict[Token, int], ago_s: int = 3_600, **past: object) -> StepOutcome:
    """The step evaluated after these reverts of each exit."""
    own = tuple(ExitFailures(token.address, times, 0, NOW_S - ago_s) for token, times in reverts.items())
    whole = sum(reverts.values())
    failed = history(step.history, reverts_in_row=whole, failed_exits=own, is_stopped=whole >= 3, **past)
    return evaluation.evaluate_input(replace(step, history=failed), proposals.propose_rebalance, FakeEvidenceSource(), "abc")


@pytest.mark.parametrize(
    ("wbtc", "link", "goes"),
    [
        pytest.param(0, 0, WBTC, id="none"),
        pytest.param(0, 9, WBTC, id="link many"),
        pytest.param(1, 1, WBTC, id="as many"),
        pytest.param(1, 0, LINK, id="wbtc one"),
        pytest.param(9, 2, LINK, id="wbtc more"),
    ],
)
def test_exit_with_the_fewest_reverts_goes_first(wbtc: int, link: int, goes: Token) -> None:
    outcome = outcome_after_reverts(step_with_stops("LINK", "WBTC", pools=TWO), {WBTC: wbtc, LINK: link})
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.exit_token == goes.address


@pytest.mark.parametrize("reverts", range(9))
def test_refused_exit_never_goes_before_a_sound_exit(reverts: int) -> None:
    refused = (TokenRefusal(LINK.address, NOW_S - 7_200, 1, "refused"),)
    outcome = outcome_after_reverts(step_with_stops("LINK", "WBTC", pools=TWO), {LINK: reverts}, submission_refusals=refused)
    assert outcome.decision_result.exit_token == WBTC.address


def test_exit_does_not_wait_for_the_failure_of_another() -> None:
    outcome = outcome_after_reverts(step_with_stops("LINK", "WBTC", pools=TWO), {LINK: 9}, ago_s=0)
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.exit_token == WBTC.address
    both = outcome_after_reverts(step_with_stops("LINK", "WBTC", pools=TWO), {LINK: 9, WBTC: 9}, ago_s=0)
    assert both.kind is OutcomeKind.REFUSED
    assert [verdict.guard for verdict in both.refusal_verdicts if not verdict.passed] == ["reverts_in_row"]


def test_exit_that_is_refused_leaves_its_turn_to_the_next() -> None:
    outcome = outcome_after_reverts(step_with_stops("LINK", "WBTC", pools=(*MARKET, OFF)), {WBTC: 3})
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.exit_token == WBTC.address


def test_waiting_exit_leaves_half_of_the_daily_gas_to_others() -> None:
    """A token that burns gas and reverts would use up what another's stop needs."""
    step = with_limits(step_with_stops("LINK", "WBTC", pools=TWO), gas_per_day_wei=ETHER // 10)
    spent = {"gas_24h_wei": ETHER // 20}
    outcome = outcome_after_reverts(step, {LINK: 3}, **spent)
    assert outcome.decision_result.exit_token == WBTC.address
    assert outcome.kind is OutcomeKind.PLANNED
    alone = outcome_after_reverts(with_limits(step_with_stops("LINK", pools=TWO), gas_per_day_wei=ETHER // 10), {LINK: 3}, **spent)
    (failing,) = [verdict for verdict in alone.refusal_verdicts if not verdict.passed]
    assert failing.guard == "gas_per_day"
    assert "0.05 native after this exit's 3 reverts" in failing.limit
    assert outcome_after_reverts(alone.step_input, {LINK: 2}, **spent).kind is OutcomeKind.PLANNED, "it does not wait yet"


FOUR = {"WETH": 2_000, "WBTC": 4_000, "LINK": 1_000, "USDC": 3_000}


@pytest.mark.parametrize("limit", ["daily_loss", "total_loss"])
def test_loss_limit_that_refuses_an_exit_lets_a_smaller_go(limit: str) -> None:
    step = with_limits(step_with_stops("LINK", "WBTC", values=FOUR, pools=TWO), **{f"{limit}_bps": 100})
    lost = {"loss_24h": Fraction(92 * 10**6)} if limit == "daily_loss" else {"loss_total": Fraction(92 * 10**6)}
    outcome = outcome_after_reverts(step, {}, **lost)
    assert outcome.kind is OutcomeKind.PLANNED
    assert outcome.decision_result.exit_token == LINK.address
    assert [blocked_exit.token for blocked_exit in outcome.decision_result.blocked_exits] == [WBTC.address]
    assert limit in outcome.reason


def test_exit_refused_by_a_loss_limit_buys_nothing() -> None:
    step = step_with_stops("WBTC", values={"WETH": 4_000, "WBTC": 4_000, "LINK": 1_000, "USDC": 1_000}, pools=TWO)
    outcome = outcome_after_reverts(with_limits(step, total_loss_bps=100), {}, loss_total=Fraction(95 * 10**6))
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.decision_result.exit_token == WBTC.address
    assert {verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed} == {"total_loss"}


def refusing_guards(is_exit: bool, **past: object) -> set[str]:
    step = with_limits(step_input(), daily_loss_bps=90, total_loss_bps=90, gas_per_day_wei=ETHER)
    step = replace(step, history=history(**past))
    plan = replace(sell_weth(step), decision=Rebalance("a stop fired", Goal(()), is_exit=is_exit))
    judged = guards.judge(step, plan, evidence(step, plan))
    return {verdict.guard for verdict in judged if not verdict.passed} & {"daily_loss", "total_loss", "gas_per_day"}


def test_loss_limits_count_gas_of_reverts_but_not_for_exits() -> None:
    lost = Fraction(100 * 10**6)
    past = {"loss_24h": lost, "loss_total": lost, "non_trade_loss_24h": GAS, "reverted_loss_total": GAS}
    assert refusing_guards(True, **past) == set()
    assert refusing_guards(False, **past) == {"daily_loss", "total_loss"}


def test_loss_limits_bind_an_exit_by_what_trades_lost() -> None:
    lost = Fraction(200 * 10**6)
    assert refusing_guards(True, loss_24h=lost, loss_total=lost, non_trade_loss_24h=GAS, reverted_loss_total=GAS) == {
        "daily_loss",
        "total_loss",
    }


def test_gas_of_reverts_frees_no_more_than_the_loss() -> None:
    small = Fraction(10**6)
    assert refusing_guards(True, loss_24h=small, loss_total=small, non_trade_loss_24h=GAS, reverted_loss_total=GAS) == set()


def test_gas_per_day_binds_an_exit() -> None:
    assert refusing_guards(True, gas_24h_wei=ETHER) == {"gas_per_day"}


def test_unpriced_fall_binds_a_rebalance_and_no_exit() -> None:
    """A token that hides its price and takes a base unit would halt every stop for a day."""
    fell = {"unknown_reason": "LINK fell and has no price", "unpriced_falls_reason": "LINK fell and has no price"}
    assert refusing_guards(True, **fell) == set()
    assert {"daily_loss", "gas_per_day"} <= refusing_guards(False, **fell)
    assert {"daily_loss", "gas_per_day"} <= refusing_guards(
        True, **fell | {"unknown_reason": "LINK fell and has no price; the day is not known"}
    )
    assert {"daily_loss", "gas_per_day"} <= refusing_guards(True, unknown_reason="the day is not known")


def test_store_counts_gas_that_exchanged_nothing(store: Store) -> None:
    for nonce, (kind, status, wei) in enumerate(
        (
            (IntentKind.APPROVE, 1, 1),
            (IntentKind.SWAP, 0, 20),
            (IntentKind.CANCEL, 1, 300),
            (IntentKind.SWAP, 1, 4_000),
            (IntentKind.LIQUIDITY, 0, 50_000),
            (IntentKind.PAYOUT, 1, 600_000),
        )
    ):
        store.budgets.book_intent(ended_intent(store, nonce, kind=kind, status=status), Fraction(0), Fraction(wei), 2 * wei, START_S)
    past = store.budgets.history(START_S)
    assert (past.budgets.non_trade_loss_24h, past.budgets.reverted_loss_total, past.budgets.gas_24h_wei) == (50_321, 50_020, 1_308_642)
    assert past.budgets.loss_24h == 654_321, "it is a loss all the same"
    later = store.budgets.history(START_S + DAY_S)
    assert (later.budgets.non_trade_loss_24h, later.budgets.reverted_loss_total) == (0, 50_020)
