"""The documents of a dashboard: when they are read again, what a failed read leaves, and who shares a read."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest

from agent.app import dashboard as app_dashboard
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, OperatorNeeded, Retryable, TrimtabError
from agent.store import open_memory_store
from agent.store.accounts.ledger import LEDGER_TOKENS
from agent.store.database.facts import write_facts

if (find_spec("fastapi") is None or find_spec("uvicorn") is None) and not os.environ.get("CI"):
    pytest.skip("the dashboard needs its extra", allow_module_level=True)

from agent.web import document_cache
from agent.web.app_modules import dashboard, exports, queue, run_report
from agent.web.document_cache import MAX_READS, REFRESH_AGE_S, CacheProcess, DocumentCache
from tests.support.dashboards import StaticDocumentCache
from tests.support.transactions import CHAIN_ID, WALLET


def test_no_page_of_an_earlier_process_seems_current() -> None:
    earlier = DocumentCache("none.toml", Path("none.db"))
    for _ in range(5):
        earlier.announce_change()
    time.sleep(0.05)  # no process starts faster
    assert DocumentCache("none.toml", Path("none.db")).version > earlier.version


def test_a_change_during_a_read_is_read_after_it() -> None:
    class SlowBoard(DocumentCache):
        reads = 0

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            if function is not dashboard.stored_documents:
                return {}
            self.reads += 1
            number = self.reads
            await asyncio.sleep(0.01)
            return {"history": number}

    async def scene() -> None:
        board = SlowBoard("none.toml", Path("none.db"))
        board.read_if_old(dashboard.stored_documents)
        await asyncio.sleep(0)
        board.refresh()  # a cycle ended: the read under way may have begun before
        await asyncio.sleep(0.1)
        assert (board.reads, board.documents["history"]) == (2, 2)

    asyncio.run(scene())


def test_live_documents__ledger_is_damaged__have_the_status_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_memory_store(CHAIN_ID, WALLET)) as store:
        with store.db.write("damage") as db:
            write_facts(db, {LEDGER_TOKENS: "{"})
        config = SimpleNamespace(strategies=(), lp=None)
        context = SimpleNamespace(config=config, store=store, loaded_config=None, futures_policy=None)
        status = SimpleNamespace(step_input=None)
        agent = SimpleNamespace(context=context, portfolio=SimpleNamespace(positions=()), status=lambda: status)
        monkeypatch.setattr(app_dashboard, "_load_current_config", lambda config: config)
        monkeypatch.setattr(app_dashboard, "open_agent", lambda _: nullcontext(agent))
        monkeypatch.setattr(app_dashboard, "status_document", lambda _: {"block": 1})
        documents = app_dashboard.live_documents("any.toml", ["status", "now"])
    assert documents["status"] == {"block": 1}
    assert "damaged" in documents["now"]["error"]


def test_stored_documents__ledger_is_damaged__have_the_history_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = OperatorNeeded("store: an entry is damaged", "restore a backup")
    monkeypatch.setattr(app_dashboard, "_load_current_config", lambda _: LoadedConfig(Mock(), Path("any.toml"), "", is_paper=True))
    monkeypatch.setattr(app_dashboard, "history", lambda *_: {"steps": []})
    monkeypatch.setattr(app_dashboard, "_settings", lambda _: {"settings": []})
    monkeypatch.setattr(app_dashboard, "open_ledger_data", Mock(side_effect=damaged))
    documents = app_dashboard.stored_documents("any.toml")
    assert documents["history"] == {"steps": []}
    assert [documents[name]["raised"] for name in ("pnl", "series", "lots")] == [damaged] * 3


@pytest.mark.parametrize(
    ("function", "gone"),
    [(dashboard.live_documents, {"margin"}), (dashboard.live_documents, {"lp", "strategies"}), (dashboard.stored_documents, {"paper"})],
    ids=["futures", "positions and strategies", "paper books"],
)
def test_documents_that_a_read_no_longer_returns__go(function: Callable[..., Any], gone: set[str]) -> None:
    answers: list[Any] = [{name: {} for name in ("status", *gone)}, ConfigError("no endpoint answers", "wait"), {"status": {}}]

    class AnsweringBoard(DocumentCache):
        async def call(self, process: CacheProcess, read: Callable[..., Any], *arguments: Any) -> Any:
            if read is not function:
                return {"plan": {}}
            if isinstance(answer := answers.pop(0), ConfigError):
                raise answer
            return answer

    async def scene() -> None:
        board = AnsweringBoard("none.toml", Path("none.db"))
        await board._read(CacheProcess.LIVE, dashboard.plan_document)
        board.documents["pause"] = {}  # of no read
        await board._read(CacheProcess.LIVE, function)
        await board._read(CacheProcess.LIVE, function)
        assert board.documents.keys() == {"plan", "pause", "status", *gone}, "a failed read keeps the earlier ones"
        board.read_errors.clear()
        version = board.version
        await board._read(CacheProcess.LIVE, function)
        assert board.documents.keys() == {"plan", "pause", "status"}
        assert board.version > version

    asyncio.run(scene())


@pytest.mark.parametrize(("stored_hour", "is_kept"), [("03", True), ("05", False)], ids=["older", "newer"])
def test_profit_of_the_last_read__later_reads_fail__gives_way_to_a_newer_one(stored_hour: str, is_kept: bool) -> None:
    def profit_until(hour: str) -> dict[str, Any]:
        return {"pnl": {"all": {"until": f"2026-01-02T{hour}:00:00Z"}}}

    answers: list[Any] = [{"now": profit_until("04")}, ConfigError("no endpoint answers", "wait")]

    class AnsweringBoard(DocumentCache):
        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            if function is not dashboard.live_documents:
                return profit_until(stored_hour)
            if isinstance(answer := answers.pop(0), ConfigError):
                raise answer
            return answer

    async def scene() -> None:
        board = AnsweringBoard("none.toml", Path("none.db"))
        board.refresh()
        await asyncio.sleep(0.01)
        assert "now" in board.documents
        board.refresh()
        await asyncio.sleep(0.01)
        assert ("now" in board.documents) is is_kept

    asyncio.run(scene())


def test_control_changed_during_a_read__is_read_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "trimtab.db"
    monkeypatch.setattr(document_cache, "POLL_S", 0.01)

    async def scene() -> None:
        answering = asyncio.Event()

        class SlowBoard(DocumentCache):
            async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
                if function is not queue.dashboard_controls:
                    return None if function is run_report.newest_report_json else {}
                state = file.read_text()
                await answering.wait()
                return {"controls": state}

        file.write_text("queued")
        board = SlowBoard("none.toml", file)
        watching = asyncio.create_task(board.watch())
        await asyncio.sleep(0.1)
        board.follow(queue.dashboard_controls)
        await asyncio.sleep(0.1)
        file.write_text("done")
        await asyncio.sleep(0.1)
        answering.set()
        await asyncio.sleep(0.1)
        watching.cancel()
        assert board.documents["controls"] == "done"

    asyncio.run(scene())


def test_the_watch_shows_an_unexpected_error_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_cache, "POLL_S", 0.001)
    monkeypatch.setattr(document_cache, "RETRY_AGE_S", 0)

    class FailingBoard(DocumentCache):
        fails = True

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            if self.fails:
                raise ValueError("unexpected")
            return {} if function is not run_report.newest_report_json else None

    async def scene() -> None:
        board = FailingBoard("none.toml", tmp_path / "none.db")
        version = board.version
        watch = asyncio.create_task(board.watch())
        async with asyncio.timeout(20):
            while dashboard.stored_documents not in board.read_errors:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert "internal error at test_document_cache.py" in str(board.read_errors[dashboard.stored_documents])
        assert board.version == version + 1, "announced once"
        board.fails = False
        async with asyncio.timeout(20):
            while dashboard.stored_documents in board.read_errors:
                await asyncio.sleep(0.005)
        watch.cancel()

    asyncio.run(scene())


def test_store_that_cannot_be_read__is_announced_and_so_is_its_end(tmp_path: Path) -> None:
    class UnreadableBoard(DocumentCache):
        error: TrimtabError | None = None

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            if function is dashboard.change_marker and self.error is not None:
                raise self.error
            if function is dashboard.change_marker:
                return ""
            return None if function is run_report.newest_report_json else {}

    async def scene() -> None:
        config_file = tmp_path / "a.toml"
        config_file.touch()
        board = UnreadableBoard(str(config_file), tmp_path / "none.db")
        await board._follow_changes()
        await asyncio.sleep(0.01)
        board.error = Retryable("store: locked", "wait")
        board.store_path.touch()
        version = board.version
        for _ in range(2):
            await board._follow_changes()
        assert board.version == version + 1, "announced once"
        assert str(board.read_errors[dashboard.stored_documents]) == str(board.error)
        board.error = None
        await board._follow_changes()
        assert dashboard.stored_documents not in board.read_errors
        assert board.version == version + 2

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("stream_count", "age_s", "read_count"),
    [
        pytest.param(1, REFRESH_AGE_S, 1, id="open, old"),
        pytest.param(1, REFRESH_AGE_S - 10, 0, id="open, recent"),
        pytest.param(0, REFRESH_AGE_S, 0, id="none open"),
    ],
)
def test_open_page__has_the_chain_read_again(tmp_path: Path, stream_count: int, age_s: float, read_count: int) -> None:
    class LiveBoard(DocumentCache):
        reads = 0

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            if function is dashboard.change_marker:
                return ""
            self.reads += function is dashboard.live_documents
            return {} if function in (dashboard.live_documents, dashboard.stored_documents) else None

    async def scene() -> None:
        board = LiveBoard("none.toml", tmp_path / "none.db")
        await board._follow_changes()
        await asyncio.sleep(0.01)
        board.reads = 0
        board.streams[None] = stream_count
        board.read_s_by_function[dashboard.live_documents] = time.monotonic() - age_s
        await board._follow_changes()
        await asyncio.sleep(0.01)
        assert board.reads == read_count

    asyncio.run(scene())


def test_plan_of_a_newer_block__lets_the_other_pages_follow() -> None:
    class MarketBoard(DocumentCache):
        block = 1

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            return {"plan" if function is dashboard.plan_document else "status": {"block": self.block}}

    async def scene() -> None:
        board = MarketBoard("none.toml", Path("none.db"))
        await board.read_fresh(dashboard.live_documents)
        board.block = 2  # no cycle of the agent yet
        await board.read_fresh(dashboard.plan_document)
        await asyncio.sleep(0.01)
        assert [board.documents[name]["block"] for name in ("plan", "status")] == [2, 2]

    asyncio.run(scene())


def test_the_plan_is_made_anew_after_a_cycle_once_somebody_looks() -> None:
    class CountingBoard(DocumentCache):
        plan_count = 0

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: str) -> Any:
            await asyncio.sleep(0.001)
            self.plan_count += function is dashboard.plan_document
            return {"plan": self.plan_count} if function is dashboard.plan_document else {}

    async def scene() -> None:
        board = CountingBoard("none.toml", Path("none.db"))
        board.refresh()
        await asyncio.sleep(0.01)
        assert board.plan_count == 0, "nobody has asked for a plan"
        assert (await board.read_fresh(dashboard.plan_document))["plan"] == 1
        board.read_if_old(dashboard.plan_document)
        assert (await board.read_fresh(dashboard.plan_document))["plan"] == 1
        board.refresh()  # a cycle ended
        await asyncio.sleep(0.01)
        assert (board.plan_count, (await board.read_fresh(dashboard.plan_document))["plan"], board.plan_count) == (1, 2, 2)
        board._outdated_functions.add(dashboard.plan_document)
        board.read_if_old(dashboard.plan_document)
        board.refresh()  # during the read
        await asyncio.sleep(0.05)
        assert board.documents["plan"] == 4

    asyncio.run(scene())


def test_requests_at_once__share_a_read_until_the_store_changes(tmp_path: Path) -> None:
    class Ledger(StaticDocumentCache):
        reads: ClassVar[list[str]] = []

        async def call(self, process: CacheProcess, function: Callable[..., Any], *arguments: Any) -> Any:
            self.reads.append(text := self.store_path.read_text())
            await asyncio.sleep(0.02)
            if not text:
                raise TrimtabError("empty")
            return text

    async def scene() -> None:
        board = Ledger("none.toml", tmp_path / "a.db")
        board.store_path.write_text("old")
        many = [asyncio.create_task(board.read_stored(exports.export_archive)) for _ in range(50)]
        await asyncio.sleep(0.01)
        board.store_path.write_text("newer")
        assert await board.read_stored(exports.export_archive) == "newer"
        assert {await answer for answer in many} == {"old"}
        assert await board.read_stored(exports.export_archive) == "newer"
        assert board.reads == ["old", "newer"]
        board.store_path.write_text("")
        for _ in range(2):
            with pytest.raises(TrimtabError, match="empty"):
                await board.read_stored(exports.export_archive)
        assert board.reads[2:] == ["", ""]  # a failure is not kept
        board.store_path.write_text("newest")
        flood = [board.read_stored(dashboard.step_document, str(number)) for number in range(300)]
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert answers[:MAX_READS] == ["newest"] * MAX_READS
        assert {str(answer)[:8] for answer in answers[MAX_READS:]} == {"too many"}
        assert await board.read_stored(dashboard.step_document, "299") == "newest"
        assert len(board.reads) == 4 + MAX_READS + 1

    asyncio.run(scene())
