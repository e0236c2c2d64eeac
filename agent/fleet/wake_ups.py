"""When the portfolios of a worker look next, as jobs of procrastinate in the database.

A job carries the key of a portfolio's store and nothing else, and says only that its time has come: who
serves a wallet, and who may act for it, are locks of the database, and what was done is in the journal.
So a job that is lost, doubled, old or of a foreign portfolio does no harm. Each worker has two queues,
looks and exits, so that looks that hang take no place of a due exit. A portfolio whose job is not
written, or does not come, looks at its time in memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.exceptions import (
    AlreadyEnqueued,
    ConnectorException,
    ProcrastinateException,
    UniqueViolation,
)
from procrastinate.jobs import Status
from procrastinate.schema import SchemaManager
from sqlalchemy import Engine

from agent.fleet.members import FleetMember, MemberState
from agent.observe.logs import Log
from agent.store.database import database_errors
from agent.store.postgresql.session import CONNECT_ARGUMENTS, lock_tables

if TYPE_CHECKING:
    from agent.fleet.sharing import FleetShare

LOOK_PLACES = 160
EXIT_PLACES = 40
"""Most jobs of a worker that look at a time: usual ones, and due exits."""
POLL_S = 0.5
"""Seconds between two looks for jobs whose time has come."""
LEAD_S = 2.0
"""Time before a look at which its job comes, so that fifty are there when they look together."""
EARLY_S = 3.0
"""Time before a look at which a job is none for it."""
HEARTBEAT_S = 2.0
STALLED_S = 6.0
"""Age of a worker's last sign of life at which its jobs are free for others."""
UPKEEP_CRON = "* * * * * */10"
"""When stalled jobs are freed: each 10 seconds, which croniter takes as a sixth field."""
UPKEEP_QUEUE = "upkeep"
REOPEN_S = 5.0
"""Pause before the queue is opened again that could not be read or written."""
CLOSE_S = 5.0
"""Longest time that the end of a worker waits for its queue."""
MAX_CONNECTIONS = 4
MEASURE_S = 10.0
"""Seconds between two readings of the database's clock, with the numbers of jobs."""
_MEASURE = """
SELECT extract(epoch FROM clock_timestamp())::float8 AS now_s,
  count(*) FILTER (WHERE status = 'todo' AND scheduled_at <= now()) AS due,
  count(*) FILTER (WHERE status = 'doing' AND (last_heartbeat IS NULL
    OR last_heartbeat < now() - make_interval(secs => %(stalled_s)s))) AS stalled
FROM procrastinate_jobs LEFT JOIN procrastinate_workers ON procrastinate_workers.id = worker_id
WHERE task_name = 'look'
"""

for _library in ["procrastinate", "psycopg.pool"]:  # they log each job, and each try to connect
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


class WakeUps:
    """The jobs of a worker's portfolios, in a thread with an event loop."""

    def __init__(self, share: FleetShare, members: Sequence[FleetMember]) -> None:
        """Create the tables of the queue if they lack. Raises OperatorNeeded if the role may not."""
        self._engine = share.engine
        self._schema_name = create_queue(share.engine)
        name = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(4)}"
        self._look_queue = f"looks of {name}"
        self._exit_queue = f"exits of {name}"
        self.job_counts: Mapping[str, int] = {}
        """Numbers of jobs of all workers that are due, and stalled; empty while they are unknown."""
        self._app: App | None = None
        self._server_offset_s = 0.0
        """The database's Unix time at zero of the monotonic clock."""
        self._key_by_member = {
            member: key
            for member in members
            if (key := share.store_keys.get(member.config_path)) is not None
        }
        self._member_by_key: dict[str, FleetMember] = {}
        """The portfolio that serves, or served last, the wallet of a key."""
        self._job_due_s: dict[FleetMember, float] = {}
        """The times for which jobs were written."""
        self._ends: dict[FleetMember, asyncio.Future[None]] = {}
        """What the jobs wait for whose looks go on."""
        self._writings: set[asyncio.Task[None]] = set()
        self._is_away = False
        self._log = Log()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report_fault)
        self._ending = asyncio.Event()
        for member in self._key_by_member:
            member.on_end = self._on_end
        self._thread = threading.Thread(
            target=self._loop.run_until_complete,
            args=(self._serve(),),
            daemon=True,
            name="trimtab queue",
        )
        self._thread.start()

    def stop(self) -> None:
        """Begin no further look by a job, and leave the portfolios' next ones to other workers."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(CLOSE_S)

    def _on_end(self, member: FleetMember) -> None:
        """Write the job of a portfolio whose look or release has ended; called by its thread."""
        with suppress(RuntimeError):  # the worker has ended
            self._loop.call_soon_threadsafe(self._settle, member)

    async def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                await self._run_workers()
            except Exception as error:
                if not self._is_away:
                    self._log.warning("queue away", why=_cause(error))
                self._is_away = True
            self._app = None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), REOPEN_S)

    async def _run_workers(self) -> None:
        """Take jobs until the worker ends or the database cannot be reached, which raises."""
        app = self._new_app()
        try:
            async with app.open_async():
                await self._measure(app)
                self._app = app
                if self._is_away:
                    self._log.info("queue back")
                self._is_away = False
                self._job_due_s.clear()
                for member in self._key_by_member:
                    self._settle(member)
                await self._until_end(app)
        finally:
            self._app = None
            self.job_counts = {}

    async def _measure(self, app: App) -> None:
        row = await app.connector.execute_query_one_async(_MEASURE, stalled_s=STALLED_S)
        self._server_offset_s = row["now_s"] - time.monotonic()
        self.job_counts = {"due": row["due"], "stalled": row["stalled"]}

    async def _keep_measuring(self, app: App) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            await self._measure(app)

    async def _until_end(self, app: App) -> None:
        kinds = (
            ([self._look_queue], LOOK_PLACES),
            ([self._exit_queue, UPKEEP_QUEUE], EXIT_PLACES),
        )
        workers = [
            asyncio.create_task(
                app.run_worker_async(
                    queues=queues,
                    concurrency=places,
                    fetch_job_polling_interval=POLL_S,
                    listen_notify=False,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    update_heartbeat_interval=HEARTBEAT_S,
                    shutdown_graceful_timeout=0,
                )
            )
            for queues, places in kinds
        ]
        workers.append(asyncio.create_task(self._keep_measuring(app)))
        ending = asyncio.create_task(self._ending.wait())
        await asyncio.wait([*workers, ending], return_when=asyncio.FIRST_COMPLETED)
        for task in (*workers, ending):
            task.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if not self._ending.is_set():
            raise ConnectorException("no sign of life could be given")

    def _new_app(self) -> App:
        _, parameters = self._engine.dialect.create_connect_args(self._engine.url)
        options = (
            f"{CONNECT_ARGUMENTS['options']} -c search_path={self._schema_name}"
            " -c synchronous_commit=off"  # a job that is lost does no harm
        )
        connector = PsycopgConnector(
            kwargs={
                **parameters,
                **CONNECT_ARGUMENTS,
                "options": options,
                "application_name": "trimtab queue",
                "autocommit": True,
            },
            min_size=1,
            max_size=MAX_CONNECTIONS,
        )
        app = App(connector=connector)
        app.task(name="look", pass_context=True)(self._look)
        upkeep = app.task(name="upkeep", queue=UPKEEP_QUEUE, queueing_lock="upkeep")(self._upkeep)
        app.periodic(cron=UPKEEP_CRON)(upkeep)
        return app

    def _settle(self, member: FleetMember) -> None:
        """End the job of a portfolio that has looked or is not served, and let the next be written."""
        is_served = _is_served(member)
        if is_served and self._job_due_s.get(member) == member.due_s:
            return  # its time has not come
        member.awaits_job = False
        end = self._ends.get(member)
        if end is not None:
            if not end.done():
                end.set_result(None)  # its job writes the next one
        elif is_served:
            self._begin(self._write_job(member))

    def _begin(self, writing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(writing)
        self._writings.add(task)
        task.add_done_callback(self._writings.discard)

    async def _look(self, context: JobContext, portfolio: str) -> None:
        """Let a portfolio look, if this worker serves it and its time has come, and write its next
        job.
        """
        member = self._member_by_key.get(portfolio)
        if member is None or member in self._ends or not _is_served(member):
            return
        if member.due_s - time.monotonic() <= EARLY_S:
            end = self._ends[member] = self._loop.create_future()
            member.awaits_job = False
            try:
                await end
            finally:
                del self._ends[member]
        if _is_served(member):
            await self._write_job(member, context.job.id)

    async def _write_job(self, member: FleetMember, own_id: int | None = None) -> None:
        """Write the job of a portfolio's next look; `own_id` is that of the job whose look has ended.
        Without one another's may be there: a worker's that served the wallet before, or that of
        an earlier time.
        """
        app = self._app
        if app is None:
            return
        key = self._key_by_member[member]
        due_s = member.due_s
        self._member_by_key[key] = member
        self._job_due_s[member] = due_s
        deferrer = app.configure_task(
            "look",
            lock=key,
            queueing_lock=key,
            queue=self._exit_queue if member.is_exit_due else self._look_queue,
            schedule_at=datetime.fromtimestamp(due_s - LEAD_S + self._server_offset_s, UTC),
        )
        try:
            if own_id is None:
                await _remove_jobs(app, key)
            try:
                await deferrer.defer_async(portfolio=key)
            except AlreadyEnqueued:
                await _remove_jobs(app, key, own_id)
                await deferrer.defer_async(portfolio=key)
        except ProcrastinateException:  # its time in memory counts
            self._job_due_s.pop(member, None)
            return
        member.awaits_job = member.due_s == due_s and member not in self._ends

    async def _upkeep(self, timestamp: int) -> None:
        """Free the jobs of workers that give no sign of life: those of wallets that this one serves
        come into its queue, unless it has written one.
        """
        del timestamp
        if self._app is None:
            return
        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=STALLED_S):
            member = self._member_by_key.get(str(job.task_kwargs.get("portfolio")))
            is_ours = member is not None and _is_served(member)
            try:
                await manager.retry_job(job, queue=self._look_queue if is_ours else None)
            except UniqueViolation:
                await manager.finish_job(job, Status.FAILED, delete_job=True)


def _is_served(member: FleetMember) -> bool:
    return member.agent is not None and member.state is not MemberState.HUNG


async def _remove_jobs(app: App, key: str, own_id: int | None = None) -> None:
    """Remove all jobs of a wallet but one's own, those of looks that went on elsewhere too: who
    serves it has its lock.
    """
    for job in await app.job_manager.list_jobs_async(lock=key):
        if job.id != own_id:
            with suppress(ConnectorException):  # it has ended meanwhile
                await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)


def _report_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what failed in the background, unless it is that a job was removed during its look."""
    if not isinstance(context.get("exception"), ProcrastinateException):
        loop.default_exception_handler(context)


def _cause(error: BaseException) -> str:
    """Return the text of the database's error behind one of procrastinate."""
    return " ".join(str(error.__cause__ or error).split())


_INDEXES = """
CREATE INDEX trimtab_due ON procrastinate_jobs (queue_name, scheduled_at) WHERE status = 'todo';
CREATE INDEX trimtab_lock ON procrastinate_jobs (lock) WHERE status IN ('todo', 'doing');
"""
"""With them the next of fifty due jobs among ten thousand is there within a millisecond, not fourteen."""


def create_queue(engine: Engine) -> str:
    """Create the tables of procrastinate unless they are there, and return their schema, which is
    named after the version of the tables: programs of two versions each have a queue. Raises
    PassingFault, and OperatorNeeded if the role may not create or use them.
    """
    statements = SchemaManager.get_schema() + _INDEXES
    name = f"trimtab_queue_{zlib.crc32(statements.encode()):08x}"
    with database_errors("create the queue"), engine.begin() as db:
        lock_tables(db)
        if not engine.dialect.has_table(db, "procrastinate_jobs", schema=name):
            db.exec_driver_sql(f"DROP SCHEMA IF EXISTS {name} CASCADE")
            db.exec_driver_sql(f"CREATE SCHEMA {name}")
            db.exec_driver_sql(f"SET LOCAL search_path TO {name}")
            db.exec_driver_sql(statements.replace("%", "%%"))
        db.exec_driver_sql(f"SELECT FROM {name}.procrastinate_jobs LIMIT 0")
    return name
