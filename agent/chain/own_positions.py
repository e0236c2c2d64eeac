"""Liquidity positions opened by the agent, and unsolicited positions, which are never counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.amm.lp import own_changes
from agent.chain.lens import (
    BALANCE_OF,
    MANAGER_POSITIONS,
    TOKEN_OF_OWNER_BY_INDEX,
    CallItem,
    CallStatus,
    address_call,
    answer_uint,
    answer_words,
    query_lens,
    uint_word,
)
from agent.chain.positions import PositionRange, PositionRef
from agent.chain.rpc import Transport
from agent.chain.watch import PoolKind, PoolRef
from agent.model import (
    ConfirmedPosition,
    Head,
    LpPositionChange,
    PastPrices,
    Snapshot,
    position_name,
)
from agent.signing.calldata import address_from_word

if TYPE_CHECKING:
    from agent.chain.snapshot import ChainReader


class PositionReader:
    """ports.Reader over a ChainReader that adds the agent's current positions to each snapshot.
    `start_refs` are the positions known at start-up, `moves` returns recorded position changes, `known`
    returns the positions that count after those changes. The range of a minted position comes from
    its transaction; the snapshot verifies it like any other.
    """

    def __init__(
        self,
        reader: ChainReader,
        start_refs: Sequence[PositionRef],
        factories: dict[str, str],
        moves: Callable[[], Sequence[LpPositionChange]],
        known: Callable[[Sequence[LpPositionChange]], tuple[ConfirmedPosition, ...]],
    ) -> None:
        self.chain = reader
        self._found = {ref.confirmed.name: ref for ref in start_refs}
        self._factories = factories
        self._moves = moves
        self._known = known

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        moves = self._moves()
        refs = tuple(self._ref(position, moves) for position in self._known(moves))
        if refs != self.chain.watch.positions:
            self.chain.watch = replace(self.chain.watch, positions=refs)
        return self.chain.snapshot()

    def past(self, head: Head, blocks: int) -> tuple[PastPrices, ...]:
        """See ports.Reader."""
        return self.chain.past(head, blocks)

    def with_more_ticks(self, snapshot: Snapshot, pools: Collection[str]) -> Snapshot:
        """See ports.Reader."""
        return self.chain.with_more_ticks(snapshot, pools)

    def _ref(self, position: ConfirmedPosition, moves: Sequence[LpPositionChange]) -> PositionRef:
        ref = self._found.get(position.name)
        if ref is not None:
            return replace(ref, confirmed=position)
        ranges = (
            PositionRange(mint.pool, mint.fee_pips, *(mint.ticks or (0, 0)))
            for mint in own_changes.open_mints(moves)
            if mint.name == position.name
        )
        return PositionRef(position, self._factories[position.venue], next(ranges, None))


MOST = 100
"""Maximum number of the manager's tokens that are checked, since anyone can send thousands."""
_ADDRESS = (1 << 160) - 1


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
    """Unsolicited positions. `more` is the number of manager tokens beyond MOST, which were not
    checked.
    """

    found: tuple[UnsolicitedPosition, ...]
    more: int


def find_unsolicited_positions(
    transport: Transport,
    owner: str,
    manager: str | None,
    pools: Iterable[PoolRef],
    confirmed: Sequence[ConfirmedPosition],
    at: object,
) -> UnsolicitedPositions:
    """Return the unconfirmed LP tokens of `pools` and tokens of the manager that `owner` holds at
    one block, with up to three requests. Raises Retryable from the endpoint.
    """
    known = {position.name for position in confirmed}
    pairs = [pool for pool in pools if pool.kind is PoolKind.V2]
    contracts = [*(pool.address for pool in pairs), *([] if manager is None else [manager])]
    balances = [
        answer_uint(answer)
        for answer in query_lens(
            transport,
            [CallItem(contract, address_call(BALANCE_OF, owner)) for contract in contracts],
            at,
        )
    ]
    unsolicited = [
        UnsolicitedPosition(
            position_name(pool.venue, pool.address, None),
            pool.address,
            None,
            (pool.token0, pool.token1),
            raw,
        )
        for pool, raw in zip(pairs, balances[: len(pairs)], strict=True)
        if not isinstance(raw, CallStatus) and raw > 0
    ]
    count = balances[-1] if manager is not None else 0
    token_count = 0 if isinstance(count, CallStatus) else count
    if manager is not None and token_count:
        unsolicited += _tokens(transport, owner, manager, min(token_count, MOST), at)
    return UnsolicitedPositions(
        tuple(position for position in unsolicited if position.name not in known),
        max(0, token_count - MOST),
    )


def _tokens(
    transport: Transport, owner: str, manager: str, count: int, at: object
) -> list[UnsolicitedPosition]:
    """Return the first `count` tokens of the manager that the owner holds."""
    calls = [
        CallItem(manager, address_call(TOKEN_OF_OWNER_BY_INDEX, owner) + uint_word(index))
        for index in range(count)
    ]
    ids = [
        read
        for read in map(answer_uint, query_lens(transport, calls, at))
        if not isinstance(read, CallStatus)
    ]
    shapes = query_lens(
        transport,
        [
            CallItem(manager, MANAGER_POSITIONS + uint_word(token_id), max_answer_bytes=384)
            for token_id in ids
        ],
        at,
    )
    unsolicited = []
    for token_id, answer in zip(ids, shapes, strict=True):
        read = answer_words(answer, 12)
        if not isinstance(read, CallStatus):
            tokens = (address_from_word(read[2] & _ADDRESS), address_from_word(read[3] & _ADDRESS))
            unsolicited.append(
                UnsolicitedPosition(
                    position_name("uniswap_v3", manager, token_id),
                    manager,
                    token_id,
                    tokens,
                    read[7],
                )
            )
    return unsolicited
