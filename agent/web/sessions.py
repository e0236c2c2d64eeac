"""Logins, and the requests whose plans they show."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_IDLE_S = 1_800
"""A session ends if its user opens no page for this time."""
MAX_SESSION_AGE_S = 43_200


@dataclass(slots=True)
class Session:
    """A login. Times are those of a monotonic clock."""

    user_id: int
    name: str
    read_only: bool
    began_s: float
    last_used_s: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    reviews: dict[str, PlanReview] = field(default_factory=dict)
    """Requests whose plans are shown, by id."""
    alert_tests: dict[str, str] = field(default_factory=dict)
    """Result of the newest test of each alert target, as text."""
    requested_control: tuple[str, str] = ("", "")
    """Kind and id of the control requested last."""
    is_ended: bool = False

    def is_alive(self, now_s: float) -> bool:
        """Return whether the session has neither ended nor expired."""
        return not self.is_ended and now_s < min(
            self.last_used_s + MAX_IDLE_S, self.began_s + MAX_SESSION_AGE_S
        )


MAX_REVIEW_AGE_S = 600.0
"""Time after which a shown plan can no longer be confirmed."""
ALERTS_PREFIX = "alerts."
PREFIXES_WITHOUT_TARGETS = ("portfolio.", "policy.", "limits.", ALERTS_PREFIX)
"""Tables without targets, apart from those of assets. A control may change the targets of other
tables alone.
"""


@dataclass(slots=True)
class PlanReview:
    """A request and its plan. `plan_document` is None until the plan is made, `backtest` until an
    edit is backtested. `is_dropped` is True once newer requests have displaced it from its session:
    a plan or backtest that has not begun is not made any more. A request `on_paper` is for the paper
    run.
    """

    kind: str
    arguments: tuple[tuple[str, str], ...]
    began_s: float = field(default_factory=time.monotonic)
    plan_document: Mapping[str, Any] | None = None
    error: str = ""
    is_queued: bool = False
    backtest: Mapping[str, Any] | None = None
    backtest_error: str = ""
    is_dropped: bool = False
    on_paper: bool = False

    @property
    def targets(self) -> dict[str, str]:
        """Return the requested targets by symbol, such as {"WETH": "30%"}."""
        return dict(
            argument_text.split("=", 1)
            for argument_name, argument_text in self.arguments
            if argument_name == "target"
        )

    @property
    def moves_assets(self) -> bool:
        """Return whether carrying it out, or the targets that it changes, move assets."""
        return (
            self.kind != "edit"
            or bool(self.targets)
            or any(
                setting_key.endswith(".target")
                or not setting_key.startswith(PREFIXES_WITHOUT_TARGETS)
                for setting_key in self._setting_keys
            )
        )

    @property
    def trades_differently(self) -> bool:
        """Return whether it is an edit after which trades may differ, which a backtest shows."""
        return self.kind == "edit" and not (
            self._setting_keys
            and all(setting_key.startswith(ALERTS_PREFIX) for setting_key in self._setting_keys)
            and not self.targets
        )

    @property
    def _setting_keys(self) -> list[str]:
        return [
            argument_text.partition("=")[0]
            for argument_name, argument_text in self.arguments
            if argument_name == "set"
        ]

    @property
    def is_confirmable(self) -> bool:
        """Return whether the plan can be confirmed."""
        return (
            self.plan_document is not None
            and bool(self.plan_document["plan_hash"])
            and not self.is_queued
            and time.monotonic() < self.began_s + MAX_REVIEW_AGE_S
        )
