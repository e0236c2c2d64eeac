"""Hyperliquid: accounts and markets as model types, and orders with client order ids."""
