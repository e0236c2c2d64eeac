"""Deposits, withdrawals, payments, emergency revocation and shutdown."""
