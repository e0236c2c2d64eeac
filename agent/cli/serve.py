"""Commands that run a server: dashboard and API, Telegram bot, assistants; the units that run them;
users of the dashboard, and tokens of the API.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import app as api
from agent.cli.display.terminal import (
    emit,
    hidden_prompt,
    interruptible,
    note,
    out,
    safe_text,
    say,
    say_whole,
    spaced_time,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ConfigPaths,
    Heading,
    PasswordDescriptor,
    PasswordEnv,
    command,
    command_group,
    paper_hints,
)
from agent.errors import ConfigError
from agent.key_variables import drop_key_variables
from agent.units import rough_duration

if TYPE_CHECKING:
    from agent.web.api.tokens import TokenFile


@command(Heading.LOOK, 15)
def serve(
    config: ConfigPaths = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; beyond this machine it needs users and TLS."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Certificate with its chain (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="Key of the certificate (PEM, mode 0600).")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Host name that browsers use (TLS), if it is not --host."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option("--proxy", help="Host name of the TLS proxy, with its port unless 443."),
    ] = None,
    proxy_secret: Annotated[
        Path | None,
        typer.Option("--proxy-secret", help="File (mode 0600) of the secret that the proxy sends."),
    ] = None,
    setup: Annotated[
        bool,
        typer.Option("--setup", help="Write a new config in the browser, as trimtab init does."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serves the dashboard to a browser until stopped. Without users (trimtab user add) it is
    read-only and on this machine only. It never loads a key.
    """
    from agent.fleet.configs import find_configs
    from agent.web.reach import PublicOptions
    from agent.web.server import serve_dashboard, serve_portfolios, serve_setup

    if setup:
        if tls_cert or tls_key or name or proxy or proxy_secret or len(config or ()) > 1:
            raise ConfigError(
                "--setup: only with one --config, --host and --port",
                "write the config first, then serve it",
            )

        drop_key_variables([])

        def show_setup_url(address: str) -> None:
            set_up_line = f"Set-up: {address} (in a browser of this machine; it opens once)."
            emit({"url": address}, as_json, lambda: say(f"{set_up_line} Stop with Ctrl-C."))

        setup_config = (config or [DEFAULT_CONFIG])[0]
        serve_setup(setup_config, host, port, show_setup_url, paper_hints(setup_config))
        return

    public_options = PublicOptions(tls_cert, tls_key, proxy, name, proxy_secret)

    def show_dashboard(dashboard_url: str, extra_fields: Mapping[str, Any]) -> None:
        def show() -> None:
            say(f"Dashboard: {dashboard_url}. Stop with Ctrl-C.")
            if out.is_terminal and dashboard_url.startswith("https:"):
                say("On a phone, open it by this code, which holds the address only:")
                for line in _qr_code(dashboard_url):
                    say_whole(line)

        emit({"url": dashboard_url, **extra_fields}, as_json, show)

    def show_portfolios(dashboard_url: str, portfolios: list[dict[str, str]]) -> None:
        show_dashboard(dashboard_url, {"portfolios": portfolios})
        for portfolio in portfolios:
            if portfolio["error"]:
                note(f"{portfolio['name']}: {portfolio['error']}. The server tries again.")

    configs = find_configs(config)
    folders = [path for path in config or () if path.is_dir()]
    drop_key_variables(configs)
    if len(configs) == 1 and not folders:
        serve_dashboard(
            configs[0], host, port, lambda address: show_dashboard(address, {}), public_options
        )
    else:
        folder = folders[0] if len(folders) == 1 else None
        serve_portfolios(configs, host, port, show_portfolios, public_options, folder)


@command(Heading.LOOK, 15)
@interruptible
def telegram(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Serves the Telegram bot until stopped: status, plans, pause, resume and confirmations from
    allowed chats. It never loads a key; trimtab run --send carries out the requests.
    """
    drop_key_variables([config])
    api.serve_telegram(config, lambda: note("Telegram bot started. Stop with Ctrl-C."))


@command(Heading.LOOK, 17)
def docs(
    code: Annotated[
        str | None, typer.Argument(help="Code of an error or name of a guard, to print and open.")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 0,
) -> None:
    """Serves the documentation to a browser of this machine until stopped. CODE, of an error or a
    guard, prints its entry first; that alone needs no built site, and without a terminal it is all.
    """
    from agent.artifacts import documentation_site
    from agent.web.documentation import REFUSALS_PAGE, refusal_entry, serve_documentation
    from agent.web.stopping import end_at_signal

    drop_key_variables([])
    page_path = ""
    if code:
        page_path = f"{REFUSALS_PAGE}#{code}"
        for line in refusal_entry(code):
            say(f"{code}: {line}")
        if not sys.stdout.isatty():
            return
    try:
        site = documentation_site()
    except ConfigError:
        if code:
            return  # its entry is printed
        raise
    with end_at_signal():
        serve_documentation(
            site,
            port,
            lambda address: say_whole(f"Documentation: {address}{page_path} (stop with Ctrl-C)"),
        )


class UnitService(StrEnum):
    """Commands that a unit runs."""

    RUN = "run"
    SERVE = "serve"
    TELEGRAM = "telegram"


@command(Heading.SET_UP, 65)
def install(
    services: Annotated[
        list[UnitService] | None,
        typer.Argument(
            help="Commands to run; default: run, serve if its extra is installed, telegram if the"
            " config has it.",
            show_default=False,
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    every: Annotated[
        str, typer.Option("--every", help="Interval between cycles, such as 10m.")
    ] = "10m",
    send: Annotated[
        bool, typer.Option("--send", help="The run signs and sends; needs --yes or --offer.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="The run does not ask.")] = False,
    offer: Annotated[
        bool, typer.Option("--offer", help="The run offers each plan, as trimtab run --offer.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="Name of the units, one for each config.")
    ] = "trimtab",
    system: Annotated[
        bool,
        typer.Option(
            "--system", help="Units of the system, as the owner of the config; needs root."
        ),
    ] = False,
    env_file: Annotated[
        Path | None,
        typer.Option("--env-file", help="File of variables (mode 0600) that systemd reads."),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Stop and remove the units of this config.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Do it. Without it the files are only shown.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Installs and starts systemd units for run, serve and telegram. Shows them first; nothing
    changes without --write.

    Units of the user by default. They are hardened, and start again after every failure that a
    start can mend. With --send the run trades unattended.
    """
    if send != (yes != offer) or (yes and offer):
        raise ConfigError(
            "--send: a service cannot ask before it sends, so it needs --yes or --offer",
            "give --send --yes, --send --offer, or none of them for a dry run",
        )
    flags = {"--send": send, "--yes": yes, "--offer": offer}
    run_options = tuple(flag for flag, is_set in flags.items() if is_set)
    unit_options = api.UnitOptions(name, run_options, system, env_file)
    if remove:
        document = api.remove_units(config, unit_options, write=write)
    else:
        service_names = [service.value for service in services or ()]
        document = api.install_units(config, service_names, every, unit_options, write=write)

    def show() -> None:
        for unit in document["units"]:
            out.print(safe_text(unit["path"], "bold"))
            if not write and not remove:
                typer.echo(unit["text"])
        for shell_command in document["commands"]:
            say_whole(f"{'Done' if write else 'Would run'}: {shell_command}")

    emit(document, as_json, show)
    if not write:
        note("Nothing was changed: add --write.")


UserName = Annotated[str, typer.Argument(help="The user's name.")]
user_group = command_group(
    Heading.LOOK,
    16,
    "user",
    "Users of the dashboard. With users it requires a login; without, it is read-only.",
)


@user_group.command("add")
def add_user(
    name: UserName,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="The user sees all pages and controls nothing.")
    ] = False,
    password_env: PasswordEnv = None,
    password_fd: PasswordDescriptor = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Adds a user, with a password typed hidden, and shows the secret of its one-time codes
    once.
    """
    new_user = api.add_user(
        config,
        name,
        api.PasswordSource(password_env, password_fd),
        hidden_prompt(),
        read_only=read_only,
    )

    def show() -> None:
        say(f"Added {name}{' (read-only)' if read_only else ''}.")
        say("Scan this with an authenticator app (TOTP), or enter it. It is not shown again:")
        if out.is_terminal:
            for line in _qr_code(new_user["otpauth"]):
                say_whole(line)
        say_whole(new_user["otpauth"])

    emit(new_user, as_json, show)


def _qr_code(uri: str) -> list[str]:
    """Return the QR code of a text as lines of half blocks; empty without the package."""
    try:
        import segno
    except ImportError:
        return []
    buffer = io.StringIO()
    segno.make(uri, error="l", micro=False).terminal(buffer, compact=True)
    return buffer.getvalue().splitlines()


@user_group.command("list")
def list_users(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lists the users with their roles and lock-outs."""
    from agent.cli.display import tables

    document = api.list_users(config)

    def show() -> None:
        table = tables.table(
            "Users",
            ("name", "role", "added (UTC)", "locked out"),
            (),
            rows=(
                (
                    user["user"],
                    "read-only" if user["read_only"] else "full",
                    user["created"],
                    rough_duration(user["locked_s"]) if user["locked_s"] else "no",
                )
                for user in document["users"]
            ),
        )
        if document["users"]:
            out.print(table)
        else:
            say(
                "No users: the dashboard is read-only, on this machine only."
                " To add one: trimtab user add NAME"
            )

    emit(document, as_json, show)


@user_group.command("remove")
def remove_user(
    name: UserName, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False
) -> None:
    """Removes a user and ends its sessions."""
    document = api.remove_user(config, name)
    warning = ""
    if not document["remaining"]:
        warning = (
            " No users are left: a running trimtab serve still asks for a login, which no one has;"
            " restart it, or add a user."
        )
    emit(document, as_json, lambda: say(f"Removed {name}.{warning}"))


@user_group.command("log")
def user_log(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, help="Number of events.")
    ] = 50,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Shows logins, lock-outs and controls, newest first."""
    from agent.cli.display import tables

    document = api.user_log(config, limit)

    def show() -> None:
        table = tables.table("Log", ("time (UTC)", "event", "user", "address", "detail"), ())
        for event in document["events"]:
            event_time = spaced_time(event["time"])
            cells = (event[key] for key in ("event", "user", "address", "detail"))
            table.add_row(event_time, *map(safe_text, cells))
        if document["events"]:
            out.print(table)
        else:
            say("No events.")

    emit(document, as_json, show)


TokenName = Annotated[str, typer.Argument(help="Name of the token.")]
token_group = command_group(Heading.SET_UP, 70, "token", "Tokens of the API: add, list, revoke.")


@token_group.command()
def add(
    name: TokenName,
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="What it may do: read, plan or control; repeatable."),
    ],
    expires: Annotated[
        str, typer.Option("--expires", help="Time until it expires, at most 366d.")
    ] = "90d",
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--from", help="Address or network that may use it: 10.0.0.0/8; repeatable; else any."
        ),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Adds a token for the API of trimtab serve and shows it once; only its hash is stored."""
    from agent.config.tables.fields import parse_duration_s

    token_file = _token_file(config)
    lifetime_s = parse_duration_s(expires, "--expires")
    token_record, token_text = token_file.add(
        name, scope, lifetime_s, int(time.time()), networks or ()
    )
    document = {**token_record.document(int(time.time())), "token": token_text}
    api.record_token_added(config, name, document["scopes"])

    def show() -> None:
        say(f"{name}: {', '.join(document['scopes'])}, until {document['expires']} UTC.")
        say("This is the only time that the token is shown:")
        say_whole(token_text)

    emit(document, as_json, show)


@token_group.command("list")
def list_tokens(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Lists the tokens with scopes, expiry and state."""
    now_s = int(time.time())
    document = {
        "tokens": [token_record.document(now_s) for token_record in _token_file(config).tokens()]
    }

    def show() -> None:
        from agent.cli.display import tables

        out.print(
            tables.table(
                "Tokens",
                ("name", "scopes", "from", "created (UTC)", "expires (UTC)", "state"),
                rows=(
                    (
                        token_record["name"],
                        ", ".join(token_record["scopes"]),
                        ", ".join(token_record["networks"]) or "any address",
                        token_record["created"],
                        token_record["expires"],
                        token_record["state"],
                    )
                    for token_record in document["tokens"]
                ),
            )
        )

    emit(document, as_json, show)


@token_group.command()
def revoke(name: TokenName, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Revokes a token at once; a running server refuses it from the next request on."""
    now_s = int(time.time())
    document = _token_file(config).revoke(name, now_s).document(now_s)
    api.end_token_access(config, name)
    emit(document, as_json, lambda: say(f"{name} is revoked."))


def _token_file(config: Path) -> TokenFile:
    """Return the tokens of the config's store."""
    from agent.app.dashboard import require_store
    from agent.web.api.tokens import TokenFile

    return TokenFile(Path(require_store(config)))


@command(Heading.LOOK, 16)
@interruptible
def mcp(
    allow_controls: Annotated[
        bool,
        typer.Option(
            "--allow-controls",
            help="Let assistants queue pause, rebalance, confirm and invest for trimtab run.",
        ),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Answers assistants over stdin and stdout (Model Context Protocol): status, plan, explain,
    history, pnl, controls. It sends nothing, and never loads a key.
    """
    from agent.web.api.assistant import serve_assistant

    drop_key_variables([config])
    serve_assistant(str(config), allow_controls)
