"""Liquidity positions opened by the agent, and unsolicited positions, which are never counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.amm.lp import own_changes
from agent.amm.lp.venues import LpVenue
from agent.chain.lens import (
    BALANCE_OF,
    MANAGER_POSITIONS,
    OWNER_OF,
    TOKEN_OF_OWNER_BY_INDEX,
    CallItem,
    CallStatus,
    LensAnswer,
    address_call,
    answer_uint,
    answer_words,
    query_lens,
    uint_word,
)
from agent.chain.pools.positions import PositionRange, PositionRef
from agent.chain.pools.reading import PoolRef
from agent.chain.rpc import Transport
from agent.model import (
    ConfirmedPosition,
    LpPositionChange,
    Snapshot,
    SwapStyle,
    position_name,
)
from agent.ports import ReaderLayer
from agent.signing.calldata import address_from_word

if TYPE_CHECKING:
    from agent.chain.snapshot import ChainReader


class PositionReader(ReaderLayer):
    """ports.Reader over a ChainReader that adds the agent's current positions to each snapshot.
    `start_refs` are the positions known at start-up, `recorded_changes` returns the recorded
    changes of positions, `counted_positions` the positions that count after them. The range of a
    minted position comes from its transaction; the snapshot verifies it like any other.
    """

    def __init__(
        self,
        reader: ChainReader,
        start_refs: Sequence[PositionRef],
        factories: dict[str, str],
        recorded_changes: Callable[[], Sequence[LpPositionChange]],
        counted_positions: Callable[[Sequence[LpPositionChange]], tuple[ConfirmedPosition, ...]],
    ) -> None:
        self.reader: ChainReader = reader
        self._start_refs = {ref.confirmed_position.name: ref for ref in start_refs}
        self._factories = factories
        self._recorded_changes = recorded_changes
        self._counted_positions = counted_positions

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        self.update_scope()
        return self.reader.snapshot()

    def update_scope(self) -> None:
        """Let the next snapshot have the positions that count now."""
        position_changes = self._recorded_changes()
        position_refs = tuple(
            self._ref(position, position_changes)
            for position in self._counted_positions(position_changes)
        )
        if position_refs != self.reader.scope.positions:
            self.reader.scope = replace(self.reader.scope, positions=position_refs)

    def _ref(
        self, position: ConfirmedPosition, position_changes: Sequence[LpPositionChange]
    ) -> PositionRef:
        position_ref = self._start_refs.get(position.name)
        if position_ref is not None:
            return replace(position_ref, confirmed_position=position)
        position_ranges = (
            PositionRange(mint.pool, mint.fee_pips, *(mint.ticks or (0, 0)))
            for mint in own_changes.open_mints(position_changes)
            if mint.name == position.name
        )
        return PositionRef(position, self._factories[position.venue], next(position_ranges, None))


MAX_CHECKED_TOKENS = 100
"""Maximum number of the manager's tokens that are checked at once, since anyone can send thousands."""
_ADDRESS_MASK = (1 << 160) - 1


@dataclass(frozen=True, slots=True)
class UnsolicitedPosition:
    """A position that does not count. `tokens` are addresses, since symbols are untrusted text
    (T17).
    """

    name: str
    contract: str
    token_id: int | None
    tokens: tuple[str, str]
    liquidity: int


@dataclass(frozen=True, slots=True)
class UnsolicitedPositions:
    """Unsolicited positions. `unchecked_count` is the number of balances that were not read, and of
    the manager's tokens that were not read or are older than the MAX_CHECKED_TOKENS newest.
    """

    positions: tuple[UnsolicitedPosition, ...]
    unchecked_count: int


def find_unsolicited_positions(
    transport: Transport,
    owner: str,
    manager: str | None,
    pools: Iterable[PoolRef],
    confirmed_positions: Sequence[ConfirmedPosition],
    block_ref: object,
    *,
    checks_all: bool = False,
) -> UnsolicitedPositions:
    """Return the unconfirmed LP tokens of `pools` and the newest tokens of the manager that `owner`
    holds at one block, with up to three requests; all of the manager's with `checks_all`, two
    requests for each MAX_CHECKED_TOKENS. Raises Retryable from the endpoint.
    """
    confirmed_names = {position.name for position in confirmed_positions}
    v2_pools = [pool for pool in pools if pool.style is SwapStyle.V2]
    position_contracts = [
        *(pool.address for pool in v2_pools),
        *([] if manager is None else [manager]),
    ]
    token_balances = [
        answer_uint(answer)
        for answer in query_lens(
            transport,
            [
                CallItem(contract, address_call(BALANCE_OF, owner))
                for contract in position_contracts
            ],
            block_ref,
        )
    ]
    unsolicited_positions = [
        UnsolicitedPosition(
            position_name(pool.venue, pool.address, None),
            pool.address,
            None,
            (pool.token0, pool.token1),
            lp_balance_raw,
        )
        for pool, lp_balance_raw in zip(v2_pools, token_balances[: len(v2_pools)], strict=True)
        if not isinstance(lp_balance_raw, CallStatus) and lp_balance_raw > 0
    ]
    manager_balance = token_balances[-1] if manager is not None else 0
    token_count = 0 if isinstance(manager_balance, CallStatus) else manager_balance
    manager_tokens: list[UnsolicitedPosition] = []
    first_index = 0 if checks_all else max(0, token_count - MAX_CHECKED_TOKENS)
    for index in range(first_index, token_count, MAX_CHECKED_TOKENS):
        owner_indexes = range(index, min(index + MAX_CHECKED_TOKENS, token_count))
        read_tokens = _manager_tokens(transport, owner, manager or "", owner_indexes, block_ref)
        manager_tokens += read_tokens
        if len(read_tokens) < len(owner_indexes):
            break
    unread_count = sum(isinstance(balance, CallStatus) for balance in token_balances)
    return UnsolicitedPositions(
        tuple(
            position
            for position in (*unsolicited_positions, *manager_tokens)
            if position.name not in confirmed_names
        ),
        unread_count + token_count - len(manager_tokens),
    )


def find_manager_token(
    transport: Transport, owner: str, manager: str, token_id: int, block_ref: object
) -> UnsolicitedPosition | None:
    """Return one token of the manager at one block; None if `owner` does not hold it. Raises
    Retryable from the endpoint.
    """
    owner_call = CallItem(manager, OWNER_OF + uint_word(token_id))
    owner_answer, position_answer = query_lens(
        transport, [owner_call, _position_call(manager, token_id)], block_ref
    )
    if answer_uint(owner_answer) != int(owner, 16):
        return None
    return _manager_token(manager, token_id, position_answer)


def foreign_position_texts(
    transport: Transport, owner: str, venue_by_manager: Mapping[str, str], block_ref: object
) -> tuple[str, ...]:
    """Return a text for each contract of positions of other kinds, with the name of its venue, of
    which `owner` holds tokens at one block, or which cannot be read. Raises Retryable from the
    endpoint.
    """
    balance_calls = [
        CallItem(manager, address_call(BALANCE_OF, owner)) for manager in venue_by_manager
    ]
    position_counts = map(answer_uint, query_lens(transport, balance_calls, block_ref))
    return tuple(
        f"positions of {venue} at {manager} cannot be read: {position_count.why}"
        if isinstance(position_count, CallStatus)
        else f"{position_count} position(s) of {venue} at {manager} do not count and are left alone"
        for (manager, venue), position_count in zip(
            venue_by_manager.items(), position_counts, strict=True
        )
        if position_count != 0
    )


def _manager_tokens(
    transport: Transport, owner: str, manager: str, owner_indexes: range, block_ref: object
) -> list[UnsolicitedPosition]:
    """Return the tokens of the manager at these indexes of the owner's that can be read."""
    token_id_calls = [
        CallItem(manager, address_call(TOKEN_OF_OWNER_BY_INDEX, owner) + uint_word(owner_index))
        for owner_index in owner_indexes
    ]
    token_ids = [
        token_id
        for token_id in map(answer_uint, query_lens(transport, token_id_calls, block_ref))
        if not isinstance(token_id, CallStatus)
    ]
    position_answers = query_lens(
        transport, [_position_call(manager, token_id) for token_id in token_ids], block_ref
    )
    manager_tokens = (
        _manager_token(manager, token_id, answer)
        for token_id, answer in zip(token_ids, position_answers, strict=True)
    )
    return [manager_token for manager_token in manager_tokens if manager_token is not None]


def _position_call(manager: str, token_id: int) -> CallItem:
    return CallItem(manager, MANAGER_POSITIONS + uint_word(token_id), max_answer_bytes=384)


def _manager_token(manager: str, token_id: int, answer: LensAnswer) -> UnsolicitedPosition | None:
    position_words = answer_words(answer, 12)
    if isinstance(position_words, CallStatus):
        return None
    pool_tokens = (
        address_from_word(position_words[2] & _ADDRESS_MASK),
        address_from_word(position_words[3] & _ADDRESS_MASK),
    )
    name = position_name(LpVenue.V3, manager, token_id)
    return UnsolicitedPosition(name, manager, token_id, pool_tokens, position_words[7])
