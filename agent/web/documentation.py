"""The documentation as a site, for browsers of this machine, with the standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.errors import ConfigError


class _SiteHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def serve_documentation(folder: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the files of `folder` on this machine only, until interrupted. Call `on_ready` with the
    address. Port 0 takes a free one. Raises ConfigError if the port is in use.
    """
    try:
        server = ThreadingHTTPServer(
            ("127.0.0.1", port), partial(_SiteHandler, directory=str(folder))
        )
    except OSError as error:
        raise ConfigError(
            f"--port {port}: {error.strerror}", "name another one; 0 takes a free one"
        ) from None
    with server:
        on_ready(f"http://127.0.0.1:{server.server_port}/")
        server.serve_forever()
