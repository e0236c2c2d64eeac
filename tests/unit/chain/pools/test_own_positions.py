"""Positions that somebody else sent to the wallet: what is listed, what is left out, and how many are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agent.chain.lens import PAGE_FORMAT, uint_word
from agent.chain.pools.own_positions import MAX_CHECKED_TOKENS, UnsolicitedPosition, UnsolicitedPositions, find_unsolicited_positions
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.model import ConfirmedPosition
from tests.support.builders import address
from tests.support.fakes.transport import ScriptedTransport

OWNER, MANAGER, TOKEN0, TOKEN1 = (address(name) for name in ("owner", "manager", "token 0", "token 1"))
PAIR_A = PoolRef(address("pair a"), "uniswap_v2", V2Reader(), TOKEN0, TOKEN1, 3_000)
PAIR_B = PoolRef(address("pair b"), "sushi", V2Reader(), TOKEN1, TOKEN0, 3_000)
POOL = PoolRef(address("pool"), "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, 10)
FAILED = None


def lens_of(*answers: Sequence[bytes | None]) -> ScriptedTransport:
    """Return a node that answers each request to the lens with the next list of answers."""
    pages = iter(["0x" + (bytes([PAGE_FORMAT]) + b"".join(map(encoded, page))).hex() for page in answers])
    return ScriptedTransport(eth_call=lambda _params: next(pages))


def encoded(answer: bytes | None) -> bytes:
    return b"\1" if answer is FAILED else b"\0" + len(answer).to_bytes(2, "big") + answer


def words(*raws: int | None) -> list[bytes | None]:
    return [FAILED if raw is None else uint_word(raw) for raw in raws]


def position(liquidity: int, token0: str = TOKEN0, token1: str = TOKEN1, upper_bits: int = 0) -> bytes:
    """NonfungiblePositionManager.positions: twelve words, of which the third and fourth are the tokens and the eighth the liquidity."""
    words = [1, 2, int(token0, 16) + upper_bits, int(token1, 16) + upper_bits, 5, 6, 7, liquidity, 9, 10, 11, 12]
    return b"".join(map(uint_word, words))


def listed(
    lens: ScriptedTransport, *pools: PoolRef, manager: str | None = MANAGER, confirmed: Sequence[ConfirmedPosition] = ()
) -> UnsolicitedPositions:
    return find_unsolicited_positions(lens, OWNER, manager, pools, confirmed, "latest")


def names(positions: UnsolicitedPositions) -> list[tuple[str, int]]:
    return [(unsolicited.contract, unsolicited.liquidity) for unsolicited in positions.positions]


def test_pair__one_base_unit_of_its_token_is_listed() -> None:
    unsolicited = UnsolicitedPosition(f"uniswap_v2 {PAIR_A.address}", PAIR_A.address, None, (TOKEN0, TOKEN1), 1)
    assert listed(lens_of(words(1, 0)), PAIR_A) == UnsolicitedPositions((unsolicited,), 0)


@pytest.mark.parametrize(
    ("balances", "expected"),
    [
        ((3, 4, 0), [(PAIR_A.address, 3), (PAIR_B.address, 4)]),
        ((0, 4, 0), [(PAIR_B.address, 4)]),
        ((None, 4, 0), [(PAIR_B.address, 4)]),
        ((3, None, None), [(PAIR_A.address, 3)]),
    ],
)
def test_pairs__each_balance_is_that_of_its_pair(balances: tuple[int | None, ...], expected: list[tuple[str, int]]) -> None:
    assert names(listed(lens_of(words(*balances)), PAIR_A, POOL, PAIR_B)) == expected


def test_pairs__without_a_manager_the_last_balance_is_a_pair_s() -> None:
    lens = lens_of(words(3, 4))
    positions = listed(lens, PAIR_A, PAIR_B, manager=None)
    assert (names(positions), positions.unchecked_count, lens.request_count) == ([(PAIR_A.address, 3), (PAIR_B.address, 4)], 0, 1)


def test_manager__its_token_is_listed_with_tokens_and_liquidity() -> None:
    expected = UnsolicitedPosition("uniswap_v3 #42", MANAGER, 42, (TOKEN1, TOKEN0), 8)
    lens = lens_of(words(1), words(42), [position(8, TOKEN1, TOKEN0)])
    assert listed(lens, POOL) == UnsolicitedPositions((expected,), 0)


def test_manager__bits_above_an_address_are_no_part_of_it() -> None:
    (unsolicited,) = listed(lens_of(words(1), words(42), [position(8, upper_bits=1 << 160)]), POOL).positions
    assert unsolicited.tokens == (TOKEN0, TOKEN1)


def test_manager__token_without_liquidity_is_listed_too() -> None:
    assert names(listed(lens_of(words(1), words(42), [position(0)]), POOL)) == [(MANAGER, 0)]


def test_manager__unreadable_number_or_position_is_left_out() -> None:
    lens = lens_of(words(4), words(41, None, 43, 44), [position(1), FAILED, position(3)[:-1]])
    assert names(listed(lens, POOL)) == [(MANAGER, 1)]


def test_manager__wallet_without_its_tokens_is_asked_once() -> None:
    lens = lens_of(words(0))
    assert listed(lens, POOL) == UnsolicitedPositions((), 0)
    assert lens.request_count == 1


@pytest.mark.parametrize("more", [0, 1, 5])
def test_manager__tokens_beyond_the_most_are_only_counted(more: int) -> None:
    lens = lens_of(words(MAX_CHECKED_TOKENS + more), [FAILED] * MAX_CHECKED_TOKENS)
    assert listed(lens, POOL) == UnsolicitedPositions((), more)


def test_confirmed__position_is_not_listed() -> None:
    lens = lens_of(words(3, 4, 2), words(42, 43), [position(1), position(2)])
    confirmed = [
        ConfirmedPosition("uniswap_v2", PAIR_A.address, None, TOKEN0, TOKEN1, (1, 1), None, 6_000, 86_400),
        ConfirmedPosition("uniswap_v3", MANAGER, 42, TOKEN0, TOKEN1, (1, 1), None, 6_000, 86_400),
    ]
    assert names(listed(lens, PAIR_A, PAIR_B, confirmed=confirmed)) == [(PAIR_B.address, 4), (MANAGER, 2)]
