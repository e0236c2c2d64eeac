"""Which swaps are the policy's last rebalance: those that its trigger asked for, and no exit, withdrawal, investment or swap by hand."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import codec
from agent.model import Drawdown, Every, Goal, Hold, IntentState, Plan, PricePoint, Rebalance
from agent.planning import requests
from agent.planning.proposals import manual_swap_proposer, propose_rebalance
from agent.policy.cash_flows import transfers
from agent.policy.decide import decide
from agent.policy.triggers.schedules import schedule_status
from agent.store import Store
from tests.support.builders import NOW_S, history, step_input, with_limits
from tests.support.constants import DAY_S
from tests.support.plans import plan_of
from tests.support.standing_orders import price_of
from tests.support.stores import store_fixture
from tests.support.tokens import USDC, WETH
from tests.support.transactions import START_S, grant, receipt, tx

BESIDES = {
    "an exit or a withdrawal": {"is_exit": True},
    "a swap by hand, a limit order, a rehearsal": {"by_hand": True},
    "an investment or a transition": {"by_owner": True},
}


store = store_fixture()


def plan_of_kind(**kind: bool) -> Plan:
    return replace(plan_of(step_input(), []), decision=Rebalance("why", Goal(()), **kind))


def add_final_swap(store: Store, nonce: int, at_s: int, plan: Plan | None, is_granted: bool = True) -> None:
    """A swap of this plan is final and booked; the grant has it, or only what the step wrote down."""
    step_id = f"s{nonce}"
    tx_hash = f"0x{nonce:064x}"
    store.steps.begin(step_id, at_s, "{}")
    store.steps.end(step_id, "rebalance", "why", plan, "done")
    granted = replace(grant(), plan=plan if is_granted else None)
    intent = store.journal.add_intent(step_id, tx(nonce), granted, "swap", at_s, None)
    store.journal.advance(intent.id, IntentState.SIGNED, at_s, tx_hash=tx_hash)
    store.journal.advance(intent.id, IntentState.BROADCAST, at_s)
    store.journal.advance(intent.id, IntentState.MINED, at_s, receipt=receipt(tx_hash, nonce, f"0x{nonce:02x}"))
    store.budgets.book_intent(store.journal.advance(intent.id, IntentState.FINAL, at_s), Fraction(5), Fraction(1), 7, at_s)


@pytest.mark.parametrize("kind", BESIDES.values(), ids=BESIDES)
@pytest.mark.parametrize("is_granted", [True, False])
def test_last_rebalance_is_only_that_of_a_trigger(store: Store, kind: dict[str, bool], is_granted: bool) -> None:
    add_final_swap(store, 0, START_S, plan_of_kind())
    add_final_swap(store, 1, START_S + 500, plan_of_kind(**kind), is_granted)
    past = store.budgets.history(START_S + 600)
    assert past.reviews.last_rebalance_s == START_S
    assert (past.budgets.turnover_24h, past.budgets.loss_24h, past.budgets.gas_24h_wei) == (10, 2, 14), (
        "the limits of a day count every swap"
    )
    add_final_swap(store, 2, START_S + 900, plan_of_kind())
    assert store.budgets.history(0).reviews.last_rebalance_s == START_S + 900


def test_swap_without_a_known_plan_counts_as_a_rebalance(store: Store) -> None:
    add_final_swap(store, 0, START_S, None)
    assert store.budgets.history(0).reviews.last_rebalance_s == START_S


@pytest.mark.parametrize("store_kind", ["file"])
def test_swaps_of_an_older_store_count_as_before(store: Store, tmp_path: Path) -> None:
    add_final_swap(store, 0, START_S, plan_of_kind(is_exit=True))
    assert store.budgets.history(0).reviews.last_rebalance_s is None
    with closing(sqlite3.connect(tmp_path / "trimtab.db")) as raw, raw:
        raw.execute("UPDATE budgets SET kind = 'swap'")
    assert store.budgets.history(0).reviews.last_rebalance_s == START_S
    old = json.loads(codec.dumps(plan_of_kind()))
    del old["decision"]["by_owner"]
    assert codec.from_jsonable(Plan, old) == plan_of_kind()


def test_interval_ignores_swaps_that_no_trigger_made(store: Store) -> None:
    add_final_swap(store, 0, START_S, plan_of_kind())
    for nonce, kind in enumerate(BESIDES.values(), 1):
        add_final_swap(store, nonce, START_S + 1_000 * nonce, plan_of_kind(**kind))
    assert schedule_status(Every(DAY_S), START_S + DAY_S, store.budgets.history(START_S + DAY_S), 0).is_due
    assert not schedule_status(Every(DAY_S), START_S + DAY_S - 1, store.budgets.history(START_S + DAY_S), 0).is_due


def test_drawdown_is_answered_only_by_a_rebalance(store: Store) -> None:
    then = NOW_S - 2 * DAY_S
    prices = tuple(PricePoint(WETH.address, then + 3_600 * hour, price_of("WETH", 3_000)) for hour in range(40))
    for nonce, (kind, answered) in enumerate(((BESIDES["an exit or a withdrawal"], False), ({}, True))):
        add_final_swap(store, nonce, NOW_S - 60, plan_of_kind(**kind))
        past = history(prices=prices, last_rebalance_s=store.budgets.history(NOW_S).reviews.last_rebalance_s)
        step = step_input(values={"WETH": 4_000, "USDC": 6_000}, trigger=Drawdown(2_000, DAY_S), past=past, cooldown_s=0)
        assert isinstance(decide(step).decision, Hold if answered else Rebalance)


def test_cooldown_follows_only_a_rebalance(store: Store) -> None:
    add_final_swap(store, 0, NOW_S - 60, plan_of_kind(by_hand=True))
    off = step_input(values={"WETH": 7_000, "USDC": 3_000}, past=store.budgets.history(NOW_S), cooldown_s=3_600)
    assert isinstance(decide(off).decision, Rebalance)
    add_final_swap(store, 1, NOW_S - 60, plan_of_kind())
    held_decision = decide(replace(off, history=store.budgets.history(NOW_S))).decision
    assert isinstance(held_decision, Hold)
    assert "last rebalance" in held_decision.reason


def test_proposers_mark_only_the_trigger_as_trigger() -> None:
    step = with_limits(step_input(values={"WETH": 7_000, "USDC": 3_000}, depth=50_000_000), turnover_bps=None)
    reserved_asset = replace(step.portfolio.assets[1], reserve_raw=4_000 * 10**6)
    withdraws = replace(step, portfolio=replace(step.portfolio, assets=(step.portfolio.assets[0], reserved_asset)))
    assert transfers.goal_to_raise_shortfall(withdraws, USDC.address)
    proposals = {
        "trigger": propose_rebalance(step),
        "hand": manual_swap_proposer(WETH.address, USDC.address, 10**17)(step),
        "withdrawal": requests.raise_money_proposer(USDC.address)(withdraws),
        "investment": requests.invest_proposer({WETH.address: 10**18})(step),
        "stop": requests.propose_selling_everything(step),
        "edit": requests.rebalance_to_targets(step),
    }
    decisions = {name: proposal.plan.decision for name, proposal in proposals.items() if proposal.plan is not None}
    assert {name: decision.by_trigger for name, decision in decisions.items() if isinstance(decision, Rebalance)} == {
        "trigger": True,
        "hand": False,
        "withdrawal": False,
        "investment": False,
        "stop": False,
        "edit": False,
    }
