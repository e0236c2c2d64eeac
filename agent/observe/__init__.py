"""What the outside sees of a running agent: logs, metrics, alerts."""
