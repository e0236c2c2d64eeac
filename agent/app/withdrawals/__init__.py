"""Withdrawals from evaluation to payment, and those that the config requests."""
