"""The book of wallet and positions: what each move with liquidity leaves, to the base unit."""

from __future__ import annotations

from collections.abc import Mapping

from agent.amm.lp import positions as change
from agent.amm.lp import positions as exact
from agent.model import LpV3Position
from agent.policy.liquidity.book import Book
from tests.lp_worlds import USDC, WETH, book, ranged, v3_at, wanted, world

PLACE = ranged(2_000, 1_800, 2_200, owed=(10**7, 10**15), core_owed=(10**7, 10**15))
PAIR = (v3_at().token0, v3_at().token1)


def opened() -> Book:
    return book(world([PLACE], [wanted(1_000)]))


def moved(before: Book, after: Book) -> tuple[int, int]:
    """Change of the wallet, in the order of the pool's tokens."""
    first, second = (after.held[token] - before.held[token] for token in PAIR)
    return first, second


def doubt(unsure: Mapping[str, int]) -> tuple[int, int]:
    return unsure.get(PAIR[0], 0), unsure.get(PAIR[1], 0)


def test_what_is_taken_out_comes_with_all_fees_and_its_minimums_are_sure() -> None:
    start = opened()
    ((one, position),) = start.pairs
    assert isinstance(position, LpV3Position)
    half = position.liquidity // 2
    paid, fees = exact.principal(position, half), exact.uncollected(position)
    assert min(*paid, *fees) > 0
    after = start.taken(one, half, (paid[0] - 3, paid[1] - 5))
    assert moved(start, after) == (paid[0] + fees[0], paid[1] + fees[1])
    assert doubt(after.unsure) == (3, 5)
    assert after.at(one) == change.taken_out(position, half)
    again = after.taken(one, 1, (0, 0))
    rest = exact.principal(change.taken_out(position, half), 1)
    assert doubt(again.unsure) == (3 + rest[0], 5 + rest[1])


def test_collected_fees_are_sure() -> None:
    start = opened()
    ((one, position),) = start.pairs
    after = start.collected(one)
    assert moved(start, after) == exact.uncollected(position) and doubt(after.unsure) == (0, 0)


def test_what_is_put_in_or_minted_leaves_the_wallet_to_the_unit() -> None:
    start = opened()
    ((one, position),) = start.pairs
    put = start.put(one, 10, (7, 9))
    assert moved(start, put) == (-7, -9) and doubt(put.unsure) == (0, 0)
    assert isinstance(position, LpV3Position)
    minted = start.minted(wanted(1_000), position, (7, 9))
    assert moved(start, minted) == (-7, -9) and doubt(minted.unsure) == (0, 0)
    assert len(minted.pairs) == 2 and {WETH.address, USDC.address} == set(PAIR)
