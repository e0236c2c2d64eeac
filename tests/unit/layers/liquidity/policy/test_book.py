"""The book of wallet and positions: what each move with liquidity leaves, to the base unit."""

from __future__ import annotations

from collections.abc import Mapping

from agent.amm.lp import position_changes, positions
from agent.layers.liquidity.policy.book import PositionBook
from agent.model import LpV3Position
from tests.support.lp_worlds import USDC, WETH, book, ranged, v3_at, wanted, world

PLACE = ranged(2_000, 1_800, 2_200, owed=(10**7, 10**15), core_owed=(10**7, 10**15))
PAIR = (v3_at().token0, v3_at().token1)


def opened() -> PositionBook:
    return book(world([PLACE], [wanted(1_000)]))


def moved(before: PositionBook, after: PositionBook) -> tuple[int, int]:
    """Change of the wallet, in the order of the pool's tokens."""
    first, second = (after.wallet_raw_by_token[token] - before.wallet_raw_by_token[token] for token in PAIR)
    return first, second


def doubt(unsure: Mapping[str, int]) -> tuple[int, int]:
    return unsure.get(PAIR[0], 0), unsure.get(PAIR[1], 0)


def test_taken_out_liquidity__brings_all_fees_and_sure_minimums() -> None:
    start = opened()
    ((position_state, position),) = start.position_states
    assert isinstance(position, LpV3Position)
    half = position.liquidity // 2
    paid = positions.principal(position, half)
    fees = positions.uncollected_fees(position)
    assert min(*paid, *fees) > 0
    after = start.after_withdrawal(position_state, half, (paid[0] - 3, paid[1] - 5))
    assert moved(start, after) == (paid[0] + fees[0], paid[1] + fees[1])
    assert doubt(after.uncertain_raw_by_token) == (3, 5)
    assert after.position_state_of(position_state) == position_changes.after_withdrawal(position, half)
    again = after.after_withdrawal(position_state, 1, (0, 0))
    rest = positions.principal(position_changes.after_withdrawal(position, half), 1)
    assert doubt(again.uncertain_raw_by_token) == (3 + rest[0], 5 + rest[1])


def test_collected_fees_are_sure() -> None:
    start = opened()
    ((position_state, position),) = start.position_states
    after = start.after_collection(position_state)
    assert moved(start, after) == positions.uncollected_fees(position)
    assert doubt(after.uncertain_raw_by_token) == (0, 0)


def test_what_is_put_in_or_minted_leaves_the_wallet_to_the_unit() -> None:
    start = opened()
    ((position_state, position),) = start.position_states
    put = start.after_provision(position_state, 10, (7, 9))
    assert moved(start, put) == (-7, -9)
    assert doubt(put.uncertain_raw_by_token) == (0, 0)
    assert isinstance(position, LpV3Position)
    minted = start.after_mint(wanted(1_000), position, (7, 9))
    assert moved(start, minted) == (-7, -9)
    assert doubt(minted.uncertain_raw_by_token) == (0, 0)
    assert len(minted.position_states) == 2
    assert {WETH.address, USDC.address} == set(PAIR)
