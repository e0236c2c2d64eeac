"""Margin-call stress: each scenario does to prices, funding and venue what it says, and the agent's book outlives the held one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.backtest.futures.book import futures_path
from agent.backtest.futures.simulate import BookResult, held_book
from agent.backtest.futures_alone import simulate_book
from agent.backtest.stress.futures import (
    FuturesScenario,
    FuturesSeverity,
    FuturesStressSpec,
    crash_and_rally,
    run_futures_stress,
    stressed_path,
)
from agent.errors import ConfigError
from agent.guards.table import GUARDS
from agent.model.futures import FuturesTarget
from agent.units import DAY_S
from tests.support.backtests import HOUR_S, hourly, random_table
from tests.support.perpetuals.simulated import SETTINGS, VENUE, long_btc, random_path

FLAT = futures_path(hourly(BTC=[100] * 12, ETH=[50] * 12))
SEVERITY = FuturesSeverity(funding_daily_bps=240, basis_bps=1_000, pause_bars=3, pause_bps=3_000)


def stressed(scenario: FuturesScenario) -> list[tuple[Fraction, Fraction]]:
    """Marks of a long BTC and a short ETH at each bar."""
    path = stressed_path(FLAT, SETTINGS, scenario, SEVERITY)
    return [(row[0], row[1]) for row in path.mark_prices]


def test_a_gap_moves_every_price_against_its_target_and_stays() -> None:
    assert stressed(FuturesScenario.GAP_20) == [(100, 50)] * 4 + [(80, 60)] * 8


@pytest.mark.parametrize(
    ("shocks", "after"),
    [
        ((("BTC", -3_000),), (70, 50)),
        ((("ETH", -3_000),), (100, 35)),
        ((("BTC", 1_000), ("ETH", 5_000)), (110, 75)),
    ],
)
def test_a_shock_moves_its_prices_alone_whatever_their_targets(shocks: tuple[tuple[str, int], ...], after: tuple[int, int]) -> None:
    path = stressed_path(FLAT, SETTINGS, FuturesScenario.SHOCK, replace(SEVERITY, shocks=shocks))
    assert [*path.mark_prices] == [*path.index_prices] == [(100, 50)] * 4 + [after] * 8


def test_a_mark_off_its_index_leaves_the_index() -> None:
    path = stressed_path(FLAT, SETTINGS, FuturesScenario.BASIS, SEVERITY)
    assert stressed(FuturesScenario.BASIS) == [(100, 50)] * 4 + [(90, 55)] * 4 + [(100, 50)] * 4
    assert path.index_prices == FLAT.index_prices


def test_a_paused_venue_stands_still_while_prices_move() -> None:
    path = stressed_path(FLAT, SETTINGS, FuturesScenario.PAUSE, SEVERITY)
    assert path.paused_bars == {4, 5, 6}
    assert [row[0] for row in path.index_prices] == [100] * 4 + [90, 80] + [70] * 6


def test_a_funding_spike_is_paid_by_long_and_short() -> None:
    path = stressed_path(FLAT, SETTINGS, FuturesScenario.FUNDING, SEVERITY)
    paid = [(payment.column, payment.rate) for payment in path.payments[4]]
    assert paid == [(0, Fraction(24 * HOUR_S, 1_000 * DAY_S)), (1, Fraction(-24 * HOUR_S, 1_000 * DAY_S))]
    assert not path.payments[3]
    assert not path.payments[8]
    book_result = held_book(path, replace(SETTINGS, venue=replace(VENUE, fee_ppm=0, slippage_bps=0)))
    assert book_result.profit.funding_raw == pytest.approx(4 * 20_000 * 10**18 // 1_000, rel=0.01)


@pytest.mark.parametrize("seeds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_crash_and_rally__liquidate_the_held_book_never_the_agent_s(seeds: int) -> None:
    """Orders are filled in the hour of their plan, at its end the leverage limit holds."""
    table = random_table(1, 40, ("BTC",))
    policy = replace(long_btc().policy, limits=replace(SETTINGS.policy.limits, stress_move_bps=1_000))
    spec = FuturesStressSpec(table, replace(SETTINGS, policy=replace(policy, leverage_bps=30_000)), SEVERITY, 12, 1, seeds)
    cases = {stressed_scenario.scenario: stressed_scenario for stressed_scenario in run_futures_stress(spec)}
    assert set(cases) == set(FuturesScenario) - {FuturesScenario.SHOCK}, "without --shock there is none"
    ride = cases[FuturesScenario.CRASH_RALLY]
    assert (ride.path_count, ride.agent_book.liquidated_path_count) == (seeds, 0)
    assert ride.agent_book.longest_above_limit_bars == 0
    assert ride.held_book.liquidated_path_count > seeds // 2
    assert ride.agent_book.mean_loss < ride.held_book.mean_loss


def test_crash__falls_by_two_fifths_and_the_rally_rises_by_three() -> None:
    table = random_table(2, 40, ("BTC",))
    falls = []
    rises = []
    for seed in range(200):
        prices = [float(row[0]) for row in crash_and_rally(table, seed).index_prices]
        falls.append(prices[50] / prices[2])
        rises.append(prices[-1] / prices[50])
    assert sorted(falls)[100] == pytest.approx(0.6, rel=0.03)
    assert sorted(rises)[100] == pytest.approx(1.6, rel=0.03)


@pytest.mark.slow
def test_seed__gives_its_own_cases_and_the_same_again() -> None:
    table = random_table(3, 40, ("BTC",))
    settings = replace(long_btc(), seed=4)
    spec = FuturesStressSpec(table, settings, SEVERITY, 12, 1, 1)
    first = run_futures_stress(spec)
    assert run_futures_stress(spec) == first
    assert run_futures_stress(replace(spec, settings=replace(settings, seed=5))) != first


def assert_passes_guards(agent: BookResult) -> None:
    """Require fills, and that no guard refused a plan."""
    assert agent.fills
    assert {why for why, _ in agent.refusal_counts} & {guard.name for guard in GUARDS} == set()


@pytest.mark.parametrize("scenario", [FuturesScenario.FUNDING, FuturesScenario.BASIS])
def test_every_plan_of_a_book_passes_the_guards_of_a_step(scenario: FuturesScenario) -> None:
    path = stressed_path(random_path(1, 30, 0.03), SETTINGS, scenario, FuturesSeverity())
    assert_passes_guards(simulate_book(path, SETTINGS).agent_book)


def test_every_plan_of_a_crash_and_rally_passes_the_guards() -> None:
    agent = simulate_book(crash_and_rally(random_table(1, 40, ("BTC",)), 1), long_btc(30_000)).agent_book
    assert_passes_guards(agent)
    assert {fill.trigger for fill in agent.fills} >= {"drift", "leverage"}


def test_a_gap_is_against_a_short_too() -> None:
    short = replace(long_btc(), policy=replace(long_btc().policy, targets=(FuturesTarget("BTC", -10_000),)))
    spec = FuturesStressSpec(random_table(1, 40, ("BTC",)), short, SEVERITY, 12, 1, 1)
    gap = next(stressed_scenario for stressed_scenario in run_futures_stress(spec) if stressed_scenario.scenario is FuturesScenario.GAP_10)
    assert gap.held_book.mean_loss > 0


@pytest.mark.parametrize(
    ("bars", "paths", "named"),
    [
        pytest.param(11, 1, "--paths bars: 11 of 40", id="a bar too few"),
        pytest.param(41, 1, "--paths bars: 41 of 40", id="bars above the file"),
        pytest.param(12, 0, "--paths step-paths", id="no paths"),
    ],
)
def test_too_few_bars_or_paths_are_refused(bars: int, paths: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        run_futures_stress(FuturesStressSpec(random_table(1, 40), SETTINGS, SEVERITY, bars, paths, 1))
