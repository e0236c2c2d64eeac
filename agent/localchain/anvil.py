"""Starts anvil on a port and makes sure that it ends with the process that started it."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.artifacts import anvil_binary
from agent.errors import ConfigError, Retryable
from agent.localchain.accounts import TEST_MNEMONIC
from agent.localchain.nodes import BLOCK_GAS, OTHERS_WEI

CHAIN_ID = 31337
READY_WITHIN_S = 30
STATES_KEPT = 512
"""Blocks whose state can still be read. Without a number anvil writes older ones, megabytes each, to the home folder for ever."""
# The shell holds anvil and waits for the end of our pipe, which comes even when this process is killed outright.
_KEEPER = '"$0" "$@" </dev/null & child=$!; exec >/dev/null 2>&1; trap "" INT HUP; cat; kill -KILL $child; wait $child'


def free_port() -> int:
    """A TCP port of this machine that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_anvil(port: int | None = None, flags: Sequence[str] = (), genesis_s: int | None = None) -> Iterator[str]:
    """A running anvil with the test accounts; yields its URL. `flags` are passed on (such as --fork-url URL).

    Ends with the context, and with this process however that ends. Raises ConfigError when the port is taken or a
    flag is wrong, Retryable when it does not answer in time.
    """
    chosen = free_port() if port is None else port
    url = f"http://127.0.0.1:{chosen}"
    # A genesis date that no other anvil shares tells ours from one that already listens on this port.
    born_s = (int(time.time()) if genesis_s is None else genesis_s) - random.randrange(600)
    forks = "--fork-url" in flags
    command = [str(anvil_binary()), "--port", str(chosen), "--silent", "--mnemonic", TEST_MNEMONIC]
    command += ["--gas-limit", str(BLOCK_GAS), "--balance", str(OTHERS_WEI // 10**18), "--prune-history", str(STATES_KEPT)]
    command += [*flags] if forks else ["--chain-id", str(CHAIN_ID), "--timestamp", str(born_s), *flags]
    shell = shutil.which("sh") or "/bin/sh"
    keeper = subprocess.Popen(  # noqa: S603 our own program and arguments
        [shell, "-c", _KEEPER, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _await_ready(keeper, url, None if forks else born_s)
        yield url
    finally:
        for pipe in (keeper.stdin, keeper.stdout):
            if pipe is not None:
                pipe.close()
        keeper.wait(timeout=10)


def _await_ready(keeper: subprocess.Popen[str], url: str, born_s: int | None) -> None:
    import selectors

    end = time.monotonic() + READY_WITHIN_S
    with selectors.DefaultSelector() as watch:
        assert keeper.stdout is not None  # noqa: S101 it was opened as a pipe
        watch.register(keeper.stdout, selectors.EVENT_READ)
        while time.monotonic() < end:
            # With --silent anvil writes nothing unless it ends with an error.
            if watch.select(timeout=0.02):
                said = keeper.stdout.read().strip()
                raise ConfigError(f"anvil did not start on {url}: {said[-500:] or 'no message'}", "is the port taken? choose another one")
            block = _genesis(url)
            if block is not None and (born_s is None or block == born_s):
                return
    raise Retryable(f"anvil at {url} did not answer within {READY_WITHIN_S} s")


def _genesis(url: str) -> int | None:
    """Timestamp of block 0; None while nothing answers."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": ["0x0", False]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 always http on loopback
    try:
        with urllib.request.urlopen(request, timeout=1) as response:  # noqa: S310 as above
            return int(json.load(response)["result"]["timestamp"], 16)
    except (OSError, urllib.error.URLError, ValueError, KeyError, TypeError):
        return None
