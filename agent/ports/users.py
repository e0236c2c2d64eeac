"""Where the users of a dashboard are, in values that its processes pass to one another."""

from __future__ import annotations

from typing import NamedTuple


class UsersPlace(NamedTuple):
    """The users of a portfolio: those in `file`, or if it is empty those in the database that `config`
    names; both are paths. The process that serves pages does not know its address.
    """

    file: str
    config: str = ""
