"""Confirmation of the config: compare the file with the version its owner confirmed last, then
confirm or refuse the changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.config import load
from agent.config.load import ConfigSource, LoadedConfig, load_config
from agent.errors import ConfigError, Refused
from agent.model import Verdict
from agent.store.store import ConfigChanged, ConfigVersionStore

if TYPE_CHECKING:
    from agent.app.agent import Agent


Document = dict[str, Any]
FIRST, CONFIRMED, BY_YES, EDITED, NOTICED = "first", "confirmed", "yes", "edit", "noticed"
UNKNOWN = ("the version before was kept by its hash alone",)
Ask = Callable[[tuple[str, ...]], bool]
"""Shows changes made by hand, if any, and asks for confirmation."""


def unconfirmed_changes(
    loaded: LoadedConfig, configs: ConfigVersionStore
) -> tuple[str, ...] | None:
    """Return lines that differ from the last confirmed version; None without a difference or a
    confirmed version.
    """
    before = configs.confirmed()
    if before is None or before == loaded.digest:
        return None
    texts = [
        version.text
        for version in configs.newest(1_000)
        if version.digest == before and version.text is not None
    ]
    return (
        (load.config_diff(texts[0], loaded.text) or ("comments or secrets alone",))
        if texts
        else UNKNOWN
    )


def record_version(loaded: LoadedConfig, configs: ConfigVersionStore, how: str) -> None:
    """Record this version, unless it is already the newest with that origin."""
    newest = configs.newest(1)
    if not newest or (newest[0].digest, newest[0].how == NOTICED) != (
        loaded.digest,
        how == NOTICED,
    ):
        configs.confirm(loaded.digest, int(time.time()), loaded.text, how)


def require_trusted_config(agent: Agent) -> bool:
    """Check the config without asking (`--yes`): True if it is the confirmed version, the first, or
    on a local chain. On a live chain, a config edited by hand is recorded, and Refused is raised
    with the changes.
    """
    loaded, configs = agent.context.loaded, agent.context.store.configs
    lines = require_unchanged(loaded, configs)
    record_version(
        loaded,
        configs,
        FIRST if configs.confirmed() is None else BY_YES if lines is not None else CONFIRMED,
    )
    return True


def require_unchanged(loaded: LoadedConfig, configs: ConfigVersionStore) -> tuple[str, ...] | None:
    """Return `unconfirmed_changes`. On a live chain, changes are recorded as noticed and Refused is
    raised.
    """
    lines = unconfirmed_changes(loaded, configs)
    if lines is not None and not loaded.config.chain.local:
        record_version(loaded, configs, NOTICED)
        raise unconfirmed_error(lines)
    return lines


def unconfirmed_error(lines: tuple[str, ...]) -> Refused:
    """Refusal that lists unconfirmed config changes."""
    verdict = Verdict(
        "config", "; ".join(lines[:5]), "the version that its owner has confirmed", False
    )
    return Refused(
        "the config was edited and the edit is not confirmed",
        (verdict,),
        "trimtab edit --confirm shows it, and asks",
    )


def confirm_changes(agent: Agent, ask: Ask) -> bool:
    """Ask the user: the changes are shown with the question, and one confirmation covers both.

    Raises ConfigChanged if another version was confirmed during the question: the yes applied to
    neither.
    """
    loaded, configs = agent.context.loaded, agent.context.store.configs
    known, lines = configs.confirmed(), unconfirmed_changes(loaded, configs) or ()
    if lines:
        record_version(loaded, configs, NOTICED)
    if not ask(lines):
        return False
    configs.require_present(loaded.digest, known)
    record_version(loaded, configs, CONFIRMED)
    return True


def list_versions(config: ConfigSource, limit: int = 20) -> Document:
    """Every version that was confirmed or noticed, newest first."""
    loaded = load_config(config)
    with wiring.open_store_offline(loaded) as (store, _):
        return {
            "present": loaded.digest,
            "confirmed": store.configs.confirmed(),
            "configs": [
                {
                    "number": one.number,
                    "time": datetime.fromtimestamp(one.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                    "digest": one.digest,
                    "how": one.how,
                    "kept": one.text is not None,
                }
                for one in store.configs.newest(limit)
            ],
        }


def show_version(config: ConfigSource, number: int) -> Document:
    """Return one version with its changes against the previous one, without secrets and comments.
    Raises ConfigError for an unknown number.
    """
    with wiring.open_store_offline(load_config(config)) as (store, _):
        found = list(store.configs.newest(10_000))
    place = next((place for place, one in enumerate(found) if one.number == number), None)
    if place is None:
        raise ConfigError(
            f"--config-version: {number} is not in the store", "see trimtab history --configs"
        )
    one, before = (
        found[place],
        next((other for other in found[place + 1 :] if other.text is not None), None),
    )
    lines = (
        ()
        if one.text is None or before is None or before.text is None
        else load.config_diff(before.text, one.text)
    )
    return {
        "number": number,
        "digest": one.digest,
        "how": one.how,
        "before": None if before is None else before.number,
        "changes": list(lines),
        "text": one.text,
    }


# --- Update of a running agent to a newly confirmed config; an edited file alone changes nothing.


FIXED_WHILE_RUNNING = ("chain", "wallet", "execution", "store", "service", "alerts", "record")
"""Tables that are read once at process start: endpoints, key, contracts, alert targets."""
CONFIG_READ_ATTEMPTS = 3
"""Reads of the file, a second apart: an edit writes the file just before the store."""


def with_confirmed_config(
    context: wiring.AgentContext, wallet: wiring.WalletSession | None, edited: ConfigChanged
) -> tuple[wiring.AgentContext, wiring.WalletSession | None]:
    """Context and wallet session of the last confirmed config, built while no other process has the
    wallet. Raises `edited` if the file is a different version or the run is on paper; ConfigChanged
    if a table of FIXED_WHILE_RUNNING differs; LockHeld if another process keeps the wallet;
    Retryable from the endpoints.
    """
    if wallet is None:
        return _reopened(context, edited), None
    with wallet.locked():
        found = _reopened(context, edited)
    return found, replace(wallet, context=found)


def _reopened(context: wiring.AgentContext, edited: ConfigChanged) -> wiring.AgentContext:
    loaded = None if context.loaded.paper else _confirmed_file(context)
    if loaded is None:
        raise edited
    changed = [
        f"[{name}]"
        for name in FIXED_WHILE_RUNNING
        if getattr(loaded.config, name) != getattr(context.config, name)
    ]
    if changed:
        verdict = Verdict("config", ", ".join(changed), "unchanged since the run started", False)
        raise ConfigChanged(
            f"the config was edited in {', '.join(changed)}, which a run reads when it begins",
            (verdict,),
            "start it again",
        )
    return wiring.reopen_context(context, loaded)


def _confirmed_file(context: wiring.AgentContext) -> LoadedConfig | None:
    """The config file, if it is the version confirmed last."""
    for attempt in range(CONFIG_READ_ATTEMPTS):
        if attempt:
            context.clock.sleep(1)
        with suppress(ConfigError):
            loaded = load_config(context.loaded.path)
            if loaded.digest == context.store.configs.confirmed():
                return loaded
    return None
