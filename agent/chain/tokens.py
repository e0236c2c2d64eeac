"""Tokens on the chain: decimals, symbols, proxy implementations (EIP-1967, 1822, 897, beacons),
allowances, and the approvals that a plan lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.chain.lens import (
    ALLOWANCE,
    DECIMALS_SELECTOR,
    SYMBOL,
    CallItem,
    CallStatus,
    LensAnswer,
    abi_encode,
    address_word,
    answer_uint,
    query_lens,
)
from agent.chain.rpc import RpcCall, Transport, hex_data, parse_quantity, require_result
from agent.errors import ConfigError, ErrorCode, Refused, Retryable
from agent.model import Plan, ProxyImplementation, Snapshot
from agent.planning.approval_gas import swap_spend
from agent.signing.calldata import APPROVE, address_from_word
from agent.units import Token, safe_label

MAX_DECIMALS = 36
_SYMBOL_BYTES = 128


def read_tokens(transport: Transport, addresses: Sequence[str]) -> tuple[Token, ...]:
    """Read tokens at checksummed `addresses`, in order.

    A symbol that is unsafe to show (T17) is replaced by the address. Raises ConfigError if an
    address holds no contract, or one without `decimals`; Retryable from the endpoint.
    """
    call_items = [
        call_item
        for address in addresses
        for call_item in (
            CallItem(address, DECIMALS_SELECTOR),
            CallItem(address, SYMBOL, max_answer_bytes=_SYMBOL_BYTES),
        )
    ]
    answers = query_lens(transport, call_items)
    return tuple(
        _token(address, answers[2 * i], answers[2 * i + 1]) for i, address in enumerate(addresses)
    )


def _token(address: str, decimals_answer: LensAnswer, symbol_answer: LensAnswer) -> Token:
    decimals = answer_uint(decimals_answer, 8)
    if isinstance(decimals, CallStatus):
        raise ConfigError(
            f"token {address}: {decimals.why} (decimals)", "check the address and the chain id"
        )
    if decimals > MAX_DECIMALS:
        raise ConfigError(
            f"token {address}: {decimals} decimals",
            f"tokens with more than {MAX_DECIMALS} are not supported",
        )
    return Token(address, safe_label(symbol_text(symbol_answer), address), decimals)


def symbol_text(answer: LensAnswer) -> str:
    """Decode a symbol as `string`, or as `bytes32` of older tokens; empty if neither."""
    if not isinstance(answer, bytes):
        return ""
    if len(answer) == 32:
        return answer.rstrip(b"\0").decode("utf-8", errors="replace")
    byte_count = int.from_bytes(answer[32:64], "big")
    if int.from_bytes(answer[:32], "big") != 32 or byte_count > len(answer) - 64:
        return ""
    return answer[64 : 64 + byte_count].decode("utf-8", errors="replace")


IMPLEMENTATION_SELECTOR = bytes.fromhex("5c60da1b")
"""Selector of implementation() on beacons and EIP-897 proxies."""
IMPLEMENTATION_SLOTS = (
    "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc",  # EIP-1967: keccak256("eip1967.proxy.implementation") - 1
    "0xc5f16f0fcc639fa48a6947836d9850f504798523bf8c9a3a87d5876cf622bcf7",  # EIP-1822: keccak256("PROXIABLE")
    "0x7050c9e0f4ca769c69bd3a8ef740bc37934f8e2c036e5a723fd8ee048ed3f8c3",  # keccak256("org.zeppelinos.proxy.implementation")
)
BEACON_SLOT = "0xa3f0ad74e5423aebfd80d3ef4346578335a9a72aeaee59ff6cb3582b35133d50"
"""EIP-1967: keccak256("eip1967.proxy.beacon") - 1."""
UNREAD_ADDRESS = "0x" + "0" * 40


@dataclass(frozen=True, slots=True)
class ProxyRef:
    """A proxy, `proxy`, with the storage slot of its implementation, or the contract that answers
    implementation(): a beacon or the proxy itself. `first_implementation` is that of when the
    proxy was found.
    """

    proxy: str
    slot: str | None
    implementer: str | None
    first_implementation: str

    def calls(self, block_ref: object) -> Iterator[RpcCall]:
        """Return the calls for this proxy at one block."""
        if self.slot is not None:
            yield ("eth_getStorageAt", [self.proxy, self.slot, block_ref])
        if self.implementer is not None:
            yield (
                "eth_call",
                [{"to": self.implementer, "data": hex_data(IMPLEMENTATION_SELECTOR)}, block_ref],
            )


def find_proxies(transport: Transport, tokens: Sequence[str]) -> tuple[ProxyRef, ...]:
    """Return the proxies among `tokens`, in two requests.

    Raises CallFailed if a node does not serve storage.
    """
    token_slots = [
        (token, slot) for token in tokens for slot in (*IMPLEMENTATION_SLOTS, BEACON_SLOT)
    ]
    slot_answers = transport.batch(
        [("eth_getStorageAt", [token, slot, "latest"]) for token, slot in token_slots]
    )
    filled_slot_by_token: dict[str, tuple[str, str]] = {}
    for (token, slot), answer in zip(token_slots, slot_answers, strict=True):
        slot_word = parse_quantity(
            require_result(transport.name, "eth_getStorageAt", answer), "a storage slot"
        )
        if slot_word and token not in filled_slot_by_token:
            filled_slot_by_token[token] = (slot, address_from_word(slot_word & (1 << 160) - 1))
    implementers = [
        filled_slot_by_token[token][1]
        if token in filled_slot_by_token and filled_slot_by_token[token][0] == BEACON_SLOT
        else token
        for token in tokens
    ]
    answers = query_lens(
        transport, [CallItem(address, IMPLEMENTATION_SELECTOR) for address in implementers]
    )
    proxies = []
    for token, implementer, answer in zip(tokens, implementers, answers, strict=True):
        slot, implementation = filled_slot_by_token.get(token, ("", ""))
        if slot and slot != BEACON_SLOT:
            proxies.append(ProxyRef(token, slot, None, implementation))
        elif slot or answered_address(answer) != UNREAD_ADDRESS:
            proxies.append(ProxyRef(token, slot or None, implementer, answered_address(answer)))
    return tuple(proxies)


def proxy_calls(proxy_refs: Sequence[ProxyRef], block_ref: object) -> list[RpcCall]:
    """Return the calls for all proxies at one block."""
    return [call for proxy_ref in proxy_refs for call in proxy_ref.calls(block_ref)]


def proxy_call_names(proxy_refs: Sequence[ProxyRef]) -> list[str]:
    """Return the name of each of these calls."""
    return [
        f"implementation of {proxy_ref.proxy}"
        for proxy_ref in proxy_refs
        for _ in proxy_ref.calls(None)
    ]


def proxy_answers(answers: Sequence[object]) -> tuple[LensAnswer, ...]:
    """Return a node's answers as words; CallStatus.FAILED for invalid ones."""
    return tuple(_word(answer) for answer in answers)


def _word(answer: object) -> LensAnswer:
    try:
        return parse_quantity(answer, "an implementation").to_bytes(32, "big")
    except Retryable:
        return CallStatus.FAILED


def proxy_implementations(
    proxy_refs: Sequence[ProxyRef], answers: Sequence[LensAnswer]
) -> tuple[ProxyImplementation, ...]:
    """Return each proxy's current implementation: zero if it was not read, the new beacon if its
    beacon changed. Neither is ever pinned.
    """
    remaining_answers = iter(answers)
    implementations = []
    for proxy_ref in proxy_refs:
        read_addresses = [answered_address(next(remaining_answers)) for _ in proxy_ref.calls(None)]
        if proxy_ref.slot == BEACON_SLOT and read_addresses[0] != proxy_ref.implementer:
            read_addresses = read_addresses[:1]
        implementations.append(ProxyImplementation(proxy_ref.proxy, read_addresses[-1]))
    return tuple(implementations)


def answered_address(answer: LensAnswer) -> str:
    """Return the address of an answer; UNREAD_ADDRESS without one."""
    address_int = answer_uint(answer, 160)
    return UNREAD_ADDRESS if isinstance(address_int, CallStatus) else address_from_word(address_int)


PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
"""Uniswap's Permit2, the same address on every chain.

The agent never approves it; earlier users of the wallet may have.
"""


def read_allowances(
    transport: Transport, owner: str, token_spenders: Sequence[tuple[str, str]]
) -> tuple[int | None, ...]:
    """Return base units of `owner` that each (token, spender) may transfer; None if the token does
    not answer. Raises Retryable.
    """
    call_items = [
        CallItem(token, ALLOWANCE + address_word(owner) + address_word(spender))
        for token, spender in token_spenders
    ]
    allowances_raw = (answer_uint(answer) for answer in query_lens(transport, call_items))
    return tuple(
        None if isinstance(allowance_raw, CallStatus) else allowance_raw
        for allowance_raw in allowances_raw
    )


def needed_approvals(plan: Plan, snapshot: Snapshot, router: str) -> tuple[tuple[str, int], ...]:
    """Return the approvals of `router` that must be mined before `plan`, in order, as (token, base
    units); empty if allowances suffice.
    """
    return missing_approvals(swap_spend(plan.legs), snapshot, router)


def missing_approvals(
    raw_by_token: Mapping[str, int], snapshot: Snapshot, spender: str
) -> tuple[tuple[str, int], ...]:
    """Return the approvals of `spender` needed for these base units, in order, as (token, base
    units).

    Each approval is exact. A non-zero allowance that is too small is first reset to zero, since
    tokens like USDT refuse to change one non-zero allowance into another. Tokens to reset are first,
    each with its amount next, so that a batch can have all approvals once the resets are mined.
    Raises Refused if an allowance is not in the snapshot.
    """
    allowance_raw_by_token = {
        allowance.token: allowance.raw
        for allowance in snapshot.allowances
        if allowance.spender == spender
    }
    reset_first: list[tuple[str, int]] = []
    approvals: list[tuple[str, int]] = []
    for token, needed_raw in raw_by_token.items():
        if token not in allowance_raw_by_token:
            raise Refused(
                f"the allowance of {spender} for {token} is not in the snapshot of block"
                f" {snapshot.head.number}",
                remedy=(
                    "the token is quarantined or its spender is not watched; see `trimtab doctor`"
                ),
                code=ErrorCode.ALLOWANCE,
            )
        if allowance_raw_by_token[token] >= needed_raw:
            continue
        if allowance_raw_by_token[token] > 0:
            reset_first += [(token, 0), (token, needed_raw)]
        else:
            approvals.append((token, needed_raw))
    return (*reset_first, *approvals)


def nonzero_allowances(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    """Return (token, spender) of every allowance above zero. Outside an open plan there should be
    none.
    """
    return tuple(
        (allowance.token, allowance.spender)
        for allowance in snapshot.allowances
        if allowance.raw > 0
    )


def encode_approve(spender: str, raw: int) -> str:
    """Return 0x-hex calldata of ERC-20 `approve(spender, raw)`; `raw` in base units."""
    return "0x" + (APPROVE + abi_encode(["address", "uint256"], [spender, raw])).hex()
