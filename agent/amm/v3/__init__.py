"""Uniswap V3 in integers, with names as in v3-core: math, tick_bitmap, and whole swaps."""
