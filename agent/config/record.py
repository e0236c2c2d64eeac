"""The keys of [record]: where each step is written down as a file, and how many files are kept."""

from __future__ import annotations

from pydantic import Field

from agent.config.table import Table

FILES, MEGABYTES = 10_000, 1_000
"""What is kept where nobody says otherwise: some months of looks every ten minutes."""


class RecordTable(Table):
    """`dir` is relative to the config file. Of the files that trimtab wrote there the newest `keep_files` stay, of them as many as
    fit into `keep_megabytes`.
    """

    dir: str = Field(min_length=1)
    keep_files: int = Field(default=FILES, ge=1, le=1_000_000)
    keep_megabytes: int = Field(default=MEGABYTES, ge=1, le=1_000_000)
