"""Refusals and alerts of each UTC day. Unlike the steps and alerts that they count, which are
deleted after a while, the numbers stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection

from agent.store.database.connection import Database
from agent.store.database.facts import (
    fact_number,
    facts_with_prefix,
    parse_fact_number,
    write_facts,
)
from agent.units import DAY_S


class CountedEvent(Enum):
    """What is counted, as the prefix of its keys in the facts table."""

    REFUSAL = "refusals:"
    """A step whose plan a guard or a limit refused."""
    ALERT = "alerts:"
    """An alert sent, to however many targets."""


@dataclass(frozen=True, slots=True)
class DayCountStore:
    """Numbers of refusals and alerts. Times are Unix seconds."""

    db: Database

    def count(self, counted_event: CountedEvent, start_s: int, end_s: int) -> int:
        """Return the number of events from the day of `start_s` to that of the last second before
        `end_s`, both whole.
        """
        days = range(start_s // DAY_S, (end_s - 1) // DAY_S + 1)
        self.db.flush()
        with self.db.read("read the numbers of refusals and alerts") as db:
            return sum(
                parse_fact_number(key, number_text)
                for key, number_text in facts_with_prefix(db, counted_event.value)
                if parse_fact_number(key, key.removeprefix(counted_event.value)) in days
            )


def add_events(db: Connection, counted_event: CountedEvent, at_s: int, number: int = 1) -> None:
    """Count events of the day of `at_s`, Unix seconds."""
    key = f"{counted_event.value}{at_s // DAY_S}"
    write_facts(db, {key: fact_number(db, key) + number})
