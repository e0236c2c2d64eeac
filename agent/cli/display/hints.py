"""Commands that texts name, with the config that the running command was given, so that they act on
the same portfolio when they are typed as shown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from agent.fleet.configs import DEFAULT_CONFIG

_HINT = re.compile(r"\btrimtab ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(?![\w'’-])")
_OWN_CONFIG = re.compile(r"(?:(?!trimtab )[^;`\n])*? (?:--config|-c|--help)\b")
"""A config, or help, that the rest of a hint names, up to the next hint or its end."""


@dataclass(slots=True)
class RunningCommand:
    """Config of the command that this process runs, None for the default one or several, and the
    commands that take `--config`, those of groups such as "orders arm" among them.
    """

    config: Path | None = None
    config_commands: Set[str] = frozenset()


running_command = RunningCommand()


def completed_hints(text: str) -> str:
    """Return the text with the config of the running command in each hint."""
    config = running_command.config
    if config is None or config == DEFAULT_CONFIG or "trimtab " not in text:
        return text
    return with_config(text, config, running_command.config_commands)


def with_config(text: str, config: Path, config_commands: Set[str]) -> str:
    """Return the text with ` --config PATH` behind each command `trimtab …` of `config_commands`
    that names no config.
    """

    def complete(hint: re.Match[str]) -> str:
        command_words = f"{hint[1]} {hint[2]}"
        if command_words not in config_commands:
            command_words = hint[1]
        if command_words not in config_commands or _OWN_CONFIG.match(text, hint.end()):
            return hint[0]
        command_end = len("trimtab ") + len(command_words)
        return f"{hint[0][:command_end]} --config {shlex.quote(str(config))}{hint[0][command_end:]}"

    return _HINT.sub(complete, text)
