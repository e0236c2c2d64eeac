"""Conditional orders, limit orders, liquidity positions, strategies and futures."""
