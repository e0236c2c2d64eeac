"""Where the users of a dashboard are, in values that processes pass to one another."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class UsersPlace(NamedTuple):
    """The users of a portfolio: those in `file`, or without one those of the store `key` in the
    database at `url`.
    """

    file: Path | None
    url: str = ""
    key: str = ""

    def __repr__(self) -> str:
        """Return the place without the address, which may contain a password."""
        return f"UsersPlace({self.file or self.key})"
