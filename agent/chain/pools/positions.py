"""Confirmed liquidity positions of a snapshot: their pools, lens items, and decoded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from agent.chain.lens import (
    BALANCE_OF,
    FACTORY,
    FEE_GROWTH_GLOBAL_0,
    FEE_GROWTH_GLOBAL_1,
    FEE_TO,
    GET_PAIR,
    GET_POOL,
    GET_RESERVES,
    K_LAST,
    MANAGER_POSITIONS,
    OWNER_OF,
    POOL_POSITIONS,
    SLOT0,
    TICKS,
    TOKEN0,
    TOKEN1,
    TOTAL_SUPPLY,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    answer_words,
    int_word,
    query_lens,
    to_signed,
    uint_word,
)
from agent.chain.rpc import Transport
from agent.errors import ConfigError
from agent.model import ConfirmedPosition, LpMissingPosition, LpPosition, LpV2Position, LpV3Position
from agent.signing.calldata import address_from_word


@dataclass(frozen=True, slots=True)
class PositionRange:
    """Pool and tick range of a V3 token. Both are fixed while the token exists."""

    pool: str
    fee_pips: int
    tick_lower: int
    tick_upper: int

    def key(self, manager: str) -> bytes:
        """Return the key of the manager's position in the pool's accounts (PositionKey.compute)."""
        tick_bytes = b"".join(
            tick.to_bytes(3, "big", signed=True) for tick in (self.tick_lower, self.tick_upper)
        )
        return keccak(bytes.fromhex(manager[2:]) + tick_bytes)


@dataclass(frozen=True, slots=True)
class PositionRef:
    """A confirmed position as found on the chain. `range` is None for V2, and for a V3 token that
    did not exist.
    """

    confirmed_position: ConfirmedPosition
    factory: str
    range: PositionRange | None = None


@dataclass(frozen=True, slots=True)
class PositionQuestion:
    """One question about a position, with its name."""

    name: str
    item: CallItem


class _PositionUnreadable(Exception):
    """Raised with the reason why a position cannot be read."""


def resolve_positions(
    transport: Transport,
    confirmed_positions: Sequence[ConfirmedPosition],
    factories: Mapping[str, str],
) -> tuple[PositionRef, ...]:
    """Find each position's pool, in two requests.

    `factories` has each venue's factory. Raises ConfigError if config and chain contradict each
    other: different tokens, or a pair or manager unknown to the factory. A V3 token that does not
    exist is valid: it may have been burned.
    """
    answers = iter(
        query_lens(
            transport,
            [
                call_item
                for confirmed_position in confirmed_positions
                for call_item in _resolution_items(
                    confirmed_position, factories[confirmed_position.venue]
                )
            ],
        )
    )
    refs_and_range_fields = [
        (
            _v2_ref(position, factories[position.venue], [next(answers) for _ in range(3)])
            if position.token_id is None
            else _v3_ref(position, factories[position.venue], [next(answers) for _ in range(3)])
        )
        for position in confirmed_positions
    ]
    existing_v3_tokens = [
        (position_ref, range_fields)
        for position_ref, range_fields in refs_and_range_fields
        if range_fields is not None
    ]
    pool_calls = [
        _get_pool_item(position_ref.factory, position_ref.confirmed_position, range_fields[0])
        for position_ref, range_fields in existing_v3_tokens
    ]
    pool_answers = {
        position_ref.confirmed_position: answer_uint(answer, 160)
        for (position_ref, _), answer in zip(
            existing_v3_tokens, query_lens(transport, pool_calls), strict=True
        )
    }
    return tuple(
        _with_range(position_ref, range_fields, pool_answers.get(position_ref.confirmed_position))
        for position_ref, range_fields in refs_and_range_fields
    )


def _resolution_items(position: ConfirmedPosition, factory: str) -> list[CallItem]:
    if position.token_id is None:
        return [
            CallItem(position.contract, TOKEN0),
            CallItem(position.contract, TOKEN1),
            _get_pair_item(factory, position),
        ]
    return [
        CallItem(position.contract, FACTORY),
        CallItem(position.contract, TOTAL_SUPPLY),
        _manager_position_item(position),
    ]


def _v2_ref(
    position: ConfirmedPosition, factory: str, answers: Sequence[LensAnswer]
) -> tuple[PositionRef, None]:
    token_words = [answer_uint(answer, 160) for answer in answers[:2]]
    for token_word in token_words:
        if isinstance(token_word, CallStatus):
            raise ConfigError(
                f"{_position_label(position)}: {token_word.why}", "is it a Uniswap V2 pair?"
            )
    _require_tokens(
        position,
        [
            address_from_word(token_word)
            for token_word in token_words
            if not isinstance(token_word, CallStatus)
        ],
    )
    pair_word = answer_uint(answers[2], 160)
    if isinstance(pair_word, CallStatus) or address_from_word(pair_word) != position.contract:
        raise ConfigError(
            f"{_position_label(position)}: was not created by the factory {factory}",
            "remove it; it may be a scam",
        )
    return PositionRef(position, factory), None


def _v3_ref(
    position: ConfirmedPosition, factory: str, answers: Sequence[LensAnswer]
) -> tuple[PositionRef, tuple[int, int, int] | None]:
    """Return the reference, and (fee, lower tick, upper tick) if the token exists."""
    manager_factory = answer_uint(answers[0], 160)
    total_supply = answer_uint(answers[1])
    # Routers have a factory too, but only a position manager also has a token supply.
    if (
        isinstance(manager_factory, CallStatus)
        or isinstance(total_supply, CallStatus)
        or address_from_word(manager_factory) != factory
    ):
        raise ConfigError(
            f"venues.{position.venue}.position_manager {position.contract}: is not a position manager of"
            f" factory {factory}",
            "check both addresses",
        )
    if answers[2] is CallStatus.FAILED:
        return PositionRef(position, factory), None
    position_words = answer_words(answers[2], 12)
    if isinstance(position_words, CallStatus):
        raise ConfigError(
            f"{_position_label(position)}: {position_words.why}",
            "check position_manager in [[venues]]",
        )
    _require_tokens(
        position,
        [address_from_word(token_word & (1 << 160) - 1) for token_word in position_words[2:4]],
    )
    return PositionRef(position, factory), (
        position_words[4],
        to_signed(position_words[5]),
        to_signed(position_words[6]),
    )


def _with_range(
    position_ref: PositionRef,
    range_fields: tuple[int, int, int] | None,
    pool_answer: int | CallStatus | None,
) -> PositionRef:
    if range_fields is None:
        return position_ref
    if pool_answer is None or isinstance(pool_answer, CallStatus) or pool_answer == 0:
        raise ConfigError(
            f"{_position_label(position_ref.confirmed_position)}: the factory {position_ref.factory} has no pool for it",
            "check the addresses of the venue",
        )
    return PositionRef(
        position_ref.confirmed_position,
        position_ref.factory,
        PositionRange(address_from_word(pool_answer), *range_fields),
    )


def _require_tokens(position: ConfirmedPosition, tokens: Sequence[str]) -> None:
    if list(tokens) != [position.token0, position.token1]:
        raise ConfigError(
            f"{_position_label(position)}: holds {' and '.join(tokens)}, but its entry names {position.token0} and"
            f" {position.token1}",
            "correct the position or its entry",
        )


def _position_label(position: ConfirmedPosition) -> str:
    return f"portfolio.positions: {position.name}"


def position_questions(position_ref: PositionRef, owner: str) -> list[PositionQuestion]:
    """Return the snapshot's questions about a position, in the order of `read_position`."""
    position = position_ref.confirmed_position
    if position.token_id is None:
        pair = position.contract
        return [
            PositionQuestion("LP tokens", CallItem(pair, address_call(BALANCE_OF, owner))),
            PositionQuestion("LP tokens in all", CallItem(pair, TOTAL_SUPPLY)),
            PositionQuestion("reserves", CallItem(pair, GET_RESERVES, max_answer_bytes=96)),
            PositionQuestion("kLast", CallItem(pair, K_LAST)),
            PositionQuestion(
                "balance of token0", CallItem(position.token0, address_call(BALANCE_OF, pair))
            ),
            PositionQuestion(
                "balance of token1", CallItem(position.token1, address_call(BALANCE_OF, pair))
            ),
            PositionQuestion("feeTo", CallItem(position_ref.factory, FEE_TO)),
            PositionQuestion("pair of the factory", _get_pair_item(position_ref.factory, position)),
        ]
    questions = [
        PositionQuestion(
            "owner", CallItem(position.contract, OWNER_OF + uint_word(position.token_id))
        ),
        PositionQuestion("position", _manager_position_item(position)),
    ]
    if position_ref.range is None:
        return questions
    pool = position_ref.range.pool
    range_end_ticks = (position_ref.range.tick_lower, position_ref.range.tick_upper)
    return [
        *questions,
        PositionQuestion(
            "pool of the factory",
            _get_pool_item(position_ref.factory, position, position_ref.range.fee_pips),
        ),
        PositionQuestion("price", CallItem(pool, SLOT0, max_answer_bytes=224)),
        PositionQuestion("fee growth of token0", CallItem(pool, FEE_GROWTH_GLOBAL_0)),
        PositionQuestion("fee growth of token1", CallItem(pool, FEE_GROWTH_GLOBAL_1)),
        *(
            PositionQuestion(
                f"tick {tick}", CallItem(pool, TICKS + int_word(tick), max_answer_bytes=256)
            )
            for tick in range_end_ticks
        ),
        PositionQuestion(
            "account of the range",
            CallItem(
                pool,
                POOL_POSITIONS + position_ref.range.key(position.contract),
                max_answer_bytes=160,
            ),
        ),
    ]


def read_position(
    position_ref: PositionRef, owner: str, answers: Sequence[LensAnswer]
) -> LpPosition | str:
    """Return the position, or the reason why it cannot be counted: a part was not read, or it
    belongs to another account.
    """
    questions = position_questions(position_ref, owner)
    try:
        return (
            _read_v2(position_ref, questions, answers)
            if position_ref.confirmed_position.token_id is None
            else _read_v3(position_ref, questions, answers, owner)
        )
    except _PositionUnreadable as error:
        return str(error)


def _read_v2(
    position_ref: PositionRef, questions: Sequence[PositionQuestion], answers: Sequence[LensAnswer]
) -> LpV2Position:
    position = position_ref.confirmed_position
    (
        liquidity_words,
        supply_words,
        reserve_words,
        k_last_words,
        balance0_words,
        balance1_words,
        fee_to_words,
        pair_words,
    ) = (
        _require_words(question, answer, 2 if question.name == "reserves" else 1)
        for question, answer in zip(questions, answers, strict=True)
    )
    if address_from_word(_require_bits(pair_words[0], 160)) != position.contract:
        raise _PositionUnreadable(
            f"the factory {position_ref.factory} has a different pair for these tokens"
        )
    return LpV2Position(
        venue=position.venue,
        pair=position.contract,
        token0=position.token0,
        token1=position.token1,
        liquidity=liquidity_words[0],
        total_supply=supply_words[0],
        reserves=(_require_bits(reserve_words[0], 112), _require_bits(reserve_words[1], 112)),
        balances=(balance0_words[0], balance1_words[0]),
        k_last=k_last_words[0],
        has_protocol_fee=fee_to_words[0] != 0,
    )


def _read_v3(
    position_ref: PositionRef,
    questions: Sequence[PositionQuestion],
    answers: Sequence[LensAnswer],
    owner: str,
) -> LpV3Position | LpMissingPosition:
    position = position_ref.confirmed_position
    position_range = position_ref.range
    token_id = position.token_id or 0
    if answers[0] is CallStatus.FAILED and answers[1] is CallStatus.FAILED:
        # both calls revert if, and only if, the token does not exist
        return LpMissingPosition(
            position.venue, position.contract, token_id, position.token0, position.token1
        )
    token_owner = address_from_word(
        _require_bits(_require_words(questions[0], answers[0], 1)[0], 160)
    )
    if token_owner != owner:
        raise _PositionUnreadable(f"it belongs to {token_owner}, not to the wallet {owner}")
    if position_range is None:
        raise _PositionUnreadable("it did not exist when the agent started: restart the agent")
    word_counts = (12, 1, 2, 1, 1, 4, 4, 5)
    (
        manager_words,
        pool_words,
        slot0_words,
        growth0_words,
        growth1_words,
        lower_tick_words,
        upper_tick_words,
        range_words,
    ) = (
        _require_words(question, answer, word_count)
        for question, answer, word_count in zip(
            questions[1:], answers[1:], word_counts, strict=True
        )
    )
    current_fields = (
        *(address_from_word(_require_bits(token_word, 160)) for token_word in manager_words[2:4]),
        manager_words[4],
        to_signed(manager_words[5]),
        to_signed(manager_words[6]),
    )
    if current_fields != (
        position.token0,
        position.token1,
        position_range.fee_pips,
        position_range.tick_lower,
        position_range.tick_upper,
    ):
        raise _PositionUnreadable("its pool or ticks have changed since the agent started")
    if address_from_word(_require_bits(pool_words[0], 160)) != position_range.pool:
        raise _PositionUnreadable(
            f"the factory {position_ref.factory} has a different pool than {position_range.pool}"
        )
    if _require_bits(slot0_words[0], 160) == 0:
        raise _PositionUnreadable("its pool has no price")
    return LpV3Position(
        venue=position.venue,
        manager=position.contract,
        token_id=token_id,
        pool=position_range.pool,
        token0=position.token0,
        token1=position.token1,
        fee_pips=position_range.fee_pips,
        tick_lower=position_range.tick_lower,
        tick_upper=position_range.tick_upper,
        liquidity=_require_bits(manager_words[7], 128),
        inside_last_x128=(manager_words[8], manager_words[9]),
        owed=(_require_bits(manager_words[10], 128), _require_bits(manager_words[11], 128)),
        sqrt_price_x96=slot0_words[0],
        tick=to_signed(slot0_words[1]),
        growth_global_x128=(growth0_words[0], growth1_words[0]),
        growth_outside_lower_x128=(lower_tick_words[2], lower_tick_words[3]),
        growth_outside_upper_x128=(upper_tick_words[2], upper_tick_words[3]),
        core_liquidity=_require_bits(range_words[0], 128),
        core_inside_last_x128=(range_words[1], range_words[2]),
        core_owed=(_require_bits(range_words[3], 128), _require_bits(range_words[4], 128)),
    )


def _require_words(
    question: PositionQuestion, answer: LensAnswer, word_count: int
) -> tuple[int, ...]:
    words = answer_words(answer, word_count)
    if isinstance(words, CallStatus):
        raise _PositionUnreadable(f"{question.name}: {words.why}")
    return words


def _require_bits(word: int, max_bits: int) -> int:
    if word >> max_bits:
        raise _PositionUnreadable(CallStatus.MALFORMED.why)
    return word


def _manager_position_item(position: ConfirmedPosition) -> CallItem:
    return CallItem(
        position.contract,
        MANAGER_POSITIONS + uint_word(position.token_id or 0),
        max_answer_bytes=384,
    )


def _get_pair_item(factory: str, position: ConfirmedPosition) -> CallItem:
    return CallItem(
        factory, address_call(GET_PAIR, position.token0, position.token1), likely_gas=8_000
    )


def _get_pool_item(factory: str, position: ConfirmedPosition, fee_pips: int) -> CallItem:
    return CallItem(
        factory,
        address_call(GET_POOL, position.token0, position.token1) + uint_word(fee_pips),
        likely_gas=8_000,
    )
