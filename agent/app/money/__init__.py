"""Deposits, withdrawals, the test trade, hard pause, revocation and shutdown."""
