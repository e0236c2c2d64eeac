"""Scope of a snapshot: its lens items, and their answers as parts of a Snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isqrt
from typing import Protocol

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import Q96, get_tick_at_sqrt_ratio
from agent.amm.v3.pool import V3Pool
from agent.chain.fees.data_fees import fee_items, read_quote
from agent.chain.lens import (
    AGGREGATOR,
    BALANCE_OF,
    DECIMALS_SELECTOR,
    LATEST_ROUND_DATA,
    MAX_ANSWER,
    MIN_ANSWER,
    TOTAL_SUPPLY,
    CallItem,
    CallStatus,
    CodeItem,
    IndirectCallItem,
    LensAnswer,
    LensItem,
    address_call,
    allowance_call,
    answer_uint,
    answer_words,
    to_signed,
)
from agent.chain.pools import positions
from agent.chain.pools.observations import (
    OBSERVE_GAS,
    OBSERVE_WORDS,
    observe_calldata,
    observed_mean,
)
from agent.chain.pools.positions import PositionRef
from agent.chain.pools.reading import POOL_GAS, PoolRef
from agent.chain.tokens import ProxyRef
from agent.errors import ConfigError
from agent.model import (
    ALLOWANCE_ITEM,
    Allowance,
    CodeHash,
    DataFeeKind,
    DataFeeQuote,
    FeedRound,
    Holding,
    LayerReading,
    LpPosition,
    Pool,
    TokenSupply,
    UnreadableItem,
)
from agent.model.rollups import DATA_FEE_ITEM
from agent.units import BPS, Token

ITEMS_PER_FEED = 4


def feed_questions(feed: str) -> list[tuple[str, LensItem]]:
    """Return (name, item) in the order that `read_feed` expects.

    A Chainlink proxy names its aggregator, which clips answers at two bounds. Other feeds have no
    known bounds.
    """
    return [
        ("decimals of feed", CallItem(feed, DECIMALS_SELECTOR)),
        (
            "round of feed",
            CallItem(feed, LATEST_ROUND_DATA, max_answer_bytes=160, likely_gas=60_000),
        ),
        ("least answer of feed", IndirectCallItem(feed, AGGREGATOR, CallItem(feed, MIN_ANSWER))),
        ("largest answer of feed", IndirectCallItem(feed, AGGREGATOR, CallItem(feed, MAX_ANSWER))),
    ]


def read_feed(
    feed: str, answers: Sequence[LensAnswer]
) -> tuple[FeedRound | None, tuple[UnreadableItem, ...]]:
    """Return the latest round, or the items that could not be read."""
    decimals = answer_uint(answers[0], 8)
    round_fields = _latest_round(answers[1])
    min_answer = _answer_bound(answers[2])
    max_answer = _answer_bound(answers[3])
    if (
        isinstance(decimals, CallStatus)
        or isinstance(round_fields, CallStatus)
        or isinstance(min_answer, CallStatus)
        or isinstance(max_answer, CallStatus)
    ):
        parsed_answers = (decimals, round_fields, min_answer, max_answer)
        return None, tuple(
            UnreadableItem(item_name, feed, parsed_answer.why)
            for (item_name, _), parsed_answer in zip(
                feed_questions(feed), parsed_answers, strict=True
            )
            if isinstance(parsed_answer, CallStatus)
        )
    round_id, answer, started_s, updated_s, answered_in_round = round_fields
    return (
        FeedRound(
            feed,
            decimals,
            round_id,
            answer,
            started_s,
            updated_s,
            answered_in_round,
            min_answer,
            max_answer,
        ),
        (),
    )


def _latest_round(answer: LensAnswer) -> tuple[int, int, int, int, int] | CallStatus:
    """Parse AggregatorV3Interface.latestRoundData: (uint80, int256, uint256, uint256, uint80)."""
    words = answer_words(answer, 5)
    if isinstance(words, CallStatus):
        return words
    round_id, answer_word, started_s, updated_s, answered_in_round = words
    if round_id >> 80 or answered_in_round >> 80 or started_s >> 64 or updated_s >> 64:
        return CallStatus.MALFORMED
    return round_id, to_signed(answer_word), started_s, updated_s, answered_in_round


def _answer_bound(answer: LensAnswer) -> int | CallStatus | None:
    """Return a signed word; None if the feed has no such bound, because it or its aggregator has no
    such function, or it names no aggregator.
    """
    if answer in (CallStatus.FAILED, CallStatus.NO_CODE):
        return None
    words = answer_words(answer, 1)
    return words if isinstance(words, CallStatus) else to_signed(words[0])


MIN_WINDOW_BPS = 200
"""Minimum read window. The depth of V3 pools counts what they hold within this distance (DEPTH_BPS
of agent/amm/v3/pool.py).
"""


class LayerScope(Protocol):
    """What the lens reads for a layer."""

    @property
    def allowances(self) -> list[tuple[str, str, str]]:
        """Description, token and spender of the allowances that the layer needs."""

    def questions(self) -> list[LensQuestion]:
        """Return its items in the order that `read` expects."""

    def read(self, answers: Sequence[LensAnswer]) -> tuple[LayerReading, list[UnreadableItem]]:
        """Return the reading, with an entry for what is unknown."""

    def wider_scope(
        self,
        answers: Sequence[LensAnswer],
        ask: Callable[[Sequence[LensItem]], list[LensAnswer]],
    ) -> LayerScope:
        """Return the scope with what the answers show besides; itself if they show nothing. Raises
        Refused or Retryable while that cannot be read.
        """


@dataclass(frozen=True, slots=True)
class SnapshotScope:
    """Scope of a snapshot.

    `code_addresses` are addresses whose code hash is read; `twap_window_s` 0 reads no TWAP, and
    `short_window_s` 0 none over reference.short_window. For `pair_token_spender`, the allowances of
    the V2 positions' LP tokens are read (None: no spender).
    `proxies` are proxy tokens, whose implementation is read too. `supply_tokens` are tokens whose
    total supply is read. Ticks are read for a move of a pool's marginal price by `impact_bps` in
    either direction, and at least for the pool's depth. `layer_scopes` is what is read for the
    layers, `data_fee_kind` the kind of fee that the chain charges beyond gas. `caller` is the
    account whose transactions swap, where a pool may grant it a discount; empty where none does, or
    if it is not the owner.
    """

    owner: str
    tokens: tuple[Token, ...]
    spenders: tuple[str, ...]
    pools: tuple[PoolRef, ...]
    feeds: tuple[str, ...]
    code_addresses: tuple[str, ...]
    twap_window_s: int
    impact_bps: int
    positions: tuple[PositionRef, ...] = ()
    pair_token_spender: str | None = None
    proxies: tuple[ProxyRef, ...] = ()
    supply_tokens: tuple[str, ...] = ()
    layer_scopes: tuple[LayerScope, ...] = ()
    data_fee_kind: DataFeeKind = DataFeeKind.PLAIN
    caller: str = ""
    short_window_s: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotParts:
    """Parts of a Snapshot that the lens provides."""

    holdings: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    pools: tuple[Pool, ...]
    feed_rounds: tuple[FeedRound, ...]
    code_hashes: tuple[CodeHash, ...]
    positions: tuple[LpPosition, ...]
    unreadable_items: tuple[UnreadableItem, ...]
    supplies: tuple[TokenSupply, ...]
    layer_readings: tuple[LayerReading, ...]
    data_fee_quote: DataFeeQuote | None = None


@dataclass(frozen=True, slots=True)
class LensQuestion:
    """One lens item and the name under which its failure is reported."""

    name: str
    address: str
    item: LensItem


def window_ticks(impact_bps: int) -> int:
    """Return the number of ticks within which the price moves by `impact_bps` (the wider side,
    rounded up), plus one. One tick is a factor of 1.0001.
    """
    if not 0 <= impact_bps < BPS:
        raise ConfigError(
            f"impact of {impact_bps} bps is not between 0 and {BPS - 1} bps",
            "set a limit below 100 %",
        )
    sqrt_ratio_x96 = isqrt(BPS * Q96**2 // (BPS - impact_bps))
    return get_tick_at_sqrt_ratio(sqrt_ratio_x96 - 1) + 2


@lru_cache(maxsize=1_024)
def snapshot_questions(scope: SnapshotScope) -> tuple[LensQuestion, ...]:
    """Return all items in the order that `snapshot_parts` expects. Cached, since a scope is asked
    at each look, twice.
    """
    questions: list[LensQuestion] = []
    for token in scope.tokens:
        balance_item = CallItem(token.address, address_call(BALANCE_OF, scope.owner))
        questions.append(LensQuestion(f"balance of {token.label}", token.address, balance_item))
        questions.append(
            LensQuestion(
                f"decimals of {token.label}",
                token.address,
                CallItem(token.address, DECIMALS_SELECTOR),
            )
        )
        for spender in scope.spenders:
            allowance_item = CallItem(token.address, allowance_call(scope.owner, spender))
            questions.append(
                LensQuestion(
                    f"{ALLOWANCE_ITEM}{token.label} to {spender}", token.address, allowance_item
                )
            )
    tick_window = window_ticks(max(scope.impact_bps, MIN_WINDOW_BPS))
    for pool in scope.pools:
        questions += [
            LensQuestion(f"pool of {pool.venue}", pool.address, item)
            for item in pool.reader.items(pool, tick_window, scope.twap_window_s)
        ]
    for feed in scope.feeds:
        questions += [LensQuestion(name, feed, item) for name, item in feed_questions(feed)]
    questions.extend(
        LensQuestion("code", address, CodeItem(address)) for address in scope.code_addresses
    )
    for position_ref in scope.positions:
        position = position_ref.confirmed_position
        questions += [
            LensQuestion(f"{position.name}: {question.name}", position.contract, question.item)
            for question in positions.position_questions(position_ref, scope.owner)
        ]
    questions += [
        LensQuestion(
            f"{ALLOWANCE_ITEM}{description} to {spender}",
            token,
            CallItem(token, allowance_call(scope.owner, spender)),
        )
        for description, token, spender in _other_allowances(scope)
    ]
    questions += [
        LensQuestion("storage of a pool", pool.address, allowance_item)
        for pool in scope.pools
        for allowance_item in _first_trade_items(pool)
    ]
    questions += [
        LensQuestion("short TWAP of a pool", pool.address, observe_item)
        for pool in scope.pools
        for observe_item in _short_mean_items(scope, pool)
    ]
    questions += [
        LensQuestion("supply", token, CallItem(token, TOTAL_SUPPLY))
        for token in scope.supply_tokens
    ]
    questions += [
        LensQuestion(DATA_FEE_ITEM, item.target, item) for item in fee_items(scope.data_fee_kind)
    ]
    return (*questions, *layer_questions(scope))


def layer_questions(scope: SnapshotScope) -> list[LensQuestion]:
    """Return the items of the layers, which are the last."""
    return [question for layer in scope.layer_scopes for question in layer.questions()]


def _other_allowances(scope: SnapshotScope) -> list[tuple[str, str, str]]:
    """Return (description, token, spender) of every V2 position's LP tokens, and of what the layers
    need.
    """
    allowances = [
        ("LP tokens", position_ref.confirmed_position.contract, scope.pair_token_spender)
        for position_ref in scope.positions
        if position_ref.confirmed_position.token_id is None and scope.pair_token_spender is not None
    ]
    for layer in scope.layer_scopes:
        allowances += layer.allowances
    return allowances


def _first_trade_items(pool: PoolRef) -> list[CallItem]:
    """Return the items whose storage is zero until the pool's first trade."""
    return [
        CallItem(pool.contract, calldata, gas_cap=POOL_GAS, likely_gas=6_000)
        for calldata in pool.reader.unwritten_calldata(pool)
    ]


def _short_mean_items(scope: SnapshotScope, pool: PoolRef) -> list[CallItem]:
    """Return the item that reads a pool's mean over reference.short_window, if it keeps
    observations.
    """
    if not scope.short_window_s or not pool.keeps_observations:
        return []
    calldata = observe_calldata((scope.short_window_s, 0))
    return [CallItem(pool.address, calldata, 32 * OBSERVE_WORDS, OBSERVE_GAS, likely_gas=60_000)]


def _are_unwritten(answers: Sequence[LensAnswer]) -> tuple[bool, bool]:
    """Return, for token0 and token1, whether the item is known to be zero. A V2 pair has one item
    for both tokens. Affects only the gas estimate, so an unread item counts as written.
    """
    are_zero = [answer_uint(answer) == 0 for answer in answers]
    return are_zero[0], are_zero[-1]


def _wrong_decimals(token: Token, decimals: int) -> UnreadableItem:
    reason = f"the contract has {decimals} decimals, expected {token.decimals}"
    return UnreadableItem(f"decimals of {token.label}", token.address, reason)


def _with_storage_and_short_means(
    scope: SnapshotScope, pools: Sequence[V2Pool | V3Pool], answers: Iterator[LensAnswer]
) -> list[V2Pool | V3Pool]:
    """Return the pools with what their first trade has to write, and their means over
    reference.short_window. A pool whose observations do not cover it has no mean, and is no fault:
    the other prices decide.
    """
    unwritten_by_pool = {
        pool.address: _are_unwritten([next(answers) for _ in _first_trade_items(pool)])
        for pool in scope.pools
    }
    short_mean_by_pool = {
        pool.address: observed_mean(scope.short_window_s, next(answers))
        for pool in scope.pools
        for _ in _short_mean_items(scope, pool)
    }
    return [
        replace(
            pool_state,
            unwritten_slots=unwritten_by_pool[pool_state.address],
            short_mean=short_mean_by_pool.get(pool_state.address),
        )
        if isinstance(pool_state, V3Pool)
        else replace(pool_state, unwritten_slots=unwritten_by_pool[pool_state.address])
        for pool_state in pools
    ]


def _read_supplies(scope: SnapshotScope, answers: Iterator[LensAnswer]) -> tuple[TokenSupply, ...]:
    """Return the supplies that were read. One that was not is no unreadable item, which would take
    its token out of use: it only keeps the allocator from choosing weights, which says so.
    """
    supply_answers = [(token, answer_uint(next(answers))) for token in scope.supply_tokens]
    return tuple(
        TokenSupply(token, supply_raw)
        for token, supply_raw in supply_answers
        if not isinstance(supply_raw, CallStatus)
    )


def snapshot_parts(scope: SnapshotScope, answers: Sequence[LensAnswer]) -> SnapshotParts:  # noqa: C901
    """Return the typed parts of the snapshot. What the agent may not do without and was not read is
    in `unreadable_items` only.
    """
    questions = snapshot_questions(scope)
    unreadable_items: list[UnreadableItem] = []
    remaining_answers = iter(zip(questions, answers, strict=True))

    def next_uint(max_bits: int = 256) -> int | None:
        question, answer = next(remaining_answers)
        uint_or_status = answer_uint(answer, max_bits)
        if not isinstance(uint_or_status, CallStatus):
            return uint_or_status
        add_unreadable(question, uint_or_status)
        return None

    def add_unreadable(question: LensQuestion, status: CallStatus) -> None:
        unreadable_items.append(UnreadableItem(question.name, question.address, status.why))

    holdings: list[Holding] = []
    allowances: list[Allowance] = []
    for token in scope.tokens:
        balance_raw = next_uint()
        decimals = next_uint(8)
        if decimals is not None and decimals != token.decimals:
            unreadable_items.append(_wrong_decimals(token, decimals))
        elif balance_raw is not None and decimals is not None:
            holdings.append(Holding(token.address, balance_raw))
        for spender in scope.spenders:
            allowance_raw = next_uint()
            if allowance_raw is not None:
                allowances.append(Allowance(token.address, spender, allowance_raw))
    tick_window = window_ticks(max(scope.impact_bps, MIN_WINDOW_BPS))
    pools: list[V2Pool | V3Pool] = []
    for pool in scope.pools:
        pool_items = pool.reader.items(pool, tick_window, scope.twap_window_s)
        pool_answers = [next(remaining_answers) for _ in pool_items]
        pool_state = pool.reader.state(
            pool, [answer for _, answer in pool_answers], scope.twap_window_s
        )
        if isinstance(pool_state, CallStatus):
            add_unreadable(pool_answers[0][0], pool_state)
        else:
            pools.append(pool_state)
    feeds: list[FeedRound] = []
    for feed in scope.feeds:
        feed_round, unread_items = read_feed(
            feed, [next(remaining_answers)[1] for _ in range(ITEMS_PER_FEED)]
        )
        feeds += [] if feed_round is None else [feed_round]
        unreadable_items += unread_items
    code_hashes: list[CodeHash] = []
    for address in scope.code_addresses:
        question, answer = next(remaining_answers)
        if isinstance(answer, bytes):
            code_hashes.append(CodeHash(address, "0x" + answer.hex()))
        else:
            add_unreadable(
                question, answer if isinstance(answer, CallStatus) else CallStatus.MALFORMED
            )
    lp_positions: list[LpPosition] = []
    for position_ref in scope.positions:
        position_answers = [
            next(remaining_answers)[1]
            for _ in positions.position_questions(position_ref, scope.owner)
        ]
        position_or_reason = positions.read_position(position_ref, scope.owner, position_answers)
        if isinstance(position_or_reason, str):
            unreadable_items.append(
                UnreadableItem(
                    f"position {position_ref.confirmed_position.name}",
                    position_ref.confirmed_position.contract,
                    position_or_reason,
                )
            )
        else:
            lp_positions.append(position_or_reason)
    for _, token_address, spender in _other_allowances(scope):
        allowance_raw = next_uint()
        if allowance_raw is not None:
            allowances.append(Allowance(token_address, spender, allowance_raw))
    answers_left = (answer for _, answer in remaining_answers)
    pools = _with_storage_and_short_means(scope, pools, answers_left)
    supplies = _read_supplies(scope, answers_left)
    data_fee_quote, unread_fee = _read_data_fee(scope, answers_left)
    unreadable_items += unread_fee
    layer_results = [
        layer_scope.read([next(answers_left) for _ in layer_scope.questions()])
        for layer_scope in scope.layer_scopes
    ]
    for _, unknown_items in layer_results:
        unreadable_items += unknown_items
    return SnapshotParts(
        tuple(holdings),
        tuple(allowances),
        tuple(pools),
        tuple(feeds),
        tuple(code_hashes),
        tuple(lp_positions),
        tuple(unreadable_items),
        supplies,
        tuple(layer_reading for layer_reading, _ in layer_results),
        data_fee_quote,
    )


def _read_data_fee(
    scope: SnapshotScope, answers: Iterator[LensAnswer]
) -> tuple[DataFeeQuote | None, list[UnreadableItem]]:
    """Return the data fee, None where the chain charges none; or an entry for it, if the rollup's
    contract did not answer.
    """
    questions = fee_items(scope.data_fee_kind)
    if not questions:
        return None, []
    fee_quote = read_quote(scope.data_fee_kind, [next(answers) for _ in questions])
    if isinstance(fee_quote, CallStatus):
        return None, [UnreadableItem(DATA_FEE_ITEM, questions[0].target, fee_quote.why)]
    return fee_quote, []
