"""Runs of the agent: the cycle under way, and the report."""
