"""Composition root: builds the concrete adapters; the only package that knows which chain, store,
key and clock are real.
"""

from agent.wiring.context import (
    AgentContext,
    SystemClock,
    endpoint_attempts,
    open_block_reader,
    open_context,
    open_endpoint_pool,
    open_transport,
    open_transports,
    reopen_context,
)
from agent.wiring.futures import listed_market_numbers
from agent.wiring.signers import require_key_outside_environment, require_signer_has_key
from agent.wiring.stores import (
    has_store,
    is_in_file,
    open_store_offline,
    open_users,
    server_key,
    store_file,
    store_text,
    trades_on_paper_alone,
)
from agent.wiring.transactor import (
    AgentApprover,
    WalletSession,
    hold_wallet_lock,
    open_service_session,
    open_transactor,
    open_wallet_session,
    submission_settings,
    wallet_locks,
)

__all__ = [
    "AgentApprover",
    "AgentContext",
    "SystemClock",
    "WalletSession",
    "endpoint_attempts",
    "has_store",
    "hold_wallet_lock",
    "is_in_file",
    "listed_market_numbers",
    "open_block_reader",
    "open_context",
    "open_endpoint_pool",
    "open_service_session",
    "open_store_offline",
    "open_transactor",
    "open_transport",
    "open_transports",
    "open_users",
    "open_wallet_session",
    "reopen_context",
    "require_key_outside_environment",
    "require_signer_has_key",
    "server_key",
    "store_file",
    "store_text",
    "submission_settings",
    "trades_on_paper_alone",
    "wallet_locks",
]
