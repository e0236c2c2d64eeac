"""Accounts of the store: the ledger, the wallet's balances, counts of days, streaks of failures."""
