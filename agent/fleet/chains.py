"""What portfolios of a process share: connections to endpoints, a chain's time, and its blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from secrets import SystemRandom
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent import wiring
from agent.chain.rpc import Transport
from agent.config.schema import Config
from agent.config.tables.chain import RpcTable
from agent.errors import ConfigError, TrimtabError
from agent.hosts import LOOPBACK_HOSTS
from agent.ports import Clock
from agent.wiring.call_budgets import CallBudgets

if TYPE_CHECKING:
    from agent.chain.snapshot import ChainReader

MAX_WALLETS_A_READ = 50
"""Most wallets whose data are asked for in one request: each adds some six items to a page."""


LONGEST_LOOK_S = 3_600.0
"""Time after which one whose look has not ended no longer counts among those who look together."""
NO_SHARING_S = 60.0
"""Time after a shared read that failed in which each portfolio reads by itself at once."""


class SharedReadTimes:
    """Times at which portfolios of a chain look together, by the monotonic clock, each for as many
    wallets as one read takes.
    """

    def __init__(self) -> None:
        self._wallet_counts: dict[float, int] = {}
        self._lock = threading.Lock()

    def join(self, earliest_s: float, latest_s: float, left_s: float | None = None) -> float:
        """Return the time of a portfolio's next look, after that at `left_s`: in this span the one
        that most others wait for and that has a place, or a new one, at random (T15). Those who look
        with fewer others join more of them once before the span, so that groups grow together.
        """
        now_s = time.monotonic()
        with self._lock:
            counts = {
                at_s: wallet_count
                for at_s, wallet_count in self._wallet_counts.items()
                if wallet_count > 0 and at_s > now_s - LONGEST_LOOK_S
            }
            own_count = counts.get(left_s, 1) if left_s is not None else 1
            free_times = [
                at_s
                for at_s, wallet_count in counts.items()
                if now_s < at_s <= latest_s
                and wallet_count < MAX_WALLETS_A_READ
                and (at_s >= earliest_s or wallet_count >= own_count)
            ]
            read_s = SystemRandom().uniform(earliest_s, latest_s)
            if free_times:
                read_s = max(free_times, key=counts.__getitem__)
            counts[read_s] = counts.get(read_s, 0) + 1
            if left_s in counts:
                counts[left_s] -= 1
            self._wallet_counts = counts
        return read_s


class FleetChain:
    """A chain, by the endpoints of the configs that name the same ones."""

    def __init__(self, config: Config, transports: Sequence[Transport], clock: Clock) -> None:
        self.transports = transports
        self.read_times = SharedReadTimes()
        self._block_reader = wiring.open_block_reader(config, transports, clock)
        self._reading = threading.Lock()
        self._shares_from_s = 0.0
        self.is_slow = False
        """Whether the read under way takes so long that no portfolio waits for it."""

    def share_time(self, context: wiring.AgentContext) -> None:
        """Let a portfolio reckon the age of blocks from those that any portfolio has read."""
        context.endpoints.chain_time = self._block_reader.endpoint_pool.chain_time

    def can_share(self, *, waits: bool) -> bool:
        """Return whether a portfolio may share a read: none has just failed, and none is under way,
        unless the portfolio `waits` for its end and it is not slow.
        """
        if self._reading.locked() and (self.is_slow or not waits):
            return False
        return time.monotonic() >= self._shares_from_s

    def begin_read(self) -> bool:
        """Return whether a shared read begins now, to be ended by `end_read`; False while another
        is under way.
        """
        if not self._reading.acquire(blocking=False):
            return False
        self.is_slow = False
        return True

    def end_read(self) -> None:
        """End the read that `begin_read` began."""
        self._reading.release()

    def read_ahead(self, contexts: Sequence[wiring.AgentContext]) -> None:
        """Read the newest block for at most MAX_WALLETS_A_READ portfolios, and offer each its part
        as its next snapshot.

        A portfolio that is left out, or all if the read fails, reads by itself and reports what
        fails. Pools may answer differently to the wallet that asks, which then asks alone.
        """
        chain_readers = [_updated_reader(context) for context in contexts]
        sharing_readers = [
            chain_reader
            for chain_reader in chain_readers
            if chain_reader is not None and not chain_reader.scope.caller
        ]
        try:
            self._read_for(sharing_readers)
        except TrimtabError:
            self._shares_from_s = time.monotonic() + NO_SHARING_S

    def _read_for(self, chain_readers: Sequence[ChainReader]) -> None:
        if len(chain_readers) < 2:
            return
        scopes = [chain_reader.scope for chain_reader in chain_readers]
        readings = self._block_reader.read(scopes)
        for chain_reader, reading in zip(chain_readers, readings, strict=True):
            chain_reader.offer(self._block_reader, reading)


def _updated_reader(context: wiring.AgentContext) -> ChainReader | None:
    """Return the chain reader of a portfolio with its current positions; None while they cannot be
    read from the store.
    """
    try:
        context.position_reader.update_scope()
    except TrimtabError:
        return None
    return context.position_reader.reader


class SharedConnections:
    """Connections to the endpoints of many configs, each opened once."""

    def __init__(self, clock: Clock, call_budgets: CallBudgets | None = None) -> None:
        self.clock = clock
        self._call_budgets = call_budgets or CallBudgets()
        self._transport_by_endpoint: dict[tuple[object, ...], Transport] = {}
        self._chain_by_endpoints: dict[tuple[object, ...], FleetChain] = {}
        self._server_by_wallet: dict[tuple[int, str, str], str] = {}
        self._lock = threading.Lock()

    def chain(self, config: Config) -> FleetChain:
        """Return the chain of a config, the same for all configs with the same endpoints. Raises
        ConfigError if the variable of an endpoint is not set, or two operators have one endpoint.
        """
        chain_table = config.chain
        chain_table.require_own_endpoints()
        rpc_tables = chain_table.rpc
        chain_key = (
            chain_table.chain_id,
            chain_table.min_operators,
            chain_table.max_lag_blocks,
            *(_endpoint_key(rpc_table) for rpc_table in rpc_tables),
        )
        with self._lock:
            if chain_key not in self._chain_by_endpoints:
                attempts = wiring.endpoint_attempts(config)
                transports = tuple(self._transport(rpc_table, attempts) for rpc_table in rpc_tables)
                self._chain_by_endpoints[chain_key] = FleetChain(config, transports, self.clock)
            return self._chain_by_endpoints[chain_key]

    @contextmanager
    def serving(self, config: Config, name: str) -> Iterator[None]:
        """Note that the portfolio NAME serves its wallet. Raises ConfigError if another portfolio of
        this process does; local chains share chain ids and wallets, and have no other lock for it.
        """
        chain_table = config.chain
        nodes = (
            {_node(rpc_table) for rpc_table in chain_table.rpc} if chain_table.is_local else {""}
        )
        wallet_keys = [(chain_table.chain_id, node, config.wallet.address) for node in nodes]
        with self._lock:
            for wallet_key in wallet_keys:
                if (server_name := self._server_by_wallet.get(wallet_key, name)) != name:
                    raise ConfigError(
                        f"wallet.address: {config.wallet.address} is served by the portfolio"
                        f" {server_name}",
                        "remove one of the two configs from the run",
                    )
            self._server_by_wallet.update(dict.fromkeys(wallet_keys, name))
        try:
            yield
        finally:
            for wallet_key in wallet_keys:
                del self._server_by_wallet[wallet_key]

    def _transport(self, rpc_table: RpcTable, attempts: int) -> Transport:
        endpoint_key = (*_endpoint_key(rpc_table), attempts)
        if endpoint_key not in self._transport_by_endpoint:
            call_budget = self._call_budgets.budget(rpc_table)
            transport = wiring.open_transport(rpc_table, attempts, call_budget)
            self._transport_by_endpoint[endpoint_key] = transport
        return self._transport_by_endpoint[endpoint_key]


def _node(rpc_table: RpcTable) -> str:
    """Return what names the node of an endpoint: host, the same for all names of this machine, port,
    path and query.
    """
    url = rpc_table.read_url()
    try:
        url_parts = urlsplit(url)
        host = "localhost" if url_parts.hostname in LOOPBACK_HOSTS else url_parts.hostname
        return f"{host}:{url_parts.port}{url_parts.path.rstrip('/')}?{url_parts.query}"
    except ValueError:  # no URL: the connection refuses it
        return url


def _endpoint_key(rpc_table: RpcTable) -> tuple[object, ...]:
    rate = rpc_table.calls_per_second
    return rpc_table.read_url(), rpc_table.operator, rpc_table.timeout, rate
