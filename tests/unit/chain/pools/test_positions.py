"""Tests of agent/chain/pools/positions.py: what the chain says of positions; a missing part is named, never taken for zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from eth_utils.crypto import keccak

from agent.chain.lens import CallStatus, LensAnswer, address_word, int_word, uint_word
from agent.chain.pools.positions import PositionRange, PositionRef, position_questions, read_position, resolve_positions
from agent.chain.watch import SnapshotScope, snapshot_parts, snapshot_questions
from agent.errors import ConfigError
from agent.model import LpMissingPosition, LpPosition, LpV2Position, LpV3Position
from tests.support import lp_worlds
from tests.support.builders import OWNER, address
from tests.support.chain_reads.lens_pages import Answer, scripted_lens

FACTORY = address("factory")
POOL = address("pool")
PLACE = PositionRange(POOL, 3_000, -600, 1_200)
V2 = PositionRef(lp_worlds.confirmed_position(lp_worlds.v2()), FACTORY)
V3 = PositionRef(lp_worlds.confirmed_position(lp_worlds.v3()), FACTORY, PLACE)


def words(*numbers: int) -> bytes:
    return b"".join(map(uint_word, numbers))


def v2_answers() -> list[LensAnswer]:
    return [
        uint_word(5),
        uint_word(100),
        words(7, 8, 9),
        uint_word(56),
        uint_word(70),
        uint_word(80),
        uint_word(0),
        address_word(lp_worlds.PAIR),
    ]


def manager_answer() -> bytes:
    """NonfungiblePositionManager.positions: twelve words."""
    shape = b"".join((*map(address_word, lp_worlds.TOKENS), uint_word(3_000), int_word(-600), int_word(1_200)))
    return words(0, 0) + shape + words(10**18, 11, 12, 13, 14)


def v3_answers() -> list[LensAnswer]:
    slot0 = uint_word(2**96) + int_word(-1) + words(0, 0, 0, 0, 0)
    lower_tick, upper_tick = (words(1, 2, growth, growth + 1, 0, 0, 0, 1) for growth in (21, 31))
    account = words(10**19, 41, 42, 43, 44)
    return [
        address_word(OWNER), manager_answer(), address_word(POOL), slot0, uint_word(51), uint_word(52), lower_tick, upper_tick, account,
    ]  # fmt: skip


ANSWERS: dict[str, tuple[PositionRef, Callable[[], list[LensAnswer]]]] = {"pair": (V2, v2_answers), "token": (V3, v3_answers)}


def position_with(ref: PositionRef, answers: list[LensAnswer], changes: Mapping[int, LensAnswer]) -> LpPosition | str:
    """Return what is read from the answers with these changes by number."""
    return read_position(ref, OWNER, [changes.get(number, answer) for number, answer in enumerate(answers)])


def with_word(answer: LensAnswer, place: int, word: bytes) -> bytes:
    """Return the answer with another word at a place."""
    assert isinstance(answer, bytes)
    return answer[: 32 * place] + word + answer[32 * place + 32 :]


# --- Answers of a snapshot


@pytest.mark.parametrize(("fee_to", "has_protocol_fee"), [(uint_word(0), False), (address_word(OWNER), True)], ids=["no fee", "a fee"])
def test_pair_has_every_part_of_its_answers(fee_to: bytes, has_protocol_fee: bool) -> None:
    position = LpV2Position("uniswap_v2", lp_worlds.PAIR, *lp_worlds.TOKENS, 5, 100, (7, 8), (70, 80), 56, has_protocol_fee)

    assert position_with(V2, v2_answers(), {6: fee_to}) == position


def test_token_has_every_part_of_its_answers() -> None:
    assert read_position(V3, OWNER, v3_answers()) == LpV3Position(
        venue="uniswap_v3", manager=lp_worlds.MANAGER, token_id=42, pool=POOL,
        token0=lp_worlds.TOKENS[0], token1=lp_worlds.TOKENS[1], fee_pips=3_000,
        tick_lower=-600, tick_upper=1_200, liquidity=10**18, inside_last_x128=(11, 12), owed=(13, 14), sqrt_price_x96=2**96, tick=-1,
        growth_global_x128=(51, 52), growth_outside_lower_x128=(21, 22), growth_outside_upper_x128=(31, 32),
        core_liquidity=10**19, core_inside_last_x128=(41, 42), core_owed=(43, 44),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(
    ("answer", "status"),
    [*((status, status) for status in CallStatus), (bytes(31), CallStatus.MALFORMED)],
    ids=[*(status.name for status in CallStatus), "cut short"],
)
def test_position_names_each_answer_that_is_missing(kind: str, answer: LensAnswer, status: CallStatus) -> None:
    ref, answers = ANSWERS[kind]

    for number, question in enumerate(position_questions(ref, OWNER)):
        assert position_with(ref, answers(), {number: answer}) == f"{question.name}: {status.why}"


CHANGED = "its pool or ticks have changed since the agent started"
MALFORMED = CallStatus.MALFORMED.why


@pytest.mark.parametrize(
    ("number", "place", "word", "reason"),
    [
        pytest.param(0, 0, address_word(POOL), f"it belongs to {POOL}, not to the wallet {OWNER}", id="other owner"),
        pytest.param(1, 2, address_word(POOL), CHANGED, id="other first token"),
        pytest.param(1, 3, address_word(POOL), CHANGED, id="other second token"),
        pytest.param(1, 4, uint_word(500), CHANGED, id="other fee"),
        pytest.param(1, 5, int_word(-660), CHANGED, id="other lower tick"),
        pytest.param(1, 6, int_word(1_260), CHANGED, id="other upper tick"),
        pytest.param(1, 7, uint_word(2**128), MALFORMED, id="liquidity too large"),
        pytest.param(1, 10, uint_word(2**128), MALFORMED, id="first fees too large"),
        pytest.param(1, 11, uint_word(2**128), MALFORMED, id="second fees too large"),
        pytest.param(2, 0, address_word(FACTORY), f"has a different pool than {POOL}", id="other pool"),
        pytest.param(3, 0, uint_word(0), "its pool has no price", id="no price"),
        pytest.param(3, 0, uint_word(2**160), MALFORMED, id="price too large"),
        pytest.param(8, 0, uint_word(2**128), MALFORMED, id="pool's liquidity too large"),
        pytest.param(8, 3, uint_word(2**128), MALFORMED, id="pool's first fees too large"),
        pytest.param(8, 4, uint_word(2**128), MALFORMED, id="pool's second fees too large"),
    ],
)
def test_token_whose_answers_contradict_is_not_counted(number: int, place: int, word: bytes, reason: str) -> None:
    answers = v3_answers()

    position = position_with(V3, answers, {number: with_word(answers[number], place, word)})

    assert isinstance(position, str)
    assert position.endswith(reason)


@pytest.mark.parametrize(
    ("number", "answer", "reason"),
    [
        pytest.param(7, address_word(POOL), "has a different pair for these tokens", id="other pair"),
        pytest.param(2, words(2**112, 8, 9), MALFORMED, id="first reserve too large"),
        pytest.param(2, words(7, 2**112, 9), MALFORMED, id="second reserve too large"),
    ],
)
def test_pair_whose_answers_contradict_is_not_counted(number: int, answer: bytes, reason: str) -> None:
    position = position_with(V2, v2_answers(), {number: answer})

    assert isinstance(position, str)
    assert position.endswith(reason)


GONE = LpMissingPosition("uniswap_v3", lp_worlds.MANAGER, 42, *lp_worlds.TOKENS)
UNSTARTED = PositionRef(V3.confirmed_position, FACTORY)
"""A token that did not exist when the agent started."""


@pytest.mark.parametrize("ref", [V3, UNSTARTED], ids=["known", "unknown"])
def test_token_is_gone_if_owner_and_position_revert(ref: PositionRef) -> None:
    answers = v3_answers() if ref is V3 else v3_answers()[:2]

    assert position_with(ref, answers, {0: CallStatus.FAILED, 1: CallStatus.FAILED}) == GONE


@pytest.mark.parametrize(
    "changes",
    [{0: CallStatus.FAILED}, {1: CallStatus.FAILED}, {0: CallStatus.UNREAD, 1: CallStatus.UNREAD}],
    ids=["owner alone", "position alone", "both unread"],
)
def test_token_is_not_gone_by_another_failure(changes: dict[int, LensAnswer]) -> None:
    assert isinstance(position_with(V3, v3_answers(), changes), str)


def test_token_that_is_younger_than_the_agent_needs_a_restart() -> None:
    position = read_position(UNSTARTED, OWNER, v3_answers()[:2])

    assert position == "it did not exist when the agent started: restart the agent"


def test_snapshot_quarantines_the_unreadable_position_alone() -> None:
    scope = SnapshotScope(OWNER, (), (), (), (), (), 0, 100, (V2, V3))
    answers = [*v2_answers(), *v3_answers()]
    answers[8 + 3] = CallStatus.UNREAD

    parts = snapshot_parts(scope, answers)

    pair_name = f"uniswap_v2 {lp_worlds.PAIR}"
    assert [question.name.split(":")[0] for question in snapshot_questions(scope)] == [pair_name] * 8 + ["uniswap_v3 #42"] * 9
    assert [position.name for position in parts.positions] == [pair_name]
    [item] = parts.unreadable_items
    assert (item.subject, item.address, item.why) == ("position uniswap_v3 #42", lp_worlds.MANAGER, f"price: {CallStatus.UNREAD.why}")


# --- Resolution of the config's positions


FACTORIES = {"uniswap_v2": FACTORY, "uniswap_v3": FACTORY}


def v2_resolution(**changes: Answer) -> list[Answer]:
    """Return the answers that resolve the pair: its tokens, and the pair of the factory."""
    token0, token1 = lp_worlds.TOKENS
    answers = {"token0": address_word(token0), "token1": address_word(token1), "pair": address_word(lp_worlds.PAIR)}
    return list((answers | changes).values())


def v3_resolution(**changes: Answer) -> list[Answer]:
    """Return the answers that resolve the token: the manager's factory and supply, and the position."""
    return list(({"factory": address_word(FACTORY), "supply": uint_word(1), "position": manager_answer()} | changes).values())


def with_tokens_exchanged(answer: bytes) -> bytes:
    """Return the manager's answer with its tokens exchanged."""
    return answer[:64] + answer[96:128] + answer[64:96] + answer[128:]


def test_resolution_finds_the_pool_of_each_position() -> None:
    lens = scripted_lens([*v3_resolution(), *v2_resolution()], [address_word(POOL)])

    assert resolve_positions(lens, [V3.confirmed_position, V2.confirmed_position], FACTORIES) == (V3, V2)


def test_resolution_of_a_burned_token_has_no_range() -> None:
    lens = scripted_lens(v3_resolution(position=CallStatus.FAILED))

    assert resolve_positions(lens, [V3.confirmed_position], FACTORIES) == (PositionRef(V3.confirmed_position, FACTORY),)
    assert lens.request_count == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"token0": CallStatus.FAILED}, "is it a Uniswap V2 pair", id="no first token"),
        pytest.param({"token1": CallStatus.NO_CODE}, "is it a Uniswap V2 pair", id="no second token"),
        pytest.param({"token0": address_word(lp_worlds.TOKENS[1])}, "but its entry names", id="another token"),
        pytest.param({"pair": address_word(POOL)}, "was not created by the factory", id="another pair"),
        pytest.param({"pair": CallStatus.FAILED}, "was not created by the factory", id="no pair"),
    ],
)
def test_resolution_refuses_a_pair_that_contradicts_the_chain(changes: dict[str, Answer], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        resolve_positions(scripted_lens(v2_resolution(**changes)), [V2.confirmed_position], FACTORIES)


def test_resolution_refuses_a_pair_with_its_tokens_with_tokens_exchanged() -> None:
    token0, token1 = map(address_word, lp_worlds.TOKENS)

    with pytest.raises(ConfigError, match="but its entry names"):
        resolve_positions(scripted_lens(v2_resolution(token0=token1, token1=token0)), [V2.confirmed_position], FACTORIES)


@pytest.mark.parametrize(
    ("changes", "pool", "reason"),
    [
        pytest.param({"factory": CallStatus.FAILED}, POOL, "is not a position manager", id="no factory"),
        pytest.param({"factory": address_word(POOL)}, POOL, "is not a position manager", id="another factory"),
        pytest.param({"supply": CallStatus.FAILED}, POOL, "is not a position manager", id="a router"),
        pytest.param({"position": CallStatus.NO_CODE}, POOL, "check position_manager", id="no manager"),
        pytest.param({"position": uint_word(1)}, POOL, "check position_manager", id="a short position"),
        pytest.param({"position": with_tokens_exchanged(manager_answer())}, POOL, "but its entry names", id="tokens exchanged"),
        pytest.param({}, "", "has no pool", id="no pool"),
    ],
)
def test_resolution_refuses_a_token_that_contradicts_the_chain(changes: dict[str, Answer], pool: str, reason: str) -> None:
    lens = scripted_lens(v3_resolution(**changes), [address_word(pool) if pool else uint_word(0)])

    with pytest.raises(ConfigError, match=reason):
        resolve_positions(lens, [V3.confirmed_position], FACTORIES)


def test_range_key_is_that_of_the_contract() -> None:
    """PositionKey.compute: keccak256(abi.encodePacked(owner, tickLower, tickUpper))."""
    packed = bytes.fromhex(lp_worlds.MANAGER[2:]) + (-600).to_bytes(3, "big", signed=True) + (1_200).to_bytes(3, "big")

    assert PLACE.key(lp_worlds.MANAGER) == keccak(packed)
