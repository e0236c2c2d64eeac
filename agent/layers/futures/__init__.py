"""Futures with margin, and hedges that replace sales."""
