"""The double-entry ledger and balances of the store."""
