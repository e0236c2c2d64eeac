"""Triggers and reductions of futures at exact figures: what equals a band or a limit waits, and what is cut is cut to the lot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.targets import (
    FuturesTrigger,
    closing_suffices,
    emergency_sizes,
    fired_triggers,
    funding_trims,
    known_breaches,
    position_trims,
    reduction_sizes,
    stress_value_per_notional,
    target_gross_notional,
    unfinished_sizes,
)
from agent.model.futures import FuturesTarget
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, with_market
from tests.support.perpetuals.plans import LONGS, PLAIN, RICH, pair_book

# Triggers


@pytest.mark.parametrize(("band_bps", "fires"), [(500, False), (499, True)])
@pytest.mark.parametrize("side", [1, -1])
def test_drift__weight_on_the_edge_of_its_band_waits(side: int, band_bps: int, fires: bool) -> None:
    """11,000 of ETH and 9,000 of BTC, each of a target of half."""
    weights = (FuturesTarget("ETH", side * 5_000), FuturesTarget("BTC", side * 5_000))
    policy = replace(LONGS, band_bps=band_bps, targets=weights)
    account = pair_book(10_000, side * 5_500 * LOT, side * 300 * LOT)
    assert (FuturesTrigger.DRIFT in fired_triggers(account, policy, RICH)) is fires


@pytest.mark.parametrize(("leverage_bps", "fires"), [(20_000, True), (20_001, False)])
def test_utilisation__counts_unless_leverage_is_below_target(leverage_bps: int, fires: bool) -> None:
    """2x with 20 % used of 10 %; the stress move of 10 % is survived."""
    limits = replace(PLAIN, max_utilisation_bps=1_000, stress_move_bps=1_000)
    policy = replace(LONGS, limits=limits, leverage_bps=leverage_bps)
    assert (FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)) is fires


@pytest.mark.parametrize(("leverage_bps", "fires"), [(20_000, False), (0, True)])
def test_drift__without_leverage_every_position_is_off_target(leverage_bps: int, fires: bool) -> None:
    """10,000 each of ETH and BTC, at their weights of a half."""
    policy = replace(LONGS, leverage_bps=leverage_bps)
    account = with_market(pair_book(10_000, 5 * E18, 333 * LOT), "BTC", mark=Fraction(10_000_000, 333))
    assert (FuturesTrigger.DRIFT in fired_triggers(account, policy, RICH)) is fires


def test_utilisation__counts_below_target_without_a_stress_move() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=1_000), leverage_bps=30_000)
    assert FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)


@pytest.mark.parametrize(("collateral", "fires"), [(4_000, True), (10_000, False)])
def test_leverage__stress_move_alone_fires_it(collateral: int, fires: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_leverage_bps=100_000, stress_move_bps=2_000))
    assert (FuturesTrigger.LEVERAGE in fired_triggers(pair_book(collateral, 10 * E18), policy, RICH)) is fires


@pytest.mark.parametrize(("max_utilisation_bps", "fires"), [(2_000, False), (1_999, True)])
def test_utilisation__that_equals_its_limit_is_kept(max_utilisation_bps: int, fires: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=max_utilisation_bps))
    assert (FuturesTrigger.UTILISATION in fired_triggers(pair_book(10_000, 10 * E18), policy, RICH)) is fires


def test_spot_multiple__unknown_spot_value_breaches_nothing() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, spot_multiple_bps=10_000))
    assert known_breaches(pair_book(10_000, E18), policy, None) == []


@pytest.mark.parametrize(("rate", "trimmed"), [(Fraction(1, 300), False), (Fraction(1, 299), True)])
def test_funding__position_on_its_band_s_edge_is_not_trimmed(rate: Fraction, trimmed: bool) -> None:
    """30,000 each of ETH and BTC; 10 % of funding in 30 days count as 5 points of weight."""
    account = with_market(pair_book(30_000, 15 * E18, E18), "ETH", funding_daily=rate)
    assert bool(funding_trims(account, replace(LONGS, funding_horizon_s=30 * 86_400))) is trimmed


def test_target_gross__account_in_debt_has_a_target_of_nothing() -> None:
    assert target_gross_notional(replace(pair_book(0), realised_raw=-E18), LONGS) == 0


# Reductions that limits require


@pytest.mark.parametrize(
    ("waiting", "orders"),
    [((), {"ETH": -1_000 * LOT, "BTC": -60 * LOT}), (("BTC",), {"ETH": -1_900 * LOT, "BTC": -114 * LOT})],
)
def test_reduction__cuts_by_one_share_to_the_limit_less_hysteresis(waiting: tuple[str, ...], orders: dict[str, int]) -> None:
    """19,000 of notional on 4,000 at 4x less 5 %: 3,800 go, all of them from ETH if BTC waits."""
    assert reduction_sizes(pair_book(4_000, 5 * E18, 300 * LOT), LONGS, RICH, waiting) == orders


def test_reduction__paused_market_leaves_its_part_to_the_others() -> None:
    account = with_market(pair_book(4_000, 5 * E18, 300 * LOT), "BTC", is_paused=True)
    assert reduction_sizes(account, LONGS, RICH)["ETH"] == -1_900 * LOT


def test_reduction__part_of_a_lot_is_rounded_up() -> None:
    account = with_market(pair_book(4_000, 10 * E18), "ETH", lot_raw=E18)
    assert reduction_sizes(account, LONGS, RICH) == {"ETH": -3 * E18}, "2.4 are above the limit"


def test_reduction__utilisation_ends_below_by_the_hysteresis() -> None:
    """20 % used where 10 % may be: half of 10 ETH less 5 %."""
    policy = replace(LONGS, limits=replace(PLAIN, max_utilisation_bps=1_000), leverage_bps=0)
    assert reduction_sizes(pair_book(10_000, 10 * E18), policy, RICH) == {"ETH": -5_250 * LOT}


def test_reduction__spot_multiple_ends_below_by_the_hysteresis() -> None:
    policy = replace(LONGS, limits=replace(PLAIN, spot_multiple_bps=25_000))
    assert reduction_sizes(pair_book(10_000, 10 * E18), policy, Fraction(4_000 * E18)) == {"ETH": -5_250 * LOT}


def test_reduction__tightest_of_two_breached_limits_counts() -> None:
    limits = replace(PLAIN, spot_multiple_bps=25_000, max_leverage_bps=15_000)
    assert reduction_sizes(pair_book(10_000, 10 * E18), replace(LONGS, limits=limits), Fraction(4_000 * E18)) == {"ETH": -5_250 * LOT}


def test_reduction__short_is_bought_back() -> None:
    assert reduction_sizes(pair_book(4_000, -10 * E18), LONGS, RICH) == {"ETH": 2_400 * LOT}


@pytest.mark.parametrize(("eth", "suffices"), [(7_600, True), (7_601, False)])
def test_closing__what_waits_may_equal_the_allowed_notional(eth: int, suffices: bool) -> None:
    """15,200 are allowed on 4,000."""
    account = pair_book(4_000, eth * LOT, 160 * LOT)
    assert closing_suffices(account, LONGS, RICH, ["ETH"]) is suffices


@pytest.mark.parametrize(
    ("size", "goal", "order"),
    [
        pytest.param(12, 10, -2, id="long above its goal"),
        pytest.param(12, 0, -12, id="long to nothing"),
        pytest.param(10, 10, 0, id="at its goal"),
        pytest.param(9, 10, 0, id="below its goal"),
        pytest.param(12, -10, 0, id="goal on the short side"),
        pytest.param(-12, -10, 2, id="short to its goal"),
        pytest.param(-12, 0, 12, id="short to nothing"),
        pytest.param(0, 0, 0, id="nothing"),
    ],
)
def test_unfinished__position_beyond_its_goal_never_crosses_zero(size: int, goal: int, order: int) -> None:
    assert unfinished_sizes(pair_book(10_000, size * E18), [("ETH", goal * E18)]) == ({"ETH": order * E18} if order else {})


@pytest.mark.parametrize(("less", "closes"), [(0, False), (1, True)])
def test_emergency__position_exactly_at_the_distance_stays_open(less: int, closes: bool) -> None:
    """10 ETH on 2,187.5 are liquidated at 1,900, 5 % below the mark."""
    account = replace(pair_book(0, 10 * E18), collateral_raw=21_875 * 10**17 - less)
    assert bool(emergency_sizes(account, LONGS)) is closes


@pytest.mark.parametrize(
    ("side", "leverage_bps", "order"),
    [(1, 20_000, -1_350), (-1, 20_000, 1_350), (1, 5_000, -5_618)],
    ids=["of the target notional", "short", "of the notional"],
)
def test_position_trim__ends_at_the_largest_share_less_hysteresis(side: int, leverage_bps: int, order: int) -> None:
    """66.5 % of a target of 20,000, or of what 2,400 of BTC leave: 2,400 · 0.665 / 0.335."""
    targets = (FuturesTarget("ETH", side * 6_000), FuturesTarget("BTC", side * 4_000))
    policy = replace(LONGS, targets=targets, leverage_bps=leverage_bps, limits=replace(PLAIN, max_position_bps=7_000))
    assert position_trims(pair_book(10_000, side * 8 * E18, side * 80 * LOT), policy) == {"ETH": order * LOT}


@pytest.mark.parametrize(("eth", "trimmed"), [(7_000, False), (7_001, True)])
def test_position_trim__share_that_equals_the_maximum_stays(eth: int, trimmed: bool) -> None:
    policy = replace(LONGS, limits=replace(PLAIN, max_position_bps=7_000))
    assert bool(position_trims(pair_book(10_000, eth * LOT, 30 * LOT), policy)) is trimmed


def test_stress__need_is_the_move_and_the_maintenance_after_it() -> None:
    """20 % of loss and 6.25 % of the 80 % that are left."""
    assert stress_value_per_notional(pair_book(10_000, 10 * E18), replace(LONGS, limits=replace(PLAIN, stress_move_bps=2_000))) == Fraction(
        1, 4
    )
