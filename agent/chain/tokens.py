"""Which tokens stand at given addresses: decimals and a symbol that may be shown, in one request."""

from __future__ import annotations

from collections.abc import Sequence

from agent.chain.abi import DECIMALS, SYMBOL
from agent.chain.ask import ask
from agent.chain.lens import Answer, CallItem, Status, uint
from agent.chain.rpc import Transport
from agent.errors import ConfigError
from agent.units import Token, safe_label

MOST_DECIMALS = 36
_SYMBOL_BYTES = 128


def read_tokens(transport: Transport, addresses: Sequence[str]) -> tuple[Token, ...]:
    """Tokens at checksummed `addresses`, in their order. A symbol that may not be shown (T17) is replaced by the address.

    Raises ConfigError when an address holds no contract, or none that answers `decimals`; Retryable from the endpoint.
    """
    asked = [item for address in addresses for item in (CallItem(address, DECIMALS), CallItem(address, SYMBOL, longest=_SYMBOL_BYTES))]
    answers = ask(transport, asked)
    return tuple(_token(address, answers[2 * i], answers[2 * i + 1]) for i, address in enumerate(addresses))


def _token(address: str, decimals: Answer, symbol: Answer) -> Token:
    read = uint(decimals, 8)
    if isinstance(read, Status):
        raise ConfigError(f"token {address}: {read.why} (decimals)", "check the address and the chain id")
    if read > MOST_DECIMALS:
        raise ConfigError(f"token {address}: {read} decimals", f"tokens with more than {MOST_DECIMALS} are not supported")
    return Token(address, safe_label(symbol_text(symbol), address), read)


def symbol_text(answer: Answer) -> str:
    """A symbol as `string`, or as `bytes32` as older tokens give it; empty when it is neither."""
    if not isinstance(answer, bytes):
        return ""
    if len(answer) == 32:
        return answer.rstrip(b"\0").decode("utf-8", errors="replace")
    length = int.from_bytes(answer[32:64], "big")
    if int.from_bytes(answer[:32], "big") != 32 or length > len(answer) - 64:
        return ""
    return answer[64 : 64 + length].decode("utf-8", errors="replace")
