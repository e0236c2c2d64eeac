"""Transports of JSON-RPC for tests: one that answers by a script, and one in front of another that records and may change what passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.chain.rpc import RpcCall, Transport, require_result

BLOCK = "0x" + "cd" * 32
HEAD_JSON = {"number": "0x10", "hash": BLOCK, "timestamp": "0x64", "baseFeePerGas": "0x7"}

Answer = Callable[[str, list[Any]], object]
AlterAnswer = Callable[[str, list[Any], Any], Any]
"""From method, parameters and true answer to the answer given."""
AlterCall = Callable[[str, list[Any]], tuple[str, list[Any]]]
Intercept = Callable[[Sequence[RpcCall]], list[Any] | None]


class ScriptedTransport:
    """A node with scripted answers by method, or with one `answer` for all. One may be a function of the params; an exception is raised.

    `calls` are all calls in order, `asked` their methods.
    """

    def __init__(self, operator: str = "script", answer: Answer | None = None, **answers: object) -> None:
        self.operator = operator
        self.name = f"endpoint {operator!r}"
        self.answers: dict[str, object] = {"eth_chainId": "0x7a69", "eth_getBlockByNumber": HEAD_JSON, **answers}
        self.calls: list[RpcCall] = []
        self.request_count = 0
        self._answer = answer or self._by_method

    @property
    def asked(self) -> list[str]:
        return [method for method, _ in self.calls]

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.request_count += 1
        self.calls += calls
        return [self._checked(self._answer(method, params)) for method, params in calls]

    def call(self, method: str, params: list[Any]) -> Any:
        return require_result(self.name, method, self.batch([(method, params)])[0])

    @staticmethod
    def _checked(answer: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _by_method(self, method: str, params: list[Any]) -> object:
        answer = self.answers[method]
        return answer(params) if callable(answer) else answer


class RecordingTransport:
    """An endpoint in front of another; `batches` are the calls as they were asked.

    `before` gets the number of each batch, which `intercept` may answer in place of the other. `ask` changes the calls that go on, and
    `change` their answers.
    """

    def __init__(
        self,
        line: Transport,
        operator: str,
        change: AlterAnswer = lambda method, params, answer: answer,
        *,
        before: Callable[[int], object] = lambda number: None,
        ask: AlterCall = lambda method, params: (method, params),
        intercept: Intercept = lambda calls: None,
    ) -> None:
        self.line = line
        self.operator = operator
        self.name = f"endpoint {operator!r} at test"
        self.batches: list[list[RpcCall]] = []
        self.change = change
        self.before = before
        self.ask = ask
        self.intercept = intercept

    @property
    def request_count(self) -> int:
        return len(self.batches)

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        self.batches.append(list(calls))
        self.before(self.request_count)
        answers = self.intercept(calls)
        if answers is None:
            answers = self.line.batch([self.ask(method, params) for method, params in calls])
        return [self.change(method, params, answer) for (method, params), answer in zip(calls, answers, strict=True)]

    def call(self, method: str, params: list[Any]) -> Any:
        return require_result(self.name, method, self.batch([(method, params)])[0])


def behind(line: Transport, lag_blocks: int) -> AlterCall:
    """Return a change of calls after which the newest block is that many blocks behind."""

    def ask(method: str, params: list[Any]) -> tuple[str, list[Any]]:
        height = int(line.call("eth_blockNumber", []), 16) - lag_blocks
        return method, [hex(height) if param == "latest" else param for param in params]

    return ask
