"""Adoption of the chain's nonce, and what the transactions did that it takes over."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.agent import Agent
from agent.app.cycles import ignore_progress, never_confirm
from agent.errors import READ_FAILURES
from agent.model import Portfolio, Transfer
from agent.ports import Executor
from agent.store.store import Store
from agent.units import decimal_text

if TYPE_CHECKING:
    from agent.app.documents.records import (
        AdoptedNonceDocument,
        AdoptedTransactionDocument,
        AdoptedTransferDocument,
    )

MAX_TRANSACTIONS = 10
"""Adopted transactions that are looked for, the newest; a restored store may lack thousands."""


def adopt(agent: Agent, *, nothing_lost: bool = False) -> AdoptedNonceDocument:
    """Resync to the chain's nonce as `Agent.resync_nonce`, and name the withdrawals that this
    releases, and the transactions of the wallet since the journal's newest.
    """
    store = agent.context.store
    earlier_ids = store.requests.released_by_adoption()
    expected_nonce = store.journal.expected_nonce()
    nonce = agent.resync_nonce(nothing_lost=nothing_lost)
    first_nonce = nonce if expected_nonce is None else max(expected_nonce, nonce - MAX_TRANSACTIONS)
    transactions: list[AdoptedTransactionDocument] = []
    since_block = _newest_block(store, first_nonce)
    with wiring.open_transactor(
        agent.context, never_confirm, ignore_progress, signs=False
    ) as transactor:
        for used_nonce in range(first_nonce, nonce):
            transaction = _transaction(agent, transactor.executor, used_nonce, since_block)
            since_block = transaction["block"] or since_block
            transactions.append(transaction)
    return {
        "nonce": nonce,
        "wallet": agent.context.config.wallet.address,
        "released": sorted(store.requests.released_by_adoption() - earlier_ids),
        "transactions": transactions,
    }


def _newest_block(store: Store, nonce: int) -> int:
    """Return the newest block in which the journal knows `nonce` to be free; 0 if it knows none."""
    block_by_id = store.proposals.proposal_blocks()
    blocks = [block_by_id.get(intent.id, 0) for intent in store.journal.intents_at(nonce)]
    blocks += [
        intent.receipt.block_number
        for intent in store.journal.intents_at(nonce - 1)
        if intent.receipt is not None
    ]
    return max(blocks, default=0)


def _transaction(
    agent: Agent, executor: Executor, nonce: int, since_block: int
) -> AdoptedTransactionDocument:
    intents = agent.context.store.journal.intents_at(nonce)
    intent = next((intent for intent in intents if intent.receipt is not None), None)
    receipt = None if intent is None else intent.receipt
    if intent is None:
        with suppress(*READ_FAILURES):
            receipt = executor.mined_receipt(nonce, since_block)
    wallet = agent.context.config.wallet.address
    transfers = () if receipt is None else receipt.transfers
    return {
        "nonce": nonce,
        "hash": "" if receipt is None else receipt.tx_hash,
        "block": None if receipt is None else receipt.block_number,
        "intent": None if intent is None else intent.id,
        "transfers": [
            _transfer_document(transfer, agent.portfolio)
            for transfer in transfers
            if wallet in (transfer.sender, transfer.recipient)
        ],
    }


def _transfer_document(transfer: Transfer, portfolio: Portfolio) -> AdoptedTransferDocument:
    symbol: str | None = None
    amount: str | None = None
    with suppress(KeyError):
        token = portfolio.token(transfer.token)
        symbol = token.label
        amount = decimal_text(transfer.raw, token.decimals)
    return {
        "token": transfer.token,
        "symbol": symbol,
        "amount": amount,
        "raw": str(transfer.raw),
        "sender": transfer.sender,
        "recipient": transfer.recipient,
    }
