"""Liquidity positions: amounts to the wei of the contracts, minting, impermanent loss."""
