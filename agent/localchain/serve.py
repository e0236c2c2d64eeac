"""Serve the embedded chain on anvil until stopped: `trimtab localchain`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from agent.errors import Retryable
from agent.files import replace_file
from agent.localchain.chain import LocalChain
from agent.localchain.market import MarketMoveServer

HEARTBEAT_S = 10
"""Interval of blocks on an idle chain: agents refuse to act on an old head. Paused while automine
is off.
"""


def serve(
    port: int,
    write_config: Path | None = None,
    on_ready: Callable[[LocalChain], None] | None = None,
) -> None:
    """Start anvil on `port`, deploy the world, write its trimtab.toml, then run until SIGINT or
    SIGTERM.

    The file is written atomically, once everything is ready. Raises ConfigError when the port is
    taken. Call from the main thread.
    """
    from agent.localchain import open_anvil

    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()
        # During deployment too, exit through the contexts, which end anvil.
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_anvil(port) as chain, MarketMoveServer(port) as door:
            if write_config is not None:
                replace_file(write_config, chain.config_text().encode())  # it may hold secrets
            if on_ready is not None:
                on_ready(chain)
            while not stopped.is_set():
                door.wait(HEARTBEAT_S, chain)
                _beat(chain)
    except KeyboardInterrupt:
        if not stopped.is_set():
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _beat(chain: LocalChain) -> None:
    try:
        if time.time() - chain.now_s() >= HEARTBEAT_S and chain.transport.call(
            "anvil_getAutomine", []
        ):
            chain.mine()
    except OSError:
        raise Retryable(
            f"the chain at {chain.url} no longer answers; it was ended from outside",
            "start it again",
        ) from None
