"""What all tables of the config have in common: unknown keys are refused, nothing changes after reading."""

from __future__ import annotations

from typing import NoReturn

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of trimtab.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a config is not pickled: URLs of endpoints in it are secrets")
