"""Paper orders of a futures venue: how much of an order its rules fill."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.model import SignedTx
from agent.paper.chain import NO_ACCOUNT_ANSWER
from agent.paper.order_venue import NOT_REDUCING_ANSWER, PaperHyperliquid, posted_order
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import book


class DeepBook:
    """Client of a venue with one market, whose book fills 100 coins at 2,000."""

    account_address = "0xaccount"

    def market_number(self, _coin: str) -> int:
        return 0

    def order_book_side(self, _coin: str, *, asks: bool) -> Sequence[tuple[Fraction, Fraction]]:
        return [(Fraction(2_000), Fraction(100))]


def filled(position: int, coins: str, *, is_buy: bool, is_reduce_only: bool) -> tuple[int, int] | str:
    """The fill of an order beside a position, and the position after it, in coins; or the venue's reason."""
    venue = PaperHyperliquid(cast(Any, None), cast(Any, DeepBook()), cast(Any, None), lambda: None)
    wire = {"a": 0, "b": is_buy, "s": coins, "p": "4000" if is_buy else "1000", "r": is_reduce_only, "c": "0x01"}
    result = venue._fill(book(50_000, position * E18), posted_order(wire))
    if isinstance(result, str):
        return result
    fill, account_after = result
    return fill.size_raw // E18, account_after.size_raw("ETH") // E18


@pytest.mark.parametrize(
    ("position", "coins", "size"),
    [
        pytest.param(3, "2", -2, id="part"),
        pytest.param(3, "3", -3, id="all"),
        pytest.param(3, "4", -3, id="more than all"),
        pytest.param(3, "90", -3, id="far more than all"),
        pytest.param(-3, "4", 3, id="short"),
    ],
)
def test_paper_reduction__closes_the_position_at_most(position: int, coins: str, size: int) -> None:
    assert filled(position, coins, is_buy=position < 0, is_reduce_only=True) == (size, position + size)


@pytest.mark.parametrize("position", [0, 3, -3])
def test_paper_reduction__that_would_open_is_rejected(position: int) -> None:
    assert filled(position, "1", is_buy=position >= 0, is_reduce_only=True) == NOT_REDUCING_ANSWER


def test_paper_opening__may_turn_a_position() -> None:
    assert filled(3, "4", is_buy=False, is_reduce_only=False) == (-4, -1)


def test_paper_orders__without_a_margin_account_are_rejected() -> None:
    store = SimpleNamespace(begun_wallet=lambda: SimpleNamespace(margin=None))
    venue = PaperHyperliquid(cast(Any, None), cast(Any, None), cast(Any, store), lambda: None)
    assert venue.post_orders(SignedTx(b'{"orders": []}', "0x01"), 2) == [NO_ACCOUNT_ANSWER] * 2
