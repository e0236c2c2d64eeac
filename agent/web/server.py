"""Serving of the dashboard until stopped: on this machine, or beyond it with a login and TLS."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent.errors import ConfigError, Retryable, TrimtabError
from agent.hosts import LOOPBACK_HOSTS
from agent.web.app_modules import paper_run
from agent.web.reach import (
    PublicOptions,
    Reach,
    public_url,
    reach_of,
    require_tls_access,
)
from agent.web.reading import AppProcess, ServingProcess
from agent.web.stopping import end_at_signal

if TYPE_CHECKING:
    from agent.web.connections import BoundedListener

NICENESS = 5
"""Priority of the dashboard: pages must not delay the cycles of an agent on the same machine."""
SHUTDOWN_TIMEOUT_S = 1
INSTALL_HINT = "pip install 'trimtab[dashboard]', or in the checkout: make setup"


@end_at_signal()
def serve_dashboard(
    config: Path,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    public_options: PublicOptions | None = None,
    banner: str = "",
    replay_path: Path | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, with the line `banner` on each page, by the times of the replay
    in `replay_path`, if any, and call `on_ready` with the address once it answers.

    Raises ConfigError for a host beyond loopback without users and TLS or a proxy, a port in use, a
    config or a store that cannot be read, or if the extra is not installed.
    """
    public_options = public_options or PublicOptions()
    require_tls_access(host, port, public_options)
    _require_packages()
    from agent.web.access import Access
    from agent.web.app import build_app
    from agent.web.document_cache import DocumentCache
    from agent.web.portfolios import read_portfolio, require_users

    with _listen(host, port) as listener, ExitStack() as cleanup:
        reading_process = AppProcess()
        cleanup.callback(reading_process.stop)
        portfolio_start = asyncio.run(read_portfolio(config, reading_process))
        require_users(portfolio_start.users, host, is_exposed=_is_exposed(host, public_options))
        reach = reach_of(host, listener.getsockname()[1], public_options)
        reach = replace(reach, banner=banner, replay_path=replay_path)
        access = Access(
            reach,
            portfolio_start.users_place,
            users=portfolio_start.users,
            link_key=portfolio_start.link_key,
        )
        cache = DocumentCache(str(config), portfolio_start.store_path, reading_process)
        _serve_app(
            lambda is_stopping: build_app(cache, is_stopping, access),
            listener,
            reach,
            on_ready,
            host,
            public_options,
        )


@end_at_signal()
def serve_portfolios(
    configs: Sequence[Path],
    host: str,
    port: int,
    on_ready: Callable[[str, list[dict[str, str]]], None],
    public_options: PublicOptions | None = None,
    folder: Path | None = None,
) -> None:
    """Serve several portfolios as `serve_dashboard` serves one; users may add further ones in the
    `folder` of their configs. Call `on_ready` with the address of the list, and name, address and
    error of each. Raises the error of the first one if none can be read.
    """
    public_options = public_options or PublicOptions()
    require_tls_access(host, port, public_options)
    _require_packages()
    from agent.fleet.configs import portfolio_names
    from agent.web.portfolios import (
        PortfoliosApp,
        SharedSettings,
        create_portfolios,
    )

    stop_checks: list[Callable[[], bool]] = []

    def is_stopping() -> bool:
        return bool(stop_checks) and stop_checks[0]()

    with _listen(host, port) as listener, ExitStack() as cleanup:
        reach = reach_of(host, listener.getsockname()[1], public_options)
        portfolios = create_portfolios(configs, portfolio_names(configs), reach)
        for portfolio in portfolios:
            cleanup.callback(portfolio.close)
        shared_settings = SharedSettings(host, _is_exposed(host, public_options), is_stopping)

        async def open_all() -> None:
            portfolio_starts = await asyncio.gather(
                *(portfolio.read(shared_settings) for portfolio in portfolios)
            )
            for portfolio, portfolio_start in zip(portfolios, portfolio_starts, strict=True):
                portfolio.begin_serving(portfolio_start, shared_settings)

        asyncio.run(open_all())
        errors = [portfolio.error for portfolio in portfolios]
        if errors[0] is not None and all(errors):
            raise errors[0].with_traceback(None)

        def announce(url: str) -> None:
            portfolio_rows = [
                {
                    "name": portfolio.name,
                    "url": f"{url.rstrip('/')}{portfolio.reach.prefix}/",
                    "error": "" if portfolio.error is None else str(portfolio.error),
                }
                for portfolio in portfolios
            ]
            on_ready(url, portfolio_rows)

        def build_portfolios_app(is_server_stopping: Callable[[], bool]) -> Any:
            stop_checks.append(is_server_stopping)
            return PortfoliosApp(portfolios, reach, shared_settings, folder)

        _serve_app(build_portfolios_app, listener, reach, announce, host, public_options)


@end_at_signal()
def serve_setup(
    config: Path,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    complete_hints: Callable[[str], str] = str,
) -> None:
    """Serve the guided set-up of a new config until SIGINT or SIGTERM, on this machine only, and the
    paper portfolio that it begins, or that an earlier set-up began. Call `on_ready` with the address
    that opens it once, and with each that replaces a used one; `complete_hints` lets the commands
    that its pages name act on the paper portfolio. Raises ConfigError for another host, if the
    config exists without a paper ledger, and if its folder does not.
    """
    if host not in LOOPBACK_HOSTS:
        raise ConfigError(f"--host {host}: --setup is for this machine alone", "omit it")
    _require_packages()
    if not config.absolute().parent.is_dir():
        raise ConfigError(f"--config {config}: its folder does not exist", "create it first")
    public_options = PublicOptions()
    with _listen(host, port) as listener, ExitStack() as cleanup:
        from agent.web.setup import SetupPages, setup_access

        continues = config.exists()
        if continues and not _has_paper_books(config):  # takes seconds
            raise ConfigError(
                f"{config}: exists already; nothing was changed",
                "omit --setup to serve it, or name another file with --config",
            )
        reach = reach_of(host, listener.getsockname()[1], public_options)
        reach = replace(reach, complete_hints=complete_hints)
        pages = SetupPages(setup_access(reach), config, continues=continues)
        cleanup.callback(pages.close)
        _serve_app(
            pages.application,
            listener,
            reach,
            partial(pages.show_address, on_ready),
            host,
            public_options,
        )


def _has_paper_books(config: Path) -> bool:
    """Return whether a config has a paper ledger."""
    process = AppProcess()
    try:
        process.submit(paper_run.paper_books, str(config)).result()
    except TrimtabError:
        return False
    finally:
        process.stop()
    return True


def _require_packages() -> None:
    try:
        for module_name in ("uvicorn", "agent.web.app"):
            import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"serve: {error.name} is not installed", INSTALL_HINT) from None


def _is_exposed(host: str, public_options: PublicOptions) -> bool:
    """Return whether other machines reach the dashboard."""
    return host not in LOOPBACK_HOSTS or public_options.proxy is not None


def _serve_app(
    build_app: Callable[[Callable[[], bool]], Any],
    listener: BoundedListener,
    reach: Reach,
    on_ready: Callable[[str], None],
    host: str,
    public_options: PublicOptions,
) -> None:
    import uvicorn

    from agent.web.connections import BoundedProtocol, raise_file_limit

    os.nice(NICENESS)
    raise_file_limit()
    listener.proxies = reach.proxies
    url = public_url(host, reach.port, public_options, reach.uses_tls)
    app = build_app(lambda: server.should_exit)
    server = uvicorn.Server(
        uvicorn.Config(
            _with_ready_call(app, lambda: on_ready(url)),
            loop="asyncio",
            http=cast(Any, partial(BoundedProtocol, listener)),
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            lifespan="on",
            ssl_certfile=public_options.tls_cert,
            ssl_keyfile=public_options.tls_key,
        )
    )
    with _ignoring_signals(), _ending_quietly(lambda: server.should_exit):
        server.run(sockets=[listener])


@contextmanager
def _listen(host: str, port: int) -> Iterator[BoundedListener]:
    from agent.web.connections import BoundedListener

    try:
        family, socket_type, _, _, socket_address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise ConfigError(
            f"--host {host}: not an address of this machine", "omit it, for 127.0.0.1"
        ) from None
    with BoundedListener(family, socket_type) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(socket_address)
            listener.listen()  # connections queue from here on until the server accepts them
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                problem = "is in use"
                remedy = "stop the other program, or choose another --port"
            else:
                problem = f"cannot be opened ({error.strerror})"
                remedy = "choose another --port"
            raise ConfigError(f"--port {port}: {problem}", remedy) from None
        yield listener


def _with_ready_call(app: Any, on_ready: Callable[[], None]) -> Any:
    """Return the application, wrapped to call `on_ready` once it has started."""

    async def announcing_app(scope: Any, receive: Any, send: Any) -> None:
        async def send_and_announce(message: Any) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                on_ready()

        await app(scope, receive, send_and_announce if scope["type"] == "lifespan" else send)

    return announcing_app


@contextmanager
def _ending_quietly(is_stopping: Callable[[], bool]) -> Iterator[None]:
    """Keep uvicorn from logging the answers that a stop cancels."""

    def is_logged(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not is_stopping() or not isinstance(error, asyncio.CancelledError | None)

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(is_logged)
    try:
        yield
    finally:
        logger.removeFilter(is_logged)


@contextmanager
def _ignoring_signals() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again after it has stopped for them."""
    signals = (signal.SIGINT, signal.SIGTERM)
    old_handlers = {
        signal_number: signal.signal(signal_number, lambda _number, _frame: None)
        for signal_number in signals
    }
    try:
        yield
    finally:
        for signal_number, handler in old_handlers.items():
            signal.signal(signal_number, handler)


LOOPBACK_HOST = "127.0.0.1"


def require_servable(port: int) -> None:
    """Raise ConfigError if the extra is not installed, or the port is in use."""
    for module_name in ("fastapi", "uvicorn", "jinja2", "prometheus_client"):
        if find_spec(module_name) is None:
            raise ConfigError(f"serve: {module_name} is not installed", INSTALL_HINT)
    with _listen(LOOPBACK_HOST, port):
        pass


class DashboardProcess(ServingProcess):
    """Serves on loopback from its start until it is stopped, or until this process ends."""

    def __init__(
        self, config: Path, port: int, banner: str = "", replay_path: Path | None = None
    ) -> None:
        """Return once it answers. Raises the errors of `serve_dashboard`."""
        super().__init__(_serve_on_loopback, config, port, banner, replay_path)
        self.address = self.wait()

    def require_alive(self) -> None:
        """Raise Retryable if it has ended."""
        if not self.is_alive:
            raise Retryable("the dashboard has ended", "start it again")


def _serve_on_loopback(
    on_ready: Callable[[str], None], config: Path, port: int, banner: str, replay_path: Path | None
) -> None:
    serve_dashboard(config, LOOPBACK_HOST, port, on_ready, banner=banner, replay_path=replay_path)
