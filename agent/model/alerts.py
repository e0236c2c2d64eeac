"""Alerts, the state of each alert key, queued messages, deliveries, and devices that receive
them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

from agent.model.controls import ControlOrigin


class AlertKind(Enum):
    """Subject of an alert: name in the config, and title of its messages."""

    _value_: str
    title: str

    def __new__(cls, value: str, title: str = "") -> AlertKind:
        """Create a kind; its value is its name in the config."""
        kind = object.__new__(cls)
        kind._value_ = value
        kind.title = title
        return kind

    PRICE = "price", "a price reached its alert or left its band"
    REVIEW = "review", "reviewed"
    REBALANCE = "rebalance", "rebalanced"
    REFUSAL = "refusal", "refused"
    HALT = "halt", "halted"
    ERROR = "error", "operator needed"
    LOW_GAS = "low_gas", "low gas"
    ORDER = "order", "an order fired"
    PROPOSAL = "proposal", "a proposal waits"
    PAUSED = "paused", "paused"
    CONTROL = "control", "control"
    HEARTBEAT = "heartbeat", "no sign of life"
    DIGEST = "digest", "figures of a day or week"
    TEST = "test", "test"


PROPOSAL_FAILS = "Would fail now"
PROPOSAL_IS_STALE = "Stale"
PROPOSAL_IS_UNCHECKED = "Its minimums could not be checked"
DEPOSIT_ACCEPTED = "Accepted as a deposit"
TITLE_BY_FIRST_WORDS = {
    PROPOSAL_FAILS: "a proposal would fail",
    PROPOSAL_IS_STALE: "a proposal is stale",
    PROPOSAL_IS_UNCHECKED: "a proposal could not be checked",
    DEPOSIT_ACCEPTED: "a deposit was accepted",
}
"""Titles of messages that the title of their kind would describe wrongly, by their first words."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert to send.

    Alerts with one `key` share a cooldown. A `is_lasting` alert is active as long as each cycle
    raises it, and is repeated after alerts.repeat if it `repeats`; others are single events.
    """

    kind: AlertKind
    key: str
    text: str
    is_lasting: bool = False
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class AlertState:
    """State of one alert key. Times are Unix seconds. `since_s` is the start of a lasting alert,
    None for an event. `unsent_count` counts occurrences since the last message, which was sent at
    `last_sent_s`. `raised_s` is the start of the newest occurrence and gives the order of messages.
    """

    key: str
    kind: AlertKind
    text: str
    raised_s: int
    since_s: int | None = None
    unsent_count: int = 0
    last_sent_s: int | None = None


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message queued for one target. `id` is its number in the store."""

    id: int
    target: str
    kind: AlertKind
    text: str
    created_s: int

    @property
    def title(self) -> str:
        """Return its title: that of its first words, else of its kind."""
        titles = (
            title
            for first_words, title in TITLE_BY_FIRST_WORDS.items()
            if self.text.startswith(first_words)
        )
        return next(titles, self.kind.title)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Result of sending one message. `failure_reason` is empty on success."""

    message: AlertMessage
    failure_reason: str
    at_s: int


@dataclass(frozen=True, slots=True)
class AlertTargetState:
    """Delivery record of one alert target.

    Times are Unix seconds. `failures` counts consecutive failures, `why` is the last reason.
    `dropped_count` counts messages dropped from a full queue, `queued_count` those still queued.
    """

    name: str
    delivered_s: int | None = None
    failed_s: int | None = None
    failures: int = 0
    why: str = ""
    dropped_count: int = 0
    queued_count: int = 0


@dataclass(frozen=True, slots=True)
class AlertDevice:
    """A browser that receives alerts by web push. `endpoint` is its address at a push service,
    `public_key` its public key and `auth` its secret (RFC 8291) in unpadded base64url, `page` the
    path that a message opens, `added_s` Unix seconds, `user` the user or token of `origin` that
    added it.
    """

    endpoint: str
    public_key: str
    auth: str = field(repr=False)
    page: str
    user: str
    added_s: int
    origin: ControlOrigin = ControlOrigin.DASHBOARD

    @property
    def id(self) -> str:
        """Return the first digits of the SHA-256 of the endpoint."""
        return hashlib.sha256(self.endpoint.encode()).hexdigest()[:16]

    @property
    def service_host(self) -> str:
        """Return host and port of the push service."""
        return self.endpoint.removeprefix("https://").partition("/")[0]
