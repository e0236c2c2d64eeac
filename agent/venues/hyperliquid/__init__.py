"""Hyperliquid: accounts and markets as the model has them, orders with client order ids."""
