"""Tests of agent/chain/pools/own_positions.py: the positions that a snapshot reads, and those that somebody else sent to the wallet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from agent.chain.lens import TOKEN_OF_OWNER_BY_INDEX, CallItem, CallStatus, address_call, creation_code, uint_word
from agent.chain.pools.own_positions import (
    MAX_CHECKED_TOKENS,
    PositionReader,
    UnsolicitedPosition,
    UnsolicitedPositions,
    find_manager_token,
    find_unsolicited_positions,
    foreign_position_texts,
)
from agent.chain.pools.positions import PositionRange, PositionRef
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.chain.watch import SnapshotScope
from agent.model import ConfirmedPosition, LpPositionChange, Snapshot
from tests.support import lp_worlds
from tests.support.builders import OWNER, address, step_input
from tests.support.chain_reads.lens_pages import Answer, scripted_lens, word_answers
from tests.support.fakes.transport import ScriptedTransport

MANAGER = address("manager")
TOKEN0 = address("token 0")
TOKEN1 = address("token 1")
PAIR_A = PoolRef(address("pair a"), "uniswap_v2", V2Reader(), TOKEN0, TOKEN1, 3_000)
PAIR_B = PoolRef(address("pair b"), "sushi", V2Reader(), TOKEN1, TOKEN0, 3_000)
POOL = PoolRef(address("pool"), "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, 10)
FAILED = CallStatus.FAILED


# --- PositionReader


@dataclass
class FakeChainReader:
    """A reader with a scope, which notes the positions of the scope at each snapshot."""

    scope: SnapshotScope = field(default_factory=lambda: SnapshotScope(OWNER, (), (), (), (), (), 0, 100))
    snapshot_positions: list[tuple[PositionRef, ...]] = field(default_factory=list)

    def snapshot(self) -> Snapshot:
        self.snapshot_positions.append(self.scope.positions)
        return step_input().snapshot


FACTORY = address("factory")
CONFIGURED = lp_worlds.confirmed_position(lp_worlds.v3())
CONFIGURED_REF = PositionRef(CONFIGURED, FACTORY, PositionRange(POOL.address, 500, -600, 600))
MINTED = replace(CONFIGURED, token_id=77)


def mint(token_id: int, ticks: tuple[int, int]) -> LpPositionChange:
    """Return our mint of a token of the manager."""
    return LpPositionChange(
        MINTED.venue, MINTED.contract, token_id, POOL.address, MINTED.token0, MINTED.token1, 500, ticks, 10, 0, (1, 1), 5
    )


def refs_read(counted: Sequence[ConfirmedPosition], changes: Sequence[LpPositionChange] = ()) -> tuple[PositionRef, ...]:
    """Return the positions that a snapshot reads if these count."""
    chain_reader = FakeChainReader()
    factories = {CONFIGURED.venue: FACTORY}
    reader = PositionReader(chain_reader, [CONFIGURED_REF], factories, lambda: changes, lambda _changes: tuple(counted))  # type: ignore[arg-type]  # a fake

    reader.snapshot()

    (positions,) = chain_reader.snapshot_positions
    return positions


def test_position_reader_reads_what_counts_with_its_newest_entry() -> None:
    grown = replace(CONFIGURED, entry_raw=(9, 9))

    assert refs_read([grown]) == (replace(CONFIGURED_REF, confirmed_position=grown),)


def test_position_reader_knows_the_range_of_its_own_mint() -> None:
    changes = [mint(76, (-60, 60)), mint(77, (-120, 180))]

    assert refs_read([MINTED], changes) == (PositionRef(MINTED, FACTORY, PositionRange(POOL.address, 500, -120, 180)),)


@pytest.mark.parametrize("changes", [(), [mint(76, (-60, 60))]], ids=["no mint", "another's mint"])
def test_position_reader_reads_no_range_of_an_unknown_token(changes: Sequence[LpPositionChange]) -> None:
    assert refs_read([MINTED], changes) == (PositionRef(MINTED, FACTORY, None),)


def test_position_reader_reads_nothing_that_no_longer_counts() -> None:
    assert refs_read([]) == ()


# --- Unsolicited positions


def manager_answer(liquidity: int, token0: str = TOKEN0, token1: str = TOKEN1, upper_bits: int = 0) -> bytes:
    """NonfungiblePositionManager.positions: twelve words, of which the third and fourth are the tokens and the eighth the liquidity."""
    numbers = [1, 2, int(token0, 16) + upper_bits, int(token1, 16) + upper_bits, 5, 6, 7, liquidity, 9, 10, 11, 12]
    return b"".join(map(uint_word, numbers))


def unsolicited(
    lens: ScriptedTransport, *pools: PoolRef, manager: str | None = MANAGER, confirmed: Sequence[ConfirmedPosition] = ()
) -> UnsolicitedPositions:
    return find_unsolicited_positions(lens, OWNER, manager, pools, confirmed, "latest")


def liquidity_by_contract(positions: UnsolicitedPositions) -> list[tuple[str, int]]:
    return [(position.contract, position.liquidity) for position in positions.positions]


def test_unsolicited_pair_is_listed_from_one_base_unit() -> None:
    position = UnsolicitedPosition(f"uniswap_v2 {PAIR_A.address}", PAIR_A.address, None, (TOKEN0, TOKEN1), 1)

    assert unsolicited(scripted_lens(word_answers(1, 0)), PAIR_A) == UnsolicitedPositions((position,), 0)


@pytest.mark.parametrize(
    ("balances", "listed"),
    [
        pytest.param((3, 4, 0), [(PAIR_A.address, 3), (PAIR_B.address, 4)], id="both pairs"),
        pytest.param((0, 4, 0), [(PAIR_B.address, 4)], id="none of the first"),
        pytest.param((FAILED, 4, 0), [(PAIR_B.address, 4)], id="first unreadable"),
        pytest.param((3, FAILED, FAILED), [(PAIR_A.address, 3)], id="second and manager unreadable"),
    ],
)
def test_unsolicited_balance_is_that_of_its_pair(balances: tuple[int | CallStatus, ...], listed: list[tuple[str, int]]) -> None:
    assert liquidity_by_contract(unsolicited(scripted_lens(word_answers(*balances)), PAIR_A, POOL, PAIR_B)) == listed


def test_unsolicited_pairs_without_a_manager_take_one_request() -> None:
    lens = scripted_lens(word_answers(3, 4))

    positions = unsolicited(lens, PAIR_A, PAIR_B, manager=None)

    assert liquidity_by_contract(positions) == [(PAIR_A.address, 3), (PAIR_B.address, 4)]
    assert (positions.unchecked_count, lens.request_count) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "tokens", "liquidity"),
    [
        pytest.param(manager_answer(8, TOKEN1, TOKEN0), (TOKEN1, TOKEN0), 8, id="tokens in their order"),
        pytest.param(manager_answer(8, upper_bits=1 << 160), (TOKEN0, TOKEN1), 8, id="bits above an address"),
        pytest.param(manager_answer(0), (TOKEN0, TOKEN1), 0, id="no liquidity"),
    ],
)
def test_unsolicited_manager_token_is_listed(answer: bytes, tokens: tuple[str, str], liquidity: int) -> None:
    position = UnsolicitedPosition("uniswap_v3 #42", MANAGER, 42, tokens, liquidity)

    assert unsolicited(scripted_lens(word_answers(1), word_answers(42), [answer]), POOL) == UnsolicitedPositions((position,), 0)


def test_unsolicited_manager_token_that_is_unreadable_is_omitted() -> None:
    pages: list[list[Answer]] = [[manager_answer(1), FAILED, manager_answer(3)[:-1]]]
    lens = scripted_lens(word_answers(4), word_answers(41, FAILED, 43, 44), *pages)

    assert liquidity_by_contract(unsolicited(lens, POOL)) == [(MANAGER, 1)]


def test_unsolicited_manager_tokens_of_none_take_one_request() -> None:
    lens = scripted_lens(word_answers(0))

    assert unsolicited(lens, POOL) == UnsolicitedPositions((), 0)
    assert lens.request_count == 1


@pytest.mark.parametrize("more", [0, 1, 5], ids=["at the limit", "one more", "five more"])
def test_unsolicited_manager_tokens_are_the_newest(more: int) -> None:
    lens = scripted_lens(word_answers(MAX_CHECKED_TOKENS + more), [FAILED] * MAX_CHECKED_TOKENS)

    assert unsolicited(lens, POOL) == UnsolicitedPositions((), MAX_CHECKED_TOKENS + more)
    newest = [
        CallItem(MANAGER, address_call(TOKEN_OF_OWNER_BY_INDEX, OWNER) + uint_word(index))
        for index in range(more, more + MAX_CHECKED_TOKENS)
    ]
    assert lens.calls[1] == ("eth_call", [{"data": creation_code(newest)}, "latest"])


@pytest.mark.parametrize(
    ("pages", "unchecked_count"),
    [
        ([word_answers(FAILED, 0)], 1),
        ([word_answers(3, FAILED)], 1),
        ([word_answers(FAILED, 2), word_answers(41, 42), [manager_answer(1), FAILED]], 2),
        ([word_answers(0, 3), word_answers(FAILED, 42, 43), [manager_answer(1), manager_answer(2)[:-1]]], 2),
    ],
    ids=["pair", "manager", "pair and a position", "number and a short position"],
)
def test_unread_positions_are_counted(pages: list[list[Answer]], unchecked_count: int) -> None:
    assert unsolicited(scripted_lens(*pages), PAIR_A).unchecked_count == unchecked_count


@pytest.mark.parametrize(
    ("holder", "answer", "position"),
    [
        (OWNER, manager_answer(8), UnsolicitedPosition("uniswap_v3 #42", MANAGER, 42, (TOKEN0, TOKEN1), 8)),
        (TOKEN0, manager_answer(8), None),
        (None, FAILED, None),
        (OWNER, FAILED, None),
    ],
    ids=["the wallet's", "another's", "burned", "unread"],
)
def test_manager_token_is_asked_by_its_number(holder: str | None, answer: Answer, position: UnsolicitedPosition | None) -> None:
    lens = scripted_lens([*word_answers(FAILED if holder is None else int(holder, 16)), answer])

    assert find_manager_token(lens, OWNER, MANAGER, 42, "latest") == position


def test_unsolicited_positions_exclude_confirmed_ones() -> None:
    lens = scripted_lens(word_answers(3, 4, 2), word_answers(42, 43), [manager_answer(1), manager_answer(2)])
    confirmed = [
        ConfirmedPosition("uniswap_v2", PAIR_A.address, None, TOKEN0, TOKEN1, (1, 1), None, 6_000, 86_400),
        ConfirmedPosition("uniswap_v3", MANAGER, 42, TOKEN0, TOKEN1, (1, 1), None, 6_000, 86_400),
    ]

    assert liquidity_by_contract(unsolicited(lens, PAIR_A, PAIR_B, confirmed=confirmed)) == [(PAIR_B.address, 4), (MANAGER, 2)]


def test_foreign_positions_are_named_by_venue_and_count() -> None:
    managers = {address(venue): venue for venue in ("slipstream", "pancake", "sushi", "camelot")}

    texts = foreign_position_texts(scripted_lens(word_answers(1, 0, FAILED, 3)), OWNER, managers, "latest")

    assert texts == (
        f"1 position(s) of slipstream at {address('slipstream')} do not count and are left alone",
        f"positions of sushi at {address('sushi')} cannot be read: {FAILED.why}",
        f"3 position(s) of camelot at {address('camelot')} do not count and are left alone",
    )
