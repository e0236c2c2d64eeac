"""Venues: pool discovery, calldata of SwapRouter02, the Rebalancer and liquidity contracts, and
futures venues.
"""
