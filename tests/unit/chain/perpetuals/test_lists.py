"""Lists of markets and collaterals that the lens returns: read up to their bound, with whole addresses alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agent.chain.perpetuals import MAX_MARKETS, _address_words, _answer_address, _Unreadable

QUESTION: Any = SimpleNamespace(name="the list of markets")


def answer(*addresses: int, offset: int = 32, count: int | None = None) -> bytes:
    words = (offset, len(addresses) if count is None else count, *addresses)
    return b"".join(word.to_bytes(32, "big") for word in words)


@pytest.mark.parametrize("addresses", [(), (1,), (2**160 - 1, 2**159), tuple(range(1, MAX_MARKETS + 1))])
def test_a_list_of_addresses_up_to_the_bound_is_read(addresses: tuple[int, ...]) -> None:
    assert _address_words(QUESTION, answer(*addresses)) == addresses


@pytest.mark.parametrize(
    "data",
    [answer(2**160), answer(1, offset=64), answer(1, count=2), answer(*range(MAX_MARKETS + 1)), answer(count=2**255), b""],
    ids=["not an address", "offset", "too short", "too long", "huge", "empty"],
)
def test_any_other_answer_makes_the_account_unreadable(data: bytes) -> None:
    with pytest.raises(_Unreadable, match="the list of markets could not be read"):
        _address_words(QUESTION, data)


@pytest.mark.parametrize(("word", "is_address"), [(0, False), (1, True), (2**160 - 1, True), (2**160, False)])
def test_zero_and_more_than_160_bits_are_no_address(word: int, is_address: bool) -> None:
    assert (_answer_address(word.to_bytes(32, "big")) is not None) is is_address
