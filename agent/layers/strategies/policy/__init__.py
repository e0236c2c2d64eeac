"""Decisions of several strategies that share one wallet."""
