"""Routes that end through the same pools as one: what they bring gathers in the router, and one leg carries it on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Hop = tuple[str, str]
"""A pool, and the token that enters it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Pools to go through, first to last, with the token that enters each.

    Its first pool takes `amount_raw` base units from the wallet, or else all that `feeds` pay, one after another.
    """

    hops: tuple[Hop, ...]
    amount_raw: int = 0
    feeds: tuple[Route, ...] = ()

    @property
    def sources(self) -> tuple[Route, ...]:
        """The routes that begin at the wallet, in the order in which they run."""
        return tuple(source for feed in self.feeds for source in feed.sources) if self.feeds else (self,)


def gather(routes: Sequence[Route]) -> list[Route]:
    """Single routes, in their order, as fewer legs: those with the same last hops share them.

    A leg is paid by the wallet or by all that waits in the router, never by both: a route that begins at a hub stays apart.
    """
    groups: dict[Hop, list[Route]] = {}
    for route in routes:
        groups.setdefault(route.hops[-1], []).append(route)
    return [made for last, group in groups.items() for made in _joined(last, group)]


def _joined(last: Hop, group: Sequence[Route]) -> Iterable[Route]:
    whole = [route.amount_raw for route in group if len(route.hops) == 1]
    if whole:
        yield Route((last,), sum(whole, 0))
    feeds = gather([Route(route.hops[:-1], route.amount_raw) for route in group if len(route.hops) > 1])
    if len(feeds) == 1:
        yield replace(feeds[0], hops=(*feeds[0].hops, last))
    elif feeds:
        yield Route((last,), 0, tuple(feeds))


def uses(chains: Iterable[Sequence[tuple[str, int]]]) -> dict[tuple[str, int], int]:
    """How many legs go through each arc (pool, source) once chains of them are gathered: one for each way on from it, and one
    more for those that begin there.
    """
    ways = {(tuple(chain[at:]), at == 0) for chain in chains for at in range(len(chain))}
    return Counter(rest[0] for rest, _ in ways)
