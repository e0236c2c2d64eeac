"""The newest documents, kept up to date from the store and the chain, and streams of their changes.

Pages are rendered from here and never wait for a read. A slow client of a stream delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from agent import codec
from agent.errors import Retryable, TrimtabError, internal_error
from agent.files import PAUSE_ENDING
from agent.model import RunReport
from agent.observe.health import RunHealth, is_alive, judge_health
from agent.ports.paper import PaperConfig
from agent.web.app_modules import dashboard, kill_switch, run_report
from agent.web.reading import AppProcess, Arguments, DocumentRead, Documents, Result

log = logging.getLogger("trimtab.dashboard")
ConfigPlace = str | PaperConfig
"""Path of a config, for its live store or for its paper store."""
POLL_S = 2.0
"""Interval between two checks of the store's files."""
PAUSE_POLL_S = 0.5
"""Interval between two checks of the store's files for a pause or its end."""
REFRESH_AGE_S = 60.0
"""Age at which documents of the chain are read again when they are requested."""
RETRY_AGE_S = 10.0
READ_TIMEOUT_S = 30.0
"""Longest wait of an API call for a read."""
MAX_STREAMS = 100
MAX_USER_STREAMS = 20
MAX_READS = 32
"""Reads of steps, archives and the like in progress or waiting. More are refused, since the reads
after a cycle wait for them.
"""
PING_S = 15.0
MAX_CACHED_ANSWERS = 200
REPORT_AGE_S = 1.0
"""Age at which the report of the run is read again when its health is asked for."""
REPORT_WAIT_S = 10.0

SERVER_READ_S = 5
"""Seconds between two reads of a store on PostgreSQL, whose changes no file shows."""


class CacheProcess(Enum):
    """Process of a call, which waits for the earlier calls of that process alone."""

    STORED = "stored"
    LIVE = "live"
    CONTROLS = "controls"
    """Reads no documents, so that a pause waits for none."""


@dataclass(frozen=True, slots=True)
class SeenReport:
    """The newest report of a run, and when this process first saw it, by a monotonic clock."""

    report: RunReport | None = None
    first_seen_s: float = 0.0

    def health(self, now_s: float) -> RunHealth:
        """Return the health of the run now."""
        if self.report is None:
            return judge_health(None, now_s)
        known_for_s = time.monotonic() - self.first_seen_s
        return judge_health(
            self.report,
            now_s,
            is_process_alive=is_alive(self.report.process_identity),
            known_for_s=known_for_s,
        )


class DocumentCache:
    """Documents by name, with the time of each read; `read_errors` has the errors of failed reads.
    `process`, if given, is already running and reads the store from now on.
    """

    def __init__(
        self, config_path: ConfigPlace, store_path: Path, process: AppProcess | None = None
    ) -> None:
        self.documents: Documents = {}
        self.read_errors: dict[DocumentRead, TrimtabError] = {}
        self.report_error: TrimtabError | None = None
        """Error of the last read of the run's report, if it failed."""
        self.read_s_by_function: dict[DocumentRead, float] = {}
        self.streams: Counter[int | None] = Counter()
        """Open event streams by user; None without users."""
        self.config_path = config_path
        self.store_path = store_path
        self._change_marker: str | None = None
        self._marker_error: TrimtabError | None = None
        self._last_file_stamps: tuple[object, ...] = ()
        self._pause_stamps: tuple[object, ...] = ()
        self._followed_functions: set[DocumentRead] = set()
        self._names_by_function: dict[DocumentRead, set[str]] = {}
        self._processes = {process: AppProcess() for process in CacheProcess}
        if process is not None:
            self._processes[CacheProcess.STORED] = process
        self._reading_tasks: dict[DocumentRead, asyncio.Task[None]] = {}
        self._overtaken_functions: set[DocumentRead] = set()
        self._outdated_functions: set[DocumentRead] = set()
        # begins with the time: a page that an earlier process rendered must not seem current
        self.version = time.time_ns() // 1_000_000
        self._change_event = asyncio.Event()
        self._answer_tasks: dict[tuple[object, ...], asyncio.Task[Any]] = {}
        self._answer_stamps: tuple[object, ...] = ()
        self._running_reads: set[asyncio.Task[Any]] = set()
        self._is_closing = False
        self._seen_report: SeenReport | None = None
        self._announced_health: RunHealth | None = None
        self._report_task: asyncio.Task[SeenReport] | None = None
        self._report_read_s = 0.0

    @property
    def config_file(self) -> str:
        """Path of the config, whichever store is meant."""
        config_path = self.config_path
        return config_path.path if isinstance(config_path, PaperConfig) else config_path

    async def watch(self) -> None:
        """Read again after each new cycle in the store and each edit of the config, and the chain
        every REFRESH_AGE_S while a page is open, until cancelled; announce that the run became
        healthy or unhealthy. After an unexpected error the pages show it, and the watch goes on.
        """
        await self._repeat(self._follow_changes, POLL_S)

    async def watch_pause(self) -> None:
        """Follow the kill switch until cancelled."""
        await self._repeat(self.follow_pause, PAUSE_POLL_S)

    async def _repeat(self, follow: Callable[[], Awaitable[None]], interval_s: float) -> None:
        while True:
            try:
                await follow()
            except Exception as error:  # its end would leave old pages, which look current
                self._show_watch_error(error)
            await asyncio.sleep(interval_s)

    async def follow_pause(self) -> None:
        """Keep the document `pause`, the kill switch, up to date with the store's files. It waits
        for no read of the chain or of other documents, which on a busy machine take a minute.
        """
        if (file_stamps := self._read_file_stamps()) == self._pause_stamps:
            return
        pause_path = self.store_path.with_name(self.store_path.name + PAUSE_ENDING)
        if os.path.lexists(pause_path) and not self.documents.get("pause", {}).get("paused"):
            reason = f"{pause_path} exists"
            file_pause = {"paused": True, "pause_reason": reason, "pause_hard": False}
            self._show_pause({**file_pause, "pause_signed": []})
        with contextlib.suppress(TrimtabError):
            self._show_pause(await self.call(CacheProcess.CONTROLS, kill_switch.shown_pause))
            self._pause_stamps = file_stamps

    def _show_pause(self, pause: Documents) -> None:
        if self.documents.get("pause") != pause:
            self.documents["pause"] = pause
            self.announce_change()

    async def _follow_changes(self) -> None:
        if (file_stamps := self._read_file_stamps()) != self._last_file_stamps:
            with contextlib.suppress(TrimtabError):
                await self._read_report(CacheProcess.STORED)
            try:
                change_marker = await self.call(CacheProcess.STORED, dashboard.change_marker)
            except TrimtabError as error:
                self._marker_error = error
                self._show_stored_error(error)
            else:
                stored_error = self.read_errors.get(dashboard.stored_documents)
                if stored_error is not None and stored_error is self._marker_error:
                    del self.read_errors[dashboard.stored_documents]
                    self.announce_change()
                is_config_edited = file_stamps[:1] != self._last_file_stamps[:1]
                self._last_file_stamps = file_stamps
                if change_marker != self._change_marker or is_config_edited:
                    self._change_marker = change_marker
                    self.refresh()
                for function in self._followed_functions:
                    self.follow(function)
        if self.streams.total():  # somebody looks at a page
            self.read_if_old(dashboard.live_documents)
        health = self.run_health()
        if _shown_health(health) != _shown_health(self._announced_health):
            self._announced_health = health
            self.announce_change()

    def _show_watch_error(self, error: Exception) -> None:
        read_error = TrimtabError(
            f"the dashboard cannot follow the store: {internal_error(error).message}",
            "restart trimtab serve, and report it if it comes again",
        )
        if self._show_stored_error(read_error):
            log.error("%s", read_error)

    def _show_stored_error(self, error: TrimtabError) -> bool:
        """Show an error in place of the documents of the store; announce and return whether it is
        another than before.
        """
        previous_error = self.read_errors.get(dashboard.stored_documents)
        self.read_errors[dashboard.stored_documents] = error
        has_changed = str(previous_error) != str(error)
        if has_changed:
            self.announce_change()
        return has_changed

    def refresh(self) -> None:
        """Read the documents of the store and the chain again in the background, and the plan when
        it is next requested: after a cycle, and once a page shows something newer. A read in
        progress is repeated after its end, since it may have begun before the change.
        """
        changed_functions = {
            dashboard.stored_documents,
            dashboard.live_documents,
            dashboard.plan_document,
        }
        self._overtaken_functions |= self._reading_tasks.keys() & changed_functions
        self._outdated_functions |= {dashboard.plan_document} & self.read_s_by_function.keys()
        self._start_read(CacheProcess.STORED, dashboard.stored_documents)
        self._start_read(CacheProcess.LIVE, dashboard.live_documents)

    def follow(self, function: DocumentRead) -> None:
        """Read documents of the store now and after each of its changes. A read in progress is
        repeated after its end.
        """
        self._followed_functions.add(function)
        self._overtaken_functions |= self._reading_tasks.keys() & {function}
        self._start_read(CacheProcess.STORED, function)

    def read_if_old(self, *functions: DocumentRead) -> None:
        """Read missing or old documents in the background; beside a plan those of the chain too, of
        which other pages would show what was before it.
        """
        for function in functions:
            age_s = time.monotonic() - self.read_s_by_function.get(function, -REFRESH_AGE_S)
            is_outdated = function in self._outdated_functions
            if is_outdated or age_s >= (
                RETRY_AGE_S if function in self.read_errors else REFRESH_AGE_S
            ):
                is_stored = (
                    function is dashboard.stored_documents or function in self._followed_functions
                )
                self._start_read(CacheProcess.STORED if is_stored else CacheProcess.LIVE, function)
                if function is dashboard.plan_document:
                    self._start_read(CacheProcess.LIVE, dashboard.live_documents)

    async def read_fresh(self, function: DocumentRead) -> Documents:
        """Return the documents, after a read of `function` that is in progress or due. Raises
        the error of a failed read, and Retryable if the first read takes longer than
        READ_TIMEOUT_S.
        """
        self.read_if_old(function)
        if (read_task := self._reading_tasks.get(function)) is not None:
            await asyncio.wait({read_task}, timeout=READ_TIMEOUT_S)
        if (error := self.read_errors.get(function)) is not None:
            raise error.with_traceback(None)
        if function not in self.read_s_by_function:
            raise Retryable("the first read is not done yet", "try again in some seconds")
        return self.documents

    async def read_stored(
        self, function: Callable[[Any, *Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Return the result of a function that reads only the store. Simultaneous requests share
        one read, and results are kept until the store changes: a read that began before the change
        answers only requests made before it. Raises its TrimtabError, and Retryable beyond
        MAX_READS.
        """
        if (file_stamps := self._read_file_stamps()) != self._answer_stamps or len(
            self._answer_tasks
        ) >= MAX_CACHED_ANSWERS:
            self._answer_tasks = {}
            self._answer_stamps = file_stamps
        answer_tasks = self._answer_tasks
        call_key = (function, arguments)
        if (read_task := answer_tasks.get(call_key)) is None:
            if len(self._running_reads) >= MAX_READS:
                raise Retryable("too many reads at once", "try again in some seconds")
            read_task = asyncio.create_task(self.call(CacheProcess.STORED, function, *arguments))
            answer_tasks[call_key] = read_task
            self._running_reads.add(read_task)
            read_task.add_done_callback(self._running_reads.discard)
        try:
            result: Result = await asyncio.shield(read_task)
        except TrimtabError:
            if answer_tasks.get(call_key) is read_task:
                del answer_tasks[call_key]
            raise
        return result

    async def run_report(self) -> SeenReport:
        """Return the newest report of the run, not older than REPORT_AGE_S. Simultaneous requests
        share one read, which waits for no read of documents. Raises its TrimtabError, and Retryable
        beyond REPORT_WAIT_S.
        """
        read_task = self._report_task
        is_old = time.monotonic() - self._report_read_s >= REPORT_AGE_S
        if read_task is None or (read_task.done() and is_old):
            read_task = self._report_task = asyncio.create_task(
                self._read_report(CacheProcess.CONTROLS)
            )
            read_task.add_done_callback(
                lambda finished_task: finished_task.cancelled() or finished_task.exception()
            )
            self._report_read_s = time.monotonic()
        await asyncio.wait({read_task}, timeout=REPORT_WAIT_S)
        if not read_task.done():
            raise Retryable(f"the store did not answer within {REPORT_WAIT_S:g} s", "try again")
        if (error := read_task.exception()) is not None:
            raise error.with_traceback(None)
        return read_task.result()

    def run_health(self) -> RunHealth | None:
        """Return the health of the run now by the report read last; None before the first."""
        return None if self._seen_report is None else self._seen_report.health(time.time())

    @property
    def newest_report(self) -> RunReport | None:
        """The report read last."""
        return None if self._seen_report is None else self._seen_report.report

    async def call(
        self,
        process: CacheProcess,
        function: Callable[[Any, *Arguments], Result],
        *arguments: *Arguments,
    ) -> Result:
        """Return the result of a function of the config in a process. Raises its TrimtabError."""
        return await self._processes[process].call(function, self.config_path, *arguments)

    async def events(
        self, seen_version: int, may_continue: Callable[[], bool]
    ) -> AsyncIterator[str]:
        """Yield server-sent events as long as `may_continue` returns True: `changed` if the version
        is not `seen_version`, the one that the page shows, and `alive` every PING_S without a
        change: a page that hears neither knows that the server does not respond.

        A slow client skips versions in between and gets the newest.
        """
        yield "retry: 2000\n\n"
        while not self._is_closing and may_continue():
            change_event = self._change_event
            if seen_version == self.version:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(change_event.wait(), PING_S)
            if not may_continue():
                return
            if seen_version == self.version:
                yield "event: alive\ndata: 1\n\n"
            else:
                seen_version = self.version
                yield f"event: changed\ndata: {seen_version}\n\n"

    def end_streams(self) -> None:
        """End the event streams."""
        self._is_closing = True
        self.announce_change()

    def close(self) -> None:
        """End the event streams and the reading processes."""
        self.end_streams()
        for task in self._reading_tasks.values():
            task.cancel()
        if self._report_task is not None:
            self._report_task.cancel()
        for process in self._processes.values():
            process.stop()

    def announce_change(self) -> None:
        """Increment the version and wake every stream, without waiting for them."""
        self.version += 1
        change_event = self._change_event
        self._change_event = asyncio.Event()
        change_event.set()

    async def _read_report(self, process: CacheProcess) -> SeenReport:
        try:
            report_json = await self.call(process, run_report.newest_report_json)
            report = codec.loads_optional(RunReport, report_json)
        except TrimtabError as error:
            self._seen_report = None
            self.report_error = error
            raise
        self.report_error = None
        if self._seen_report is None or self._seen_report.report != report:
            self._seen_report = SeenReport(report, time.monotonic())
        return self._seen_report

    def _start_read(self, process: CacheProcess, function: DocumentRead) -> None:
        if function not in self._reading_tasks and not self._is_closing:
            self._outdated_functions.discard(function)
            self._reading_tasks[function] = asyncio.create_task(self._read(process, function))

    async def _read(self, process: CacheProcess, function: DocumentRead) -> None:
        previous_error = self.read_errors.get(function)
        try:
            documents = await self.call(process, function)
        except TrimtabError as error:
            self.read_errors[function] = error
            has_changed = str(previous_error) != str(error)
        else:
            ended_names = self._names_by_function.get(function, set()) - documents.keys()
            self._names_by_function[function] = set(documents)
            has_changed = (
                previous_error is not None
                or not ended_names.isdisjoint(self.documents)
                or any(self.documents.get(name) != document for name, document in documents.items())
            )
            for name in ended_names:
                self.documents.pop(name, None)
            self.documents.update(documents)
            self.read_errors.pop(function, None)
        finally:
            self._reading_tasks.pop(function, None)
        if dashboard.live_documents in self.read_errors:
            self._drop_older_profit()
        self.read_s_by_function[function] = time.monotonic()
        if has_changed:
            self.announce_change()
        if function in self._overtaken_functions:
            self._overtaken_functions.discard(function)
            self._start_read(process, function)

    def _drop_older_profit(self) -> None:
        """Drop value and profit of the last read of the chain once the store has later ones."""
        last_read, stored = (
            pnl.get("all", {}).get("until", "")
            for pnl in (self.documents.get("now", {}).get("pnl", {}), self.documents.get("pnl", {}))
        )
        if last_read < stored:
            self.documents.pop("now", None)

    def _read_file_stamps(self) -> tuple[object, ...]:
        """Return time and size of the config, first, and of the files of the store and the paper
        store.
        """
        file_endings = ("", "-wal", PAUSE_ENDING, ".service.pid")
        paper_store = self.documents.get("paper_run", {}).get("store")
        store_paths = [self.store_path, *([Path(paper_store)] if paper_store else ())]
        store_files = [
            store_path.with_name(store_path.name + ending)
            for store_path in store_paths
            for ending in file_endings
        ]
        file_stamps: list[object] = []
        for path in (Path(self.config_file), *store_files):
            try:
                file_stat = path.stat()
                file_stamps.append((file_stat.st_mtime_ns, file_stat.st_size))
            except OSError:
                file_stamps.append(None)
        if not self.store_path.exists():  # on PostgreSQL, where no file changes
            file_stamps.append(int(time.monotonic() / SERVER_READ_S))
        return tuple(file_stamps)


def _shown_health(health: RunHealth | None) -> tuple[object, ...]:
    """Return what pages show of a run's health, without ages."""
    return () if health is None else (health.state, len(health.reasons), len(health.obstacles))
