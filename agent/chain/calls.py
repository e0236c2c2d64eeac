"""Says what calldata means: a strict decoder for the few calls the agent sends, apart from whatever encoded them.

Only the one canonical encoding of a call is understood (offsets in order, padding zero, nothing left over), so two
different byte strings never mean the same call. Layout: Solidity contract ABI specification, "Formal Specification".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from eth_utils.crypto import keccak

from agent.chain import program
from agent.chain.program import Rebalance
from agent.chain.words import WORD, NotUnderstood, Words

MAX_CALLS = 64
"""More calls in one multicall than any plan needs; bounds the work on hostile calldata."""
MAX_PATH = 8

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class Approve:
    """ERC-20 approve(spender, amount), base units."""

    spender: str
    raw: int


@dataclass(frozen=True, slots=True)
class ExactInputSingle:
    """SwapRouter02 exactInputSingle: one V3 pool, amounts in base units. `amount_in_raw` 0 spends the router's balance."""

    token_in: str
    token_out: str
    fee_pips: int
    recipient: str
    amount_in_raw: int
    min_out_raw: int
    sqrt_price_limit_x96: int


@dataclass(frozen=True, slots=True)
class SwapExactTokens:
    """SwapRouter02 swapExactTokensForTokens: V2 pairs along `path`. `amount_in_raw` 0 spends the router's balance."""

    amount_in_raw: int
    min_out_raw: int
    path: tuple[str, ...]
    recipient: str


Swap = ExactInputSingle | SwapExactTokens


@dataclass(frozen=True, slots=True)
class WrapEth:
    """SwapRouter02 wrapETH: wraps so much of the native coin that was sent along; the router keeps it."""

    value_wei: int


@dataclass(frozen=True, slots=True)
class SweepToken:
    """SwapRouter02 sweepToken: all that the router has of a token goes to `recipient`, at least `min_raw` base units."""

    token: str
    min_raw: int
    recipient: str


@dataclass(frozen=True, slots=True)
class Pull:
    """SwapRouter02 pull: takes `raw` base units of the caller's token into the router."""

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class UnwrapWeth9:
    """SwapRouter02 unwrapWETH9: all wrapped coin of the router goes to `recipient` as native coin, at least `min_raw`."""

    min_raw: int
    recipient: str


Inner = Swap | WrapEth | SweepToken | Pull | UnwrapWeth9
"""What may stand inside a multicall."""


@dataclass(frozen=True, slots=True)
class Multicall:
    """SwapRouter02 multicall(deadline, calls): all or nothing, not after `deadline_s` (Unix seconds of the block)."""

    deadline_s: int
    calls: tuple[Inner, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """WETH9 withdraw(amount): the caller's wrapped coin becomes native coin, base units."""

    raw: int


Call = Approve | Multicall | Rebalance | Withdraw | Inner


def selector(signature: str) -> bytes:
    """First four bytes of keccak256 of a function signature."""
    return bytes(keccak(text=signature))[:4]


APPROVE = selector("approve(address,uint256)")
MULTICALL = selector("multicall(uint256,bytes[])")
EXACT_INPUT_SINGLE = selector("exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))")
SWAP_EXACT_TOKENS = selector("swapExactTokensForTokens(uint256,uint256,address[],address)")
WRAP_ETH = selector("wrapETH(uint256)")
SWEEP_TOKEN = selector("sweepToken(address,uint256,address)")
PULL = selector("pull(address,uint256)")
UNWRAP_WETH9 = selector("unwrapWETH9(uint256,address)")
WITHDRAW = selector("withdraw(uint256)")
REBALANCE = selector("rebalance(bytes)")


def data_bytes(data: str) -> bytes:
    """Bytes of 0x-hex calldata. Raises NotUnderstood on anything else."""
    if not _HEX.fullmatch(data):
        raise NotUnderstood("calldata: not 0x-hex")
    return bytes.fromhex(data[2:])


def decode(data: str | bytes) -> Call:
    """The call that `data` (bytes or 0x-hex) encodes. Raises NotUnderstood naming what is wrong."""
    raw = data_bytes(data) if isinstance(data, str) else bytes(data)
    return _decode(raw, _DECODERS)


def _decode(raw: bytes, decoders: dict[bytes, Callable[[Words], Call]]) -> Call:
    decoder = decoders.get(raw[:4])
    if decoder is None:
        raise NotUnderstood(f"calldata: unknown function 0x{raw[:4].hex()}")
    words = Words(raw[4:])
    call = decoder(words)
    words.end()
    return call


def _approve(words: Words) -> Approve:
    return Approve(spender=words.address(), raw=words.uint())


def _exact_input_single(words: Words) -> ExactInputSingle:
    return ExactInputSingle(
        token_in=words.address(),
        token_out=words.address(),
        fee_pips=words.uint(24),
        recipient=words.address(),
        amount_in_raw=words.uint(),
        min_out_raw=words.uint(),
        sqrt_price_limit_x96=words.uint(160),
    )


def _swap_exact_tokens(words: Words) -> SwapExactTokens:
    amount_in_raw, min_out_raw = words.uint(), words.uint()
    words.exactly(4 * WORD, "the path")
    recipient = words.address()
    path = tuple(words.address() for _ in range(words.count(MAX_PATH, "tokens in a path")))
    return SwapExactTokens(amount_in_raw, min_out_raw, path, recipient)


def _multicall(words: Words) -> Multicall:
    deadline_s = words.uint()
    words.exactly(2 * WORD, "the list of calls")
    count = words.count(MAX_CALLS, "calls")
    offsets = [words.uint() for _ in range(count)]
    calls: list[Inner] = []
    expected = count * WORD
    for offset in offsets:
        if offset != expected:
            raise NotUnderstood("calldata: a call is not where it belongs")
        length = words.count(1 << 16, "bytes in a call")
        call = _decode(words.padded(length), _INNER)
        if not isinstance(call, Inner):
            raise NotUnderstood("calldata: only swaps and payments may stand inside a multicall")
        calls.append(call)
        expected += WORD + length + -length % WORD
    return Multicall(deadline_s, tuple(calls))


def _rebalance(words: Words) -> Rebalance:
    words.exactly(WORD, "the program")
    data = words.padded(words.count(1 << 16, "bytes in a program"))
    try:
        return program.read(data)
    except ValueError as error:
        raise NotUnderstood(f"calldata: {error}") from None


_INNER: dict[bytes, Callable[[Words], Call]] = {
    EXACT_INPUT_SINGLE: _exact_input_single,
    SWAP_EXACT_TOKENS: _swap_exact_tokens,
    WRAP_ETH: lambda words: WrapEth(words.uint()),
    SWEEP_TOKEN: lambda words: SweepToken(words.address(), words.uint(), words.address()),
    PULL: lambda words: Pull(words.address(), words.uint()),
    UNWRAP_WETH9: lambda words: UnwrapWeth9(words.uint(), words.address()),
}
_DECODERS: dict[bytes, Callable[[Words], Call]] = {
    APPROVE: _approve,
    MULTICALL: _multicall,
    REBALANCE: _rebalance,
    WITHDRAW: lambda words: Withdraw(words.uint()),
    **_INNER,
}
