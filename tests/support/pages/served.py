"""`trimtab serve` as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.cli.tools import Desk, first_document

SIGNING = "SIGNING"
PROGRAM = f"""
import atexit, sys
from agent.cli.main import main
watched = ("agent.signing", "agent.wiring", "agent.config", "agent.store", "agent.app.", "eth_", "keyring", "argon2", "pyotp")
atexit.register(lambda: print("{SIGNING}", [name for name in sys.modules if name.startswith(watched)], file=sys.stderr))
main()
"""
"""`trimtab`, which says at its end what it has loaded of all that signs."""


@contextlib.contextmanager
def dashboard(desk: Desk) -> Iterator[str]:
    """The address of `trimtab serve`; it loads no module that signs, and ends at once with exit code 0."""
    command = [sys.executable, "-c", PROGRAM, "serve", "--port", "0", "--json", "--config", str(desk.config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield first_document(process)["url"]
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=10)
        assert process.returncode == 0, output
        assert output == f"{SIGNING} []\n"
    finally:
        process.kill()
        process.communicate()
