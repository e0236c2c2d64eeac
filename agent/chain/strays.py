"""Which liquidity positions the wallet holds that its owner has not confirmed: sent by strangers or forgotten, told and never counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.chain.abi import BALANCE_OF, MANAGER_POSITIONS, TOKEN_OF_OWNER_BY_INDEX, address_call, word
from agent.chain.ask import ask
from agent.chain.lens import CallItem, Status, uint, words
from agent.chain.rpc import Transport
from agent.chain.watch import PoolKind, PoolRef
from agent.chain.words import address_of
from agent.model import ConfirmedPosition
from agent.model.positions import position_name

MOST = 100
"""Tokens of the position manager that are looked at: anyone can send thousands."""
_ADDRESS = (1 << 160) - 1


@dataclass(frozen=True, slots=True)
class Stray:
    """A position that does not count. `tokens` are addresses: names that strangers chose are not shown (T17)."""

    name: str
    contract: str
    token_id: int | None
    tokens: tuple[str, str]
    liquidity: int


@dataclass(frozen=True, slots=True)
class Strays:
    """What was found; `more` tokens of the manager were not looked at."""

    found: tuple[Stray, ...]
    more: int


def find_strays(
    transport: Transport, owner: str, manager: str | None, pools: Iterable[PoolRef], confirmed: Sequence[ConfirmedPosition], at: object
) -> Strays:
    """LP tokens of the known pairs and tokens of the manager that `owner` holds and did not confirm, at one block.

    Takes up to three requests. Raises Retryable from the endpoint. LP tokens of pairs that are not in `pools` are not looked for.
    """
    known = {one.name for one in confirmed}
    pairs = [pool for pool in pools if pool.kind is PoolKind.V2]
    contracts = [*(pool.address for pool in pairs), *([] if manager is None else [manager])]
    balances = [uint(answer) for answer in ask(transport, [CallItem(one, address_call(BALANCE_OF, owner)) for one in contracts], at)]
    found = [
        Stray(position_name(pool.venue, pool.address, None), pool.address, None, (pool.token0, pool.token1), raw)
        for pool, raw in zip(pairs, balances[: len(pairs)], strict=True)
        if not isinstance(raw, Status) and raw > 0
    ]
    count = balances[-1] if manager is not None else 0
    held = 0 if isinstance(count, Status) else count
    if manager is not None and held:
        found += _tokens(transport, owner, manager, min(held, MOST), at)
    return Strays(tuple(stray for stray in found if stray.name not in known), max(0, held - MOST))


def _tokens(transport: Transport, owner: str, manager: str, count: int, at: object) -> list[Stray]:
    """The first `count` tokens of the manager that the owner holds."""
    asked = [CallItem(manager, address_call(TOKEN_OF_OWNER_BY_INDEX, owner) + word(index)) for index in range(count)]
    ids = [read for read in map(uint, ask(transport, asked, at)) if not isinstance(read, Status)]
    shapes = ask(transport, [CallItem(manager, MANAGER_POSITIONS + word(token_id), longest=384) for token_id in ids], at)
    found = []
    for token_id, answer in zip(ids, shapes, strict=True):
        read = words(answer, 12)
        if not isinstance(read, Status):
            tokens = (address_of(read[2] & _ADDRESS), address_of(read[3] & _ADDRESS))
            found.append(Stray(position_name("uniswap_v3", manager, token_id), manager, token_id, tokens, read[7]))
    return found
