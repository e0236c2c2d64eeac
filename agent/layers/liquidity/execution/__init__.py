"""Liquidity actions in a running step."""
