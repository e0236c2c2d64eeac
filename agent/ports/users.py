"""Where the users of a dashboard are, in values that its processes pass to one another."""

from __future__ import annotations

from typing import NamedTuple


class UsersPlace(NamedTuple):
    """The users of a portfolio: those in `file`, or if it is empty those in the database that `config`
    names; both are paths. The process that serves pages does not know its address. `owner` is the
    name of the only user, who has opened the set-up and is in neither.
    """

    file: str
    config: str = ""
    owner: str = ""
