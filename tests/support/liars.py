"""Transports that stand between the agent and a true chain and alter single answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.chain.rpc import Transport
from agent.chain.wire import RpcCall, require_result

Alter = Callable[[str, list[Any], Any], Any]
"""Method, parameters and true answer to the answer that is given."""


class Liar:
    """Passes everything on and gives the answers that `alter` makes of the true ones."""

    def __init__(self, line: Transport, alter: Alter, operator: str = "liar") -> None:
        self._line = line
        self._alter = alter
        self.operator = operator
        self.name = f"endpoint {operator!r} between"
        self.requests = 0

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        self.requests += 1
        return [self._alter(method, params, answer) for (method, params), answer in zip(calls, self._line.batch(calls), strict=True)]


def newest(**changes: Callable[[int], int]) -> Alter:
    """Lies about quantities of the newest header alone; by number and by hash the header is true."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            return answer | {field: hex(change(int(answer[field], 16))) for field, change in changes.items()}
        return answer

    return alter


def every_header(**changes: Callable[[int], int]) -> Alter:
    """Lies about quantities of every header."""

    def alter(method: str, params: list[Any], answer: Any) -> Any:
        if method in ("eth_getBlockByNumber", "eth_getBlockByHash") and isinstance(answer, dict):
            return answer | {field: hex(change(int(answer[field], 16))) for field, change in changes.items()}
        return answer

    return alter


class Slow:
    """The same chain, but its newest block is `lag` blocks behind."""

    def __init__(self, line: Transport, lag: int, operator: str = "slow") -> None:
        self._line = line
        self.lag = lag
        self.operator = operator
        self.name = f"endpoint {operator!r} behind"
        self.requests = 0

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        self.requests += 1
        height = int(self._line.call("eth_blockNumber", []), 16) - self.lag
        return self._line.batch([(m, [hex(height) if p == "latest" else p for p in params]) for m, params in calls])


class Frozen:
    """The same chain, until it freezes: then its newest block stays what it was, and older ones are all that it knows."""

    def __init__(self, line: Transport, operator: str) -> None:
        self._line = line
        self.operator = operator
        self.name = f"endpoint {operator!r} frozen"
        self.requests = self.height = 0

    def freeze(self) -> None:
        """From now on it follows the chain no more."""
        self.height = int(self._line.call("eth_blockNumber", []), 16)

    def thaw(self) -> None:
        """It follows the chain again."""
        self.height = 0

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Signed bytes that it gets thaw it: it follows its own transactions."""
        self.requests += 1
        if any(method == "eth_sendRawTransaction" for method, _ in calls):
            self.thaw()
        if not self.height:
            return self._line.batch(calls)
        return self._line.batch([(m, [hex(self.height) if p == "latest" else p for p in params]) for m, params in calls])
