"""Answers to positions as bytes: every one that is missing or off names itself, none is taken for zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from agent.chain.lens import CallStatus, LensAnswer, address_word, int_word, uint_word
from agent.chain.pools.positions import PositionRange, PositionRef, _with_range, position_questions, read_position
from agent.chain.watch import SnapshotScope, snapshot_parts
from agent.chain.watch import snapshot_questions as all_questions
from agent.errors import ConfigError
from agent.model import LpMissingPosition, LpV2Position, LpV3Position
from tests.support import lp_worlds
from tests.support.builders import OWNER, address

FACTORY = address("factory")
POOL = address("pool")
PLACE = PositionRange(POOL, 3_000, -600, 1_200)
V2 = PositionRef(lp_worlds.confirmed_position(lp_worlds.v2()), FACTORY)
V3 = PositionRef(lp_worlds.confirmed_position(lp_worlds.v3()), FACTORY, PLACE)


def joined(*values: bytes) -> bytes:
    return b"".join(values)


def v2_answers() -> list[LensAnswer]:
    return [
        uint_word(5),
        uint_word(100),
        joined(uint_word(7), uint_word(8), uint_word(9)),
        uint_word(56),
        uint_word(70),
        uint_word(80),
        uint_word(0),
        address_word(lp_worlds.PAIR),
    ]


def v3_answers() -> list[LensAnswer]:
    shape = (*map(address_word, lp_worlds.TOKENS), uint_word(3_000), int_word(-600), int_word(1_200))
    own = joined(uint_word(0), uint_word(0), *shape, *map(uint_word, (10**18, 11, 12, 13, 14)))
    slot0 = joined(uint_word(2**96), int_word(-1), *([uint_word(0)] * 5))
    lower, upper = (joined(*map(uint_word, (1, 2, n, n + 1, 0, 0, 0, 1))) for n in (21, 31))
    core = joined(*map(uint_word, (10**19, 41, 42, 43, 44)))
    return [address_word(OWNER), own, address_word(POOL), slot0, uint_word(51), uint_word(52), lower, upper, core]


def test_a_pair_is_what_its_answers_say() -> None:
    lp_position = LpV2Position("uniswap_v2", lp_worlds.PAIR, *lp_worlds.TOKENS, 5, 100, (7, 8), (70, 80), 56, False)
    assert read_position(V2, OWNER, v2_answers()) == lp_position
    answers = v2_answers()
    answers[6] = address_word(address("fee taker"))
    assert read_position(V2, OWNER, answers) == replace(lp_position, has_protocol_fee=True)


def test_a_token_of_the_manager_is_what_its_answers_say() -> None:
    assert read_position(V3, OWNER, v3_answers()) == LpV3Position(
        venue="uniswap_v3", manager=lp_worlds.MANAGER, token_id=42, pool=POOL,
        token0=lp_worlds.TOKENS[0], token1=lp_worlds.TOKENS[1], fee_pips=3_000,
        tick_lower=-600, tick_upper=1_200, liquidity=10**18, inside_last_x128=(11, 12), owed=(13, 14), sqrt_price_x96=2**96, tick=-1,
        growth_global_x128=(51, 52), growth_outside_lower_x128=(21, 22), growth_outside_upper_x128=(31, 32),
        core_liquidity=10**19, core_inside_last_x128=(41, 42), core_owed=(43, 44),
    )  # fmt: skip


@pytest.mark.parametrize("ref", [V2, V3], ids=["pair", "token"])
@pytest.mark.parametrize("failure", list(CallStatus))
def test_each_answer_that_is_missing_is_named(ref: PositionRef, failure: CallStatus) -> None:
    for number, question in enumerate(position_questions(ref, OWNER)):
        answers = v2_answers() if ref is V2 else v3_answers()
        answers[number] = failure
        assert read_position(ref, OWNER, answers) == f"{question.name}: {failure.why}"


@pytest.mark.parametrize("ref", [V2, V3], ids=["pair", "token"])
def test_each_answer_that_is_cut_short_is_named(ref: PositionRef) -> None:
    for number, question in enumerate(position_questions(ref, OWNER)):
        answers = v2_answers() if ref is V2 else v3_answers()
        answers[number] = b"\0" * 31
        assert read_position(ref, OWNER, answers) == f"{question.name}: {CallStatus.MALFORMED.why}"


def altered(number: int, change: Callable[[bytes], bytes]) -> list[LensAnswer]:
    answers = v3_answers()
    before = answers[number]
    assert isinstance(before, bytes)
    answers[number] = change(before)
    return answers


def other_word(position: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[: 32 * position] + value + data[32 * position + 32 :]


@pytest.mark.parametrize(
    ("number", "change", "reason"),
    [
        pytest.param(0, other_word(0, address_word(POOL)), f"it belongs to {POOL}, not to the wallet {OWNER}", id="other owner"),
        pytest.param(1, other_word(2, address_word(POOL)), "its pool or ticks have changed since the agent started", id="other token"),
        pytest.param(1, other_word(4, uint_word(500)), "its pool or ticks have changed since the agent started", id="other fee"),
        pytest.param(1, other_word(5, int_word(-660)), "its pool or ticks have changed since the agent started", id="other lower tick"),
        pytest.param(1, other_word(6, int_word(1_260)), "its pool or ticks have changed since the agent started", id="other upper tick"),
        pytest.param(1, other_word(7, uint_word(2**128)), CallStatus.MALFORMED.why, id="liquidity too large"),
        pytest.param(1, other_word(10, uint_word(2**128)), CallStatus.MALFORMED.why, id="fees too large"),
        pytest.param(2, other_word(0, address_word(FACTORY)), "has a different pool than", id="other pool"),
        pytest.param(3, other_word(0, uint_word(0)), "no price", id="no price"),
        pytest.param(3, other_word(0, uint_word(2**160)), CallStatus.MALFORMED.why, id="price too large"),
        pytest.param(8, other_word(0, uint_word(2**128)), CallStatus.MALFORMED.why, id="reserve too large"),
        pytest.param(8, other_word(4, uint_word(2**128)), CallStatus.MALFORMED.why, id="supply too large"),
    ],
)
def test_answer_that_contradicts_what_is_known__is_not_believed(number: int, change: Callable[[bytes], bytes], reason: str) -> None:
    position = read_position(V3, OWNER, altered(number, change))
    assert isinstance(position, str)
    assert reason in position


def test_a_pair_that_the_factory_does_not_know_is_not_counted() -> None:
    answers = v2_answers()
    answers[7] = address_word(POOL)
    position = read_position(V2, OWNER, answers)
    assert isinstance(position, str)
    assert "pair" in position
    answers = v2_answers()
    answers[2] = joined(uint_word(2**112), uint_word(8), uint_word(9))
    assert read_position(V2, OWNER, answers) == CallStatus.MALFORMED.why


def test_token__is_gone_only_if_owner_and_position_revert() -> None:
    answers = v3_answers()
    answers[0] = answers[1] = CallStatus.FAILED
    assert read_position(V3, OWNER, answers) == LpMissingPosition("uniswap_v3", lp_worlds.MANAGER, 42, *lp_worlds.TOKENS)
    answers[0] = answers[1] = CallStatus.UNREAD
    assert isinstance(read_position(V3, OWNER, answers), str)


def test_a_token_that_came_into_being_later_asks_for_a_new_start() -> None:
    late = PositionRef(V3.confirmed_position, FACTORY)
    assert read_position(late, OWNER, [CallStatus.FAILED, CallStatus.FAILED]) == LpMissingPosition(
        "uniswap_v3", lp_worlds.MANAGER, 42, *lp_worlds.TOKENS
    )
    position = read_position(late, OWNER, v3_answers()[:2])
    assert isinstance(position, str)
    assert "start the" in position


def test_unreadable_position__is_quarantined_by_name_alone() -> None:
    watch = SnapshotScope(OWNER, (), (), (), (), (), 0, 100, (V2, V3))
    assert [question.name.split(":")[0] for question in all_questions(watch)] == [f"uniswap_v2 {lp_worlds.PAIR}"] * 8 + [
        "uniswap_v3 #42"
    ] * 9
    answers = [*v2_answers(), *v3_answers()]
    answers[8 + 3] = CallStatus.UNREAD
    parts = snapshot_parts(watch, answers)
    assert [position.name for position in parts.positions] == [f"uniswap_v2 {lp_worlds.PAIR}"]
    [bad] = parts.unreadable_items
    assert (bad.subject, bad.address, bad.why) == ("position uniswap_v3 #42", lp_worlds.MANAGER, f"price: {CallStatus.UNREAD.why}")


def test_the_pools_account_is_found_under_the_managers_key() -> None:
    """keccak256 of manager, lower and upper tick, packed: another range or manager is another account."""
    keys = {
        PositionRange(POOL, 3_000, *ticks).key(manager)
        for ticks in ((-60, 60), (-60, 120), (60, -60))
        for manager in (lp_worlds.MANAGER, OWNER)
    }
    assert len(keys) == 6
    assert all(len(key) == 32 for key in keys)


def test_the_pool_of_a_range_is_what_the_factory_answers() -> None:
    ref = PositionRef(V3.confirmed_position, FACTORY)
    assert _with_range(ref, (3_000, -600, 1_200), int(POOL, 16)) == V3


def test_a_token_of_the_manager_that_was_burned_needs_no_pool() -> None:
    ref = PositionRef(V3.confirmed_position, FACTORY)
    assert _with_range(ref, None, None) == ref


@pytest.mark.parametrize("pool", [0, None, CallStatus.FAILED])
def test_range_without_a_pool__is_a_mistake_of_the_config(pool: int | CallStatus | None) -> None:
    with pytest.raises(ConfigError, match="has no pool"):
        _with_range(PositionRef(V3.confirmed_position, FACTORY), (3_000, -600, 1_200), pool)
