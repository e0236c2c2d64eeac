"""Uniswap V3 in integers, with names as in v3-core: tick_math, sqrt_price_math, swap_math,
tick_bitmap, and whole swaps.
"""
