"""Units of systemd for `trimtab run`, `serve` and `telegram`: their text, and their
installation.
"""

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

from agent.app.documents.owner import SystemdUnitsDocument
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig, sqlite_file
from agent.config.tables.fields import parse_duration_s
from agent.errors import EXIT_OPERATOR, EXIT_USAGE, ConfigError, OperatorNeeded
from agent.foreign_text import failure_words
from agent.key_variables import named_key_variables
from agent.store.files.locks import MACHINE_FOLDERS, make_private, require_trusted_writers

SYSTEM_FOLDER = Path("/etc/systemd/system")
_SAFE_PATH = re.compile(r"/[\w.+@/-]+", re.ASCII)
"""Paths that systemd reads as they are: without blanks, quotes, `%` and `$`."""
_SAFE_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")

_PASSWORD_VARIABLES = ("TRIMTAB_KEYSTORE_PASSWORD", "TRIMTAB_AGENT_PASSWORD")
_HOME_FOLDERS = (Path("/home"), Path("/root"), Path("/run/user"))
"""Folders that ProtectHome hides."""

_UNIT_TEMPLATE = f"""\
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
) -> SystemdUnitsDocument:
    """Return the units of these services, by default all that the config and the installed packages
    allow; with `write`, write them and start them.

    Raises ConfigError for a config, path or option that a unit cannot have, or a unit of another
    config; OperatorNeeded if a service does not start.
    """
    parse_duration_s(every, "--every")
    loaded_config = load_config(config, checks_permissions=not options.is_system)
    if options.env_file is not None:
        if not options.env_file.is_file():
            raise ConfigError(
                f"--env-file: {options.env_file}: no such file", "create it, mode 0600"
            )
        protect = make_private if write else require_trusted_writers
        protect(options.env_file, "--env-file")
    if not services:
        is_available_by_service = {
            "run": True,
            "serve": find_spec("uvicorn") is not None,
            "telegram": loaded_config.config.telegram is not None,
        }
        services = [service for service in SERVICES if is_available_by_service[service]]
    unit_text_by_path = {
        options.folder / options.file_name(service): _unit_text(
            service, loaded_config, every, options
        )
        for service in services
    }
    unit_names = [unit_path.name for unit_path in unit_text_by_path]
    commands = [
        [*options.systemctl, "daemon-reload"],
        [*options.systemctl, "enable", *unit_names],
        [*options.systemctl, "restart", *unit_names],
    ]
    if not options.is_system:  # else the units end with the user's last session
        commands.insert(0, ["loginctl", "enable-linger"])
    for unit_path in unit_text_by_path:
        _require_same_config(unit_path, loaded_config.path)
    if write:
        _require_systemctl()
        store_path = sqlite_file(loaded_config.config.store.url, loaded_config.path.parent)
        if store_path is not None and not store_path.exists():
            raise ConfigError(f"store: {store_path} does not exist", "run trimtab trust first")
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
            if not options.is_system:
                user_state_path("trimtab").mkdir(mode=0o700, parents=True, exist_ok=True)
            for unit_path, unit_text in unit_text_by_path.items():
                unit_path.write_text(unit_text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{options.folder}: {failure_words(error)}", "with --system, run it as root"
            ) from None
        _run_commands(commands, unit_names[0], options)
    return _units_document(unit_text_by_path, commands, is_done=write)


def remove_units(config: Path, options: UnitOptions, *, write: bool) -> SystemdUnitsDocument:
    """Return the units of that name and config that are installed; with `write`, stop and remove
    them. Raises ConfigError if there is none, or a unit of another config.
    """
    unit_paths = [options.folder / options.file_name(service) for service in SERVICES]
    unit_text_by_path = {
        unit_path: unit_path.read_text(encoding="utf-8")
        for unit_path in unit_paths
        if unit_path.exists()
    }
    if not unit_text_by_path:
        raise ConfigError(f"{unit_paths[0]}: there is no such unit", "name the units with --name")
    for unit_path in unit_text_by_path:
        _require_same_config(unit_path, config.resolve())
    commands = [
        [
            *options.systemctl,
            "disable",
            "--now",
            *(unit_path.name for unit_path in unit_text_by_path),
        ]
    ]
    if write:
        _require_systemctl()
        _run_commands(commands, unit_paths[0].name, options)
        for unit_path in unit_text_by_path:
            unit_path.unlink()
        _run_commands([[*options.systemctl, "daemon-reload"]], unit_paths[0].name, options)
    return _units_document(unit_text_by_path, commands, is_done=write)


def _unit_text(service: str, loaded_config: LoadedConfig, every: str, options: UnitOptions) -> str:
    trimtab_path = Path(sys.executable).with_name("trimtab")
    config_path = loaded_config.path
    config_folder = loaded_config.path.parent
    command_words = [str(trimtab_path), service, "--config", str(config_path)]
    service_lines = ["Type=exec"]
    if service == "run":
        command_words += ["--every", every, *options.run_options]
        service_lines = _RUN_LINES.splitlines()
        if loaded_config.config.service.log_format is None:
            command_words += ["--log-format", "json"]
    writable_folders = {config_folder, MACHINE_FOLDERS[0], *_written_folders(loaded_config)}
    if options.is_system:
        try:
            owner = config_path.owner()
        except KeyError:
            raise ConfigError(
                f"--system: the owner of {config_path} is no user of this machine",
                "give the folder to a user of its own: chown -R",
            ) from None
        if owner == "root":
            raise ConfigError(
                f"--system: {config_path} belongs to root, and units run as the owner of the config",
                "give the folder to a user of its own: chown -R",
            )
        service_lines += [f"User={owner}", f"Environment=XDG_STATE_HOME={config_folder}"]
    else:
        writable_folders.add(user_state_path("trimtab"))
    named_paths = [trimtab_path, *writable_folders]
    if options.env_file is not None:
        named_paths.append(env_file := options.env_file.resolve())
        service_lines.append(f"EnvironmentFile={env_file}")
    if service != "run":  # needs no key
        keystore_paths = [
            config_folder / keystore_name
            for keystore_name in named_key_variables(loaded_config.toml_values, ("keystore",))
        ]
        named_paths += keystore_paths
        service_lines += [f"InaccessiblePaths=-{keystore_path}" for keystore_path in keystore_paths]
        secret_variables = (*_PASSWORD_VARIABLES, *named_key_variables(loaded_config.toml_values))
        service_lines.append(f"UnsetEnvironment={' '.join(secret_variables)}")
    is_at_home = any(
        named_path.is_relative_to(home_folder)
        for named_path in named_paths
        for home_folder in _HOME_FOLDERS
    )
    service_lines.append(f"ProtectHome={'read-only' if is_at_home else 'yes'}")
    if not _SAFE_NAME.fullmatch(options.name):
        raise ConfigError(
            f"--name: {options.name!r} is not a name of units",
            "use a-z, digits and -, such as trimtab",
        )
    for named_path in (config_path, *named_paths):
        if not _SAFE_PATH.fullmatch(str(named_path)):
            raise ConfigError(
                f"{named_path}: systemd would misread this path",
                "use folders and files named by letters, digits and . _ + @ -",
            )
    return _UNIT_TEMPLATE.format(
        service=service,
        config=config_path,
        unit_lines=_NETWORK_LINES if options.is_system else "",
        service_lines="".join(f"{service_line}\n" for service_line in service_lines),
        folder=config_folder,
        command=shlex.join(command_words),
        writable=" ".join(f"-{named_path}" for named_path in sorted(writable_folders)),
        manager_lines=_SYSTEM_LINES if options.is_system else "",
        target="multi-user.target" if options.is_system else "default.target",
    )


def _written_folders(loaded_config: LoadedConfig) -> list[Path]:
    """Return the folders that the config names for files that commands write."""
    config = loaded_config.config
    config_folder = loaded_config.path.parent
    written_folders = []
    if (store_path := sqlite_file(config.store.url, config_folder)) is not None:
        written_folders.append(store_path.parent)
    if config.record is not None:
        written_folders.append(config_folder / config.record.dir)
    if config.wallet.mode == "propose":
        written_folders.append(loaded_config.proposals_path)
    return written_folders


def _require_same_config(unit_path: Path, config_path: Path) -> None:
    """Raise ConfigError if there is a unit at `unit_path` that is not of this config."""
    with suppress(FileNotFoundError):
        if str(config_path) not in unit_path.read_text(encoding="utf-8").split():
            raise ConfigError(
                f"{unit_path}: is not a unit of {config_path}",
                "choose another --name for this config",
            )


def _require_systemctl() -> None:
    if shutil.which("systemctl") is None:
        raise ConfigError(
            "systemctl: not found, so this machine has no systemd",
            "use its service manager with the command in ExecStart, or the container",
        )


def _run_commands(commands: Sequence[Sequence[str]], unit_name: str, options: UnitOptions) -> None:
    for command in commands:
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  fixed words and checked names
        if process.returncode != 0:
            log_command = "journalctl" if options.is_system else "journalctl --user"
            raise OperatorNeeded(
                f"{shlex.join(command)}: {process.stderr.strip() or process.returncode}",
                f"see {log_command} -u {unit_name}, correct the cause, then repeat this",
            )


def _units_document(
    unit_text_by_path: dict[Path, str], commands: Sequence[Sequence[str]], *, is_done: bool
) -> SystemdUnitsDocument:
    return {
        "units": [
            {"path": str(unit_path), "text": unit_text}
            for unit_path, unit_text in unit_text_by_path.items()
        ],
        "commands": [shlex.join(command) for command in commands],
        "done": is_done,
    }
