"""Several strategies that share one wallet."""
