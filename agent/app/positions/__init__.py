"""Conditional orders, liquidity positions and strategies."""
