"""Tests of agent/layers/strategies/records.py: books and health of strategies over months, with restarts in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.layers.strategies.memory import read_memory
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.inputs import add_books, combine_targets
from agent.layers.strategies.records import record_after_input
from agent.layers.strategies.state import StrategyHealth, StrategyState
from agent.layers.strategies.store import StrategyStore
from agent.model import ExpectedBalances, Rebalance, StepInput, StepMemory
from agent.policy.decide import decide
from agent.store import open_store
from tests.support.builders import NOW_S, OWNER, RULE, balances, books_of, split, step_input, strategy
from tests.support.constants import DAY_S, HOUR_S
from tests.support.tokens import WETH

NO_BALANCES = ExpectedBalances((), (), (), None, 0)
CONFIG = split(
    strategy("trend", 5_000, {"WETH": 10_000}, cooldown_s=10**9, floor_bps=1_000, health=RULE),
    strategy("calm", 5_000, {"WETH": 5_000, "USDC": 5_000}, cooldown_s=10**9),
    relative_bps=9_000,
)
START_S = NOW_S - NOW_S % DAY_S
STEPS_PER_PROCESS = 25


class RecordedWallet:
    """A wallet of 2.5 WETH and 5,000 USDC whose steps are recorded, by a process that restarts every 25 steps."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'trimtab.db'}"
        self.price = Fraction(2_000)
        self.day = 0
        self.dice = random.Random(5)
        self.step_count = 0
        self.store = open_store(self.url, 31_337, OWNER)

    def record_step(self, at_s: int) -> StepInput:
        """Record a step at this time and return the step as it is read after that."""
        self.step_count += 1
        if self.step_count % STEPS_PER_PROCESS == 0:
            self.store.close()
            self.store = open_store(self.url, 31_337, OWNER)
        plain_step = step_input(prices={"WETH": self.price}, now_s=at_s)
        step = balances(plain_step, WETH="2.5", USDC=5_000).with_config(CONFIG)
        step_with_books = self.with_books(step)
        assert not books_of(step_with_books).fault
        record_after_input(self.store, step_with_books)
        return self.with_books(step)

    def with_books(self, step: StepInput) -> StepInput:
        memory = StepMemory((), None, NO_BALANCES, (), layers=(read_memory(step, self.store),))
        return combine_targets(add_books(memory, step))

    def record_days_until(self, condition: Callable[[StepInput], bool], drift: float, max_days: int) -> tuple[int, StepInput]:
        """Record a step a day, at prices with this drift, until the condition holds; return the days and the step."""
        for number in range(1, max_days + 1):
            self.day += 1
            self.price *= Fraction(round((1 + drift + self.dice.gauss(0, 0.01)) * 10**6), 10**6)
            step = self.record_step(START_S + self.day * DAY_S + 80_000)
            if condition(step):
                return number, step
        raise AssertionError(f"it did not happen within {max_days} days")


def state_of(step: StepInput, name: str = "trend") -> StrategyState:
    return books_of(step).by_name[name].state


def test_failing_strategy_is_paused_at_its_floor_and_restored(tmp_path: Path) -> None:
    """Thirty days of window, thirty below; the other strategy has no rule."""
    wallet = RecordedWallet(tmp_path)
    days, paused_step = wallet.record_days_until(lambda step: state_of(step).health is StrategyHealth.PAUSED, -0.004, 75)
    decision_result = decide(paused_step)
    netting_result = decision_result.layer(StrategiesResult).netting
    trend, calm = netting_result.adjustments

    assert days == 61
    assert "below 0.5" in state_of(paused_step).reason
    assert state_of(paused_step, "calm").health is StrategyHealth.ACTIVE
    assert isinstance(decision_result.decision, Rebalance)
    assert [transfer[:2] for transfer in netting_result.transfers] == [("trend", "calm")]
    assert abs(trend.capital / (trend.capital + calm.capital) - Fraction(1, 10)) < Fraction(1, 10_000)
    assert dict(trend.target_values)[WETH.address] == 0, "what its floor holds is sold"

    _, restored_step = wallet.record_days_until(lambda step: state_of(step).health is StrategyHealth.ACTIVE, 0.006, 60)
    assert "above 0.8" in state_of(restored_step).reason
    wallet.store.close()


def assigned(wallet: RecordedWallet) -> None:
    """The owner assigns deposits to one of the strategies."""
    wallet.store.layer_repository(StrategyStore).set_transfer_strategy("calm")


def applied(wallet: RecordedWallet) -> None:
    """The owner closes a strategy, whose state is deleted."""
    strategies = wallet.store.layer_repository(StrategyStore)
    assert strategies.record_bookings((), strategies.ledger().record_version, ["trend"])


@pytest.mark.parametrize("change", [assigned, applied], ids=["deposits-to", "apply"])
def test_step_read_before_a_change_of_the_owner_writes_nothing(tmp_path: Path, change: Callable[[RecordedWallet], None]) -> None:
    wallet = RecordedWallet(tmp_path)
    wallet.record_step(START_S)
    step = balances(step_input(prices={"WETH": wallet.price}, now_s=START_S + HOUR_S), WETH="2.6", USDC=5_000).with_config(CONFIG)
    stale_steps = [wallet.with_books(step), wallet.with_books(balances(step, WETH="2.5", USDC=5_000))]
    strategies = wallet.store.layer_repository(StrategyStore)

    change(wallet)
    ledger = strategies.ledger()
    for stale_step in stale_steps:
        record_after_input(wallet.store, stale_step)

    assert strategies.ledger() == ledger
    wallet.store.close()


def test_values_of_units_are_recorded_once_an_hour(tmp_path: Path) -> None:
    """By the first step of each."""
    wallet = RecordedWallet(tmp_path)
    for seconds in (0, 600, HOUR_S - 1, HOUR_S, 2 * HOUR_S + 1_800, 3 * HOUR_S - 1):
        wallet.record_step(START_S + seconds)
    strategy_store = wallet.store.layer_repository(StrategyStore)

    assert [point.at_s - START_S for point in strategy_store.nav_points("trend", 0)] == [0, HOUR_S, 2 * HOUR_S + 1_800]
    assert [booking.source for booking in strategy_store.ledger().bookings] == ["open"]
    wallet.store.close()
