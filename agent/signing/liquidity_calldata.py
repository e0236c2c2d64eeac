"""Strict decoder of liquidity calls: V3 position manager and V2 router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.signing.calldata import WORD, CalldataReader, UndecodableCalldata, selector

T = TypeVar("T")
UINT128_MAX = 2**128 - 1

MANAGER_MULTICALL = selector("multicall(bytes[])")
DECREASE = selector("decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))")
COLLECT = selector("collect((uint256,address,uint128,uint128))")
INCREASE = selector("increaseLiquidity((uint256,uint256,uint256,uint256,uint256,uint256))")
MINT = selector("mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))")
ADD = selector("addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)")
REMOVE = selector("removeLiquidity(address,address,uint256,uint256,uint256,address,uint256)")


@dataclass(frozen=True, slots=True)
class DecreaseLiquidity:
    """NonfungiblePositionManager.decreaseLiquidity: the withdrawn amounts are owed to the token until they are collected."""

    token_id: int
    liquidity: int
    min_raw: tuple[int, int]
    deadline_s: int


@dataclass(frozen=True, slots=True)
class CollectOwed:
    """NonfungiblePositionManager.collect, at most `most_raw` of each token. A recipient of zero would be the manager itself."""

    token_id: int
    recipient: str
    most_raw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DecreaseAndCollect:
    """The manager's multicall of decreaseLiquidity and then collect; its deadline is that of the first."""

    decrease: DecreaseLiquidity
    collect: CollectOwed


@dataclass(frozen=True, slots=True)
class IncreaseLiquidity:
    """NonfungiblePositionManager.increaseLiquidity of a token that exists."""

    token_id: int
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    deadline_s: int


@dataclass(frozen=True, slots=True)
class MintPosition:
    """NonfungiblePositionManager.mint: a new token for `recipient`."""

    token0: str
    token1: str
    fee_pips: int
    ticks: tuple[int, int]
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


@dataclass(frozen=True, slots=True)
class AddLiquidity:
    """UniswapV2Router02.addLiquidity; LP tokens go to `recipient`."""

    token0: str
    token1: str
    desired_raw: tuple[int, int]
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


@dataclass(frozen=True, slots=True)
class RemoveLiquidity:
    """UniswapV2Router02.removeLiquidity of this many LP tokens; their share of the pair goes to `recipient`."""

    token0: str
    token1: str
    liquidity: int
    min_raw: tuple[int, int]
    recipient: str
    deadline_s: int


LiquidityCall = DecreaseAndCollect | CollectOwed | IncreaseLiquidity | MintPosition | AddLiquidity | RemoveLiquidity


def decode(data: bytes) -> LiquidityCall:
    """Decode the call in `data`. Raises UndecodableCalldata naming the error."""
    decoder = _DECODERS.get(data[:4])
    if decoder is None:
        raise UndecodableCalldata(f"calldata: unknown function 0x{data[:4].hex()}")
    return _whole(data[4:], decoder)


def _whole(data: bytes, decoder: Callable[[CalldataReader], T]) -> T:
    words = CalldataReader(data)
    call = decoder(words)
    words.end()
    return call


def _two(words: CalldataReader, bits: int = 256) -> tuple[int, int]:
    return words.uint(bits), words.uint(bits)


def _decrease(words: CalldataReader) -> DecreaseLiquidity:
    return DecreaseLiquidity(words.uint(), words.uint(128), _two(words), words.uint())


def _collect(words: CalldataReader) -> CollectOwed:
    return CollectOwed(words.uint(), words.address(), _two(words, 128))


def _increase(words: CalldataReader) -> IncreaseLiquidity:
    return IncreaseLiquidity(words.uint(), _two(words), _two(words), words.uint())


def _mint(words: CalldataReader) -> MintPosition:
    tokens, fee_pips = (words.address(), words.address()), words.uint(24)
    ticks = words.signed(24), words.signed(24)
    return MintPosition(*tokens, fee_pips, ticks, _two(words), _two(words), words.address(), words.uint())


def _add(words: CalldataReader) -> AddLiquidity:
    return AddLiquidity(words.address(), words.address(), _two(words), _two(words), words.address(), words.uint())


def _remove(words: CalldataReader) -> RemoveLiquidity:
    return RemoveLiquidity(words.address(), words.address(), words.uint(), _two(words), words.address(), words.uint())


def _take_out(words: CalldataReader) -> DecreaseAndCollect:
    """Exactly two calls, each where canonical encoding puts it."""
    words.exactly(WORD, "the list of calls")
    words.exactly(2, "the number of calls")
    lengths = 4 + 5 * WORD, 4 + 4 * WORD
    first = 2 * WORD
    words.exactly(first, "the first call")
    words.exactly(first + WORD + lengths[0] + -lengths[0] % WORD, "the second call")
    return DecreaseAndCollect(_inner(words, lengths[0], DECREASE, _decrease), _inner(words, lengths[1], COLLECT, _collect))


def _inner(words: CalldataReader, length: int, wanted: bytes, decoder: Callable[[CalldataReader], T]) -> T:
    words.exactly(length, "the length of a call")
    data = words.padded(length)
    if data[:4] != wanted:
        raise UndecodableCalldata("calldata: only decreaseLiquidity and then collect may be inside the manager's multicall")
    return _whole(data[4:], decoder)


_DECODERS: dict[bytes, Callable[[CalldataReader], LiquidityCall]] = {
    MANAGER_MULTICALL: _take_out,
    COLLECT: _collect,
    INCREASE: _increase,
    MINT: _mint,
    ADD: _add,
    REMOVE: _remove,
}
SELECTORS = frozenset(_DECODERS)
"""Functions that a transaction about liquidity may call."""
