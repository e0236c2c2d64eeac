"""The config that an owner has confirmed, and the one that is there: what was changed by hand is told, and confirmed or refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent import wiring
from agent.config import load
from agent.config.load import ConfigSource, LoadedConfig, load_config
from agent.errors import ConfigError, Refused
from agent.model import Verdict
from agent.store.config_versions import ConfigVersionStore

if TYPE_CHECKING:
    from agent.app.agent import Agent


Document = dict[str, Any]
FIRST, CONFIRMED, BY_YES, EDITED, NOTICED = "first", "confirmed", "yes", "edit", "noticed"
UNKNOWN = ("the version before was kept by its hash alone",)
Ask = Callable[[tuple[str, ...]], bool]
"""Shows what was changed by hand, nothing where nothing was, and asks."""


def unconfirmed_changes(loaded: LoadedConfig, store: ConfigVersionStore) -> tuple[str, ...] | None:
    """Lines that differ from the version that was confirmed last; None where it is that version, or none ever was."""
    before = store.confirmed_config()
    if before is None or before == loaded.digest:
        return None
    texts = [version.text for version in store.configs(1_000) if version.digest == before and version.text is not None]
    return (load.config_diff(texts[0], loaded.text) or ("comments or secrets alone",)) if texts else UNKNOWN


def record_version(loaded: LoadedConfig, store: ConfigVersionStore, how: str) -> None:
    """Writes this version down, unless it is the newest already and in the same way."""
    newest = store.configs(1)
    if not newest or (newest[0].digest, newest[0].how == NOTICED) != (loaded.digest, how == NOTICED):
        store.confirm_config(loaded.digest, int(time.time()), loaded.text, how)


def require_trusted_config(agent: Agent) -> bool:
    """For machines, that ask nobody (`--yes`): True where the config is the confirmed one, the first, or that of a local chain.

    On a live chain a config that was changed by hand is written down as noticed, and Refused with what was changed.
    """
    loaded, store = agent.desk.loaded, agent.desk.store
    lines = require_unchanged(loaded, store)
    record_version(loaded, store, FIRST if store.confirmed_config() is None else BY_YES if lines is not None else CONFIRMED)
    return True


def require_unchanged(loaded: LoadedConfig, store: ConfigVersionStore) -> tuple[str, ...] | None:
    """What was changed by hand, as `changed` tells it. On a chain that is not local it is written down as noticed, and Refused."""
    lines = unconfirmed_changes(loaded, store)
    if lines is not None and not loaded.config.chain.local:
        record_version(loaded, store, NOTICED)
        raise unconfirmed_error(lines)
    return lines


def unconfirmed_error(lines: tuple[str, ...]) -> Refused:
    """These lines are nobody's wish yet."""
    verdict = Verdict("config", "; ".join(lines[:5]), "the version that its owner has confirmed", False)
    return Refused("the config was changed by hand and nobody has confirmed it", (verdict,), "trimtab edit --confirm shows it, and asks")


def confirm_changes(agent: Agent, ask: Ask) -> bool:
    """For people: what was changed is shown with the question, and a yes confirms both. Raises Edited where another version was
    confirmed while it was asked: the yes was to neither.
    """
    loaded, store = agent.desk.loaded, agent.desk.store
    known, lines = store.confirmed_config(), unconfirmed_changes(loaded, store) or ()
    if lines:
        record_version(loaded, store, NOTICED)
    if not ask(lines):
        return False
    store.require_present(loaded.digest, known)
    record_version(loaded, store, CONFIRMED)
    return True


def list_versions(config: ConfigSource, limit: int = 20) -> Document:
    """Every version that was confirmed or noticed, newest first."""
    loaded = load_config(config)
    with wiring.open_store_offline(loaded) as (store, _):
        return {
            "present": loaded.digest,
            "confirmed": store.confirmed_config(),
            "configs": [
                {
                    "number": one.number,
                    "time": datetime.fromtimestamp(one.at_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                    "digest": one.digest,
                    "how": one.how,
                    "kept": one.text is not None,
                }
                for one in store.configs(limit)
            ],
        }


def show_version(config: ConfigSource, number: int) -> Document:
    """One version, and what changed since the one before it; secrets and comments are in none. Raises ConfigError for no such number."""
    with wiring.open_store_offline(load_config(config)) as (store, _):
        found = list(store.configs(10_000))
    place = next((place for place, one in enumerate(found) if one.number == number), None)
    if place is None:
        raise ConfigError(f"--config-version: {number} is not in the store", "see trimtab history --configs")
    one, before = found[place], next((other for other in found[place + 1 :] if other.text is not None), None)
    lines = () if one.text is None or before is None or before.text is None else load.config_diff(before.text, one.text)
    return {
        "number": number,
        "digest": one.digest,
        "how": one.how,
        "before": None if before is None else before.number,
        "changes": list(lines),
        "text": one.text,
    }
