"""A process that ends at a chosen moment of a step, while blocks may be held back: in this process, so that the store is opened anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from sqlalchemy import event as database_event

from agent.app.agent import Agent
from agent.localchain import LocalChain


class Killed(BaseException):
    """Stands for the end of the process: no `except Exception` on the way holds it up."""


class Clock:
    """The chain's clock; sleeping makes blocks unless they are held back."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain, self.held = chain, False

    def now_s(self) -> int:
        return self.chain.now_s()

    def sleep(self, seconds: float) -> None:
        if not self.held:
            self.chain.clock.sleep(seconds)


@contextmanager
def dying(agent: Agent, die_at: int | None) -> Iterator[Callable[[str], None]]:
    """A progress listener inside which the process ends at a moment, if one is named."""
    engine = agent.desk.store.engine
    moments, writing = count(1), False

    def passed() -> None:
        if next(moments) == die_at:
            raise Killed

    def progress(event: str) -> None:
        if event in ("before:send", "after:send") or event.startswith("nonce "):
            passed()

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal writing
        writing = writing or statement.startswith(("INSERT", "UPDATE", "DELETE"))

    def committed(_connection: object) -> None:
        nonlocal writing
        if writing:
            writing = False
            passed()

    heard = (("before_cursor_execute", executed), ("commit", committed))
    for name, listener in heard:
        database_event.listen(engine, name, listener)
    try:
        yield progress
    finally:
        for name, listener in heard:
            database_event.remove(engine, name, listener)
