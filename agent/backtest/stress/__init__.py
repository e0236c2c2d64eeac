"""Stress tests: simulated paths and market breakdowns."""
