"""What was done: steps, transactions, ledger, prices, the store itself."""
