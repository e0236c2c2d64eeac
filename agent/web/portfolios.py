"""Several portfolios in one dashboard: a list of them, and for each its own pages, users, sessions,
tokens and event streams below /p/NAME. A portfolio that cannot be read does not affect the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from agent.errors import ConfigError, ErrorCode, Retryable, TrimtabError
from agent.figures import brief_reason, first_sentence, lead_reason, pause_exceptions, stop_text
from agent.model import PRICE_ALERTS, PortfolioIdentity
from agent.observe.health import RunHealth
from agent.web import app_modules
from agent.web.access import (
    PAGE_ERRORS,
    Access,
    AccessMiddleware,
    Receive,
    RefusedRequest,
    Scope,
    Send,
    content_policy,
    cookie_value,
)
from agent.web.api.gate import ApiError, problem_response
from agent.web.app import MIN_GZIP_BYTES, StaticFiles, build_unchecked_app
from agent.web.document_cache import DocumentCache
from agent.web.new_portfolios import NewPortfolioPages
from agent.web.pages import UNDONE_OUTCOMES, Renderer, newest_pnl, with_step_under_way
from agent.web.probes import documents_with_run, health_response, is_healthy
from agent.web.reach import Reach
from agent.web.reading import AppProcess, Documents
from agent.web.sessions import Session

if TYPE_CHECKING:
    from agent.ports.users import UsersPlace

PORTFOLIO_PREFIX = "/p/"
OPEN_RETRY_S = 10.0
"""Interval between two attempts to open a portfolio."""
OPEN_TIMEOUT_S = 60.0
"""Maximum time to open a portfolio."""
NEEDS_YOU_LABEL = "Needs you"
NOT_RUNNING_LABEL = "Not running"
NOT_READ_LABEL = "Not read"
PRICE_ALERT_PREFIXES = tuple(f"{kind.value}:" for kind in PRICE_ALERTS)
"""Beginnings of the keys of price alerts, which stay open until their level is set anew."""
EXACT_CONTEXT = Context(prec=200)
"""Context in which a sum of amounts loses no digit."""
MAX_SHOWN_PROBLEMS = 3
"""Number of problems of a portfolio that the list shows in full."""
HIDDEN_ERROR = "It cannot be read now. Log in to another portfolio to see why."


@dataclass(frozen=True, slots=True)
class PortfolioStartData:
    """Data of a portfolio, read before it is served: the places of store and users, names and roles
    of the users by id, the key that signs links, and its network and wallet.
    """

    store_path: Path
    users_place: UsersPlace
    users: Mapping[int, tuple[str, bool]]
    link_key: bytes
    identity: PortfolioIdentity


async def read_portfolio(config: Path, process: AppProcess) -> PortfolioStartData:
    """Read the data that serving a portfolio needs. Raises the error if config, store or users
    cannot be read.
    """
    store_path = await process.call(app_modules.dashboard.require_store, str(config))
    users_place = await process.call(app_modules.users.users_place, str(config))
    users = await process.call(app_modules.users.known_users, users_place)
    link_key = b""  # links lead to the login, which needs users
    if users:
        link_key = await process.call(app_modules.queue.link_key, str(config))
    identity = await process.call(app_modules.shown.portfolio_identity, str(config))
    return PortfolioStartData(Path(store_path), users_place, users, link_key, identity)


def require_users(users: Mapping[int, object], host: str, *, is_exposed: bool) -> None:
    """Raise ConfigError if other machines would reach a portfolio without a login."""
    if is_exposed and not users:
        raise ConfigError(
            f"--host {host}: there are no users, so there would be no login",
            "add one first: trimtab user add NAME",
        )


@dataclass(frozen=True, slots=True)
class OpenedPortfolio:
    """The parts that serve a portfolio, and its network and wallet."""

    cache: DocumentCache
    access: Access
    identity: PortfolioIdentity
    app: FastAPI
    checked_app: AccessMiddleware


@dataclass(frozen=True, slots=True)
class SharedSettings:
    """Settings that all portfolios share: `is_exposed` if other machines reach the dashboard,
    `is_stopping` once it is to stop; and in `portfolio_by_store` the first portfolio opened with
    each store.
    """

    host: str
    is_exposed: bool
    is_stopping: Callable[[], bool]
    portfolio_by_store: dict[Path, ServedPortfolio] = field(default_factory=dict)


class ServedPortfolio:
    """One of several portfolios. Until it can be read, `opened_parts` is None and `error` the
    reason.
    """

    def __init__(self, name: str, config: Path, reach: Reach) -> None:
        self.name = name
        self.config = config
        self.reach = reach
        self.opened_parts: OpenedPortfolio | None = None
        self.error: TrimtabError | None = None
        self._reading_process = AppProcess()

    async def read(self, shared_settings: SharedSettings) -> PortfolioStartData | None:
        """Read the data of the portfolio; return None, and set `error`, if they cannot be read."""
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                portfolio_start = await read_portfolio(self.config, self._reading_process)
            require_users(
                portfolio_start.users, shared_settings.host, is_exposed=shared_settings.is_exposed
            )
        except TimeoutError:
            self.error = Retryable(
                f"reading takes longer than {OPEN_TIMEOUT_S:g} s", "wait for a retry"
            )
            return None
        except TrimtabError as error:
            self.error = error
            return None
        return portfolio_start

    def begin_serving(
        self, portfolio_start: PortfolioStartData | None, shared_settings: SharedSettings
    ) -> None:
        """Serve the portfolio from now on, unless it could not be read or another portfolio has the
        same store.
        """
        if portfolio_start is None:
            return
        if (
            shared_settings.portfolio_by_store.setdefault(
                portfolio_start.store_path.resolve(), self
            )
            is not self
        ):
            owner_name = shared_settings.portfolio_by_store[
                portfolio_start.store_path.resolve()
            ].name
            self.error = ConfigError(
                f"store: {portfolio_start.store_path} is that of {owner_name}",
                "give each config a store of its own",
            )
            return
        access = Access(
            self.reach,
            portfolio_start.users_place,
            users=portfolio_start.users,
            link_key=portfolio_start.link_key,
        )
        cache = DocumentCache(str(self.config), portfolio_start.store_path, self._reading_process)
        self.serve(cache, access, portfolio_start.identity, shared_settings.is_stopping)

    def serve(
        self,
        cache: DocumentCache,
        access: Access,
        identity: PortfolioIdentity,
        is_stopping: Callable[[], bool],
    ) -> None:
        """Serve the portfolio from this cache."""
        app = build_unchecked_app(cache, is_stopping, access)
        self.opened_parts = OpenedPortfolio(
            cache, access, identity, app, AccessMiddleware(app, access)
        )
        self.error = None

    def close(self) -> None:
        """End the reading process."""
        self._reading_process.stop()

    async def answer(
        self, opened_portfolio: OpenedPortfolio, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request below the portfolio's prefix, as its own dashboard would answer it."""
        prefix = self.reach.prefix

        async def send_with_prefix(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (header_name, _with_prefix(header_name, header_value, prefix))
                    for header_name, header_value in message["headers"]
                ]
            await send(message)

        inner_scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        inner_scope.pop("raw_path", None)
        await opened_portfolio.checked_app(inner_scope, receive, send_with_prefix)


def _with_prefix(header_name: bytes, header_value: bytes, prefix: str) -> bytes:
    """Return the value of a header, with the prefix put before any address in it."""
    if header_name.lower() in (b"location", b"hx-redirect") and header_value.startswith(b"/"):
        return prefix.encode() + header_value
    if header_name.lower() == b"link" and header_value.startswith(b"</"):
        return b"<" + prefix.encode() + header_value[1:]
    return header_value


class PortfoliosApp:
    """ASGI application of several portfolios and their list. With the `folder` of their configs,
    users who may control one add further portfolios.
    """

    def __init__(
        self,
        portfolios: Sequence[ServedPortfolio],
        reach: Reach,
        shared_settings: SharedSettings,
        folder: Path | None = None,
    ) -> None:
        self._portfolios = list(portfolios)
        self._reach = reach
        self._shared_settings = shared_settings
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._new_portfolios = None
        if folder is not None:
            self._new_portfolios = NewPortfolioPages(folder, self._slugs, self._serve_new)
        self._salt = secrets.token_hex(8)
        self._renderer = Renderer(reach)
        app = FastAPI(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            lifespan=self._lifespan,
            exception_handlers=PAGE_ERRORS,
            redirect_slashes=False,
            routes=[
                Route("/", self._show_list, methods=["GET"]),
                Route("/static/{name:path}", StaticFiles().answer, methods=["GET"]),
                Route("/health", partial(self._health, ready=False), methods=["GET"]),
                Route("/ready", partial(self._health, ready=True), methods=["GET"]),
                Route("/metrics", _no_metrics, methods=["GET"]),
                Route(PORTFOLIO_PREFIX + "{rest:path}", self._answer_unserved, methods=["GET"]),
            ],
        )
        app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES)
        self._list_pages = AccessMiddleware(app, Access(reach))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to its portfolio, or to the pages of the list."""
        path = scope.get("path", "")
        for portfolio in self._portfolios:
            if portfolio.opened_parts is not None and path.startswith(portfolio.reach.prefix + "/"):
                await portfolio.answer(portfolio.opened_parts, scope, receive, send)
                return
        await self._list_pages(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        async with self._stack as stack:
            if self._new_portfolios is not None:
                stack.callback(self._new_portfolios.close)
            for portfolio in self._portfolios:
                stack.callback(portfolio.close)
                if portfolio.opened_parts is not None:
                    await self._start_pages(portfolio.opened_parts, portfolio.config)
                else:
                    self._tasks.append(asyncio.create_task(self._open_later(portfolio)))
            yield
            for task in self._tasks:
                task.cancel()

    async def _open_later(self, portfolio: ServedPortfolio) -> None:
        while portfolio.opened_parts is None:
            await asyncio.sleep(OPEN_RETRY_S)
            portfolio.begin_serving(
                await portfolio.read(self._shared_settings), self._shared_settings
            )
        await self._start_pages(portfolio.opened_parts, portfolio.config)

    async def _start_pages(self, opened_portfolio: OpenedPortfolio, config: Path) -> None:
        app = opened_portfolio.app
        if self._new_portfolios is not None:
            self._new_portfolios.add_to(app, opened_portfolio.access, config)
        await self._stack.enter_async_context(app.router.lifespan_context(app))

    def _slugs(self) -> list[str]:
        return [
            portfolio.reach.prefix.removeprefix(PORTFOLIO_PREFIX) for portfolio in self._portfolios
        ]

    def _serve_new(self, config: Path) -> None:
        """Serve the portfolio of a new config, whose name is its slug, once it has a store."""
        [portfolio] = create_portfolios([config], [(config.stem, config.stem)], self._reach)
        portfolio.error = ConfigError(
            "store: it does not exist yet", f"create it with trimtab trust --config {config}"
        )
        self._portfolios.append(portfolio)
        self._stack.callback(portfolio.close)
        self._tasks.append(asyncio.create_task(self._open_later(portfolio)))

    async def _answer_unserved(self, request: Request) -> Response:
        """Answer a request below /p/ that no open portfolio serves."""
        for portfolio in self._portfolios:
            if (
                request.scope["path"] == portfolio.reach.prefix
                and portfolio.opened_parts is not None
            ):
                return RedirectResponse(portfolio.reach.prefix + "/", 303)
            if f"{request.scope['path']}/".startswith(portfolio.reach.prefix + "/"):
                raise RefusedRequest(503, "503: not open; the list of portfolios says why\n")
        raise RefusedRequest(404, "404: no such portfolio\n")

    async def _health(self, _: Request, *, ready: bool) -> Response:
        """Answer whether the runs of all portfolios are healthy, or can trade now."""
        are_healthy = await asyncio.gather(
            *(_is_healthy(portfolio.opened_parts, ready=ready) for portfolio in self._portfolios)
        )
        return health_response({"ok": all(are_healthy)})

    async def _show_list(self, request: Request) -> Response:
        """Answer with the list, or with status 204 if the page already shows it."""
        is_background_request = "hx-request" in request.headers
        sessions = [
            _find_session(portfolio, request, touch=not is_background_request)
            for portfolio in self._portfolios
        ]
        is_open_to_all = not any(
            portfolio.opened_parts and portfolio.opened_parts.access.login_required
            for portfolio in self._portfolios
        )
        list_rows: list[dict[str, Any]] = []
        documents_by_row: list[Documents] = []
        for index, (portfolio, session) in enumerate(zip(self._portfolios, sessions, strict=True)):
            row: dict[str, Any] = {
                "id": index + 1,
                "name": portfolio.name,
                "prefix": portfolio.reach.prefix,
                "why": "",
            }
            row_documents: Documents = {}
            if portfolio.opened_parts is None:
                may_see_error = is_open_to_all or any(sessions)
                row |= {
                    "state": "failed",
                    "label": NOT_READ_LABEL,
                    "why": str(portfolio.error) if may_see_error else HIDDEN_ERROR,
                }
            elif portfolio.opened_parts.access.may_view(session):
                cache = portfolio.opened_parts.cache
                if not is_background_request:
                    _refresh(cache, session)
                row_documents = with_step_under_way(documents_with_run(cache))
                row |= {
                    "state": "open",
                    "network": portfolio.opened_parts.identity.network,
                    "wallet": portfolio.opened_parts.identity.wallet,
                    **_list_row(cache, row_documents, f"portfolios.{index}"),
                    "csrf": session.csrf if session is not None and not session.read_only else "",
                }
            else:
                row |= {"state": "locked", "label": "Locked"}
            list_rows.append(row)
            documents_by_row.append(row_documents)
        cache_versions = [
            portfolio.opened_parts.cache.version  # of shown rows only: others must not reveal their activity
            for portfolio, row in zip(self._portfolios, list_rows, strict=True)
            if portfolio.opened_parts is not None and row["state"] == "open"
        ]
        state_hash = hashlib.sha256(
            repr((self._salt, list_rows, cache_versions)).encode()
        ).hexdigest()[:16]
        if is_background_request and request.query_params.get("seen") == state_hash:
            return Response(None, 204)
        list_rows.sort(key=lambda row: row["label"] not in (NEEDS_YOU_LABEL, NOT_READ_LABEL))
        shown_documents = {
            "portfolios": documents_by_row,
            "sums": _sums_by_numeraire(documents_by_row, self._portfolios),
        }
        html = self._renderer.render_portfolios(
            list_rows, shown_documents, state_hash, may_add=self._new_portfolios is not None
        )
        headers = {"Content-Security-Policy": content_policy(allows_forms=not is_open_to_all)}
        return HTMLResponse(html, headers=headers)


async def _no_metrics(_: Request) -> Response:
    """Answer that each portfolio has its own metrics."""
    return problem_response(
        ApiError(
            404,
            ErrorCode.UNKNOWN,
            "several portfolios are served, each with its own metrics",
            "read /p/NAME/metrics; the list at / links to each /p/NAME",
        )
    )


async def _is_healthy(opened_portfolio: OpenedPortfolio | None, *, ready: bool) -> bool:
    """Return whether the run of a portfolio is healthy, or can trade now; False if unknown."""
    return opened_portfolio is not None and await is_healthy(opened_portfolio.cache, ready=ready)


def _find_session(portfolio: ServedPortfolio, request: Request, *, touch: bool) -> Session | None:
    """Return the request's session of this portfolio, if any."""
    if portfolio.opened_parts is None:
        return None
    return portfolio.opened_parts.access.find_session(
        cookie_value(request, portfolio.reach.cookie_name), touch=touch
    )


def _refresh(cache: DocumentCache, session: Session | None) -> None:
    """Read missing or old documents, and the queue of controls for a logged-in user."""
    cache.read_if_old(app_modules.dashboard.live_documents, app_modules.dashboard.stored_documents)
    if session is not None:
        cache.follow(app_modules.queue.dashboard_controls)


def _profit_paths(documents: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the paths of value and profit of one moment, that of the status if it is read; empty
    before the first valuation, and that of the day at midnight, when the day has one valuation.
    `yearless` has the reason of each figure a year that is unknown.
    """
    pnl_path, pnl = newest_pnl(documents)
    if not pnl.get("all", {}).get("periods"):
        return {}
    period = pnl["all"]["periods"][0]
    is_short = period["costs_year_bps"] is None
    return {
        "yearless": {
            name: "needs 30 days with value" if is_short else "no such rate exists"
            for name in ("mwr_year_bps", "costs_year_bps")
            if period[name] is None
        },
        "value": f"{path}.{pnl_path}.all.value",
        "numeraire": pnl["all"]["numeraire"],
        "until": f"{path}.{pnl_path}.all.until",
        "whole": f"{path}.{pnl_path}.all.periods.0",
        "day": f"{path}.{pnl_path}.day.periods.0" if pnl["day"]["periods"] else "",
    }


def _sums_by_numeraire(
    documents_by_row: Sequence[Documents], portfolios: Sequence[ServedPortfolio]
) -> list[dict[str, Any]]:
    """Return, for each numeraire and apart for its coins of local chains, which are worth nothing,
    the number of portfolios whose value is known, the sums of value, profit and profit today, None
    if one is unknown, and the time of the oldest value.
    """
    sum_by_coin: dict[str, dict[str, Any]] = {}
    for row_documents, portfolio in zip(documents_by_row, portfolios, strict=True):
        _, pnl = newest_pnl(row_documents)
        if portfolio.opened_parts is None or not pnl.get("all", {}).get("periods"):
            continue
        all_time_pnl = pnl["all"]
        amount_by_figure = {
            "value": all_time_pnl["value"],
            "profit": all_time_pnl["periods"][0]["profit"],
            "day": next((period["profit"] for period in pnl["day"]["periods"]), None),
        }
        coin_suffix = " of local chains" if portfolio.opened_parts.identity.is_local else ""
        numeraire_sum = sum_by_coin.setdefault(
            all_time_pnl["numeraire"] + coin_suffix,
            {"count": 0, "oldest": all_time_pnl["until"], **dict.fromkeys(amount_by_figure, "0")},
        )
        numeraire_sum["count"] += 1
        numeraire_sum["oldest"] = min(numeraire_sum["oldest"], all_time_pnl["until"])
        for figure_name, amount in amount_by_figure.items():
            is_known = None not in (amount, numeraire_sum[figure_name])
            numeraire_sum[figure_name] = (
                f"{EXACT_CONTEXT.add(Decimal(numeraire_sum[figure_name]), Decimal(amount)):f}"
                if is_known
                else None
            )
    return [
        {"numeraire": numeraire, **numeraire_sum}
        for numeraire, numeraire_sum in sum_by_coin.items()
    ]


def _list_row(cache: DocumentCache, documents: Documents, path: str) -> dict[str, Any]:
    """Return a portfolio's row of the list: the document paths of its figures, those of its paper
    books and whether a paper run goes on, its state, and its marks and problems.
    """
    status = _readable_document(documents, "status")
    history = _readable_document(documents, "history")
    alerts = _readable_document(documents, "alerts")
    pause = documents.get("pause", status)
    stop = pause.get("stop")
    row: dict[str, Any] = {
        **dict.fromkeys(("value", "whole", "decision", "last"), ""),
        "stop": stop,
        "weights": [],
        "marks": [],
        "label": "Reading",
        "paused": False,
    }
    if status:
        row |= {
            "value": f"{path}.status.total_value",
            "numeraire": status["numeraire"],
            "decision": f"{path}.status.decision",
            "weights": [
                (holding["symbol"], f"{path}.status.holdings.{index}.weight_bps")
                for index, holding in enumerate(status["holdings"])
            ],
            "label": NOT_RUNNING_LABEL,
        }
    if pause.get("paused", False) is not False:
        hardness_text = " (hard)" if pause["pause_hard"] else ""
        mark = f"Paused{hardness_text}: {pause['pause_reason']}".removesuffix(": ")
        row |= {"label": "Paused", "paused": True, "marks": [mark + pause_exceptions(pause)]}
    row |= _profit_paths(documents, path)
    row["paper"] = _profit_paths(_readable_document(documents, "paper"), f"{path}.paper")
    row["paper_served"] = _readable_document(documents, "paper_run").get("served")
    if stop:
        row |= {"label": "Stopped", "marks": [*row["marks"], f"{stop_text(stop)}."]}
    row["waiting"] = not stop and bool(_readable_document(documents, "controls").get("waiting"))
    if row["waiting"]:
        row["marks"].append("a plan waits for a confirmation")
    if history.get("steps"):
        row["last"] = f"{path}.history.steps.0"
    health = cache.run_health()
    if health is not None and health.state == "stopped":
        row["marks"].append(f"run {health.reasons[0]}")
    elif health is not None and health.state == "none":
        row["marks"].append(health.reasons[0])
    if row["label"] == NOT_RUNNING_LABEL and (health is None or health.state == "running"):
        row["label"] = "Unknown" if health is None else "Running"
    if _is_dry_run(cache, health):
        row["marks"].append("dry run: sends nothing")
    inaction_reasons = [] if stop and stop["done"] else list(_inaction_reasons(status, history))
    problems = [
        *_unread_reasons(cache),
        *_run_problems(cache, health, inaction_reasons),
        *inaction_reasons,
    ]
    for alert in alerts.get("open", ()):
        is_price_alert = alert["key"].startswith(
            PRICE_ALERT_PREFIXES
        )  # news, which asks for nothing
        (row["marks"] if is_price_alert else problems).append(alert["text"])
    hidden_count = len(problems) - MAX_SHOWN_PROBLEMS
    row["problems"] = problems[:MAX_SHOWN_PROBLEMS] + (
        [f"{hidden_count} more"] if hidden_count > 0 else []
    )
    if problems or row["waiting"]:
        row["label"] = NEEDS_YOU_LABEL
    row["reads"] = not cache.read_s_by_function and not problems
    return row


def _is_dry_run(cache: DocumentCache, health: RunHealth | None) -> bool:
    """Return whether a run of the portfolio goes on and sends nothing."""
    report = cache.newest_report
    return health is not None and health.state == "running" and not (report and report.sends)


def _run_problems(
    cache: DocumentCache, health: RunHealth | None, inaction_reasons: Sequence[str]
) -> Iterator[str]:
    """Yield why the run is unhealthy, without the problem of its last cycle if an inaction reason
    has it, and unless it was stopped or never began.
    """
    if health is None or health.state in {"none", "stopped"} or cache.newest_report is None:
        return
    trouble = cache.newest_report.trouble
    brief_trouble = first_sentence(brief_reason(trouble))
    is_trouble_shown = any(brief_trouble in reason for reason in inaction_reasons)
    yield from (
        f"run: {lead_reason(reason)}"
        for reason in health.reasons
        if not (is_trouble_shown and reason == trouble)
    )


def _inaction_reasons(status: Mapping[str, Any], history: Mapping[str, Any]) -> Iterator[str]:
    """Yield why the agent does not act, each reason once: a halt, exits that cannot be sold, or a
    failed cycle.
    """
    decision = status.get("decision", {})
    is_halt = decision.get("kind") == "halt"
    if is_halt:
        yield f"halt: {lead_reason(decision['reason'])}"
    symbols_by_reason: dict[str, list[str]] = {}
    for blocked_exit in status.get("blocked_exits", ()):
        symbols_by_reason.setdefault(blocked_exit["why"], []).append(blocked_exit["symbol"])
    for reason, symbols in symbols_by_reason.items():
        yield f"{', '.join(symbols)}: {lead_reason(reason)}"
    for step in history.get("steps", ())[:1]:
        step_reason = step["reason"].removeprefix(f"{step['outcome']}: ")
        if step["outcome"] in UNDONE_OUTCOMES and not (
            is_halt and step_reason == decision["reason"]
        ):
            yield f"last cycle {step['outcome']}: {lead_reason(step_reason)}"


def _unread_reasons(cache: DocumentCache) -> Iterator[str]:
    """Yield each reason why documents could not be read, once; without the empty ledger of a
    portfolio that has run on paper only.
    """
    documents = cache.documents
    has_profit = "paper" not in documents or bool(
        _readable_document(documents, "history").get("steps")
    )
    failure_texts = {str(error): None for error in cache.read_errors.values()}
    if cache.report_error is not None:
        failure_texts[str(cache.report_error)] = None
    for name in ("status", "history", *(["pnl", "now"] if has_profit else []), "alerts"):
        if error := documents.get(name, {}).get("error"):
            failure_texts[str(error)] = None
    yield from (f"not read: {failure_text}" for failure_text in failure_texts)


def _readable_document(documents: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a document; empty if it is missing or could not be read."""
    document: Mapping[str, Any] = documents.get(name) or {}
    return {} if "error" in document else document


def create_portfolios(
    configs: Sequence[Path], names_and_slugs: Sequence[tuple[str, str]], reach: Reach
) -> list[ServedPortfolio]:
    """Return the portfolios of these configs, none of them open."""
    return [
        ServedPortfolio(
            name, config, replace(reach, prefix=PORTFOLIO_PREFIX + slug, portfolio=name)
        )
        for config, (name, slug) in zip(configs, names_and_slugs, strict=True)
    ]
