"""Chain history: past rounds of feeds, past TWAPs, and the wallet's transactions of 24 hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.amm.v3.pool import V3Pool
from agent.chain.endpoints import EndpointPool
from agent.chain.lens import LATEST_ROUND_DATA, to_signed, uint_word
from agent.chain.quorum import confirmed_value
from agent.chain.receipts import parse_receipt
from agent.chain.rpc import (
    RpcCall,
    RpcFault,
    Transport,
    hex_data,
    parse_bytes,
    parse_quantity,
    parse_recipient,
    require_result,
)
from agent.errors import ErrorCode, Retryable, TrimtabError
from agent.model import DataFee, Head, Pool, Receipt
from agent.signing.calldata import address_from_word

GET_ROUND_DATA = bytes.fromhex("9a6fc8f5")
PHASE_AGGREGATORS = bytes.fromhex("c1597304")
LATEST_ROUND = bytes.fromhex("668a0f02")
PHASE_BITS = 64
"""A proxy's round id is the phase of its aggregator, shifted by 64 bits, plus the aggregator's
round id (Chainlink docs, data feeds)."""
ROUNDS_PER_REQUEST = 100
MOST_REQUESTS = 80
"""Maximum number of requests: 8,000 rounds, or eleven months of hourly rounds."""
MOST_PHASES = 20
_ROUND_BYTES = 160


@dataclass(frozen=True, slots=True)
class PastRound:
    """A complete round, and its answer in the feed's decimals, valid from `at_s` on."""

    at_s: int
    answer: int


def past_rounds(
    line: Transport, feed: str, head: Head, since_s: int
) -> tuple[tuple[PastRound, ...], bool]:
    """Return the rounds since `since_s` and the one before, oldest first, and whether they reach
    back that far. Rounds without an answer are skipped. If `line` queries several operators, only
    agreed answers count.
    """
    block_ref: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    latest_round = _round(
        require_result(
            line.name,
            "eth_call of a feed",
            line.batch([_call(feed, LATEST_ROUND_DATA, block_ref)])[0],
        )
    )
    rounds: dict[int, PastRound] = {}
    for request_count, ids in enumerate(_round_ids(line, feed, latest_round[0], block_ref), 1):
        for answer in line.batch(
            [_call(feed, GET_ROUND_DATA + uint_word(number), block_ref) for number in ids]
        ):
            if isinstance(answer, RpcFault):
                continue  # the aggregator skipped this round
            number, price, started_s, updated_s = _round(answer)
            if price > 0 and started_s > 0 and 0 < updated_s <= head.timestamp_s:
                rounds[number] = PastRound(updated_s, price)
        if rounds and min(past_round.at_s for past_round in rounds.values()) < since_s:
            return _rounds_since(rounds, since_s), True
        if request_count == MOST_REQUESTS:
            break
    return _rounds_since(rounds, since_s), False


def _round_ids(
    line: Transport, feed: str, latest: int, block_ref: dict[str, object]
) -> Iterator[Sequence[int]]:
    """Yield pages of round ids, newest first, down to the first round of the first readable
    phase.
    """
    phase, newest = latest >> PHASE_BITS, latest & (2**PHASE_BITS - 1)
    for _ in range(MOST_PHASES):
        while newest > 0:
            page = range(newest, max(newest - ROUNDS_PER_REQUEST, 0), -1)
            yield [phase << PHASE_BITS | number for number in page]
            newest = max(newest - ROUNDS_PER_REQUEST, 0)
        phase -= 1
        if phase <= 0:
            return
        newest = _last_round(line, feed, phase, block_ref)


def _last_round(line: Transport, feed: str, phase: int, block_ref: dict[str, object]) -> int:
    """Return the last round of an aggregator that the feed's proxy replaced; 0 if it is unknown."""
    aggregator_answer = line.batch([_call(feed, PHASE_AGGREGATORS + uint_word(phase), block_ref)])[
        0
    ]
    if isinstance(aggregator_answer, RpcFault):
        return 0
    aggregator = int.from_bytes(parse_bytes(aggregator_answer, "an aggregator", 32), "big")
    if not 0 < aggregator < 2**160:
        return 0
    answer = line.batch([_call(address_from_word(aggregator), LATEST_ROUND, block_ref)])[0]
    if isinstance(answer, RpcFault):
        return 0
    number = int.from_bytes(parse_bytes(answer, "a round", 32), "big")
    last_round: int = number & (2**PHASE_BITS - 1)
    return last_round


def _rounds_since(rounds: dict[int, PastRound], since_s: int) -> tuple[PastRound, ...]:
    """Return the rounds in order, from the last one before `since_s` on, omitting rounds whose time
    goes backwards.
    """
    rounds_in_time: list[PastRound] = []
    for _, past_round in sorted(rounds.items()):
        if not rounds_in_time or past_round.at_s >= rounds_in_time[-1].at_s:
            rounds_in_time.append(past_round)
    earlier = [past_round for past_round in rounds_in_time if past_round.at_s < since_s]
    return (
        *earlier[-1:],
        *(past_round for past_round in rounds_in_time if past_round.at_s >= since_s),
    )


def _call(to: str, data: bytes, block_ref: dict[str, object]) -> RpcCall:
    return ("eth_call", [{"to": to, "data": hex_data(data)}, block_ref])


def _round(answer: object) -> tuple[int, int, int, int]:
    """Return (round, answer, started, updated) of AggregatorV3Interface.getRoundData."""
    answer_bytes = parse_bytes(answer, "a round of a feed", _ROUND_BYTES)
    number, price, started_s, updated_s, _ = (
        int.from_bytes(answer_bytes[start : start + 32], "big")
        for start in range(0, _ROUND_BYTES, 32)
    )
    if number >> 80 or started_s >> 63 or updated_s >> 63:
        raise Retryable("the feed's answer is not a round")
    return number, to_signed(price), started_s, updated_s


OBSERVE = bytes.fromhex("883bdbfd")
TWAPS_PER_REQUEST = 48
TWAP_MOST_REQUESTS = 60
"""Maximum number of requests: four months of hours for all pools together. Most observations reach
back days at most.
"""
_UINT160_MAX = 2**160 - 1
_WORDS = 8


def past_twaps(
    line: Transport, pools: Sequence[Pool], head: Head, ends_s: Sequence[int], window_s: int
) -> Mapping[int, tuple[Pool, ...]]:
    """Return the V3 pools, keyed by each window's end time, with mean tick and harmonic mean
    liquidity (UniswapV3Pool.observe). `ends_s` are chain seconds, newest first; each window has
    `window_s`. A pool is not queried beyond its observations.
    """
    block_ref: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    pools_by_end: dict[int, list[V3Pool]] = {}
    request_count = 0
    for pool in [pool for pool in pools if isinstance(pool, V3Pool)]:
        for start in range(0, len(ends_s), TWAPS_PER_REQUEST):
            page = [
                end_s
                for end_s in ends_s[start : start + TWAPS_PER_REQUEST]
                if end_s <= head.timestamp_s
            ]
            if not page or request_count == TWAP_MOST_REQUESTS:
                break
            request_count += 1
            answers = line.batch(
                [
                    _twap_call(pool.address, head.timestamp_s - end_s, window_s, block_ref)
                    for end_s in page
                ]
            )
            twaps = [
                (end_s, _twap(pool, answer, window_s))
                for end_s, answer in zip(page, answers, strict=True)
            ]
            for end_s, mean_pool in twaps:
                pools_by_end.setdefault(end_s, []).extend([] if mean_pool is None else [mean_pool])
            if twaps[-1][1] is None:  # reverted with OLD, so earlier windows would too
                break
    return {end_s: tuple(mean_pools) for end_s, mean_pools in pools_by_end.items()}


def _twap_call(pool: str, ago_s: int, window_s: int, block_ref: dict[str, object]) -> RpcCall:
    """Return the call observe(uint32[]) for both ends of the window."""
    data = OBSERVE + uint_word(32) + uint_word(2) + uint_word(ago_s + window_s) + uint_word(ago_s)
    return ("eth_call", [{"to": pool, "data": hex_data(data)}, block_ref])


def _twap(pool: V3Pool, answer: object, window_s: int) -> V3Pool | None:
    """Return the pool with OracleLibrary.consult over the window: mean tick rounded towards minus
    infinity, harmonic mean liquidity.
    """
    if isinstance(answer, RpcFault):
        return None
    answer_bytes = parse_bytes(answer, "observations of a pool", 32 * _WORDS)
    _, _, _, tick_before, tick_after, _, seconds_before, seconds_after = (
        int.from_bytes(answer_bytes[start : start + 32], "big")
        for start in range(0, 32 * _WORDS, 32)
    )
    tick_sum = to_signed(tick_after) - to_signed(tick_before)
    seconds = (seconds_after - seconds_before) % 2**160
    if seconds == 0:
        return None
    liquidity = min(window_s * _UINT160_MAX // (seconds << 32), 2**128 - 1)
    return replace(
        pool, twap_tick=tick_sum // window_s, twap_liquidity=liquidity, twap_window_s=window_s
    )


DAY_S = 86_400
MOST_SENT = 128
"""Maximum number of a day's transactions that are read; with more, the day is unknown."""
MAX_SCANNED_BLOCKS = 256
"""Maximum number of whole blocks read to locate transactions if a node has no archive state."""
CALLS_PER_BATCH = 32
HEADERS_PER_PROBE = 15


class HistoryUnavailable(Retryable):
    """The chain cannot provide the history: archive state or blocks are missing, or there are too
    many transactions.
    """


@dataclass(frozen=True, slots=True)
class MinedTx:
    """A mined transaction of the wallet, and the time of its block. `answers` are those of the
    price feeds just before the transaction; empty if it transferred no token, or if the node lacks
    that state.
    """

    nonce: int
    to: str
    value_wei: int
    chain_s: int
    receipt: Receipt
    answers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RecentTransactions:
    """Transactions, oldest first. `since_block` is the first block of the 24 hours."""

    since_block: int
    sent: tuple[MinedTx, ...]


def recent_transactions(
    endpoint_pool: EndpointPool, owner: str, head: Head, nonce: int, feeds: Sequence[str] = ()
) -> RecentTransactions:
    """Return the wallet's transactions of the 24 h up to `head`, agreed by enough operators;
    `nonce` is its next nonce there.

    Takes at most eighty requests per endpoint, and four more for each of `feeds`, whose past
    answers are used to value the transactions. Raises HistoryUnavailable, or Retryable if too few
    answer.
    """
    poll = endpoint_pool.ask(
        lambda line: _transactions_or_reason(
            line, owner, head, nonce, feeds, endpoint_pool.data_fee
        )
    )
    votes = [
        (line.operator, result)
        for line, result in poll.answers.items()
        if isinstance(result, RecentTransactions)
    ]
    if not votes:
        reasons = [result for result in poll.answers.values() if isinstance(result, str)] + [
            failure.message for failure in poll.failures.values()
        ]
        raise HistoryUnavailable(reasons[0] if reasons else "no endpoint answers")
    if len({operator for operator, _ in votes}) < endpoint_pool.min_operators:
        raise HistoryUnavailable(
            "too few operators can report the wallet's last 24 h", code=ErrorCode.OPERATORS
        )
    return confirmed_value(
        votes, endpoint_pool.min_operators, "the wallet's transactions of the last 24 h"
    )


def _transactions_or_reason(
    line: Transport,
    owner: str,
    head: Head,
    nonce: int,
    feeds: Sequence[str],
    data_fee: DataFee,
) -> RecentTransactions | str:
    try:
        return recent_transactions_from(line, owner, head, nonce, feeds, data_fee)
    except HistoryUnavailable as error:
        return error.message


def recent_transactions_from(
    line: Transport,
    owner: str,
    head: Head,
    nonce: int,
    feeds: Sequence[str] = (),
    data_fee: DataFee = DataFee.PLAIN,
) -> RecentTransactions:
    """Return the transactions as reported by one endpoint. Raises HistoryUnavailable or Retryable."""
    since_block = _first_block(line, head, head.timestamp_s - DAY_S)
    blocks = _blocks(line, owner, since_block, head, nonce)
    sent = _receipts(line, owner, blocks, data_fee)
    nonces = [tx.nonce for tx in sent]
    is_complete = nonces == list(range(nonce - len(nonces), nonce))
    if not is_complete or (since_block == 0 and len(nonces) != nonce):
        raise HistoryUnavailable(
            f"some of the wallet's transactions up to nonce {nonce} were not found in the last 24 h",
            code=ErrorCode.TRANSACTIONS_MISSING,
        )
    return RecentTransactions(since_block, _with_feed_answers(line, owner, sent, feeds))


def _first_block(line: Transport, head: Head, since_s: int) -> int:
    """Return the first block after `since_s`, by header time."""
    (genesis,) = _require_answers(
        line, [("eth_getBlockByNumber", ["0x0", False])], "the header of block 0"
    )
    if _time(genesis) > since_s:
        return 0
    low, high = 0, head.number  # Invariant: `low` is not after `since_s`, `high` is.
    while high - low > 1:
        stride = max(1, (high - low) // (HEADERS_PER_PROBE + 1))
        heights = list(range(low + stride, high, stride))[:HEADERS_PER_PROBE]
        headers = _require_answers(
            line,
            [("eth_getBlockByNumber", [hex(height), False]) for height in heights],
            "old headers",
        )
        for height, header in zip(heights, headers, strict=True):
            if _time(header) > since_s:
                high = height
                break
            low = height
    return high


def _blocks(
    line: Transport, owner: str, since_block: int, head: Head, nonce: int
) -> list[Mapping[str, Any]]:
    """Return whole blocks that contain every transaction of `owner` from block `since_block` on."""
    if nonce == 0:
        return []
    try:
        return _whole_blocks(line, _heights(line, owner, since_block, head, nonce))
    except HistoryUnavailable:
        if head.number - since_block >= MAX_SCANNED_BLOCKS:
            raise
    return _whole_blocks(line, list(range(since_block, head.number + 1)))


def _heights(line: Transport, owner: str, since_block: int, head: Head, nonce: int) -> list[int]:
    """Return the blocks that change the wallet's nonce, by bisection over archive state."""
    nonce_before = 0 if since_block == 0 else _nonces(line, owner, [since_block - 1])[0]
    if nonce - nonce_before > MOST_SENT:
        raise HistoryUnavailable(
            f"the wallet sent {nonce - nonce_before} transactions in the last 24 h, more than"
            f" the {MOST_SENT} that can be read",
            code=ErrorCode.TRANSACTIONS_MANY,
        )
    spans = (
        [(max(since_block - 1, 0), head.number, nonce_before, nonce)]
        if nonce > nonce_before
        else []
    )
    heights: list[int] = []
    while spans:
        middles = [(low + high) // 2 for low, high, _, _ in spans]
        halves = []
        for (low, high, first_nonce, last_nonce), middle, middle_nonce in zip(
            spans, middles, _nonces(line, owner, middles), strict=True
        ):
            halves += [
                (low, middle, first_nonce, middle_nonce),
                (middle, high, middle_nonce, last_nonce),
            ]
        changed_spans = [span for span in halves if span[3] > span[2]]
        heights += [high for low, high, _, _ in changed_spans if high - low <= 1]
        spans = [span for span in changed_spans if span[1] - span[0] > 1]
    return sorted({*heights, *([0] if since_block == 0 else [])})


def _nonces(line: Transport, owner: str, heights: Sequence[int]) -> list[int]:
    answers = []
    for start in range(0, len(heights), CALLS_PER_BATCH):
        page = heights[start : start + CALLS_PER_BATCH]
        answers += _require_answers(
            line,
            [("eth_getTransactionCount", [owner, hex(height)]) for height in page],
            "states of a day ago",
        )
    return [parse_quantity(answer, "nonce") for answer in answers]


def _whole_blocks(line: Transport, heights: Sequence[int]) -> list[Mapping[str, Any]]:
    blocks: list[Mapping[str, Any]] = []
    for start in range(0, len(heights), CALLS_PER_BATCH):
        calls: list[RpcCall] = [
            ("eth_getBlockByNumber", [hex(height), True])
            for height in heights[start : start + CALLS_PER_BATCH]
        ]
        for block in _require_answers(line, calls, "old blocks"):
            if not isinstance(block, Mapping) or not isinstance(block.get("transactions"), list):
                raise HistoryUnavailable(
                    "the endpoint has no old blocks", code=ErrorCode.OLD_BLOCKS
                )
            blocks.append(block)
    return blocks


def _receipts(
    line: Transport, owner: str, blocks: Sequence[Mapping[str, Any]], data_fee: DataFee
) -> tuple[MinedTx, ...]:
    """Return the wallet's transactions in these blocks with receipts, by nonce."""
    own_txs = [
        (tx, parse_quantity(block.get("timestamp"), "block timestamp"))
        for block in blocks
        for tx in block["transactions"]
        if isinstance(tx, Mapping) and str(tx.get("from", "")).lower() == owner.lower()
    ]
    if len(own_txs) > MOST_SENT:
        raise HistoryUnavailable(
            f"the wallet sent {len(own_txs)} transactions in the last 24 h, more than the"
            f" {MOST_SENT} that can be read"
        )
    hashes = [hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32)) for tx, _ in own_txs]
    receipts: list[Any] = []
    for start in range(0, len(hashes), CALLS_PER_BATCH):
        receipts += _require_answers(
            line,
            [
                ("eth_getTransactionReceipt", [tx_hash])
                for tx_hash in hashes[start : start + CALLS_PER_BATCH]
            ],
            "old receipts",
        )
    sent = []
    for (tx, chain_s), tx_hash, receipt in zip(own_txs, hashes, receipts, strict=True):
        if not isinstance(receipt, Mapping):
            raise HistoryUnavailable("the endpoint has no old receipts")
        sent.append(
            MinedTx(
                nonce=parse_quantity(tx.get("nonce"), "nonce"),
                to=parse_recipient(tx.get("to")),
                value_wei=parse_quantity(tx.get("value", "0x0"), "value"),
                chain_s=chain_s,
                receipt=parse_receipt(receipt, tx_hash, data_fee),
            )
        )
    return tuple(sorted(sent, key=lambda tx: tx.nonce))


def _with_feed_answers(
    line: Transport, owner: str, sent: Sequence[MinedTx], feeds: Sequence[str]
) -> tuple[MinedTx, ...]:
    """Return the transactions with every feed's answer in the preceding block, without answers if
    one is missing.
    """
    if not feeds:
        return tuple(sent)
    transfers = [tx for tx in sent if any(tx.receipt.net(owner).values())]
    data = hex_data(LATEST_ROUND_DATA)
    calls: list[RpcCall] = [
        ("eth_call", [{"to": feed, "data": data}, hex(tx.receipt.block_number - 1)])
        for tx in transfers
        for feed in feeds
    ]
    prices: list[int | None] = []
    for start in range(0, len(calls), CALLS_PER_BATCH):
        prices += [_answer(reply) for reply in line.batch(calls[start : start + CALLS_PER_BATCH])]
    answers: dict[str, tuple[tuple[str, int], ...]] = {}
    for number, tx in enumerate(transfers):
        page = prices[number * len(feeds) : (number + 1) * len(feeds)]
        feed_answers = [
            (feed, price) for feed, price in zip(feeds, page, strict=True) if price is not None
        ]
        if len(feed_answers) == len(feeds):
            answers[tx.receipt.tx_hash] = tuple(feed_answers)
    return tuple(replace(tx, answers=answers.get(tx.receipt.tx_hash, tx.answers)) for tx in sent)


def _answer(reply: object) -> int | None:
    """Return the answer of latestRoundData; None if the node has none."""
    try:
        raw = b"" if isinstance(reply, RpcFault) else parse_bytes(reply, "a price feed")
    except Retryable:
        return None
    answer = int.from_bytes(raw[32:64], "big", signed=True) if len(raw) == _ROUND_BYTES else 0
    return answer if answer > 0 else None


def _require_answers(line: Transport, calls: Sequence[RpcCall], what: str) -> list[Any]:
    """Return the answers of one batch. Raises HistoryUnavailable if the node refuses one."""
    try:
        answers = line.batch(calls)
    except Retryable:
        raise
    except TrimtabError as error:
        raise HistoryUnavailable(
            f"the endpoint cannot report {what}: {error.message}", code=ErrorCode.OLD_BLOCKS
        ) from None
    fault = next((answer for answer in answers if isinstance(answer, RpcFault)), None)
    if fault is not None:
        raise HistoryUnavailable(
            f"{line.name} cannot report {what}: {fault.message}", code=ErrorCode.OLD_BLOCKS
        )
    return answers


def _time(header: object) -> int:
    if not isinstance(header, Mapping):
        raise HistoryUnavailable("the endpoint has no old headers")
    return parse_quantity(header.get("timestamp"), "block timestamp")
