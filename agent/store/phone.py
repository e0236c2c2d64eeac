"""Durable state of the phone bot: the newest handled update, open one-time codes, and what has been
reported, so that a restart repeats nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection

from agent.store import database
from agent.store.database import Database

UPDATE, UPDATE_TIME = "phone_update", "phone_update_s"
CODES, OFFERED, TOLD = "phone_codes", "phone_offered", "phone_log"
SEQUENCE_S = 6 * 86_400
"""Seconds after the newest update during which update numbers still rise; after a week without
updates Telegram chooses the next number at random.
"""
MAX_CODES = 20
MAX_TRIES = 5
"""Wrong answers of a chat after which its open code no longer works."""


@dataclass(frozen=True, slots=True)
class PhoneCode:
    """An open one-time code of a chat: `digest` is the keyed hash of its digits, `plan_hash` the
    plan that it confirms. Valid before `expires_s`, Unix seconds of this machine.
    """

    chat: int
    digest: str
    kind: str
    plan_hash: str
    expires_s: int
    tries: int = 0


@dataclass(frozen=True, slots=True)
class PhoneStore:
    """State of the phone bot; each method is one transaction."""

    db: Database

    def last_update(self, now_s: int) -> int:
        """Return the number of the newest handled update; 0 without one, or if it is so old that
        Telegram may have begun a new sequence.
        """
        with self.db.read("read the phone's state") as db:
            return _last_update(db, now_s)

    def take_update(self, number: int, now_s: int) -> bool:
        """Record an update as handled before anything is done for it; return False if it or a later
        one already was.
        """
        with self.db.write("write the phone's state") as db:
            if _last_update(db, now_s) >= number:
                return False
            database.write_facts(db, {UPDATE: number, UPDATE_TIME: now_s})
            return True

    def last_told(self) -> int:
        """Return the number of the newest reported line of the log of controls; 0 without one."""
        with self.db.read("read the phone's state") as db:
            return database.fact_number(db, TOLD)

    def take_line(self, number: int) -> bool:
        """Record a line of the log of controls as reported; return False if it already was."""
        with self.db.write("write the phone's state") as db:
            if database.fact_number(db, TOLD) >= number:
                return False
            database.write_facts(db, {TOLD: number})
            return True

    def take_offer(self, plan_hash: str) -> bool:
        """Record an offered plan as reported; return False if it is the newest reported one."""
        with self.db.write("write the phone's state") as db:
            if database.fact_text(db, OFFERED) == plan_hash:
                return False
            database.write_facts(db, {OFFERED: plan_hash})
            return True

    def open_code(self, code: PhoneCode, now_s: int) -> None:
        """Store a code; it replaces every earlier code of the chat."""
        with self.db.write("write the phone's state") as db:
            kept = [one for one in _codes(db, now_s) if one.chat != code.chat]
            _write(db, [*kept[1 - MAX_CODES :], code])

    def use_code(self, chat: int, digest: str, now_s: int) -> PhoneCode | None:
        """Return the chat's open code if it has this digest, and close it; None for a wrong, used
        or expired one. Every attempt is recorded.
        """
        with self.db.write("write the phone's state") as db:
            codes = _codes(db, now_s)
            found = next((one for one in codes if one.chat == chat), None)
            others = [one for one in codes if one.chat != chat]
            if found is None:
                return None
            if found.digest == digest:
                _write(db, others)
                return found
            tried = replace(found, tries=found.tries + 1)
            _write(db, others if tried.tries >= MAX_TRIES else [*others, tried])
            return None


def _last_update(db: Connection, now_s: int) -> int:
    # a time in the future was recorded by a wrong clock
    if abs(now_s - database.fact_number(db, UPDATE_TIME)) > SEQUENCE_S:
        return 0
    return database.fact_number(db, UPDATE)


def _codes(db: Connection, now_s: int) -> list[PhoneCode]:
    try:
        found = [PhoneCode(**one) for one in json.loads(database.fact_text(db, CODES) or "[]")]
    except (TypeError, ValueError):  # damaged: no code works
        return []
    return [one for one in found if now_s < one.expires_s]


def _write(db: Connection, codes: list[PhoneCode]) -> None:
    database.write_facts(db, {CODES: json.dumps([asdict(one) for one in codes])})
