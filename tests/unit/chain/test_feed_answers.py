"""Answers of a price feed as words: each number in its place, and one that does not fit is not read."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chain.lens import CallStatus, LensAnswer, int_word, uint_word
from agent.chain.watch import read_feed
from agent.model import FeedRound, UnreadableItem
from tests.support.builders import address

FEED = address("feed")


def answers(*round_words: int, decimals: int = 8, bounds: tuple[LensAnswer, LensAnswer] | None = None) -> list[LensAnswer]:
    words = round_words or (7, 2_000, 50, 60, 6)
    latest = b"".join(uint_word(word % 2**256) for word in words)
    return [uint_word(decimals), latest, *(bounds or (int_word(1), int_word(10**9)))]


def read(*round_words: int, **parts: Any) -> FeedRound | None:
    return read_feed(FEED, answers(*round_words, **parts))[0]


def test_a_round_is_read_word_by_word() -> None:
    assert read() == FeedRound(FEED, 8, 7, 2_000, 50, 60, 6, 1, 10**9)


def test_a_price_below_zero_keeps_its_sign() -> None:
    assert getattr(read(7, -5, 50, 60, 6), "answer", None) == -5


@pytest.mark.parametrize(
    ("position", "bits"), [(0, 80), (4, 80), (2, 64), (3, 64)], ids=["round", "round of the answer", "start", "update"]
)
def test_a_number_of_its_bits_is_read_and_of_a_bit_more_is_not(position: int, bits: int) -> None:
    words = [7, 2_000, 50, 60, 6]
    words[position] = 2**bits - 1
    assert read(*words) is not None
    words[position] = 2**bits
    assert read(*words) is None


@pytest.mark.parametrize(("decimals", "is_read"), [(255, True), (256, False)])
def test_decimals_of_more_than_8_bits_are_not_read(decimals: int, is_read: bool) -> None:
    assert (read(decimals=decimals) is not None) is is_read


@pytest.mark.parametrize(
    ("bounds", "limits"),
    [
        ((CallStatus.FAILED, CallStatus.FAILED), (None, None)),
        ((CallStatus.NO_CODE, CallStatus.NO_CODE), (None, None)),
        ((int_word(-5), int_word(-1)), (-5, -1)),
    ],
    ids=["without bounds", "without code", "below zero"],
)
def test_a_feed_s_bounds_are_none_or_keep_their_sign(bounds: tuple[LensAnswer, LensAnswer], limits: tuple[int | None, int | None]) -> None:
    latest = read(bounds=bounds)
    assert latest is not None
    assert (latest.min_answer, latest.max_answer) == limits


UNKNOWN_BOUNDS: dict[str, tuple[LensAnswer, CallStatus]] = {
    "out of gas": (CallStatus.UNREAD, CallStatus.UNREAD),
    "too long": (CallStatus.TOO_LONG, CallStatus.TOO_LONG),
    "empty": (b"", CallStatus.MALFORMED),
    "too short": (bytes(31), CallStatus.MALFORMED),
}


@pytest.mark.parametrize("is_least", [True, False], ids=["least", "largest"])
@pytest.mark.parametrize(("answer", "status"), UNKNOWN_BOUNDS.values(), ids=UNKNOWN_BOUNDS)
def test_a_feed_with_a_bound_that_is_unknown_is_not_read(answer: LensAnswer, status: CallStatus, is_least: bool) -> None:
    latest, unread = read_feed(FEED, answers(bounds=(answer, int_word(9)) if is_least else (int_word(1), answer)))
    assert latest is None
    name = f"{'least' if is_least else 'largest'} answer of feed"
    assert unread == (UnreadableItem(name, FEED, status.why),)


@pytest.mark.parametrize("position", [0, 1])
def test_a_feed_without_decimals_or_round_is_named_once(position: int) -> None:
    changed = answers()
    changed[position] = CallStatus.FAILED
    latest, unread = read_feed(FEED, changed)
    assert latest is None
    assert [item.why for item in unread] == [CallStatus.FAILED.why]
