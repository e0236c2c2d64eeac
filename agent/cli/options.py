"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The config file.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; messages go to stderr.")]
Send = Annotated[bool, typer.Option("--send", help="Sign and send. Without it nothing leaves this machine.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation (for machines).")]
DEFAULT_CONFIG = Path("trimtab.toml")
