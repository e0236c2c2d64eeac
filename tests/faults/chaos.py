"""A chaos proxy between agent and node: real HTTP on loopback, one kind of fault from a certain request on, drawn from a seed.

What the proxy saw is kept, every signed transaction above all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.chaos_faults import SEND, Fault, as_list
from tests.support.endpoints import Answerer, Reply, passing_on, serve


@dataclass(frozen=True)
class FaultPlace:
    """From the `first` request on (0 is the very first), for `many` requests; `sends` counts requests that carry a transaction only."""

    first: int
    many: int
    sends: bool = False

    def __str__(self) -> str:
        return f"{'s' if self.sends else 'r'}{self.first}x{self.many}"

    @classmethod
    def parsed(cls, text: str) -> FaultPlace:
        """As `str` writes it."""
        first, many = text[1:].split("x")
        return cls(int(first), int(many), text[0] == "s")

    def hits(self, request: int) -> bool:
        """Whether the request of that number is struck."""
        return self.first <= request < self.first + self.many


@dataclass
class Proxy:
    """A running proxy: its URL, how often its fault struck, how many requests came, and every signed transaction it saw."""

    url: str = ""
    struck: int = 0
    requests: int = 0
    raw: list[str] = field(default_factory=list)


@contextmanager
def chaos(node_url: str, fault: Fault, where: FaultPlace, draw: random.Random) -> Iterator[Proxy]:
    """A server in front of the node that commits the fault where it is told to, and passes everything else on."""
    forward = passing_on(node_url)
    proxy = Proxy()
    counted = {"r": 0, "s": 0}

    def ask(request: Any) -> bytes:
        return forward(request).body

    def answer(request: Any) -> Reply:
        sends = [call["params"][0] for call in as_list(request) if call["method"] == SEND]
        proxy.raw.extend(sends)
        proxy.requests += 1
        key = "s" if where.sends else "r"
        if where.sends and not sends:
            return forward(request)
        number = counted[key]
        counted[key] += 1
        if not where.hits(number):
            return forward(request)
        proxy.struck += 1
        return fault(request, ask, draw)

    served: Answerer = answer
    with serve(served) as server:
        proxy.url = server.url
        yield proxy
