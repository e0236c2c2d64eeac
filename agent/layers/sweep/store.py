"""Stored state of sweeps: when the current interval of the schedule began."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.store.database.connection import Database
from agent.store.database.facts import fact_text, write_facts
from agent.store.database.rows import decode_json

INTERVAL_KEY = "sweep_interval"
"""Key of the schedule's name and of the chain time at which its interval began."""


@dataclass(frozen=True, slots=True)
class SweepStore:
    """The interval of the schedule; each method is a transaction of its own."""

    db: Database

    def interval_start_s(self, schedule_name: str) -> int | None:
        """Return the chain time at which the interval of this schedule began; None if none did, or
        that of another schedule.
        """
        with self.db.read("read the interval of sweeps") as db:
            interval_json = fact_text(db, INTERVAL_KEY)
        if not interval_json:
            return None
        stored_name, start_s = decode_json(tuple[str, int], interval_json)
        return start_s if stored_name == schedule_name else None

    def begin_interval(self, schedule_name: str, start_s: int) -> None:
        """Record that an interval of this schedule begins at that chain time."""
        with self.db.write("write the interval of sweeps") as db:
            write_facts(db, {INTERVAL_KEY: json.dumps([schedule_name, start_s])})
