"""Exact pool mathematics of Uniswap V2 and V3: pure integers, names as in the contracts."""
