"""What a price feed said before: its rounds read backwards over all phases of its proxy, within a bounded number of requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.chain.abi import LATEST_ROUND_DATA, signed, word
from agent.chain.rpc import Transport
from agent.chain.wire import Call, RpcFault, hex_data, octets, only
from agent.chain.words import address_of
from agent.errors import Retryable
from agent.model import Head

GET_ROUND_DATA = bytes.fromhex("9a6fc8f5")
PHASE_AGGREGATORS = bytes.fromhex("c1597304")
LATEST_ROUND = bytes.fromhex("668a0f02")
PHASE_BITS = 64
"""A proxy's round is the phase of its aggregator, shifted by 64 bits, and that aggregator's own round (Chainlink docs, data feeds)."""
AT_ONCE = 100
MOST_REQUESTS = 80
"""8,000 rounds: over a year of one an hour, three months of one every quarter of an hour."""
MOST_PHASES = 20
_ROUND_BYTES = 160


@dataclass(frozen=True, slots=True)
class PastRound:
    """A complete round: its answer in the feed's decimals from `at_s` on."""

    at_s: int
    answer: int


def past_rounds(line: Transport, feed: str, head: Head, since_s: int) -> tuple[tuple[PastRound, ...], bool]:
    """(rounds updated at or after `since_s`, and the one before it; whether they reach back so far), oldest first.

    Rounds that hold no answer are left out. What enough operators tell alike counts, where `line` asks several.
    """
    at: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    latest = _round(only(line.name, "eth_call of a feed", line.batch([_call(feed, LATEST_ROUND_DATA, at)])[0]))
    found: dict[int, PastRound] = {}
    for requests, ids in enumerate(_backwards(line, feed, latest[0], at), 1):
        for answer in line.batch([_call(feed, GET_ROUND_DATA + word(number), at) for number in ids]):
            if isinstance(answer, RpcFault):
                continue  # a round that the aggregator skipped
            number, price, started_s, updated_s = _round(answer)
            if price > 0 and started_s > 0 and 0 < updated_s <= head.timestamp_s:
                found[number] = PastRound(updated_s, price)
        if found and min(one.at_s for one in found.values()) < since_s:
            return _cut(found, since_s), True
        if requests == MOST_REQUESTS:
            break
    return _cut(found, since_s), False


def _backwards(line: Transport, feed: str, latest: int, at: dict[str, object]) -> Iterator[Sequence[int]]:
    """Numbers of rounds in pages, newest first, down to the first round of the first phase that can be asked."""
    phase, number = latest >> PHASE_BITS, latest & (2**PHASE_BITS - 1)
    for _ in range(MOST_PHASES):
        while number > 0:
            yield [phase << PHASE_BITS | one for one in range(number, max(number - AT_ONCE, 0), -1)]
            number = max(number - AT_ONCE, 0)
        phase -= 1
        if phase <= 0:
            return
        number = _last_of(line, feed, phase, at)


def _last_of(line: Transport, feed: str, phase: int, at: dict[str, object]) -> int:
    """The last round of an aggregator that the feed's proxy no longer names; 0 where it does not say."""
    named = line.batch([_call(feed, PHASE_AGGREGATORS + word(phase), at)])[0]
    if isinstance(named, RpcFault):
        return 0
    aggregator = int.from_bytes(octets(named, "an aggregator", 32), "big")
    if not 0 < aggregator < 2**160:
        return 0
    told = line.batch([_call(address_of(aggregator), LATEST_ROUND, at)])[0]
    return 0 if isinstance(told, RpcFault) else int.from_bytes(octets(told, "a round", 32), "big") & (2**PHASE_BITS - 1)


def _cut(found: dict[int, PastRound], since_s: int) -> tuple[PastRound, ...]:
    """In the order of rounds, times that go backwards left out, from the last one before `since_s` on."""
    rising: list[PastRound] = []
    for _, one in sorted(found.items()):
        if not rising or one.at_s >= rising[-1].at_s:
            rising.append(one)
    before = [one for one in rising if one.at_s < since_s]
    return (*before[-1:], *(one for one in rising if one.at_s >= since_s))


def _call(to: str, data: bytes, at: dict[str, object]) -> Call:
    return ("eth_call", [{"to": to, "data": hex_data(data)}, at])


def _round(answer: object) -> tuple[int, int, int, int]:
    """(round, answer, started, updated) of AggregatorV3Interface.getRoundData."""
    raw = octets(answer, "a round of a feed", _ROUND_BYTES)
    number, price, started_s, updated_s, _ = (int.from_bytes(raw[start : start + 32], "big") for start in range(0, _ROUND_BYTES, 32))
    if number >> 80 or started_s >> 63 or updated_s >> 63:
        raise Retryable("the feed's answer is not a round")
    return number, signed(price), started_s, updated_s
