"""Stress tests: simulated paths and stress scenarios."""
