"""Liquidity positions: exact contract amounts, minting, impermanent loss."""
