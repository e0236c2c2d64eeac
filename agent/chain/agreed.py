"""A transport whose every answer enough operators give alike, at one block: for what is read outside of a snapshot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.chain.ballot import REMEDY, NoQuorum, agreed
from agent.chain.common import at_one_block
from agent.chain.panel import Panel
from agent.chain.wire import Call, RpcFault, only, parse_head, quantity
from agent.model import Head

_FAULT = "an error"


class AgreedTransport:
    """Implements Transport over a panel. "latest" means the newest block that enough operators agree on.

    Nodes word their errors differently: one error counts as much as another.
    """

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self.operator = ", ".join(sorted({endpoint.operator for endpoint in panel.endpoints}))
        self.name = f"endpoints of {self.operator}" if len(panel.endpoints) > 1 else panel.endpoints[0].name

    @property
    def requests(self) -> int:
        """See Transport."""
        return self._panel.requests

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return only(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        """See Transport. Raises NoQuorum when too few give the same answer to one of the calls."""
        if not calls or len(self._panel.endpoints) == 1:
            return self._panel.endpoints[0].batch(calls)
        if any("latest" in params for _, params in calls):
            calls = _pinned(calls, self._head())
        heard = self._panel.ask(lambda endpoint: endpoint.batch(calls))
        self._panel.require(heard)
        answers = []
        for number, (method, _) in enumerate(calls):
            votes = [(endpoint.operator, _key(said[number])) for endpoint, said in heard.answers.items()]
            chosen = agreed(votes, self._panel.min_operators, f"the answer to {method}")
            for endpoint, said in heard.answers.items():
                if _key(said[number]) != chosen:
                    self._panel.blame(endpoint, f"differs in the answer to {method}")
            answers.append(_usual([said[number] for said in heard.answers.values() if _key(said[number]) == chosen]))
        return answers

    def _head(self) -> Head:
        """The newest agreed block.

        Raises NoQuorum where too few have it, or one near it, for their newest: contracts may be missing there.
        """

        def newest(endpoint: Any, height: int | None) -> Head:
            tag = "latest" if height is None else hex(height)
            chain_id, block = endpoint.batch([("eth_chainId", []), ("eth_getBlockByNumber", [tag, False])])
            found = quantity(only(endpoint.name, "eth_chainId", chain_id), "chain id")
            return parse_head(only(endpoint.name, "eth_getBlockByNumber", block), found)

        found = at_one_block(self._panel, newest, lambda head: head)
        if found.uneven:
            raise NoQuorum(found.uneven, REMEDY)
        return found.said[0][1]


def _pinned(calls: Sequence[Call], head: Head) -> list[Call]:
    at = {"blockHash": head.hash, "requireCanonical": True}
    return [(method, [at if param == "latest" else param for param in params]) for method, params in calls]


def _usual(alike: Sequence[Any]) -> Any:
    """One of them; of errors one of the most usual code, so that nobody alone says why a call failed."""
    codes = [one.code for one in alike if isinstance(one, RpcFault)]
    return max(alike, key=lambda one: codes.count(one.code)) if codes else alike[0]


def _key(answer: object) -> str:
    if isinstance(answer, RpcFault):
        return _FAULT
    return json.dumps(_bare(answer), sort_keys=True).lower()


def _bare(answer: object) -> object:
    """Events without what only some nodes tell of them, such as the time of their block."""
    if isinstance(answer, list) and all(isinstance(one, dict) and "topics" in one for one in answer):
        return [{field: one.get(field) for field in ("address", "blockNumber", "data", "topics")} for one in answer]
    return answer
