"""What tests of reading share: a watch over a whole local chain, and endpoints that lie, lag or give little gas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.chain.rpc import Transport
from agent.chain.snapshot import ChainReader
from agent.chain.tokens import read_tokens
from agent.chain.watch import PoolRef, SnapshotScope
from agent.localchain import LocalChain
from agent.units import Token
from agent.venues.discovery import discover_pools

FEE_TIERS = (100, 500, 3000, 10_000)
TWAP_WINDOW_S = 1_800


@dataclass(frozen=True)
class Venue:
    """Settings of one venue, as the config gives them."""

    factory: str
    pools: Sequence[str] | None = None
    fee_tiers: Sequence[int] = FEE_TIERS


@dataclass(frozen=True)
class Venues:
    """Settings of all venues."""

    uniswap_v2: Venue | None
    uniswap_v3: Venue | None


def venues(chain: LocalChain, v2_pools: Sequence[str] | None = None, v3_pools: Sequence[str] | None = None) -> Venues:
    """Both venues of the local chain."""
    return Venues(Venue(chain.addresses.v2_factory, v2_pools), Venue(chain.addresses.v3_factory, v3_pools))


def tokens(chain: LocalChain) -> tuple[Token, ...]:
    """The tokens of the world, read from the chain."""
    return read_tokens(chain.transport, [token.address for token in chain.tokens.values()])


def pools(chain: LocalChain) -> tuple[PoolRef, ...]:
    """All pools of the world, discovered."""
    return discover_pools(chain.transport, venues(chain), tokens(chain), ())


def watch(chain: LocalChain, **changes: Any) -> SnapshotScope:
    """Everything on the chain."""
    at = chain.addresses
    parts: dict[str, Any] = {
        "owner": chain.wallet.address,
        "tokens": tokens(chain),
        "spenders": (at.swap_router_02,),
        "pools": changes.get("pools") or pools(chain),
        "feeds": tuple(chain.feeds.values()),
        "code": (at.swap_router_02, at.v3_factory),
        "twap_window_s": TWAP_WINDOW_S,
        "impact_bps": 100,
        **changes,
    }
    return SnapshotScope(**parts)


def reader(chain: LocalChain, *lines: Transport, min_operators: int = 1, chain_id: int | None = None, **changes: Any) -> ChainReader:
    """A reader of everything on the chain, through its own transport unless others are given."""
    return ChainReader(lines or (chain.transport,), chain_id or chain.chain_id, watch(chain, **changes), chain.clock, min_operators)


Change = Callable[[str, list[Any], Any], Any]


class Through:
    """An endpoint in front of another: may change every answer, and do something before a batch."""

    def __init__(
        self,
        line: Transport,
        operator: str,
        change: Change = lambda method, params, answer: answer,
        before: Callable[[int], None] = lambda number: None,
        ask: Callable[[str, list[Any]], tuple[str, list[Any]]] = lambda method, params: (method, params),
    ) -> None:
        """`change` gets method, params and answer of each call; `before` the number of the batch; `ask` alters what is asked."""
        self.operator = operator
        self.name = f"endpoint {operator!r} at test"
        self.requests = 0
        self._line, self._change, self._before, self._ask = line, change, before, ask

    def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """See Transport."""
        self.requests += 1
        self._before(self.requests)
        answers = self._line.batch([self._ask(method, params) for method, params in calls])
        return [self._change(method, params, answer) for (method, params), answer in zip(calls, answers, strict=True)]

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return self.batch([(method, params)])[0]
