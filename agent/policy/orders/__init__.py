"""Entries, stop losses, take profits and trailing stops."""
