"""[record]: folder of recorded steps, and their retention."""

from __future__ import annotations

from pydantic import Field

from agent.config.tables.fields import ConfigTable

DEFAULT_KEEP_FILES = 10_000
DEFAULT_KEEP_MEGABYTES = 1_000
"""Default retention in files and megabytes: ten weeks of cycles every ten minutes."""


class RecordTable(ConfigTable):
    """Recording of steps for `trimtab replay` (docs/paper.md)."""

    dir: str = Field(min_length=1)
    """Folder, relative to the config file."""
    keep_files: int = Field(default=DEFAULT_KEEP_FILES, ge=1, le=1_000_000)
    """Newest files that are kept."""
    keep_megabytes: int = Field(default=DEFAULT_KEEP_MEGABYTES, ge=1, le=1_000_000)
    """Their largest size in all."""
