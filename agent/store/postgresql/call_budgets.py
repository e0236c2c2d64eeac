"""The calls that an operator's endpoints get from all workers together."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

TURNS_A_RESERVATION_S = 0.1
"""Length of the turns that a worker takes from the database at once."""
RETRY_S = 30.0
"""Seconds for which a database that does not answer is not asked again: calls then go on unshared."""


class SharedCallBudget:
    """The calls of an operator, whose turns the workers take from the database in small parts. A
    database that refuses holds up no call; one that hangs holds up one attempt in RETRY_S.
    """

    def __init__(self, engine: Engine, operator: str, calls_per_second: int) -> None:
        self._engine = engine
        self._operator = operator
        self._turn_s = 1 / calls_per_second
        self._part = max(1, round(calls_per_second * TURNS_A_RESERVATION_S))
        self._reserved = 0
        self._wait_until_s = 0.0
        self._unasked_until_s = 0.0
        self._lock = threading.Lock()

    def take(self, call_count: int) -> float:
        """Take the turns of a request; return the length of those before it that are not over, s."""
        with self._lock:
            if self._reserved < call_count:
                self._reserve(max(self._part, call_count - self._reserved))
            self._reserved = max(0, self._reserved - call_count)
            return max(0.0, self._wait_until_s - time.monotonic())

    def _reserve(self, turn_count: int) -> None:
        now_s = time.monotonic()
        if now_s < self._unasked_until_s:
            return
        self._unasked_until_s = now_s + RETRY_S
        values = {"operator": self._operator, "length": turn_count * self._turn_s}
        with suppress(SQLAlchemyError), self._engine.begin() as db:
            db.exec_driver_sql("SET LOCAL synchronous_commit = off")
            turns_before_s = float(db.execute(_TAKE, values).scalar_one())
            self._reserved += turn_count
            self._wait_until_s = now_s + turns_before_s
            self._unasked_until_s = 0.0


_TAKE = text(
    "INSERT INTO call_budgets AS budget (operator, free)"
    " VALUES (:operator, clock_timestamp() + make_interval(secs => :length))"
    " ON CONFLICT (operator) DO UPDATE"
    " SET free = greatest(budget.free, clock_timestamp()) + make_interval(secs => :length)"
    " RETURNING extract(epoch FROM free - clock_timestamp()) - :length"
)
