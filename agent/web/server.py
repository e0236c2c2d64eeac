"""Serves the dashboard until stopped: on this machine, or beyond it with a login and TLS."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, Retryable, TrimtabError
from agent.web.reach import LOOPBACK, PublicOptions, public_address, reach_of, require_protected
from agent.web.reading import ReadingProcess, end_with_parent

SHUTDOWN_S = 1
MISSING = "pip install 'trimtab[dashboard]', or in the checkout: make setup"


def serve_dashboard(
    config: Path,
    host: str,
    port: int,
    ready: Callable[[str], None],
    public: PublicOptions | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, and call `ready` with the address once it answers.

    Raises ConfigError for a host beyond loopback without users and TLS or a proxy, a port in use, a
    config or a store that cannot be read, or if the extra is not installed.
    """
    public = public or PublicOptions()
    require_protected(host, port, public)
    try:
        import uvicorn

        from agent.web.access import Access
        from agent.web.app import build
        from agent.web.board import Board
    except ImportError as error:
        raise ConfigError(f"serve: {error.name} is not installed", MISSING) from None
    with _listening(host, port) as listener, ExitStack() as ended:
        process = ReadingProcess()
        ended.callback(process.stop)
        store, users_file, users, link_key = _read_at_start(config, process)
        if not users and (host not in LOOPBACK or public.proxy):
            raise ConfigError(
                f"--host {host}: there are no users, so there would be no login",
                "add one first: trimtab user add NAME",
            )
        port = listener.getsockname()[1]
        reach = reach_of(host, port, public)
        access = Access(reach, users_file)
        access.set_users(users)
        access.link_key = link_key
        board = Board(str(config), store, process)
        address = public_address(host, port, public, reach.secure)
        server = uvicorn.Server(
            uvicorn.Config(
                _announcing(
                    build(board, lambda: server.should_exit, access), lambda: ready(address)
                ),
                log_level="error",
                access_log=False,
                server_header=False,
                ws="none",
                proxy_headers=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
                lifespan="on",
                ssl_certfile=public.tls_cert,
                ssl_keyfile=public.tls_key,
            )
        )
        with _stoppable():
            server.run(sockets=[listener])


def _read_at_start(
    config: Path, process: ReadingProcess
) -> tuple[Path, Path, dict[int, tuple[str, bool]], bytes]:
    """Return the store's file, that of the users, the users, and the key of signed links. Raises the
    errors of a config, a store or users that cannot be read.
    """
    try:
        store = process.submit("require_store", str(config)).result()
        users_file = process.submit("settings.users.users_file", str(config)).result()
        users = process.submit("settings.users.known_users", users_file).result()
        link_key = b""  # without users there is no login to lead to
        if users:
            link_key = process.submit("controls.queue.link_key", str(config)).result()
        return Path(store), Path(users_file), users, link_key
    except TrimtabError:
        raise
    except Exception as error:
        raise Retryable(f"the reading process ended: {type(error).__name__}", "try again") from None


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(
            f"--host {host}: not an address of this machine", "omit it, for 127.0.0.1"
        ) from None
    with socket.socket(family, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
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


# --- The dashboard in a process of its own, beside one that has a key.


HOST = "127.0.0.1"
STOP_WITHIN_S = 10


def require_servable(port: int) -> None:
    """Raise ConfigError if the extra is not installed, or the port is in use."""
    for name in ("fastapi", "uvicorn", "jinja2"):
        if find_spec(name) is None:
            raise ConfigError(f"serve: {name} is not installed", MISSING)
    with _listening(HOST, port):
        pass


class DashboardProcess:
    """Serves on loopback from its start until it is stopped, or until this process ends."""

    def __init__(self, config: Path, port: int) -> None:
        """Return once it answers. Raises the errors of `serve_dashboard`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        self._process: SpawnProcess = context.Process(
            target=_serve_apart, args=(config, port, theirs)
        )
        self._process.start()
        theirs.close()
        try:
            found = ours.recv()
        except EOFError:
            found = Retryable("the dashboard ended before it answered", "try again")
        except BaseException:
            self.stop()
            raise
        if isinstance(found, TrimtabError):
            self.stop()
            raise found
        self.address: str = found

    def require_alive(self) -> None:
        """Raise Retryable if it has ended."""
        if not self._process.is_alive():
            raise Retryable("the dashboard has ended", "start it again")

    def stop(self) -> None:
        """End it, with its reading processes."""
        self._process.terminate()
        self._process.join(STOP_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve_apart(config: Path, port: int, answers: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    end_with_parent()
    try:
        serve_dashboard(config, HOST, port, answers.send)
    except TrimtabError as error:
        answers.send(error)
