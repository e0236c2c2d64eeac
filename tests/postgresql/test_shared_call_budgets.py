"""The calls a second of an operator, from one budget for all workers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.store.postgresql import session
from agent.store.postgresql.call_budgets import TURNS_A_RESERVATION_S, SharedCallBudget
from tests.support.postgresql import Opener, Server


def budget_of(url: str, operator: str = "a", rate: int = 10) -> SharedCallBudget:
    return SharedCallBudget(session.server_engine(session.make_url(url)), operator, rate)


def test_the_turns_of_two_workers_are_one_behind_the_other(opened: Opener, url: str) -> None:
    opened()
    first = budget_of(url)
    second = budget_of(url)
    assert first.take(50) <= 0.05
    assert second.take(1) == pytest.approx(5.0, abs=0.5)


def test_operators_have_budgets_of_their_own(opened: Opener, url: str) -> None:
    opened()
    budget_of(url).take(50)
    assert budget_of(url, "b").take(1) <= 0.05


def test_many_workers_at_once_take_each_turn_once(opened: Opener, url: str) -> None:
    opened()
    workers = [budget_of(url, rate=100) for _ in range(6)]
    began_s = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        waits = list(pool.map(lambda number: workers[number % 6].take(10), range(60)))
    longest_s = max(waits) + time.monotonic() - began_s
    assert longest_s >= 6.0 - 6 * TURNS_A_RESERVATION_S - 0.5, "600 turns of 10 ms"


def test_a_database_that_does_not_answer_holds_up_no_call(server: Server, opened: Opener, url: str) -> None:
    opened()
    budget = budget_of(url)
    server.control("stop", "-m", "fast")
    try:
        assert budget.take(1) == 0
        began_s = time.monotonic()
        assert budget.take(1_000) == 0, "it is not asked again at once"
        assert time.monotonic() - began_s < 0.5
    finally:
        server.control("start")
