"""A futures book of options has no wallet and no journal; every plan of it passes the futures guards of a live step all the same."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.backtest.futures.book import FuturesPath
from agent.backtest.futures.simulate import FuturesSettings, _Trader, simulate_futures
from agent.backtest.stress.futures import FuturesScenario, FuturesSeverity, stressed_path
from agent.guards.case import build_guard_case
from agent.guards.futures import FUTURES_GUARDS
from agent.model import AdjustFutures
from agent.model.futures import FuturesPlan
from agent.planning.futures_step import futures_plan
from tests.support.builders import NOW_S
from tests.support.plans import evidence
from tests.unit.test_futures_backtest import SETTINGS, random_path
from tests.unit.test_futures_step import step_of

JUDGED = ("index_age", "order_bound", "basis", "reopening", "futures_state", "margin_move")


@pytest.mark.parametrize("scenario", [FuturesScenario.CALM, FuturesScenario.GAP_30, FuturesScenario.FUNDING, FuturesScenario.BASIS])
def test_every_plan_of_a_simulated_book_passes_the_futures_guards(scenario: FuturesScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[tuple[str, str]] = []
    planned = _Trader._planned

    def and_judged(trader: _Trader, time_s: int, spot_value: Fraction) -> FuturesPlan:
        plan, account = planned(trader, time_s, spot_value), trader.book.account
        if not plan.orders and not plan.account_actions:
            return plan
        aged = replace(account, markets=tuple(replace(one, index_s=NOW_S + one.index_s - time_s) for one in account.markets))
        step = step_of(aged, trader._policy)
        whole = futures_plan(step, AdjustFutures("", plan.is_reducing), plan, aged, ())
        case = build_guard_case(step, whole, evidence(step, whole))
        verdicts = [guard.judge(case) for guard in FUTURES_GUARDS if guard.name in JUDGED]
        judged.extend((plan.trigger, one.guard) for one in verdicts)
        assert [(one.guard, one.measured) for one in verdicts if not one.passed] == []
        return plan

    monkeypatch.setattr(_Trader, "_planned", and_judged)
    for seed in range(3):
        settings: FuturesSettings = replace(SETTINGS, policy=replace(SETTINGS.policy, leverage_bps=30_000))
        path: FuturesPath = stressed_path(random_path(seed, 60, 0.03), settings, scenario, FuturesSeverity())
        simulate_futures(path, settings)
    assert {name for _, name in judged} == set(JUDGED)
    assert {trigger for trigger, _ in judged} >= {"drift", "leverage"}
