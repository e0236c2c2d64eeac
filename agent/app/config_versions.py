"""Versions of the config: compare the file with the last confirmed one, confirm or refuse the
changes, and list the history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.config.load import NO_CONFIG_REMEDY, load_config, validated_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.config.redaction import config_diff
from agent.config.writing.config_file import write_config
from agent.errors import ConfigError, PassingFault, Refused, TrimtabError
from agent.foreign_text import failure_text, read_toml
from agent.layers import settings as layer_settings
from agent.model import Verdict
from agent.store.files.locks import require_trusted_writers
from agent.store.store import ConfigChanged, ConfigVersionStore
from agent.units import utc_text

if TYPE_CHECKING:
    from agent.config.schema import Config


Document = dict[str, Any]
FIRST_ORIGIN = "first"
CONFIRMED_ORIGIN = "confirmed"
YES_ORIGIN = "yes"
EDIT_ORIGIN = "edit"
NOTICED_ORIGIN = "noticed"
CONTROL_ORIGIN = "control"
"""How a version came into the store; a noticed one is not confirmed."""
UNKNOWN_CHANGES = ("only the hash of the previous version is stored",)
"""In place of the changed lines if the text of the confirmed version is not stored."""
Ask = Callable[[tuple[str, ...]], bool]
"""Question to the user, with any manual changes to the config."""


def unconfirmed_changes(
    loaded_config: LoadedConfig, version_store: ConfigVersionStore
) -> tuple[str, ...] | None:
    """Return the lines that differ from the last confirmed version; None if it is the same, or if
    no version was confirmed.
    """
    confirmed_digest = version_store.confirmed_digest()
    if confirmed_digest is None or confirmed_digest == loaded_config.digest:
        return None
    for version in version_store.newest(1_000):
        if version.digest == confirmed_digest and version.text is not None:
            return config_diff(version.text, loaded_config.redacted_text) or (
                "only comments or secrets",
            )
    return UNKNOWN_CHANGES


def record_version(
    loaded_config: LoadedConfig, version_store: ConfigVersionStore, origin: str
) -> None:
    """Record this version as confirmed or noticed, unless it is the newest entry already."""
    for newest_version in version_store.newest(1):
        if newest_version.digest == loaded_config.digest and (
            newest_version.origin == NOTICED_ORIGIN
        ) == (origin == NOTICED_ORIGIN):
            return
    version_store.record(
        loaded_config.digest, int(time.time()), loaded_config.redacted_text, origin
    )


def read_config_text(config_file: Path) -> str:
    """Return the text of a config that only its owner may write. Raises ConfigError."""
    require_trusted_writers(config_file, "config")
    try:
        return config_file.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{config_file}: no such file", NO_CONFIG_REMEDY) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config_file}: cannot be read: {failure_text(error)}") from None


def take_back(config_file: Path, text_before: str, text_after: str, error: BaseException) -> None:
    """Write the old text again after `error`, unless the file was changed since. Raises PassingFault
    if it cannot be written.
    """
    try:
        if read_config_text(config_file) == text_after:
            write_config(config_file, text_before, 0o600)
    except TrimtabError as write_error:
        raise PassingFault(
            f"{config_file} is written, but not confirmed: {str(error) or 'interrupted'}; the old text"
            f" cannot be written back: {write_error.message}",
            "trimtab edit --confirm",
        ) from error


CONTROLLED_TABLES = ("portfolio", "policy", "limits")
"""Tables that a control may edit, besides those of layers."""


def owner_confirmed_config(
    loaded_config: LoadedConfig, version_store: ConfigVersionStore
) -> Config | None:
    """Return the present config with the tables that a control may edit as the owner confirmed them
    last; None if that version is not kept or no longer valid, or the present one was changed by
    hand.
    """
    if version_store.confirmed_digest() != loaded_config.digest:
        return None
    for version in version_store.newest(1_000):
        if version.origin in (CONTROL_ORIGIN, NOTICED_ORIGIN):
            continue
        if version.text is None:
            return None
        owner_values = read_toml(version.text)
        present_values = dict(loaded_config.toml_values)
        layer_keys = layer_settings.editable_keys(loaded_config.config, loaded_config.config)
        for table_name in {
            *CONTROLLED_TABLES,
            *(layer_key.partition(".")[0] for layer_key in layer_keys),
        }:
            present_values.pop(table_name, None)
            present_values |= (
                {table_name: owner_values[table_name]} if table_name in owner_values else {}
            )
        with suppress(ConfigError):
            return validated_config(present_values, "the last config of the owner")
        return None
    return None


def confirm_without_asking(context: wiring.AgentContext) -> bool:
    """Confirm the config without asking (`--yes`) and return True. Raises Refused with the changes
    if it was edited manually on a live chain.
    """
    loaded_config = context.loaded_config
    version_store = context.store.configs
    refuse_live_changes(loaded_config, version_store)
    confirmed_digest = version_store.confirmed_digest()
    if confirmed_digest != loaded_config.digest:  # else it keeps the origin that it had
        origin = FIRST_ORIGIN if confirmed_digest is None else YES_ORIGIN
        record_version(loaded_config, version_store, origin)
    return True


def refuse_live_changes(
    loaded_config: LoadedConfig, version_store: ConfigVersionStore
) -> tuple[str, ...] | None:
    """Return `unconfirmed_changes`, None without any; on a live chain record them as noticed and
    raise Refused.
    """
    changed_lines = unconfirmed_changes(loaded_config, version_store)
    if changed_lines is not None and not loaded_config.config.chain.is_local:
        record_version(loaded_config, version_store, NOTICED_ORIGIN)
        raise unconfirmed_error(changed_lines)
    return changed_lines


def unconfirmed_error(changed_lines: tuple[str, ...]) -> Refused:
    """Return the refusal that lists unconfirmed config changes."""
    verdict = Verdict(
        "config", "; ".join(changed_lines[:5]), "the version confirmed by the owner", False
    )
    return Refused(
        "the config was edited and the edit is not confirmed",
        (verdict,),
        "review it with trimtab edit --confirm in a terminal; without one, undo it in the file, and make"
        " it by trimtab edit --set KEY=VALUE --yes",
    )


def confirm_changes(context: wiring.AgentContext, ask: Ask) -> bool:
    """Ask the user to confirm an action; the question shows unconfirmed config changes, and
    confirming accepts them too.

    Raises ConfigChanged if another version was confirmed in the meantime.
    """
    loaded_config = context.loaded_config
    version_store = context.store.configs
    confirmed_digest = version_store.confirmed_digest()
    changed_lines = unconfirmed_changes(loaded_config, version_store) or ()
    if changed_lines:
        record_version(loaded_config, version_store, NOTICED_ORIGIN)
    if not ask(changed_lines):
        return False
    version_store.require_current(loaded_config.digest, confirmed_digest)
    if confirmed_digest != loaded_config.digest:
        record_version(loaded_config, version_store, CONFIRMED_ORIGIN)
    return True


def list_versions(config: ConfigSource, limit: int = 20) -> Document:
    """Return the newest `limit` versions that were confirmed or noticed, newest first."""
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, _):
        return {
            "present": loaded_config.digest,
            "confirmed": store.configs.confirmed_digest(),
            "configs": [
                {
                    "number": version.number,
                    "time": utc_text(version.at_s),
                    "digest": version.digest,
                    "how": version.origin,
                    "kept": version.text is not None,
                }
                for version in store.configs.newest(limit)
            ],
        }


def show_version(config: ConfigSource, version_number: int) -> Document:
    """Return one version with its changes from the previous one, without secrets and comments.
    Raises ConfigError for an unknown number.
    """
    with wiring.open_store_offline(load_config(config)) as (store, _):
        versions = list(store.configs.newest(10_000))
    version_index = next(
        (i for i, version in enumerate(versions) if version.number == version_number), None
    )
    if version_index is None:
        raise ConfigError(
            f"--config-version: {version_number} is not in the store",
            "see trimtab history --configs",
        )
    shown_version = versions[version_index]
    previous_version = next(
        (
            earlier_version
            for earlier_version in versions[version_index + 1 :]
            if earlier_version.text is not None
        ),
        None,
    )
    changed_lines: list[str] = []
    if (
        shown_version.text is not None
        and previous_version is not None
        and previous_version.text is not None
    ):
        changed_lines = list(config_diff(previous_version.text, shown_version.text))
    return {
        "number": version_number,
        "digest": shown_version.digest,
        "how": shown_version.origin,
        "before": None if previous_version is None else previous_version.number,
        "changes": changed_lines,
        "text": shown_version.text,
    }


FIXED_TABLES = ("chain", "wallet", "execution", "store", "service", "record")
"""Tables that a run reads only at start: endpoints, key, contracts."""
CONFIG_READ_ATTEMPTS = 3
"""Reads of the file, a second apart, because an edit writes the file just before the store."""


def fixed_tables_changed(config_before: Config, config_after: Config) -> list[str]:
    """Return the names, in brackets, of the changed tables that a run reads only at start."""
    return [
        f"[{table_name}]"
        for table_name in FIXED_TABLES
        if getattr(config_before, table_name) != getattr(config_after, table_name)
    ]


def fixed_tables_in(diff_lines: Iterable[str]) -> list[str]:
    """Like fixed_tables_changed, but from the lines of a diff, for a version stored only as
    text.
    """
    changed_keys = tuple(line[2:] for line in diff_lines)
    return [
        f"[{table_name}]"
        for table_name in FIXED_TABLES
        if any(
            changed_key.startswith((f"{table_name}.", f"{table_name} "))
            for changed_key in changed_keys
        )
    ]


def with_confirmed_config(
    context: wiring.AgentContext, wallet: wiring.WalletSession | None, change_error: ConfigChanged
) -> tuple[wiring.AgentContext, wiring.WalletSession | None]:
    """Build context and wallet session of the last confirmed config, under the wallet's lock.

    Raises `change_error` if the file holds another version or the run is on paper, ConfigChanged if
    a table of FIXED_TABLES differs, LockHeld if another process holds the wallet's lock,
    Retryable if the endpoints fail.
    """
    if wallet is None:
        return _reopen(context, change_error), None
    with wallet.hold_lock():
        confirmed_context = _reopen(context, change_error)
    return confirmed_context, replace(wallet, context=confirmed_context)


def _reopen(context: wiring.AgentContext, change_error: ConfigChanged) -> wiring.AgentContext:
    loaded_config = None if context.loaded_config.is_paper else _load_confirmed(context)
    if loaded_config is None:
        raise change_error
    changed_tables = fixed_tables_changed(context.config, loaded_config.config)
    if changed_tables:
        verdict = Verdict(
            "config", ", ".join(changed_tables), "unchanged since the run started", False
        )
        raise ConfigChanged(
            f"the config was edited in {', '.join(changed_tables)}, which a run reads only when it starts",
            (verdict,),
            "start the run again",
        )
    return wiring.reopen_context(context, loaded_config)


def _load_confirmed(context: wiring.AgentContext) -> LoadedConfig | None:
    """Return the config file if it is the version confirmed last, else None."""
    for attempt in range(CONFIG_READ_ATTEMPTS):
        if attempt:
            context.clock.sleep(1)
        with suppress(ConfigError):
            loaded_config = load_config(context.loaded_config.path)
            if loaded_config.digest == context.store.configs.confirmed_digest():
                return loaded_config
    return None
