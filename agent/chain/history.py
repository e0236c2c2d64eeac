"""Chain history: past rounds of feeds, past TWAPs, and the wallet's transactions of 24 hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.amm.v3.pool import V3Pool
from agent.chain.endpoints import EndpointPool
from agent.chain.lens import LATEST_ROUND_DATA, to_signed, uint_word
from agent.chain.pools.observations import OBSERVE_WORDS, mean_over, observe_calldata
from agent.chain.quorum import confirmed_value
from agent.chain.receipts import parse_receipt
from agent.chain.refusals import has_reverted
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
from agent.model import DataFeeKind, Head, Pool, Receipt
from agent.signing.calldata import address_from_word
from agent.units import DAY_S

GET_ROUND_DATA = bytes.fromhex("9a6fc8f5")
PHASE_AGGREGATORS = bytes.fromhex("c1597304")
LATEST_ROUND = bytes.fromhex("668a0f02")
PHASE_BITS = 64
"""A proxy's round id is the phase of its aggregator, shifted by 64 bits, plus the aggregator's
round id (Chainlink docs, data feeds)."""
ROUNDS_PER_REQUEST = 100
MAX_REQUESTS = 80
"""Maximum number of requests: 8,000 rounds, or eleven months of hourly rounds."""
MAX_PHASES = 20
_ROUND_BYTES = 160
_FEED_CALL_NAME = "eth_call of a feed"


@dataclass(frozen=True, slots=True)
class PastRound:
    """A complete round, and its answer in the feed's decimals, valid from `at_s` on."""

    at_s: int
    answer: int


def past_rounds(
    transport: Transport, feed: str, head: Head, since_s: int
) -> tuple[tuple[PastRound, ...], bool]:
    """Return the rounds since `since_s` and the one before, oldest first, and whether they reach
    back that far. Rounds without an answer are skipped, and those before a phase that cannot be read
    are not read. If `transport` queries several operators, only agreed answers count. Raises
    Retryable for a call that a node cannot run.
    """
    block_ref: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    (latest_answer,) = transport.batch([_feed_call(feed, LATEST_ROUND_DATA, block_ref)])
    latest_round = _parse_round(require_result(transport.name, _FEED_CALL_NAME, latest_answer))
    round_by_id: dict[int, PastRound] = {}
    for request_count, round_ids in enumerate(
        _round_id_pages(transport, feed, latest_round[0], block_ref), 1
    ):
        for answer in transport.batch(
            [
                _feed_call(feed, GET_ROUND_DATA + uint_word(round_id), block_ref)
                for round_id in round_ids
            ]
        ):
            if has_reverted(transport, answer, _FEED_CALL_NAME):
                continue  # the aggregator skipped this round
            round_id, price, started_s, updated_s = _parse_round(answer)
            if price > 0 and started_s > 0 and 0 < updated_s <= head.timestamp_s:
                round_by_id[round_id] = PastRound(updated_s, price)
        if round_by_id and min(past_round.at_s for past_round in round_by_id.values()) < since_s:
            return _rounds_since(round_by_id, since_s), True
        if request_count == MAX_REQUESTS:
            break
    return _rounds_since(round_by_id, since_s), False


def _round_id_pages(
    transport: Transport, feed: str, latest_round_id: int, block_ref: dict[str, object]
) -> Iterator[Sequence[int]]:
    """Yield pages of round ids, newest first, down to the first round of the proxy, or of the last
    phase in a row that can be read.
    """
    phase = latest_round_id >> PHASE_BITS
    newest_round_number = latest_round_id & (2**PHASE_BITS - 1)
    for _ in range(MAX_PHASES):
        while newest_round_number > 0:
            round_numbers = range(
                newest_round_number, max(newest_round_number - ROUNDS_PER_REQUEST, 0), -1
            )
            yield [phase << PHASE_BITS | round_number for round_number in round_numbers]
            newest_round_number = max(newest_round_number - ROUNDS_PER_REQUEST, 0)
        phase -= 1
        if phase <= 0:
            return
        last_round = _last_round(transport, feed, phase, block_ref)
        if last_round is None:
            return
        newest_round_number = last_round


def _last_round(
    transport: Transport, feed: str, phase: int, block_ref: dict[str, object]
) -> int | None:
    """Return the last round of an aggregator that the feed's proxy replaced; None if contracts do
    not say it.
    """
    (aggregator_answer,) = transport.batch(
        [_feed_call(feed, PHASE_AGGREGATORS + uint_word(phase), block_ref)]
    )
    if has_reverted(transport, aggregator_answer, _FEED_CALL_NAME):
        return None
    aggregator_number = int.from_bytes(parse_bytes(aggregator_answer, "an aggregator", 32), "big")
    if not 0 < aggregator_number < 2**160:
        return None
    (answer,) = transport.batch(
        [_feed_call(address_from_word(aggregator_number), LATEST_ROUND, block_ref)]
    )
    if has_reverted(transport, answer, _FEED_CALL_NAME):
        return None
    round_id = int.from_bytes(parse_bytes(answer, "a round", 32), "big")
    last_round: int = round_id & (2**PHASE_BITS - 1)
    return last_round


def _rounds_since(round_by_id: dict[int, PastRound], since_s: int) -> tuple[PastRound, ...]:
    """Return the rounds in order, from the last one before `since_s` on, omitting rounds whose time
    goes backwards.
    """
    rounds_in_time: list[PastRound] = []
    for _, past_round in sorted(round_by_id.items()):
        if not rounds_in_time or past_round.at_s >= rounds_in_time[-1].at_s:
            rounds_in_time.append(past_round)
    earlier_rounds = [past_round for past_round in rounds_in_time if past_round.at_s < since_s]
    return (
        *earlier_rounds[-1:],
        *(past_round for past_round in rounds_in_time if past_round.at_s >= since_s),
    )


def _feed_call(to: str, call_data: bytes, block_ref: dict[str, object]) -> RpcCall:
    return ("eth_call", [{"to": to, "data": hex_data(call_data)}, block_ref])


def _parse_round(answer: object) -> tuple[int, int, int, int]:
    """Return (round, answer, started, updated) of AggregatorV3Interface.getRoundData."""
    answer_bytes = parse_bytes(answer, "a round of a feed", _ROUND_BYTES)
    round_id, price, started_s, updated_s, _ = (
        int.from_bytes(answer_bytes[word_offset : word_offset + 32], "big")
        for word_offset in range(0, _ROUND_BYTES, 32)
    )
    if round_id >> 80 or started_s >> 63 or updated_s >> 63:
        raise Retryable("the feed's answer is not a round")
    return round_id, to_signed(price), started_s, updated_s


TWAPS_PER_REQUEST = 48
_OBSERVE_CALL_NAME = "eth_call of a pool's observations"
MAX_TWAP_REQUESTS = 60
"""Maximum number of requests: four months of hours for all pools together. Most observations reach
back days at most.
"""


def past_twaps(
    transport: Transport,
    pools: Sequence[Pool],
    head: Head,
    window_ends_s: Sequence[int],
    window_s: int,
) -> Mapping[int, tuple[Pool, ...]]:
    """Return the V3 pools, keyed by each window's end time, with mean tick and harmonic mean
    liquidity (UniswapV3Pool.observe). `window_ends_s` are chain seconds, newest first; each window
    has `window_s`. A pool is not queried beyond its observations, and no pool beyond
    MAX_TWAP_REQUESTS of all. Raises Retryable for a call that a node cannot run.
    """
    block_ref: dict[str, object] = {"blockHash": head.hash, "requireCanonical": True}
    pools_by_end: dict[int, list[V3Pool]] = {}
    past_ends_s = [end_s for end_s in window_ends_s if end_s <= head.timestamp_s]
    open_pools = [pool for pool in pools if isinstance(pool, V3Pool) and pool.keeps_observations]
    request_count = 0
    for first_index in range(0, len(past_ends_s), TWAPS_PER_REQUEST):
        end_times_s = past_ends_s[first_index : first_index + TWAPS_PER_REQUEST]
        for pool in tuple(open_pools):
            if request_count == MAX_TWAP_REQUESTS:
                break
            request_count += 1
            answers = transport.batch(
                [
                    _twap_call(pool.address, head.timestamp_s - end_s, window_s, block_ref)
                    for end_s in end_times_s
                ]
            )
            reverts = False
            for end_s, answer in zip(end_times_s, answers, strict=True):
                reverts = has_reverted(transport, answer, _OBSERVE_CALL_NAME)
                mean_pool = None if reverts else _with_twap(pool, answer, window_s)
                pools_by_end.setdefault(end_s, []).extend([] if mean_pool is None else [mean_pool])
            if reverts:  # with OLD, so earlier windows would too
                open_pools.remove(pool)
    return {end_s: tuple(mean_pools) for end_s, mean_pools in pools_by_end.items()}


def _twap_call(pool: str, ago_s: int, window_s: int, block_ref: dict[str, object]) -> RpcCall:
    """Return the call observe(uint32[]) for both ends of the window."""
    call_data = hex_data(observe_calldata((ago_s + window_s, ago_s)))
    return ("eth_call", [{"to": pool, "data": call_data}, block_ref])


def _with_twap(pool: V3Pool, answer: object, window_s: int) -> V3Pool | None:
    """Return the pool with its mean over the window; None if it has none."""
    answer_bytes = parse_bytes(answer, "observations of a pool", 32 * OBSERVE_WORDS)
    _, _, _, tick_before, tick_after, _, per_liquidity_before, per_liquidity_after = (
        int.from_bytes(answer_bytes[word_offset : word_offset + 32], "big")
        for word_offset in range(0, 32 * OBSERVE_WORDS, 32)
    )
    tick_change = to_signed(tick_after) - to_signed(tick_before)
    mean = mean_over(window_s, tick_change, (per_liquidity_after - per_liquidity_before) % 2**160)
    if mean is None:
        return None
    return replace(pool, twap_tick=mean.tick, twap_liquidity=mean.liquidity, twap_window_s=window_s)


MAX_TRANSACTIONS = 128
"""Maximum number of a day's transactions that are read; with more, the day is unknown."""
MAX_SCANNED_BLOCKS = 256
"""Maximum number of whole blocks read to locate transactions if a node has no archive state."""
CALLS_PER_BATCH = 32
HEADERS_PER_PROBE = 15


class HistoryUnavailable(Retryable):
    """The chain cannot provide the history: archive state or blocks are missing, or there are too
    many transactions.
    """


FeedAnswers = tuple[tuple[str, int], ...]
"""Answers by feed, in the feed's decimals."""


@dataclass(frozen=True, slots=True)
class MinedTx:
    """A mined transaction of the wallet, and the time of its block. `feed_answers` are those of the
    price feeds just before the transaction; empty if it transferred no token, or if too few nodes
    have that state.
    """

    nonce: int
    to: str
    value_wei: int
    block_time_s: int
    receipt: Receipt
    feed_answers: FeedAnswers = ()


@dataclass(frozen=True, slots=True)
class RecentTransactions:
    """Transactions, oldest first. `since_block` is the first block of the 24 hours."""

    since_block: int
    transactions: tuple[MinedTx, ...]


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
        lambda endpoint: _transactions_or_reason(
            endpoint, owner, head, nonce, feeds, endpoint_pool.data_fee_kind
        )
    )
    votes = [
        (endpoint.operator, report_or_reason)
        for endpoint, report_or_reason in poll.answers.items()
        if isinstance(report_or_reason, RecentTransactions)
    ]
    if not votes:
        reasons = [
            report_or_reason
            for report_or_reason in poll.answers.values()
            if isinstance(report_or_reason, str)
        ] + [failure.message for failure in poll.failures.values()]
        raise HistoryUnavailable(reasons[0] if reasons else "no endpoint answers")
    if len({operator for operator, _ in votes}) < endpoint_pool.min_operators:
        raise HistoryUnavailable(
            "too few operators can report the wallet's last 24 h", code=ErrorCode.OPERATORS
        )
    agreed_report = confirmed_value(
        [(operator, _without_feed_answers(report)) for operator, report in votes],
        endpoint_pool.min_operators,
        "the wallet's transactions of the last 24 h",
    )
    transactions = tuple(
        replace(
            transaction,
            feed_answers=_agreed_feed_answers(
                [
                    (operator, report.transactions[index].feed_answers)
                    for operator, report in votes
                    if _without_feed_answers(report) == agreed_report
                ],
                endpoint_pool.min_operators,
            ),
        )
        for index, transaction in enumerate(agreed_report.transactions)
    )
    return replace(agreed_report, transactions=transactions)


def _without_feed_answers(report: RecentTransactions) -> RecentTransactions:
    return replace(
        report,
        transactions=tuple(replace(tx, feed_answers=()) for tx in report.transactions),
    )


def _agreed_feed_answers(
    votes: Sequence[tuple[str, FeedAnswers]], min_operators: int
) -> FeedAnswers:
    """Return the answers that enough operators give, empty if fewer have that state. Raises
    NoQuorum if those that have it disagree.
    """
    known_votes = [(operator, answers) for operator, answers in votes if answers]
    if len({operator for operator, _ in known_votes}) < min_operators:
        return ()
    return confirmed_value(known_votes, min_operators, "the prices before a transaction")


def _transactions_or_reason(
    transport: Transport,
    owner: str,
    head: Head,
    nonce: int,
    feeds: Sequence[str],
    data_fee_kind: DataFeeKind,
) -> RecentTransactions | str:
    try:
        return recent_transactions_from(transport, owner, head, nonce, feeds, data_fee_kind)
    except HistoryUnavailable as error:
        return error.message


def recent_transactions_from(
    transport: Transport,
    owner: str,
    head: Head,
    nonce: int,
    feeds: Sequence[str] = (),
    data_fee_kind: DataFeeKind = DataFeeKind.PLAIN,
) -> RecentTransactions:
    """Return the transactions as reported by one endpoint. Raises HistoryUnavailable or
    Retryable.
    """
    since_block = _first_block(transport, head, head.timestamp_s - DAY_S)
    blocks = _blocks_with_transactions(transport, owner, since_block, head, nonce)
    transactions = _mined_transactions(transport, owner, blocks, data_fee_kind)
    nonces = [tx.nonce for tx in transactions]
    is_complete = nonces == list(range(nonce - len(nonces), nonce))
    if not is_complete or (since_block == 0 and len(nonces) != nonce):
        raise HistoryUnavailable(
            f"some of the wallet's transactions up to nonce {nonce} were not found in the last 24 h",
            code=ErrorCode.TRANSACTIONS_MISSING,
        )
    return RecentTransactions(
        since_block, _with_feed_answers(transport, owner, transactions, feeds)
    )


def _first_block(transport: Transport, head: Head, since_s: int) -> int:
    """Return the first block after `since_s`, by header time."""
    (genesis,) = _require_answers(
        transport, [("eth_getBlockByNumber", ["0x0", False])], "the header of block 0"
    )
    if _block_time_s(genesis) > since_s:
        return 0
    # Invariant: `low_block` is not after `since_s`, `high_block` is.
    low_block = 0
    high_block = head.number
    while high_block - low_block > 1:
        stride = max(1, (high_block - low_block) // (HEADERS_PER_PROBE + 1))
        heights = list(range(low_block + stride, high_block, stride))[:HEADERS_PER_PROBE]
        headers = _require_answers(
            transport,
            [("eth_getBlockByNumber", [hex(height), False]) for height in heights],
            "old headers",
        )
        for height, header in zip(heights, headers, strict=True):
            if _block_time_s(header) > since_s:
                high_block = height
                break
            low_block = height
    return high_block


def _blocks_with_transactions(
    transport: Transport, owner: str, since_block: int, head: Head, nonce: int
) -> list[Mapping[str, Any]]:
    """Return whole blocks that contain every transaction of `owner` from block `since_block` on."""
    if nonce == 0:
        return []
    try:
        return _whole_blocks(
            transport, _transaction_heights(transport, owner, since_block, head, nonce)
        )
    except HistoryUnavailable:
        if head.number - since_block >= MAX_SCANNED_BLOCKS:
            raise
    return _whole_blocks(transport, list(range(since_block, head.number + 1)))


def _transaction_heights(
    transport: Transport, owner: str, since_block: int, head: Head, nonce: int
) -> list[int]:
    """Return the blocks that change the wallet's nonce, by bisection over archive state."""
    nonce_before = 0 if since_block == 0 else _nonces(transport, owner, [since_block - 1])[0]
    if nonce - nonce_before > MAX_TRANSACTIONS:
        raise HistoryUnavailable(
            f"the wallet sent {nonce - nonce_before} transactions in the last 24 h, more than"
            f" the {MAX_TRANSACTIONS} that can be read",
            code=ErrorCode.TRANSACTIONS_MANY,
        )
    block_spans = (
        [(max(since_block - 1, 0), head.number, nonce_before, nonce)]
        if nonce > nonce_before
        else []
    )
    block_numbers: list[int] = []
    while block_spans:
        middle_blocks = [
            (low_block + high_block) // 2 for low_block, high_block, _, _ in block_spans
        ]
        half_spans = []
        for (low_block, high_block, first_nonce, last_nonce), middle_block, middle_nonce in zip(
            block_spans, middle_blocks, _nonces(transport, owner, middle_blocks), strict=True
        ):
            half_spans += [
                (low_block, middle_block, first_nonce, middle_nonce),
                (middle_block, high_block, middle_nonce, last_nonce),
            ]
        changed_spans = [half_span for half_span in half_spans if half_span[3] > half_span[2]]
        block_numbers += [
            high_block
            for low_block, high_block, _, _ in changed_spans
            if high_block - low_block <= 1
        ]
        block_spans = [half_span for half_span in changed_spans if half_span[1] - half_span[0] > 1]
    return sorted({*block_numbers, *([0] if since_block == 0 else [])})


def _nonces(transport: Transport, owner: str, heights: Sequence[int]) -> list[int]:
    nonce_answers = []
    for start in range(0, len(heights), CALLS_PER_BATCH):
        batch_heights = heights[start : start + CALLS_PER_BATCH]
        nonce_answers += _require_answers(
            transport,
            [("eth_getTransactionCount", [owner, hex(height)]) for height in batch_heights],
            "states of a day ago",
        )
    return [parse_quantity(answer, "nonce") for answer in nonce_answers]


def _whole_blocks(transport: Transport, heights: Sequence[int]) -> list[Mapping[str, Any]]:
    blocks: list[Mapping[str, Any]] = []
    for start in range(0, len(heights), CALLS_PER_BATCH):
        calls: list[RpcCall] = [
            ("eth_getBlockByNumber", [hex(height), True])
            for height in heights[start : start + CALLS_PER_BATCH]
        ]
        for block in _require_answers(transport, calls, "old blocks"):
            if not isinstance(block, Mapping) or not isinstance(block.get("transactions"), list):
                raise HistoryUnavailable(
                    "the endpoint has no old blocks", code=ErrorCode.OLD_BLOCKS
                )
            blocks.append(block)
    return blocks


def _mined_transactions(
    transport: Transport,
    owner: str,
    blocks: Sequence[Mapping[str, Any]],
    data_fee_kind: DataFeeKind,
) -> tuple[MinedTx, ...]:
    """Return the wallet's transactions in these blocks with receipts, by nonce."""
    wallet_txs = [
        (tx, parse_quantity(block.get("timestamp"), "block timestamp"))
        for block in blocks
        for tx in block["transactions"]
        if isinstance(tx, Mapping) and str(tx.get("from", "")).lower() == owner.lower()
    ]
    if len(wallet_txs) > MAX_TRANSACTIONS:
        raise HistoryUnavailable(
            f"the wallet sent {len(wallet_txs)} transactions in the last 24 h, more than the"
            f" {MAX_TRANSACTIONS} that can be read"
        )
    hashes = [hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32)) for tx, _ in wallet_txs]
    receipts: list[Any] = []
    for start in range(0, len(hashes), CALLS_PER_BATCH):
        receipts += _require_answers(
            transport,
            [
                ("eth_getTransactionReceipt", [tx_hash])
                for tx_hash in hashes[start : start + CALLS_PER_BATCH]
            ],
            "old receipts",
        )
    transactions = []
    for (tx, chain_s), tx_hash, receipt in zip(wallet_txs, hashes, receipts, strict=True):
        if not isinstance(receipt, Mapping):
            raise HistoryUnavailable("the endpoint has no old receipts")
        transactions.append(
            MinedTx(
                nonce=parse_quantity(tx.get("nonce"), "nonce"),
                to=parse_recipient(tx.get("to")),
                value_wei=parse_quantity(tx.get("value", "0x0"), "value"),
                block_time_s=chain_s,
                receipt=parse_receipt(receipt, tx_hash, data_fee_kind),
            )
        )
    return tuple(sorted(transactions, key=lambda tx: tx.nonce))


def _with_feed_answers(
    transport: Transport, owner: str, transactions: Sequence[MinedTx], feeds: Sequence[str]
) -> tuple[MinedTx, ...]:
    """Return the transactions with every feed's answer in the preceding block, without answers if
    one is missing.
    """
    if not feeds:
        return tuple(transactions)
    transfer_txs = [tx for tx in transactions if any(tx.receipt.net_transfers(owner).values())]
    calldata_hex = hex_data(LATEST_ROUND_DATA)
    calls: list[RpcCall] = [
        ("eth_call", [{"to": feed, "data": calldata_hex}, hex(tx.receipt.block_number - 1)])
        for tx in transfer_txs
        for feed in feeds
    ]
    feed_prices: list[int | None] = []
    for start in range(0, len(calls), CALLS_PER_BATCH):
        feed_prices += [
            _parse_answer(reply)
            for reply in transport.batch(calls[start : start + CALLS_PER_BATCH])
        ]
    answers_by_hash: dict[str, FeedAnswers] = {}
    for tx_index, tx in enumerate(transfer_txs):
        tx_prices = feed_prices[tx_index * len(feeds) : (tx_index + 1) * len(feeds)]
        feed_answers = [
            (feed, price) for feed, price in zip(feeds, tx_prices, strict=True) if price is not None
        ]
        if len(feed_answers) == len(feeds):
            answers_by_hash[tx.receipt.tx_hash] = tuple(feed_answers)
    return tuple(
        replace(tx, feed_answers=answers_by_hash.get(tx.receipt.tx_hash, tx.feed_answers))
        for tx in transactions
    )


def _parse_answer(reply: object) -> int | None:
    """Return the answer of latestRoundData; None if the node has none."""
    try:
        answer_bytes = b"" if isinstance(reply, RpcFault) else parse_bytes(reply, "a price feed")
    except Retryable:
        return None
    price_raw = (
        int.from_bytes(answer_bytes[32:64], "big", signed=True)
        if len(answer_bytes) == _ROUND_BYTES
        else 0
    )
    return price_raw if price_raw > 0 else None


def _require_answers(transport: Transport, calls: Sequence[RpcCall], subject: str) -> list[Any]:
    """Return the answers of one batch. Raises HistoryUnavailable if the node refuses one."""
    try:
        answers = transport.batch(calls)
    except Retryable:
        raise
    except TrimtabError as error:
        raise HistoryUnavailable(
            f"the endpoint cannot report {subject}: {error.message}", code=ErrorCode.OLD_BLOCKS
        ) from None
    first_fault = next((answer for answer in answers if isinstance(answer, RpcFault)), None)
    if first_fault is not None:
        raise HistoryUnavailable(
            f"{transport.name} cannot report {subject}: {first_fault.message}",
            code=ErrorCode.OLD_BLOCKS,
        )
    return answers


def _block_time_s(header: object) -> int:
    if not isinstance(header, Mapping):
        raise HistoryUnavailable("the endpoint has no old headers")
    return parse_quantity(header.get("timestamp"), "block timestamp")
