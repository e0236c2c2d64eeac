"""Triggers: bands, schedules, market events, the no-trade zone."""
