"""Accounts of the store: the ledger, the wallet's balances, budgets, counts of days,
streaks of failures.
"""
