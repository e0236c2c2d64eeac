"""Bounds of connections: how many are open in all and by address, and how long each may take to
send a whole request. A client without a login can neither use up the connections nor hold one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.web.reach import plain_address

REQUEST_TIMEOUT_S = 10.0
"""Time for a whole request, from the connection, with its TLS handshake, or from the end of the
answer before.
"""
ANSWER_TIMEOUT_S = 60.0
"""Time in which a client has to read a part of a large answer."""
MAX_CONNECTIONS = 512
MAX_CONNECTIONS_PER_NETWORK = 128
"""Connections of an IPv4 address or an IPv6 /64 network; the proxy's are bounded in all only."""
MAX_ENDING_CONNECTIONS = 64
MAX_OPEN_FILES = 4_096
"""Open files that the process asks for; a connection takes one."""


@dataclass(eq=False, slots=True)
class _Connection:
    """An open connection. `is_busy` from a whole request to the end of its answer; `is_write_paused`
    while more waits to be read than its buffer holds.
    """

    client_socket: _ClientSocket
    network: str
    timer: asyncio.TimerHandle | None = None
    transport: asyncio.Transport | None = None
    unsent_bytes: int = 0
    is_busy: bool = False
    is_write_paused: bool = False
    is_ending: bool = False


class _ClientSocket(socket.socket):
    """An accepted connection, which reports when it is closed."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close the connection."""
        super().close()
        if (on_close := self.on_close) is not None:
            self.on_close = None
            on_close()


class BoundedListener(socket.socket):
    """A listening socket for asyncio that bounds its connections. If one too many arrives, the
    oldest without a whole request, or whose client does not read its answer, is closed; without such
    a one, the new one.
    """

    def __init__(self, family: int, kind: int, protocol: int = 0) -> None:
        super().__init__(family, kind, protocol)
        self.proxies: frozenset[str] = frozenset()
        self._connection_by_peer: dict[Any, _Connection] = {}
        """Connections by their peer's address and port, the longest idle one first."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection within the bounds. Raises BlockingIOError if none waits, or to
        let the loop close those that made room first.
        """
        while True:
            if (
                sum(connection.is_ending for connection in self._connection_by_peer.values())
                >= MAX_ENDING_CONNECTIONS
            ):
                raise BlockingIOError
            accepted_socket, peer = super().accept()
            client_socket = _ClientSocket(
                accepted_socket.family,
                accepted_socket.type,
                accepted_socket.proto,
                accepted_socket.detach(),
            )
            network = _network(str(peer[0]))
            if not self._make_room(network, is_proxy=plain_address(str(peer[0])) in self.proxies):
                client_socket.close()
                continue
            connection = self._connection_by_peer[peer] = _Connection(client_socket, network)
            client_socket.on_close = lambda peer=peer, accepted_connection=connection: self._forget(
                peer, accepted_connection
            )
            self._start_timer(connection, REQUEST_TIMEOUT_S)
            return client_socket, peer

    def attach_transport(self, peer: Any, transport: asyncio.Transport) -> None:
        """Note the transport of a connection, after its TLS handshake if it has one."""
        if (connection := self._connection_by_peer.get(peer)) is not None:
            connection.transport = transport
            if connection.is_ending:
                transport.abort()

    def begin_request(self, peer: Any) -> None:
        """Give a connection the time for a whole request, which begins now."""
        if (connection := self._connection_by_peer.get(peer)) is not None:
            connection.is_busy = False
            self._connection_by_peer[peer] = self._connection_by_peer.pop(peer)
            self._start_timer(connection, REQUEST_TIMEOUT_S)

    def complete_request(self, peer: Any) -> None:
        """Note that a request has arrived whole."""
        if (connection := self._connection_by_peer.get(peer)) is not None:
            connection.is_busy = True
            self._time_reading(connection)

    def note_writing(self, peer: Any, *, is_paused: bool) -> None:
        """Note whether answers wait until the client has read a part of them."""
        if (connection := self._connection_by_peer.get(peer)) is not None:
            connection.is_write_paused = is_paused
            if connection.is_busy:
                self._time_reading(connection)

    def _time_reading(self, connection: _Connection) -> None:
        """Bound the time in which a busy connection's client reads, not that of its answer."""
        if connection.is_write_paused:
            self._start_timer(connection, ANSWER_TIMEOUT_S, _unsent_bytes(connection))
        else:
            _stop_timer(connection)

    def _start_timer(
        self, connection: _Connection, timeout_s: float, unsent_bytes: int = 0
    ) -> None:
        _stop_timer(connection)
        connection.unsent_bytes = unsent_bytes
        loop = asyncio.get_running_loop()
        connection.timer = loop.call_later(timeout_s, self._expire, connection)

    def _expire(self, connection: _Connection) -> None:
        """Close a connection, unless an answer is still being read."""
        unsent_bytes = _unsent_bytes(connection)
        if unsent_bytes and (not connection.unsent_bytes or unsent_bytes < connection.unsent_bytes):
            self._start_timer(connection, ANSWER_TIMEOUT_S, unsent_bytes)
        else:
            self._end_connection(connection)

    def _make_room(self, network: str, *, is_proxy: bool) -> bool:
        """Return whether a connection may be added, after closing an old one if need be."""
        open_connections = [
            connection
            for connection in self._connection_by_peer.values()
            if not connection.is_ending
        ]
        same_network_connections = [
            connection for connection in open_connections if connection.network == network
        ]
        if not is_proxy and len(same_network_connections) >= MAX_CONNECTIONS_PER_NETWORK:
            return self._end_oldest(same_network_connections)
        return len(open_connections) < MAX_CONNECTIONS or self._end_oldest(open_connections)

    def _end_oldest(self, open_connections: list[_Connection]) -> bool:
        oldest_connection = next(
            (
                connection
                for connection in open_connections
                if not connection.is_busy or connection.is_write_paused
            ),
            None,
        )
        if oldest_connection is not None:
            self._end_connection(oldest_connection)
        return oldest_connection is not None

    def _end_connection(self, connection: _Connection) -> None:
        _stop_timer(connection)
        connection.is_ending = True
        if connection.transport is not None:
            connection.transport.abort()
        else:  # in its TLS handshake: the loop, which owns it, closes it once it reads the end
            with suppress(OSError):
                connection.client_socket.shutdown(socket.SHUT_RDWR)

    def _forget(self, peer: Any, connection: _Connection) -> None:
        _stop_timer(connection)
        if self._connection_by_peer.get(peer) is connection:
            del self._connection_by_peer[peer]


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which tells its listener when a request has arrived whole."""

    def __init__(self, listener: BoundedListener, **options: Any) -> None:
        super().__init__(**options)
        self._listener = listener
        self._peer: Any = None
        self._is_idle = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, after a TLS handshake."""
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peername")
        self._listener.attach_transport(self._peer, transport)

    def data_received(self, data: bytes) -> None:
        """Take data of a request."""
        if self._is_idle:
            self._is_idle = False
            self._listener.begin_request(self._peer)
        super().data_received(data)

    def handle_events(self) -> None:
        """Take the events of a request."""
        super().handle_events()
        if self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete):
            self._listener.complete_request(self._peer)

    def pause_writing(self) -> None:
        """Wait until the client has read a part of what was written."""
        super().pause_writing()
        self._listener.note_writing(self._peer, is_paused=True)

    def resume_writing(self) -> None:
        """Write again."""
        super().resume_writing()
        self._listener.note_writing(self._peer, is_paused=False)

    def on_response_complete(self) -> None:
        """End an answer, and begin a request that arrived meanwhile."""
        self._is_idle = True
        self._listener.begin_request(self._peer)
        super().on_response_complete()


def raise_file_limit() -> None:
    """Let this process open MAX_OPEN_FILES files, as far as it may."""
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    new_limit = (
        MAX_OPEN_FILES if hard_limit == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard_limit)
    )
    if soft_limit != resource.RLIM_INFINITY and soft_limit < new_limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard_limit))


def _unsent_bytes(connection: _Connection) -> int:
    """Return how much waits to be sent. The transport of TLS counts what it has not encrypted; the
    rest is in that below it, which asyncio does not publish.
    """
    transport = connection.transport
    lower_transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return sum(
        layer.get_write_buffer_size() for layer in (transport, lower_transport) if layer is not None
    )


def _stop_timer(connection: _Connection) -> None:
    if connection.timer is not None:
        connection.timer.cancel()
        connection.timer = None


def _network(address: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address."""
    ip_address = plain_address(address)
    return (
        str(ipaddress.ip_network((ip_address, 64), strict=False))
        if ":" in ip_address
        else ip_address
    )
