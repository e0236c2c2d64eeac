"""Puts together what tells the owner: targets from the environment, rules from [alerts], the store's memory; and tries targets out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from agent.api.alerting import distance
from agent.api.drift_alerts import Standing, standings
from agent.config.alerts import AlertsTable, TargetTable
from agent.config.load import LoadedConfig, load_config
from agent.errors import ConfigError
from agent.model import AlertKind, AlertState, Delivery, Letter, TargetState
from agent.observe.alerts import Quiet, Rules
from agent.observe.announcer import Announcer, Listener
from agent.observe.couriers import Courier, apprise_send, settle_all
from agent.store.alerts import Alerts
from agent.units import parse_raw, price_text

if TYPE_CHECKING:
    from agent.api.agent import Agent

Document = dict[str, Any]
TEST = "This is a test of trimtab's alerts."
SLACK_S = 10.0
"""How much longer than all its tries a test waits for a target."""


def announcer(table: AlertsTable, store: Alerts, failed: Callable[[Delivery], None]) -> Announcer | None:
    """What tells the owner; None where nobody is to be told. Raises ConfigError for a target whose variable is not set."""
    if not table.targets:
        return None
    return Announcer(store, listeners(table), rules(table), failed)


def listeners(table: AlertsTable) -> list[Listener]:
    """Every target with what it hears."""
    return [Listener(_courier(table, target), _kinds(target.events or table.events)) for target in table.targets]


def rules(table: AlertsTable) -> Rules:
    """What is told, when not, and how often."""
    minutes = table.quiet_minutes()
    return Rules(
        kinds=_kinds(table.events),
        cooldown_s=table.cooldown,
        cooldowns={AlertKind(event): seconds for event, seconds in table.cooldowns.items()},
        repeat_s=table.repeat,
        quiet=None if minutes is None else Quiet(*minutes, ZoneInfo(table.timezone or "UTC")),
        urgent=_kinds(table.urgent),
    )


def low_gas_wei(loaded: LoadedConfig) -> int | None:
    """Native coin below which gas is low, in wei; None where neither alerts.low_gas nor limits.native_floor says so."""
    text = loaded.config.alerts.low_gas or loaded.config.limits.native_floor
    return None if text is None else parse_raw(text, 18, "alerts.low_gas")


def alerts(agent: Agent) -> Document:
    """Alert prices of each asset now, what is on, and how each target did."""
    standing = agent.status()
    table, store = agent.desk.config.alerts, agent.desk.store
    states, told = store.alert_states(), store.alert_targets()
    names = {target.name for target in table.targets}
    return {
        "block": standing.step_input.snapshot.head.number,
        "assets": [_asset(agent, one) for one in standings(standing.decided.drifts)],
        "events": list(table.events),
        "quiet": None if table.quiet is None else {"hours": table.quiet, "timezone": table.timezone, "urgent": list(table.urgent)},
        "cooldown_s": table.cooldown,
        "targets": [_target(target, told.get(target.name, TargetState(target.name)), table) for target in table.targets],
        "forgotten_targets": sorted(set(told) - names),
        "open": [_state(state) for state in states if state.since_s is not None or state.untold],
        "last": [_state(state) for state in sorted(states, key=lambda one: one.told_s or 0, reverse=True) if state.told_s is not None][:10],
    }


def try_targets(config: LoadedConfig | Path | str) -> Document:
    """Sends one letter to each target and waits for what becomes of it; no chain, no store. Raises ConfigError where there is none."""
    table = (config if isinstance(config, LoadedConfig) else load_config(config)).config.alerts
    if not table.targets:
        raise ConfigError("alerts.targets: there is none", "write [[alerts.targets]] with name and url_env; see docs/alerts.md")
    couriers = [_courier(table, target) for target in table.targets]
    for number, courier in enumerate(couriers):
        courier.put(Letter(number, courier.name, AlertKind.TEST, TEST, int(time.time())))
    found = {one.letter.target: one.why for one in settle_all(couriers, table.timeout * table.attempts + SLACK_S)}
    told = [(courier.name, found.get(courier.name, "no answer in time")) for courier in couriers]
    return {"reached": not any(why for _, why in told), "targets": [{"name": n, "delivered": not why, "why": why} for n, why in told]}


def _courier(table: AlertsTable, target: TargetTable) -> Courier:
    send = apprise_send(target.resolve(), target.url_env, float(table.timeout))
    return Courier(target.name, send, table.attempts, table.label)


def _kinds(events: Sequence[str]) -> frozenset[AlertKind]:
    return frozenset(AlertKind(event) for event in events)


def _asset(agent: Agent, one: Standing) -> Document:
    token, numeraire = agent.portfolio.token(one.drift.token), agent.portfolio.numeraire

    def price(value: Any) -> str | None:
        return None if value is None else price_text(value, token.decimals, numeraire.decimals)

    def away(limit: Any) -> int | None:
        found = distance(one.drift.price, limit)
        return None if found is None else round(found * 10_000)

    return {
        "symbol": token.label,
        "price": price(one.drift.price),
        "alert_low": price(one.low),
        "alert_high": price(one.high),
        "to_low_bps": away(one.low),
        "to_high_bps": away(one.high),
        "weight_bps": one.drift.weight_bps,
        "band_bps": [round(one.drift.band_low_bps), round(one.drift.band_high_bps)],
        "side": one.side,
    }


def _target(target: TargetTable, told: TargetState, table: AlertsTable) -> Document:
    try:
        target.resolve()
        ready = True
    except ConfigError:
        ready = False
    return {
        "name": target.name,
        "ready": ready,
        "url_env": target.url_env,
        "events": list(target.events or table.events),
        "delivered": _moment(told.delivered_s),
        "failed": _moment(told.failed_s),
        "failures_in_row": told.failures,
        "why": told.why,
        "waiting": told.waiting,
        "lost": told.lost,
    }


def _state(state: AlertState) -> Document:
    return {
        "key": state.key,
        "event": state.kind.value,
        "text": state.text,
        "since": _moment(state.since_s),
        "told": _moment(state.told_s),
        "waits": state.untold > 0,
    }


def _moment(at_s: int | None) -> str | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
