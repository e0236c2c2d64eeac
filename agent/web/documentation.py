"""The documentation as a site, for browsers of this machine, with the standard library alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent.errors import ConfigError, printable_text

REFUSALS_PAGE = "refusals.html"
"""Page with an entry for each code of an error and each guard."""
_ENTRY_PATTERN = re.compile(r'<h\d id="([a-z0-9_]+)"')


class _SiteHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def entry_path(folder: Path, code: str) -> str:
    """Return the path of the entry of an error's code or a guard in the site. Raises ConfigError for
    one that has none.
    """
    entries = _ENTRY_PATTERN.findall((folder / REFUSALS_PAGE).read_text(encoding="utf-8"))
    if code not in entries:
        similar_codes = get_close_matches(code.lower(), entries)
        raise ConfigError(
            f"CODE: {printable_text(code)!r} is neither the code of an error nor a guard",
            f"write {' or '.join(similar_codes)}"
            if similar_codes
            else f"trimtab docs shows all at {REFUSALS_PAGE}",
        )
    return f"{REFUSALS_PAGE}#{code}"


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
