"""Liquidity positions: LP tokens of V2 pairs and positions of V3."""
