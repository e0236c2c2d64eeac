"""Serves the dashboard on this machine until stopped."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, Retryable, TrimtabError
from agent.web.reading import ReadingProcess

HOSTS = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
SHUTDOWN_S = 1
MISSING = "pip install 'trimtab[dashboard]'"


def serve_dashboard(config: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, and call `ready` with the address once it answers.

    Raises ConfigError for a host that is not loopback, a port in use, a config or a store that
    cannot be read, or if the extra is not installed.
    """
    if host not in HOSTS:
        raise ConfigError(
            f"--host {host}: the dashboard is served on this machine only",
            f"omit it; from another machine: ssh -L {port}:127.0.0.1:{port} USER@THIS_MACHINE",
        )
    try:
        import uvicorn

        from agent.web.app import build
        from agent.web.board import Board
    except ImportError as error:
        raise ConfigError(f"serve: {error.name} is not installed", MISSING) from None
    with _listening(host, port) as listener:
        store = _store_of(config)
        board = Board(str(config), store)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/"
        server = uvicorn.Server(
            uvicorn.Config(
                _announcing(build(board, lambda: server.should_exit), lambda: ready(address)),
                log_level="error",
                access_log=False,
                server_header=False,
                ws="none",
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
                lifespan="on",
            )
        )
        with _stoppable():
            server.run(sockets=[listener])


def _store_of(config: Path) -> Path:
    """Return the store's file. Raises the errors of a config or store that cannot be read."""
    process = ReadingProcess()
    try:
        return Path(process.submit("require_store", str(config)).result())
    except TrimtabError:
        raise
    except Exception as error:
        raise Retryable(f"the reading process ended: {type(error).__name__}", "try again") from None
    finally:
        process.stop()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(HOSTS[host], socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # connections wait from here on until they are served
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why, remedy = "is in use", "stop the other program, or choose another --port"
            else:
                why, remedy = f"cannot be opened ({error.strerror})", "choose another --port"
            raise ConfigError(f"--port {port}: {why}", remedy) from None
        yield listener


def _announcing(app: Any, ready: Callable[[], None]) -> Any:
    """Return the application, which calls `ready` once it has started."""

    async def announcing(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                ready()

        await app(scope, receive, told if scope["type"] == "lifespan" else send)

    return announcing


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again after it has stopped for them."""
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda _number, _frame: None) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
