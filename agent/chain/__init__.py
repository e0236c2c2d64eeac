"""Talks to nodes: requests, the lens, keys, transactions."""
