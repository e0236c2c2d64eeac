"""Commands that run the agent, and its alerts: run, paper, replay, alerts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import app as api
from agent.cli.display.hints import completed_hints, running_command, with_config
from agent.cli.display.several import PortfolioAnswer, answer_for_each
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Document,
    Spinner,
    emit,
    err,
    error_document,
    interruptible,
    note,
    out,
    print_error,
    require_answerable,
    safe_text,
    say,
    show_spinner,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ConfigPaths,
    Heading,
    PrintStyle,
    RecordFolder,
    Send,
    Verbose,
    Yes,
    command,
    command_group,
)
from agent.cli.portfolio import confirmer, format_reason, noting_waits, show_outcome
from agent.errors import (
    EXIT_RETRYABLE,
    EXIT_UNHEALTHY,
    OUTCOME_EXIT_CODES,
    ConfigError,
    TrimtabError,
)
from agent.figures import columns
from agent.foreign_text import key_like_texts
from agent.units import rough_duration, utc_text

if TYPE_CHECKING:
    from agent.app import Agent, ControlRunner, RunEventHandler, StoppableClock
    from agent.app.cycles import Confirm
    from agent.cli.display.tables import FigureTable
    from agent.execution.step_context import StepOutcome
    from agent.fleet.metrics import FleetMetrics
    from agent.observe.logs import LogStyle


class LogFormat(StrEnum):
    """Format of log lines."""

    TEXT = "text"
    JSON = "json"


MetricsFile = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        help="Write the metrics of several portfolios into this file, for Prometheus' node exporter.",
    ),
]


LogFormatOption = Annotated[
    LogFormat | None,
    typer.Option("--log-format", help="Log format on stderr; overrides service.log_format."),
]


@command(Heading.TRADE, 20)
def run(
    config: ConfigPaths = None,
    once: Annotated[bool, typer.Option("--once", help="Run one step, then exit.")] = False,
    every: Annotated[
        str, typer.Option("--every", help="Interval between cycles, such as 10m.")
    ] = "10m",
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    log_format: LogFormatOption = None,
    record: RecordFolder = None,
    offer: Annotated[
        bool,
        typer.Option(
            "--offer",
            help="Offer each plan to dashboard, API and phone, and send it once confirmed there.",
        ),
    ] = False,
    metrics_file: MetricsFile = None,
) -> None:
    """Runs a step every 10 minutes (--every) until stopped. Retries transient errors; stops when an
    operator is needed.

    With --json each cycle prints one document on one line; with log lines and without --json,
    cycles are only logged. With --send it carries out queued controls (trimtab controls). SIGTERM
    and Ctrl-C end the run with exit code 0 at a safe point: between two cycles, or while a recorded
    transaction is pending. Exit code 13: a cycle hung for longer than service.hang_after; start the
    run again.

    Several configs, or a folder of them, run in this process: each portfolio with its own wallet,
    store, limits and alerts, logged under its name. One that fails waits by itself, a minute to an
    hour; nobody is asked, so that --send needs --yes or --offer.
    """
    if offer and (yes or not send):
        raise ConfigError("--offer needs --send, and excludes --yes", "use run --send --offer")
    from agent.fleet.configs import find_configs

    config_paths = find_configs(config)
    if len(config_paths) > 1 or (config and config[0].is_dir()):
        _require_fleet_options(
            {"--once": once, "--record": record is not None, "--verbose": verbose},
            asks=send and not (yes or offer),
        )
        style = FleetStyle(send, offer, as_json, log_format, metrics_file=metrics_file)
        run_portfolios(config_paths, every, style)
        return
    if metrics_file is not None:
        raise ConfigError(
            "--metrics-file is for several portfolios",
            "the metrics of one are at /metrics of trimtab serve",
        )
    if send and not offer:
        require_answerable(yes)
    clock = api.StoppableClock()

    def make_confirm(cycle_run: CycleRun) -> Confirm:
        if offer and cycle_run.controls is not None:
            return cycle_run.controls.offer_and_decline
        return confirmer(cycle_run.agent, yes, cycle_run.spinner, clock, verbose=verbose)

    agent_context = api.open_agent(config_paths[0], clock=clock, record_folder=record)
    options = RunOptions(send, every, once, log_format)
    exit_code = run_loop(
        agent_context, clock, make_confirm, options, PrintStyle(as_json, verbose, one_line=not once)
    )
    raise typer.Exit(exit_code)


def _require_fleet_options(is_given_by_option: Mapping[str, bool], *, asks: bool) -> None:
    """Raise ConfigError for an option of one portfolio alone, or if somebody would be asked."""
    for option, is_given in is_given_by_option.items():
        if is_given:
            raise ConfigError(
                f"several portfolios run without {option}",
                f"omit it, or name one config to run it with {option}",
            )
    if asks:
        raise ConfigError(
            "several portfolios run without questions",
            "with --send add --yes, or --offer to confirm each plan at the dashboard",
        )


@dataclass(frozen=True, slots=True)
class FleetStyle:
    """Options of a run of several portfolios."""

    sends: bool
    offers: bool
    as_json: bool
    log_format: LogFormat | None
    group_name: str | None = None
    """Group of the workers that share the portfolios; None if this process runs them all."""
    metrics_file: Path | None = None


@command(Heading.TRADE, 25)
def worker(
    config: ConfigPaths = None,
    every: Annotated[
        str, typer.Option("--every", help="Interval between cycles, such as 10m.")
    ] = "10m",
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
    log_format: LogFormatOption = None,
    offer: Annotated[
        bool,
        typer.Option("--offer", help="As run --offer: offer each plan, send it once confirmed."),
    ] = False,
    group: Annotated[
        str, typer.Option("--group", help="Name of the workers that share the portfolios.")
    ] = "workers",
    metrics_file: MetricsFile = None,
) -> None:
    """Runs its part of the portfolios of a folder, as run does, beside workers on other machines.

    The stores are on PostgreSQL (extra fleet). Each portfolio is served by one worker; a worker that
    is killed or cut off is replaced within 20 seconds, and one that joins gets its part. SIGTERM
    ends it at safe points, and the others take over.
    """
    from agent.fleet.configs import find_configs

    if (offer and (yes or not send)) or (send and not (yes or offer)):
        raise ConfigError(
            "a worker asks nobody", "with --send add --yes, or --offer to confirm at the dashboard"
        )
    style = FleetStyle(send, offer, as_json, log_format, group, metrics_file)
    run_portfolios(find_configs(config), every, style)


def run_portfolios(config_paths: Sequence[Path], every: str, style: FleetStyle) -> None:
    """Run several portfolios until stopped. With --json each cycle prints one document with the name
    of its portfolio.
    """
    from agent.fleet.members import FleetOptions
    from agent.fleet.run import run_fleet
    from agent.observe.logs import Redactor, configure

    output_lock = Lock()
    print_style = PrintStyle(as_json=True, verbose=False, one_line=True)

    def show_result(name: str, agent: Agent, result: StepOutcome | TrimtabError) -> None:
        if not style.as_json:
            return
        name_field: dict[str, object] = {"portfolio": name}
        with output_lock:
            if isinstance(result, TrimtabError):
                document = {**error_document(result), **name_field}
                emit(document, True, lambda: None, one_line=True)
            else:
                show_outcome(
                    result,
                    agent,
                    print_style,
                    send_allowed=style.sends,
                    extra_fields=name_field,
                )

    redactor = Redactor(key_like_texts(*sys.argv))
    configure((style.log_format or LogFormat.TEXT).value, redactor)
    clock = api.StoppableClock()
    share = None
    if style.group_name is not None:
        from agent.fleet.sharing import join_workers

        share = join_workers(config_paths, style.group_name)
    metrics = None
    if style.metrics_file is not None:
        metrics = _fleet_metrics(style.metrics_file)
    options = FleetOptions(every, style.sends, style.offers, share, metrics, _completed_for)
    with clock.listening():
        run_fleet(config_paths, options, redactor, show_result, clock, metrics=metrics)


def _completed_for(text: str, config_path: Path) -> str:
    """Return the text of an alert with this config in each command that it names."""
    return with_config(text, config_path, running_command.config_commands)


def _fleet_metrics(metrics_file: Path) -> FleetMetrics:
    try:
        from agent.fleet.metrics import FleetMetrics
    except ModuleNotFoundError:
        raise ConfigError(
            "--metrics-file: prometheus-client is not installed",
            "install trimtab with the extra fleet: pip install 'trimtab[fleet]'",
        ) from None
    return FleetMetrics(metrics_file)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run, as entered. Paper trading sends nothing, whatever `send`."""

    send: bool
    every_text: str
    once: bool
    log_format: LogFormat | None = None
    is_paper: bool = False

    @property
    def log_style(self) -> LogStyle | None:
        """Format of log lines; None for the format of the config."""
        return None if self.log_format is None else self.log_format.value

    def stop_text(self, stopped_by: str) -> str:
        """Return the last line of a run that a stop of the bot ended."""
        if self.is_paper:
            return f"Stopped by {stopped_by}. trimtab paper starts it again."
        return (
            "The bot was stopped (trimtab stop), so this run ends. To start it again: trimtab"
            " resume, then trimtab run --send."
        )

    @property
    def signal_text(self) -> str:
        """The last line of a run that a signal ended."""
        if self.is_paper:
            return "Stopped. Paper trading sent nothing."
        if not self.send:
            return "Stopped. This dry run sent nothing."
        return "Stopped. Sent transactions are in the journal; the next run settles them."


@dataclass(frozen=True, slots=True)
class CycleRun:
    """An open run with its reports. A run that sends has `controls`, the queue that it carries
    out.
    """

    agent: Agent
    clock: StoppableClock
    options: RunOptions
    service: RunEventHandler
    spinner: Spinner
    controls: ControlRunner | None

    def show_cycles(self, confirm: Confirm, style: PrintStyle) -> int:
        """Run cycles until the bot is stopped, and report and print each one. Returns the exit code
        of the last.
        """
        exit_code = 0
        printer = CyclePrinter(self.agent, style, self.clock, may_send=self.options.send)
        with closing(self._start(confirm)) as cycle_results:
            for cycle_result in cycle_results:
                self.service.on_cycle(cycle_result)
                if self.controls is not None and self.controls.has_offer:
                    self.service.on_offer()
                with self.spinner.hidden():
                    exit_code = printer.show(cycle_result, is_logged=self.service.is_logging)
                    self._show_notes()
                self.clock.raise_if_stopping()
        self.service.report_controls()  # a stop control, which no further cycle would report
        self._show_notes()
        if not self.options.once:  # only a stop ends the cycles
            stop_control_by = self.controls.stopped_by if self.controls is not None else ""
            self.service.stopped_by = stop_control_by or "trimtab stop"
        return exit_code

    def _start(self, confirm: Confirm) -> Generator[StepOutcome | TrimtabError, None, None]:
        def progress(stage: str) -> None:
            self.service.on_stage(stage)
            if err.is_terminal or not self.service.is_logging:
                self.spinner.update(stage)

        notes_waits = self.options.once and not self.service.is_logging
        return self.agent.run(
            send=self.options.send,
            confirm=confirm,
            every=self.options.every_text,
            once=self.options.once,
            progress=noting_waits(progress) if notes_waits else progress,
            controls=self.controls,
        )

    def _show_notes(self) -> None:
        """Print the notes of the last cycle, unless they were logged."""
        for line in self.service.pop_screen_notes():
            if not self.service.is_logging:
                note(line)


@contextmanager
def open_run(
    agent_context: AbstractContextManager[Agent], clock: StoppableClock, options: RunOptions
) -> Iterator[CycleRun]:
    """Open a run, and report its beginning and end."""
    with (
        clock.listening(),
        agent_context as agent,
        api.report_run(
            agent,
            clock,
            options.every_text,
            sends=options.send,
            once=options.once,
            log_format=options.log_style,
            complete=completed_hints,
        ) as service,
        show_spinner(READING_CHAIN_TEXT) as spinner,
    ):
        controls = api.ControlRunner(agent) if options.send else None
        yield CycleRun(agent, clock, options, service, spinner, controls)


def run_loop(
    agent_context: AbstractContextManager[Agent],
    clock: StoppableClock,
    make_confirm: Callable[[CycleRun], Confirm],
    options: RunOptions,
    style: PrintStyle,
) -> int:
    """Run cycles until stopped and report each one. Returns exit code 0 once stopped, else that of
    the last cycle.
    """
    is_logging = False
    try:
        with open_run(agent_context, clock, options) as cycle_run:
            is_logging = cycle_run.service.is_logging
            exit_code = cycle_run.show_cycles(make_confirm(cycle_run), style)
        if options.once:
            return exit_code
        end_text = options.stop_text(cycle_run.service.stopped_by)
    except api.StopRequested:
        end_text = options.signal_text
    if not is_logging:
        note(end_text)
    return 0


class CyclePrinter:
    """Prints the cycles of a run, each with its time; in one line if the result equals that of the
    last cycle.
    """

    def __init__(
        self, agent: Agent, style: PrintStyle, clock: StoppableClock, *, may_send: bool
    ) -> None:
        """`may_send` is True if the run may send."""
        self._agent = agent
        self._style = style
        self._clock = clock
        self._may_send = may_send
        self._last_result: tuple[object, ...] = ()

    def show(self, cycle_result: StepOutcome | TrimtabError, *, is_logged: bool) -> int:
        """Print a cycle, unless it was logged and no documents were requested. Returns its exit
        code.
        """
        if isinstance(cycle_result, TrimtabError):
            exit_code = cycle_result.exit_code
        else:
            exit_code = OUTCOME_EXIT_CODES.get(cycle_result.kind.value, 0)
        if is_logged and not self._style.as_json:
            return exit_code
        if self._style.one_line and not self._style.as_json and self._show_heading(cycle_result):
            return exit_code
        if isinstance(cycle_result, TrimtabError):
            return print_error(cycle_result, self._style.as_json, one_line=self._style.one_line)
        return show_outcome(cycle_result, self._agent, self._style, send_allowed=self._may_send)

    def _show_heading(self, cycle_result: StepOutcome | TrimtabError) -> bool:
        """Print the cycle's time, and the result if it is that of the last cycle. Returns whether
        nothing else is to be printed.
        """
        time_text = f"{utc_text(self._clock.now_s())} UTC"
        previous_result = self._last_result
        self._last_result = _comparable_result(cycle_result)
        is_repeated = bool(self._last_result) and self._last_result == previous_result
        if isinstance(cycle_result, TrimtabError):
            note(f"{time_text}, as before: {cycle_result.message}" if is_repeated else time_text)
        elif is_repeated:
            say(f"{time_text}, as before: {cycle_result.kind.value}: {format_reason(cycle_result)}")
        else:
            say(time_text)
        return is_repeated


def _comparable_result(cycle_result: StepOutcome | TrimtabError) -> tuple[object, ...]:
    """Return the result of a cycle, to compare it with the next; empty if the cycle is always
    printed in full, as one with transactions is.
    """
    if isinstance(cycle_result, TrimtabError):
        return (cycle_result.exit_code, cycle_result.message, cycle_result.remedy)
    if cycle_result.transactions:
        return ()
    planned_trades = (
        None
        if cycle_result.plan is None
        else (
            cycle_result.plan.legs,
            cycle_result.plan.layer_actions,
            [layer for layer in cycle_result.plan.layers if layer.acts],
        )
    )
    return (
        cycle_result.kind,
        cycle_result.reason,
        planned_trades if cycle_result.kind.value == "planned" else None,
    )


@command(Heading.LOOK, 18)
@interruptible
def health(
    config: ConfigPaths = None,
    ready: Annotated[
        bool,
        typer.Option(
            "--ready",
            help="Also fail while paused, in a dry run, and before the first successful cycle.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checks that trimtab run is alive and healthy, by the report that it writes to the store after
    each cycle. Needs neither a server nor the chain.

    Exit code 0 if it is, 15 if not, 2 or 12 if config or store cannot be read.
    """

    def ask_one(path: Path) -> PortfolioAnswer:
        document = api.run_health(path, ready=ready)

        def show() -> None:
            say(_health_text(document, ready=ready))
            for reason in document["reasons"]:
                say(f"  {reason}")

        return PortfolioAnswer(document, show, 0 if document["ok"] else EXIT_UNHEALTHY)

    answer_for_each(config, as_json, ask_one)


def _health_text(document: Mapping[str, Any], *, ready: bool) -> str:
    """Return the answer in a line."""
    is_dry_run = document["sends"] is False
    if not document["ok"]:
        if ready:  # a reason names the dry run
            return "NOT READY:"
        return "UNHEALTHY, a dry run:" if is_dry_run else "UNHEALTHY:"
    last_good_age_s = document["last_good_cycle_s"]
    last_cycle_text = (
        "no cycle yet"
        if last_good_age_s is None
        else f"last successful cycle {rough_duration(int(last_good_age_s))} ago"
    )
    pause_note = ", paused" if document["paused"] else ""
    dry_run_note = " A dry run: it sends nothing." if is_dry_run else ""
    cycle_count_text = f"{document['cycles']} cycle{'' if document['cycles'] == 1 else 's'}"
    return f"{'Ready' if ready else 'Healthy'}: {cycle_count_text}, {last_cycle_text}{pause_note}.{dry_run_note}"


PAPER_BANNER = (
    "PAPER: prices and pools of the chain, simulated transactions. No key is read, nothing is"
    " signed, nothing is sent."
)


@command(Heading.TEST, 40)
def paper(
    config: ConfigPath = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Run one step, then exit.")] = False,
    every: Annotated[
        str, typer.Option("--every", help="Interval between cycles, such as 10m.")
    ] = "10m",
    value: Annotated[
        str,
        typer.Option(
            "--value", help="Start with this value in the numeraire, spread over the targets."
        ),
    ] = "",
    start: Annotated[
        str, typer.Option("--start", help="Start with these balances: BTC=0.5,USDC=1000.")
    ] = "",
    native: Annotated[
        str,
        typer.Option(
            "--native", help="Native coins for gas, with --value or --start; 1 if omitted."
        ),
    ] = "",
    margin: Annotated[
        str, typer.Option("--margin", help="Start with this collateral in the margin account.")
    ] = "",
    verbose: Verbose = False,
    as_json: AsJson = False,
    log_format: LogFormatOption = None,
    record: RecordFolder = None,
) -> None:
    """Paper-trades like run --send: on exact pools of the next block, with its own wallet and
    ledger.

    It starts with the real wallet's balances and margin account, or with --value, --start and
    --margin. Its ledger is in paper.db beside trimtab.db, or in NAME.paper.db beside NAME.db;
    status, plan, orders, positions, margin, funding, history, explain, pnl and export show it with
    --paper. Without --once it runs until stopped. Sends no alerts.
    """
    clock = api.StoppableClock()
    agent_context = api.open_paper(
        config, api.PaperStart(value, start, native, margin), clock=clock, record_folder=record
    )
    note(PAPER_BANNER)

    options = RunOptions(True, every, once, log_format, is_paper=True)
    style = PrintStyle(as_json, verbose, one_line=not once)
    exit_code = run_loop(agent_context, clock, lambda _: api.always_confirm, options, style)
    raise typer.Exit(exit_code)


MAX_VALUE_CHARS = 120
"""Maximum number of characters printed of a value. The JSON document has all of them."""
RESULT_STYLES = {
    "same": "green",
    "reworded": "green",
    "different": "bold red",
    "manual": "dim",
    "unreadable": "yellow",
}


@command(Heading.TEST, 50)
@interruptible
def replay(
    folder: Annotated[
        Path, typer.Argument(help="A folder of recorded steps: record.dir, or run --record DIR.")
    ],
    as_json: AsJson = False,
) -> None:
    """Replays recorded steps with this version and reports differences. Only needs the files: no
    config, no chain.

    Exit code 0 if all decisions match, 14 if one differs, 2 if a file is not a step and none
    differs.
    """
    with show_spinner("Replaying"):
        document = api.replay(folder)
    emit(document, as_json, lambda: _show_replay(document))
    raise typer.Exit(int(document["exit"]))


def _show_replay(document: Document) -> None:
    from agent.cli.display import tables

    table = tables.table(
        "Recorded steps",
        ("file", "command", "recorded", "now"),
        ("block",),
        column_order=("file", "block", "command", "recorded", "now"),
    )
    for step in document["steps"]:
        replay_result = step["result"]
        text_cells = (
            safe_text(step.get(step_key) or "") for step_key in ("requested_by", "decision")
        )
        table.add_row(
            step["file"],
            str(step.get("block", "")),
            *text_cells,
            safe_text(replay_result, RESULT_STYLES[replay_result]),
        )
    out.print(table)
    for step in document["steps"]:
        if step["result"] == "unreadable":
            say(f"{step['file']}: {step['why']}")
        for difference in step.get("differs", ()):
            say(
                f"{step['file']}: {difference['path']} was {_truncated(difference['recorded'])}, is now"
                f" {_truncated(difference['now'])}"
            )
        if step.get("more_differences"):
            say(f"{step['file']}: and {step['more_differences']} more")
    say(
        f"{document['same']} same, {document['reworded']} reworded,"
        f" {document['different']} different, {document['manual']} manual"
        f" and not replayed, {document['unreadable']} unreadable."
    )


def _truncated(json_value: object) -> str:
    value_text = json_value if isinstance(json_value, str) else json.dumps(json_value)
    return value_text if len(value_text) <= MAX_VALUE_CHARS else f"{value_text[:MAX_VALUE_CHARS]}…"


alerts_group = command_group(
    Heading.LOOK,
    70,
    "alerts",
    "Shows alert prices of each asset, alert targets, and delivered messages.",
    has_default=True,
)


@alerts_group.callback()
def alerts(
    context: typer.Context, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Shows alert-low and alert-high of each asset with their distance, lasting alerts, and the
    deliveries of each target.
    """
    if context.invoked_subcommand is not None:
        return

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
        document = api.alerts(agent)

    def show() -> None:
        out.print(_assets_table(document))
        if document["targets"]:
            out.print(_targets_table(document))
        else:
            say("No alert targets configured: add [[alerts.targets]] (docs/alerts.md).")
        for alert in document["open"]:
            pending_note = " (not sent yet)" if alert["pending"] else ""
            out.print(safe_text(f"{alert['since'] or 'before'}: {alert['text']}{pending_note}"))

    emit(document, as_json, show)


@alerts_group.command()
def test(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Sends a test message to each target. Exit code 11 if one was not delivered."""
    with show_spinner("Sending to each target"):
        document = api.send_test_alerts(config)

    def show() -> None:
        for target in document["targets"]:
            delivery_text = (
                "delivered" if target["delivered"] else f"NOT delivered, {target['why']}"
            )
            say(f"{target['name']}: {delivery_text}")

    emit(document, as_json, show)
    if not document["reached"]:
        note(
            "  What to do: check the address in its variable, and that the service is up; then try"
            " again"
        )
        raise typer.Exit(EXIT_RETRYABLE)


def _assets_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    return tables.document_table(
        "Alert prices",
        columns(
            "AssetAlertDocument",
            "symbol",
            "side",
            "price",
            "alert_low",
            "to_low_bps",
            "alert_high",
            "to_high_bps",
        ),
        document["assets"],
        {
            "side": lambda asset: safe_text(
                asset["side"], "bold red" if asset["side"] in ("below", "above") else ""
            )
        },
    )


def _targets_table(document: Document) -> FigureTable:
    from agent.cli.display import tables

    def name_text(target: Document) -> str:
        missing_text = "" if target["ready"] else f" ({target['url_env']} is not set)"
        return f"{target['name']}{missing_text}"

    def failure_text(target: Document) -> str:
        if not target["failures_in_row"]:
            return str(target["failed"] or "never")
        return f"{target['failed']}: {target['why']}, {target['failures_in_row']} in a row"

    return tables.document_table(
        "Targets",
        columns("AlertTargetDocument", "name", "events", "delivered", "failed", "waiting", "lost"),
        document["targets"],
        {
            "name": name_text,
            "events": lambda target: ", ".join(target["events"]),
            "delivered": lambda target: target["delivered"] or "never",
            "failed": failure_text,
        },
    )
