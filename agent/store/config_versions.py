"""Config versions: every version that was used or noticed, with its hash, its text without secrets,
and its origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, or_, select

from agent.errors import Refused
from agent.model import Verdict
from agent.store import records
from agent.store.database import Database, all_rows, insert_rows
from agent.store.tables import ConfigRow

UNCONFIRMED = "noticed"
"""Origin of a version that was edited by hand and not confirmed."""


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version; `text` is the config in canonical form, without comments and secrets; None if
    only the hash was kept.
    """

    number: int
    digest: str
    at_s: int
    how: str
    text: str | None


class ConfigChanged(Refused):
    """Raised when a process acts by a config that its owner has replaced."""


@dataclass(frozen=True, slots=True)
class ConfigVersionStore:
    """Config versions; each method is a transaction of its own."""

    db: Database

    def confirm(
        self, config_hash: str, now_s: int, text: str | None = None, how: str = "confirmed"
    ) -> None:
        """Record a config file that the owner has confirmed; or, as NOTICED, one not confirmed."""
        with self.db.write("write the config's hash") as db:
            packed = None if text is None else records.compress_text(text)
            insert_rows(
                db,
                ConfigRow,
                [{"config_hash": config_hash, "at_s": now_s, "text_z": packed, "how": how}],
            )

    def confirmed(self) -> str | None:
        """Hash of the config file that was confirmed last."""
        with self.db.read("read the config's hash") as db:
            found: str | None = db.scalar(_confirmed())
            return found

    def require_present(self, digest: str, known: str | None) -> None:
        """Raise ConfigChanged if the owner has confirmed a version other than `digest` and `known`.

        For a process that acts by the config `digest` and began while `known` was the confirmed
        version.
        """
        now = self.confirmed()
        if now not in (known, digest):
            verdict = Verdict("config", digest[:16], str(now)[:16], False)
            raise ConfigChanged(
                "the config was edited; this process acts by the version before",
                (verdict,),
                "start it again",
            )

    def newest(self, limit: int = 100) -> tuple[ConfigVersion, ...]:
        """The newest versions, newest first."""
        with self.db.read("read the configs") as db:
            rows = all_rows(db, _newest(), ConfigRow, limit=limit)
            return tuple(
                ConfigVersion(
                    row.seq,
                    row.config_hash,
                    row.at_s,
                    row.how or "confirmed",
                    None if row.text_z is None else records.decompress_text(row.text_z),
                )
                for row in rows
            )


_newest = cache(lambda: select(ConfigRow).order_by(ConfigRow.seq.desc()).limit(bindparam("limit")))


@cache
def _confirmed() -> Select[Any]:
    confirmed = or_(ConfigRow.how.is_(None), ConfigRow.how != UNCONFIRMED)
    return select(ConfigRow.config_hash).where(confirmed).order_by(ConfigRow.seq.desc()).limit(1)
