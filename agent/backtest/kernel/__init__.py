"""The compiled kernel and sweeps over it."""
