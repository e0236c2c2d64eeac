"""Rounds of a feed whose proxy has had several aggregators: read backwards over its phases, within bounds."""

from __future__ import annotations

from typing import Any

from agent.chain import history
from agent.chain.history import PastRound, past_rounds
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
