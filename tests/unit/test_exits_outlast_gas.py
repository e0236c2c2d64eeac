"""Who makes exits revert burns their gas money, and does not use up what they may lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from agent import guards
from agent.model import Goal, IntentKind, Rebalance
from agent.store import Store, open_store
from tests.builders import ETHER, history, step_input, with_limits
from tests.plans import evidence, sell_weth
from tests.scripted import CHAIN_ID, START_S, WALLET
from tests.unit.test_store_budgets import ended

DAY_S = 86_400
GAS = ETHER // 20
"""Wei, worth 100 USDC at 2,000: one per cent of the portfolio."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(f"sqlite:///{tmp_path}/trimtab.db", CHAIN_ID, WALLET)
    found.begin_step("s", START_S, "{}")
    yield found
    found.close()


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
        store.book(ended(store, nonce, kind=kind, status=status), Fraction(0), Fraction(wei), wei, START_S)
    found = store.history(START_S)
    assert (found.wasted_24h_wei, found.wasted_wei, found.gas_24h_wei) == (50_321, 50_020, 654_321)
    assert found.loss_24h == 654_321, "it is a loss all the same"
    later = store.history(START_S + DAY_S)
    assert (later.wasted_24h_wei, later.wasted_wei) == (0, 50_020)
