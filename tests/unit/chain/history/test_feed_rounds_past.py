"""Rounds of a feed whose proxy has had several aggregators: read backwards over its phases, within bounds."""

from __future__ import annotations

from typing import Any

import pytest

from agent.chain import history
from agent.chain.history import PastRound, past_rounds
from agent.chain.rpc import RpcFault
from agent.errors import Retryable
from tests.support.chain_reads.feed_proxies import FEED, HEAD, FeedProxy


def test_rounds_are_read_back_over_the_phases_of_the_proxy() -> None:
    proxy = FeedProxy([(100, 1), (200, 2)], [(300, 3), None, (400, 4)], [(500, 5), (600, 6)])
    rounds, whole = past_rounds(proxy, FEED, HEAD, 150)
    assert rounds == tuple(PastRound(at_s, answer) for at_s, answer in ((100, 1), (200, 2), (300, 3), (400, 4), (500, 5), (600, 6)))
    assert whole
    assert past_rounds(proxy, FEED, HEAD, 450)[0] == (PastRound(400, 4), PastRound(500, 5), PastRound(600, 6))


def test_rounds_missing_from_the_future_or_unordered__are_left_out() -> None:
    proxy = FeedProxy([(100, 1), (200, 0), (300, -5), (HEAD.timestamp_s + 1, 7), (50, 8), (400, 9)])
    rounds, whole = past_rounds(proxy, FEED, HEAD, 10)
    assert rounds == (PastRound(100, 1), PastRound(400, 9))
    assert not whole


def test_no_more_is_asked_than_the_bound_and_it_is_said() -> None:
    many: list[tuple[int, int] | None] = [(1_000 + number, 5) for number in range(history.ROUNDS_PER_REQUEST * (history.MAX_REQUESTS + 5))]
    proxy = FeedProxy(many)
    rounds, whole = past_rounds(proxy, FEED, HEAD, 1_000)
    assert not whole
    assert proxy.request_count == history.MAX_REQUESTS + 1
    assert len(rounds) == history.ROUNDS_PER_REQUEST * history.MAX_REQUESTS


def test_a_feed_that_is_no_proxy_ends_at_its_first_round() -> None:
    class Plain(FeedProxy):
        def answer_of(self, to: str, data: bytes) -> Any:
            if data[:4] == history.GET_ROUND_DATA:
                number = int.from_bytes(data[4:36], "big")
                return self._round(number, self.phases[0][number - 1] or (0, 0))
            assert data[:4] not in (history.PHASE_AGGREGATORS, history.LATEST_ROUND)
            return self._round(len(self.phases[0]), self.phases[0][-1] or (0, 0))

    rounds, whole = past_rounds(Plain([(100, 1), (200, 2)]), FEED, HEAD, 50)
    assert rounds == (PastRound(100, 1), PastRound(200, 2))
    assert not whole


NODE_FAULTS = [
    pytest.param(RpcFault(-32005, "limit exceeded"), id="limit of the node"),
    pytest.param(RpcFault(429, "too many requests"), id="limit of the service"),
    pytest.param(RpcFault(-32000, "header not found"), id="no state"),
    pytest.param(RpcFault(-32000, "EVM error: database error"), id="database of the node"),
]
REVERTS = [
    pytest.param(RpcFault(3, "No data present"), id="by its code"),
    pytest.param(RpcFault(-32000, "execution reverted: No data present"), id="by its text"),
    pytest.param(RpcFault(-32000, "VM error", "0x08c379a0"), id="by its data"),
]


class Failing(FeedProxy):
    """A proxy of three phases whose node answers calls with this selector and number with a fault."""

    def __init__(self, fault: RpcFault | None, selector: bytes, number: int) -> None:
        super().__init__([(100, 1), (200, 2)], [(300, 3), (400, 4), (500, 5)], [(600, 6)])
        self.fault = fault
        self.failing_call = selector, number

    def answer_of(self, to: str, data: bytes) -> Any:
        number = int.from_bytes(data[4:36], "big")
        return self.fault if (data[:4], number) == self.failing_call else super().answer_of(to, data)


ROUND_4 = (2 << 64) | 2


@pytest.mark.parametrize("fault", NODE_FAULTS)
@pytest.mark.parametrize(
    ("selector", "number"),
    [
        pytest.param(history.GET_ROUND_DATA, ROUND_4, id="a round"),
        pytest.param(history.PHASE_AGGREGATORS, 2, id="an aggregator"),
        pytest.param(history.LATEST_ROUND, 0, id="its last round"),
    ],
)
def test_rounds_that_a_node_cannot_read__are_not_skipped(fault: RpcFault, selector: bytes, number: int) -> None:
    with pytest.raises(Retryable, match="refused eth_call of a feed"):
        past_rounds(Failing(fault, selector, number), FEED, HEAD, 150)


@pytest.mark.parametrize("fault", REVERTS)
def test_round_that_reverts__was_skipped_by_the_aggregator(fault: RpcFault) -> None:
    rounds, reaches_back = past_rounds(Failing(fault, history.GET_ROUND_DATA, ROUND_4), FEED, HEAD, 350)
    assert rounds == (PastRound(300, 3), PastRound(500, 5), PastRound(600, 6))
    assert reaches_back


@pytest.mark.parametrize("fault", REVERTS)
@pytest.mark.parametrize(("selector", "number"), [(history.PHASE_AGGREGATORS, 2), (history.LATEST_ROUND, 0)])
def test_phase_that_reverts__ends_the_rounds_without_a_hole(fault: RpcFault, selector: bytes, number: int) -> None:
    assert past_rounds(Failing(fault, selector, number), FEED, HEAD, 150) == ((PastRound(600, 6),), False)


@pytest.mark.parametrize("number", [(1 << 64) | 1, ROUND_4])
def test_null_in_place_of_a_round__is_no_revert(number: int) -> None:
    with pytest.raises(Retryable, match="is not 160 bytes"):
        past_rounds(Failing(None, history.GET_ROUND_DATA, number), FEED, HEAD, 150)


def test_phase_without_rounds__is_passed_over() -> None:
    proxy = FeedProxy([(100, 1), (200, 2)], [], [(600, 6)])
    assert past_rounds(proxy, FEED, HEAD, 150) == ((PastRound(100, 1), PastRound(200, 2), PastRound(600, 6)), True)
