"""Reports from the store: steps, transactions, ledger, prices, and the store's file."""
