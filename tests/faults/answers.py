"""Every field of every answer that the agent reads of an endpoint, by name, and what an altered one looks like.

Nothing is listed by hand: fields of JSON answers come from the answers themselves, those of the lens from how its bytes are read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eth_utils.crypto import keccak

from agent.chain import lens
from agent.chain.lens import CallItem, CodeItem, LensItem, V3Item
from agent.chain.providers import block_reading
from agent.chain.rpc import RpcFault

SEND = "eth_sendRawTransaction"
READ = {
    "eth_getBlockByNumber": ("number", "hash", "timestamp", "baseFeePerGas"),
    "eth_getTransactionByHash": (),
    "eth_getTransactionReceipt": ("transactionHash", "status", "blockNumber", "blockHash", "gasUsed", "effectiveGasPrice", "logs"),
}
"""Of these objects the agent reads so much, of a transaction only whether there is one; of every other object all fields count."""
SIGNATURES = (
    "balanceOf(address)",
    "decimals()",
    "allowance(address,address)",
    "getReserves()",
    "latestRoundData()",
    "aggregator()",
    "minAnswer()",
    "maxAnswer()",
    "price0CumulativeLast()",
    "feeGrowthGlobal0X128()",
    "feeGrowthGlobal1X128()",
    "implementation()",
    "getPair(address,address)",
    "getPool(address,address,uint24)",
    "tickSpacing()",
    "token0()",
    "token1()",
    "factory()",
    "symbol()",
    "feeAmountTickSpacing(uint24)",
    "slot0()",
)
NAMES = {bytes(keccak(text=signature))[:4]: signature.split("(")[0] for signature in SIGNATURES}
V3_PARTS = (
    "status", "price", "tick", "observations", "observations to come", "liquidity", "known from", "known to",
    "mean is known", "mean of ticks", "mean of liquidity", "number of ticks",
)  # fmt: skip
"""As the lens gives them; ticks follow, each by its index and its net liquidity."""


class LensPageLog:
    """Remembers which items each lens call asked for."""

    def __init__(self) -> None:
        self._items: dict[str, Sequence[LensItem]] = {}

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """While inside, every lens call of this process is remembered."""
        make = lens.creation_code

        def creation_code(items: Sequence[LensItem]) -> str:
            code = make(items)
            self._items[code] = items
            return code

        block_reading._read_plan.cache_clear()  # pages that are kept make no code anew
        lens.creation_code = creation_code
        try:
            yield
        finally:
            lens.creation_code = make

    def fields(self, data: str, page: bytes) -> list[tuple[str, int, int]]:
        """Name, place and length of every field of a lens answer."""
        read = _Reading(page)
        read.uint(1)
        fields = [("format", 0, 1)]
        for item in self._items[data]:
            read.takes.clear()
            lens._decode(item, read)
            fields += _named(item, read.takes)
        return fields

    def knows(self, data: str) -> bool:
        """Whether it is a call of the lens."""
        return data in self._items


class _Reading(lens._PageReader):
    """Tells what was read where."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.takes: list[tuple[int, int]] = []

    def take(self, size: int) -> bytes:
        self.takes.append((self.offset, size))
        return super().take(size)


def _named(item: LensItem, takes: list[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    match item:
        case CodeItem():
            names = ("code hash status", "code hash")
            yield from ((name, at, size) for name, (at, size) in zip(names, takes, strict=False))
        case V3Item():
            for number, (at, size) in enumerate(takes):
                ticks = "tick index" if (number - len(V3_PARTS)) % 2 == 0 else "tick net"
                yield f"pool {V3_PARTS[number] if number < len(V3_PARTS) else ticks}", at, size
        case _:
            data = bytes(item.calldata if isinstance(item, CallItem) else item.call.calldata)
            name = NAMES.get(data[:4], data[:4].hex())
            for number, (at, size) in enumerate(takes):
                if size <= 32:
                    yield f"{name} part {number}" if number < 2 else name, at, size
                else:
                    yield from ((f"{name} word {word}", at + 32 * word, 32) for word in range(size // 32))


def kind(method: str, params: list[Any], pages: LensPageLog, called: Sequence[str]) -> str:
    """The method, with what distinguishes its uses."""
    if method == "eth_getBlockByNumber":
        return f"{method} {params[0] if params[0] in ('latest', 'pending') else 'by height'}"
    if method == "eth_getTransactionCount":
        return f"{method} {params[1] if isinstance(params[1], str) and not params[1].startswith('0x') else 'at a block'}"
    if method == "eth_call":
        call = params[0]
        if "to" not in call:
            return "lens" if pages.knows(call["data"]) else "eth_call of creation code"
        if call["to"] in called:
            return "eth_call simulation"
        return "eth_call simulation of an approval" if "gas" in call else "eth_call of a view"
    return method


def fields(method: str, params: list[Any], answer: Any, pages: LensPageLog, called: Sequence[str]) -> Iterator[str]:
    """Names of all fields of one answer."""
    name = kind(method, params, pages, called)
    yield f"{name}: an error"
    if name == "lens":
        yield from sorted({f"lens: {field}" for field, _, _ in pages.fields(params[0]["data"], bytes.fromhex(answer[2:]))})
    elif isinstance(answer, dict):
        yield f"{name}: nothing at all"
        for key in READ.get(method, tuple(answer)):
            if key == "logs":
                yield from (f"{name}: logs {part}" for part in ("address", "topics", "data", "none"))
            elif key in answer:
                yield f"{name}: {key}"
    else:
        yield f"{name}: result"


def altering(field: str, draw: random.Random, pages: LensPageLog, called: Sequence[str]) -> Callable[[str, list[Any], Any], Any]:
    """What gives another value in that field, whatever answer has it."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        name = kind(method, params, pages, called)
        prefix, _, part = field.partition(": ")
        if name != prefix:
            return answer
        if part == "an error":
            return RpcFault(3, "execution reverted", "0x")
        if not isinstance(answer, str | dict):
            return answer
        if name == "lens":
            page = bytearray.fromhex(answer[2:])
            for place, at, size in pages.fields(params[0]["data"], bytes(page)):
                if place == part:
                    page[at : at + size] = _other(bytes(page[at : at + size]), draw)
            return "0x" + page.hex()
        if isinstance(answer, str):
            return _other_hex(answer, draw)
        if part == "nothing at all":
            return None
        if part.startswith("logs "):
            return {**answer, "logs": _other_logs(answer["logs"], part.removeprefix("logs "), draw)}
        return {**answer, part: _other_hex(answer[part], draw)} if isinstance(answer.get(part), str) else answer

    return alter


def _other(data: bytes, draw: random.Random) -> bytes:
    """Other bytes of the same length: one more, none, twice or half as much, or far more."""
    size = len(data)
    value = int.from_bytes(data, "big")
    top = 256**size
    candidates = [(value + 1) % top, 0, value * 2 % top, value // 2, value ^ top >> 4]
    return draw.choice([other for other in candidates if other != value]).to_bytes(size, "big")


def _other_hex(text: str, draw: random.Random) -> str:
    """Another hex text: a quantity becomes another quantity, bytes other bytes of the same length."""
    body = text.removeprefix("0x")
    if len(body) in (40, 64) or len(body) > 64:
        data = bytes.fromhex(body)
        at = draw.randrange(len(data)) // 32 * 32
        return "0x" + (data[:at] + _other(data[at : at + 32], draw) + data[at + 32 :]).hex()
    value = int(body or "0", 16)
    return hex(draw.choice([other for other in (value + 1, 0, value * 2, value // 2, value + 10**6) if other != value]))


def _other_logs(logs: list[Any], part: str, draw: random.Random) -> list[Any]:
    if part == "none":
        return []
    document = json.loads(json.dumps(logs))
    for log in document:
        if part == "topics":
            log["topics"][-1] = _other_hex(log["topics"][-1], draw)
        elif log[part] != "0x":
            log[part] = _other_hex(log[part], draw)
    return document
