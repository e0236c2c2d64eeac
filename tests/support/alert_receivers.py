"""Receivers of alerts in tests: a real SMTP server and a webhook on loopback, and a server that never answers."""

from __future__ import annotations

import email
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from unittest.mock import patch

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from apprise.plugins.email.base import NotifyEmail

from tests.support.fakes.http_server import LoopbackHandler, listening

WAIT_S = 60


@dataclass
class ReceivedMessages:
    """Received messages in order. The first `failing` requests are rejected."""

    items: list[dict[str, Any]] = field(default_factory=list)
    failing: int = 0
    tries: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, item: dict[str, Any]) -> bool:
        with self.changed:
            self.tries += 1
            taken = self.tries > self.failing
            if taken:
                self.items.append(item)
            self.changed.notify_all()
            return taken

    def until(self, count: int, tries: bool = False) -> None:
        """Wait until `count` messages arrived (or were tried)."""
        with self.changed:
            assert self.changed.wait_for(lambda: (self.tries if tries else len(self.items)) >= count, WAIT_S), self.items

    @property
    def texts(self) -> list[str]:
        return [item["text"] for item in self.items]


@contextmanager
def webhook(box: ReceivedMessages, secret: str = "path") -> Iterator[str]:
    """Yield the address of a webhook that accepts JSON, in apprise's format."""

    class Hook(LoopbackHandler):
        def do_POST(self) -> None:
            request = json.loads(self.body())
            taken = box.take({"title": request["title"], "text": request["message"], "path": self.path})
            self.reply(200 if taken else 503)

    with listening(Hook) as port:
        yield f"json://127.0.0.1:{port}/{secret}"


@contextmanager
def mailbox(box: ReceivedMessages) -> Iterator[str]:
    """Yield the address of a mail server, in apprise's format."""

    class Handler:
        async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
            mail = email.message_from_bytes(bytes(envelope.content or b""))
            taken = box.take({"title": str(mail["Subject"]), "text": bodies(mail), "to": envelope.rcpt_tos})
            return "250 taken" if taken else "451 not now"

    controller = Controller(Handler(), hostname="127.0.0.1", port=0, server_hostname="localhost")
    with patch.object(NotifyEmail, "request_rate_per_sec", 0), _bound(controller) as port:  # apprise spares mail servers by seconds
        yield f"mailto://127.0.0.1:{port}/?from=agent@example.org&to=owner@example.org&mode=insecure"


@contextmanager
def _bound(controller: Controller) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    controller.port = port
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def bodies(mail: Message) -> str:
    """Return all text parts of a mail, decoded."""
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    return "\n".join(bytes(part.get_payload(decode=True)).decode() for part in parts)


@contextmanager
def silent() -> Iterator[str]:
    """Yield the address of a webhook whose server accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as line:
        yield f"json://127.0.0.1:{line.getsockname()[1]}/never"
