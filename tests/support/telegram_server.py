"""The Bot API on loopback, in its documented shapes: getMe, getUpdates with long polling and offsets, sendMessage, and its errors.

https://core.telegram.org/bots/api: {"ok": true, "result": …} or {"ok": false, "error_code", "description", "parameters":
{"retry_after"}}. An update is kept until a request has an offset above its number; negative offsets and webhooks are not needed here.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from agent.app.controls import telegram
from agent.app.controls.telegram import PhoneActions, TelegramBot
from agent.config.loaded import LoadedConfig
from tests.support.fakes.http_server import LoopbackHandler, listening

TOKEN = "123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
WAIT_S = 90


@dataclass
class BotApi:
    """The owner's phone: sent and received messages. `failures` are answers to give first: (method, status, body); `again` are
    updates to deliver once more, whatever was acknowledged.
    """

    url: str = ""
    pending: list[dict[str, Any]] = field(default_factory=list)
    sent: list[tuple[int, str]] = field(default_factory=list)
    failures: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    again: list[dict[str, Any]] = field(default_factory=list)
    number: int = 1_000
    changed: threading.Condition = field(default_factory=threading.Condition)

    def write(
        self, chat: int, text: str, *, kind: str = "private", age_s: float = 0, number: int | None = None, place: str = "message",
        **more: Any,
    ) -> None:  # fmt: skip
        """Write to the bot; `more` are further fields of the message, `place` is that of the message in the update."""
        with self.changed:
            self.number = self.number + 1 if number is None else number
            who = {"id": chat, "is_bot": False, "first_name": "A"}
            message = {
                "message_id": self.number, "date": int(time.time() - age_s), "text": text, "from": who, "chat": {"id": chat, "type": kind},
                **more,
            }  # fmt: skip
            self.pending.append({"update_id": self.number, place: message})
            self.changed.notify_all()

    def until(self, count: int) -> list[tuple[int, str]]:
        """Wait until the bot has sent this many messages, and return them all."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, WAIT_S), self.sent
            return list(self.sent)

    def quiet(self, for_s: float = 0.6) -> int:
        """Wait a moment, and return the number of messages."""
        time.sleep(for_s)
        return len(self.sent)

    def answer(self, method: str, request: dict[str, str]) -> tuple[int, dict[str, Any]]:
        with self.changed:
            for failure in self.failures:
                if failure[0] == method:
                    self.failures.remove(failure)
                    self.changed.notify_all()
                    return failure[1:]
            if method == "getMe":
                return 200, {"ok": True, "result": {"id": 123456, "is_bot": True, "first_name": "trimtab", "username": "trimtab_bot"}}
            if method == "sendMessage":
                self.sent.append((int(request["chat_id"]), request["text"]))
                self.changed.notify_all()
                chat = {"id": int(request["chat_id"]), "type": "private"}
                return 200, {
                    "ok": True,
                    "result": {"message_id": len(self.sent), "date": int(time.time()), "chat": chat, "text": request["text"]},
                }
            offset = int(request.get("offset", 0))
            self.offsets.append(offset)
            self.pending = [update for update in self.pending if update["update_id"] >= offset]
            self.changed.wait_for(lambda: bool(self.pending or self.again or self.failures), min(float(request.get("timeout", 0)), 1.0))
            again, self.again = self.again, []
            return 200, {"ok": True, "result": [*again, *self.pending]}


def failure(method: str, status: int, description: str, **parameters: int) -> tuple[str, int, dict[str, Any]]:
    """Return an error as documented by the Bot API."""
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return method, status, body | ({"parameters": parameters} if parameters else {})


@contextmanager
def bot_api() -> Iterator[BotApi]:
    """Run the server, without messages."""
    api = BotApi()

    class Handler(LoopbackHandler):
        def do_POST(self) -> None:
            _, token, method = self.path.split("/")
            parameters = {name: values[-1] for name, values in parse_qs(self.body().decode()).items()}
            if token == f"bot{TOKEN}":
                status, body = api.answer(method, parameters)
            else:
                status = 401
                body = {"ok": False, "error_code": 401, "description": "Unauthorized"}
            self.reply(status, json.dumps(body).encode(), Content_Type="application/json")

    with listening(Handler) as port:
        api.url = f"http://127.0.0.1:{port}"
        yield api


@contextmanager
def running(loaded: LoadedConfig, actions: PhoneActions, before_end: Callable[[], object] = lambda: None) -> Iterator[TelegramBot]:
    """Run the bot in its own thread; it ends at any await, as if killed."""
    ready = threading.Event()
    bots = list[TelegramBot]()
    ended = list[BaseException]()
    ends: list[Callable[[], object]] = []

    def work() -> None:
        async def serve() -> None:
            with telegram.open_bot(loaded) as bot:
                bot.actions = actions
                bot.watch_interval_s = 0.05
                task = asyncio.create_task(bot.run())
                loop = asyncio.get_running_loop()
                bots.append(bot)
                ends.append(lambda: loop.call_soon_threadsafe(task.cancel))
                ready.set()
                with suppress(asyncio.CancelledError):
                    await task

        try:
            asyncio.run(serve())
        except BaseException as error:  # handed to the test
            ended.append(error)
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(90)
    try:
        if bots:
            yield bots[0]
    finally:
        for end in ends:
            with suppress(RuntimeError):
                end()
        before_end()
        thread.join(90)
    if ended:
        raise ended[0]


def code_in(text: str) -> str:
    (code,) = re.findall(r"/(?:confirm|resume) ([0-9]{8})", text)
    return str(code)
