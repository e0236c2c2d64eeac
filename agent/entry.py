"""The entry point of `trimtab`: Ctrl-C while the commands are still loading ends without a
traceback.
"""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 128 + 2


def main() -> None:
    """Load the command line and run it."""
    try:
        from agent.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: nothing was begun.\n")
        sys.exit(EXIT_INTERRUPTED)
    run()
