"""From a snapshot to a decision: pure."""
