"""Futures in a running step: what is sent, skipped and ended."""
