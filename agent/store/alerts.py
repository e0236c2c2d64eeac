"""Stored alerts: the state of each alert, messages in delivery, the delivery record of each
channel, and the devices of web push.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, select

from agent.errors import ConfigError
from agent.model import (
    AlertDevice,
    AlertKind,
    AlertMessage,
    AlertState,
    AlertTargetState,
    ControlOrigin,
    Delivery,
)
from agent.store.accounts import day_counts
from agent.store.accounts.day_counts import CountedEvent
from agent.store.database.connection import Database
from agent.store.database.errors import damaged_row_error
from agent.store.database.facts import fact_text, write_facts
from agent.store.database.statements import all_rows, first_row, insert_returning_id, upsert_rows
from agent.store.tables import AlertMessageRow, AlertRow, AlertTargetRow
from agent.units import DAY_S

MAX_PENDING_MESSAGES = 100
"""Largest number of pending messages per target; the oldest beyond it are dropped and counted."""
MAX_DEVICES = 20
PUSH_TARGET = "push_target"
PUSH_PUBLIC_KEY = "push_key"
PUSH_DEVICES = "push_devices"
"""Keys of the name of the target of web push, its public key, and its devices as JSON."""
UNCOUNTED_KINDS = (AlertKind.DIGEST, AlertKind.TEST)
"""Kinds of alerts that report no event of their own."""
RETENTION_S = 90 * DAY_S
"""Age at which an ended alert whose every raise was queued is deleted: since it was sent, or, if it
ended before, since it was raised."""


@dataclass(frozen=True, slots=True)
class AlertStore:
    """Alerts of this wallet; each method is one transaction. Times are Unix seconds of this
    machine.
    """

    db: Database

    def states(self) -> tuple[AlertState, ...]:
        """Return every stored alert, oldest first."""
        with self.db.read("read the alerts") as db:
            return tuple(
                AlertState(
                    row.key,
                    _parse_kind(row.kind),
                    row.text,
                    row.raised_s,
                    row.since_s,
                    row.unsent_count,
                    row.last_sent_s,
                )
                for row in all_rows(
                    db, select(AlertRow).order_by(AlertRow.raised_s, AlertRow.key), AlertRow
                )
            )

    def record_and_queue(
        self,
        states: Iterable[AlertState],
        targets_and_states: Sequence[tuple[str, AlertState]],
        now_s: int,
    ) -> tuple[AlertMessage, ...]:
        """Record states, queue a message for each (target, state), and return the messages in
        order.
        """
        with self.db.write("write the alerts") as db:
            alert_rows = [asdict(state) | {"kind": state.kind.value} for state in states]
            upsert_rows(db, AlertRow, alert_rows)
            queued_messages = [
                _insert_message(db, target, state, now_s) for target, state in targets_and_states
            ]
            for target in {target for target, _ in targets_and_states}:
                _drop_oldest_messages(db, target)
            conditions = (
                AlertRow.since_s.is_(None),
                AlertRow.unsent_count == 0,
                func.coalesce(AlertRow.last_sent_s, AlertRow.raised_s) < now_s - RETENTION_S,
            )
            db.execute(delete(AlertRow).where(*conditions))
            queued_keys = {
                state.key for _, state in targets_and_states if state.kind not in UNCOUNTED_KINDS
            }
            if queued_keys:
                day_counts.add_events(db, CountedEvent.ALERT, now_s, len(queued_keys))
            return tuple(queued_messages)

    def pending_messages(self) -> tuple[AlertMessage, ...]:
        """Return messages neither delivered nor dropped, oldest first."""
        with self.db.read("read pending alerts") as db:
            return tuple(
                AlertMessage(row.seq, row.target, _parse_kind(row.kind), row.text, row.queued_s)
                for row in all_rows(
                    db, select(AlertMessageRow).order_by(AlertMessageRow.seq), AlertMessageRow
                )
            )

    def record_deliveries(self, deliveries: Iterable[Delivery]) -> None:
        """Record the results of deliveries; these messages are no longer pending."""
        with self.db.write("write sent alerts") as db:
            for delivery in deliveries:
                db.execute(
                    delete(AlertMessageRow).where(AlertMessageRow.seq == delivery.message.id)
                )
                target_columns = _target_columns(db, delivery.message.target)
                if delivery.failure_reason:
                    target_columns |= {
                        "failed_s": delivery.at_s,
                        "failures": target_columns["failures"] + 1,
                    }
                else:
                    target_columns |= {"delivered_s": delivery.at_s, "failures": 0}
                upsert_rows(db, AlertTargetRow, [target_columns | {"why": delivery.failure_reason}])

    def drop_messages(self, targets: Iterable[str]) -> None:
        """Drop pending messages of targets that no longer exist."""
        with self.db.write("drop pending alerts") as db:
            db.execute(delete(AlertMessageRow).where(AlertMessageRow.target.in_(list(targets))))

    def target_states(self) -> dict[str, AlertTargetState]:
        """Return the delivery record of each target, by name."""
        with self.db.read("read sent alerts") as db:
            pending_count_by_target = dict(
                db.execute(
                    select(AlertMessageRow.target, func.count()).group_by(AlertMessageRow.target)
                ).all()
            )
            row_by_target = {
                row.name: row for row in all_rows(db, select(AlertTargetRow), AlertTargetRow)
            }
            return {
                target_name: _target_state(
                    target_name,
                    row_by_target.get(target_name),
                    pending_count_by_target.get(target_name, 0),
                )
                for target_name in sorted({*row_by_target, *pending_count_by_target})
            }

    def record_push_target(self, target: str, public_key: str) -> None:
        """Record the target of web push and its public key. With another key than before every
        device is removed, since its subscription is for that key.
        """
        with self.db.write("write the key of web push") as db:
            facts = {PUSH_TARGET: target, PUSH_PUBLIC_KEY: public_key}
            if fact_text(db, PUSH_PUBLIC_KEY) != public_key:
                facts[PUSH_DEVICES] = "[]"
            write_facts(db, facts)

    def push_target(self) -> tuple[str, str]:
        """Return the target of web push and its public key, as the newest run had them; empty
        before.
        """
        with self.db.read("read the key of web push") as db:
            return fact_text(db, PUSH_TARGET), fact_text(db, PUSH_PUBLIC_KEY)

    def devices(self) -> tuple[AlertDevice, ...]:
        """Return the devices of web push, oldest first."""
        with self.db.read("read the devices of web push") as db:
            return _devices(db)

    def add_device(self, device: AlertDevice) -> None:
        """Add a device, or replace that of the same endpoint. Raises ConfigError beyond
        MAX_DEVICES.
        """
        with self.db.write("add a device") as db:
            other_devices = [
                stored_device for stored_device in _devices(db) if stored_device.id != device.id
            ]
            if len(other_devices) >= MAX_DEVICES:
                raise ConfigError(
                    f"endpoint: {MAX_DEVICES} devices receive alerts already",
                    "remove one on the page Alerts",
                )
            _write_devices(db, [*other_devices, device])

    def remove_devices(self, ids: Collection[str]) -> int:
        """Remove the devices with these ids; return their number."""
        with self.db.write("remove a device") as db:
            devices = _devices(db)
            kept_devices = [device for device in devices if device.id not in ids]
            if len(kept_devices) < len(devices):
                _write_devices(db, kept_devices)
            return len(devices) - len(kept_devices)


def _devices(db: Connection) -> tuple[AlertDevice, ...]:
    try:
        devices_json = json.loads(fact_text(db, PUSH_DEVICES) or "[]")
        return tuple(
            replace(device, origin=ControlOrigin(device.origin))
            for device in (AlertDevice(**device_fields) for device_fields in devices_json)
        )
    except (TypeError, ValueError) as error:
        raise damaged_row_error(f"the devices of web push: {error}") from None


def _write_devices(db: Connection, devices: Iterable[AlertDevice]) -> None:
    devices_json = [asdict(device) | {"origin": device.origin.value} for device in devices]
    write_facts(db, {PUSH_DEVICES: json.dumps(devices_json)})


def _insert_message(db: Connection, target: str, state: AlertState, now_s: int) -> AlertMessage:
    seq = insert_returning_id(
        db,
        AlertMessageRow,
        target=target,
        kind=state.kind.value,
        text=state.text,
        queued_s=now_s,
    )
    return AlertMessage(seq, target, state.kind, state.text, now_s)


def _drop_oldest_messages(db: Connection, target: str) -> None:
    select_seqs_over_limit = (
        select(AlertMessageRow.seq)
        .where(AlertMessageRow.target == target)
        .order_by(AlertMessageRow.seq.desc())
        .offset(MAX_PENDING_MESSAGES)
    )
    dropped_seqs = list(db.scalars(select_seqs_over_limit))
    if dropped_seqs:
        db.execute(delete(AlertMessageRow).where(AlertMessageRow.seq.in_(dropped_seqs)))
        target_columns = _target_columns(db, target)
        upsert_rows(
            db,
            AlertTargetRow,
            [
                target_columns
                | {"dropped_count": target_columns["dropped_count"] + len(dropped_seqs)}
            ],
        )


def _target_columns(db: Connection, target: str) -> dict[str, Any]:
    """Return the columns of a target; initial values for a new one."""
    row = first_row(db, select(AlertTargetRow).where(AlertTargetRow.name == target), AlertTargetRow)
    if row is None:
        return {
            "name": target,
            "delivered_s": None,
            "failed_s": None,
            "failures": 0,
            "why": "",
            "dropped_count": 0,
        }
    return {
        column: getattr(row, column)
        for column in ("name", "delivered_s", "failed_s", "failures", "why", "dropped_count")
    }


def _parse_kind(kind_text: str) -> AlertKind:
    try:
        return AlertKind(kind_text)
    except ValueError as error:
        raise damaged_row_error(str(error)) from None


def _target_state(target: str, row: AlertTargetRow | None, pending_count: int) -> AlertTargetState:
    if row is None:
        return AlertTargetState(target, queued_count=pending_count)
    return AlertTargetState(
        target,
        row.delivered_s,
        row.failed_s,
        row.failures,
        row.why,
        row.dropped_count,
        pending_count,
    )
