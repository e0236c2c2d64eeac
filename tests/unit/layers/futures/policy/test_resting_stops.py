"""Tests of agent/layers/futures/policy/resting_stops.py: one stop for each position, ahead of its liquidation, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.policy.resting_stops import stop_changes, stop_trigger
from agent.margin import account as margin
from agent.model.futures import FuturesPolicy, MarginAccount, OrderCancel, RestingAction, RestingStop, StopOrder
from tests.support.perpetuals.plans import POLICY
from tests.support.perpetuals.stops import ETH, book

NEAR = Fraction(2, 100)
STOPS = replace(POLICY, limits=replace(POLICY.limits, resting_stop_bps=200))
LONG = book(eth=60_000)
"""18,000 of ETH on 10,000."""


def with_stops_placed(account: MarginAccount) -> MarginAccount:
    """Return the account once its missing stops rest."""
    changes = stop_changes(account, STOPS)
    cancelled_cloids = [change.cloid for change in changes if isinstance(change, OrderCancel)]
    stops = [stop for stop in account.resting_stops if stop.cloid not in cancelled_cloids]
    for change in changes:
        if isinstance(change, StopOrder):
            price = Fraction(change.trigger_raw, abs(change.size_raw))
            stops.append(RestingStop(change.market, change.size_raw, price, f"{change.market} {change.size_raw} {float(price)}"))
    return replace(account, resting_stops=tuple(stops))


STOPPED = with_stops_placed(LONG)
[STOP] = STOPPED.resting_stops
CANCEL = OrderCancel("ETH", STOP.cloid)
SECOND = replace(STOP, cloid="0x02")


@pytest.mark.parametrize("account", [LONG, book(eth=-60_000), book(eth=60_000, btc=2_000), book(eth=60_000, btc=-2_000)])
def test_stop_changes_place_one_stop_ahead_of_each_liquidation(account: MarginAccount) -> None:
    changes = stop_changes(account, STOPS)

    assert [(change.market, change.size_raw) for change in changes if isinstance(change, StopOrder)] == [
        (position.market, -position.size_raw) for position in account.positions
    ]
    for position, stop in zip(account.positions, changes, strict=True):
        assert isinstance(stop, StopOrder)
        mark = account.market(position.market).mark
        trigger = Fraction(stop.trigger_raw, abs(stop.size_raw))
        distance = abs(trigger / mark - 1)
        assert (trigger < mark) is position.is_long
        assert not margin.is_liquidatable(margin.with_adverse_move(account, distance))
        assert margin.is_liquidatable(margin.with_adverse_move(account, distance + 2 * NEAR))
        assert (stop.bound_raw < stop.trigger_raw) is position.is_long
    assert stop_changes(with_stops_placed(account), STOPS) == ()


@given(st.integers(-80_000, 80_000).filter(lambda lots: abs(lots) > 100), st.integers(-4_000, 4_000), st.integers(-5, 5))
def test_stop_changes_keep_a_near_stop_and_place_none_twice(eth: int, btc: int, percent: int) -> None:
    account = margin.with_moved_marks(with_stops_placed(book(eth, btc, value=40_000)), {"ETH": Fraction(percent, 1_000)})
    position_by_market = {position.market: position for position in account.positions}

    for change in stop_changes(account, STOPS):
        if isinstance(change, StopOrder):
            trigger = stop_trigger(account, position_by_market[change.market], NEAR)
            assert trigger is not None
            old_prices = [stop.trigger_price for stop in account.resting_stops if stop.market == change.market]
            assert all(abs(price / trigger - 1) > NEAR / 2 for price in old_prices)
    assert stop_changes(with_stops_placed(account), STOPS) == ()


def paused(account: MarginAccount) -> MarginAccount:
    return replace(account, markets=tuple(replace(market, is_paused=True) for market in account.markets))


def moved(account: MarginAccount, share: Fraction) -> MarginAccount:
    return margin.with_moved_marks(account, {"ETH": share})


def with_index(account: MarginAccount, tenths: int) -> MarginAccount:
    """Return the account with an index of so many tenths of a dollar."""
    return replace(account, markets=tuple(replace(market, index=Fraction(tenths * 10**5, 10**4)) for market in account.markets))


TRIGGER = Fraction(136_770 * 100, 98)
"""Where the long of ETH stops: 54.41 % down, to the basis point, and 2 % ahead of it."""
LONG_STOP = StopOrder("ETH", -60_000, 8_373_673_470, 8_122_463_266)
SHORT_STOP = StopOrder("ETH", 60_000, 26_781_176_470, 27_584_611_764)


def with_stop_at(price: Fraction) -> MarginAccount:
    return replace(LONG, resting_stops=(RestingStop("ETH", -60_000, price, STOP.cloid),))


BEYOND = Fraction(1, 10**9)


@pytest.mark.parametrize(
    ("account", "policy", "changes"),
    [
        pytest.param(LONG, STOPS, [LONG_STOP], id="long, bound 3 % below"),
        pytest.param(book(eth=-60_000), STOPS, [SHORT_STOP], id="short, bound 3 % above"),
        pytest.param(book(), STOPS, [], id="no position"),
        pytest.param(replace(LONG, is_on_chain=True), STOPS, [], id="venue on a chain"),
        pytest.param(book(eth=1_000), STOPS, [], id="no liquidation"),
        pytest.param(book(eth=60_000, value=14_563), STOPS, [], id="further than four fifths"),
        pytest.param(replace(book(), resting_stops=(STOP,)), STOPS, [CANCEL], id="stop without a position"),
        pytest.param(STOPPED, POLICY, [CANCEL], id="stops off"),
        pytest.param(replace(STOPPED, resting_stops=(STOP, SECOND)), STOPS, [replace(CANCEL, cloid="0x02")], id="second of a position"),
        pytest.param(with_stop_at(TRIGGER * (1 + NEAR / 2)), STOPS, [], id="half the distance above"),
        pytest.param(with_stop_at(TRIGGER * (1 + NEAR / 2 + BEYOND)), STOPS, [LONG_STOP, CANCEL], id="more above"),
        pytest.param(with_stop_at(TRIGGER * (1 - NEAR / 2)), STOPS, [], id="half the distance below"),
        pytest.param(with_stop_at(TRIGGER * (1 - NEAR / 2 - BEYOND)), STOPS, [LONG_STOP, CANCEL], id="more below"),
        pytest.param(moved(LONG, Fraction(-54, 100)), STOPS, [], id="mark beyond the trigger"),
        pytest.param(book(eth=60_000, value=801), STOPS, [], id="mark at the trigger of a long"),
        pytest.param(book(eth=-60_000, value=818), STOPS, [], id="mark beyond the trigger of a short"),
        pytest.param(book(eth=-60_000, value=819), STOPS, [], id="mark at the trigger of a short"),
        pytest.param(with_index(LONG, 13_957), STOPS, [LONG_STOP], id="index above the trigger of a long"),
        pytest.param(with_index(LONG, 13_955), STOPS, [], id="index beyond the trigger of a long"),
        pytest.param(with_index(STOPPED, 13_955), STOPS, [], id="index beyond the trigger, stop kept"),
        pytest.param(with_index(book(eth=-60_000), 44_636), STOPS, [], id="index beyond the trigger of a short"),
        pytest.param(paused(LONG), STOPS, [], id="paused"),
        pytest.param(paused(STOPPED), STOPS, [], id="paused, stop kept"),
        pytest.param(paused(moved(STOPPED, Fraction(1, 5))), STOPS, [], id="paused after a rise"),
        pytest.param(paused(moved(STOPPED, Fraction(-52, 100))), STOPS, [], id="paused after a fall"),
        pytest.param(paused(moved(STOPPED, Fraction(-54, 100))), STOPS, [], id="paused beyond the trigger"),
        pytest.param(paused(replace(book(eth=50_000), resting_stops=(STOP,))), STOPS, [], id="paused, another size"),
        pytest.param(paused(replace(STOPPED, positions=())), STOPS, [CANCEL], id="paused without a position"),
    ],
)  # fmt: skip
def test_stop_changes_place_what_is_missing_and_cancel_the_rest(
    account: MarginAccount, policy: FuturesPolicy, changes: Sequence[RestingAction]
) -> None:
    assert stop_changes(account, policy) == tuple(changes)


def test_stop_changes_replace_a_stop_of_another_size() -> None:
    placed, cancelled = stop_changes(replace(book(eth=50_000), resting_stops=(STOP,)), STOPS)

    assert isinstance(placed, StopOrder)
    assert placed.size_raw == -50_000
    assert cancelled == CANCEL


def test_stop_changes_reach_four_fifths_from_the_mark() -> None:
    """The account survives a fall of 80.40 %; 2 % ahead of it is exactly 80 %."""
    [stop] = stop_changes(book(eth=60_000, value=14_561), STOPS)

    assert isinstance(stop, StopOrder)
    assert Fraction(stop.trigger_raw, 60_000) / ETH.mark == Fraction(1, 5)


@pytest.mark.parametrize(
    ("account", "trigger"),
    [
        pytest.param(LONG, TRIGGER, id="long"),
        pytest.param(book(eth=-60_000), Fraction(455_280 * 100, 102), id="short"),
        pytest.param(book(eth=-60_000, value=20_000), Fraction(38 * 10**9 * 100, 61_500 * 102), id="short that survives 100 %"),
        pytest.param(book(eth=60_000, value=200_000), None, id="no liquidation"),
    ],
)
def test_stop_trigger_is_ahead_of_the_nearer_liquidation_price(account: MarginAccount, trigger: Fraction | None) -> None:
    """18,000 on 10,000 survive 54.41 % down and 51.76 % up, to the basis point; on 20,000 the short is liquidated at 38,000 / 6.15."""
    assert stop_trigger(account, account.positions[0], NEAR) == trigger
