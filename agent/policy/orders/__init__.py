"""Stop losses, take profits and entries."""
