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
    latest = read(7, -5, 50, 60, 6)
    assert latest is not None
    assert latest.answer == -5


@pytest.mark.parametrize("position", [0, 4])
def test_a_round_number_of_80_bits_is_read_and_one_of_81_is_not(position: int) -> None:
    words = [7, 2_000, 50, 60, 6]
    words[position] = 2**80 - 1
    assert read(*words) is not None
    words[position] = 2**80
    assert read(*words) is None


@pytest.mark.parametrize("position", [2, 3])
def test_a_time_of_64_bits_is_read_and_one_of_65_is_not(position: int) -> None:
    words = [7, 2_000, 50, 60, 6]
    words[position] = 2**64 - 1
    assert read(*words) is not None
    words[position] = 2**64
    assert read(*words) is None


@pytest.mark.parametrize(("decimals", "is_read"), [(255, True), (256, False)])
def test_decimals_of_more_than_8_bits_are_not_read(decimals: int, is_read: bool) -> None:
    assert (read(decimals=decimals) is not None) is is_read


@pytest.mark.parametrize("status", [CallStatus.FAILED, CallStatus.NO_CODE])
def test_a_feed_without_bounds_is_read_without_them(status: CallStatus) -> None:
    latest = read(bounds=(status, status))
    assert latest is not None
    assert (latest.min_answer, latest.max_answer) == (None, None)


def test_bounds_below_zero_keep_their_sign() -> None:
    latest = read(bounds=(int_word(-5), int_word(-1)))
    assert latest is not None
    assert (latest.min_answer, latest.max_answer) == (-5, -1)


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
