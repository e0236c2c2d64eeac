"""Pages of the lens: sized beforehand, read back byte for byte, and anything else is refused rather than guessed."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chain.lens import (
    PAGE_BYTES,
    PAGE_GAS,
    CallItem,
    CallStatus,
    CodeItem,
    IndirectCallItem,
    LensItem,
    LensPages,
    V3Answer,
    V3Item,
    answer_uint,
    answer_words,
    creation_code,
    decode_page,
    split_into_pages,
)
from agent.chain.pools.reading import PoolRef, V2Reader, V3Reader
from agent.chain.tokens import symbol_text
from agent.chain.watch import SnapshotScope, snapshot_parts, snapshot_questions, window_ticks
from agent.errors import ConfigError, Retryable
from agent.units import Token

ADDRESS = "0x" + "11" * 20
OWNER = "0x" + "22" * 20
VIA = IndirectCallItem(ADDRESS, b"\1\2\3\4", CallItem(ADDRESS, b"\5"))


def portfolio(number_of_tokens: int, number_of_pools: int) -> SnapshotScope:
    def address(number: int) -> str:
        return "0x" + number.to_bytes(20, "big").hex()

    tokens = tuple(Token(address(i + 1), f"T{i}", 18) for i in range(number_of_tokens))
    spacings = (1, 10, 10, 60, 60, 60, 200)
    refs = tuple(
        PoolRef(address(1000 + i), "uniswap_v2", V2Reader(), ADDRESS, OWNER, 3000)
        if i % 3 == 0
        else PoolRef(address(1000 + i), "uniswap_v3", V3Reader(), ADDRESS, OWNER, 3000, spacings[i % 7])
        for i in range(number_of_pools)
    )
    return SnapshotScope(OWNER, tokens, (ADDRESS,), refs, tuple(t.address for t in tokens), (ADDRESS,) * 60, 1800, 100)


def test_twelve_tokens_and_forty_pools__need_few_fitting_pages() -> None:
    items: list[LensItem] = [question.item for question in snapshot_questions(portfolio(12, 40))]
    sized = split_into_pages(items)
    assert len(sized) <= 3
    assert [i for page in sized for i in page] == list(range(len(items)))
    for page in sized:
        assert sum(items[i].max_bytes() for i in page) < PAGE_BYTES
        assert sum(items[i].likely_gas for i in page) <= PAGE_GAS
        assert len(creation_code([items[i] for i in page])) // 2 < 49_152


@given(st.lists(st.sampled_from([CallItem(ADDRESS, b"\1" * 68), CodeItem(ADDRESS), V3Item(ADDRESS, 1, 200, 256, 0), VIA]), max_size=400))
def test_pages_hold_every_item_once_in_order_and_fit(items: list[LensItem]) -> None:
    sized = split_into_pages(items)
    assert [i for page in sized for i in page] == list(range(len(items)))
    for page in sized:
        assert sum(items[i].max_bytes() for i in page) < PAGE_BYTES
        assert len(creation_code([items[i] for i in page])) // 2 < 49_152


def test_each_kind_of_answer_is_read_back() -> None:
    pool = V3Item(ADDRESS, 10, 200, 256, 1800)
    head = (2**96).to_bytes(20, "big") + (-5).to_bytes(3, "big", signed=True) + b"\0\7\0\x40" + (10**18).to_bytes(16, "big")
    bounds = (-205).to_bytes(3, "big", signed=True) + (195).to_bytes(3, "big", signed=True)
    twap = b"\1" + (-9001).to_bytes(7, "big", signed=True) + (77).to_bytes(20, "big")
    ticks = b"".join(i.to_bytes(3, "big", signed=True) + n.to_bytes(16, "big", signed=True) for i, n in ((-10, 5), (-20, -7), (30, 9)))
    page = b"\1" + b"\0\0\x02hi" + b"\0\0\x03abc" + b"\1" + b"\0" + b"\x42" * 32 + b"\0" + head + bounds + twap + b"\0\3" + ticks
    assert decode_page([VIA, CallItem(ADDRESS, b""), CallItem(ADDRESS, b""), CodeItem(ADDRESS), pool], page) == [
        b"hi",
        b"abc",
        CallStatus.FAILED,
        b"\x42" * 32,
        V3Answer(2**96, -5, 10**18, -205, 195, ((-20, -7), (-10, 5), (30, 9)), (-9001, 77), (7, 64)),
    ]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        pytest.param(b"", "is truncated", id="empty"),
        pytest.param(b"\2\0\0\0", "is malformed", id="format"),
        pytest.param(b"\1", "is truncated", id="cut"),
        pytest.param(b"\1\0\0\2a", "is truncated", id="cut data"),
        pytest.param(b"\1\0\0\1ab", "has excess bytes", id="left over"),
        pytest.param(b"\1\x07", "has an unknown status", id="status"),
        pytest.param(b"\1\x06", "has an unknown status", id="our status"),
        pytest.param(b"\1\0\xff\xff" + b"a" * 65535, "is longer than its bound", id="too long"),
        pytest.param(b"\1\1\1", "has excess bytes", id="two"),
    ],
)
def test_bytes_that_are_no_answer_are_refused(page: bytes, reason: str) -> None:
    with pytest.raises(Retryable, match=f"answer to the lens {reason}"):
        decode_page([CallItem(ADDRESS, b"")], page)


def test_equal_answers_to_a_page_are_decoded_once_and_others_anew() -> None:
    pages = LensPages([CallItem(ADDRESS, b"")])
    (first_answer,) = pages.decode(["0x0100000161"])
    assert pages.decode(["0x0100000161"])[0] is first_answer
    assert pages.decode(["0x0100000162"]) == [b"b"]
    with pytest.raises(Retryable, match="answer to the lens is truncated"):
        pages.decode(["0x01000001"])
    (answer_of_another_read,) = pages.for_one_read().decode(["0x0100000161"])
    assert answer_of_another_read == b"a"
    assert pages.decode(["0x0100000162"]) == [b"b"]


@given(st.binary(max_size=200))
def test_no_bytes_whatever_make_the_decoder_fail_in_another_way(page: bytes) -> None:
    with suppress(Retryable):
        decode_page([CallItem(ADDRESS, b""), V3Item(ADDRESS, 10, 200, 256, 0), CodeItem(ADDRESS), VIA], b"\1" + page)


def test_a_tick_twice_or_outside_the_known_window_is_malformed() -> None:
    def answer(*ticks: int) -> list[object]:
        head = bytes(20) + bytes(3) + bytes(4) + bytes(16) + (-100).to_bytes(3, "big", signed=True) + (100).to_bytes(3, "big") + bytes(28)
        body = b"".join(tick.to_bytes(3, "big", signed=True) + bytes(16) for tick in ticks)
        return list(decode_page([V3Item(ADDRESS, 10, 200, 256, 0)], b"\1\0" + head + len(ticks).to_bytes(2, "big") + body))

    assert isinstance(answer(-100, 0, 100)[0], V3Answer)
    assert answer(0, 0) == [CallStatus.MALFORMED]
    assert answer(101) == [CallStatus.MALFORMED]
    assert answer(-101) == [CallStatus.MALFORMED]


def test_numbers_that_do_not_fit__are_malformed() -> None:
    assert answer_uint((255).to_bytes(32, "big"), 8) == 255
    assert answer_uint((256).to_bytes(32, "big"), 8) is CallStatus.MALFORMED
    assert answer_uint(b"\0" * 31) is CallStatus.MALFORMED
    assert answer_uint(b"") is CallStatus.MALFORMED
    assert answer_uint(CallStatus.NO_CODE) is CallStatus.NO_CODE
    assert answer_words(b"\0" * 64, 3) is CallStatus.MALFORMED


@pytest.mark.parametrize(("impact_bps", "ticks"), [(0, 1), (1, 3), (100, 102), (200, 204), (5_000, 6_933)])
def test_the_window_is_rounded_up_and_one_more(impact_bps: int, ticks: int) -> None:
    assert window_ticks(impact_bps) == ticks


@given(st.integers(0, 9_999))
def test_window__reaches_as_far_as_the_impact_moves_the_price(impact_bps: int) -> None:
    ticks = window_ticks(impact_bps)
    factor = Fraction(10_001, 10_000) ** min(ticks, 3_000)
    if ticks <= 3_000:
        assert factor >= 1 + Fraction(impact_bps, 10_000)
        assert 1 / factor <= 1 - Fraction(impact_bps, 10_000)
    assert ticks <= 2 * 887_272


@pytest.mark.parametrize("impact_bps", [-1, 10_000, 12_000])
def test_an_impact_that_is_none_is_refused(impact_bps: int) -> None:
    with pytest.raises(ConfigError, match=r"impact of .* bps is not between 0 and 9999"):
        window_ticks(impact_bps)


def test_an_item_that_failed_is_named_and_is_never_a_zero() -> None:
    watch = portfolio(3, 3)
    everything = snapshot_parts(watch, [CallStatus.FAILED] * len(snapshot_questions(watch)))
    assert everything.holdings == everything.allowances == everything.pools == everything.feed_rounds == everything.code_hashes == ()
    assert {lost.address for lost in everything.unreadable_items} == {question.address for question in snapshot_questions(watch)}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((32).to_bytes(32, "big") + (4).to_bytes(32, "big") + b"WETH" + bytes(28), "WETH"),
        (b"MKR" + bytes(29), "MKR"),
        (bytes(32), ""),
        (b"", ""),
        ((32).to_bytes(32, "big") + (99).to_bytes(32, "big") + b"WETH" + bytes(28), ""),
        ((32).to_bytes(32, "big") + (32).to_bytes(32, "big") + b"W" * 32, "W" * 32),
        ((32).to_bytes(32, "big") + (33).to_bytes(32, "big") + b"W" * 32, ""),
        ((64).to_bytes(32, "big") + (4).to_bytes(32, "big") + b"WETH" + bytes(28), ""),
        (CallStatus.FAILED, ""),
        (b"\xff\xfe" + bytes(30), "\ufffd\ufffd"),
    ],
)
def test_symbols_are_read_as_text_or_bytes32(answer: bytes | CallStatus, text: str) -> None:
    assert symbol_text(answer) == text
