"""Alert kinds, rules and times of a day."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.model import Alert, AlertKind
from agent.observe.notify import AlertRules

KINDS = frozenset(AlertKind)
HOUR = 3_600
NOON = int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp())
RULES = AlertRules(KINDS, cooldown_s=6 * HOUR)
HALT = Alert(AlertKind.HALT, "halt", "halted", is_lasting=True)
DONE = Alert(AlertKind.REBALANCE, "rebalance", "done")
