"""Shares within bounds, and as whole basis points: they sum exactly, keep their bounds, and do not depend on the order."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.units import BPS, bounded_bps, proportional_shares

Case = tuple[list[Fraction], list[int], list[int], int]
PARTS = st.lists(st.fractions(min_value=Fraction(1, 1000), max_value=1000), min_size=1, max_size=8)


@st.composite
def bounded(draw: st.DrawFn) -> Case:
    """What is wanted, with bounds that some shares fit."""
    parts = draw(PARTS)
    low = [draw(st.integers(0, 800)) for _ in parts]
    high = [least + draw(st.integers(0, BPS)) for least in low]
    return parts, low, high, draw(st.integers(sum(low), max(sum(low), min(sum(high), BPS))))


@given(bounded())
def test_shares__sum_keep_bounds_and_are_in_proportion(
    case: Case,
) -> None:
    parts, low, high, total = case
    shares = proportional_shares(parts, low, high, total)
    assert sum(shares) == total
    assert all(a <= share <= b for share, a, b in zip(shares, low, high, strict=True))
    scales = {share / part for share, part, a, b in zip(shares, parts, low, high, strict=True) if a < share < b}
    assert len(scales) <= 1
    for scale in scales:  # a bound holds only those that the common scale would carry beyond it
        assert all(part * scale >= share for share, part, a, b in zip(shares, parts, low, high, strict=True) if share == b > a)
        assert all(part * scale <= share for share, part, a, b in zip(shares, parts, low, high, strict=True) if share == a < b)


@given(bounded())
def test_basis_points__sum_exactly_within_one_of_the_share(case: Case) -> None:
    parts, low, high, total = case
    shares = proportional_shares(parts, low, high, total)
    bps_shares = bounded_bps(shares, low, high, total)
    assert sum(bps_shares) == total
    assert all(a <= bps <= b for bps, a, b in zip(bps_shares, low, high, strict=True))
    assert all(abs(bps - share) < 1 for bps, share in zip(bps_shares, shares, strict=True))


@given(bounded(), st.randoms(use_true_random=False))
def test_shares_do_not_depend_on_the_order_of_the_assets(case: Case, shuffle: object) -> None:
    parts, low, high, total = case
    order = list(range(len(parts)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]  # hypothesis hands in a random.Random
    plain = proportional_shares(parts, low, high, total)
    assert proportional_shares([parts[i] for i in order], [low[i] for i in order], [high[i] for i in order], total) == [
        plain[i] for i in order
    ]


def test_what_a_cap_cuts_off_goes_to_the_others_in_proportion() -> None:
    shares = proportional_shares([Fraction(70), Fraction(20), Fraction(10)], [0, 0, 0], [4_000, BPS, BPS], BPS)
    assert shares == [4_000, 4_000, 2_000]
    again = proportional_shares([Fraction(70), Fraction(20), Fraction(10)], [0] * 3, [4_000] * 3, BPS)  # then the next is capped, too
    assert again == [4_000, 4_000, 2_000]


def test_an_error_of_rounding_beyond_a_bound_is_cut_off() -> None:
    assert bounded_bps([Fraction(40_000_001, 10_000), Fraction(59_999_999, 10_000)], [0, 0], [4_000, BPS], BPS) == [4_000, 6_000]
    assert bounded_bps([Fraction(-1, 10**9), BPS + Fraction(1, 10**9)], [0, 0], [BPS, BPS], BPS) == [0, BPS]


@pytest.mark.parametrize(
    ("low", "high", "total"),
    [
        pytest.param([5_000, 6_000], [BPS, BPS], BPS, id="least above a whole"),
        pytest.param([0, 0], [4_000, 5_000], BPS, id="most below a whole"),
    ],
)
def test_bounds_that_nothing_fits_are_refused(low: list[int], high: list[int], total: int) -> None:
    with pytest.raises(ValueError, match="no shares"):
        proportional_shares([Fraction(1), Fraction(1)], low, high, total)
    with pytest.raises(ValueError, match="no shares"):
        bounded_bps([Fraction(total, 2)] * 2, low, high, total)


def test_nothing_wanted_fills_no_room() -> None:
    with pytest.raises(ValueError, match="the wanted shares cannot reach the total"):
        proportional_shares([Fraction(0), Fraction(1)], [0, 0], [BPS, 4_000], BPS)
