"""Pools and liquidity positions, as read from the chain."""
