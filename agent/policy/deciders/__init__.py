"""Deciders of the core, by their subject."""
