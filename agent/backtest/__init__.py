"""Backtests: the live step on historical prices, with exact simulated pools and the same ledger as
live.
"""
