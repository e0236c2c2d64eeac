"""Notifier of a config: channels from the environment, rules, state in the store, and their
documents.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from agent import wiring
from agent.app.alerting import AssetBand, asset_bands, price_distance, shortfall_key
from agent.app.documents import fill
from agent.app.documents.owner import AlertDocument, AlertTargetDocument
from agent.app.settings.devices import PUSH_SCHEME, push_sender
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.tables.alerts import AlertsTable, AlertTargetTable
from agent.errors import ConfigError
from agent.execution.settlement import originating_step
from agent.execution.shortfall import shortfall_by_receipt
from agent.execution.step_context import OutcomeKind
from agent.execution.submission.submitter import IN_FLIGHT_STATES
from agent.layers.futures.state import margin_account
from agent.model import AlertKind, AlertMessage, AlertTargetState, Delivery, Snapshot
from agent.observe.notify import (
    UNANSWERED_REASON,
    AlertChannel,
    AlertNotifier,
    AlertRules,
    ChannelSubscription,
    QuietHours,
    apprise_sender,
    drain_channels,
)
from agent.store.alerts import AlertStore
from agent.store.store import Store
from agent.units import BPS, DAY_S, Price, parse_raw, price_text

if TYPE_CHECKING:
    from agent.app.agent import Agent
    from agent.app.documents.owner import (
        AlertsDocument,
        AlertTestDocument,
        AssetAlertDocument,
        QuietHoursDocument,
    )

TEST_MESSAGE = "This is a test of trimtab's alerts."
EXTRA_WAIT_S = 10.0
"""Seconds that a test waits for a target beyond the time-outs of its requests."""


def open_notifier(
    alerts_table: AlertsTable,
    store: AlertStore,
    on_failed: Callable[[Delivery], None],
    complete: Callable[[str], str] = str,
) -> AlertNotifier | None:
    """Open the notifier, as AlertNotifier; None without alert targets. Raises ConfigError for a target whose variable
    is not set.
    """
    if not alerts_table.targets:
        return None
    if (push_target := push_sender(alerts_table)) is not None:
        target_name, sender = push_target
        store.record_push_target(target_name, sender.public_key)
    return AlertNotifier(
        store,
        open_subscriptions(alerts_table, store),
        alert_rules(alerts_table),
        on_failed,
        complete,
    )


def open_subscriptions(
    alerts_table: AlertsTable, store: AlertStore | None
) -> list[ChannelSubscription]:
    """Open a channel for each alert target, with the kinds that it receives."""
    return [
        ChannelSubscription(
            _open_channel(alerts_table, target, store),
            _alert_kinds(alerts_table.events_of(target)),
        )
        for target in alerts_table.targets
    ]


def alert_rules(alerts_table: AlertsTable) -> AlertRules:
    """Return kinds, cooldowns, repeats and quiet hours of [alerts]."""
    quiet_minutes = alerts_table.quiet_minutes()
    return AlertRules(
        kinds=_alert_kinds(alerts_table.events),
        cooldown_s=alerts_table.cooldown,
        cooldown_s_by_kind={
            AlertKind(event): seconds for event, seconds in alerts_table.cooldowns.items()
        },
        repeat_s=alerts_table.repeat,
        quiet_hours=None
        if quiet_minutes is None
        else QuietHours(*quiet_minutes, ZoneInfo(alerts_table.timezone or "UTC")),
        urgent_kinds=_alert_kinds(alerts_table.urgent),
    )


def low_gas_wei(loaded_config: LoadedConfig) -> int | None:
    """Return the low-gas threshold in wei; None if neither alerts.low_gas nor limits.native_floor
    is set.
    """
    low_gas_text = loaded_config.config.alerts.low_gas
    if low_gas_text is not None:
        return parse_raw(low_gas_text, 18, "alerts.low_gas")
    floor_text = loaded_config.config.limits.native_floor
    return None if floor_text is None else parse_raw(floor_text, 18, "limits.native_floor")


def alerts(agent: Agent) -> AlertsDocument:
    """Return the alert prices of each asset, the active alerts, and the deliveries of each
    target.
    """
    portfolio_status = agent.status()
    alerts_table = agent.context.config.alerts
    store = agent.context.store
    alert_states = store.alerts.states()
    state_by_target = store.alerts.target_states()
    target_names = {target.name for target in alerts_table.targets}
    sent_states = [
        alert_state for alert_state in alert_states if alert_state.last_sent_s is not None
    ]
    quiet_hours: QuietHoursDocument | None = None
    if alerts_table.quiet is not None:
        quiet_hours = {
            "hours": alerts_table.quiet,
            "timezone": alerts_table.timezone,
            "urgent": list(alerts_table.urgent),
        }
    return {
        "block": portfolio_status.step_input.snapshot.head.number,
        "assets": [
            _asset_document(agent, asset_band)
            for asset_band in asset_bands(
                portfolio_status.decision_result.drifts, agent.portfolio.numeraire.address
            )
        ],
        "events": list(alerts_table.events),
        "quiet": quiet_hours,
        "cooldown_s": alerts_table.cooldown,
        "targets": [
            _target_document(
                target,
                state_by_target.get(target.name, AlertTargetState(target.name)),
                alerts_table,
            )
            for target in alerts_table.targets
        ],
        "forgotten_targets": sorted(set(state_by_target) - target_names),
        "open": [
            fill(AlertDocument, alert_state)
            for alert_state in alert_states
            if alert_state.since_s is not None or alert_state.unsent_count
        ],
        "last": [
            fill(AlertDocument, alert_state)
            for alert_state in sorted(
                sent_states, key=lambda alert_state: alert_state.last_sent_s or 0, reverse=True
            )[:10]
        ],
    }


def send_test_alerts(
    config: LoadedConfig | Path | str, target_name: str | None = None
) -> AlertTestDocument:
    """Send a test message once to each target, or only to one, and wait for the results; uses no
    chain, and the store only for the devices of web push. Raises ConfigError without targets, or
    without one of that name.
    """
    loaded_config = load_config(config)
    alerts_table = loaded_config.config.alerts.model_copy(update={"attempts": 1})
    if not alerts_table.targets:
        raise ConfigError(
            "alerts.targets: no alert target is configured",
            "write [[alerts.targets]] with name and url_env; see docs/alerts.md",
        )
    targets = [target for target in alerts_table.targets if target_name in (None, target.name)]
    if not targets:
        raise ConfigError(
            f"alerts.targets: no target is named {target_name!r}",
            f"choose from {', '.join(target.name for target in alerts_table.targets)}",
        )
    with ExitStack() as stack:
        store = None
        request_count = 1
        if any(target.read_url().startswith(PUSH_SCHEME) for target in targets):
            store = stack.enter_context(wiring.open_store_offline(loaded_config))[0].alerts
            request_count = max(1, len(store.devices()))
        channels = [_open_channel(alerts_table, target, store) for target in targets]
        for channel_number, channel in enumerate(channels):
            channel.put(
                AlertMessage(
                    channel_number, channel.name, AlertKind.TEST, TEST_MESSAGE, int(time.time())
                )
            )
        deliveries = drain_channels(channels, alerts_table.timeout * request_count + EXTRA_WAIT_S)
    failure_reasons = {delivery.message.target: delivery.failure_reason for delivery in deliveries}
    reason_by_channel = [
        (channel.name, failure_reasons.get(channel.name, UNANSWERED_REASON)) for channel in channels
    ]
    return {
        "reached": not any(why for _, why in reason_by_channel),
        "targets": [
            {"name": channel_name, "delivered": not why, "why": why}
            for channel_name, why in reason_by_channel
        ],
    }


def _open_channel(
    alerts_table: AlertsTable, target: AlertTargetTable, store: AlertStore | None
) -> AlertChannel:
    url = target.read_url()
    timeout_s = float(alerts_table.timeout)
    if store is not None and url.startswith(PUSH_SCHEME):
        from agent.observe.push import PushChannel, PushSender

        sender = PushSender.from_url(url, target.url_env)
        return PushChannel(
            target.name, sender, store, timeout_s, alerts_table.attempts, alerts_table.label
        )
    send = apprise_sender(url, target.url_env, timeout_s)
    return AlertChannel(target.name, send, alerts_table.attempts, alerts_table.label)


def _alert_kinds(events: Sequence[str]) -> frozenset[AlertKind]:
    return frozenset(AlertKind(event) for event in events)


def _asset_document(agent: Agent, asset_band: AssetBand) -> AssetAlertDocument:
    drift = asset_band.drift
    token = agent.portfolio.token(asset_band.drift.token)
    numeraire = agent.portfolio.numeraire

    def alert_price_text(alert_price: Price | None) -> str | None:
        return (
            None
            if alert_price is None
            else price_text(alert_price, token.decimals, numeraire.decimals)
        )

    def distance_bps(alert_price: Price | None) -> int | None:
        distance_share = price_distance(drift.price, alert_price)
        return None if distance_share is None else round(distance_share * BPS)

    return {
        "symbol": token.label,
        "price": alert_price_text(drift.price),
        "alert_low": alert_price_text(asset_band.alert_low_price),
        "alert_high": alert_price_text(asset_band.alert_high_price),
        "to_low_bps": distance_bps(asset_band.alert_low_price),
        "to_high_bps": distance_bps(asset_band.alert_high_price),
        "weight_bps": drift.weight_bps,
        "band_bps": [round(drift.band_low_bps), round(drift.band_high_bps)],
        "side": asset_band.side,
    }


def _target_document(
    target: AlertTargetTable, target_state: AlertTargetState, alerts_table: AlertsTable
) -> AlertTargetDocument:
    try:
        target.read_url()
        is_ready = True
    except ConfigError:
        is_ready = False
    events = list(alerts_table.events_of(target))
    return fill(
        AlertTargetDocument,
        target_state,
        name=target.name,
        ready=is_ready,
        url_env=target.url_env,
        events=events,
    )


MAX_SHORTFALL_AGE_DAYS = 30
"""Age of a step after which its shortfall raises no alert; ended alerts are kept for longer."""


UNSETTLED_AFTER_S = 180
"""Time after an order's deadline from which its unknown outcome is reported."""


def unsettled_orders(
    store: Store, snapshot: Snapshot | None, now_s: int
) -> tuple[tuple[str, str], ...]:
    """Return client order id and note of the orders of a futures venue that have been without an
    outcome for UNSETTLED_AFTER_S, such as one that the venue calls filled but whose fills it does
    not list. An order that the venue lists as resting, in the newest `snapshot`, has none yet;
    without a snapshot resting orders are not judged.
    """
    account = None if snapshot is None else margin_account(snapshot)
    resting_cloids = None if account is None else {order.cloid for order in account.resting_orders}
    return tuple(
        (str(intent.tx_hash), intent.note)
        for intent in store.journal.open_intents()
        if intent.tx.is_venue_order
        and intent.state in IN_FLIGHT_STATES
        and now_s > (intent.deadline_s or 0) + UNSETTLED_AFTER_S
        and not (intent.is_resting and (resting_cloids is None or intent.tx_hash in resting_cloids))
    )


def unreported_shortfalls(
    store: Store, alert_store: AlertStore, now_s: int
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the failed steps whose transaction brought less than its minimum and for which no
    alert is recorded, for example because a crash came before it, with the tokens' labels.
    """
    reported_keys = {alert_state.key for alert_state in alert_store.states()}
    shortfalls = []
    for intent in store.journal.successful_trades(OutcomeKind.FAILED.value):
        is_recent = intent.created_s >= now_s - MAX_SHORTFALL_AGE_DAYS * DAY_S
        if not is_recent or shortfall_key(intent.step_id) in reported_keys:
            continue
        short_tokens = shortfall_by_receipt(store, intent)
        step = originating_step(store.steps, intent)
        if short_tokens and step is not None:
            token_labels = tuple(step.portfolio.token(token).label for token in short_tokens)
            shortfalls.append((intent.step_id, token_labels))
    return tuple(shortfalls)
