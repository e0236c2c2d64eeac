"""Holding: assets that rebalances do not sell for a time after the agent bought them ([holding])."""
