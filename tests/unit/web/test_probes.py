"""/health, /ready and /metrics of the dashboard's server: what they answer, to whom, and that no answer is better than the run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if not all(map(find_spec, ("fastapi", "uvicorn", "prometheus_client"))) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from prometheus_client.parser import text_string_to_metric_families

from agent import codec
from agent.errors import OperatorNeeded, TrimtabError
from agent.execution.step_context import OutcomeKind
from agent.fleet.configs import portfolio_names
from agent.model import RunFigures, RunReport
from agent.observe.health import MAX_MISSED_CYCLES, judge_health, process_identity
from agent.observe.metrics import CYCLE_OUTCOMES, metrics_text
from agent.ports.users import UsersPlace
from agent.store.files.users import open_user_file
from agent.web import document_cache
from agent.web.access import Access
from agent.web.api import gate
from agent.web.api.gate import PROBE_PATHS
from agent.web.api.tokens import TokenFile
from agent.web.app_modules import dashboard, run_report
from agent.web.document_cache import CacheProcess, DocumentCache, SeenReport
from agent.web.portfolios import PortfoliosApp, SharedSettings, create_portfolios
from agent.web.reach import Reach
from tests.support.api import Client
from tests.support.constants import DAY_S
from tests.support.dashboards import MARKUP, Served, StaticDocumentCache, documents, figures, until
from tests.support.sites import HASH

EVERY_S = 600
LATE_S = MAX_MISSED_CYCLES * EVERY_S + 60
FIGURES = RunFigures(
    1_500, 1, "1000.5", (("USDC", 30), ("WETH", -30)), 1_000, 7, "12.5", "50", (("a", 500_000), ("b", 900_000))
)  # fmt: skip


def report(age_s: int = 0, **more: Any) -> RunReport:
    """The report of a run in this process whose last good cycle ended `age_s` ago."""
    at_s = int(time.time()) - age_s
    run_report = RunReport(
        "a", process_identity(), True, EVERY_S, at_s, at_s, cycles=1, last_cycle_s=at_s, last_good_cycle_at_s=at_s, outcomes=(("done", 1),)
    )
    return replace(run_report, transactions=(("swap final", 1),), figures=FIGURES, **more)


class ReportBoard(StaticDocumentCache):
    """A board over a given report, or the error of its read. While it `hangs`, no read ends."""

    def __init__(self, folder: Path, run_report: RunReport | TrimtabError | None) -> None:
        super().__init__("none.toml", folder / "trimtab.db")
        self.found = run_report
        self.reads = 0
        self.hangs = False
        self.documents = documents()

    async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
        assert function is run_report.newest_report_json
        self.reads += 1
        await (asyncio.Event().wait() if self.hangs else asyncio.sleep(0.01))
        if isinstance(self.found, TrimtabError):
            raise self.found
        return None if self.found is None else codec.dumps(self.found)

    def put(self, run_report: RunReport | TrimtabError | None) -> None:
        """Change the report as if a second had gone by."""
        self.found, self._report_read_s = run_report, -1e9


@contextmanager
def serving(
    folder: Path, run_report: RunReport | TrimtabError | None = None, *, users: bool = False
) -> Iterator[tuple[Client, ReportBoard]]:
    """A dashboard over a report."""
    board = ReportBoard(folder, run_report)
    with Served(with_users(folder) if users else None, board) as served:
        yield Client(served), board


def with_users(folder: Path) -> Access:
    """A user of the dashboard."""
    file = folder / "trimtab.db.users"
    open_user_file(file).add("ann", HASH, "A" * 32, False, 1)
    access = Access(Reach(port=1), UsersPlace(str(file)))
    access.set_users({1: ("ann", False)})
    return access


def samples(text: bytes) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text.decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_every_figure_of_a_report_is_a_metric() -> None:
    value_by_name = samples(metrics_text(report(failed_heartbeats=2), judge_health(report(), time.time()), 1_012.0))
    assert value_by_name[("trimtab_looks_total", "done")] == 1
    assert value_by_name[("trimtab_looks_total", "error")] == 0
    assert {name[1] for name in value_by_name if name[0] == "trimtab_looks_total"} == set(CYCLE_OUTCOMES)
    assert (*(kind.value for kind in OutcomeKind), "retryable", "error") == CYCLE_OUTCOMES
    assert value_by_name[("trimtab_transactions_total", "swap", "final")] == 1
    assert value_by_name[("trimtab_portfolio_value",)] == 1000.5
    assert (value_by_name[("trimtab_drift_bps", "WETH")], value_by_name[("trimtab_worst_drift_bps",)]) == (-30, 30)
    assert (value_by_name[("trimtab_head_age_seconds",)], value_by_name[("trimtab_look_seconds",)]) == (12, 1.5)
    assert (value_by_name[("trimtab_gas_spent_24h_wei",)], value_by_name[("trimtab_loss_budget_used",)]) == (7, 0.25)
    assert (value_by_name[("trimtab_endpoint_score", "a")], value_by_name[("trimtab_endpoint_score", "b")]) == (0.5, 0.9)
    assert (value_by_name[("trimtab_open_intents",)], value_by_name[("trimtab_paused",)], value_by_name[("trimtab_healthy",)]) == (1, 0, 1)
    assert value_by_name[("trimtab_heartbeat_failures_total",)] == 2
    dry = replace(report(), sends=False)
    assert value_by_name[("trimtab_run_sends",)] == 1
    assert samples(metrics_text(dry, judge_health(dry, time.time()), 0))[("trimtab_run_sends",)] == 0


def test_no_name_adds_a_line() -> None:
    evil = 'EVIL"} 1\ntrimtab_paused 1'
    named = replace(report(), figures=replace(FIGURES, drifts_bps=((evil, 1),), endpoint_scores_ppm=((evil, 1),)))
    value_by_name = samples(metrics_text(named, judge_health(named, time.time()), 0))
    assert value_by_name[("trimtab_paused",)] == 0
    assert value_by_name[("trimtab_drift_bps", evil)] == 1
    assert ("trimtab_endpoint_score", evil) in value_by_name


def test_what_no_cycle_knew_is_no_number() -> None:
    new = replace(report(), figures=RunFigures(), last_cycle_s=None)
    value_by_name = samples(metrics_text(new, judge_health(new, time.time()), 0))
    for name in (
        "portfolio_value",
        "head_age_seconds",
        "look_seconds",
        "loss_budget_used",
        "gas_spent_24h_wei",
        "last_look_timestamp_seconds",
    ):
        value = value_by_name[(f"trimtab_{name}",)]
        assert value != value, name
    assert samples(metrics_text(None, judge_health(None, 0), 0)) == {("trimtab_healthy",): 0}
    off = replace(new, figures=replace(FIGURES, loss_limit="0.000000"))
    assert samples(metrics_text(off, judge_health(off, 0), 0))[("trimtab_loss_budget_used",)] == float("inf")


def test_health_and_ready_follow_the_report_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as (client, board):

        def codes(run_report: RunReport | TrimtabError | None) -> tuple[int, int, float]:
            board.put(run_report)
            health, ready, metrics = (client.ask(path) for path in PROBE_PATHS)
            assert health.json["ok"] is (health.status == 200)
            assert ready.json["ok"] is (ready.status == 200)
            assert {url.headers["cache-control"] for url in (health, ready, metrics)} == {"no-store"}
            return health.status, ready.status, samples(metrics.body)[("trimtab_healthy",)]

        assert codes(None) == (503, 503, 0)
        assert client.ask("/health").json["reasons"] == ["no continuous run (trimtab run --every) reports here"]
        assert codes(replace(report(), last_good_cycle_at_s=None)) == (200, 503, 1)
        assert codes(report()) == (200, 200, 1)
        assert codes(report(pause_reason="lunch")) == (200, 503, 1)
        assert client.ask("/ready").json["reasons"] == ["paused: lunch"]
        assert codes(replace(report(), sends=False)) == (200, 503, 1)
        assert client.ask("/health").json["sends"] is False, "a healthy dry run is named"
        assert "a dry run: it sends nothing" in client.ask("/ready").json["reasons"][0]
        assert codes(report(trouble="halt: a token is quarantined")) == (503, 503, 0)
        assert codes(report(LATE_S - 30)) == (200, 200, 1)
        assert codes(report(LATE_S + 2)) == (503, 503, 0)
        assert codes(report(ended_s=1)) == (503, 503, 0)
        assert codes(replace(report(), process_identity=f"{process_identity()}0")) == (503, 503, 0), "no process of that number"
        assert codes(report(-120)) == (503, 503, 0), "the clock went back"
        assert codes(report()) == (200, 200, 1)


def test_a_store_that_cannot_be_read_is_never_healthy(tmp_path: Path) -> None:
    with serving(tmp_path, report()) as (client, board):
        assert client.ask("/health").status == 200
        board.put(OperatorNeeded("store: the file is corrupt", "restore a backup"))
        for path in ("/health", "/ready"):
            answer = client.ask(path)
            assert answer.status == 503
            assert answer.json["state"] == "unknown"
            assert "corrupt" in answer.json["reasons"][0]
        refused = client.ask("/metrics")
        assert (refused.status, refused.code) == (503, "store")
        board.put(report())
        assert client.ask("/health").status == 200


def test_a_store_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "REPORT_WAIT_S", 0.2)
    with serving(tmp_path, report()) as (client, board):
        board.hangs = True
        for _ in range(2):
            answer = client.ask("/health")
            assert answer.status == 503
            assert "did not answer" in answer.json["reasons"][0]


def test_many_probes_share_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "REPORT_AGE_S", 1e9)
    with serving(tmp_path, report()) as (client, board):
        assert {client.ask(path).status for path in PROBE_PATHS * 5} == {200}
        assert board.reads == 1


def test_stranger__gets_health_as_a_bit_and_no_metrics(tmp_path: Path) -> None:
    now_s = int(time.time())
    with serving(tmp_path, report(trouble="https://rpc.example is away"), users=True) as (client, board):
        tokens = TokenFile(board.store_path)
        texts = {scope: tokens.add(scope, [scope], DAY_S, now_s)[1] for scope in ("read", "plan", "control")}
        texts["expired"] = tokens.add("old", ["read"], 1, now_s - DAY_S)[1]
        texts["revoked"] = tokens.add("revoked", ["read"], DAY_S, now_s)[1]
        tokens.revoke("revoked", now_s)
        texts["wrong"] = texts["read"][:-1] + ("A" if texts["read"][-1] != "A" else "B")
        refusals = {
            "": (401, "token_missing"), "expired": (401, "token_expired"), "revoked": (401, "token_revoked"),
            "wrong": (401, "token_unknown"), "plan": (403, "scope"), "control": (403, "scope"),
        }  # fmt: skip
        for name, expected in refusals.items():
            client.token = texts.get(name, "")
            refused = client.ask("/metrics")
            assert (refused.status, refused.code) == expected, name
            for path in ("/health", "/ready"):
                answer = client.ask(path)
                assert (answer.status, answer.json) == (503, {"ok": False}), name
        client.token = texts["read"]
        assert client.ask("/health").json["reasons"] == ["https://rpc.example is away"]
        assert samples(client.ask("/metrics").body)[("trimtab_portfolio_value",)] == 1000.5
        access, client.token = client.served.access, ""
        session = f"trimtab-1={access.begin_session(1)}"
        assert client.ask("/metrics", Cookie=session).status == 200
        assert client.ask("/ready", Cookie=session).json["reasons"]
        assert client.ask("/metrics", Cookie="trimtab-1=made-up").status == 401


def test_scrapes_keep_no_session_from_expiring(tmp_path: Path) -> None:
    with serving(tmp_path, report(), users=True) as (client, _):
        access = client.served.access
        chosen = access.begin_session(1)
        session = access.find_session(chosen, touch=False)
        session.last_used_s = before = session.last_used_s - 60
        assert client.ask("/metrics", Cookie=f"trimtab-1={chosen}").status == 200
        assert session.last_used_s == before


@pytest.mark.parametrize("path", PROBE_PATHS)
def test_probes_are_checked_like_every_page(tmp_path: Path, path: str) -> None:
    for users in (False, True):
        folder = tmp_path / str(users)
        folder.mkdir()
        with serving(folder, report(), users=users) as (client, board):
            text = TokenFile(board.store_path).add("a", ["read"], DAY_S, int(time.time()))[1]
            client.token = text
            assert client.ask(path, Host="evil.example").status == 421
            assert client.ask(path, Host="localhost").status == 200
            assert client.ask(f"{path}?verbose").status == 200
            assert client.ask(path, "HEAD").status == 200
            assert client.ask(path, "HEAD").body == b""
            assert client.ask(path, "POST", "").status == 405
            in_address = client.ask(f"{path}?token={text}")
            assert (in_address.status, in_address.code) == (400, "token_in_url")


def test_guesses_are_limited_and_slow_no_valid_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "INVALID_BURST", 3)
    with serving(tmp_path, report(), users=True) as (client, board):
        statuses = {client.ask("/metrics").status for _ in range(8)}
        assert statuses == {401, 429}
        assert client.ask("/health").status == 200, "a probe is answered all the same"
        client.token = TokenFile(board.store_path).add("a", ["read"], DAY_S, int(time.time()))[1]
        assert client.ask("/metrics").status == 200


def test_old_report__stays_old_when_the_clock_goes_back() -> None:
    young = replace(report(-30), process_identity="")
    assert SeenReport(young, time.monotonic()).health(time.time()).is_healthy
    assert not SeenReport(young, time.monotonic() - LATE_S - 1).health(time.time()).is_healthy


# pages and several portfolios
def test_the_overview_shows_the_same_judgement(tmp_path: Path) -> None:
    with serving(tmp_path, report(trouble=MARKUP)) as (client, board):
        client.ask("/health")
        text = client.ask("/").body.decode()
        assert {of: exact for of, _, exact, _ in figures(text) if of.startswith("run.")} == {"run.reasons.0": MARKUP}
        assert MARKUP not in text
        board.put(report())
        client.ask("/health")
        text = client.ask("/").body.decode()
        assert ("run.state", "text", "running", "running") in figures(text)
        assert "dry run" not in text
        board.put(replace(report(), sends=False))
        client.ask("/health")
        text = client.ask("/").body.decode()
        assert "A dry run: it sends nothing." in text
        assert '<p class="state note">Run:' in text


def test_the_death_of_a_run_is_announced_to_open_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "POLL_S", 0.01)

    class WatchingBoard(ReportBoard):
        watch = DocumentCache.watch

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
            return "" if function is dashboard.change_marker else await super().call(process, function, *arguments)

        def refresh(self) -> None:
            """Nothing else is read."""

    alive = [True]
    monkeypatch.setattr(document_cache, "is_alive", lambda _: alive[0])
    board = WatchingBoard(tmp_path, report())
    with Served(None, board):

        def shows(state: str) -> bool:
            announced_health = board._announced_health
            return announced_health is not None and announced_health.state == state

        until(lambda: shows("running"))
        version = board.version
        alive[0] = False
        until(lambda: shows("gone") and board.version == version + 1)


def test_runs__are_all_healthy_or_the_answer_is_red(tmp_path: Path) -> None:
    configs = [tmp_path / name / "trimtab.toml" for name in ("one", "two")]
    parts = create_portfolios(configs, portfolio_names(configs), Reach(port=1))
    kept = []
    for number, part in enumerate(parts):
        folder = tmp_path / str(number)
        folder.mkdir()
        access = Access(part.reach, UsersPlace(str(folder / "trimtab.db.users")))
        access.set_users({1: ("ann", False)} if number else {})
        kept.append(ReportBoard(folder, report()))
        part.serve(kept[-1], access, {}, lambda: False)

    class All(Served):
        def application(self, access: Access | None) -> Any:
            return PortfoliosApp(parts, Reach(port=1), SharedSettings("127.0.0.1", False, lambda: self.server.should_exit))

    with All() as served:
        client = Client(served)
        assert [client.ask(path).status for path in ("/health", "/ready", "/metrics")] == [200, 200, 404]
        assert client.ask("/health").json == {"ok": True}
        without = client.ask("/metrics")
        assert without.headers["content-type"] == "application/problem+json"
        assert "/p/NAME/metrics" in without.body.decode()
        assert client.ask("/health", Host="evil.example").status == 421
        assert client.ask("/p/one-trimtab/health").json["state"] == "running"
        assert client.ask("/p/two-trimtab/health").json == {"ok": True}
        assert [client.ask(f"/p/{name}-trimtab/metrics").status for name in ("one", "two")] == [200, 401]
        client.token = TokenFile(kept[0].store_path).add("a", ["read"], DAY_S, int(time.time()))[1]
        assert client.ask("/p/two-trimtab/metrics").status == 401, "a token of another portfolio"
        servers = {
            op["servers"][0]["url"]
            for op in (client.ask("/p/one-trimtab/api/v1/openapi.json").json["paths"][path]["get"] for path in PROBE_PATHS)
        }
        assert servers == {"/p/one-trimtab"}
        kept[1].put(report(pause_reason="lunch"))
        assert [client.ask(path).status for path in ("/health", "/ready")] == [200, 503]
        kept[1].put(OperatorNeeded("store: gone", "restore it"))
        assert client.ask("/health").status == 503
        kept[1].put(report())
        assert client.ask("/health").status == 200
        parts[0].opened_parts = None
        assert client.ask("/health").status == 503, "one that is not open"
