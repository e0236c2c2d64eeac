"""The compiled kernel, and parameter sweeps over it."""
