"""[service], [alerts], [telegram] and [record]: monitoring of a run, alerts, and recorded steps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.config.fields import ConfigTable, DecimalOrOff, Duration, DurationOrOff, Variable
from agent.errors import ConfigError
from agent.hosts import LOOPBACK
from agent.model import AlertKind

EVENTS = tuple(kind.value for kind in AlertKind if kind is not AlertKind.TEST)
if TYPE_CHECKING:
    Event = str
else:
    Event = Literal[EVENTS]
SHORTEST_SECRET = 6
LONGEST_TIMEOUT_S = 120
_QUIET = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?([01][0-9]|2[0-3]):([0-5][0-9])")


class AlertTargetTable(ConfigTable):
    """One alert target: an address in apprise's format, read from an environment variable because
    it is secret.

    `events` restricts the events sent to it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")
    url_env: Variable
    events: list[Event] | None = None

    def resolve(self) -> str:
        """Return the address. Raises ConfigError if its variable is not set."""
        value = os.environ.get(self.url_env, "")
        if not value:
            raise ConfigError(
                f"alerts.targets.url_env: environment variable {self.url_env} is not set",
                "export it, or remove the target",
            )
        return value

    def secrets(self) -> list[str]:
        """Return the address and all its long parts, since services put tokens in different places."""
        value = os.environ.get(self.url_env, "")
        parts = re.split(r"[/:@?&=,]+", value.partition("://")[2])
        return [
            text
            for part in (value, *parts)
            for text in {part, unquote(part)}
            if len(text) >= SHORTEST_SECRET
        ]


class AlertsTable(ConfigTable):
    """[alerts]. Within `quiet` hours, such as "22:00-07:00" in `timezone`, only `urgent` events are
    sent.

    The same event is not repeated within `cooldown`, or its entry in `cooldowns`; a lasting
    condition is sent once, and again after `repeat`. Gas is low below `low_gas` of native coin, by
    default limits.native_floor. A delivery is tried up to `attempts` times, for up to `timeout`
    each. `label` distinguishes agents of one owner.
    """

    events: list[Event] = Field(default_factory=lambda: list(EVENTS))
    urgent: list[Event] = Field(default_factory=list)
    quiet: str | None = None
    timezone: str | None = None
    cooldown: Duration = 21_600
    cooldowns: dict[Event, Duration] = Field(default_factory=dict)
    repeat: DurationOrOff = None
    low_gas: DecimalOrOff = None
    timeout: Duration = 15
    attempts: int = Field(default=4, ge=1, le=10)
    label: str = Field(default="trimtab", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    targets: list[AlertTargetTable] = Field(default_factory=list)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    "unknown time zone; write for example Europe/Berlin, or UTC"
                ) from None
        return name

    @model_validator(mode="after")
    def _sound(self) -> AlertsTable:
        if self.quiet is not None:
            span = _QUIET.fullmatch(self.quiet)
            if span is None or span.groups()[:2] == span.groups()[2:]:
                raise ValueError(
                    f"quiet: {self.quiet!r} is not a daily time span; write for example"
                    ' "22:00-07:00"'
                )
            if self.timezone is None:
                raise ValueError(
                    "timezone: quiet hours need a time zone; write for example Europe/Berlin"
                )
        elif self.timezone is not None or self.urgent:
            raise ValueError(
                f"{'timezone' if self.timezone else 'urgent'}: has no effect without quiet hours;"
                " set quiet, or remove it"
            )
        if not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(
                f"timeout: {self.timeout}s; write from 1s to {LONGEST_TIMEOUT_S}s, such as 15s"
            )
        names = [target.name for target in self.targets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"targets: {twice[0]!r} is given twice; use a different name for each target"
            )
        for target in self.targets:
            if missing := [event for event in target.events or () if event not in self.events]:
                raise ValueError(
                    f"targets: {target.name} has {missing[0]!r}, but alerts.events does not; add"
                    " it there, or remove it"
                )
        return self

    def quiet_minutes(self) -> tuple[int, int] | None:
        """Return start and end of quiet hours as minutes of the day; None without quiet hours."""
        span = None if self.quiet is None else _QUIET.fullmatch(self.quiet)
        if span is None:
            return None
        from_hour, from_minute, to_hour, to_minute = map(int, span.groups())
        return from_hour * 60 + from_minute, to_hour * 60 + to_minute

    def secrets(self) -> Iterator[str]:
        """Yield the secrets to redact from every log line."""
        for target in self.targets:
            yield from target.secrets()


# --- [telegram]: the bot of `trimtab telegram`.


TELEGRAM_API = "https://api.telegram.org"
LONGEST_POLL_S = 50
LONGEST_CODE_S = 900


class TelegramTable(ConfigTable):
    """The Telegram bot. `chats` are the private chats that may command it. `api` is the address of
    the Bot API; set it for a self-hosted server. A request for updates waits up to `poll`; a
    one-time code is valid for `code_ttl`. `dashboard` is the address of `trimtab serve` for links
    to its confirmation.
    """

    token_env: Variable
    chats: list[Annotated[int, Field(strict=True, gt=0)]] = Field(min_length=1, max_length=8)
    api: str = TELEGRAM_API
    poll: Duration = 30
    code_ttl: Duration = 300
    dashboard: str | None = None

    @model_validator(mode="after")
    def _sound(self) -> TelegramTable:
        if not _is_address(self.api):
            raise ValueError(f"api: not an https address without a trailing slash; {TELEGRAM_API}")
        if self.dashboard is not None and not _is_address(self.dashboard):
            raise ValueError("dashboard: not an https address without a trailing slash")
        if not 1 <= self.poll <= LONGEST_POLL_S:
            raise ValueError(f"poll: {self.poll}s; write 1s to {LONGEST_POLL_S}s, such as 30s")
        if not 1 <= self.code_ttl <= LONGEST_CODE_S:
            raise ValueError(f"code_ttl: {self.code_ttl}s; write 1s to 15m, such as 5m")
        return self

    def resolve(self) -> str:
        """Return the bot's token. Raises ConfigError if its variable has none."""
        token = os.environ.get(self.token_env, "")
        if not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"telegram.token_env: environment variable {self.token_env} has no bot token",
                "export the token of @BotFather, or put it into .env beside the config",
            )
        return token


def _is_address(text: str) -> bool:
    """Return whether the text is an https URL, or an http URL on this machine, to which a path can
    be appended (no query, fragment or trailing slash).
    """
    parts = urlsplit(text)
    local = parts.scheme == "http" and parts.hostname in LOOPBACK
    plain = not (parts.query or parts.fragment or text.endswith("/"))
    return bool(plain and parts.hostname and (parts.scheme == "https" or local))


_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{20,80}")


# --- [service]: logs, health, heartbeat and retention of `trimtab run`.


SHORTEST_HANG_S = 30
"""Minimum of hang_after. Less would end healthy runs while an endpoint is slow."""
LONGEST_WAIT_S = 3_600
"""Longest wait for the wallet, since a waiting cycle logs nothing."""


class ServiceTable(ConfigTable):
    """`heartbeat_url` is secret, and is requested after each healthy cycle.
    A cycle without progress for `hang_after` ends the process. The newest `keep_steps` cycles
    without a transaction are kept. Commands wait up to `wallet_wait` for another process that holds
    the wallet.
    """

    heartbeat_url: SecretStr | None = None
    heartbeat_url_env: Variable | None = None
    heartbeat_method: Literal["GET", "POST"] = "GET"
    log_format: Literal["text", "json"] | None = None
    hang_after: Duration = 600
    wallet_wait: Duration = 120
    keep_steps: int = Field(default=2_000, ge=10, le=1_000_000)

    @model_validator(mode="after")
    def _sound(self) -> ServiceTable:
        if self.heartbeat_url is not None and self.heartbeat_url_env is not None:
            raise ValueError("heartbeat_url and heartbeat_url_env are both given; keep one")
        if self.heartbeat_url is not None:
            _require_http(self.heartbeat_url.get_secret_value(), "heartbeat_url")
        if self.hang_after < SHORTEST_HANG_S:
            raise ValueError(
                f"hang_after: {self.hang_after}s would end healthy cycles; write 30s or more, such"
                " as 10m"
            )
        if not 1 <= self.wallet_wait <= LONGEST_WAIT_S:
            raise ValueError(
                f"wallet_wait: {self.wallet_wait}s is not between 1s and 1h; write for example 2m"
            )
        return self

    def heartbeat(self) -> str | None:
        """Return the heartbeat's URL, from the file or the environment; None without one. Raises ConfigError if the
        variable is not set or has no URL.
        """
        if self.heartbeat_url is not None:
            return self.heartbeat_url.get_secret_value()
        if self.heartbeat_url_env is None:
            return None
        url = os.environ.get(self.heartbeat_url_env, "")
        try:
            _require_http(url, "heartbeat_url_env")
        except ValueError:
            raise ConfigError(
                f"service.heartbeat_url_env: environment variable {self.heartbeat_url_env} is not"
                " set to an http or https address",
                "export it",
            ) from None
        return url


def _require_http(url: str, key: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{key}: not an http or https address")


# --- [record]: folder of recorded steps, and their retention.


FILES, MEGABYTES = 10_000, 1_000
"""Default retention in files and megabytes: ten weeks of cycles every ten minutes."""


class RecordTable(ConfigTable):
    """Recording of steps. `dir` is relative to the config file. The newest `keep_files` files are
    kept, up to `keep_megabytes` in total.
    """

    dir: str = Field(min_length=1)
    keep_files: int = Field(default=FILES, ge=1, le=1_000_000)
    keep_megabytes: int = Field(default=MEGABYTES, ge=1, le=1_000_000)
