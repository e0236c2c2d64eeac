"""Transactions from the intent to a final block: sending, waiting, reorgs, replacement, reconciliation."""
