"""When to act: bands, schedules, market events, the no-trade zone."""
