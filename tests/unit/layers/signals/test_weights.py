"""Tests of agent/layers/signals/weights.py: weights in bps from the answer of a signal."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import Refused
from agent.layers.signals.weights import signal_weights
from agent.model.weights import SignalAnswer
from agent.weights.allocators import UnroundedWeights

TOKENS = ("A", "B")
LABELS = {"A": "WETH", "B": "WBTC"}


def weights_of(
    answer: SignalAnswer | None, low_bps: tuple[int, int] = (0, 0), high_bps: tuple[int, int] = (8_000, 8_000)
) -> UnroundedWeights:
    """Return the weights of two tokens that share 80 %, within these bounds."""
    bounds = SimpleNamespace(tokens=TOKENS, low_bps=low_bps, high_bps=high_bps, total_bps=8_000)
    inputs = SimpleNamespace(signal_answer=answer, label_by_token=LABELS)
    return signal_weights(cast(Any, None), cast(Any, bounds), cast(Any, inputs))


def spot(weight_a_ppm: int, weight_b_ppm: int) -> SignalAnswer:
    return SignalAnswer("mine", "", spot_ppm=(("A", weight_a_ppm), ("B", weight_b_ppm)))


@pytest.mark.parametrize(
    ("ppm", "shares_bps"),
    [
        pytest.param((500_000, 500_000), (4_000, 4_000), id="halves"),
        pytest.param((250_000, 750_000), (2_000, 6_000), id="a quarter"),
        pytest.param((500_000, 500_100), (Fraction(4_000_000_000, 1_000_100), Fraction(4_000_800_000, 1_000_100)), id="0.01 % too much"),
    ],
)
def test_spot_weights_share_the_free_part(ppm: tuple[int, int], shares_bps: tuple[Fraction, Fraction]) -> None:
    assert weights_of(spot(*ppm)).shares_bps == shares_bps


def test_spot_weights_may_be_at_both_bounds() -> None:
    assert weights_of(spot(500_000, 500_000), (4_000, 0), (4_000, 8_000)).shares_bps == (4_000, 4_000)


@pytest.mark.parametrize(
    ("low_bps", "high_bps", "reason"),
    [
        pytest.param(4_001, 8_000, "WETH 40.00 % is not within 40.01 to 80 %", id="below the lower bound"),
        pytest.param(0, 3_999, "WETH 40.00 % is not within 0 to 39.99 %", id="above the upper bound"),
    ],
)
def test_spot_weights_beyond_a_bound_are_refused(low_bps: int, high_bps: int, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        weights_of(spot(500_000, 500_000), (low_bps, 0), (high_bps, 8_000))


@pytest.mark.parametrize(
    ("market_ppm", "market_bps"),
    [
        pytest.param((("ETH", 600_000), ("BTC", -400_000)), (("ETH", 6_000), ("BTC", -4_000)), id="long and short"),
        pytest.param((("ETH", 333_333), ("BTC", -666_667)), (("ETH", 3_333), ("BTC", -6_667)), id="rounded together"),
        pytest.param((("ETH", 500_050), ("BTC", -500_050)), (("ETH", 5_000), ("BTC", -5_000)), id="0.01 % too much"),
        pytest.param((("ETH", 0), ("BTC", 0)), (("ETH", 0), ("BTC", 0)), id="none"),
    ],
)
def test_market_weights_sum_to_the_whole_at_most(market_ppm: tuple[tuple[str, int], ...], market_bps: tuple[tuple[str, int], ...]) -> None:
    weights = weights_of(SignalAnswer("mine", "", market_ppm=market_ppm))

    assert weights.market_bps == market_bps
    assert weights.shares_bps == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(None, "the signal was not run", id="not run"),
        pytest.param(SignalAnswer("mine", "", why="it raised"), "signal mine: it raised", id="failed"),
    ],
)
def test_weights_need_an_answer(answer: SignalAnswer | None, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        weights_of(answer)
