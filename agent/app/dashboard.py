"""Documents of the dashboard and the API, each as its command prints it with --json. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

from agent import wiring
from agent.app.agent import Agent, open_agent
from agent.app.alert_channels import alerts
from agent.app.config_versions import unconfirmed_changes
from agent.app.documents import futures as futures_documents
from agent.app.documents.past.step_history import explain, history
from agent.app.documents.status import SettingsDocument, status_document
from agent.app.positions.futures import futures_funding
from agent.app.positions.holdings import liquidity_document, read_liquidity_report, strategies
from agent.app.positions.orders import standing_orders
from agent.app.records.ledger import (
    ledger_data,
    newest_pnl,
    open_ledger_data,
    value_series,
)
from agent.app.records.lots import lots_document
from agent.app.settings.shown import settings_document
from agent.config.load import load_config
from agent.config.loaded import ConfigSource, LoadedConfig
from agent.errors import ConfigError, OperatorNeeded, TrimtabError

Documents = dict[str, Any]
"""Documents by name. One that cannot be read has the keys `error`, its text, and `raised`."""
PNL_PERIODS = ("day", "week", "month", "year", "all")
MAX_STEPS = 100
"""Steps and valuations shown."""
FUNDING_DAYS = 7
"""Days of funding shown, as by `trimtab funding`."""


def require_store(config: ConfigSource) -> str:
    """Return the store's file. Raises ConfigError if the config is invalid or has no store yet."""
    loaded_config = load_config(config)
    if not wiring.has_store(loaded_config):
        raise ConfigError(
            f"store: there is none of this wallet: {wiring.store_text(loaded_config)}",
            "trimtab trust creates it, and so does the first step of trimtab run",
        )
    return str(wiring.store_file(loaded_config))


def require_current_store(config: ConfigSource) -> None:
    """Raise the error of a config or store that cannot be read without an upgrade, which writes."""
    require_store(config)
    _load_current_config(config)


def _load_current_config(config: ConfigSource) -> LoadedConfig:
    """Return the config. Raises OperatorNeeded if its store is of an older version: an upgrade
    writes, and a run of that version may go on.
    """
    loaded_config = load_config(config)
    if wiring.has_store(loaded_config):
        with wiring.open_store_offline(loaded_config, checks_and_migrates=False):
            pass
    return loaded_config


def change_marker(config: ConfigSource) -> str:
    """Return a text that changes with each cycle, on paper too, with the states of its
    transactions, with orders that a command arms, with a pause and with a stop.
    """
    loaded_config = load_config(config)
    change_words = _change_words(loaded_config)
    if not loaded_config.is_paper:
        try:
            change_words += _change_words(replace(loaded_config, is_paper=True))
        except OperatorNeeded as error:  # a paper store hides nothing of the live one
            change_words.append(str(error))
    return " ".join(change_words)


def _change_words(loaded_config: LoadedConfig) -> list[str]:
    if not wiring.has_store(loaded_config):
        return []
    with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as (
        store,
        kill_switch,
    ):
        stop = store.requests.active_stop()
        stop_words = [] if stop is None else [f"{stop.id} {stop.state.value}"]
        _, orders_version = store.orders.orders_and_version()
        return [str(orders_version), *stop_words] + [
            word
            for summary in store.steps.newest(1)
            for word in (
                summary.id,
                summary.outcome or "",
                str(kill_switch.is_paused() is not False),
                *(intent.state.value for intent in store.journal.intents(summary.id)),
            )
        ]


def stored_documents(config: ConfigSource) -> Documents:
    """Return `history`, `pnl` (the newest of each period), `series`, `lots` and `settings`, from
    store and config; `paper` with the `pnl` of the paper books, if there are any.
    """
    loaded_config = _load_current_config(config)
    documents: Documents = {
        "history": _document_or_error(lambda: history(loaded_config, MAX_STEPS)),
        "settings": _document_or_error(lambda: _settings(loaded_config)),
    }
    paper_loaded_config = replace(loaded_config, is_paper=True)
    if not loaded_config.is_paper and wiring.has_store(paper_loaded_config):
        try:
            documents["paper"] = {"pnl": _newest_pnl(paper_loaded_config)}
        except TrimtabError as error:  # also a damaged one, which hides nothing of the live one
            documents["paper"] = _error_document(error)
    try:
        with open_ledger_data(loaded_config) as ledger:
            pnl_document = _document_or_error(lambda: newest_pnl(ledger, PNL_PERIODS))
            return documents | {
                "pnl": pnl_document,
                "series": _document_or_error(lambda: value_series(ledger)),
                "lots": _document_or_error(lambda: lots_document(ledger)),
            }
    except (ConfigError, OperatorNeeded) as error:  # an empty ledger, or a damaged one
        return documents | dict.fromkeys(("pnl", "series", "lots"), _error_document(error))


def _settings(loaded_config: LoadedConfig) -> SettingsDocument:
    """Return the settings, on paper with the changes that a run reads only when it starts."""
    document = settings_document(loaded_config)
    if loaded_config.is_paper:
        with wiring.open_store_offline(loaded_config, checks_and_migrates=False) as (store, _):
            changes = unconfirmed_changes(loaded_config, store.configs)
        if changes is not None:
            document["changes_since_start"] = list(changes)
    return document


def _newest_pnl(loaded_config: LoadedConfig) -> Documents:
    with open_ledger_data(_load_current_config(loaded_config)) as ledger:
        return dict(newest_pnl(ledger, PNL_PERIODS))


def live_documents(config: ConfigSource, document_names: Collection[str] = ()) -> Documents:
    """Return documents read from the chain, or only those named: `status`, and `now` with the `pnl`
    of its moment; `orders` and `alerts`; `strategies` with [[strategies]], `lp` with [lp] or
    positions; with [futures] `positions`, `margin` and `funding`, all three of one block.
    """
    with open_agent(_load_current_config(config)) as agent:
        context = agent.context
        read_status = cache(agent.status)

        def read_pnl(_: Agent) -> Mapping[str, Any]:
            step = read_status().step_input
            try:
                ledger = ledger_data(context.loaded_config, context.store, step)
                return {
                    "pnl": newest_pnl(ledger, PNL_PERIODS),
                    "series": _document_or_error(lambda: value_series(ledger)),
                }
            except OperatorNeeded as error:  # a damaged ledger hides nothing of the chain
                return _error_document(error)

        readers_by_name: dict[str, Callable[[Agent], Mapping[str, Any]]] = {
            "status": lambda _: status_document(read_status()),
            "now": read_pnl,
            "orders": standing_orders,
            "alerts": alerts,
        }
        if agent.context.config.strategies:
            readers_by_name["strategies"] = strategies
        if agent.context.config.lp is not None or agent.portfolio.positions:
            readers_by_name["lp"] = lambda connected_agent: liquidity_document(
                read_liquidity_report(connected_agent)
            )
        if agent.context.futures_policy is not None:
            read_futures = cache(lambda: futures_funding(agent, FUNDING_DAYS))
            readers_by_name["positions"] = lambda _: futures_documents.positions_document(
                read_futures()[0]
            )
            readers_by_name["margin"] = lambda _: futures_documents.margin_document(
                read_futures()[0]
            )
            readers_by_name["funding"] = lambda _: futures_documents.funding_document(
                *read_futures()
            )
        return {
            document_name: _document_or_error(partial(read_document, agent))
            for document_name, read_document in readers_by_name.items()
            if document_name in document_names or not document_names
        }


def plan_document(config: ConfigSource) -> Documents:
    """Return `plan`, a dry run now."""
    with open_agent(_load_current_config(config)) as agent:
        outcome = agent.plan()
        layer_fields = agent.shown_plan_fields(outcome)
        return {"plan": agent.plan_document(outcome, layer_fields, send_allowed=False)}


def step_document(config: ConfigSource, step_id: str) -> Documents:
    """Return `explain` of a past step, and `explorer`, the address of the chain's block explorer or
    empty. Raises ConfigError for an unknown id.
    """
    loaded_config = _load_current_config(config)
    explorer_url = loaded_config.config.chain.explorer.rstrip("/")
    return {"explain": explain(loaded_config, step_id), "explorer": explorer_url}


def _document_or_error(read_document: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a document, or the reason why it cannot be read."""
    try:
        return read_document()
    except OperatorNeeded:
        raise
    except TrimtabError as error:
        return _error_document(error)


def _error_document(error: TrimtabError) -> Documents:
    return {"error": str(error), "raised": error}
