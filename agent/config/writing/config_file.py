"""Writing a config to its file."""

from __future__ import annotations

from pathlib import Path

from agent import files
from agent.errors import ConfigError


def write_config(path: Path, config_text: str, file_mode: int | None = None) -> None:
    """Replace the file's text atomically, that of its target if it is a symbolic link; without
    `file_mode` the file keeps its mode. Raises ConfigError.
    """
    path = path.resolve()
    try:
        if file_mode is None:
            file_mode = path.stat().st_mode & 0o777
        files.replace_file(path, config_text.encode(), file_mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror}",
            "free space and make its folder writable, then run it again",
        ) from None
