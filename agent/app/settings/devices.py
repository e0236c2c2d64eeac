"""Alert targets of an edit by a control; devices of web push: the target that sends to them, their
changes by controls, and their list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.loaded import LoadedConfig
from agent.config.tables.alerts import AlertsTable
from agent.errors import ConfigError
from agent.key_variables import holds_key, named_key_variables
from agent.model import AlertDevice, Control
from agent.store.alerts import AlertStore
from agent.units import utc_text

if TYPE_CHECKING:
    from agent.observe.push import PushSender

PUSH_SCHEME = "webpush://"


def push_sender(alerts_table: AlertsTable) -> tuple[str, PushSender] | None:
    """Return name and sender of the target of web push; None without one. Raises ConfigError for a
    second one, or a malformed address.
    """
    push_targets = [
        alert_target
        for alert_target in alerts_table.targets
        if alert_target.read_url().startswith(PUSH_SCHEME)
    ]
    if not push_targets:
        return None
    if len(push_targets) > 1:
        raise ConfigError(
            f"alerts.targets: {push_targets[0].name} and {push_targets[1].name} are both {PUSH_SCHEME}",
            "keep one, which reaches every device",
        )
    from agent.observe.push import PushSender

    return push_targets[0].name, PushSender.from_url(
        push_targets[0].read_url(), push_targets[0].url_env
    )


def require_usable_targets(loaded_config: LoadedConfig) -> None:
    """Raise ConfigError for an alert target whose variable holds a key, is not set, or has no
    address.
    """
    from agent.observe.notify import apprise_sender

    key_variables = tuple(named_key_variables(loaded_config.toml_values))
    alerts_table = loaded_config.config.alerts
    for target in alerts_table.targets:
        if holds_key(target.url_env, key_variables):
            raise ConfigError(
                f"alerts.targets: {target.url_env} of {target.name} holds a key, not an address",
                "name another variable",
            )
        if not (url := target.read_url()).startswith(PUSH_SCHEME):
            apprise_sender(url, target.url_env, float(alerts_table.timeout))
    push_sender(alerts_table)


def change_devices(alerts_table: AlertsTable, store: AlertStore, control: Control) -> str:
    """Add or remove the device of a control; return what was done. Raises ConfigError for an
    unknown device or push service, and without a target of web push.
    """
    arguments = dict(control.arguments)
    if (device_id := arguments.get("remove")) is not None:
        if not store.remove_devices({device_id}):
            raise ConfigError(f"remove: no device {device_id}", "the page Alerts lists them")
        return "removed"
    if (name_and_sender := push_sender(alerts_table)) is None:
        raise ConfigError(f"alerts.targets: none is {PUSH_SCHEME}", "see docs/alerts.md")
    device = AlertDevice(
        arguments["endpoint"],
        arguments["key"],
        arguments["auth"],
        arguments["page"],
        control.asked_by,
        control.asked_at_s,
        control.origin,
    )
    name_and_sender[1].require_valid_device(device)
    store.add_device(device)
    return "added"


def devices_document(alerts_table: AlertsTable, store: AlertStore) -> dict[str, object]:
    """Return the devices of web push, and the key by which a browser subscribes: empty unless a run
    has offered it for a present target.
    """
    push_target_name, public_key = store.push_target()
    return {
        "key": public_key
        if push_target_name
        in {configured_target.name for configured_target in alerts_table.targets}
        else "",
        "devices": [
            {
                "id": device.id,
                "service": device.service_host,
                "user": device.user,
                "added": utc_text(device.added_s),
            }
            for device in store.devices()
        ],
    }
