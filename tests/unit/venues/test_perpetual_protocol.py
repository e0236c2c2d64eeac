"""Tests of agent/venues/perpetual_protocol.py: the quote of an order."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from agent.chain.lens import abi_encode, uint_word
from agent.errors import Refused, Retryable
from agent.model.futures import PerpOrder, PerpOrderKind, PerpQuote
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, quote_order
from tests.support.perpetuals.accounts import E18

SIZE = 4 * E18
ORDER = PerpOrder("0x" + "1" * 40, SIZE, PerpOrderKind.MARKET, 8_160 * E18, False)
CONTRACTS = PerpetualProtocolAddresses("0x" + "2" * 40, "", "", "0x" + "3" * 40)
DELEGATE = "0x" + "4" * 40


@pytest.mark.parametrize("filled_raw", [SIZE // 2, SIZE - 1], ids=["half", "a unit less"])
def test_quote_order_refuses_a_partial_fill(filled_raw: int) -> None:
    answer = "0x" + abi_encode(["uint256", "uint256"], [filled_raw, 4_020 * E18]).hex()
    transport: Any = SimpleNamespace(call=lambda *_question: answer)
    with pytest.raises(Refused, match=f"fills {filled_raw} of {SIZE}"):
        quote_order(transport, ORDER, CONTRACTS, CONTRACTS.trader, 1)


@pytest.mark.parametrize(
    ("sender", "words", "is_read"),
    [
        pytest.param(CONTRACTS.trader, (SIZE, 7), True, id="owner"),
        pytest.param(DELEGATE, (SIZE, 7, 1), True, id="delegate"),
        pytest.param(CONTRACTS.trader, (SIZE, 7, 1), False, id="a word too many"),
        pytest.param(DELEGATE, (SIZE, 7), False, id="a word too few"),
    ],
)
def test_quote_order__reads_the_words_of_its_function(sender: str, words: tuple[int, ...], is_read: bool) -> None:
    """ClearingHouse.openPosition returns base and quote, openPositionFor a fee after them."""
    transport: Any = SimpleNamespace(call=lambda *_question: "0x" + b"".join(map(uint_word, words)).hex())
    with nullcontext() if is_read else pytest.raises(Retryable, match="words"):
        assert quote_order(transport, ORDER, CONTRACTS, sender, 1) == PerpQuote(SIZE, 7)
