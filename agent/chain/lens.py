"""Calls of PortfolioLens: items packed into pages, answers decoded, failures typed; ABI words."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent.artifacts import own_artifact
from agent.chain.rpc import CallFailed, RpcCall, RpcFault, Transport, hex_data, parse_bytes
from agent.errors import Retryable

PAGE_BYTES = 24_576
"""Most bytes that creation code may return (EIP-170)."""
REQUEST_BYTES = 40_000
"""Request bytes per page. Together with the lens they stay below the 49,152 bytes of EIP-3860."""
PAGE_GAS = 12_000_000
"""Target gas of a page, excluding the gas of returned bytes. Nodes allow at least 25 million per
call.
"""
TOKEN_GAS = 200_000
"""Gas cap of one call to a token or feed. Proxies and rebasing tokens need up to half of it."""
PAGE_FORMAT = 1

_CALL_TAG = 1
_CODE_TAG = 2
_V3_TAG = 3
_INDIRECT_CALL_TAG = 4
_V4_TAG = 5
_V3_HEAD_BYTES = 80
_V3_TICK_BYTES = 19


class CallStatus(Enum):
    """Reason why an item has no answer. Numbers are those of the contract; MALFORMED and above are
    added here.
    """

    FAILED = 1
    TOO_LONG = 2
    NO_CODE = 3
    UNREAD = 4
    NOT_INITIALISED = 5
    MALFORMED = 6

    @property
    def why(self) -> str:
        """Description of the status."""
        return _TEXT_BY_STATUS[self]


_TEXT_BY_STATUS = {
    CallStatus.FAILED: "the call reverted or used up its gas cap",
    CallStatus.TOO_LONG: "the answer is longer than its bound",
    CallStatus.NO_CODE: "there is no contract at this address",
    CallStatus.UNREAD: "the endpoint allows too little gas to read it",
    CallStatus.NOT_INITIALISED: "the pool has no price yet",
    CallStatus.MALFORMED: "the answer is malformed for this kind of contract",
}


@dataclass(frozen=True, slots=True)
class CallItem:
    """A view call with a gas cap and a bound on the answer's bytes. `likely_gas` only sizes
    pages.
    """

    target: str
    calldata: bytes
    max_answer_bytes: int = 32
    gas_cap: int = TOKEN_GAS
    likely_gas: int = 40_000

    def packed(self) -> bytes:
        """Encode the item for the contract."""
        return bytes([_CALL_TAG]) + address_bytes(self.target) + self.packed_call()

    def packed_call(self) -> bytes:
        """Return the packed item without its target address."""
        call_header = (
            self.gas_cap.to_bytes(3, "big")
            + self.max_answer_bytes.to_bytes(2, "big")
            + len(self.calldata).to_bytes(2, "big")
        )
        return call_header + self.calldata

    def max_bytes(self) -> int:
        """Return the number of bytes of the longest answer, status included."""
        return 3 + self.max_answer_bytes


@dataclass(frozen=True, slots=True)
class IndirectCallItem:
    """A view call to the contract that `holder` returns from the function `selector`. `call.target`
    is ignored.
    """

    holder: str
    selector: bytes
    call: CallItem
    likely_gas: int = 60_000

    def packed(self) -> bytes:
        """Encode the item for the contract."""
        return (
            bytes([_INDIRECT_CALL_TAG])
            + address_bytes(self.holder)
            + self.selector
            + self.call.packed_call()
        )

    def max_bytes(self) -> int:
        """Return the number of bytes of the longest answer, status included."""
        return self.call.max_bytes()


@dataclass(frozen=True, slots=True)
class CodeItem:
    """Hash of the code at an address."""

    target: str
    likely_gas: int = 5_000

    def packed(self) -> bytes:
        """Encode the item for the contract."""
        return bytes([_CODE_TAG]) + address_bytes(self.target)

    def max_bytes(self) -> int:
        """Return the number of bytes of the longest answer, status included."""
        return 33


@dataclass(frozen=True, slots=True)
class V3Item:
    """State of a V3 pool: ticks within `window_ticks` of the current one, at most `tick_limit`.
    `twap_window_s` 0 means no TWAP. Of a V4 pool, `pool` is the PoolManager and `pool_id` the
    PoolId, 0x-hex.
    """

    pool: str
    tick_spacing: int
    window_ticks: int
    tick_limit: int
    twap_window_s: int
    pool_id: str = ""

    @property
    def max_ticks(self) -> int:
        """Largest number of ticks that the answer can contain."""
        return min(self.tick_limit, 2 * (self.window_ticks // self.tick_spacing) + 2)

    @property
    def likely_gas(self) -> int:
        """Likely gas: as if every tick in the window were initialised."""
        bitmap_word_count = 2 * self.window_ticks // (256 * self.tick_spacing) + 3
        return (
            30_000
            + bitmap_word_count * 5_000
            + self.max_ticks * 8_000
            + (100_000 if self.twap_window_s else 0)
        )

    def packed(self) -> bytes:
        """Encode the item for the contract."""
        window_fields = (
            self.tick_spacing.to_bytes(3, "big")
            + self.window_ticks.to_bytes(3, "big")
            + self.max_ticks.to_bytes(2, "big")
        )
        return (
            bytes([_V4_TAG if self.pool_id else _V3_TAG])
            + address_bytes(self.pool)
            + bytes.fromhex(self.pool_id[2:])
            + window_fields
            + self.twap_window_s.to_bytes(4, "big")
        )

    def max_bytes(self) -> int:
        """Return the number of bytes of the longest answer, status included."""
        return 1 + _V3_HEAD_BYTES + self.max_ticks * _V3_TICK_BYTES


LensItem = CallItem | CodeItem | V3Item | IndirectCallItem


@dataclass(frozen=True, slots=True)
class V3Answer:
    """A V3 pool as read; `twap_deltas` is (difference of tickCumulative, difference of
    secondsPerLiquidityCumulativeX128) over the window. `observation_counts` are the current number
    of price observations, and the next.
    """

    sqrt_price_x96: int
    tick: int
    liquidity: int
    known_from_tick: int
    known_to_tick: int
    ticks: tuple[tuple[int, int], ...]
    twap_deltas: tuple[int, int] | None
    observation_counts: tuple[int, int] = (0, 0)


LensAnswer = bytes | V3Answer | CallStatus
"""Data of a call, a code hash, a pool, or a failure."""


def split_into_pages(items: Sequence[LensItem], page_gas: int = PAGE_GAS) -> list[list[int]]:
    """Return the indexes of `items` in pages that fit the limits of bytes and, most likely, of gas.
    Order is preserved.
    """
    index_pages: list[list[int]] = []
    answer_room = request_room = gas_room = 0
    for index, item in enumerate(items):
        answer_size = item.max_bytes()
        request_size = len(item.packed())
        likely_gas = item.likely_gas
        if (
            not index_pages
            or answer_size > answer_room
            or request_size > request_room
            or likely_gas > gas_room
        ):
            index_pages.append([])
            answer_room = PAGE_BYTES - 64
            request_room = REQUEST_BYTES
            gas_room = page_gas
        index_pages[-1].append(index)
        answer_room -= answer_size
        request_room -= request_size
        gas_room -= likely_gas
    return index_pages


def creation_code(items: Sequence[LensItem]) -> str:
    """Return the lens's creation code with its request as constructor argument (ABI: one `bytes`),
    0x-hex.
    """
    request = len(items).to_bytes(2, "big") + b"".join(item.packed() for item in items)
    constructor_argument = (
        (32).to_bytes(32, "big")
        + len(request).to_bytes(32, "big")
        + request
        + bytes(-len(request) % 32)
    )
    return own_artifact("PortfolioLens").bytecode + constructor_argument.hex()


def decode_page(items: Sequence[LensItem], page_bytes: bytes) -> list[LensAnswer]:
    """Return the answers in the order of `items`. Raises Retryable if the bytes are not an answer
    to exactly these items.
    """
    return [answer for answer, _ in _read_page(items, page_bytes)]


def _read_page(items: Sequence[LensItem], page_bytes: bytes) -> list[tuple[LensAnswer, bytes]]:
    reader = _PageReader(page_bytes)
    if reader.uint(1) != PAGE_FORMAT:
        raise Retryable(
            "the endpoint's answer to the lens is malformed",
            "the endpoint may not support calls without a recipient",
        )
    answers = []
    for item in items:
        answer_offset = reader.offset
        answers.append((_decode(item, reader), page_bytes[answer_offset : reader.offset]))
    reader.require_end()
    return answers


def _decode(item: LensItem, reader: _PageReader) -> LensAnswer:
    status = reader.uint(1)
    if status:
        if status not in _CONTRACT_STATUSES:
            raise Retryable("the endpoint's answer to the lens has an unknown status")
        return CallStatus(status)
    match item:
        case CallItem() | IndirectCallItem():
            answer_size = reader.uint(2)
            if answer_size > item.max_bytes() - 3:
                raise Retryable("the endpoint's answer to the lens is longer than its bound")
            return reader.take(answer_size)
        case CodeItem():
            return reader.take(32)
        case V3Item():
            return _decode_v3(reader)


def _decode_v3(reader: _PageReader) -> LensAnswer:
    sqrt_price_x96 = reader.uint(20)
    tick = reader.signed(3)
    observation_counts = (reader.uint(2), reader.uint(2))
    liquidity = reader.uint(16)
    from_tick = reader.signed(3)
    to_tick = reader.signed(3)
    has_twap = reader.uint(1)
    tick_delta = reader.signed(7)
    seconds_per_liquidity_delta = reader.uint(20)
    if has_twap > 1:  # one canonical encoding, so that equal answers are equal bytes (T2)
        raise Retryable("the endpoint's answer to the lens has an unknown mark")
    ticks = sorted((reader.signed(3), reader.signed(16)) for _ in range(reader.uint(2)))
    tick_indexes = [tick_index for tick_index, _ in ticks]
    if len(set(tick_indexes)) != len(tick_indexes) or any(
        not from_tick <= tick_index <= to_tick for tick_index in tick_indexes
    ):
        return CallStatus.MALFORMED
    twap = (tick_delta, seconds_per_liquidity_delta) if has_twap else None
    return V3Answer(
        sqrt_price_x96, tick, liquidity, from_tick, to_tick, tuple(ticks), twap, observation_counts
    )


_CONTRACT_STATUSES = frozenset(
    status.value for status in CallStatus if status is not CallStatus.MALFORMED
)


class _PageReader:
    """Reader of big-endian fields in sequence; a short page raises Retryable."""

    def __init__(self, page_bytes: bytes) -> None:
        self._page_bytes = page_bytes
        self.offset = 0

    def take(self, byte_count: int) -> bytes:
        field_bytes = self._page_bytes[self.offset : self.offset + byte_count]
        if len(field_bytes) != byte_count:
            raise Retryable("the endpoint's answer to the lens is truncated")
        self.offset += byte_count
        return field_bytes

    def uint(self, byte_count: int) -> int:
        return int.from_bytes(self.take(byte_count), "big")

    def signed(self, byte_count: int) -> int:
        return int.from_bytes(self.take(byte_count), "big", signed=True)

    def require_end(self) -> None:
        if self.offset != len(self._page_bytes):
            raise Retryable("the endpoint's answer to the lens has excess bytes")


def address_bytes(address: str) -> bytes:
    """Return the 20 bytes of an address."""
    return bytes.fromhex(address[2:])


def answer_words(answer: LensAnswer, word_count: int) -> tuple[int, ...] | CallStatus:
    """Return the first `word_count` 32-byte words of a call's answer as unsigned integers.

    A shorter answer is MALFORMED; a failure is returned.
    """
    if isinstance(answer, CallStatus):
        return answer
    if not isinstance(answer, bytes) or len(answer) < 32 * word_count:
        return CallStatus.MALFORMED
    return tuple(int.from_bytes(answer[32 * i : 32 * i + 32], "big") for i in range(word_count))


def answer_uint(answer: LensAnswer, max_bits: int = 256) -> int | CallStatus:
    """Return one unsigned integer of at most `max_bits` bits, or the failure."""
    words = answer_words(answer, 1)
    if isinstance(words, CallStatus):
        return words
    return words[0] if words[0] >> max_bits == 0 else CallStatus.MALFORMED


_SMALLER_PAGE_DIVISOR = 8
_UNREAD_ANSWER = bytes([CallStatus.UNREAD.value])


class LensPages:
    """Items packed into pages, each answered by one call of `caller`, which contracts see as
    tx.origin; of no account if it is empty.
    """

    def __init__(self, items: Sequence[LensItem], caller: str = "") -> None:
        self._from_field = {"from": caller} if caller else {}
        self.pages = [[items[i] for i in item_indexes] for item_indexes in split_into_pages(items)]
        self._creation_codes = [creation_code(page_items) for page_items in self.pages]
        self._items_by_code = dict(zip(self._creation_codes, self.pages, strict=True))
        self._newest_pages: dict[str, tuple[object, list[tuple[LensAnswer, bytes]]]] = {}

    def for_one_read(self) -> LensPages:
        """Return the same pages without what was read: answers are of one block."""
        pages = copy(self)
        pages._newest_pages = {}
        return pages

    def calls(self, block_ref: object) -> list[RpcCall]:
        """Return the JSON-RPC calls of all pages at one block."""
        return [
            ("eth_call", [{**self._from_field, "data": lens_code}, block_ref])
            for lens_code in self._creation_codes
        ]

    def items_of(self, call: RpcCall) -> Sequence[LensItem]:
        """Return the items of the page that a call asks for; none for other calls."""
        method, params = call
        return self._items_by_code.get(params[0].get("data"), ()) if method == "eth_call" else ()

    def query(self, transport: Transport, block_ref: object) -> list[LensAnswer]:
        """Return the answers of all items at one block, in one request, or two if the node allowed
        too little gas. Raises as `requery_unread`.
        """
        calls = self.calls(block_ref)
        return self.decode(self.requery_unread(transport, calls, transport.batch(calls)))

    def requery_unread(
        self, transport: Transport, calls: Sequence[RpcCall], answers: Sequence[Any]
    ) -> list[Any]:
        """Return one endpoint's answers to `calls` with whole pages: items that ran out of gas, or
        are on a refused page, are requested once more, at the same block. Raises CallFailed if the
        node refuses smaller pages too. An item that still lacks gas is CallStatus.UNREAD.
        """
        item_answers_by_call = {
            call_index: [_UNREAD_ANSWER] * len(page_items)
            if isinstance(page_answer, RpcFault)
            else self.encoded_answers(call, page_answer, f"the lens from {transport.name}")
            for call_index, (call, page_answer) in enumerate(zip(calls, answers, strict=True))
            if (page_items := self.items_of(call))
        }
        smaller_pages = [
            (call_index, [unread_indexes[i] for i in item_indexes])
            for call_index, item_answers in item_answers_by_call.items()
            if (
                unread_indexes := [
                    i
                    for i, encoded_answer in enumerate(item_answers)
                    if encoded_answer == _UNREAD_ANSWER
                ]
            )
            for item_indexes in split_into_pages(
                [self.items_of(calls[call_index])[i] for i in unread_indexes],
                PAGE_GAS // _SMALLER_PAGE_DIVISOR,
            )
        ]
        if not smaller_pages:
            return list(answers)
        smaller_page_items = [
            [self.items_of(calls[call_index])[i] for i in item_indexes]
            for call_index, item_indexes in smaller_pages
        ]
        smaller_page_answers = transport.batch(
            [
                (
                    "eth_call",
                    [
                        {**self._from_field, "data": creation_code(page_items)},
                        calls[call_index][1][1],
                    ],
                )
                for (call_index, _), page_items in zip(
                    smaller_pages, smaller_page_items, strict=True
                )
            ]
        )
        complete_answers = list(answers)
        for (call_index, item_indexes), page_items, page_answer in zip(
            smaller_pages, smaller_page_items, smaller_page_answers, strict=True
        ):
            if isinstance(page_answer, RpcFault):
                raise CallFailed(
                    f"{transport.name} refused the lens: {page_answer.message}",
                    page_answer,
                    "it must allow eth_call of creation code",
                )
            page_bytes = parse_bytes(page_answer, f"the lens from {transport.name}")
            for i, (_, item_answer) in zip(
                item_indexes, _read_page(page_items, page_bytes), strict=True
            ):
                item_answers_by_call[call_index][i] = item_answer
            complete_answers[call_index] = hex_data(
                bytes([PAGE_FORMAT]) + b"".join(item_answers_by_call[call_index])
            )
        return complete_answers

    def decode(self, answers: Sequence[object]) -> list[LensAnswer]:
        """Return the answers of all items, in order, from those of the pages."""
        return [
            item_answer
            for code, page_answer in zip(self._creation_codes, answers, strict=True)
            for item_answer, _ in self._read(code, page_answer, "the lens")
        ]

    def encoded_answers(self, call: RpcCall, page_answer: object, source: str) -> list[bytes]:
        """Return the bytes of each item's answer to the page that a call asks for, equal if the
        answers are. Raises as `decode_page`.
        """
        page = self._read(call[1][0]["data"], page_answer, source)
        return [encoded_answer for _, encoded_answer in page]

    def _read(
        self, code: str, page_answer: object, source: str
    ) -> Sequence[tuple[LensAnswer, bytes]]:
        """Return the answers of a page, which is decoded once as long as its answer is the same: an
        answer is completed, compared and used, and other endpoints give the same.
        """
        newest_page = self._newest_pages.get(code)
        if newest_page is None or newest_page[0] != page_answer:
            page = _read_page(self._items_by_code[code], parse_bytes(page_answer, source))
            newest_page = (page_answer, page)
            self._newest_pages[code] = newest_page
        return newest_page[1]


def query_lens(
    transport: Transport, items: Sequence[LensItem], block_ref: object = "latest"
) -> list[LensAnswer]:
    """Return answers to `items` at one block, in one request, or two if the node allowed too little
    gas. Raises Retryable.
    """
    if not items:
        return []
    answers = LensPages(items).query(transport, block_ref)
    if CallStatus.UNREAD in answers:
        raise Retryable(
            f"{transport.name} allows too little gas to read one item",
            "use an endpoint that allows more gas for eth_call",
        )
    return answers


BALANCE_OF = bytes.fromhex("70a08231")
ALLOWANCE = bytes.fromhex("dd62ed3e")
DECIMALS_SELECTOR = bytes.fromhex("313ce567")
SYMBOL = bytes.fromhex("95d89b41")
LATEST_ROUND_DATA = bytes.fromhex("feaf968c")
AGGREGATOR = bytes.fromhex("245a7bfc")
MIN_ANSWER = bytes.fromhex("22adbc78")
MAX_ANSWER = bytes.fromhex("70da2f67")
DESCRIPTION = bytes.fromhex("7284e416")
GET_PAIR = bytes.fromhex("e6a43905")
GET_POOL = bytes.fromhex("1698ee82")
TOKEN0 = bytes.fromhex("0dfe1681")
TOKEN1 = bytes.fromhex("d21220a7")
FEE = bytes.fromhex("ddca3f43")
FEE_AMOUNT_TICK_SPACING = bytes.fromhex("22afcccb")
GET_RESERVES = bytes.fromhex("0902f1ac")
SLOT0 = bytes.fromhex("3850c7bd")
FACTORY = bytes.fromhex("c45a0155")
FACTORY_V2 = bytes.fromhex("68e0d4e1")
FEE_TO = bytes.fromhex("017e7e58")
TOTAL_SUPPLY = bytes.fromhex("18160ddd")
K_LAST = bytes.fromhex("7464fc3d")
OWNER_OF = bytes.fromhex("6352211e")
TOKEN_OF_OWNER_BY_INDEX = bytes.fromhex("2f745c59")
MANAGER_POSITIONS = bytes.fromhex("99fbab88")
POOL_POSITIONS = bytes.fromhex("514ea4bf")
TICKS = bytes.fromhex("f30dba93")
FEE_GROWTH_GLOBAL_0 = bytes.fromhex("f3058399")
FEE_GROWTH_GLOBAL_1 = bytes.fromhex("46141319")
EXTSLOAD = bytes.fromhex("1e2eaeaf")
PRICE_0_CUMULATIVE = bytes.fromhex("5909c0d5")


def uint_word(integer: int) -> bytes:
    """Return an unsigned integer as one ABI word."""
    return integer.to_bytes(32, "big")


def int_word(integer: int) -> bytes:
    """Return a signed integer as one ABI word."""
    return integer.to_bytes(32, "big", signed=True)


def to_signed(word: int) -> int:
    """Return the signed integer that a word encodes."""
    return word - (word >> 255 << 256)


def address_word(address: str) -> bytes:
    """Return a 0x-hex address as one ABI word."""
    return bytes.fromhex(address[2:]).rjust(32, b"\0")


def address_call(selector: bytes, *addresses: str) -> bytes:
    """Return calldata of a function whose arguments are addresses."""
    return selector + b"".join(address_word(address) for address in addresses)


def allowance_call(owner: str, spender: str) -> bytes:
    """Return calldata of ERC-20 allowance(owner, spender)."""
    return address_call(ALLOWANCE, owner, spender)


def abi_encode(abi_types: Sequence[str], arguments: Sequence[Any]) -> bytes:
    """Encode values with eth-abi. Imported lazily, since read-only cycles do not need it."""
    from eth_abi.abi import encode

    return encode(abi_types, arguments)


def abi_decode(abi_types: Sequence[str], abi_bytes: bytes) -> tuple[Any, ...]:
    """Decode ABI data with eth-abi. Raises its DecodingError."""
    from eth_abi.abi import decode

    return decode(abi_types, abi_bytes)
