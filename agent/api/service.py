"""A long run and everything that tells of it: each look as log line, figures, health and heartbeat; a look that hangs ends it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agent.api import alerting, announcing, looks
from agent.api.agent import LOOKING, Agent
from agent.api.stopping import StoppableClock
from agent.config import redaction
from agent.config.fields import parse_duration_s
from agent.config.load import LoadedConfig
from agent.errors import EXIT_HUNG, ConfigError, TrimtabError
from agent.execution.outcome import Outcome
from agent.model import Delivery
from agent.observe.announcer import Announcer
from agent.observe.health import LOOKS_MISSED, Health
from agent.observe.heartbeat import Heartbeat
from agent.observe.logs import Format, Log, configure
from agent.observe.metrics import Metrics
from agent.observe.server import serving
from agent.observe.systemd import Notifier
from agent.observe.watch import Watch

PASSWORD_ENV = "TRIMTAB_KEYSTORE_PASSWORD"  # noqa: S105 the variable's name


@dataclass
class Service:
    """Hears what the run does and passes it on."""

    agent: Agent
    log: Log
    metrics: Metrics
    health: Health
    watch: Watch
    notifier: Notifier
    heartbeat: Heartbeat | None
    logs: bool
    announcer: Announcer | None = None
    began: float = field(default_factory=time.monotonic)
    paused: bool = False
    port: int | None = None
    unheard: int = 0
    unheard_in_row: int = 0
    unwritten: str = ""
    taken_up: tuple[str, ...] = ()
    """Lines of the config that changed with a version that was taken up, until somebody has told them."""

    def __post_init__(self) -> None:
        self._loaded = self.agent.desk.loaded

    def heard(self, stage: str) -> None:
        """What the run is about to do, as it tells its progress."""
        if stage == LOOKING:
            self.began = time.monotonic()
        self.watch.beat(stage)

    def looked(self, found: Outcome | TrimtabError) -> None:
        """One look is over. A defect of what is told here is told, and ends nothing; a store that fails does."""
        for tell in (self._tell, self._announce):
            try:
                tell(found)
            except TrimtabError:
                raise
            except Exception as error:
                self.log.error("telling failed", kind=type(error).__name__)

    def _tell(self, found: Outcome | TrimtabError) -> None:
        took_s = time.monotonic() - self.began
        self.watch.beat("telling of the last look")
        if (loaded := self.agent.desk.loaded) != self._loaded:
            self.taken_up = redaction.changes(self._loaded.text, loaded.text) or ("comments alone",)
            self.log.info("config taken up", digest=loaded.digest, changes=self.taken_up)
            self._loaded = loaded
        stopped = self.agent.desk.switch.read()
        paused = stopped.paused is not False
        trouble = looks.trouble(found, paused)
        self.health.looked(trouble, stopped.reason or "by its file" if paused else "")
        self.metrics.looked(looks.figures(self.agent, found, took_s, paused))
        if paused is not self.paused:
            self.log.warning("paused" if paused else "resumed", **looks.filled(reason=stopped.reason, hard=stopped.hard or None))
            self.paused = paused
        for event, fields in looks.lines(self.agent, found, took_s):
            (self.log.warning if trouble else self.log.info)(event, **fields)
        if self.health.state.looks == 1:
            self.notifier.ready()
        self.notifier.status(trouble or looks.summary(found))
        if not self.health.red() and self.heartbeat is not None:
            self.heartbeat.beat()

    def _announce(self, found: Outcome | TrimtabError) -> None:
        """Hands what is worth telling to those who carry it; waits for nobody."""
        if self.announcer is None:
            return
        self.unheard_in_row, self.unheard = (self.unheard_in_row + 1 if self.unheard else 0), 0
        silent = self.health.silence()
        if not silent and self.unheard_in_row >= LOOKS_MISSED:
            silent = f"the heartbeat did not arrive {self.unheard_in_row} times in a row"
        facts = alerting.Facts(self.paused, silent, announcing.low_gas_wei(self.agent.desk.loaded))
        now_s = self.agent.desk.clock.now_s()
        for told in self.announcer.looked(alerting.alerts(found, facts), alerting.judged(found), now_s):
            self.log.info("alert", about=told.kind.value, text=told.text)

    def ended(self, error: TrimtabError) -> None:
        """The run ends by an error: the last that its owner hears of it."""
        self.log.error("ended", **looks.failure(error))
        if self.announcer is None:
            return
        with suppress(Exception):  # the store may be what failed; then it is told without being written down
            self.announcer.looked((alerting.ended(error),), frozenset(), self.agent.desk.clock.now_s(), last=True)
            return
        self.announcer.cry(alerting.ended(error), self.agent.desk.clock.now_s())

    def unrecorded(self, why: str) -> None:
        """A step could not be written into its file; the run goes on without it."""
        self.log.warning("record failed", why=why)
        self.unwritten = why

    def hung(self, why: str) -> NoReturn:
        """Called from the watch's thread: says what hangs, and ends the process for its service manager to start it anew.

        What was sent stands in the journal; this is no worse than a power failure between two acts, and milder than a run that
        stands still for ever.
        """
        self.health.hangs(why)
        self.log.error("hung", what=why, exit=EXIT_HUNG)
        if self.announcer is not None:
            self.announcer.cry(alerting.hung(), int(time.time()))
        self.notifier.status(f"hung: {why}")
        logging.shutdown()
        os._exit(EXIT_HUNG)


@contextmanager
def serve(agent: Agent, clock: StoppableClock, every: str, *, once: bool = False, log_format: Format | None = None) -> Iterator[Service]:
    """Everything that tells of a run, up while inside. `log_format` goes before the config's; with `once` nothing listens.

    On paper there are log lines alone: no alerts, no heartbeat, nothing that listens, since those tell of the live agent.
    """
    table, paper = agent.desk.config.service, agent.desk.loaded.paper
    secrets = secrets_of(agent.desk.loaded)
    style = log_format or table.log_format
    log = configure(style, secrets)
    metrics, notifier = Metrics(), Notifier()
    health = Health(parse_duration_s(every, "--every"))
    metrics.health(lambda: not health.red())

    def unheard(why: str) -> None:
        metrics.heartbeat_failed()
        service.unheard += 1
        log.warning("heartbeat failed", why=why)

    def given_up(found: Delivery) -> None:
        log.warning("alert failed", target=found.letter.target, why=found.why, about=found.letter.kind.value)

    url = None if paper else table.heartbeat()  # it would say that the live agent is well
    heartbeat = None if url is None else Heartbeat(url, table.heartbeat_method, unheard)
    watch = Watch(table.hang_after, period_s=notifier.watchdog_s)
    announcer = None if paper else announcing.announcer(agent.desk.config.alerts, agent.desk.store, given_up)
    service = Service(agent, log, metrics, health, watch, notifier, heartbeat, style is not None, announcer)
    clock.watched(watch)
    if agent.desk.recorder is not None:
        agent.desk.recorder.tell = service.unrecorded
    with ExitStack() as stack:
        if table.address is not None and not once and not paper:
            service.port = stack.enter_context(serving(*table.address, metrics, health))
            log.info("listening", host=table.address[0], port=service.port)
        stack.enter_context(watch.watching(service.hung, notifier.alive))
        log.info("started", **looks.who(agent), every=every)
        try:
            if announcer is not None:
                announcer.begin()
            yield service
        except TrimtabError as error:
            service.ended(error)
            raise
        finally:
            health.stops()
            notifier.stopping()
            if announcer is not None:
                with suppress(TrimtabError):  # what was delivered is told once more
                    announcer.close()
            if heartbeat is not None:
                heartbeat.settle()
            log.info("stopped", looks=health.state.looks)


def secrets_of(loaded: LoadedConfig) -> list[str]:
    """Every secret that this process knows of from its config and environment; keys in a keyring never become text."""
    config = loaded.config
    found: list[str] = []
    for tell in (*(one.resolve for one in config.chain.rpc), config.service.heartbeat, config.execution.submit_url.get_secret_value):
        found += _told(tell)
    names = () if loaded.paper else (config.wallet.key_env, PASSWORD_ENV)  # paper trading reads no key, not even to hide it
    found += config.alerts.secrets()
    return found + [value for name in names if name and (value := os.environ.get(name))]


def _told(tell: Callable[[], Any]) -> list[str]:
    try:
        value = tell()
    except ConfigError:  # told where it is needed
        return []
    return [value] if value else []
