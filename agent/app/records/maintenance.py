"""Maintenance of the store by its owner: list, reconcile and cancel journaled transactions; back
up, restore and check the store's file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress, never_confirm
from agent.app.documents import fill
from agent.app.documents.open_orders import journalled_order_document
from agent.app.documents.records import (
    JournalledTransactionDocument,
    TracedTransactionDocument,
    TransitionDocument,
)
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.execution.approvals import cancellable_intents, pending_intents
from agent.execution.executor import ProposingExecutor
from agent.execution.settlement import settle_mined
from agent.execution.submission.proposal_words import withdrawn_proposal_texts
from agent.model import Intent, IntentState, PerpOrder
from agent.ports.perpetuals import futures_grant
from agent.store.files import backup
from agent.store.files.locks import service_lock, wallet_lock
from agent.store.migrations.schema import REVISIONS
from agent.store.opening import sqlite_path
from agent.store.transitions import OPEN_STATES
from agent.wiring.signed_proposals import cancel_effects, executable_dropped

if TYPE_CHECKING:
    from agent.app.documents.records import (
        BackupDocument,
        CancelledTransactionsDocument,
        JournalStateDocument,
        PendingTransactionsDocument,
        RestoreDocument,
        SettledTransactionsDocument,
        StoreCheckDocument,
        TransactionsDocument,
    )
    from agent.store.store import Store


Progress = Callable[[str], None]
CANCEL_REASON = "cancelled by trimtab cancel"


def transactions(config: LoadedConfig | Path | str, limit: int = 20) -> TransactionsDocument:
    """Return the newest transactions with all transitions, newest first; no chain is read."""
    loaded_config = load_config(config)
    futures = loaded_config.config.futures
    order_time_s = 0 if futures is None else futures.order_time or 0
    with wiring.open_store_offline(loaded_config) as (store, _):
        return {
            "transactions": [
                _traced_document(store, intent, order_time_s)
                for intent in store.journal.intents(limit=limit)
            ],
            **_journal_document(store),
        }


def pending_transactions(config: LoadedConfig | Path | str) -> PendingTransactionsDocument:
    """Return the transactions that `cancel` would cancel, drop or reject: planned, signed or sent, and
    not known to be mined, and a dropped proposal that owners have signed. Reads the chain for a
    proposal that an owner has signed.
    """
    loaded_config = load_config(config)
    with wiring.open_store_offline(loaded_config) as (store, kill_switch):
        intents = cancellable_intents(store.journal)
        effects = cancel_effects(loaded_config, store, intents)
        state_document = _journal_document(store)
        dropped = executable_dropped(loaded_config, store)
        if dropped is not None:
            intents = (*intents, dropped[0])
            effects.append(dropped[1])
            state_document["waiting"] += 1
        needs_transaction = len(effects) < len(intents) or any(
            effect.may_reject for effect in effects
        )
        advice = "To cancel them: trimtab cancel --send"
        is_soft_pause = kill_switch.is_paused() is not False and not kill_switch.is_hard()
        if needs_transaction and is_soft_pause:
            advice = (
                "To cancel them while paused: trimtab pause --hard --send, which also sets allowances to"
                " zero"
            )
            if dropped is not None and dropped[1].has_too_few:
                advice += ", then trimtab cancel --send"
        advice = "; it ".join([advice, *(effect.text for effect in effects)])
        return {
            "transactions": [_journalled_document(intent) for intent in intents],
            "advice": advice if intents else "",
            **state_document,
        }


def reconcile(
    agent: Agent, *, send: bool = False, progress: Progress = ignore_progress
) -> SettledTransactionsDocument:
    """Reconcile the journal with the chain and book mined transactions.

    With `send`, lost or late transactions are resent or cancelled. Raises Refused while paused,
    OperatorNeeded if an operator has to act.
    """
    if send:
        agent.context.kill_switch.require_off()
    store = agent.context.store
    with wiring.open_transactor(agent.context, never_confirm, progress, signs=send) as transactor:
        reconciled_intents = transactor.executor.reconcile(may_send=send)
        booked_count = _book_mined(agent)
    return {
        "transactions": [_journalled_document(intent) for intent in reconciled_intents],
        "advice": "",
        "booked": booked_count,
        **_journal_document(store),
    }


def cancel(agent: Agent, *, progress: Progress = ignore_progress) -> CancelledTransactionsDocument:
    """Cancel every pending transaction at its nonce, drop those never sent, and wait for the
    result; if nothing is pending, propose the rejection of a dropped proposal that an owner has signed.
    Raises Refused at a soft pause or above the gas caps, OperatorNeeded if the chain refuses a cancel.
    """
    store = agent.context.store
    with wiring.open_transactor(agent.context, never_confirm, progress) as transactor:
        initial_intents = pending_intents(store.journal)
        pending_nonces = sorted({intent.tx.nonce for intent in initial_intents})
        ended_ids = {
            intent.id
            for nonce in pending_nonces
            for intent in store.journal.intents_at(nonce)
            if intent not in initial_intents
        }
        executor = transactor.executor
        executor.cancel_pending(CANCEL_REASON)
        if not initial_intents and isinstance(executor, ProposingExecutor):
            executor.reject_dropped(CANCEL_REASON, by_any_signature=True)
        booked_count = _book_mined(agent)
    intents = [
        intent
        for nonce in pending_nonces
        for intent in store.journal.intents_at(nonce)
        if intent.id not in ended_ids
    ]
    now_s = agent.context.clock.now_s()
    return {
        "transactions": [_journalled_document(intent) for intent in intents],
        "advice": "",
        "booked": booked_count,
        "withdrawn": withdrawn_proposal_texts(store.journal, store.proposals, intents, now_s),
        **_journal_document(store),
    }


def _book_mined(agent: Agent) -> int:
    """Book mined transactions that no budget contains yet and end paid withdrawals; return the number
    of the transactions.
    """
    context = agent.context
    context.store.requests.end_paid_withdrawals(context.clock.now_s())
    unbooked_intents = context.store.journal.unbooked_intents()
    if not unbooked_intents:
        return 0
    readers = context.readers
    snapshot = readers.reader.snapshot()
    settle_mined(context.store, snapshot, lambda: readers.step_input_at(snapshot))
    return len(unbooked_intents) - len(context.store.journal.unbooked_intents())


def _journal_document(store: Store) -> JournalStateDocument:
    return {
        "waiting": len({intent.tx.nonce for intent in pending_intents(store.journal)}),
        "confirming": sum(
            intent.state is IntentState.MINED and not intent.is_resting
            for intent in store.journal.open_intents()
        ),
        "next_nonce": store.journal.expected_nonce(),
    }


def _journalled_document(intent: Intent) -> JournalledTransactionDocument:
    return fill(JournalledTransactionDocument, intent, **_derived_fields(intent))


def _derived_fields(intent: Intent) -> dict[str, object]:
    """Return the fields that are not attributes of the intent."""
    receipt = intent.receipt
    tx = intent.tx
    receipt_fields: dict[str, object] = dict.fromkeys(
        ("block", "succeeded", "gas_used", "gas_price_wei", "gas_cost_wei")
    )
    if receipt is not None:
        receipt_fields = {
            "block": receipt.block_number,
            "succeeded": receipt.status == 1,
            "gas_used": receipt.gas_used,
            "gas_price_wei": str(receipt.effective_gas_price_wei),
            "gas_cost_wei": str(receipt.gas_cost_wei),
        }
    return {
        "open": intent.state in OPEN_STATES,
        "hash": intent.tx_hash or "",
        "note": intent.note_with_reason,
        "max_fee_wei": str(tx.max_gas_price_wei),
        **receipt_fields,
    }


def _traced_document(store: Store, intent: Intent, order_time_s: int) -> TracedTransactionDocument:
    transitions = [
        fill(TransitionDocument, transition) for transition in store.journal.transitions(intent.id)
    ]
    transaction_document = fill(
        TracedTransactionDocument, intent, moves=transitions, **_derived_fields(intent)
    )
    if intent.tx_hash is None and (execution := store.proposals.execution(intent.id)) is not None:
        transaction_document["execution"] = execution.tx_hash
    grant = futures_grant(store.journal.grant(intent.id)) if intent.is_resting else None
    if grant is not None and isinstance(perp_order := grant.action, PerpOrder):
        transaction_document["order"] = journalled_order_document(
            perp_order, grant, intent, order_time_s
        )
    return transaction_document


def backup_store(config: Path | str, backup_path: Path, force: bool = False) -> BackupDocument:
    """Make a consistent copy of the store, which may be in use. Raises ConfigError if the file
    exists, unless `force`.
    """
    loaded_config = load_config(config)
    require_store(loaded_config)
    store_path = _require_file(loaded_config)
    return {"backup": str(backup_path), "bytes": backup.backup(store_path, backup_path, force)}


def restore_store(config: Path | str, backup_path: Path, force: bool = False) -> RestoreDocument:
    """Replace the store by a backup, and keep the earlier store beside it. Nothing is sent until
    the backup is adopted.
    """
    loaded_config = load_config(config)
    chain = loaded_config.config.chain
    wallet = loaded_config.config.wallet.address
    store_path = _require_file(loaded_config)
    with exclusive_locks(loaded_config):
        earlier_store_path = backup.restore(
            backup_path, store_path, wallet, chain.chain_id, REVISIONS, force
        )
    return {
        "store": str(store_path),
        "kept": None if earlier_store_path is None else str(earlier_store_path),
        "next": "trimtab adopt",
    }


def check_store(config: Path | str) -> StoreCheckDocument:
    """Check every page of the store and its consistency. Raises OperatorNeeded if it is damaged."""
    loaded_config = load_config(config)
    require_store(loaded_config)
    store_path = _require_file(loaded_config)
    store_file_info = backup.inspect_store_file(store_path)
    return {
        "store": str(store_path),
        "bytes": store_path.stat().st_size,
        "version": store_file_info.version,
        "present_version": REVISIONS[-1],
        "wallet": store_file_info.wallet,
        "chain_id": store_file_info.chain_id,
        "copy": store_file_info.copy_origin,
    }


@contextmanager
def exclusive_locks(loaded_config: LoadedConfig) -> Iterator[None]:
    """Exclude other processes of the wallet, including runs, while the file is replaced."""
    with (
        service_lock(wiring.wallet_locks(loaded_config)),
        wallet_lock(wiring.wallet_locks(loaded_config)),
    ):
        yield


def require_store(loaded_config: LoadedConfig) -> None:
    """Raise ConfigError if the store of a config has not been created."""
    if not wiring.has_store(loaded_config):
        raise ConfigError(
            f"store.url: there is no store of this wallet: {wiring.store_text(loaded_config)}",
            "the first command that needs a store creates it",
        )


def _require_file(loaded_config: LoadedConfig) -> Path:
    """Return the store's file. Raises ConfigError if it is on PostgreSQL."""
    if sqlite_path(loaded_config.store_url) is None:
        raise ConfigError(
            "store.url: the store is on PostgreSQL, which is backed up, restored and checked as a whole",
            "use pg_dump and pg_restore, or copy this wallet's store: trimtab db copy"
            " sqlite:///copy.db",
        )
    return wiring.store_file(loaded_config)
