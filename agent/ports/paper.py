"""Which books of a config are meant, in a value that processes pass to one another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PaperConfig:
    """A config file whose paper store is meant, not its live one."""

    path: str
