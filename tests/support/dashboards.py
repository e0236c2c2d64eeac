"""A dashboard of given documents, served on this machine."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import uvicorn

from agent.errors import TrimtabError
from agent.figures import format_figure, reader_text
from agent.web.access import Access
from agent.web.app import build_app
from agent.web.connections import BoundedListener, BoundedProtocol
from agent.web.document_cache import CacheProcess, DocumentCache
from agent.web.pages import value_at
from agent.web.reading import AppProcess, DocumentRead, _call

GOLDEN = Path(__file__).parents[1] / "golden" / "json"
HOSTILE = "<img src=x onerror=alert(1)>"
PATIENCE_S = 90
"""A busy machine may take so long for what takes a second alone."""
MARKUP = "\"'></data><script>alert(1)</script>"


def golden_document(name: str) -> Any:
    """Return a golden document, with 1 in place of values that differ between runs."""
    return json.loads((GOLDEN / f"{name}.json").read_text().replace('"ANY"', '"1"'))["document"]


def documents() -> dict[str, Any]:
    """Return the documents of a portfolio whose token, reasons and terms are markup."""
    status = golden_document("25-status")
    history = golden_document("26-history")
    profit = golden_document("28-pnl")
    profit["periods"] = profit["periods"][-1:]
    status["holdings"][0]["symbol"] = HOSTILE
    status["decision"]["reason"] = status["trigger"]["text"] = MARKUP
    status["warnings"] = [MARKUP]
    history["steps"][0]["reason"] = MARKUP
    history["values"] = [
        {"time": f"2026-01-0{day} 00:00:00", "block": day, "value": "100.5", "weights_bps": {HOSTILE: 5_000, "B": 5_000}} for day in (2, 1)
    ]
    alerts = golden_document("09-alerts")
    alerts["open"] = [{"key": "a", "event": "b", "text": MARKUP, "since": None, "sent": None, "pending": False}]
    return {
        "status": status,
        "history": history,
        "pnl": dict.fromkeys(("day", "week", "month", "year", "all"), profit),
        "series": SERIES,
        "lots": LOTS,
        "alerts": alerts,
        "orders": golden_document("15-orders"),
        "plan": golden_document("04-plan"),
        "settings": SETTINGS,
        "reports": {"folder": HOSTILE, "skipped": [MARKUP], "reports": [REPORT]},
        "lp": {**golden_document("14-lp"), **LIQUIDITY},
        "strategies": STRATEGIES,
        **FUTURES,
    }


SERIES: dict[str, Any] = {
    "times_s": [1_700_000_000 + 86_400 * number for number in range(400)],
    "values": [f"{10_000 + number * 31.234567:.6f}" for number in range(400)],
    "hold_values": [f"{10_000 + number * 29.876543:.6f}" for number in range(400)],
    "rebalances": [7, 300],
}
"""As many points as a series has at most."""
ADDRESS = f"0x{7:040x}"
LOT = {"acquired": "2026-01-01T00:00:00Z", "amount": "2", "cost": "3", "entry_price": "1.5", "value": "1", "unrealised": "-2"}
LOTS: dict[str, Any] = {
    "method": "fifo", "currency": HOSTILE, "valued": "2026-01-01T00:00:00Z", "year": "2026", "realised": "1", "unpriced": [MARKUP],
    "assets": [{
        "symbol": HOSTILE, "address": ADDRESS, "amount": "42", "cost": "63", "entry_price": "1.5", "price": "0.5", "value": "21",
        "unrealised": "-42", "realised": "1", "unmatched": "5", "lots": [LOT] * 21,
    }],
    "gas_money": None,
    "not_final": 0,
}  # fmt: skip
"""More lots than the page shows, with markup as symbol and currency."""
LIQUIDITY: dict[str, Any] = {
    "block": 1, "block_hash": f"0x{1:064x}",
    "positions": [{
        "position": "uniswap_v3 #1", "venue": "uniswap_v3", "contract": ADDRESS, "token_id": "1", "tokens": [HOSTILE, "B"], "state": MARKUP,
        **{name: {HOSTILE: "1", "B": "2"} for name in ("entry_raw", "redeemable_raw", "fees_raw", "counted_raw")},
        "entry_block": 1, "value": "10", "hold_value": "11", "loss": "1", "loss_bps": "909.1", "fees": "0.1", "lvr_per_day": "0.01",
        "volatility_bps": 6_000, "horizon_s": 2_592_000, "expected_loss": "0.5", "pool_deviation_bps": "-3",
        "forecasts": [{"move_bps": -5_000, "moving": HOSTILE, "loss_bps": "572", "loss": "0.57"}],
    }],
    "targets": [{
        "pool": ADDRESS, "venue": "uniswap_v3", "tokens": [HOSTILE, "B"], "fee_pips": 500, "share_bps": 2_000, "width_bps": None,
        "compound_above": None, "value": None, "fees": None, "weight_bps": None, "out_of_range": [], "pool_deviation_bps": None,
        "due_reasons": [MARKUP], "skipped_reasons": [MARKUP],
    }],
    "unreadable": [MARKUP], "warnings": [MARKUP], "forgettable": ["uniswap_v3 #1"],
    "ignored": [{"position": "uniswap_v3 #2", "contract": ADDRESS, "token_id": "2", "tokens": [HOSTILE], "liquidity": "1"}],
}  # fmt: skip
"""Positions and targets with markup as tokens and reasons."""
STRATEGY: dict[str, Any] = {
    "state": "active", "since_s": 1, "state_reason": MARKUP, "capital": "60", "share_bps": 6_000, "target_share_bps": 5_000, "floor_bps": 0,
    "units": "1", "unit_value": "1.1", "return_bps": 1_000, "sharpe": None, "sharpe_window_s": None, "sharpe_crossed_s": None,
    "costs": "0.5", "last_rebalance_s": None, "acts": False, "reason": MARKUP,
    "holdings": [{"symbol": HOSTILE, "raw": "1", "amount": "0.1", "value": "60", "weight_bps": 10_000, "target_bps": 5_000}],
}  # fmt: skip
STRATEGIES: dict[str, Any] = {
    "block": 1, "numeraire": "B", "total_value": "120", "fault": MARKUP, "flows_to": "two",
    "split_band": {"absolute_bps": None, "relative_bps": 5_000}, "together": None, "sharpe_basis": "daily returns",
    "strategies": [{"name": HOSTILE, **STRATEGY}, {"name": "two", **STRATEGY}],
}  # fmt: skip
"""Strategies with markup as names, fault and reasons; the second gets deposits."""
REPORT: dict[str, Any] = {
    "name": "20261122-130000-tune.html", "kind": MARKUP, "title": HOSTILE, "created": "2026-11-22 13:00:00", "bytes": 9,
    "figures": [{"name": MARKUP, "value": HOSTILE}],
}  # fmt: skip
"""A report with markup in its texts."""
SETTINGS: dict[str, Any] = {
    "config_hash": "c0" * 32, "numeraire": "B", "trigger": MARKUP,
    "assets": [
        {"symbol": HOSTILE, "address": ADDRESS, "target_bps": 6_000, "band_bps": [5_400.0, 6_600.0], "reserve": "0", "orders": MARKUP},
        {"symbol": "B", "address": ADDRESS, "target_bps": 4_000, "band_bps": None, "reserve": "1.5", "orders": ""},
    ],
    "sections": [{"title": "Limits", "settings": [{"key": MARKUP, "about": MARKUP, "value": HOSTILE}], "editable": [MARKUP]}],
}  # fmt: skip
"""Settings with markup in symbols and texts."""
CONTROLS: dict[str, Any] = {
    "served": True, "queued": 1, "waiting": {"moves": [HOSTILE]},
    "controls": [{
        "id": f"{1:032x}", "kind": "withdraw", "arguments": [{"name": "to", "value": MARKUP}], "plan_hash": "ab" * 32,
        "requested_by": HOSTILE, "origin": "dashboard", "requested": "2026-01-01 00:00:00", "requested_s": 1, "expires_s": 2,
        "state": "refused", "code": "slippage", "reason": MARKUP, "result": [{"name": "code", "value": MARKUP}], "changed_s": 1,
    }],
}  # fmt: skip
"""Controls with markup as requester, arguments and reasons."""
DEVICES: dict[str, Any] = {
    "key": f"B{'A' * 86}", "devices": [{"id": "0123456789abcdef", "service": HOSTILE, "user": HOSTILE, "added": "2026-01-01 00:00:00"}],
}  # fmt: skip
"""Devices of web push with markup as service and user."""
TARGET: dict[str, Any] = {
    "name": "phone", "ready": False, "url_env": "TRIMTAB_PHONE", "events": ["error", "halt"], "delivered": None,
    "failed": "2026-01-01T00:00:00Z", "failures_in_row": 1, "why": MARKUP, "waiting": 1, "lost": 0,
}  # fmt: skip
"""An alert target without its variable, with markup as the reason of a failure."""
ACCOUNT: dict[str, Any] = {"block": 1, "account": ADDRESS, "unknown": MARKUP, "unit": "USD"}
AMOUNTS = dict.fromkeys(("pending", "today", "daily", "expected"), "1")
FUTURES: dict[str, Any] = {
    "positions": {**ACCOUNT, "positions": [{
        "market": ADDRESS, "symbol": HOSTILE, "side": "long", "size": "1", "size_raw": "1", "notional": "1", "entry": "1", "mark": "1",
        "index": "1", "index_age_s": 1, "unrealised": "-1", "funding_pending": "1", "liquidation_price": None, "liquidation_distance": None,
    }]},
    "margin": {
        **ACCOUNT, "plan": None, "no_plan": "", "blocked": MARKUP,
        "margin": {
            **dict.fromkeys(("collateral", "realised", "unrealised", "funding_pending", "value", "free", "initial"), "1"),
            **dict.fromkeys(("maintenance", "gross", "net", "target_leverage"), "1"), "target_note": MARKUP,
            **dict.fromkeys(("utilisation", "leverage", "spot_value")),
        },
        "limits": [{"limit": "max_leverage", "measured": MARKUP, "allowed": "4", "broken": True}],
    },
    "funding": {
        **ACCOUNT, **AMOUNTS, "numeraire": "USDC", "days": 30,
        "markets": [{"market": ADDRESS, "symbol": HOSTILE, "daily_rate": "0.0001", "notional": "1", **AMOUNTS}],
        "recorded": [{"day": "2026-01-01", "market": ADDRESS, "symbol": HOSTILE, "paid": "1", "daily_rate": "0.0001", "readings": 2}],
    },
}  # fmt: skip


def until(done: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


class StaticDocumentCache(DocumentCache):
    """A board with given documents that are never read again."""

    async def watch(self) -> None:
        await asyncio.Event().wait()

    def read_if_old(self, *functions: DocumentRead) -> None:
        """Do nothing: every document is present."""

    def refresh(self) -> None:
        """Do nothing: no document changes."""

    def follow(self, function: DocumentRead) -> None:
        """Do nothing: no document changes."""

    async def follow_pause(self) -> None:
        """Do nothing: the kill switch is that of the status."""


class InProcessDocumentCache(DocumentCache):
    """A board that reads in this process, where all modules are loaded."""

    async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(_call, function, self.config_path, *arguments)


class BusyDocumentCache(InProcessDocumentCache):
    """A board with documents, whose reads of the store and the chain take for ever: only controls are quick."""

    async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
        if process is not CacheProcess.CONTROLS:
            await asyncio.Event().wait()
        return await super().call(process, function, *arguments)


class InProcessAppProcess(AppProcess):
    """A reading process that runs in this one, where all modules are loaded."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(_call, function, *arguments)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(_call(function, *arguments))
        except TrimtabError as error:
            future.set_exception(error)
        return future


class _Figures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str, str]] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "data" and "data-of" in attributes:
            self.found.append((attributes["data-of"], attributes["data-form"], attributes["value"], ""))
            self.open = True

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found[-1] = (*self.found[-1][:3], self.found[-1][3] + data)

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag != "data"


def figures(html: str) -> list[tuple[str, str, str, str]]:
    """Return path, form, exact value and text of each figure of a page, with plain spaces before "%"."""
    reader = _Figures()
    reader.feed(html.replace("\u00a0%", " %"))
    return reader.found


def without_age(value: Any) -> str:
    """A text without what differs between two reads of the same block."""
    return re.sub(r"\d+ s\b", "", str(value))


class Served:
    """A dashboard on a port of this machine."""

    def __init__(self, access: Access | None = None, board: DocumentCache | None = None, port: int = 0, **more: Any) -> None:
        self.board = board or StaticDocumentCache("none.toml", Path("none.db"))
        if board is None:
            self.board.documents = documents()
        listener = BoundedListener(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a later server may have the port
        listener.bind(("127.0.0.1", port))
        listener.proxies = frozenset() if access is None else access.reach.proxies
        self.door = listener
        self.port = listener.getsockname()[1]
        self.access = access
        app = self.application(access)
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=cast(Any, partial(BoundedProtocol, listener)),
                log_level="error",
                proxy_headers=False,
                lifespan="on",
                timeout_graceful_shutdown=1,
                **more,
            )
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.server.serve([listener]),))
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the server did not start"
            time.sleep(0.01)

    def application(self, access: Access | None) -> Any:
        """Return the application to serve."""
        return build_app(self.board, lambda: self.server.should_exit, access)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body. The path is sent unchanged."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        link.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        sent = {"Host": f"localhost:{self.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body is not None:
            sent = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body)), **sent}
        for name, value in sent.items():
            link.putheader(name, value)
        link.endheaders(None if body is None else body.encode())
        answer = link.getresponse()
        headers_by_name = {name.lower(): value for name, value in answer.getheaders()}
        headers_by_name["set-cookie"] = "\n".join(value for name, value in answer.getheaders() if name.lower() == "set-cookie")
        text = answer.read()
        link.close()
        return answer.status, headers_by_name, text

    def figures(self, path: str, **headers: str) -> list[tuple[str, str, str, str]]:
        """Wait for figures on a page; return path, form, exact value and text of each."""
        figures_of_page: list[tuple[str, str, str, str]] = []
        until_s = time.monotonic() + PATIENCE_S
        while not figures_of_page and time.monotonic() < until_s:
            figures_of_page = figures(self.ask(path, **headers)[2].decode())
            time.sleep(0.05)
        return figures_of_page

    def compared(self, page: str, documents: Mapping[str, Any], **headers: str) -> set[str]:
        """Compare each figure of a page with the documents `documents`; return the paths of the figures."""
        page_figures = self.figures(page, **headers)
        for of, form, value, text in page_figures:
            exact = value_at(documents, of)
            assert without_age(value) == without_age("" if exact is None else exact), of
            assert without_age(text) == without_age(reader_text(format_figure(exact, form))), of
        return {of for of, *_ in page_figures}

    def stream(self, place: str = "/events", cookie: str = "") -> socket.socket:
        """Open an event stream without reading from it."""
        link = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        link.sendall(f"GET {place} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
        return link
