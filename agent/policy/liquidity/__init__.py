"""Decisions on liquidity positions."""
