"""Exact bounds of what is read of the past: the first round, the first block of a day, and means over a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from agent.chain import history
from agent.chain.history import PastRound, past_rounds, past_twaps, recent_transactions_from
from agent.chain.lens import uint_word
from agent.chain.rpc import RpcFault
from agent.errors import Retryable
from agent.model import Head, Pool
from agent.units import DAY_S
from tests.support.builders import token, v3_pool
from tests.support.chain_reads.feed_proxies import FEED, HEAD, PHASE, FeedProxy
from tests.support.fakes.transport import ScriptedTransport
from tests.support.old_chain import SPACING_S, SWAP, Node, told
from tests.support.transactions import WALLET

DAY_BLOCKS = DAY_S // SPACING_S


@pytest.mark.parametrize(
    ("rounds", "since_s", "reaches_back"),
    [
        ([(100, 1), (200, 2), (300, 3)], 200, True),
        ([(200, 2), (300, 3)], 200, False),
        ([(100, 1), (HEAD.timestamp_s, 2)], 50, False),
        ([(100, 1), (200, 2), (200, 3)], 150, True),
    ],
    ids=["the exact second is no earlier round", "from the second on", "of the block's own second", "two of one second"],
)
def test_past_rounds__are_those_up_to_the_block(rounds: list[tuple[int, int]], since_s: int, reaches_back: bool) -> None:
    past = tuple(PastRound(*round_) for round_ in rounds)
    assert past_rounds(FeedProxy(rounds), FEED, HEAD, since_s) == (past, reaches_back)


@pytest.mark.parametrize(("started_s", "updated_s"), [(0, 100), (100, 0)])
def test_a_round_that_has_not_started_or_not_ended_is_skipped(started_s: int, updated_s: int) -> None:
    class Unfinished(FeedProxy):
        def answer_of(self, to: str, data: bytes) -> Any:
            if int.from_bytes(data[4:36], "big") & (PHASE - 1) == 2:
                number = PHASE | 2
                words = (number, 5, started_s, updated_s, number)
                return "0x" + b"".join(uint_word(word) for word in words).hex()
            return super().answer_of(to, data)

    assert past_rounds(Unfinished([(60, 1), (70, 2), (80, 3)]), FEED, HEAD, 75)[0] == (PastRound(60, 1), PastRound(80, 3))


def test_a_block_a_day_and_no_second_old_is_not_of_the_last_day() -> None:
    first = 20_000 - DAY_BLOCKS
    day = told(Node(sent={first: {}, first + 1: {}}))
    assert day.since_block == first + 1
    assert [mined.nonce for mined in day.transactions] == [1]


@pytest.mark.parametrize("height", [1, 2, 17, DAY_BLOCKS - 1, DAY_BLOCKS])
def test_a_chain_younger_than_a_day_is_read_from_its_first_block(height: int) -> None:
    assert told(Node(height=height, sent={height: {}})).since_block == int(height == DAY_BLOCKS)


@pytest.mark.parametrize("block", [0, 1])
def test_the_first_blocks_of_a_young_chain_are_read_too(block: int) -> None:
    day = told(Node(height=100, sent={block: {}, 50: {}}))
    assert [mined.receipt.block_number for mined in day.transactions] == [block, 50]


def test_value_recipient_and_time_of_a_transaction_are_kept() -> None:
    node = Node(height=100, sent={40: {"value": hex(7), "to": "0x" + "12" * 20}})
    payment = told(node).transactions[0]
    assert payment.block_time_s == node.head.timestamp_s - 60 * SPACING_S
    assert payment.value_wei == 7
    assert payment.to.lower() == "0x" + "12" * 20


def past_answers(feeds: dict[str, Any], logs: list[Any]) -> tuple[tuple[str, int], ...]:
    """Return the feeds' answers that are kept with the wallet's only transaction, in block 40."""
    node = Node(height=100, sent={40: {"logs": logs}}, feeds=feeds)
    return recent_transactions_from(node, WALLET, node.head, 1, tuple(feeds)).transactions[0].feed_answers


@pytest.mark.parametrize(
    ("feeds", "logs", "prices"),
    [
        ({"eth": {39: 1_900, 40: 2_000}, "btc": 60_000}, SWAP, (("eth", 1_900), ("btc", 60_000))),
        ({"eth": 0, "btc": 60_000}, SWAP, ()),
        ({"eth": 2**255, "btc": 60_000}, SWAP, ()),
        ({"eth": 1_900}, [], ()),
    ],
    ids=["the block before", "a price of zero", "a price below zero", "no transfers"],
)
def test_a_trade_is_priced_by_the_block_before_it_or_not_at_all(feeds: dict[str, Any], logs: list[Any], prices: object) -> None:
    assert past_answers(feeds, logs) == prices


def observing(answer: object) -> ScriptedTransport:
    """Return a node that answers observe(uint32[]) of a pool with these cumulatives, or a revert."""
    return ScriptedTransport(eth_call=answer)


def observed(ticks: tuple[int, int], seconds_x128: tuple[int, int]) -> str:
    words = (64, 160, 2, ticks[0] % 2**256, ticks[1] % 2**256, 2, *seconds_x128)
    return "0x" + b"".join(uint_word(word) for word in words).hex()


POOL: Pool = v3_pool(token("A"), token("B"), 2)
AT = Head(1, 9, "0x" + "11" * 32, 10_000, 1)


def mean(ticks: tuple[int, int], seconds_x128: tuple[int, int], window_s: int = 100) -> Any:
    return past_twaps(observing(observed(ticks, seconds_x128)), [POOL], AT, [9_000], window_s)[9_000][0]


@pytest.mark.parametrize(
    ("before", "after", "tick"),
    [
        pytest.param(0, 100, 1, id="whole tick"),
        pytest.param(0, 99, 0, id="part of a tick"),
        pytest.param(0, -100, -1, id="whole tick down"),
        pytest.param(0, -101, -2, id="part of a tick down"),
        pytest.param(0, -1, -1, id="one down"),
        pytest.param(-500, -800, -3, id="both negative"),
        pytest.param(700, -300, -10, id="from positive to negative"),
        pytest.param(-200, 300, 5, id="from negative to positive"),
    ],
)
def test_mean_tick__is_the_difference_rounded_down(before: int, after: int, tick: int) -> None:
    assert mean((before, after), (0, 2**64)).twap_tick == tick


def test_a_mean_liquidity_is_harmonic_over_the_window() -> None:
    """OracleLibrary.consult: window · (2^160 − 1) / (seconds per liquidity · 2^32)."""
    assert mean((0, 0), (5, 5 + (100 << 128) // 10**18)).twap_liquidity == 100 * (2**160 - 1) // (((100 << 128) // 10**18) << 32)


def test_seconds_per_liquidity_may_overflow_within_the_window() -> None:
    seconds = (100 << 128) // 10**18
    assert mean((0, 0), (2**160 - 1, seconds - 1)).twap_liquidity == mean((0, 0), (0, seconds)).twap_liquidity


def test_a_mean_liquidity_ends_at_128_bits() -> None:
    assert mean((0, 0), (0, 1)).twap_liquidity == 2**128 - 1


def test_a_window_without_any_second_per_liquidity_has_no_mean() -> None:
    assert past_twaps(observing(observed((0, 100), (7, 7))), [POOL], AT, [9_000], 100) == {9_000: ()}


def test_window_ends__are_read_in_seconds_before_the_block() -> None:
    line = observing(MEAN)
    (past_mean,) = past_twaps(line, [POOL], AT, [9_000], 100)[9_000]
    assert past_mean.twap_window_s == 100
    assert line.calls[0][1][0]["data"] == "0x883bdbfd" + "".join(f"{word:064x}" for word in (32, 2, 1_100, 1_000))


@pytest.mark.parametrize(("end_s", "request_count"), [(10_000, 1), (10_001, 0)])
def test_no_window_that_ends_after_the_block_is_asked_about(end_s: int, request_count: int) -> None:
    line = observing(MEAN)
    past_twaps(line, [POOL], AT, [end_s], 100)
    assert len(line.calls) == request_count


MEAN = observed((0, 100), (0, 2**64))
WINDOW_ENDS_S = list(range(9_900, 0, -100))
OTHER_POOL: Pool = v3_pool(token("C"), token("D"), 2)


def past_of(answer_of: Callable[[str, int], object], *pools: Pool) -> tuple[Counter[str], int]:
    """Return how many windows each pool has by a node that answers by pool and index of the window, and how many calls it got."""

    def answer(params: list[Any]) -> object:
        window_end_s = AT.timestamp_s - int(params[0]["data"][-64:], 16)
        return answer_of(params[0]["to"], WINDOW_ENDS_S.index(window_end_s))

    line = observing(answer)
    means = past_twaps(line, pools, AT, WINDOW_ENDS_S, 100)
    return Counter(mean_pool.address for mean_pools in means.values() for mean_pool in mean_pools), len(line.calls)


@pytest.mark.parametrize("failing_window", [0, 46, 47, 48])
def test_window_that_a_node_cannot_read__is_not_taken_for_old(failing_window: int) -> None:
    limited = RpcFault(-32005, "limit exceeded")
    with pytest.raises(Retryable, match="limit exceeded"):
        past_of(lambda _, window: limited if window == failing_window else MEAN, POOL)


def test_window_without_liquidity__does_not_end_the_pool() -> None:
    without_mean = observed((0, 100), (7, 7))
    counts, _ = past_of(lambda _, window: without_mean if window == 47 else MEAN, POOL)
    assert counts == {POOL.address: len(WINDOW_ENDS_S) - 1}


@pytest.mark.parametrize("old_from", [0, 1, 47, 48, 60])
def test_windows_older_than_the_observations__are_asked_to_the_end_of_their_page(old_from: int) -> None:
    old = RpcFault(3, "execution reverted: OLD" if old_from else "OLD")
    counts, call_count = past_of(lambda _, window: old if window >= old_from else MEAN, POOL)
    assert counts[POOL.address] == counts.total() == old_from
    assert call_count == (48 if old_from < 48 else 96)


def test_pools__share_the_bound_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TWAP_REQUESTS", 2)
    counts, _ = past_of(lambda *_: MEAN, POOL, OTHER_POOL)
    assert counts == {POOL.address: 48, OTHER_POOL.address: 48}
