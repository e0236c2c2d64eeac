"""Exits after failures in a row: how long they wait, what ends it, that one pushed pool holds back its own asset alone, and that the gas
of reverts does not use up what they may lose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec, engine, guards
from agent.execution.step_context import OutcomeKind
from agent.model import Goal, History, Intent, IntentKind, Rebalance, StepInput, TopUp
from agent.planning import proposals
from agent.store import Store, open_store
from agent.units import Token
from tests.support.builders import ETHER, NOW_S, history, step_input, with_limits
from tests.support.plans import evidence, plan_of, sell_weth, verdict
from tests.support.transactions import CHAIN_ID, START_S, WALLET
from tests.unit.test_blocked_exits import LINK, MARKET, OFF, SOUND, USDC, WBTC, Sees, fired
from tests.unit.test_review_stopping import mined
from tests.unit.test_store_budgets import ended

TWO = (*MARKET, SOUND)
DAY_S = 86_400
GAS = ETHER // 20
"""Wei, worth 100 USDC at 2,000: one per cent of the portfolio."""


def passes(found: History, exits: bool = True, **changes: object) -> bool:
    """Whether the guard lets a sale of WETH through, after its step was written down and read again."""
    step = replace(step_input(), history=found, **changes)  # type: ignore[arg-type]  # field names of StepInput
    plan = sell_weth(step)
    plan = replace(plan, decision=Rebalance("a stop fired", Goal(()), exit=exits))
    return verdict("reverts_in_row", codec.loads(StepInput, codec.dumps(step)), plan).passed


@pytest.mark.parametrize(
    ("reverts", "approvals", "wait_s"),
    [(3, 0, 60), (3, 20, 60), (4, 0, 120), (5, 0, 240), (8, 0, 1_920), (9, 0, 3_600), (10_000, 0, 3_600), (0, 8, 60), (2, 10, 240)],
)
def test_an_exit_waits_longer_after_each_failure_up_to_an_hour(reverts: int, approvals: int, wait_s: int) -> None:
    def failed(ago_s: int | None) -> History:
        since = None if ago_s is None else NOW_S - ago_s
        return history(reverts_in_row=reverts, approvals_in_row=approvals, failed_s=since, failures_stop=True)

    assert passes(failed(wait_s)) and not passes(failed(wait_s - 1))
    assert passes(failed(0), spend_caps=((USDC.address, 1),)), "what it approved is not held against its own step"
    assert not passes(failed(None)), "a failure of an unknown time"
    assert not passes(failed(10**6), exits=False), "a rebalance waits for its owner"


def test_after_an_exit_that_succeeded_rebalances_still_wait() -> None:
    assert passes(history(failures_stop=True))
    assert not passes(history(failures_stop=True), exits=False)


def test_gas_money_for_an_exit_waits_like_the_exit() -> None:
    for ago_s, passed in ((59, False), (60, True)):
        step = replace(step_input(), history=history(reverts_in_row=3, failed_s=NOW_S - ago_s, failures_stop=True))
        plan = replace(plan_of(step, []), decision=TopUp("short of gas", 1))
        assert verdict("reverts_in_row", step, plan).passed is passed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    found.steps.begin("s", START_S, "{}")
    yield found
    found.close()


def booked(store: Store, nonce: int, at_s: int, status: int = 0, kind: IntentKind = IntentKind.SWAP) -> Intent:
    intent = ended(store, nonce, kind=kind, status=status)
    store.budgets.book(intent, Fraction(0), Fraction(0), 1, at_s)
    return intent


def test_the_wait_counts_from_the_newest_failure_in_the_journal(store: Store) -> None:
    for nonce in range(2):
        booked(store, nonce, START_S + nonce)
    few = store.budgets.history(START_S + 9)
    assert (few.failed_s, few.failures_stop) == (None, False)
    booked(store, 2, START_S + 2)
    many = store.budgets.history(START_S + 9)
    assert (many.reverts_in_row, many.failed_s, many.failures_stop) == (3, START_S + 2, True)
    ended(store, 3, status=0)
    assert store.budgets.history(START_S + 9).failed_s == START_S + 9, "what is not booked yet failed now"


def test_a_success_ends_the_wait_and_only_the_owner_ends_the_stop(store: Store) -> None:
    for nonce in range(3):
        booked(store, nonce, START_S)
    booked(store, 3, START_S + 1, status=1)
    sold = store.budgets.history(START_S + 9)
    assert (sold.reverts_in_row, sold.failed_s, sold.failures_stop) == (0, None, True)
    store.pause_switch.resume("seen", START_S)
    assert not store.budgets.history(START_S + 9).failures_stop


def test_steps_of_approvals_alone_stop_like_reverts(store: Store) -> None:
    for nonce in range(8):
        mined(store, nonce, IntentKind.APPROVE)
        (approval,) = store.journal.unbooked()
        store.budgets.book(approval, Fraction(0), Fraction(0), 1, START_S + nonce)
        assert store.budgets.history(START_S + 9).failures_stop is (nonce == 7)
    assert store.budgets.history(START_S + 9).failed_s == START_S + 7


@pytest.mark.parametrize(("reverts", "goes"), [(0, WBTC), (1, LINK), (2, WBTC), (3, LINK), (4, WBTC)])
def test_each_revert_moves_the_turn_to_the_next_exit(reverts: int, goes: Token) -> None:
    step = fired("LINK", "WBTC", pools=TWO)
    failed = replace(step.history, reverts_in_row=reverts, failed_s=NOW_S - 3_600, failures_stop=reverts >= 3)
    found = engine.evaluate_input(replace(step, history=failed), proposals.rebalance, Sees(), "abc")
    assert found.kind is OutcomeKind.PLANNED and found.decided.exit_token == goes.address


def test_an_exit_that_cannot_go_leaves_its_turn_to_the_next() -> None:
    step = fired("LINK", "WBTC", pools=(*MARKET, OFF))
    failed = replace(step.history, reverts_in_row=3, failed_s=NOW_S - 3_600, failures_stop=True)
    found = engine.evaluate_input(replace(step, history=failed), proposals.rebalance, Sees(), "abc")
    assert found.kind is OutcomeKind.PLANNED and found.decided.exit_token == WBTC.address


def refusing(exits: bool, **past: object) -> set[str]:
    step = with_limits(step_input(), daily_loss_bps=90, total_loss_bps=90, gas_per_day_wei=ETHER)
    step = replace(step, history=history(**past))
    plan = replace(sell_weth(step), decision=Rebalance("a stop fired", Goal(()), exit=exits))
    judged = guards.judge(step, plan, evidence(step, plan))
    return {one.guard for one in judged if not one.passed} & {"daily_loss", "total_loss", "gas_per_day"}


def test_gas_of_reverts_binds_a_rebalance_and_no_exit() -> None:
    lost = Fraction(100 * 10**6)
    past = {"loss_24h": lost, "loss_total": lost, "wasted_24h_wei": GAS, "wasted_wei": GAS}
    assert refusing(True, **past) == set()
    assert refusing(False, **past) == {"daily_loss", "total_loss"}


def test_what_trades_lost_binds_an_exit_beside_the_gas_of_reverts() -> None:
    lost = Fraction(200 * 10**6)
    assert refusing(True, loss_24h=lost, loss_total=lost, wasted_24h_wei=GAS, wasted_wei=GAS) == {"daily_loss", "total_loss"}


def test_gas_that_became_dearer_frees_no_more_than_was_lost() -> None:
    small = Fraction(10**6)
    assert refusing(True, loss_24h=small, loss_total=small, wasted_24h_wei=GAS, wasted_wei=GAS) == set()


def test_the_gas_of_a_day_bounds_what_exits_burn() -> None:
    assert refusing(True, gas_24h_wei=ETHER, wasted_24h_wei=ETHER, wasted_wei=ETHER) == {"gas_per_day"}


def test_the_store_tells_gas_that_exchanged_nothing(store: Store) -> None:
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
        store.budgets.book(ended(store, nonce, kind=kind, status=status), Fraction(0), Fraction(wei), wei, START_S)
    found = store.budgets.history(START_S)
    assert (found.wasted_24h_wei, found.wasted_wei, found.gas_24h_wei) == (50_321, 50_020, 654_321)
    assert found.loss_24h == 654_321, "it is a loss all the same"
    later = store.budgets.history(START_S + DAY_S)
    assert (later.wasted_24h_wei, later.wasted_wei) == (0, 50_020)
