"""Variables of one config, by name: a value that its tables carry, so that two configs in one process
share none.
"""

from __future__ import annotations

from typing import NoReturn

VARIABLES_KEY = "variables"
"""Key of the variables in the context of a validation."""


class Variables(dict[str, str]):
    """Values by name. They are secrets, so that no text shows them."""

    def __repr__(self) -> str:
        return "Variables(hidden)"

    __str__ = __repr__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("variables are secrets and cannot be pickled or copied")
