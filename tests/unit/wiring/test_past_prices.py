"""Tests of agent/wiring/past_prices.py: why prices of a feed do not reach back, and hours without one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.amm.v3.pool import V3Pool
from agent.chain.history import PastRound
from agent.model import CodeHash, PriceSource
from agent.wiring import past_prices
from tests.support.builders import NOW_S, step_input, token, v3_pool
from tests.support.constants import DAY_S
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

HOUR_ENDS_S = [NOW_S, NOW_S - 3_600, NOW_S - 7_200]


@pytest.mark.parametrize(
    ("short_symbols", "faults"),
    [
        ([], []),
        (["USDC"], ["the feed of USDC has no earlier rounds"]),
        (["WETH"], ["the feed of WETH has no earlier rounds"]),
        (["USDC", "WETH"], ["the feed of USDC has no earlier rounds", "the feed of WETH has no earlier rounds"]),
    ],
    ids=["none", "numeraire", "asset", "both"],
)
def test_feed_prices__name_each_feed_that_does_not_reach_back(
    monkeypatch: pytest.MonkeyPatch, short_symbols: list[str], faults: list[str]
) -> None:
    step = step_input(prices={"WETH": 2_000, "USDC": 1}, kinds=[PriceSource.FEED])
    short_feeds = [step.portfolio.feed(token(symbol).address) for symbol in short_symbols]

    def fake_past_rounds(_transport: object, feed: str, _head: object, _since_s: int) -> tuple[list[PastRound], bool]:
        answer = next(feed_round.answer for feed_round in step.snapshot.feeds if feed_round.feed == feed)
        return [PastRound(NOW_S - 60, answer)], feed not in short_feeds

    monkeypatch.setattr(past_prices, "past_rounds", fake_past_rounds)
    context = cast(Any, SimpleNamespace(transport=None))
    (fetched_prices,) = past_prices._fetch_from_feeds(context, step, [token("WETH")], HOUR_ENDS_S)
    assert len(fetched_prices.points) == 1
    assert [fault for fault in fetched_prices.missing_reason.split("; ") if fault] == [
        f"{fault}, or too many for one fetch" for fault in faults
    ]


@pytest.mark.parametrize(
    ("answers", "hours_ago"),
    [
        pytest.param((2_000, 100), (2,), id="at the minimum"),
        pytest.param((2_000, 9_000), (2,), id="at the maximum"),
        pytest.param((2_000, 101), (2, 1, 0), id="one above the minimum"),
        pytest.param((100, 2_000), (1, 0), id="first at the minimum"),
    ],
)
def test_feed_prices__have_none_while_a_round_is_at_a_bound(
    monkeypatch: pytest.MonkeyPatch, answers: tuple[int, int], hours_ago: tuple[int, ...]
) -> None:
    """A round clipped at a bound says nothing about the price, and ends the round before it."""
    step = step_input(prices={"WETH": 2_000, "USDC": 1}, kinds=[PriceSource.FEED])
    weth_feed = step.portfolio.feed(token("WETH").address)
    usd = 10**8
    feeds = tuple(
        replace(feed_round, min_answer=100 * usd, max_answer=9_000 * usd) if feed_round.feed == weth_feed else feed_round
        for feed_round in step.snapshot.feeds
    )
    step = replace(step, snapshot=replace(step.snapshot, feeds=feeds))

    def fake_past_rounds(_transport: object, feed: str, _head: object, _since_s: int) -> tuple[list[PastRound], bool]:
        usd_prices = answers if feed == weth_feed else (1, 1)
        return [PastRound(NOW_S - (2 - index) * 3_600, price * usd) for index, price in enumerate(usd_prices)], True

    monkeypatch.setattr(past_prices, "past_rounds", fake_past_rounds)
    context = cast(Any, SimpleNamespace(transport=None))
    (fetched_prices,) = past_prices._fetch_from_feeds(context, step, [token("WETH")], HOUR_ENDS_S)
    assert [point.at_s for point in fetched_prices.points] == [NOW_S - hours * 3_600 for hours in hours_ago]


@pytest.mark.parametrize("stale_symbols", [["WETH"], ["USDC"], ["WETH", "USDC"]], ids=["asset", "numeraire", "both"])
def test_feed_prices__without_a_fresh_round_say_so(monkeypatch: pytest.MonkeyPatch, stale_symbols: list[str]) -> None:
    step = step_input(prices={"WETH": 2_000, "USDC": 1}, kinds=[PriceSource.FEED])
    stale_feeds = [step.portfolio.feed(token(symbol).address) for symbol in stale_symbols]

    def fake_past_rounds(_transport: object, feed: str, _head: object, _since_s: int) -> tuple[list[PastRound], bool]:
        age_s = 100 * DAY_S if feed in stale_feeds else 3 * 3_600
        return [PastRound(NOW_S - age_s, 10**8)], True

    monkeypatch.setattr(past_prices, "past_rounds", fake_past_rounds)
    context = cast(Any, SimpleNamespace(transport=None))
    (fetched_prices,) = past_prices._fetch_from_feeds(context, step, [token("WETH")], HOUR_ENDS_S)
    assert fetched_prices.points == ()
    assert mentions(fetched_prices.missing_reason, "WETH", "USDC", "reference.feed_max_age")


POOL = v3_pool(WETH, USDC, 2_000)


@pytest.mark.parametrize(
    ("pools", "pins", "reason"),
    [
        pytest.param([POOL], (), f"{POOL.address}: it is not pinned: run trimtab trust", id="not pinned"),
        pytest.param(
            [POOL],
            (CodeHash(POOL.address, "0x" + "ab" * 32),),
            f"{POOL.address}: its code differs from the pinned code: find out why before trimtab trust",
            id="other code",
        ),
        pytest.param([], (), "no pool keeps observations", id="no pool"),
    ],
)
def test_pool_prices__say_why_no_pool_counts(
    monkeypatch: pytest.MonkeyPatch, pools: list[V3Pool], pins: tuple[CodeHash, ...], reason: str
) -> None:
    step = step_input(pools=pools, kinds=[PriceSource.TWAP])
    step = replace(step, reference=replace(step.reference, twap_pools=pins))
    monkeypatch.setattr(past_prices, "past_twaps", lambda *_arguments: {})
    context = cast(Any, SimpleNamespace(transport=None))
    (fetched_prices,) = past_prices._fetch_pool_twaps(context, step, [WETH], HOUR_ENDS_S)
    assert fetched_prices.missing_reason == reason
