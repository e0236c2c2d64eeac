"""Says what calldata means: a strict decoder for the few calls the agent sends, apart from whatever encoded them.

Only the one canonical encoding of a call is understood (offsets in order, padding zero, nothing left over), so two
different byte strings never mean the same call. Layout: Solidity contract ABI specification, "Formal Specification".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chain import program
from agent.chain.program import Rebalance
from agent.errors import Refused

WORD = 32
MAX_CALLS = 64
"""More calls in one multicall than any plan needs; bounds the work on hostile calldata."""
MAX_PATH = 8

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


class NotUnderstood(Refused):
    """Calldata that is not the canonical encoding of a known call."""


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
class Multicall:
    """SwapRouter02 multicall(deadline, calls): all or nothing, not after `deadline_s` (Unix seconds of the block)."""

    deadline_s: int
    calls: tuple[Swap, ...]


Call = Approve | Multicall | Rebalance | Swap


def selector(signature: str) -> bytes:
    """First four bytes of keccak256 of a function signature."""
    return bytes(keccak(text=signature))[:4]


APPROVE = selector("approve(address,uint256)")
MULTICALL = selector("multicall(uint256,bytes[])")
EXACT_INPUT_SINGLE = selector("exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))")
SWAP_EXACT_TOKENS = selector("swapExactTokensForTokens(uint256,uint256,address[],address)")
REBALANCE = selector("rebalance(bytes)")


class _Words:
    """Arguments read word by word; `end` proves that nothing was left over."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self, bits: int = 256) -> int:
        """The next word as an unsigned integer of `bits` bits, higher bits zero."""
        value = int.from_bytes(self.take(WORD), "big")
        if value >> bits:
            raise NotUnderstood(f"calldata: a number does not fit its {bits} bits")
        return value

    def address(self) -> str:
        """The next word as a checksummed address."""
        return to_checksum_address(self.uint(160).to_bytes(20, "big"))

    def exactly(self, expected: int, what: str) -> None:
        """The next word, which canonical encoding fixes."""
        if self.uint() != expected:
            raise NotUnderstood(f"calldata: {what} is not where it belongs")

    def count(self, most: int, what: str) -> int:
        """The next word as a length of at most `most`."""
        value = self.uint()
        if value > most:
            raise NotUnderstood(f"calldata: {value} {what}, at most {most} are understood")
        return value

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise NotUnderstood("calldata: it ends too early")
        self._at += length
        return part

    def padded(self, length: int) -> bytes:
        """`length` bytes followed by zeros up to a whole word."""
        part = self.take(length)
        if any(self.take(-length % WORD)):
            raise NotUnderstood("calldata: padding is not zero")
        return part

    def end(self) -> None:
        """Raises unless everything was read."""
        if self._at != len(self._data):
            raise NotUnderstood("calldata: bytes are left over")


def data_bytes(data: str) -> bytes:
    """Bytes of 0x-hex calldata. Raises NotUnderstood on anything else."""
    if not _HEX.fullmatch(data):
        raise NotUnderstood("calldata: not 0x-hex")
    return bytes.fromhex(data[2:])


def decode(data: str | bytes) -> Call:
    """The call that `data` (bytes or 0x-hex) encodes. Raises NotUnderstood naming what is wrong."""
    raw = data_bytes(data) if isinstance(data, str) else bytes(data)
    return _decode(raw, _DECODERS)


def _decode(raw: bytes, decoders: dict[bytes, Callable[[_Words], Call]]) -> Call:
    decoder = decoders.get(raw[:4])
    if decoder is None:
        raise NotUnderstood(f"calldata: unknown function 0x{raw[:4].hex()}")
    words = _Words(raw[4:])
    call = decoder(words)
    words.end()
    return call


def _approve(words: _Words) -> Approve:
    return Approve(spender=words.address(), raw=words.uint())


def _exact_input_single(words: _Words) -> ExactInputSingle:
    return ExactInputSingle(
        token_in=words.address(),
        token_out=words.address(),
        fee_pips=words.uint(24),
        recipient=words.address(),
        amount_in_raw=words.uint(),
        min_out_raw=words.uint(),
        sqrt_price_limit_x96=words.uint(160),
    )


def _swap_exact_tokens(words: _Words) -> SwapExactTokens:
    amount_in_raw, min_out_raw = words.uint(), words.uint()
    words.exactly(4 * WORD, "the path")
    recipient = words.address()
    path = tuple(words.address() for _ in range(words.count(MAX_PATH, "tokens in a path")))
    return SwapExactTokens(amount_in_raw, min_out_raw, path, recipient)


def _multicall(words: _Words) -> Multicall:
    deadline_s = words.uint()
    words.exactly(2 * WORD, "the list of calls")
    count = words.count(MAX_CALLS, "calls")
    offsets = [words.uint() for _ in range(count)]
    calls: list[Swap] = []
    expected = count * WORD
    for offset in offsets:
        if offset != expected:
            raise NotUnderstood("calldata: a call is not where it belongs")
        length = words.count(1 << 16, "bytes in a call")
        call = _decode(words.padded(length), _INNER)
        if not isinstance(call, ExactInputSingle | SwapExactTokens):
            raise NotUnderstood("calldata: only swaps may stand inside a multicall")
        calls.append(call)
        expected += WORD + length + -length % WORD
    return Multicall(deadline_s, tuple(calls))


def _rebalance(words: _Words) -> Rebalance:
    words.exactly(WORD, "the program")
    data = words.padded(words.count(1 << 16, "bytes in a program"))
    try:
        return program.read(data)
    except ValueError as error:
        raise NotUnderstood(f"calldata: {error}") from None


_INNER: dict[bytes, Callable[[_Words], Call]] = {
    EXACT_INPUT_SINGLE: _exact_input_single,
    SWAP_EXACT_TOKENS: _swap_exact_tokens,
}
_DECODERS: dict[bytes, Callable[[_Words], Call]] = {APPROVE: _approve, MULTICALL: _multicall, REBALANCE: _rebalance, **_INNER}
