"""Tests of agent/layers/futures/policy/books.py: net exposure, the share that all openings have in common, and goals of a set."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.books import (
    common_share,
    completes_set,
    goals_after,
    is_two_sided,
    net_exposure,
    orders_to_goals,
)
from agent.layers.futures.policy.targets import target_gross_notional
from agent.model.futures import Hedge, MarginAccount, PerpOrder, PerpOrderKind
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, TWO, wide_book


def buy(name: str, lots: int, *, is_reduce_only: bool = False) -> PerpOrder:
    return PerpOrder(name, lots * LOT, PerpOrderKind.MARKET, 1, is_reduce_only)


def sizes_of(**lots: int) -> dict[str, int]:
    """Return sizes by market in base units."""
    return {name: size * LOT for name, size in lots.items()}


# --- Net exposure


@pytest.mark.parametrize(("btc", "is_off"), [(-234, False), (-233, True), (-301, True)], ids=["within", "a lot above", "below"])
def test_net_exposure_is_off_target_beyond_the_band(btc: int, is_off: bool) -> None:
    """12,000 of ETH less 6,990 of BTC are 1,010 above the target of 4,000; the band is 1,000."""
    exposure = net_exposure(wide_book(ETH=6_000, BTC=btc), TWO)

    assert (exposure.notional, exposure.target_notional, exposure.band) == (12_000 * E18 + btc * 30 * E18, 4_000 * E18, 1_000 * E18)
    assert exposure.is_off_target is is_off


def test_net_exposure_at_the_band_is_on_target() -> None:
    exposure = net_exposure(wide_book(ETH=2_500), TWO)

    assert exposure.notional - exposure.target_notional == exposure.band
    assert not exposure.is_off_target


@pytest.mark.parametrize(
    ("band_bps", "leverage_band_bps", "share_bps"),
    [
        pytest.param(500, 1_000, 500, id="wider leverage band"),
        pytest.param(1_000, 500, 1_000, id="wider weight band"),
        pytest.param(0, 700, 700, id="no weight band"),
        pytest.param(0, 0, 0, id="no bands"),
    ],
)
def test_net_exposure_band_is_that_of_weights_else_of_leverage(band_bps: int, leverage_band_bps: int, share_bps: int) -> None:
    policy = replace(TWO, band_bps=band_bps, leverage_band_bps=leverage_band_bps)

    assert net_exposure(wide_book(), policy).band == target_gross_notional(wide_book(), policy) * share_bps / 10_000


# --- The share of all openings

WANTED = sizes_of(ETH=6_000, BTC=-266)
"""12,000 bought and 7,980 sold: 4,020 net, where 4,000 are the target and 1,000 the band."""
LONGS = sizes_of(ETH=6_000, BTC=266)


@pytest.mark.parametrize(
    ("margin_account", "wanted_sizes", "possible_sizes", "share"),
    [
        pytest.param(wide_book(), WANTED, WANTED, Fraction(1), id="whole"),
        pytest.param(wide_book(), WANTED, sizes_of(ETH=3_000, BTC=-133), Fraction(1), id="halves"),
        pytest.param(wide_book(), WANTED, sizes_of(ETH=3_000, BTC=-266), Fraction(1, 2), id="half of one"),
        pytest.param(wide_book(), WANTED, sizes_of(ETH=6_000), Fraction(0), id="one alone"),
        pytest.param(wide_book(), WANTED, sizes_of(ETH=6_000, BTC=-233), Fraction(1), id="missing within the band"),
        pytest.param(wide_book(), WANTED, sizes_of(ETH=6_000, BTC=-232), Fraction(232, 266), id="missing beyond the band"),
        pytest.param(wide_book(), WANTED, {}, Fraction(1), id="none possible"),
        pytest.param(wide_book(), {}, {}, Fraction(1), id="nothing wanted"),
        pytest.param(wide_book(), LONGS, sizes_of(ETH=6_000), Fraction(1), id="one of two longs"),
        pytest.param(wide_book(ETH=5_000), sizes_of(ETH=1_000, BTC=-266), sizes_of(BTC=-266), Fraction(1), id="short that lowers the net"),
        pytest.param(wide_book(ETH=5_000), sizes_of(ETH=1_000, BTC=-266), sizes_of(ETH=1_000), Fraction(0), id="long that raises it"),
        pytest.param(wide_book(SOL=20_000), WANTED, sizes_of(ETH=4_478, BTC=-198), Fraction(1), id="a lot beyond with what is held"),
        pytest.param(wide_book(SOL=20_000), WANTED, sizes_of(ETH=4_478, BTC=-197), Fraction(197, 266), id="two lots beyond"),
        pytest.param(wide_book(SOL=30_000), WANTED, sizes_of(ETH=4_478, BTC=-197), Fraction(2_000, 4_020), id="room of 2,000"),
        pytest.param(wide_book(SOL=60_000), WANTED, sizes_of(ETH=3_000, BTC=-132), Fraction(0), id="no room"),
        pytest.param(wide_book(SOL=60_000), WANTED, sizes_of(ETH=3_000, BTC=-133), Fraction(0), id="no room for exact halves"),
        pytest.param(wide_book(SOL=40_000), WANTED, sizes_of(ETH=3_000, BTC=-133), Fraction(1_000, 4_020), id="room for less than halves"),
        pytest.param(wide_book(SOL=-60_000), sizes_of(ETH=-6_000, BTC=266), sizes_of(ETH=-3_000, BTC=133), Fraction(0), id="shorts"),
        pytest.param(wide_book(SOL=40_000), WANTED, WANTED, Fraction(1_000, 4_020), id="whole beyond with what is held"),
    ],
)
def test_common_share_is_the_smallest_or_what_the_net_allows(
    margin_account: MarginAccount, wanted_sizes: dict[str, int], possible_sizes: dict[str, int], share: Fraction
) -> None:
    assert common_share(margin_account, TWO, wanted_sizes, possible_sizes) == share


@pytest.mark.parametrize("possible_sizes", [sizes_of(ETH=6_000), sizes_of(ETH=6_000, BTC=0)], ids=["absent", "of nothing"])
def test_common_share_beside_a_hedge_counts_no_short_of_it(possible_sizes: dict[str, int]) -> None:
    """The short of a hedge is no part of the net exposure that an opening may lower."""
    policy = replace(TWO, hedges=(Hedge("SOL", "", -200_000 * LOT, 0, Fraction(0)),))

    assert common_share(wide_book(SOL=-200_000), policy, WANTED, possible_sizes) == 0


# --- Goals of a set


@pytest.mark.parametrize(
    ("orders", "is_set"),
    [
        pytest.param([buy("ETH", 1), buy("BTC", -1)], True, id="long and short"),
        pytest.param([buy("ETH", 1), buy("BTC", 1)], False, id="two longs"),
        pytest.param([buy("ETH", 1), buy("BTC", -1, is_reduce_only=True)], False, id="long beside a reduction"),
        pytest.param([], False, id="none"),
    ],
)
def test_two_sided_are_openings_that_buy_and_sell(orders: list[PerpOrder], is_set: bool) -> None:
    assert is_two_sided(orders) is is_set


@pytest.mark.parametrize(
    ("orders", "goals"),
    [
        pytest.param([buy("ETH", 50), buy("BTC", -3)], (("ETH", 150 * LOT), ("BTC", -3 * LOT)), id="two orders"),
        pytest.param([buy("ETH", 50)], (), id="one order"),
        pytest.param([], (), id="none"),
    ],
)
def test_goals_are_the_sizes_after_more_than_one_order(orders: list[PerpOrder], goals: tuple[tuple[str, int], ...]) -> None:
    assert goals_after(wide_book(ETH=100), orders) == goals


@pytest.mark.parametrize(
    ("position", "goal", "order", "size"),
    [
        pytest.param(100, 150, 49, 49, id="less than the goal"),
        pytest.param(100, 150, 50, 50, id="to the goal"),
        pytest.param(100, 150, 51, 50, id="beyond it"),
        pytest.param(100, 150, -1, 0, id="away from it"),
        pytest.param(-100, -150, -51, -50, id="short beyond it"),
        pytest.param(95, 100, 5, 0, id="a twentieth lacks"),
        pytest.param(94, 100, 6, 6, id="more than a twentieth"),
        pytest.param(-189, -200, -11, -11, id="more than a twentieth of a short"),
        pytest.param(-192, -200, -8, 0, id="less of a short"),
        pytest.param(1, 0, -1, -1, id="of a close"),
        pytest.param(0, 1, 1, 1, id="of one lot"),
    ],
)
def test_orders_to_goals_end_at_them_unless_they_are_reached(position: int, goal: int, order: int, size: int) -> None:
    """The rest of an old set, some dollars, would take each later drift past plan_cost with it."""
    margin_account = wide_book(ETH=position)
    goals = (("ETH", goal * LOT), ("BTC", -3 * LOT))
    orders = [buy("ETH", order)]

    assert orders_to_goals(margin_account, orders, goals) == ({"ETH": size * LOT} if size else {})
    assert completes_set(margin_account, orders, goals) is (size == order)


GOALS = (("ETH", 150 * LOT), ("BTC", -3 * LOT))


@pytest.mark.parametrize(
    ("orders", "completes"),
    [
        pytest.param([buy("ETH", 50), buy("SOL", -1, is_reduce_only=True)], True, id="beside a reduction"),
        pytest.param([buy("ETH", 50), buy("SOL", 1)], False, id="beside another market"),
        pytest.param([buy("SOL", -1, is_reduce_only=True)], False, id="reduction alone"),
        pytest.param([], False, id="none"),
    ],
)
def test_set_is_completed_by_orders_to_its_goals_alone(orders: list[PerpOrder], completes: bool) -> None:
    assert completes_set(wide_book(ETH=100), orders, GOALS) is completes
