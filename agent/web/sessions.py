"""Logins, and the requests whose plans they show."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.model import OrderKind

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

SUM_ERROR = "targets sum to"
WORDS_BY_FIELD = {
    "amount": "AMOUNT|insufficient balance|payout_per_day",
    "url_env": "Variable",
    **{kind.value: f"{kind.value} of" for kind in OrderKind},
}
"""What errors call a field, where it is not its name, as a regular expression."""


def names_field(error: str, field_name: str, typed_text: str) -> bool:
    """Return whether an error names a field of a form, by its option, its key, or what was typed."""
    prefix, _, symbol_or_key = field_name.partition(":")
    key, has_value, _ = typed_text.partition("=")
    words = [
        f"--{prefix} {symbol_or_key}".strip(),
        symbol_or_key if "." in symbol_or_key else f".{field_name}",
        repr(typed_text),
        *([key.strip()] if has_value and key.strip() else []),
    ]
    patterns = [WORDS_BY_FIELD.get(field_name, ""), *map(re.escape, words)]
    return any(
        re.search(rf"(?<![\w-])(?:{pattern})(?![\w-])", error) for pattern in patterns if pattern
    )


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
    form_fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What was typed into its form, by field, with `form` as the form's name."""

    @property
    def asks_again(self) -> bool:
        """Return whether its form is shown once more, because it cannot be confirmed."""
        is_planned = bool(self.error) or self.plan_document is not None
        return (
            is_planned
            and not self.is_queued
            and "form" in self.form_fields
            and (bool(self.error) or not self.is_confirmable)
        )

    @property
    def marked_fields(self) -> set[str]:
        """Return the fields that its error names, and "sum" if targets do not sum up."""
        error = self.error or (self.plan_document or {}).get("reason", "")
        marked_fields = {
            name
            for name, texts in self.form_fields.items()
            if not name.startswith("was:") and names_field(error, name, texts[0])
        }
        if SUM_ERROR in error:
            marked_fields |= {
                "sum",
                *(name for name in self.form_fields if name.startswith("target:")),
            }
        return marked_fields

    @property
    def targets(self) -> dict[str, str]:
        """Return the requested targets by symbol, such as {"WETH": "30%"}."""
        return dict(
            argument_text.split("=", 1)
            for argument_name, argument_text in self.arguments
            if argument_name == "target"
        )

    @property
    def edited_parts(self) -> list[str]:
        """Return what an edit changes, in words such as "weights" and "stop loss of WETH"."""
        parts = ["weights"] if self.targets else []
        for setting_key in self._setting_keys:
            table, _, field_name = setting_key.rpartition(".")
            symbol = table.removeprefix("portfolio.assets.")
            section = setting_key.partition(".")[0]
            if symbol != table:
                parts.append(f"{field_name.replace('_', ' ')} of {symbol}")
            else:
                parts.append(section if section in ("alerts", "limits") else "settings")
        return list(dict.fromkeys(parts)) or ["settings"]

    @property
    def moves_assets(self) -> bool:
        """Return whether carrying it out, the next cycle after an edit, or the targets that it
        changes, move assets. An edit without targets can cause trades too: of a reserve or a limit.
        """
        plan_document = self.plan_document or {}
        next_cycle = plan_document.get("document", {}).get("next_cycle", {})
        return (
            self.kind != "edit"
            or next_cycle.get("outcome") == "planned"
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
    def asks_on_paper(self) -> bool:
        """Return whether it ends a paper run, which needs a confirmation and has no plan."""
        return self.on_paper and self.kind == "stop"

    @property
    def plan_hash(self) -> str:
        """Return the hash of the plan to confirm; empty without one."""
        return "" if self.plan_document is None else str(self.plan_document["plan_hash"])

    @property
    def is_confirmable(self) -> bool:
        """Return whether it can be confirmed."""
        return (
            (self.asks_on_paper or bool(self.plan_hash))
            and not self.is_queued
            and time.monotonic() < self.began_s + MAX_REVIEW_AGE_S
        )
