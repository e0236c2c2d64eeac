"""Gradual execution: corrections in slices over time (execution.style)."""
