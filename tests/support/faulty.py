"""An endpoint that drops, garbles and lies as it is told, and one that remembers every transaction it was given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eth_utils.crypto import keccak

from agent.chain.rpc import Transport
from agent.chain.wire import RpcCall, RpcFault, require_result
from agent.errors import Retryable

Alter = Callable[[Any], Any]
SEND = "eth_sendRawTransaction"


def _more(by: int) -> Alter:
    return lambda answer: hex(int(answer, 16) + by)


def _field(name: str, change: Alter) -> Alter:
    return lambda answer: {**answer, name: change(answer[name])} if isinstance(answer, dict) and answer.get(name) else answer


def _flipped(at: int) -> Alter:
    """One byte of data is another; `at` parts of a thousand into it."""

    def alter(answer: Any) -> Any:
        if not isinstance(answer, str) or len(answer) < 4:
            return answer
        raw = bytearray.fromhex(answer[2:])
        raw[min(len(raw) - 1, len(raw) * at // 1_000)] ^= 1
        return "0x" + raw.hex()

    return alter


LIES: dict[str, tuple[str, Alter]] = {
    "another chain": ("eth_chainId", lambda _: "0x1"),
    "a nonce too many": ("eth_getTransactionCount", _more(1)),
    "no nonce used": ("eth_getTransactionCount", lambda _: "0x0"),
    "no native coin": ("eth_getBalance", lambda _: "0x0"),
    "a head in the future": ("eth_getBlockByNumber", _field("timestamp", _more(3_600))),
    "a head of long ago": ("eth_getBlockByNumber", _field("timestamp", _more(-3_600))),
    "another block": ("eth_getBlockByNumber", _field("hash", lambda _: "0x" + "ab" * 32)),
    "a high base fee": ("eth_getBlockByNumber", _field("baseFeePerGas", _more(10**12))),
    "other state, early in the page": ("eth_call", _flipped(60)),
    "other state, late in the page": ("eth_call", _flipped(700)),
    "no state": ("eth_call", lambda _: "0x"),
    "a dear call": ("eth_estimateGas", _more(10**7)),
    "a call that fails": ("eth_estimateGas", lambda _: RpcFault(3, "execution reverted", "0x")),
    "a revert": ("eth_getTransactionReceipt", _field("status", lambda _: "0x0")),
    "no receipt": ("eth_getTransactionReceipt", lambda _: None),
    "a receipt without logs": ("eth_getTransactionReceipt", _field("logs", lambda _: [])),
    "unknown transaction": ("eth_getTransactionByHash", lambda _: None),
    "an object for a number": ("eth_getTransactionCount", lambda _: {"a": []}),
    "a number without end": ("eth_gasPrice", lambda _: "0x" + "f" * 5_000),
    "nonsense": ("eth_getBlockByNumber", lambda _: [[], None]),
}
"""By name: the method whose answers are altered, and how."""
SENDING = ("takes it and says so to nobody", "says that it took it, and did not", "says that the nonce is used")
MOODS = ("honest", "down", "every third request fails", *SENDING, *LIES)


class Faulty:
    """A true endpoint as long as `mood` is "honest"."""

    def __init__(self, line: Transport, operator: str) -> None:
        self._line = line
        self.operator = operator
        self.name = f"endpoint {operator!r}"
        self.mood = "honest"
        self.requests = 0

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        self.requests += 1
        if self.mood == "down" or (self.mood == "every third request fails" and self.requests % 3 == 0):
            raise Retryable(f"{self.name} cannot be reached")
        if calls[0][0] == SEND and self.mood in SENDING:
            return [self._send(*calls[0])]
        method, alter = LIES.get(self.mood, ("", lambda answer: answer))
        answers = self._line.batch(calls)
        return [
            alter(answer) if asked == method and not isinstance(answer, RpcFault) else answer
            for (asked, _), answer in zip(calls, answers, strict=True)
        ]

    def _send(self, method: str, params: list[Any]) -> Any:
        if self.mood == SENDING[0]:
            self._line.call(method, params)
            raise Retryable(f"{self.name} broke off its answer")
        return "0x" + bytes(keccak(hexstr=params[0])).hex() if self.mood == SENDING[1] else RpcFault(-32000, "nonce too low")


class Remembering:
    """Passes everything on, and keeps the hash of every transaction that it was given."""

    def __init__(self, line: Transport, operator: str, sent: list[str]) -> None:
        self._line, self.operator, self.sent = line, operator, sent
        self.name = f"endpoint {operator!r}"

    @property
    def requests(self) -> int:
        """See Transport."""
        return self._line.requests

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        self.sent += ["0x" + bytes(keccak(hexstr=params[0])).hex() for method, params in calls if method == SEND]
        return self._line.batch(calls)
