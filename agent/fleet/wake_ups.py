"""When the portfolios of a worker look next, as jobs of procrastinate in the database.

A job carries the key of a portfolio's store and nothing else, and says only that its time has come: who
serves a wallet, and who may act for it, are locks of the database, and what was done is in the journal.
So a job that is lost, doubled, old or of a foreign portfolio does no harm. Each worker has two queues,
looks and exits, so that looks that hang take no place of a due exit. Looks that follow one another
within SLICE_S share a job. A portfolio whose job is not written, or does not come, looks at its time in
memory.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.exceptions import ConnectorException, ProcrastinateException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.schema import SchemaManager
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import Engine

from agent.fleet.members import JOB_PATIENCE_S, FleetMember, MemberState
from agent.observe.logs import Log
from agent.store.database.errors import database_errors
from agent.store.postgresql.session import CONNECT_ARGUMENTS, lock_tables

if TYPE_CHECKING:
    from agent.fleet.sharing import FleetShare

SLICE_S = 15.0
"""Time from the beginning of a job in which further looks are due that it is for too."""
LOOK_PLACES = 400
EXIT_PLACES = 100
"""Most jobs of a worker at a time, of usual looks and of due exits: more than it has looks in SLICE_S."""
POLL_S = 2.0
"""Seconds between two looks for jobs whose time has come."""
LEAD_S = 4.0
"""Time before a look at which its job comes, so that fifty are there when they look together."""
EARLY_S = 5.0
"""Time before a look at which a job is none for it."""
HEARTBEAT_S = 3.0
STALLED_S = 7.0
"""Age of a worker's last sign of life at which its jobs are free for others."""
ABORT_POLL_S = 60.0
"""Seconds between two looks for jobs that somebody aborts, which trimtab never does."""
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


class _LookEnded(Exception):
    """A job waits for the next look of its portfolio."""


@dataclass
class _NextLook(BaseRetryStrategy):
    """A job that waits again is the same one: one UPDATE, in place of a DELETE and an INSERT."""

    of_job: Callable[[Job], RetryDecision | None]

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        return self.of_job(job) if isinstance(exception, _LookEnded) else None


@dataclass
class _WakeUp:
    """The job of a portfolio."""

    key: str
    """That of its store."""
    due_s: float = -math.inf
    """The time of the look for which it was written last; long ago without one."""
    queue: str = ""
    end: asyncio.Future[None] | None = None
    """What it waits for while looks go on."""
    slice_end_s: float = 0.0
    """When no further look is part of it."""


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
        self._wake_ups = {
            member: _WakeUp(key)
            for member in members
            if (key := share.store_keys.get(member.config_path)) is not None
        }
        self._member_by_key: dict[str, FleetMember] = {}
        """The portfolio that serves, or served last, the wallet of a key."""
        self._writings: set[asyncio.Task[None]] = set()
        self._is_away = False
        self._log = Log()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report_fault)
        self._ending = asyncio.Event()
        for member in self._wake_ups:
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
        """See to the job of a portfolio whose look or release has ended; called by its thread."""
        if not self._is_settled(member):
            with suppress(RuntimeError):  # the worker has ended
                self._loop.call_soon_threadsafe(self._settle, member)

    def _is_settled(self, member: FleetMember) -> bool:
        """Return whether the job of a portfolio will be there for its next look: the look is part of
        it, or it comes before. One that comes too early waits again.
        """
        wake_up = self._wake_ups[member]
        if not _is_served(member) or wake_up.queue != self._queue_of(member):
            return False
        if wake_up.end is not None:
            return member.due_s <= wake_up.slice_end_s
        return wake_up.due_s <= member.due_s and time.monotonic() < wake_up.due_s + JOB_PATIENCE_S

    def _queue_of(self, member: FleetMember) -> str:
        return self._exit_queue if member.is_exit_due else self._look_queue

    async def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                await self._run_workers()
            except Exception as error:
                if not self._is_away:
                    why = " ".join(str(error.__cause__ or error).split())
                    self._log.warning("queue away", why=why)
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
                for member in self._wake_ups:
                    self._settle(member)
                await self._until_end(app)
        finally:
            self._app = None
            self.job_counts = {}
            for member in self._wake_ups:
                self._forget(member)

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
                    abort_job_polling_interval=ABORT_POLL_S,
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
            # without the statement that tests a connection before each other one
            pool_factory=lambda **arguments: AsyncConnectionPool(**{**arguments, "check": None}),
        )
        app = App(connector=connector)
        app.task(name="look", retry=_NextLook(self._next_of_job))(self._look)
        upkeep = app.task(name="upkeep", queue=UPKEEP_QUEUE, queueing_lock="upkeep")(self._upkeep)
        app.periodic(cron=UPKEEP_CRON)(upkeep)
        return app

    def _settle(self, member: FleetMember) -> None:
        """End the job of a portfolio whose next look is none of it, or write one."""
        if self._is_settled(member):
            return
        member.awaits_job = False
        wake_up = self._wake_ups[member]
        if wake_up.end is not None:
            if not wake_up.end.done():
                wake_up.end.set_result(None)
        elif self._app is not None and _is_served(member):
            writing = asyncio.create_task(self._write_job(self._app, member, self._next(member)))
            self._writings.add(writing)
            writing.add_done_callback(self._writings.discard)

    async def _look(self, portfolio: str) -> None:
        """Let a portfolio look, if this worker serves it and its time has come, and wait for its next
        look. A further job for it ends here.
        """
        member = self._member_by_key.get(portfolio)
        if member is None or self._wake_ups[member].end is not None:
            return
        wake_up = self._wake_ups[member]
        began_s = time.monotonic()
        if _is_served(member) and member.due_s - began_s <= EARLY_S:
            wake_up.slice_end_s = began_s + SLICE_S
            wake_up.end = self._loop.create_future()
            member.awaits_job = False
            try:
                await wake_up.end
            finally:
                wake_up.end = None
        raise _LookEnded

    def _next_of_job(self, job: Job) -> RetryDecision | None:
        """Return when and where a job waits again; None, so that it ends, if others serve the wallet."""
        member = self._member_by_key[str(job.task_kwargs["portfolio"])]
        if _is_served(member):
            return self._next(member)
        self._forget(member)
        return None

    def _next(self, member: FleetMember) -> RetryDecision:
        """Return when and where the job of a portfolio's next look comes, and let the look wait for
        it, unless it is for an exit or too soon.
        """
        wake_up = self._wake_ups[member]
        wake_up.due_s = member.due_s
        wake_up.queue = self._queue_of(member)
        wait_s = wake_up.due_s - time.monotonic()
        member.awaits_job = wait_s > LEAD_S and not member.is_exit_due
        come_s = wake_up.due_s - LEAD_S + self._server_offset_s
        return RetryDecision(retry_at=datetime.fromtimestamp(come_s, UTC), queue=wake_up.queue)

    async def _write_job(self, app: App, member: FleetMember, decision: RetryDecision) -> None:
        """Write the first job of a portfolio, or another one, in place of any other of its wallet,
        of looks that went on elsewhere too: who serves it has its lock.
        """
        key = self._wake_ups[member].key
        self._member_by_key[key] = member
        try:
            for job in await app.job_manager.list_jobs_async(lock=key):
                with suppress(ConnectorException):  # it has ended meanwhile
                    await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)
            await app.configure_task(
                "look",
                lock=key,
                queueing_lock=key,
                queue=decision.queue,
                schedule_at=decision.retry_at,
            ).defer_async(portfolio=key)
        except ProcrastinateException:
            self._forget(member)

    def _forget(self, member: FleetMember) -> None:
        """Let a portfolio without a job look at its time in memory."""
        self._wake_ups[member].due_s = -math.inf
        member.awaits_job = False

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


def _report_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what failed in the background, unless it is that a job was removed during its look."""
    if not isinstance(context.get("exception"), ProcrastinateException):
        loop.default_exception_handler(context)


_ADDITIONS = """
CREATE INDEX trimtab_due ON procrastinate_jobs (queue_name, scheduled_at) WHERE status = 'todo';
CREATE INDEX trimtab_lock ON procrastinate_jobs (lock) WHERE status IN ('todo', 'doing');
DO $$ DECLARE name text; BEGIN
FOR name IN SELECT tgname FROM pg_trigger
  WHERE tgrelid = 'procrastinate_jobs'::regclass AND tgname ~ 'events|notify' LOOP
  EXECUTE format('ALTER TABLE procrastinate_jobs DISABLE TRIGGER %I', name);
END LOOP; END $$;
"""
"""With the indexes the next of fifty due jobs among ten thousand is there within a millisecond, not
fourteen. The triggers write three rows a look, which a job that waits again would keep, and notify nobody.
"""


def create_queue(engine: Engine) -> str:
    """Create the tables of procrastinate unless they are there, and return their schema, which is
    named after the version of the tables: programs of two versions each have a queue. Raises
    PassingFault, and OperatorNeeded if the role may not create or use them.
    """
    statements = SchemaManager.get_schema() + _ADDITIONS
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
