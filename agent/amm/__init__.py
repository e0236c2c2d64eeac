"""Exact pool mathematics: pure integers, names as in the contracts."""
