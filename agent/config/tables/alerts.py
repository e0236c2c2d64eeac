"""[alerts] and [[alerts.targets]]: which alerts are sent, where, and how often."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from agent.config.tables.fields import (
    ConfigTable,
    Duration,
    DurationOrOff,
    PlainDecimal,
    Variable,
    VariableTable,
)
from agent.model import AlertKind

EVENTS = tuple(kind.value for kind in AlertKind if kind is not AlertKind.TEST)


if TYPE_CHECKING:
    Event = str
else:
    Event = Literal[EVENTS]


SHORTEST_SECRET = 6
LONGEST_TIMEOUT_S = 120
_QUIET_HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]) ?- ?([01][0-9]|2[0-3]):([0-5][0-9])")


class AlertTargetTable(VariableTable):
    """One receiver of alerts."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Its name in logs and `trimtab alerts`."""
    url_env: Variable
    """Variable with the address in apprise's format, which is a secret."""
    events: list[Event] | None = None
    """The only events sent to it; default: all of `events`."""

    def read_url(self) -> str:
        """Return the address. Raises ConfigError if its variable is not set."""
        remedy = "export it, or remove the target"
        return self.required_variable("alerts.targets.url_env", self.url_env, remedy)

    def secrets(self) -> list[str]:
        """Return the address and all its long parts, since services put tokens in different places."""
        address = self.variable(self.url_env)
        address_parts = re.split(r"[/:@?&=,]+", address.partition("://")[2])
        return [
            secret
            for part in (address, *address_parts)
            for secret in {part, unquote(part)}
            if len(secret) >= SHORTEST_SECRET
        ]


class AlertsTable(ConfigTable):
    """Messages to the owner (docs/alerts.md)."""

    events: list[Event] = Field(default_factory=lambda: list(EVENTS))
    """Events that send a message."""
    urgent: list[Event] = Field(default_factory=list)
    """Events sent in quiet hours too."""
    quiet: str | None = None
    """Hours in which other messages wait, such as "22:00-07:00"."""
    timezone: str | None = None
    """Zone of the quiet hours, such as "Europe/Berlin"."""
    cooldown: Duration = 21_600
    """Shortest time between two messages of one condition."""
    cooldowns: dict[Event, Duration] = Field(default_factory=dict)
    """The same for single events."""
    repeat: DurationOrOff = None
    """Time after which a lasting condition is reported again; "off": once."""
    digest: Literal["day", "week"] | None = None
    """Figures of each calendar day or week in UTC, once it has ended."""
    low_gas: PlainDecimal | None = None
    """Native coin below which gas is low; default: limits.native_floor."""
    timeout: Duration = 15
    """Longest time of one attempt to deliver."""
    attempts: int = Field(default=4, ge=1, le=10)
    """Attempts after which a delivery has failed."""
    label: str = Field(default="trimtab", pattern=r"^[A-Za-z0-9._-]{1,32}$")
    """Name of this agent in its messages."""
    targets: list[AlertTargetTable] = Field(default_factory=list)
    """Receivers."""

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, timezone: str | None) -> str | None:
        if timezone is not None:
            try:
                ZoneInfo(timezone)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    "unknown time zone; write for example Europe/Berlin, or UTC"
                ) from None
        return timezone

    @model_validator(mode="after")
    def _check_values(self) -> AlertsTable:
        if self.quiet is not None:
            hours_match = _QUIET_HOURS.fullmatch(self.quiet)
            if hours_match is None or hours_match.groups()[:2] == hours_match.groups()[2:]:
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
        target_names = [target.name for target in self.targets]
        if repeated_names := [name for name in target_names if target_names.count(name) > 1]:
            raise ValueError(
                f"targets: {repeated_names[0]!r} is given twice; use a different name for each target"
            )
        if self.digest and "digest" not in self.events:
            raise ValueError("digest: alerts.events does not have 'digest'; add it, or remove this")
        named_events = [
            *(("urgent", event) for event in self.urgent),
            *(("cooldowns", event) for event in self.cooldowns),
            *(
                (f"targets: {target.name}", event)
                for target in self.targets
                for event in target.events or ()
            ),
        ]
        for owner, event in named_events:
            if event not in self.events:
                raise ValueError(
                    f"{owner} has {event!r}, but alerts.events does not; add it there, or remove it"
                )
        return self

    def events_of(self, target: AlertTargetTable) -> list[Event]:
        """Return the events that are sent to a target."""
        return self.events if target.events is None else target.events

    def quiet_minutes(self) -> tuple[int, int] | None:
        """Return start and end of quiet hours as minutes of the day; None without quiet hours."""
        hours_match = None if self.quiet is None else _QUIET_HOURS.fullmatch(self.quiet)
        if hours_match is None:
            return None
        from_hour, from_minute, to_hour, to_minute = map(int, hours_match.groups())
        return from_hour * 60 + from_minute, to_hour * 60 + to_minute

    def secrets(self) -> Iterator[str]:
        """Yield the secrets to redact from every log line."""
        for target in self.targets:
            yield from target.secrets()
