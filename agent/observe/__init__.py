"""Observability of a long run: log lines, metrics, health, heartbeat, watchdog, and alerts."""
