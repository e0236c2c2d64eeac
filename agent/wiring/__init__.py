"""Names the concrete adapters and puts them together: the only place that knows which chain, store, key and clock are real."""

from agent.wiring.actors import Wallet, locks, open_hands, open_service, open_wallet, settings, signing_rules
from agent.wiring.context import (
    Desk,
    SystemClock,
    books,
    open_desk,
    open_panel,
    open_transport,
    open_transports,
    reopened,
    second_venues,
    store_file,
)

__all__ = [
    "Desk",
    "SystemClock",
    "Wallet",
    "books",
    "locks",
    "open_desk",
    "open_hands",
    "open_panel",
    "open_service",
    "open_transport",
    "open_transports",
    "open_wallet",
    "reopened",
    "second_venues",
    "settings",
    "signing_rules",
    "store_file",
]
