"""A server that answers every request with one status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fakes.http_server import LoopbackHandler, listening


@contextmanager
def listener(answer: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answer every request with this status; yield the address, and method and path of each request."""
    heard: list[tuple[str, str]] = []

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:
            heard.append((self.command, self.path))
            self.reply(answer, Location="http://127.0.0.1:9/elsewhere")

        do_POST = do_GET  # noqa: N815  # http.server's names

    with listening(Handler) as port:
        yield f"http://127.0.0.1:{port}", heard
