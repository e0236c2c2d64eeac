"""Server in front of a local node that changes single calls and answers, where the node differs from
the chain that it stands for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from agent.errors import ConfigError
from agent.localchain.nodes import LocalProvider

AdaptAnswer = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Returns the answer to a method, by method and the node's answer."""
AdaptCall = Callable[[str, list[Any]], tuple[str, list[Any]]]
"""Returns what the node is asked, by method and parameters."""


class FrontServer(ThreadingHTTPServer):
    """Server whose queue holds the connections that a starting anvil opens at once. A client that
    has gone causes no output.
    """

    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error being handled with its traceback, unless the connection ended."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_front(
    node_url: str,
    adapt_answer: AdaptAnswer,
    adapt_call: AdaptCall = lambda method, params: (method, params),
    port: int = 0,
) -> Iterator[str]:
    """Serve the node at `node_url` with adapted calls and answers; yield the URL. Raises ConfigError
    if the port is taken.
    """
    node = LocalProvider(node_url)

    class FrontHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            try:
                request_json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request_objects = request_json if isinstance(request_json, list) else [request_json]
                calls = [
                    (request_object["method"], request_object.get("params", []))
                    for request_object in request_objects
                ]
                answers = [
                    {**adapt_answer(method, answer), "id": request_object.get("id")}
                    for request_object, (method, _), answer in zip(
                        request_objects,
                        calls,
                        node.batch([adapt_call(*call) for call in calls]),
                        strict=True,
                    )
                ]
            except (ValueError, LookupError, TypeError, AttributeError):
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            except ConnectionError:
                self.send_error(HTTPStatus.BAD_GATEWAY)
                return
            answer_body = json.dumps(
                answers if isinstance(request_json, list) else answers[0]
            ).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer_body)))
            self.end_headers()
            self.wfile.write(answer_body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    try:
        server = FrontServer(("127.0.0.1", port), FrontHandler)
    except OSError as error:
        raise ConfigError(
            f"the stand-in cannot be served on port {port}: {error.strerror}", "choose another port"
        ) from None
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
