"""Signals: target weights by functions of the user ([[signals]])."""
