"""Resting stops of an off-chain venue: one for each position, ahead of its liquidation, and no others."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.resting_stops import stop_changes, stop_trigger
from agent.margin import account as margin
from agent.model.futures import MarginAccount, OrderCancel, RestingStop, StopOrder
from tests.support.perpetuals.plans import POLICY
from tests.support.perpetuals.stops import BTC, ETH, book

NEAR = Fraction(2, 100)
STOPS = replace(POLICY, limits=replace(POLICY.limits, resting_stop_bps=200))


def rested(account: MarginAccount) -> MarginAccount:
    """The account once its missing stops rest."""
    changes = stop_changes(account, STOPS)
    ended = [change.cloid for change in changes if isinstance(change, OrderCancel)]
    stops = [resting_stop for resting_stop in account.resting_stops if resting_stop.cloid not in ended]
    for change in changes:
        if isinstance(change, StopOrder):
            at = Fraction(change.trigger_raw, abs(change.size_raw))
            stops.append(RestingStop(change.market, change.size_raw, at, f"{change.market} {change.size_raw} {float(at)}"))
    return replace(account, resting_stops=tuple(stops))


@pytest.mark.parametrize("account", [book(eth=60_000), book(eth=-60_000), book(eth=60_000, btc=2_000), book(eth=60_000, btc=-2_000)])
def test_each_position_gets_one_stop_ahead_of_its_liquidation(account: MarginAccount) -> None:
    changes = stop_changes(account, STOPS)
    assert [(change.market, change.size_raw) for change in changes if isinstance(change, StopOrder)] == [
        (position.market, -position.size_raw) for position in account.positions
    ]
    for position, stop in zip(account.positions, changes, strict=True):
        assert isinstance(stop, StopOrder)
        mark = account.market(position.market).mark
        trigger = Fraction(stop.trigger_raw, abs(stop.size_raw))
        at_trigger = margin.with_adverse_move(account, abs(trigger / mark - 1))
        assert (trigger < mark) is position.is_long
        assert not margin.is_liquidatable(at_trigger)
        assert margin.is_liquidatable(margin.with_adverse_move(account, abs(trigger / mark - 1) + 2 * NEAR))
        assert (stop.bound_raw < stop.trigger_raw) is position.is_long
    assert stop_changes(rested(account), STOPS) == ()


@given(st.integers(-80_000, 80_000).filter(lambda lots: abs(lots) > 100), st.integers(-4_000, 4_000), st.integers(-5, 5))
def test_resting_stop__is_kept_while_near_and_not_placed_twice(eth: int, btc: int, percent: int) -> None:
    account = rested(book(eth, btc, value=40_000))
    moved = margin.with_moved_marks(account, {"ETH": Fraction(percent, 1_000)})
    for change in stop_changes(moved, STOPS):
        if isinstance(change, StopOrder):
            price = stop_trigger(moved, next(position for position in moved.positions if position.market == change.market), NEAR)
            old = [resting_stop.trigger_price for resting_stop in moved.resting_stops if resting_stop.market == change.market]
            assert price is not None
            assert all(abs(at / price - 1) > NEAR / 2 for at in old)
    assert stop_changes(rested(moved), STOPS) == ()


def test_a_stop_of_another_size_is_replaced_and_then_cancelled() -> None:
    smaller = replace(book(eth=50_000), resting_stops=rested(book(eth=60_000)).resting_stops)
    place, cancel = stop_changes(smaller, STOPS)
    assert isinstance(place, StopOrder)
    assert place.size_raw == -50_000
    assert cancel == OrderCancel("ETH", smaller.resting_stops[0].cloid)


@pytest.mark.parametrize("account", [book(), replace(book(eth=60_000), is_on_chain=True), book(eth=1_000), book(eth=60_000, value=200_000)])
def test_stop__is_placed_only_with_liquidation_position_and_venue(account: MarginAccount) -> None:
    assert stop_changes(account, STOPS) == ()


def test_stops_without_a_position_or_a_config_are_cancelled() -> None:
    stops = rested(book(eth=60_000)).resting_stops
    assert stop_changes(replace(book(), resting_stops=stops), STOPS) == (OrderCancel("ETH", stops[0].cloid),)
    assert stop_changes(replace(book(eth=60_000), resting_stops=stops), POLICY) == (OrderCancel("ETH", stops[0].cloid),)


def test_no_stop_is_placed_beyond_the_mark_or_in_a_paused_market() -> None:
    near_liquidation = margin.with_moved_marks(book(eth=60_000), {"ETH": Fraction(-54, 100)})
    assert stop_changes(near_liquidation, STOPS) == ()
    paused = replace(book(eth=60_000), markets=(replace(ETH, is_paused=True), BTC))
    assert stop_changes(paused, STOPS) == ()


@pytest.mark.parametrize("eth", [60_000, 50_000])
@pytest.mark.parametrize("moved", [0, Fraction(20, 100), Fraction(-52, 100), Fraction(-54, 100)])
def test_in_a_paused_market_the_stops_that_rest_stay(eth: int, moved: Fraction) -> None:
    """None could be placed instead, whatever became of the position and of its liquidation price."""
    account = margin.with_moved_marks(
        replace(book(eth=eth), resting_stops=rested(book(eth=60_000)).resting_stops), {"ETH": Fraction(moved)}
    )
    paused = replace(account, markets=tuple(replace(market, is_paused=True) for market in account.markets))
    assert stop_changes(paused, STOPS) == ()
    assert stop_changes(replace(paused, positions=()), STOPS) == (OrderCancel("ETH", account.resting_stops[0].cloid),)


@pytest.mark.parametrize(
    ("eth", "value", "trigger"),
    [
        (60_000, 10_000, Fraction(136_770 * 100, 98)),
        (-60_000, 10_000, Fraction(455_280 * 100, 102)),
        (-60_000, 20_000, Fraction(38 * 10**9 * 100, 61_500 * 102)),
    ],
    ids=["long", "short", "short that survives a move of 100 %"],
)
def test_stop_trigger__is_ahead_of_the_nearer_liquidation_price(eth: int, value: int, trigger: Fraction) -> None:
    """18,000 on 10,000 survive 54.41 % down and 51.76 % up, to the basis point; on 20,000 the short is liquidated at 38,000 / 6.15."""
    account = book(eth=eth, value=value)
    assert stop_trigger(account, account.positions[0], NEAR) == trigger


def test_stop_trigger__none_without_a_liquidation_price() -> None:
    account = book(eth=60_000, value=200_000)
    assert stop_trigger(account, account.positions[0], NEAR) is None


@pytest.mark.parametrize(
    ("eth", "stop"),
    [
        (60_000, StopOrder("ETH", -60_000, 8_373_673_470, 8_122_463_266)),
        (-60_000, StopOrder("ETH", 60_000, 26_781_176_470, 27_584_611_764)),
    ],
)
def test_stop__trigger_and_bound_are_rounded_to_the_safe_side(eth: int, stop: StopOrder) -> None:
    """3 % beyond the trigger: a sale asks for more and a purchase pays less than the fraction of a base unit."""
    assert stop_changes(book(eth=eth), STOPS) == (stop,)


@pytest.mark.parametrize(("more", "replaced"), [(0, False), (Fraction(1, 10**9), True)])
@pytest.mark.parametrize("side", [1, -1])
def test_stop__that_rests_half_the_distance_off_is_kept(side: int, more: Fraction, replaced: bool) -> None:
    account = book(eth=60_000)
    trigger = stop_trigger(account, account.positions[0], NEAR)
    assert trigger is not None
    resting = RestingStop("ETH", -60_000, trigger * (1 + side * (NEAR / 2 + more)), "old")
    assert bool(stop_changes(replace(account, resting_stops=(resting,)), STOPS)) is replaced


def test_stop__second_one_of_a_position_is_cancelled() -> None:
    account = rested(book(eth=60_000))
    twice = replace(account, resting_stops=(*account.resting_stops, replace(account.resting_stops[0], cloid="second")))
    assert stop_changes(twice, STOPS) == (OrderCancel("ETH", "second"),)


@pytest.mark.parametrize(("value", "placed"), [(14_561, True), (14_563, False)])
def test_stop__is_placed_up_to_four_fifths_from_the_mark(value: int, placed: bool) -> None:
    """The account survives a fall of 80.40 or 80.41 %; 2 % ahead of the first is exactly 80 %."""
    assert bool(stop_changes(book(eth=60_000, value=value), STOPS)) is placed
