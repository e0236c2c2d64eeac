"""Units of systemd for `trimtab run`, `serve` and `telegram`: their text, and their installation."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_config_path, user_state_path

from agent.app.documents.owner import UnitsDocument
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig, sqlite_file
from agent.config.tables.fields import parse_duration_s
from agent.errors import EXIT_OPERATOR, EXIT_USAGE, ConfigError, OperatorNeeded
from agent.key_variables import named_key_variables
from agent.store.files.locks import make_private

SYSTEM_FOLDER = Path("/etc/systemd/system")
_SAFE_PATH = re.compile(r"/[\w.+@/-]+", re.ASCII)
"""Paths that systemd reads as they are: without blanks, quotes, `%` and `$`."""
_SAFE_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")

_PASSWORDS = ("TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_AGENT_PASSWORD")
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
"""Folders that ProtectHome hides."""

_UNIT = f"""\
# Written by trimtab install, which overwrites it. Changes of your own: systemctl edit.
[Unit]
Description=trimtab {{service}} of {{config}}
{{unit_lines}}# More than five starts in an hour need an operator.
StartLimitIntervalSec=1h
StartLimitBurst=5

[Service]
{{service_lines}}WorkingDirectory={{folder}}
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart={{command}}
KillSignal=SIGTERM
Restart=on-failure
RestartSec=30s
# Wrong config, operator needed: another start would change nothing.
RestartPreventExitStatus={EXIT_USAGE} {EXIT_OPERATOR}

UMask=0077
LimitCORE=0
MemoryMax=2G
ReadWritePaths={{writable}}
ProtectSystem=strict
PrivateUsers=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @mount @debug
SystemCallErrorNumber=EPERM
{{manager_lines}}
[Install]
WantedBy={{target}}
"""
_RUN_LINES = """\
# SIGTERM ends a run at a safe point. Its watch feeds systemd's; a hung cycle ends it with 13 by itself.
Type=notify
NotifyAccess=main
TimeoutStartSec=10min
TimeoutStopSec=5min
WatchdogSec=5min
"""
_SYSTEM_LINES = """\
CapabilityBoundingSet=
AmbientCapabilities=
ProtectHostname=yes
ProtectClock=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectProc=invisible
ProcSubset=pid
RemoveIPC=yes
"""
"""Settings that a user's service manager does not offer."""
_NETWORK_LINES = """\
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target
"""


SERVICES = ("run", "serve", "telegram")
"""Commands that a unit runs."""


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """Options of units: `name` begins the names of all, `run_options` follow `trimtab run`.
    `is_system` selects the system's service manager, where units run as the owner of the config.
    `env_file` is a file of variables that systemd reads.
    """

    name: str
    run_options: tuple[str, ...]
    is_system: bool
    env_file: Path | None

    @property
    def folder(self) -> Path:
        """The folder of the units."""
        return SYSTEM_FOLDER if self.is_system else user_config_path("systemd") / "user"

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command of the service manager."""
        return ("systemctl",) if self.is_system else ("systemctl", "--user")

    def file_name(self, service: str) -> str:
        """Return the file name of a service's unit; that of the run has the name alone."""
        suffix = "" if service == "run" else f"-{service}"
        return f"{self.name}{suffix}.service"


def install_units(
    config: Path, services: Sequence[str], every: str, options: UnitOptions, *, write: bool
) -> UnitsDocument:
    """Return the units of these services, by default all that the config and the installed packages
    allow; with `write`, write them and start them.

    Raises ConfigError for a config, path or option that a unit cannot have, or a unit of another
    config; OperatorNeeded if a service does not start.
    """
    parse_duration_s(every, "--every")
    loaded = load_config(config, checks_permissions=not options.is_system)
    if options.env_file is not None:
        if not options.env_file.is_file():
            raise ConfigError(
                f"--env-file: {options.env_file}: no such file", "create it, mode 0600"
            )
        make_private(options.env_file, "--env-file")
    if not services:
        allowed = {
            "run": True,
            "serve": find_spec("uvicorn") is not None,
            "telegram": loaded.config.telegram is not None,
        }
        services = [service for service in SERVICES if allowed[service]]
    texts = {
        options.folder / options.file_name(service): _unit_text(service, loaded, every, options)
        for service in services
    }
    names = [path.name for path in texts]
    commands = [
        [*options.systemctl, "daemon-reload"],
        [*options.systemctl, "enable", *names],
        [*options.systemctl, "restart", *names],
    ]
    if not options.is_system:  # else the units end with the user's last session
        commands.insert(0, ["loginctl", "enable-linger"])
    for path in texts:
        _require_ours(path, loaded.path)
    if write:
        _require_systemctl()
        store = sqlite_file(loaded.config.store.url, loaded.path.parent)
        if store is not None and not store.exists():
            raise ConfigError(f"store: {store} does not exist", "run trimtab trust first")
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
            if not options.is_system:
                user_state_path("trimtab").mkdir(mode=0o700, parents=True, exist_ok=True)
            for path, text in texts.items():
                path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{options.folder}: {error}", "with --system, run it as root"
            ) from None
        _run_all(commands, names[0], options)
    return _document(texts, commands, done=write)


def remove_units(config: Path, options: UnitOptions, *, write: bool) -> UnitsDocument:
    """Return the units of that name and config that are installed; with `write`, stop and remove
    them. Raises ConfigError if there is none, or a unit of another config.
    """
    paths = [options.folder / options.file_name(service) for service in SERVICES]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
    if not texts:
        raise ConfigError(f"{paths[0]}: there is no such unit", "name the units with --name")
    for path in texts:
        _require_ours(path, config.resolve())
    commands = [[*options.systemctl, "disable", "--now", *(path.name for path in texts)]]
    if write:
        _require_systemctl()
        _run_all(commands, paths[0].name, options)
        for path in texts:
            path.unlink()
        _run_all([[*options.systemctl, "daemon-reload"]], paths[0].name, options)
    return _document(texts, commands, done=write)


def _unit_text(service: str, loaded: LoadedConfig, every: str, options: UnitOptions) -> str:
    program, path, folder = (
        Path(sys.executable).with_name("trimtab"),
        loaded.path,
        loaded.path.parent,
    )
    words, lines = [str(program), service, "--config", str(path)], ["Type=exec"]
    if service == "run":
        words += ["--every", every, *options.run_options]
        lines = _RUN_LINES.splitlines()
        if loaded.config.service.log_format is None:
            words += ["--log-format", "json"]
    writable = {folder, *_written_folders(loaded)}
    if options.is_system:
        if (owner := path.owner()) == "root":
            raise ConfigError(
                f"--system: {path} belongs to root, and units run as the owner of the config",
                "give the folder to a user of its own: chown -R",
            )
        lines += [f"User={owner}", f"Environment=XDG_STATE_HOME={folder}"]
    else:
        writable.add(user_state_path("trimtab"))
    named_paths = [program, *writable]
    if options.env_file is not None:
        named_paths.append(env_file := options.env_file.resolve())
        lines.append(f"EnvironmentFile={env_file}")
    if service != "run":  # needs no key
        keystores = [folder / name for name in named_key_variables(loaded.values, "keystore")]
        named_paths += keystores
        lines += [f"InaccessiblePaths=-{keystore}" for keystore in keystores]
        variables = (*_PASSWORDS, *named_key_variables(loaded.values))
        lines.append(f"UnsetEnvironment={' '.join(variables)}")
    is_at_home = any(named.is_relative_to(home) for named in named_paths for home in _HOMES)
    lines.append(f"ProtectHome={'read-only' if is_at_home else 'yes'}")
    if not _SAFE_NAME.fullmatch(options.name):
        raise ConfigError(
            f"--name: {options.name!r} is not a name of units",
            "use a-z, digits and -, such as trimtab",
        )
    for named in (path, *named_paths):
        if not _SAFE_PATH.fullmatch(str(named)):
            raise ConfigError(
                f"{named}: systemd would misread this path",
                "use folders and files named by letters, digits and . _ + @ -",
            )
    return _UNIT.format(
        service=service,
        config=path,
        unit_lines=_NETWORK_LINES if options.is_system else "",
        service_lines="".join(f"{line}\n" for line in lines),
        folder=folder,
        command=shlex.join(words),
        writable=" ".join(f"-{named}" for named in sorted(writable)),
        manager_lines=_SYSTEM_LINES if options.is_system else "",
        target="multi-user.target" if options.is_system else "default.target",
    )


def _written_folders(loaded: LoadedConfig) -> list[Path]:
    """Return the folders that the config names for files that commands write."""
    config, folder = loaded.config, loaded.path.parent
    folders = []
    if (store := sqlite_file(config.store.url, folder)) is not None:
        folders.append(store.parent)
    if config.record is not None:
        folders.append(folder / config.record.dir)
    if config.wallet.mode == "propose":
        folders.append(loaded.proposals_path)
    return folders


def _require_ours(path: Path, config: Path) -> None:
    """Raise ConfigError if there is a unit at `path` that is not of this config."""
    with suppress(FileNotFoundError):
        if str(config) not in path.read_text(encoding="utf-8").split():
            raise ConfigError(
                f"{path}: is not a unit of {config}", "choose another --name for this config"
            )


def _require_systemctl() -> None:
    if shutil.which("systemctl") is None:
        raise ConfigError(
            "systemctl: not found, so this machine has no systemd",
            "use its service manager with the command in ExecStart, or the container",
        )


def _run_all(commands: Sequence[Sequence[str]], unit: str, options: UnitOptions) -> None:
    for command in commands:
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  fixed words and checked names
        if process.returncode != 0:
            log = "journalctl" if options.is_system else "journalctl --user"
            raise OperatorNeeded(
                f"{shlex.join(command)}: {process.stderr.strip() or process.returncode}",
                f"see {log} -u {unit}, correct the cause, then repeat this",
            )


def _document(
    texts: dict[Path, str], commands: Sequence[Sequence[str]], *, done: bool
) -> UnitsDocument:
    return {
        "units": [{"path": str(path), "text": text} for path, text in texts.items()],
        "commands": [shlex.join(command) for command in commands],
        "done": done,
    }
