"""Keys of [alerts]: targets, events, quiet hours, cooldowns."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from agent.config.fields import ConfigTable, DecimalOrOff, Duration, DurationOrOff, Variable
from agent.errors import ConfigError
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
    """One alert target: an address in apprise's form, read from an environment variable since it is
    a secret.

    `events` restricts the events it gets.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")
    url_env: Variable
    events: list[Event] | None = None

    def resolve(self) -> str:
        """The address. Raises ConfigError for a variable that is not set."""
        value = os.environ.get(self.url_env, "")
        if not value:
            raise ConfigError(
                f"alerts.targets.url_env: environment variable {self.url_env} is not set",
                "export it, or remove the target",
            )
        return value

    def secrets(self) -> list[str]:
        """The address and its parts: tokens differ in position from service to service, so each
        long part counts.
        """
        value = os.environ.get(self.url_env, "")
        parts = re.split(r"[/:@?&=,]+", value.partition("://")[2])
        return [
            one
            for part in (value, *parts)
            for one in {part, unquote(part)}
            if len(one) >= SHORTEST_SECRET
        ]


class AlertsTable(ConfigTable):
    """[alerts]. Within `quiet` hours, such as "22:00-07:00" in `timezone`, events are held back,
    except `urgent` ones.

    The same event is not repeated within `cooldown`, or its entry in `cooldowns`; a lasting
    condition is sent once, and again after `repeat`. Gas is low below `low_gas` of native coin, by
    default limits.native_floor. A delivery takes up to `timeout` and `attempts`. `label`
    distinguishes agents of one owner.
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
                    "no time zone of that name is known; write for example Europe/Berlin, or UTC"
                ) from None
        return name

    @model_validator(mode="after")
    def _sound(self) -> AlertsTable:
        if self.quiet is not None:
            if (found := _QUIET.fullmatch(self.quiet)) is None or found[1] + found[2] == found[
                3
            ] + found[4]:
                raise ValueError(
                    f"quiet: {self.quiet!r} is not a time span of a day; write for example"
                    ' "22:00-07:00"'
                )
            if self.timezone is None:
                raise ValueError(
                    "timezone: quiet hours are those of a time zone; write for example"
                    " Europe/Berlin"
                )
        elif self.timezone is not None or self.urgent:
            raise ValueError(
                f"{'timezone' if self.timezone else 'urgent'}: without quiet hours it means"
                " nothing; set quiet, or remove it"
            )
        if not 0 < self.timeout <= LONGEST_TIMEOUT_S:
            raise ValueError(
                f"timeout: {self.timeout}s; write from 1s to {LONGEST_TIMEOUT_S}s, such as 15s"
            )
        names = [target.name for target in self.targets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"targets: {twice[0]!r} is given twice; each target has a name of its own"
            )
        for target in self.targets:
            if deaf := [event for event in target.events or () if event not in self.events]:
                raise ValueError(
                    f"targets: {target.name} wants {deaf[0]!r}, which alerts.events lacks; add it"
                    " there, or remove it"
                )
        return self

    def quiet_minutes(self) -> tuple[int, int] | None:
        """Start and end of quiet hours as minutes of the day."""
        found = None if self.quiet is None else _QUIET.fullmatch(self.quiet)
        return (
            None
            if found is None
            else (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4]))
        )

    def secrets(self) -> Iterator[str]:
        """Secrets to redact from every log line."""
        for target in self.targets:
            yield from target.secrets()
