"""Strict decoder of the calls that the agent sends, independent of their encoder.

Only the canonical encoding of a call is accepted (offsets in order, zero padding, no trailing
bytes), so that two different byte strings never decode to the same call. Layout: Solidity contract
ABI specification, "Formal Specification".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TypeVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.errors import Refused, kind_words
from agent.model import SPACING_SHIFT, PoolMaker, SwapStyle

WORD_BYTES = 32


@lru_cache(maxsize=4_096)
def address_from_word(word: int) -> str:
    """Return the checksummed address of an ABI word below 2^160; cached, since the checksum is a
    hash.
    """
    return str(to_checksum_address(word.to_bytes(20, "big")))


class UndecodableCalldata(Refused):
    """Calldata that is not the canonical encoding of a known call."""


class CalldataReader:
    """Reader of arguments, word by word; `require_end` requires that no bytes are left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def uint(self, bits: int = 256) -> int:
        """Return the next word as an unsigned integer whose bits above `bits` are zero."""
        number = int.from_bytes(self.take(WORD_BYTES), "big")
        if number >> bits:
            raise UndecodableCalldata(f"calldata: a number does not fit its {bits} bits")
        return number

    def signed(self, bits: int = 256) -> int:
        """Return the next word as a signed integer of `bits` bits, sign-extended to the word."""
        number = int.from_bytes(self.take(WORD_BYTES), "big", signed=True)
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise UndecodableCalldata(f"calldata: a number does not fit its {bits} bits")
        return number

    def address(self) -> str:
        """Return the next word as a checksummed address."""
        return address_from_word(self.uint(160))

    def require_word(self, expected: int, subject: str) -> None:
        """Require the next word, which encodes `subject`, to be `expected`."""
        if self.uint() != expected:
            raise UndecodableCalldata(f"calldata: unexpected value for {subject}")

    def take_length(self, max_count: int, subject: str) -> int:
        """Return the next word as a length of at most `max_count`."""
        length = self.uint()
        if length > max_count:
            raise UndecodableCalldata(
                f"calldata: {length} {subject}, at most {max_count} are understood"
            )
        return length

    def take(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        taken_bytes = self._data[self._offset : self._offset + length]
        if len(taken_bytes) != length:
            raise UndecodableCalldata("calldata ends too early")
        self._offset += length
        return taken_bytes

    def take_padded(self, length: int) -> bytes:
        """Return `length` bytes, followed by zeros up to a whole word."""
        padded_bytes = self.take(length)
        if any(self.take(-length % WORD_BYTES)):
            raise UndecodableCalldata("calldata: padding is not zero")
        return padded_bytes

    def require_end(self) -> None:
        """Raise UndecodableCalldata unless everything was read."""
        if self._offset != len(self._data):
            raise UndecodableCalldata("calldata has trailing bytes")


LEG_BYTES = 44


class FundsLocation(Enum):
    """Payer or recipient of a leg: the caller, the Rebalancer (with its whole balance), or the next
    leg's V2 pair.
    """

    WALLET = 0
    REBALANCER = 1
    PAIR = 2


@dataclass(frozen=True, slots=True)
class WatchedBalance:
    """A watched balance of the wallet. It changes by at least `min_change_raw`; a negative bound is
    the maximum that may be spent. `price_x128` is numeraire base units per token base unit, times
    2^128.
    """

    token: str
    price_x128: int
    min_change_raw: int


@dataclass(frozen=True, slots=True)
class ProgramLeg:
    """One swap, amounts in base units.

    The pool is derived from `maker`, both tokens and `tier`, never from an address in the plan; a
    tier of V4 is fee and tick spacing (SPACING_SHIFT). `amount_raw` is 0 unless the wallet pays;
    `next_pair_token` and `next_pair_maker` are set if the recipient is a pair.
    """

    maker: PoolMaker
    source: FundsLocation
    sink: FundsLocation
    token_in: str
    token_out: str
    next_pair_token: str | None
    next_pair_maker: PoolMaker | None
    tier: int
    amount_raw: int
    min_out_raw: int

    @property
    def style(self) -> SwapStyle:
        """How the swap is paid."""
        return self.maker.style


@dataclass(frozen=True, slots=True)
class RebalanceCall:
    """Rebalancer.rebalance(program): all or nothing, not after `deadline_s` (Unix seconds of the
    block). The changes of the watched balances, at their prices, sum to at least
    `min_value_change_raw` numeraire base units.
    """

    deadline_s: int
    min_value_change_raw: int
    watched_balances: tuple[WatchedBalance, ...]
    unwatched_tokens: tuple[str, ...]
    legs: tuple[ProgramLeg, ...]


class _ProgramReader:
    """Reader of consecutive big-endian fields."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take_int(self, length: int, signed: bool = False) -> int:
        taken_bytes = self._data[self._offset : self._offset + length]
        if len(taken_bytes) != length:
            raise ValueError("the program ends too early")
        self._offset += length
        return int.from_bytes(taken_bytes, "big", signed=signed)

    def address(self) -> str:
        return address_from_word(self.take_int(20))

    @property
    def remaining_bytes(self) -> int:
        return len(self._data) - self._offset


def decode_program(program: bytes) -> RebalanceCall:
    """Decode a program (contracts/src/Rebalancer.sol). Raises ValueError naming the
    error; no token or row is listed twice or without use, and what a leg does not use is zero.
    """
    reader = _ProgramReader(program)
    deadline_s = reader.take_int(5)
    watched_count, token_count, maker_count = (reader.take_int(1) for _ in range(3))
    min_value_change_raw = reader.take_int(16, signed=True)
    if watched_count > token_count:
        raise ValueError("the program watches more tokens than it lists")
    tokens = tuple(reader.address() for _ in range(token_count))
    watched_balances = tuple(
        WatchedBalance(token, reader.take_int(24), reader.take_int(16, signed=True))
        for token in tokens[:watched_count]
    )
    makers = tuple(_read_maker(reader) for _ in range(maker_count))
    if len(set(tokens)) != len(tokens):
        raise ValueError("the program lists a token twice")
    if reader.remaining_bytes == 0 or reader.remaining_bytes % LEG_BYTES:
        raise ValueError("the program's legs are not whole")
    legs = tuple(
        _read_leg(reader, tokens, makers) for _ in range(reader.remaining_bytes // LEG_BYTES)
    )
    if unused_tokens := set(tokens) - {
        token for leg in legs for token in (leg.token_in, leg.token_out, leg.next_pair_token)
    }:
        raise ValueError(
            f"the program lists {', '.join(sorted(unused_tokens))} and does not trade it"
        )
    if makers != tuple(dict.fromkeys(leg.maker for leg in legs)):
        raise ValueError("the program does not list its rows once, in the order of their legs")
    return RebalanceCall(
        deadline_s, min_value_change_raw, watched_balances, tokens[watched_count:], legs
    )


def _read_maker(reader: _ProgramReader) -> PoolMaker:
    style = _enum_member(SwapStyle, reader.take_int(1))
    maker = PoolMaker(style, reader.address(), f"0x{reader.take_int(32):064x}")
    if style is SwapStyle.NATIVE and maker != PoolMaker(style, maker.address):
        raise ValueError("a row for wrapping has a word that it does not use")
    return maker


def _read_leg(
    reader: _ProgramReader, tokens: tuple[str, ...], makers: tuple[PoolMaker, ...]
) -> ProgramLeg:
    flow_code, maker_index, index_in, index_out, index_next, next_maker_index = (
        reader.take_int(1) for _ in range(6)
    )
    tier = reader.take_int(3)
    tick_spacing = reader.take_int(3)
    amount_raw = reader.take_int(16)
    min_out_raw = reader.take_int(16)
    paid_from = _enum_member(FundsLocation, flow_code & 3)
    paid_to = _enum_member(FundsLocation, flow_code >> 2)
    if max(index_in, index_out, index_next) >= len(tokens):
        raise ValueError("a leg names a token that is not listed")
    if max(maker_index, next_maker_index) >= len(makers):
        raise ValueError("a leg names a row that is not listed")
    pays_pair = paid_to is FundsLocation.PAIR
    if (index_next or next_maker_index) and not pays_pair:
        raise ValueError("a leg names a next pair without paying to it")
    if pays_pair and makers[next_maker_index].style is not SwapStyle.V2:
        raise ValueError("a leg pays ahead to a pool that is not a pair")
    if amount_raw and paid_from is not FundsLocation.WALLET:
        raise ValueError("a leg names an amount that the wallet does not pay")
    style = makers[maker_index].style
    if (tick_spacing and style is not SwapStyle.V4) or (tier and style is SwapStyle.NATIVE):
        raise ValueError("a leg names a tier or a spacing that it does not use")
    if pays_pair and style is SwapStyle.V4:
        raise ValueError("a leg of V4 pays ahead to a pair")
    return ProgramLeg(
        makers[maker_index],
        paid_from,
        paid_to,
        tokens[index_in],
        tokens[index_out],
        tokens[index_next] if pays_pair else None,
        makers[next_maker_index] if pays_pair else None,
        tick_spacing << SPACING_SHIFT | tier,
        amount_raw,
        min_out_raw,
    )


EnumT = TypeVar("EnumT", bound=Enum)
CallT = TypeVar("CallT")


def _enum_member(enum_class: type[EnumT], code: int) -> EnumT:
    """Return the member with this code. Raises ValueError naming an unknown one."""
    try:
        return enum_class(code)
    except ValueError:
        raise ValueError(f"{code} is no known {kind_words(enum_class)}") from None


MAX_CALLS = 64
"""Maximum calls in one multicall, more than any plan needs; bounds the work on hostile calldata."""
MAX_PATH_TOKENS = 8

_HEX_PATTERN = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


@dataclass(frozen=True, slots=True)
class Approve:
    """ERC-20 approve(spender, amount), base units."""

    spender: str
    raw: int


@dataclass(frozen=True, slots=True)
class TransferCall:
    """ERC-20 transfer(recipient, amount), base units."""

    recipient: str
    raw: int


@dataclass(frozen=True, slots=True)
class ExactInputSingle:
    """SwapRouter02 exactInputSingle: one V3 pool, amounts in base units. `amount_in_raw` 0 spends
    the router's balance.
    """

    token_in: str
    token_out: str
    fee_pips: int
    recipient: str
    amount_in_raw: int
    min_out_raw: int
    sqrt_price_limit_x96: int


@dataclass(frozen=True, slots=True)
class SwapExactTokens:
    """SwapRouter02 swapExactTokensForTokens: V2 pairs along `path`. `amount_in_raw` 0 spends the
    router's balance.
    """

    amount_in_raw: int
    min_out_raw: int
    path: tuple[str, ...]
    recipient: str

    @property
    def token_in(self) -> str:
        """Token that is sold."""
        return self.path[0]

    @property
    def token_out(self) -> str:
        """Token that is bought."""
        return self.path[-1]


RouterSwap = ExactInputSingle | SwapExactTokens


@dataclass(frozen=True, slots=True)
class WrapEth:
    """SwapRouter02 wrapETH: wrap this amount of the attached native coin, which stays in the
    router.
    """

    value_wei: int


@dataclass(frozen=True, slots=True)
class SweepToken:
    """SwapRouter02 sweepToken: send the router's whole balance of a token to `recipient`, at least
    `min_raw` base units.
    """

    token: str
    min_raw: int
    recipient: str


@dataclass(frozen=True, slots=True)
class Pull:
    """SwapRouter02 pull: take `raw` base units of the caller's token into the router."""

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class UnwrapWeth9:
    """SwapRouter02 unwrapWETH9: unwrap the router's wrapped coin to `recipient`, at least
    `min_raw`.
    """

    min_raw: int
    recipient: str


MulticallItem = RouterSwap | WrapEth | SweepToken | Pull | UnwrapWeth9
"""Calls permitted inside a multicall."""


@dataclass(frozen=True, slots=True)
class Multicall:
    """SwapRouter02 multicall(deadline, calls): all or nothing, not after `deadline_s` (Unix seconds
    of the block).
    """

    deadline_s: int
    calls: tuple[MulticallItem, ...]


@dataclass(frozen=True, slots=True)
class WithdrawWeth9:
    """WETH9 withdraw(amount): the caller's wrapped coin becomes native coin, base units."""

    raw: int


Call = Approve | TransferCall | Multicall | RebalanceCall | WithdrawWeth9 | MulticallItem


def selector(signature: str) -> bytes:
    """Return the first four bytes of keccak256 of a function signature."""
    return bytes(keccak(text=signature))[:4]


APPROVE = selector("approve(address,uint256)")
TRANSFER = selector("transfer(address,uint256)")
MULTICALL = selector("multicall(uint256,bytes[])")
EXACT_INPUT_SINGLE = selector(
    "exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))"
)
SWAP_EXACT_TOKENS = selector("swapExactTokensForTokens(uint256,uint256,address[],address)")
WRAP_ETH = selector("wrapETH(uint256)")
SWEEP_TOKEN = selector("sweepToken(address,uint256,address)")
PULL = selector("pull(address,uint256)")
UNWRAP_WETH9 = selector("unwrapWETH9(uint256,address)")
WITHDRAW = selector("withdraw(uint256)")
REBALANCE = selector("rebalance(bytes)")


def data_bytes(data: str) -> bytes:
    """Return the bytes of 0x-hex calldata. Raises UndecodableCalldata on anything else."""
    if not _HEX_PATTERN.fullmatch(data):
        raise UndecodableCalldata("calldata: not 0x-hex")
    return bytes.fromhex(data[2:])


def decode(data: str | bytes) -> Call:
    """Decode the call in `data` (bytes or 0x-hex). Raises UndecodableCalldata naming the error."""
    calldata = data_bytes(data) if isinstance(data, str) else bytes(data)
    return decode_call(calldata, _DECODERS)


def decode_call(
    calldata: bytes, decoders: Mapping[bytes, Callable[[CalldataReader], CallT]]
) -> CallT:
    """Decode a call, to the last byte, by the decoder of its selector. Raises UndecodableCalldata
    naming the error.
    """
    decoder = decoders.get(calldata[:4])
    if decoder is None:
        raise UndecodableCalldata(f"calldata: unknown function 0x{calldata[:4].hex()}")
    words = CalldataReader(calldata[4:])
    call = decoder(words)
    words.require_end()
    return call


def _decode_approve(words: CalldataReader) -> Approve:
    return Approve(spender=words.address(), raw=words.uint())


def _decode_exact_input_single(words: CalldataReader) -> ExactInputSingle:
    return ExactInputSingle(
        token_in=words.address(),
        token_out=words.address(),
        fee_pips=words.uint(24),
        recipient=words.address(),
        amount_in_raw=words.uint(),
        min_out_raw=words.uint(),
        sqrt_price_limit_x96=words.uint(160),
    )


def _decode_swap_exact_tokens(words: CalldataReader) -> SwapExactTokens:
    amount_in_raw = words.uint()
    min_out_raw = words.uint()
    words.require_word(4 * WORD_BYTES, "the path")
    recipient = words.address()
    path = tuple(
        words.address() for _ in range(words.take_length(MAX_PATH_TOKENS, "tokens in a path"))
    )
    if len(path) < 2:
        raise UndecodableCalldata("calldata: a path of fewer than two tokens")
    return SwapExactTokens(amount_in_raw, min_out_raw, path, recipient)


def _decode_multicall(words: CalldataReader) -> Multicall:
    deadline_s = words.uint()
    words.require_word(2 * WORD_BYTES, "the list of calls")
    call_count = words.take_length(MAX_CALLS, "calls")
    offsets = [words.uint() for _ in range(call_count)]
    calls: list[MulticallItem] = []
    expected_offset = call_count * WORD_BYTES
    for offset in offsets:
        if offset != expected_offset:
            raise UndecodableCalldata("calldata: a call is not at its canonical offset")
        length = words.take_length(1 << 16, "bytes in a call")
        call = decode_call(words.take_padded(length), _MULTICALL_DECODERS)
        if not isinstance(call, MulticallItem):
            raise UndecodableCalldata("calldata: only swaps and payments may be inside a multicall")
        calls.append(call)
        expected_offset += WORD_BYTES + length + -length % WORD_BYTES
    return Multicall(deadline_s, tuple(calls))


def _decode_rebalance(words: CalldataReader) -> RebalanceCall:
    words.require_word(WORD_BYTES, "the program")
    program = words.take_padded(words.take_length(1 << 16, "bytes in a program"))
    try:
        return decode_program(program)
    except ValueError as error:
        raise UndecodableCalldata(f"calldata: {error}") from None


_MULTICALL_DECODERS: dict[bytes, Callable[[CalldataReader], Call]] = {
    EXACT_INPUT_SINGLE: _decode_exact_input_single,
    SWAP_EXACT_TOKENS: _decode_swap_exact_tokens,
    WRAP_ETH: lambda words: WrapEth(words.uint()),
    SWEEP_TOKEN: lambda words: SweepToken(words.address(), words.uint(), words.address()),
    PULL: lambda words: Pull(words.address(), words.uint()),
    UNWRAP_WETH9: lambda words: UnwrapWeth9(words.uint(), words.address()),
}
_DECODERS: dict[bytes, Callable[[CalldataReader], Call]] = {
    APPROVE: _decode_approve,
    TRANSFER: lambda words: TransferCall(words.address(), words.uint()),
    MULTICALL: _decode_multicall,
    REBALANCE: _decode_rebalance,
    WITHDRAW: lambda words: WithdrawWeth9(words.uint()),
    **_MULTICALL_DECODERS,
}
