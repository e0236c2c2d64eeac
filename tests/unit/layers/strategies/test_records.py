"""Books of strategies beside the journal: look after look over months, health judged once an hour, restarts in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from agent.layers.strategies.memory import read_memory
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.inputs import add_books, combine_targets
from agent.layers.strategies.records import record_after_input
from agent.layers.strategies.state import StrategyHealth
from agent.layers.strategies.store import StrategyStore
from agent.model import ExpectedBalances, Rebalance, StepInput, StepMemory
from agent.policy.decide import decide
from agent.store import open_store
from tests.support.builders import DAY_S, NOW_S, OWNER, RULE, balances, books_of, split, step_input, strategy, token

BOOKS = ExpectedBalances((), (), (), None, 0)
SPLIT = split(
    strategy("trend", 5_000, {"WETH": 10_000}, cooldown_s=10**9, floor_bps=1_000, health=RULE),
    strategy("calm", 5_000, {"WETH": 5_000, "USDC": 5_000}, cooldown_s=10**9),
    relative_bps=9_000,
)
START_S = NOW_S - NOW_S % DAY_S


class MonthlyWallet:
    """A wallet of 2.5 WETH and 5,000 USDC that is looked at by a process which is started anew every 25 looks."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'trimtab.db'}"
        self.price, self.day = Fraction(2_000), 0
        self.chance, self.looks = random.Random(5), 0
        self.store = open_store(self.url, 31_337, OWNER)

    def look(self, at_s: int) -> StepInput:
        self.looks += 1
        if self.looks % 25 == 0:
            self.store.close()
            self.store = open_store(self.url, 31_337, OWNER)
        plain = step_input(prices={"WETH": self.price}, now_s=at_s)
        step = balances(plain, WETH="2.5", USDC=5_000).with_config(SPLIT)
        record_after_input(self.store, view_seen := self.seen(step))
        assert not books_of(view_seen).fault
        return self.seen(step)

    def seen(self, step: StepInput) -> StepInput:
        memory = StepMemory((), None, BOOKS, (), layers=(read_memory(step, self.store),))
        return combine_targets(add_books(memory, step))

    def days(self, drift: float, until: Callable[[StepInput], bool], most: int) -> tuple[int, StepInput]:
        """Looks once a day until something holds: after how many days, and the step."""
        for number in range(1, most + 1):
            self.day += 1
            self.price *= Fraction(round((1 + drift + self.chance.gauss(0, 0.01)) * 10**6), 10**6)
            step = self.look(START_S + self.day * DAY_S + 80_000)
            if until(step):
                return number, step
        raise AssertionError(f"it did not happen within {most} days")


def state(step: StepInput, name: str = "trend") -> StrategyHealth:
    return books_of(step).by_name[name].state.health


def test_failing_strategy__is_cut_to_its_floor_and_let_back(tmp_path: Path) -> None:
    months = MonthlyWallet(tmp_path)
    lasted, cut = months.days(-0.004, lambda step: state(step) is StrategyHealth.PAUSED, 75)
    assert lasted == 61, "thirty days of window, and thirty below"
    assert "below 0.5" in books_of(cut).by_name["trend"].state.reason
    assert state(cut, "calm") is StrategyHealth.ACTIVE, "it has no rule"
    decision_result = decide(cut)
    netting = decision_result.layer(StrategiesResult).netting
    assert netting is not None
    assert isinstance(decision_result.decision, Rebalance)
    (moved,) = netting.transfers
    assert moved[:2] == ("trend", "calm")
    trend, calm = netting.adjustments
    assert abs(trend.capital / (trend.capital + calm.capital) - Fraction(1, 10)) < Fraction(1, 10_000)
    assert dict(trend.target_values)[token("WETH").address] == 0, "what its floor holds is sold and waits"
    _, back = months.days(0.006, lambda step: state(step) is StrategyHealth.ACTIVE, 60)
    assert "above 0.8" in books_of(back).by_name["trend"].state.reason
    months.store.close()


def test_units__are_noted_once_an_hour_by_the_first_look(tmp_path: Path) -> None:
    months = MonthlyWallet(tmp_path)
    for at_s in (START_S, START_S + 600, START_S + 3_599, START_S + 3_600, START_S + 9_000):
        months.look(at_s)
    store = months.store
    assert [point.at_s - START_S for point in store.layer_repository(StrategyStore).nav_points("trend", 0)] == [0, 3_600, 9_000]
    assert [booking.source for booking in store.layer_repository(StrategyStore).ledger().bookings] == ["open"]
    store.close()
