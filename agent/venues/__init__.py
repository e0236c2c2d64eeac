"""Venues: pool discovery, and calldata of SwapRouter02, the Rebalancer and liquidity contracts."""
