"""The server before a local node: clients that have gone cause no output, other errors do."""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler

import pytest

from agent.localchain.front import FrontServer


@pytest.mark.parametrize(
    ("error", "is_shown"),
    [
        (BrokenPipeError(32, "Broken pipe"), False),
        (ConnectionResetError(104, "Connection reset by peer"), False),
        (ConnectionAbortedError(103, "Software caused connection abort"), False),
        (TimeoutError("timed out"), True),
        (ValueError("an error of ours"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_front_server__shows_no_trace_of_a_client_that_has_gone(
    error: Exception, is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with FrontServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, socket.socket() as request:
        try:
            raise error
        except Exception:
            server.handle_error(request, ("127.0.0.1", 1))
    assert ("Traceback" in capsys.readouterr().err) is is_shown
