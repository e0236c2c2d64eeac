"""Stores of many wallets in one database of PostgreSQL."""
