"""What is asked of a price feed, and how its answers become a round: decimals, latest round, bounds of its aggregator."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.abi import AGGREGATOR, DECIMALS, LATEST_ROUND_DATA, MAX_ANSWER, MIN_ANSWER, signed
from agent.chain.lens import Answer, CallItem, Item, Status, ViaItem, uint, words
from agent.model import FeedRound, Quarantined

ITEMS = 4


def questions(feed: str) -> list[tuple[str, Item]]:
    """(name, item) in the order that `read` takes the answers in.

    A Chainlink proxy names its aggregator, which cuts answers off at two bounds; a feed without either says nothing of bounds.
    """
    return [
        ("decimals of feed", CallItem(feed, DECIMALS)),
        ("round of feed", CallItem(feed, LATEST_ROUND_DATA, longest=160, likely_gas=60_000)),
        ("least answer of feed", ViaItem(feed, AGGREGATOR, CallItem(feed, MIN_ANSWER))),
        ("largest answer of feed", ViaItem(feed, AGGREGATOR, CallItem(feed, MAX_ANSWER))),
    ]


def read(feed: str, answers: Sequence[Answer]) -> tuple[FeedRound | None, tuple[Quarantined, ...]]:
    """The latest round, or what could not be read of it."""
    asked = [name for name, _ in questions(feed)]
    decimals, latest = uint(answers[0], 8), _round(answers[1])
    bad = [(asked[0], decimals), (asked[1], latest), *((name, told) for name, told in zip(asked[2:], answers[2:], strict=True))]
    # Whether there are bounds is the feed's to say; whether there was gas to ask is not.
    lost = [(name, told) for at, (name, told) in enumerate(bad) if isinstance(told, Status) and (at < 2 or told is Status.UNREAD)]
    if isinstance(decimals, Status) or isinstance(latest, Status) or lost:
        return None, tuple(Quarantined(name, feed, told.why) for name, told in lost if isinstance(told, Status))
    round_id, answer, started_s, updated_s, answered_in = latest
    return FeedRound(feed, decimals, round_id, answer, started_s, updated_s, answered_in, _bound(answers[2]), _bound(answers[3])), ()


def _round(answer: Answer) -> tuple[int, int, int, int, int] | Status:
    """AggregatorV3Interface.latestRoundData: (uint80, int256, uint256, uint256, uint80)."""
    told = words(answer, 5)
    if isinstance(told, Status):
        return told
    round_id, price, started_s, updated_s, answered_in = told
    if round_id >> 80 or answered_in >> 80 or started_s >> 64 or updated_s >> 64:
        return Status.MALFORMED
    return round_id, signed(price), started_s, updated_s, answered_in


def _bound(answer: Answer) -> int | None:
    """A signed word; None where the feed has no such bound."""
    told = words(answer, 1)
    return None if isinstance(told, Status) else signed(told[0])
