"""Accounts of the store: the double-entry ledger and the wallet's balances."""
