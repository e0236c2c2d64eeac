"""Paper orders of a futures venue: how much of an order its rules fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.model import PaperMargin, PaperPosition, Position, SignedTx, VenuePayment
from agent.paper.chain import NO_ACCOUNT_ANSWER
from agent.paper.order_venue import NO_MARGIN_ANSWER, NOT_REDUCING_ANSWER, PaperHyperliquid, posted_order
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import book


class DeepBook:
    """Client of a venue with one market, whose book fills 100 coins at a price."""

    account_address = "0xaccount"

    def __init__(self, price: Fraction = Fraction(2_000)) -> None:
        self.price = price

    def market_number(self, _coin: str) -> int:
        return 0

    def order_book_side(self, _coin: str, *, asks: bool) -> Sequence[tuple[Fraction, Fraction]]:
        return [(self.price, Fraction(100))]


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


@pytest.mark.parametrize(("profit", "is_filled"), [(20_000, True), (500, False)], ids=["enough", "too little"])
def test_paper_opening__needs_the_account_value_alone(profit: int, is_filled: bool) -> None:
    """Realised losses leave 100 of 50,000; the rest is the open profit of 3 ETH at 2,000."""
    price = Fraction(2_000, 10**12)
    markets = tuple(replace(perp, mark=price, index=price) for perp in book(0).markets)
    position = Position("ETH", 3 * E18, (profit - 6_000) * 10**6)
    account = replace(
        book(0), collateral_raw=50_000 * 10**6, realised_raw=-49_900 * 10**6, positions=(position,), markets=markets, initial_on_debt=False
    )
    venue = PaperHyperliquid(cast(Any, None), cast(Any, DeepBook()), cast(Any, None), lambda: None)
    wire = {"a": 0, "b": True, "s": "5", "p": "4000", "r": False, "c": "0x01"}
    assert (venue._fill(account, posted_order(wire)) != NO_MARGIN_ANSWER) is is_filled


def test_paper_account__has_no_isolated_position_of_the_real_one() -> None:
    real_account = replace(book(50_000), isolated_markets=("ETH",), unknown_row_kinds=("gift",))
    venue = PaperHyperliquid(cast(Any, None), cast(Any, DeepBook()), cast(Any, None), lambda: None)
    paper_account = venue._account(real_account, PaperMargin(10**9, 0, ()))
    assert (paper_account.isolated_markets, paper_account.unknown_row_kinds) == ((), ())


@pytest.mark.parametrize(
    ("is_buy", "quote_raw", "fee_raw"), [(True, -2_000_000_001, 2_000_001), (False, 2_000_000_000, 2_000_000)], ids=["buy", "sale"]
)
def test_paper_fill__is_rounded_against_the_account(is_buy: bool, quote_raw: int, fee_raw: int) -> None:
    """A coin costs 2,000 and a third of the quote's last place, and the fee is 1 ‰."""
    client = DeepBook(2_000 + Fraction(1, 3 * 10**6))
    venue = PaperHyperliquid(cast(Any, None), cast(Any, client), cast(Any, None), lambda: None)
    wire = {"a": 0, "b": is_buy, "s": "1", "p": "4000" if is_buy else "1000", "r": False, "c": "0x01"}
    fill = venue._match(book(50_000), "ETH", posted_order(wire))
    assert fill is not None
    assert (fill.quote_raw, fill.fee_raw) == (quote_raw, fee_raw)


def test_paper_funding__counts_once_from_what_is_booked() -> None:
    periods: list[tuple[str, int, int]] = []

    def funding_rates(*period: Any) -> list[tuple[int, Fraction]]:
        periods.append(period)
        return [(7_200_000, Fraction(1, 1_000))]

    client = SimpleNamespace(funding_rates=funding_rates, price_before=lambda *_: Fraction(2_000))
    venue = PaperHyperliquid(cast(Any, None), cast(Any, client), cast(Any, None), lambda: 50)
    position = PaperPosition("ETH", E18, 0, 0, settled_s=3_600)
    payments = (VenuePayment("ETH", 50, 1), VenuePayment("ETH", 51, 2))
    after = venue._with_funding(PaperMargin(0, 0, (position,), payments), book(50_000, index_s=9_000))
    assert periods == [("ETH", 3_600_999, 9_000_000)], "after the second of the last payment"
    assert [payment.at_s for payment in after.payments] == [51, 7_200]
    assert after.positions == (replace(position, settled_s=7_200),)


def test_paper_orders__without_a_margin_account_are_rejected() -> None:
    store = SimpleNamespace(begun_wallet=lambda: SimpleNamespace(margin=None))
    venue = PaperHyperliquid(cast(Any, None), cast(Any, None), cast(Any, store), lambda: None)
    assert venue.post_orders(SignedTx(b'{"orders": []}', "0x01"), 2) == [NO_ACCOUNT_ANSWER] * 2
