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
_OWN_OPTION = r"(?:(?!trimtab )[^;`\n])*? (?:{}|--help)\b"
"""An option, or help, that the rest of a hint names, up to the next hint or its end."""


@dataclass(slots=True)
class RunningCommand:
    """Config of the command that this process runs, None for the default one or several, and whether it
    shows the paper portfolio; the commands that take `--config`, those of groups such as "orders arm"
    among them, and those that take `--paper`.
    """

    config: Path | None = None
    on_paper: bool = False
    config_commands: Set[str] = frozenset()
    paper_commands: Set[str] = frozenset()


running_command = RunningCommand()


def completed_hints(text: str, command: RunningCommand | None = None) -> str:
    """Return the text with config and portfolio of a command, by default of the running one, in each
    hint.
    """
    command = command or running_command
    if "trimtab " not in text:
        return text
    if command.on_paper:
        text = _with_option(text, "--paper", "--paper", command.paper_commands)
    config = command.config
    if config is None or config == DEFAULT_CONFIG:
        return text
    return with_config(text, config, command.config_commands)


def with_config(text: str, config: Path, config_commands: Set[str]) -> str:
    """Return the text with ` --config PATH` behind each command `trimtab …` of `config_commands`
    that names no config.
    """
    return _with_option(
        text, f"--config {shlex.quote(str(config))}", "--config|-c", config_commands
    )


def _with_option(text: str, option_text: str, names: str, commands: Set[str]) -> str:
    """Return the text with an option behind each of these commands that has none of these names."""
    own_option = re.compile(_OWN_OPTION.format(names))

    def complete(hint: re.Match[str]) -> str:
        command_words = f"{hint[1]} {hint[2]}"
        if command_words not in commands:
            command_words = hint[1]
        if command_words not in commands or own_option.match(text, hint.end()):
            return hint[0]
        command_end = len("trimtab ") + len(command_words)
        return f"{hint[0][:command_end]} {option_text}{hint[0][command_end:]}"

    return _HINT.sub(complete, text)
