"""How a run that goes on takes up a config that its owner has confirmed meanwhile; a file alone changes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from agent import wiring
from agent.config.load import LoadedConfig, load_config
from agent.errors import ConfigError
from agent.model import Verdict
from agent.store.versions import Edited

READ_ONCE = ("chain", "wallet", "execution", "store", "service", "alerts", "record")
"""Tables that a process is set up with: endpoints, key, what may be sent where, and who is told."""
TRIES = 3
"""Looks at the file, a second apart: an edit writes it just before the store."""


def taken_up(desk: wiring.Desk, wallet: wiring.Wallet | None, edited: Edited) -> tuple[wiring.Desk, wiring.Wallet | None]:
    """Desk and wallet by the version that was confirmed last, made while nobody else has the wallet.

    Raises `edited` where the file is another version than that, or the run is on paper; Edited where a table of READ_ONCE differs;
    Held where another process keeps the wallet; Retryable from the endpoints.
    """
    if wallet is None:
        return _reopened(desk, edited), None
    with wallet.locked():
        found = _reopened(desk, edited)
    return found, replace(wallet, desk=found)


def _reopened(desk: wiring.Desk, edited: Edited) -> wiring.Desk:
    loaded = None if desk.loaded.paper else _confirmed(desk)
    if loaded is None:
        raise edited
    changed = [f"[{name}]" for name in READ_ONCE if getattr(loaded.config, name) != getattr(desk.config, name)]
    if changed:
        verdict = Verdict("config", ", ".join(changed), "as it was when the run began", False)
        raise Edited(f"the config was edited in {', '.join(changed)}, which a run reads when it begins", (verdict,), "start it again")
    return wiring.reopened(desk, loaded)


def _confirmed(desk: wiring.Desk) -> LoadedConfig | None:
    """The config file, where it is the version that was confirmed last."""
    for attempt in range(TRIES):
        if attempt:
            desk.clock.sleep(1)
        with suppress(ConfigError):
            loaded = load_config(desk.loaded.path)
            if loaded.digest == desk.store.confirmed_config():
                return loaded
    return None
