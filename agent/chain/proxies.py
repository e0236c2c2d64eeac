"""To which implementation a token hands its calls on: found once, then read in every snapshot (EIP-1967, 1822, 897, beacons)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.chain.ask import ask
from agent.chain.lens import Answer, CallItem, Status, uint
from agent.chain.rpc import Transport
from agent.chain.wire import Call, hex_data, only, quantity
from agent.chain.words import address_of
from agent.errors import Retryable
from agent.model import Implementation

IMPLEMENTATION = bytes.fromhex("5c60da1b")
"""implementation(), of beacons and of proxies that follow EIP-897."""
SLOTS = (
    "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc",  # EIP-1967: keccak256("eip1967.proxy.implementation") - 1
    "0xc5f16f0fcc639fa48a6947836d9850f504798523bf8c9a3a87d5876cf622bcf7",  # EIP-1822: keccak256("PROXIABLE")
    "0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3",  # keccak256("org.zeppelinos.proxy.implementation")
)
BEACON_SLOT = "0xa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6cb3582b35133d50"
"""EIP-1967: keccak256("eip1967.proxy.beacon") - 1."""
UNREADABLE = "0x" + "0" * 40


@dataclass(frozen=True, slots=True)
class ProxyRef:
    """A token that is a proxy: the slot that says where to, or who is asked by implementation(): its beacon, or it itself.

    `first` is the implementation as it was when the proxy was found.
    """

    token: str
    slot: str | None
    asked: str | None
    first: str

    def calls(self, at: object) -> Iterator[Call]:
        """What is asked of a node at one block."""
        if self.slot is not None:
            yield ("eth_getStorageAt", [self.token, self.slot, at])
        if self.asked is not None:
            yield ("eth_call", [{"to": self.asked, "data": hex_data(IMPLEMENTATION)}, at])


def find_proxies(line: Transport, tokens: Sequence[str]) -> tuple[ProxyRef, ...]:
    """Those of `tokens` that are proxies, in two requests. Raises CallFailed when a node gives no storage."""
    wanted = [(token, slot) for token in tokens for slot in (*SLOTS, BEACON_SLOT)]
    stored = line.batch([("eth_getStorageAt", [token, slot, "latest"]) for token, slot in wanted])
    held: dict[str, tuple[str, str]] = {}
    for (token, slot), answer in zip(wanted, stored, strict=True):
        value = quantity(only(line.name, "eth_getStorageAt", answer), "a storage slot")
        if value and token not in held:
            held[token] = (slot, address_of(value & (1 << 160) - 1))
    askable = [held[token][1] if token in held and held[token][0] == BEACON_SLOT else token for token in tokens]
    told = ask(line, [CallItem(address, IMPLEMENTATION) for address in askable])
    found = []
    for token, asked, answer in zip(tokens, askable, told, strict=True):
        slot, stands_at = held.get(token, ("", ""))
        if slot and slot != BEACON_SLOT:
            found.append(ProxyRef(token, slot, None, stands_at))
        elif slot or _address(answer) != UNREADABLE:
            found.append(ProxyRef(token, slot or None, asked, _address(answer)))
    return tuple(found)


def calls(refs: Sequence[ProxyRef], at: object) -> list[Call]:
    """What is asked of a node at one block, for all of them."""
    return [call for ref in refs for call in ref.calls(at)]


def names(refs: Sequence[ProxyRef]) -> list[str]:
    """What each of those calls is about."""
    return [f"implementation of {ref.token}" for ref in refs for _ in ref.calls(None)]


def answers(told: Sequence[object]) -> tuple[Answer, ...]:
    """A node's answers as words; Status.FAILED for whatever is none."""
    return tuple(_word(answer) for answer in told)


def _word(answer: object) -> Answer:
    try:
        return quantity(answer, "an implementation").to_bytes(32, "big")
    except Retryable:
        return Status.FAILED


def implementations(refs: Sequence[ProxyRef], told: Sequence[Answer]) -> tuple[Implementation, ...]:
    """Where each proxy stands now. What cannot be read is address zero, which nobody pins; another beacon is not the old one."""
    left = iter(told)
    found = []
    for ref in refs:
        said = [_address(next(left)) for _ in ref.calls(None)]
        if ref.slot == BEACON_SLOT and said[0] != ref.asked:
            said = said[:1]
        found.append(Implementation(ref.token, said[-1]))
    return tuple(found)


def _address(answer: Answer) -> str:
    value = uint(answer, 160)
    return UNREADABLE if isinstance(value, Status) else address_of(value)
