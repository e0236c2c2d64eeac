"""The documents that the dashboard shows, each as its command prints it with --json. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent import wiring
from agent.app.agent import Agent, open_agent
from agent.app.alerting import alerts
from agent.app.documents import futures as futures_documents
from agent.app.documents import plans
from agent.app.documents.status import status
from agent.app.futures import futures_layer
from agent.app.positions.orders import standing_orders
from agent.app.records.ledger import newest_pnl
from agent.app.records.step_history import explain, history
from agent.config.load import ConfigSource, load_config
from agent.errors import ConfigError, OperatorNeeded, TrimtabError

Documents = dict[str, Any]
"""Documents by name. One that cannot be read has the single key `error`."""
PERIODS = ("day", "week", "month", "year", "all")
NEWEST = 100
"""Steps and valuations shown."""


def require_store(config: ConfigSource) -> str:
    """Return the store's file. Raises ConfigError if the config is invalid or has no store yet."""
    file = wiring.store_file(load_config(config))
    if not file.exists():
        raise ConfigError(
            f"store: {file} does not exist",
            "trimtab run and trimtab rebalance create it; start the dashboard after the first step",
        )
    return str(file)


def newest_step(config: ConfigSource) -> str:
    """Return a mark of the newest step that changes with each cycle; empty without steps."""
    with wiring.open_store_offline(load_config(config)) as (store, switch):
        paused = switch.is_paused() is not False
        for line in store.steps.newest(1):
            states = [intent.state.value for intent in store.journal.intents(line.id)]
            return " ".join((line.id, line.outcome or "", str(paused), *states))
    return ""


def stored_documents(config: ConfigSource) -> Documents:
    """Return `history` and `pnl`, the newest of each period, from the store alone."""
    loaded = load_config(config)
    return {
        "history": _read(lambda: history(loaded, NEWEST)),
        "pnl": _read(lambda: newest_pnl(loaded, PERIODS)),
    }


def live_documents(config: ConfigSource) -> Documents:
    """Return `status`, `orders`, `alerts`, `positions` and `margin`, read from the chain. The last
    two are missing without [futures].
    """
    with open_agent(load_config(config)) as agent:
        readers: dict[str, Callable[[Agent], Mapping[str, Any]]] = {
            "status": lambda found: status(found.status()),
            "orders": standing_orders,
            "alerts": alerts,
        }
        if agent.context.futures is not None:
            readers["positions"] = lambda found: futures_documents.positions(futures_layer(found))
            readers["margin"] = lambda found: futures_documents.margin_account(futures_layer(found))
        return {name: _read(lambda: read(agent)) for name, read in readers.items()}  # noqa: B023


def plan_document(config: ConfigSource) -> Documents:
    """Return `plan`, a dry run now."""
    with open_agent(load_config(config)) as agent:
        return {"plan": plans.live_plan(agent.plan(), agent, sent=False, extra={})}


def step_document(config: ConfigSource, step_id: str) -> Documents:
    """Return `explain` of a past step. Raises ConfigError for an unknown id."""
    return {"explain": explain(config, step_id)}


def _read(read: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a document, or the reason why it cannot be read."""
    try:
        return read()
    except OperatorNeeded:
        raise
    except TrimtabError as error:
        return {"error": str(error)}
